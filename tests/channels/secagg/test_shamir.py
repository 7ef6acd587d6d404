"""Sharing secrets: any t shares give them, t - 1 say nothing, and an altered one is found."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wardround.channels.secagg.shamir import PRIME, SHARE, Joiner, from_bytes, split, to_bytes


def test_the_field_has_a_prime_number_of_elements() -> None:
    # Miller and Rabin with 40 random bases: a composite number passes with a probability below 4^-40
    odd, twos = PRIME - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    draw = random.Random(1)
    for _ in range(40):
        x = pow(draw.randrange(2, PRIME - 1), odd, PRIME)
        assert x in (1, PRIME - 1) or any(pow(x, 2**i, PRIME) == PRIME - 1 for i in range(1, twos))


@given(secret=st.integers(0, 2**256 - 1), threshold=st.integers(1, 12), more=st.integers(0, 8), data=st.data())
def test_any_threshold_of_shares_gives_the_secret(secret: int, threshold: int, more: int, data: st.DataObject) -> None:
    holders = list(range(1, threshold + more + 1))
    shares = dict(zip(holders, split(secret, threshold, holders), strict=True))
    some = data.draw(st.permutations(holders))[:threshold]
    assert Joiner().join({x: shares[x] for x in some}, threshold, lambda found: found == secret) == secret


def test_one_share_too_few_fits_every_secret() -> None:
    holders = [1, 2, 3, 4]
    shares = dict(zip(holders, split(7, 4, holders), strict=True))
    known = {x: shares[x] for x in (1, 2, 3)}
    found = []
    for forged in range(50):  # whatever the fourth share is, it leads to a secret, and to another one each time
        Joiner().join({**known, 4: forged}, 4, lambda value: bool(found.append(value)))
    assert len(set(found)) == 50


@pytest.mark.parametrize(
    ("altered", "recovered", "named"), [(0, True, True), (1, True, True), (2, True, False), (3, False, False)]
)
def test_altered_shares_are_found_as_long_as_enough_are_not(altered: int, recovered: bool, named: bool) -> None:
    holders = list(range(1, 9))
    joiner, bad = Joiner(), set(holders[:altered])
    for secret in (11, 2**255 + 3):
        shares = dict(zip(holders, split(secret, 6, holders), strict=True))
        given_ = {x: share + 1 if x in bad else share for x, share in shares.items()}
        assert joiner.join(given_, 6, lambda found, secret=secret: found == secret) == (secret if recovered else None)
    assert joiner.liars == (
        bad if named else set()
    )  # of two shares too many, one may be wrong for its holder to be certain


def test_liars_whose_errors_cancel_accuse_nobody_else() -> None:
    # Lagrange's coefficients at 0 of 3 and 6 among 2, 3, 5, 6, 7 are both -35/2, so +1 and -1 cancel: with both liars in it,
    # that set gives the secret, and a polynomial that misses the honest 4, 8 and 9
    holders = list(range(2, 10))
    shares = dict(zip(holders, split(5, 5, holders), strict=True))
    shares[3], shares[6] = shares[3] + 1, shares[6] - 1
    joiner = Joiner()
    assert joiner.join({x: shares[x] for x in (2, 3, 5, 6, 7)}, 5, lambda found: found == 5) == 5
    assert joiner.join(shares, 5, lambda found: found == 5) == 5
    assert joiner.liars == set()


def test_the_search_for_honest_shares_ends() -> None:
    tried: list[int] = []
    shares = {x: x * x for x in range(1, 101)}
    assert Joiner().join(shares, 51, lambda value: bool(tried.append(value))) is None
    assert len(tried) == 500


def test_bytes() -> None:
    assert from_bytes(to_bytes(PRIME - 1)) == PRIME - 1
    assert len(to_bytes(0)) == SHARE
    for wrong in (PRIME.to_bytes(SHARE, "big"), b"\xff" * SHARE, bytes(SHARE - 1), b""):
        assert from_bytes(wrong) is None

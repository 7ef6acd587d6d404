"""Wide figures: 128-bit fixed point, compared with exact fractions."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wardround.encoding import wide

_FIGURES = st.floats(min_value=-(2.0**54), max_value=2.0**54, allow_nan=False)


def _fixed(value: float) -> Fraction:
    """What a number becomes: the nearest multiple of 2^-64."""
    return Fraction(round(Fraction(value) * 2**64), 2**64)


@pytest.mark.parametrize("count", [8, 16])
@given(sites=st.lists(st.lists(_FIGURES, min_size=3, max_size=3), min_size=1, max_size=100))
@settings(max_examples=60, deadline=None)
def test_the_sum_is_exact_and_rounded_once(count: int, sites: list[list[float]]) -> None:
    digits = [wide.to_digits(np.array(values), count) for values in sites]
    sums = np.sum([one.astype(np.uint64) for one in digits], axis=0, dtype=np.uint64)
    found = wide.from_sums(sums, count, len(sites))
    for column, value in enumerate(found):
        exact = sum((_fixed(site[column]) for site in sites), Fraction(0))
        assert value == float(exact)  # float() of a Fraction rounds to nearest, ties to even


@given(st.floats(allow_nan=False, allow_infinity=False, min_value=-(2.0**61), max_value=2.0**61))
@settings(max_examples=200, deadline=None)
def test_a_single_figure_is_exact_down_to_the_last_bit(value: float) -> None:
    found = wide.from_sums(wide.to_digits(np.array([value]), 8).astype(np.uint64), 8, 1)[0]
    assert abs(Fraction(float(found)) - Fraction(value)) <= Fraction(1, 2**65)
    if abs(value) >= 2.0**-11:  # its last bit is 2^-64 or more
        assert found == value


def test_the_digits_of_one_are_known() -> None:
    # 1 is 2^64; with the offset 2^127 the limbs of 16 bits are 0 0 0 0 1 0 0 0x8000, least significant first
    assert wide.to_digits(np.array([1.0]), 8).tolist() == [0, 0, 0, 0, 1, 0, 0, 0x8000]
    # -2^-64 is all ones below the offset
    assert wide.to_digits(np.array([-(2.0**-64)]), 8).tolist() == [0xFFFF] * 7 + [0x7FFF]
    assert wide.to_digits(np.array([1.0]), 16).tolist() == [0] * 8 + [1] + [0] * 6 + [0x80]


@pytest.mark.parametrize(("bits", "count"), [(8, 16), (15, 16), (16, 8), (24, 8)])
def test_a_limb_fits_its_digit(bits: int, count: int) -> None:
    assert wide.limbs(bits) == count
    assert 128 // count <= bits


@pytest.mark.parametrize("sites", [1, 3, 100, 1000])
def test_the_largest_sums_come_out(sites: int) -> None:
    most = np.nextafter(wide.bound(sites), 0.0)
    for value in (most, -most):
        digits = wide.to_digits(np.array([value]), 8).astype(np.uint64) * np.uint64(sites)
        assert wide.from_sums(digits, 8, sites)[0] == float(Fraction(value) * sites)


def test_nothing_stays_nothing() -> None:
    assert wide.to_digits(np.zeros(0), 8).shape == (0,)
    assert wide.from_sums(np.zeros(0, dtype=np.uint64), 8, 2).shape == (0,)

import math

import pytest

from tests.channels.he.group import elements
from wardround.channels.he import bfv
from wardround.channels.he.bfv import Cipher
from wardround.channels.he.parameters import SPARE, Parameters, choose, largest_noise, least_budget
from wardround.channels.he.ring import TAGS, Ring, ring_of
from wardround.channels.he.scratch import Scratch
from wardround.channels.he.server import BfvCarrier
from wardround.channels.he.site import SiteBfv
from wardround.channels.home import Home
from wardround.encoding.field import Field
from wardround.errors import ConfigError

CASES = [(bits, sites) for bits in (8, 12, 16, 20, 24) for sites in (3, 4, 10, 30, 100)] + [
    (16, 1000),
    (24, 1000),
    (8, 1000),
]


@pytest.mark.parametrize(("bits", "sites"), CASES)
def test_every_chosen_set_passes_its_known_answer_test(bits, sites):
    field = Field(bits=bits, sites=sites)
    parameters = choose(field)
    assert field.per(parameters.payload) * field.width == parameters.payload  # not a bit of t is unused
    bfv.check(parameters, field)


def test_sixteen_bits_and_a_hundred_sites_share_a_slot_of_46_bits_in_57():
    parameters = choose(Field(bits=16, sites=100))
    assert parameters == Parameters(degree=4096, coefficient=(57,), plain=47)
    ring = Ring(parameters)
    assert (ring.q_bits, ring.primes, ring.slots) == (57, 1, 4096 - TAGS)
    assert ring.modulus == 2**46 + 4 * 8192 + 1  # the least prime = 1 mod 8192 above 2^46


def test_a_last_prime_that_is_kept_for_keys_makes_the_same_ciphertexts():
    ring = Ring(Parameters(degree=4096, coefficient=(59, 50), plain=47))
    assert (ring.q_bits, ring.primes) == (59, 1)
    bfv.check(ring.parameters, Field(bits=16, sites=100))


def test_a_digit_too_wide_for_any_set_is_refused():
    with pytest.raises(ConfigError, match="no parameter set of BFV"):
        choose(Field(bits=24, sites=2**40))


@pytest.mark.parametrize(
    "coefficient",
    [
        (56,),
        (55,),
        (54,),
        (55, 54),
    ],  # 2^56 / 2^46 leaves 10 bits: 8 for the noise of a hundred sites, 1 for its sign, 1 to spare
)
def test_the_known_answer_test_fails_for_a_set_with_too_little_room(coefficient):
    parameters = Parameters(degree=4096, coefficient=coefficient, plain=47)
    with pytest.raises(ConfigError, match=r"n=4096 \[5.*t47: a sum over 100 sites of 16 bits"):
        bfv.check(parameters, Field(bits=16, sites=100))


def test_a_set_that_is_silently_wrong_decrypts_to_another_sum():
    ring = Ring(Parameters(degree=4096, coefficient=(53,), plain=47))
    (values,) = elements(ring.modulus, 1, ring.degree)
    found, budget = Cipher(ring, bytes(64)).trial(values, 100)
    assert budget == 0
    assert (found != values * 100 % ring.modulus).any()


@pytest.mark.parametrize(
    ("parameters", "why"),
    [
        (Parameters(degree=4096, coefficient=(60, 60), plain=47), "security standard"),
        (Parameters(degree=2048, coefficient=(57,), plain=30), "security standard"),
        (Parameters(degree=4096, coefficient=(200,), plain=47), "bit_sizes is invalid"),
        (Parameters(degree=4095, coefficient=(57,), plain=47), "power of two"),
        (Parameters(degree=4096, coefficient=(57,), plain=13), "plaintext modulus above"),
        (Parameters(degree=4096, coefficient=(57,), plain=61), "60 bits or fewer"),
        (Parameters(degree=4096, coefficient=(), plain=47), "n=4096"),
    ],
)
def test_a_set_that_is_insecure_or_impossible_is_refused_by_name(parameters, why):
    with pytest.raises(ConfigError, match=why) as error:
        Ring(parameters)
    assert parameters.name in str(error.value)


def test_a_set_of_the_users_is_tried_at_the_sites_and_refused_at_the_server_where_digits_do_not_fit():
    bad = Parameters(degree=4096, coefficient=(54,), plain=47)
    with pytest.raises(ConfigError, match="leave them out"):
        SiteBfv(Home.simulated(["a", "b", "c"]), bits=16, sites=100, parameters=bad)
    with pytest.raises(ConfigError, match="24 bits a value"):
        BfvCarrier(bits=24, sites=100, parameters=Parameters(degree=4096, coefficient=(40,), plain=25))


def test_more_sites_than_the_set_was_chosen_for_are_refused():
    carrier = BfvCarrier(bits=16, sites=100)
    assert carrier.per_element(Field(bits=16, sites=100)) == 2
    with pytest.raises(ConfigError, match="a sum over 101 sites"):
        carrier.per_element(Field(bits=16, sites=101))


@pytest.mark.parametrize("given", [None, {}, {"degree": 4096, "coefficient": [59.0], "plain": 47}, {"degree": "4096"}])
def test_options_of_another_form_are_refused(given):
    with pytest.raises(ConfigError, match="BFV parameters"):
        Parameters.from_options(given)


def test_options_read_back():
    parameters = Parameters(degree=4096, coefficient=(59, 50), plain=47)
    assert Parameters.from_options(parameters.to_json()) == parameters


@pytest.mark.parametrize("summands", [3, 10, 100])
def test_an_honest_sum_has_the_budget_that_is_demanded_of_it(summands):
    """Twenty sums; the demanded budget is the least that an honest one has, so none may have less."""
    field = Field(bits=16, sites=100)
    ring = ring_of(choose(field))
    cipher = Cipher(ring, bytes(range(64)))
    (values,) = elements(ring.modulus, 1, ring.degree)
    least = least_budget(ring.q_bits, ring.modulus, summands)
    assert least >= SPARE
    budgets = [cipher.trial(values, summands)[1] for _ in range(20)]
    assert min(budgets) >= least
    assert max(budgets) <= least + 2  # so that noise of four times as much does not pass


def test_the_noise_bound_is_seven_and_a_half_deviations_or_the_worst():
    assert largest_noise(1) == 21.5
    assert largest_noise(100) == pytest.approx(75 * math.sqrt(10.5 + 1 / 12))


def test_a_trial_that_went_well_by_luck_is_refused():
    """[59] t50 leaves 1 or 2 bits after a hundred sites, as it happens: so it is refused each time."""
    parameters = Parameters(degree=4096, coefficient=(59,), plain=50)
    ring = Ring(parameters)
    (values,) = elements(ring.modulus, 1, ring.degree)
    assert {Cipher(ring, bytes(64)).trial(values, 100)[1] for _ in range(10)} <= {1, 2}
    for _ in range(5):
        with pytest.raises(ConfigError, match="1 bits of noise budget are sure"):
            bfv.check.__wrapped__(parameters, Field(bits=16, sites=100))


@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_scratch_files_are_private_and_leave_nothing(platform, monkeypatch, tmp_path):
    monkeypatch.setattr("sys.platform", platform)
    monkeypatch.setattr("wardround.channels.he.scratch._MEMORY", tmp_path)
    into = bytearray(10)
    with Scratch() as scratch:
        folders = list(tmp_path.iterdir())
        assert len(folders) == (0 if platform == "linux" else 1)
        assert all(folder.stat().st_mode & 0o777 == 0o700 for folder in folders)
        scratch.put(memoryview(b"longer"))
        scratch.put(memoryview(b"four"))
        assert scratch.take(memoryview(into)) == 4
        assert into[:4] == b"four"
        with pytest.raises(ValueError, match="room for 3"):
            scratch.take(memoryview(into)[:3])
    assert list(tmp_path.iterdir()) == []

"""Random streams: the same numbers for ever, on every machine, whoever else is there."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wardround import streams

SITES = tuple(f"site-{k:03d}" for k in range(200))


def test_numbers_are_pinned() -> None:
    """A change of these changes every run that was ever recorded."""
    assert streams.key("batches", 0, 1) == 0x6B42133D9114884D
    keys = streams.site_keys(("a", "b"))
    assert [hex(k) for k in keys.tolist()] == ["0x376eaece1e1985fe", "0xacf7d11da92c5c43"]
    words = streams.uniform_bits(keys, streams.key("test"), 2)
    assert [[hex(w) for w in row] for row in words.tolist()] == [
        ["0x6047f5f40f18666b", "0x8d0e56a67762a693"],
        ["0x495c028b49ec5a34", "0x98983908259853cb"],
    ]
    assert streams.generator("partition", "iid", 0).integers(0, 1000, 4).tolist() == [313, 288, 775, 42]
    assert streams.cohort(SITES, streams.site_keys(SITES), 4, seed=0, round=0) == (
        "site-051",
        "site-083",
        "site-159",
        "site-168",
    )


def test_a_word_is_the_splitmix64_finaliser_of_its_name() -> None:
    """The definition, in Python's own integers: base = mix(key ^ mix(purpose)), word j = mix(base + j golden)."""
    mask = 2**64 - 1

    def mix(value: int) -> int:
        value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & mask
        value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & mask
        return value ^ (value >> 31)

    keys, purpose = streams.site_keys(("a", "b")), streams.key("test")
    for row, key in zip(streams.uniform_bits(keys, purpose, 5).tolist(), keys.tolist(), strict=True):
        base = mix(key ^ mix(purpose))
        assert row == [mix((base + j * 0x9E3779B97F4A7C15) & mask) for j in range(1, 6)]


def test_parts_of_a_name_are_kept_apart() -> None:
    assert streams.key("a", "bc") != streams.key("ab", "c")
    assert streams.key("a", 1) == streams.key("a", "1")


def test_a_stream_is_the_same_in_any_company_and_to_any_length() -> None:
    keys, purpose = streams.site_keys(SITES), streams.key("test")
    together = streams.uniform_bits(keys, purpose, 50)
    assert np.array_equal(streams.uniform_bits(keys[7:9], purpose, 20), together[7:9, :20])
    assert streams.uniform_bits(keys, purpose, 0).shape == (200, 0)


def test_words_are_uniform() -> None:
    """Chi-squared over 256 bins of 2e5 words: 255 degrees of freedom, so 255 +- 22.6; four deviations either way."""
    words = streams.uniform_bits(streams.site_keys(SITES), streams.key("uniformity"), 1000).reshape(-1)
    for shift in (0, 28, 56):
        counts = np.bincount(((words >> np.uint64(shift)) & np.uint64(255)).astype(np.int64), minlength=256)
        expected = len(words) / 256
        statistic = float(((counts - expected) ** 2 / expected).sum())
        assert 165 < statistic < 345
    assert len(np.unique(words)) == len(words)


def test_every_site_is_asked_equally_often() -> None:
    """400 rounds, 20 of 200 sites: a site is asked 40 +- 6 times (binomial, 400 x 0.1 x 0.9 = 36 = 6^2)."""
    keys = streams.site_keys(SITES)
    asked = [site for r in range(400) for site in streams.cohort(SITES, keys, 20, seed=1, round=r)]
    counts = np.array([asked.count(site) for site in SITES])
    assert counts.sum() == 8000
    assert counts.min() > 40 - 5 * 6
    assert counts.max() < 40 + 5 * 6
    # over 200 sites the variance has a deviation of 36 sqrt(2 / 199) = 3.6
    assert 36 - 5 * 3.6 < counts.var() < 36 + 5 * 3.6


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 40), st.integers(0, 39), st.integers(0, 5), st.integers(0, 50))
def test_removing_a_site_keeps_the_choice_among_the_others(size: int, gone: int, seed: int, number: int) -> None:
    """The others' ranks stay: who was asked is asked still, and the place of the one removed goes to the next in rank."""
    sites = SITES[:40]
    rest = sites[:gone] + sites[gone + 1 :]
    before = streams.cohort(sites, streams.site_keys(sites), size, seed=seed, round=number)
    after = streams.cohort(rest, streams.site_keys(rest), size, seed=seed, round=number)
    assert set(before) - {sites[gone]} <= set(after)
    assert len(set(after) - set(before)) <= 1


def test_a_cohort_is_canonical_and_of_its_size() -> None:
    keys = streams.site_keys(SITES)
    for size in (1, 7, 199):
        chosen = streams.cohort(SITES, keys, size, seed=3, round=2)
        assert len(chosen) == size
        assert list(chosen) == sorted(chosen)
    assert streams.cohort(SITES, keys, 200, seed=3, round=2) == SITES
    assert streams.cohort(SITES, keys, 500, seed=3, round=2) == SITES


@pytest.mark.parametrize("change", [{"seed": 4, "round": 2}, {"seed": 3, "round": 3}])
def test_seed_and_round_change_the_cohort(change: dict[str, int]) -> None:
    keys = streams.site_keys(SITES)
    assert streams.cohort(SITES, keys, 20, **change) != streams.cohort(SITES, keys, 20, seed=3, round=2)

"""The mean and deviation of pictures by channel, from sums that add up over sites."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from wardround.config.job import PreprocessingSpec
from wardround.data.standardize import (
    Standardization,
    Statistics,
    channel_means,
    check,
    first_statistics,
    fit,
    fitted_from_json,
    second_statistics,
)
from wardround.errors import ConfigError, DataError
from wardround.types import Column, Description


def added(each: list[Statistics]) -> Statistics:
    return {name: np.sum([one[name] for one in each], axis=0) for name in each[0]}


def drawn(counts: list[int], sizes: tuple[int, ...], seed: int) -> list[NDArray[Any]]:
    random = np.random.default_rng(seed)
    return [5.0 * k + (1 + k) * random.normal(size=(n, 2, *sizes)) for k, n in enumerate(counts)]


@given(
    counts=st.lists(st.integers(0, 9), min_size=1, max_size=5).filter(any),
    sizes=st.sampled_from([(3, 4), (2, 3, 2)]),
    seed=st.integers(0, 99),
)
def test_ragged_sites_in_any_blocks_give_what_numpy_gives_of_all_rows(
    counts: list[int], sizes: tuple[int, ...], seed: int
) -> None:
    sites = drawn(counts, sizes, seed)
    blocks = [np.array_split(rows, 3) for rows in sites]
    first = added([first_statistics(own, 2) for own in blocks])
    second = added([second_statistics(own, channel_means(first)) for own in blocks])
    found, axes = fit(first, second, "global"), (0, *range(2, 2 + len(sizes)))
    merged = np.concatenate(sites)
    assert found.mean == pytest.approx(merged.mean(axis=axes), rel=1e-9)
    assert found.scale == pytest.approx(merged.std(axis=axes), rel=1e-9)


def test_a_constant_channel_and_no_rows_are_divided_by_one() -> None:
    rows = np.stack([np.full((7, 3, 3), 0.1), np.arange(63.0).reshape(7, 3, 3)], axis=1)
    first = first_statistics([rows], 2)
    found = fit(first, second_statistics([rows], channel_means(first)), "global")
    assert found.scale == (1.0, pytest.approx(np.arange(63.0).std()))
    none = first_statistics([], 2)
    assert fit(none, second_statistics([], channel_means(none)), "site") == Standardization(
        by="site", mean=(0.0, 0.0), scale=(1.0, 1.0)
    )


def test_a_pixel_that_is_no_number_is_told() -> None:
    rows = np.zeros((2, 3, 2, 2))
    rows[1, 2, 0, 0] = np.nan
    with pytest.raises(DataError, match="channel 2 of the pictures"):
        first_statistics([rows], 3)


def test_it_comes_back_from_json_and_nothing_else_does() -> None:
    found = Standardization(by="site", mean=(0.5, 0.25), scale=(1.0, 2.0))
    assert fitted_from_json(found.to_json()) == found
    for change in (
        {"pictures": "none"},
        {"mean": [0.0]},
        {"scale": [1.0, 0.0]},
        {"mean": [0.0, float("nan")]},
        {"mean": 3},
    ):
        with pytest.raises(DataError, match="not a saved standardisation"):
            fitted_from_json({**found.to_json(), **change})
    with pytest.raises(DataError, match="not a saved preprocessing"):
        fitted_from_json({"mean": [0.0]})


@pytest.mark.parametrize("by", ["global", "site"])
def test_a_table_is_refused(by: str) -> None:
    facts = {"name": "ward", "title": "", "source": "", "licence": "", "sites": ("a",)}
    spec = PreprocessingSpec.model_validate({"pictures": by})
    with pytest.raises(ConfigError, match=f"data.preprocessing.pictures = {by}.*ward is a table.*standardize"):
        check(spec, Description(**facts, columns=(Column(name="age", kind="numeric"),)))
    with pytest.raises(ConfigError, match=r"rows of shape \(9,\)"):
        check(spec, Description(**facts, shape=(9,)))
    check(spec, Description(**facts, shape=(1, 8, 8)))
    check(PreprocessingSpec(), Description(**facts, shape=(9,)))

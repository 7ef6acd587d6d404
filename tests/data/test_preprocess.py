import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from wardround.config.job import PreprocessingSpec
from wardround.data.preprocess import (
    Preprocessing,
    Statistics,
    column_means,
    first_statistics,
    fit,
    second_statistics,
)
from wardround.errors import ConfigError, DataError
from wardround.types import Column

nan = np.nan
derandomized = settings(derandomize=True, database=None, deadline=None, max_examples=60)
COLUMNS = (
    Column(name="age"),
    Column(name="cp", kind="categorical", levels=("1", "2", "3")),
    Column(name="chol"),
    Column(name="sex", kind="categorical", levels=("0", "1")),
)
ROWS = np.array([[1.0, 0, 4, 1], [3, 2, nan, 0], [5, 2, 8, 1], [7, nan, 6, 1]])


def _add(parts: list[Statistics]) -> Statistics:
    return {name: np.sum([part[name] for part in parts], axis=0) for name in parts[0]}


def _fit(
    parts: list[NDArray[np.float64]], columns: tuple[Column, ...] = COLUMNS, gaps: Any = None, **spec: Any
) -> Preprocessing:
    first = _add([first_statistics(columns, part) for part in parts])
    second = _add([second_statistics(columns, part, column_means(first)) for part in parts])
    return fit(columns, first, second, PreprocessingSpec(**spec), gaps=gaps)


def test_statistics_by_hand() -> None:
    first = first_statistics(COLUMNS, ROWS)
    assert {name: value.tolist() for name, value in first.items()} == {
        "count": [4, 3, 3, 4],
        "sum": [16, 0, 18, 0],
        "missing": [0, 1, 1, 0],
        "levels": [1, 0, 2, 1, 3],
    }
    mean = column_means(first)
    assert mean.tolist() == [4, 0, 6, 0]
    # age: 9 + 1 + 1 + 9; chol: 4 + 4 + 0
    assert second_statistics(COLUMNS, ROWS, mean)["squares"].tolist() == [20, 0, 8, 0]
    assert all(value.dtype == np.float64 for value in first.values())


def test_only_the_rows_kept_count() -> None:
    keep = np.array([True, False, True, False])
    whole, part = first_statistics(COLUMNS, ROWS, keep), first_statistics(COLUMNS, ROWS[[0, 2]])
    assert {name: value.tolist() for name, value in whole.items()} == {n: v.tolist() for n, v in part.items()}
    mean = column_means(part)
    np.testing.assert_array_equal(
        second_statistics(COLUMNS, ROWS, mean, keep)["squares"],
        second_statistics(COLUMNS, ROWS[[0, 2]], mean)["squares"],
    )


def test_transform_by_hand() -> None:
    fitted = _fit([ROWS], indicators=True)
    assert fitted.names == ("age", "cp=2", "cp=3", "chol", "sex=1", "cp missing", "chol missing")
    # cp: levels 1, 0, 2 with one gap that becomes '3' -> p = 0 for '2' (constant: scale 1) and 3/4 for '3'
    # chol: mean 6, deviation sqrt(8/3) over the three present; sex: p = 3/4
    assert fitted.fill == (4, 2, 6, 1)
    share = np.sqrt(3 / 16)
    expected = [
        [-3 / np.sqrt(5), 0, -0.75 / share, -2 / np.sqrt(8 / 3), 0.25 / share, 0, 0],
        [-1 / np.sqrt(5), 0, 0.25 / share, 0, -0.75 / share, 0, 1],
        [1 / np.sqrt(5), 0, 0.25 / share, 2 / np.sqrt(8 / 3), 0.25 / share, 0, 0],
        [3 / np.sqrt(5), 0, 0.25 / share, 0, 0.25 / share, 1, 0],
    ]
    np.testing.assert_allclose(fitted.transform(ROWS), expected, rtol=1e-15, atol=1e-15)


def test_without_standardisation_values_stay_raw() -> None:
    fitted = _fit([ROWS], standardize="none")
    np.testing.assert_array_equal(
        fitted.transform(ROWS), [[1, 0, 0, 4, 1], [3, 0, 1, 6, 0], [5, 0, 1, 8, 1], [7, 0, 1, 6, 1]]
    )


@st.composite
def _tables(draw: st.DrawFn) -> tuple[NDArray[np.float64], list[int]]:
    rows = draw(st.integers(1, 30))
    numbers = arrays(np.float64, (rows, 2), elements=st.floats(-1e6, 1e6, width=32) | st.just(nan))
    levels = arrays(np.float64, (rows, 2), elements=st.sampled_from([0.0, 1.0, nan]))
    table = np.stack([*draw(numbers).T, *draw(levels).T], axis=1)[:, [0, 2, 1, 3]]
    return table, sorted(draw(st.lists(st.integers(0, rows), max_size=4)))


@derandomized
@given(_tables(), st.sampled_from(["global", "none"]), st.booleans())
def test_sums_over_sites_fit_what_the_union_fits(
    case: tuple[NDArray[np.float64], list[int]], standardize: Any, indicators: bool
) -> None:
    table, cuts = case
    union = _fit([table], standardize=standardize, indicators=indicators)
    summed = _fit(np.split(table, cuts), standardize=standardize, indicators=indicators)
    assert summed.names == union.names
    assert summed.gaps == union.gaps
    # relative to the size of the numbers that were added
    size = np.nanmax(np.abs(np.append(table, 1.0)))
    for name in ("fill", "mean", "scale"):
        np.testing.assert_allclose(getattr(summed, name), getattr(union, name), rtol=1e-12, atol=1e-12 * size)


@derandomized
@given(arrays(np.float64, (12, 2), elements=st.integers(-1000, 1000).map(float)), st.floats(-1e6, 1e6))
def test_training_rows_have_mean_zero_and_variance_one(numbers: NDArray[np.float64], shift: float) -> None:
    codes = np.arange(12)[:, None] % np.array([3, 2])
    table = np.concatenate([numbers + shift, codes], axis=1)[:, [0, 2, 1, 3]]
    features = _fit([table]).transform(table)
    np.testing.assert_allclose(features.mean(axis=0), 0.0, atol=1e-9)
    constant = [bool((column == column[0]).all()) for column in numbers.T]
    expected = [0.0 if constant[0] else 1.0, 1.0, 1.0, 0.0 if constant[1] else 1.0, 1.0]
    np.testing.assert_allclose(features.var(axis=0), expected, atol=1e-9)


def test_equals_scikit_learn_on_the_pooled_rows() -> None:
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rng = np.random.default_rng(0)
    table = rng.normal(50.0, 9.0, (200, 3))
    table[rng.random((200, 3)) < 0.2] = nan
    columns = tuple(Column(name=name) for name in "abc")
    # a scaler that skips gaps, then gaps to the mean, which is 0 by then
    expected = make_pipeline(StandardScaler(), SimpleImputer()).fit_transform(table)
    np.testing.assert_allclose(_fit(np.split(table, [17, 90]), columns).transform(table), expected, atol=1e-12)


def test_two_passes_are_stable_far_from_zero() -> None:
    # deviation 1 around 1e9: a difference of sums of squares (1e18) has no digit left for it
    table = 1e9 + np.array([[-1.0], [1.0], [-1.0], [1.0]])
    fitted = _fit([table[:1], table[1:]], (Column(name="x"),))
    assert fitted.scale == (1.0,)


def test_a_constant_column_is_not_blown_up_by_rounding() -> None:
    columns, table = (Column(name="x"),), np.full((10, 1), 0.1)
    # a sum that is one rounding error off puts the mean 1.4e-17 from every entry, and so is the deviation
    first = {**first_statistics(columns, table), "sum": np.array([1.0 + 2.0**-52])}
    mean = column_means(first)
    assert mean[0] != 0.1
    fitted = fit(columns, first, second_statistics(columns, table, mean), PreprocessingSpec())
    assert fitted.scale == (1.0,)
    assert np.abs(fitted.transform(table)).max() < 1e-15


def test_columns_without_any_entry_become_zero() -> None:
    empty = np.full((3, 4), nan)
    fitted = _fit([empty])
    assert fitted.fill == (0, 0, 0, 0)
    np.testing.assert_array_equal(fitted.transform(empty), np.zeros((3, 5)))
    nobody = _fit([np.zeros((0, 4))])
    np.testing.assert_array_equal(nobody.transform(empty), np.zeros((3, 5)))
    assert nobody.transform(np.zeros((0, 4))).shape == (0, 5)


def test_a_site_s_own_fit_takes_the_federation_s_gaps() -> None:
    federation = _fit([ROWS], indicators=True)
    complete = ROWS[[0, 2]]
    own = _fit([complete], indicators=True, standardize="site", gaps=federation.gaps)
    assert own.names == federation.names
    np.testing.assert_array_equal(own.transform(complete)[:, -2:], 0.0)


def test_fixed_point_noise_in_counts_is_rounded_away() -> None:
    first = first_statistics(COLUMNS, ROWS)
    second = second_statistics(COLUMNS, ROWS, column_means(first))
    noisy = {name: value + (0.0 if name == "sum" else 1e-6) for name, value in first.items()}
    spec = PreprocessingSpec(indicators=True)
    assert fit(COLUMNS, noisy, second, spec) == fit(COLUMNS, first, second, spec)


def test_dropped_columns_leave() -> None:
    fitted = _fit([ROWS], drop=("cp", "chol"), impute="none", indicators=True)
    assert fitted.names == ("age", "sex=1")
    assert fitted.transform(ROWS).shape == (4, 2)


def test_json_round_trip_is_exact() -> None:
    fitted = _fit([ROWS], indicators=True, drop=("age",))
    again = Preprocessing.from_json(json.loads(json.dumps(fitted.to_json())))
    assert again == fitted
    np.testing.assert_array_equal(again.transform(ROWS), fitted.transform(ROWS))


@pytest.mark.parametrize(
    ("key", "value"),
    [("fill", [1.0]), ("mean", [0.0]), ("scale", None), ("columns", [{"name": "x"}]), ("spec", {"impute": "median"})],
)
def test_a_damaged_save_is_refused(key: str, value: Any) -> None:
    tree = _fit([ROWS]).to_json()
    with pytest.raises(DataError, match="not a saved preprocessing"):
        Preprocessing.from_json({**tree, key: value})


def test_gaps_are_refused_without_imputation() -> None:
    with pytest.raises(DataError, match=r"'cp' \(1\), 'chol' \(1\)"):
        _fit([ROWS], impute="none")
    fitted = _fit([ROWS[[0, 2]]], impute="none")
    with pytest.raises(DataError, match=r"'chol' \(1\)"):
        fitted.transform(ROWS[:2])


def test_drop_names_are_checked() -> None:
    with pytest.raises(ConfigError, match="'chool': did you mean 'chol'"):
        _fit([ROWS], drop=("chool",))
    with pytest.raises(ConfigError, match="leaves no feature"):
        _fit([ROWS], drop=tuple(column.name for column in COLUMNS))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([np.inf, 0, 0, 0], "column 'age' has 1 infinite"),
        ([0, 3, 0, 0], r"column 'cp' holds 3: expected level indices 0\.\.2"),
        ([0, 0.5, 0, 0], "column 'cp' holds 0.5"),
        ([0, -1, 0, 0], "column 'cp' holds -1"),
        ([0, 0, 0], r"expected \[n, 4\]"),
    ],
)
def test_malformed_rows_are_refused(row: list[float], message: str) -> None:
    with pytest.raises(DataError, match=message):
        first_statistics(COLUMNS, np.array([row]))
    with pytest.raises(DataError, match=message):
        _fit([ROWS]).transform(np.array([row]))


def test_totals_that_do_not_fit_are_refused() -> None:
    first = first_statistics(COLUMNS, ROWS)
    second = second_statistics(COLUMNS, ROWS, column_means(first))
    spec = PreprocessingSpec()
    with pytest.raises(DataError, match="'levels'"):
        fit(COLUMNS, {**first, "levels": np.zeros(2)}, second, spec)
    with pytest.raises(DataError, match="'squares' is absent"):
        fit(COLUMNS, first, {}, spec)
    with pytest.raises(DataError, match="'sum' is not finite"):
        fit(COLUMNS, {**first, "sum": np.full(4, np.inf)}, second, spec)
    with pytest.raises(DataError, match="gap flags"):
        fit(COLUMNS, first, second, spec, gaps=(True,))
    with pytest.raises(DataError, match="one mean a column"):
        second_statistics(COLUMNS, ROWS, np.zeros(2))
    with pytest.raises(DataError, match="one flag a row"):
        first_statistics(COLUMNS, ROWS, np.ones(3, dtype=bool))

"""One pass in bounded memory: exact where it says so, right where it samples."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas
import pytest

from wardround.data.profile import scan as module
from wardround.data.profile.cross import cross
from wardround.data.profile.distinct import DistinctSample, mixed
from wardround.data.profile.facts import facts
from wardround.data.profile.scan import as_numbers, scan


def chunked(frame: pandas.DataFrame, rows: int) -> Iterator[pandas.DataFrame]:
    for start in range(0, len(frame), rows):
        yield frame.iloc[start : start + rows]


def table(rows: int) -> pandas.DataFrame:
    draw = np.random.default_rng(0)
    return pandas.DataFrame(
        {
            "id": [f"p{number}" for number in range(rows)],
            "value": [
                " ? " if number % 10 == 0 else f"{value:.3f}" for number, value in enumerate(draw.normal(size=rows))
            ],
            "site": [f"s{number % 7}" for number in range(rows)],
            "gap": [None if number % 4 == 0 else "x" for number in range(rows)],
        },
        dtype=object,
    )


@pytest.mark.parametrize("rows", [7, 100, 1000])
def test_the_size_of_chunks_changes_nothing(rows: int) -> None:
    frame = table(1000)
    whole, parts = (scan(list(frame), chunked(frame, size)) for size in (1000, rows))
    assert parts.rows == whole.rows == 1000
    assert parts.whole
    pandas.testing.assert_frame_equal(parts.sample, whole.sample)
    for name in frame:
        one, other = parts.columns[name], whole.columns[name]
        assert one.gaps == other.gaps
        assert one.values.counts == other.values.counts
        assert (one.numbers, one.least, one.greatest) == (other.numbers, other.least, other.greatest)
    assert parts.columns["value"].gaps == {"?": 100}
    assert parts.columns["gap"].missing == 250


def test_a_large_table_is_sampled_and_still_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ROWS", (500, 500))
    monkeypatch.setattr(module, "CAPACITY", 500)
    monkeypatch.setattr(module, "_VALUES", 0)
    frame = table(20_000)
    found = scan(list(frame), chunked(frame, 999))
    assert (found.rows, found.whole, len(found.sample)) == (20_000, False, 500)
    columns = facts(found, {})
    assert not columns["id"].scan.values.exact
    # 250 to 500 values are kept: a standard error of 6 % at most
    assert columns["id"].distinct == pytest.approx(20_000, rel=0.2)
    assert columns["id"].scan.values.distinct >> columns["id"].scan.values.level <= 500
    assert columns["site"].scan.values.exact
    assert columns["site"].counts == {f"s{k}": 20_000 // 7 + (k < 20_000 % 7) for k in range(7)}
    assert columns["value"].missing == 2000
    # a uniform sample: the mean row is in the middle, 3.5 standard errors of 20000 / sqrt(12 x 500)
    places = [int(name[1:]) for name in found.sample["id"]]
    assert places == sorted(places)
    assert abs(np.mean(places) - 10_000) < 3.5 * 258


def test_rows_that_come_again_are_counted() -> None:
    frame = table(300)
    again = pandas.concat([frame, frame.iloc[:40], frame.iloc[:10]])
    assert scan(list(frame), chunked(again, 64)).repeated == 50
    assert scan(list(frame), chunked(frame, 64)).repeated == 0


def test_columns_that_swap_are_different_rows() -> None:
    frame = pandas.DataFrame({"a": ["1", "2"], "b": ["2", "1"]}, dtype=object)
    assert scan(["a", "b"], [frame]).repeated == 0


def test_nothing_at_all() -> None:
    found = scan(["a"], [])
    assert (found.rows, found.whole, len(found.sample), found.repeated) == (0, True, 0, 0)


def test_distinct_values_beyond_the_capacity_are_estimated() -> None:
    sample = DistinctSample(capacity=1000)
    for start in range(0, 50_000, 5000):
        numbers = np.arange(start, start + 5000)
        sample.add(numbers.tolist(), np.full(5000, 2), mixed(numbers.astype(np.uint64)))
    assert not sample.exact
    assert len(sample.counts) <= 1000
    # at least 500 kept: a standard error of 4.5 %
    assert sample.distinct == pytest.approx(50_000, rel=0.15)
    assert sample.repeated == sample.distinct
    assert set(sample.counts.values()) == {2}


def test_numbers_with_commas_and_units() -> None:
    cells = np.array(["1.234,5", "7", "-0,5", "x", "inf", "1_0", ""], dtype=object)
    np.testing.assert_array_equal(as_numbers(cells, ","), [1234.5, 7, -0.5] + [np.nan] * 4)
    np.testing.assert_array_equal(as_numbers(np.array(["060Y", "61", "Y"], dtype=object), unit="Y"), [60, 61, np.nan])


def test_counts_by_site_are_exact_whatever_the_chunks() -> None:
    frame = table(700)
    frame["label"] = ["1" if number % 3 == 0 else "0" for number in range(700)]
    frame["who"] = [f"w{number // 2}" for number in range(700)]
    found = [
        cross(chunked(frame, rows), ["gap", "value"], site="site", label="label", patient="who") for rows in (700, 13)
    ]
    assert found[0] == found[1]
    assert found[0].rows == dict.fromkeys((f"s{k}" for k in range(7)), 100)
    assert found[0].classes["s0"].total() == 100
    assert sum(counts["gap"] for counts in found[0].gaps.values()) == 175
    # two rows a patient, at neighbouring sites
    assert (found[0].shared, found[0].patients) == (350, 350)


def test_codes_are_gaps_by_site() -> None:
    frame = pandas.DataFrame({"site": ["a", "a", "b"], "chol": ["0.0", "200", "0"]}, dtype=object)
    found = cross([frame], ["chol"], site="site", label=None, patient=None, codes={"chol": frozenset("0")})
    assert {site: counts["chol"] for site, counts in found.gaps.items()} == {"a": 1, "b": 1}

"""Intervals over seeds, by hand and against scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from wardround.comparison.statistics import holm, mean

VALUES = [0.91, 0.93, 0.90, 0.95, 0.92]


def test_without_shared_rows_it_is_students_interval() -> None:
    found = mean(VALUES, 0.0)
    low, high = stats.t.interval(0.95, 4, loc=np.mean(VALUES), scale=stats.sem(VALUES))
    assert (found.value, found.low, found.high) == pytest.approx((np.mean(VALUES), low, high))
    assert mean([v - 0.92 for v in VALUES], 0.0).p == pytest.approx(stats.ttest_1samp(VALUES, 0.92).pvalue)


def test_shared_rows_widen_it_by_nadeau_and_bengio() -> None:
    plain, corrected = mean(VALUES, 0.0), mean(VALUES, 0.25)
    assert plain.high is not None
    assert corrected.high is not None
    assert plain.value is not None
    widened = (corrected.high - plain.value) / (plain.high - plain.value)
    assert widened == pytest.approx(math.sqrt((1 / 5 + 0.25) / (1 / 5)))


def test_it_is_cut_where_the_quantity_ends() -> None:
    found = mean([0.99, 1.0], 0.25, (0.0, 1.0))
    assert found.high == 1.0
    assert found.low == 0.0 or (found.low is not None and found.low > 0.0)


def test_one_seed_has_no_interval() -> None:
    assert mean([0.9], 0.3).low is None
    assert mean([0.9], 0.3).value == 0.9
    assert mean([], 0.3).value is None


def test_no_difference_at_all_is_no_evidence() -> None:
    assert mean([0.0, 0.0, 0.0], 0.3).p == 1.0
    assert mean([0.5, 0.5, 0.5], 0.3).p == 0.0


def test_holm_by_hand() -> None:
    found = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": None})
    assert found["a"] == pytest.approx(0.03)  # x 3
    assert found["c"] == pytest.approx(0.06)  # x 2
    assert found["b"] == pytest.approx(0.06)  # x 1, and never below the one before it
    assert found["d"] is None

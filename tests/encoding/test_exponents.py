"""Histograms of exponents."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wardround.encoding import exponents


@given(st.floats(min_value=2.0**-39, max_value=2.0**23))
def test_the_exponent_is_the_smallest_that_bounds(peak: float) -> None:
    e = exponents.exponent(peak)
    assert 2.0 ** (e - 1) < peak <= 2.0**e


@pytest.mark.parametrize(
    ("peak", "e"),
    [(0.0, -40), (2.0**-60, -40), (2.0**-40, -40), (1.0, 0), (1.0 + 2**-52, 1), (2.0**23, 23), (1e30, 23)],
)
def test_ends_and_powers_of_two(peak: float, e: int) -> None:
    assert exponents.exponent(peak) == e


@given(st.lists(st.floats(min_value=0.0, max_value=1e6), min_size=1, max_size=100))
def test_the_sum_tells_the_largest(peaks: list[float]) -> None:
    sums = sum((exponents.one_hot(peak).astype(np.uint64) for peak in peaks), np.zeros(64, np.uint64))
    e = exponents.largest(sums)
    assert e == exponents.exponent(max(peaks))
    assert int(sums.sum()) == len(peaks)
    assert max(peaks) <= math.ldexp(1.0, e)

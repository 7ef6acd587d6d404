"""Update-like arrays: one digit an element, or two, in fixed point within a public bound.

    digit = round(v / 2^e (2^(b-1) - 1)) + 2^(b-1),    v in [-2^e, 2^e]

A quantum is 2^e / (2^(b-1) - 1). A sum over m sites is off by at most m / 2 quanta with rounding to the nearest, and by less
than m with stochastic rounding, which is unbiased (Gupta et al., Deep learning with limited numerical precision, ICML 2015).

What accumulates is coded finely: the same with 2 b bits, cut into two digits whose sums are put together again.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

LEAST_EXPONENT, MOST_EXPONENT = -120, 120


def quantum(exponent: int, bits: int) -> float:
    """The distance of two neighbouring values."""
    return math.ldexp(1.0, exponent) / ((1 << (bits - 1)) - 1)


def quantise(
    values: Values, peak: float, exponent: int, bits: int, draws: NDArray[np.float32] | None
) -> tuple[NDArray[np.uint32], int]:
    """Digits of `values`, which are spent: the array is used as scratch.

    Args:
        values: [n], finite.
        peak: their largest magnitude.
        exponent: of the bound, -120 to 120.
        bits: of a digit, 8 to 24.
        draws: uniform in [0, 1), [n], for stochastic rounding; None rounds to the nearest.

    Returns:
        digits, uint32 [n], from 1 to 2^bits - 1; and how many values lay outside the bound and were clipped.
    """
    top = (1 << (bits - 1)) - 1
    clipped = _clip(values, peak, exponent)
    values *= math.ldexp(top, -exponent)
    if draws is None:
        np.rint(values, out=values)
    else:
        # 24-bit draws: the largest value and the largest draw still add up exactly, below the next digit
        values += draws
        np.floor(values, out=values)
    values += top + 1
    return values.astype(np.int32).view(np.uint32), clipped


def quantise_fine(values: Values, peak: float, exponent: int, bits: int) -> tuple[NDArray[np.uint32], int]:
    """Two digits of each of `values`, which are spent: the higher first, [2 n]; and how many values were clipped."""
    top = (1 << (2 * bits - 1)) - 1
    clipped = _clip(values, peak, exponent)
    values *= math.ldexp(top, -exponent)
    np.rint(values, out=values)
    whole = values.astype(np.int64)
    whole += top + 1
    digits = np.empty(2 * len(values), dtype=np.uint32)
    digits[0::2] = whole >> bits
    digits[1::2] = whole & ((1 << bits) - 1)
    return digits, clipped


def dequantise_fine(sums: NDArray[np.uint64], sites: int, exponent: int, bits: int) -> Values:
    """The sums of values, [n], from the sums of their digits, [2 n]."""
    whole = (sums[0::2] << np.uint64(bits)) + sums[1::2]
    values = (whole.astype(np.int64) - (sites << (2 * bits - 1))).astype(np.float64)
    values *= quantum(exponent, 2 * bits)
    return values


def dequantise(sums: NDArray[np.uint64], sites: int, exponent: int, bits: int) -> Values:
    """The sums of values, from the sums of their digits, [n]."""
    values = sums.astype(np.float64)
    values -= float(sites << (bits - 1))
    values *= quantum(exponent, bits)
    return values


def _clip(values: Values, peak: float, exponent: int) -> int:
    """Cut values off at 2^exponent, in place; how many were."""
    bound = math.ldexp(1.0, exponent)
    if peak <= bound:
        return 0
    clipped = int(np.count_nonzero(values > bound)) + int(np.count_nonzero(values < -bound))
    np.clip(values, -bound, bound, out=values)
    return clipped

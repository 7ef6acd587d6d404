"""How large an array's values are, as a one-hot histogram: what the next round's bounds are chosen from.

A site's bin is clamp(ceil(log2(largest magnitude)) + 40, 0, 63), and 0 where all values are zero. The sum over sites tells the
largest exponent of any site, and how many sites have which, but not whose it is.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from wardround.encoding.layout import BINS

LEAST = -40
"""The exponent of bin 0."""


def exponent(peak: float) -> int:
    """The smallest e with peak <= 2^e, within what the histogram can hold: -40 to 23."""
    if peak <= 0.0:
        return LEAST
    mantissa, power = math.frexp(peak)
    return min(max(power - (mantissa == 0.5), LEAST), LEAST + BINS - 1)


def one_hot(peak: float) -> NDArray[np.uint32]:
    """One site's histogram, uint32 [64]."""
    digits = np.zeros(BINS, dtype=np.uint32)
    digits[exponent(peak) - LEAST] = 1
    return digits


def largest(sums: NDArray[np.uint64]) -> int:
    """The largest exponent of any site in a sum of histograms [64]; -40 for an empty one."""
    return LEAST + int(np.flatnonzero(sums).max(initial=0))

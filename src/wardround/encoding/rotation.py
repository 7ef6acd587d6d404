"""A randomised Hadamard rotation, which spreads an array's norm evenly over its entries before they are quantised.

    rotate(v) = H D v / sqrt(n),    restore(w) = D H w / sqrt(n)

D holds random signs from a public seed, H is Sylvester's Hadamard matrix. It is linear and orthonormal, so a sum of rotated
arrays is the rotated sum. Ailon and Chazelle, The fast Johnson-Lindenstrauss transform, SIAM J. Comput. 2009; for means:
Suresh, Yu, Kumar and McMahan, Distributed mean estimation with limited communication, ICML 2017.

Arrays are cut into spans whose lengths are powers of two; those below 8 are left as they are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache

import numpy as np
from numpy.typing import NDArray

from wardround import streams

LONGEST = 2**16
"""Elements of the longest span."""
SHORTEST = 8
"""Shorter spans are not rotated."""

_RADIX = 4

Values = NDArray[np.float64]


def spans(size: int) -> Iterator[tuple[int, int]]:
    """(first, past the last) of each span: as many of the longest as fit, then the binary digits of the rest."""
    start = 0
    while start < size:
        length = min(LONGEST, 2 ** ((size - start).bit_length() - 1))
        yield start, start + length
        start += length


def rotate(values: Values, start: int, seed: int, name: str) -> Values:
    """One span, rotated; `values` may be spent.

    Args:
        values: [..., n], n a power of two; leading axes are arrays of their own.
        start: where the span begins in its array.
        seed: public, the same at every site.
        name: of the array.
    """
    if values.shape[-1] < SHORTEST:
        return values
    values *= _signs(values.shape[-1], start, seed, name)
    return _hadamard(values)


def restore(values: Values, start: int, seed: int, name: str) -> Values:
    """The inverse of `rotate`; `values` may be spent."""
    if values.shape[-1] < SHORTEST:
        return values
    turned = _hadamard(values)
    turned *= _signs(turned.shape[-1], start, seed, name)
    return turned


def _hadamard(values: Values) -> Values:
    """H v / sqrt(n), radix 16: each step transforms the leading bits of the index and turns them to its end."""
    lead, size = values.shape[:-1], values.shape[-1]
    left = size.bit_length() - 1
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is found as not finite
        while left:
            bits = min(_RADIX, left)
            values = (values.reshape(*lead, 2**bits, -1).swapaxes(-1, -2) @ _matrix(bits)).reshape(*lead, size)
            left -= bits
    return values


@cache
def _matrix(bits: int) -> Values:
    """Sylvester's matrix of 2^bits rows, orthonormal."""
    matrix = np.ones((1, 1))
    for _ in range(bits):
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return np.asarray(matrix / math.sqrt(2**bits), dtype=np.float64)


def _signs(count: int, start: int, seed: int, name: str) -> Values:
    """Random signs, +1 and -1, [count]."""
    words = streams.uniform_bits(
        np.array([streams.key("rotation", seed, name)], dtype=np.uint64), streams.key("span", start), -(-count // 64)
    )[0]
    bits = np.unpackbits(words.astype("<u8").view(np.uint8), count=count, bitorder="little")
    return 1.0 - 2.0 * bits.astype(np.float64)

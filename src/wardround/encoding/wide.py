"""Figures at full precision: fixed point of 64 integer and 64 fractional bits, cut into limbs that add up without carry.

A number x is the unsigned 128-bit integer round(x 2^64) + 2^127. Each of its limbs, 8 or 16 bits wide, is a digit, the least
significant first. The sum over sites of each limb lies below 2^(limb + head), so carries can wait for the decoder, which
adds them modulo 2^128 and takes the offsets off again. A float64 is exact down to 2^-64.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_ONE = 2.0**64
_OFFSET = np.uint64(2**63)
_INTEGER_BITS = 62

Digits = NDArray[np.uint32]


def limbs(bits: int) -> int:
    """Limbs of one number where a digit has so many bits: 8 of 16 bits each, or 16 of 8."""
    return 8 if bits >= 16 else 16


def bound(sites: int) -> float:
    """Numbers of one site must be smaller in magnitude, so that a sum over `sites` sites is below 2^62."""
    return 2.0**_INTEGER_BITS / sites


def to_digits(values: NDArray[np.float64], count: int) -> Digits:
    """Digits of finite numbers below 2^62 in magnitude.

    Args:
        values: [n].
        count: limbs a number, as `limbs` gives.

    Returns:
        uint32 [n x count], number by number.
    """
    magnitude = np.abs(values)
    whole = np.floor(magnitude)
    words = np.empty((len(values), 2), dtype="<u8")
    # the fraction of a float64 is exact, and below 1 - 2^-54, so its 64 bits never round up to 2^64
    words[:, 0] = np.rint((magnitude - whole) * _ONE).astype(np.uint64)
    words[:, 1] = whole.astype(np.uint64)
    _negate(words, values < 0)
    words[:, 1] ^= _OFFSET
    return words.reshape(-1).view(_limb(count)).astype(np.uint32)


def from_sums(sums: NDArray[np.uint64], count: int, sites: int) -> NDArray[np.float64]:
    """The sums of numbers, from the sums of their digits: the exact sum, rounded once to float64.

    Args:
        sums: [n x count], each below 2^53.
        count: limbs a number.
        sites: how many were added.
    """
    each = sums.reshape(-1, count)
    bits = 128 // count
    words = np.empty((len(each), 2), dtype="<u8")
    carry = np.zeros(len(each), dtype=np.uint64)
    low = np.uint64(2**bits - 1)
    parts = words.reshape(-1).view(_limb(count)).reshape(-1, count)
    for i in range(count):
        carry = carry + each[:, i]
        parts[:, i] = (carry & low).astype(_limb(count))
        carry >>= np.uint64(bits)
    words[:, 1] -= np.uint64((sites << 63) % 2**64)
    negative = words[:, 1] >= _OFFSET
    _negate(words, negative)
    values = _to_float(words[:, 1], words[:, 0])
    return np.where(negative, -values, values)


def _limb(count: int) -> np.dtype[np.unsignedinteger]:
    return np.dtype("<u2" if count == 8 else "<u1")


def _negate(words: NDArray[np.uint64], where: NDArray[np.bool_]) -> None:
    """Two's complement, in place, of the rows [low, high] that are `where`."""
    chosen = ~words[where]
    chosen[:, 0] += np.uint64(1)
    chosen[:, 1] += chosen[:, 0] == 0
    words[where] = chosen


def _to_float(high: NDArray[np.uint64], low: NDArray[np.uint64]) -> NDArray[np.float64]:
    """(high 2^64 + low) / 2^64, correctly rounded.

    The leading 64 bits are converted, with a sticky bit for what is cut off: they are more than 53, so rounding is right.
    """
    # rounding may lengthen the number by a bit; then 63 leading bits remain, which are enough too
    _, length = np.frexp(high.astype(np.float64))
    shift = (64 - length).astype(np.uint64)
    rest = np.uint64(64) - shift
    leading = (high << shift) | (low >> rest)
    leading |= ((low << shift) != 0).astype(np.uint64)
    return np.ldexp(leading.astype(np.float64), -shift.astype(np.int64))

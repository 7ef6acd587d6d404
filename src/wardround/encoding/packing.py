"""Digits side by side in the elements of a ring: the first in the lowest bits.

A block holds a whole number of elements for 1 to 8 digits an element, so that none straddles two blocks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from wardround.encoding.codec import BLOCK
from wardround.errors import MessageError

_WORD = 64


def pack(blocks: Iterable[NDArray[np.uint32]], size: int, width: int, per: int) -> NDArray[np.uint64]:
    """Elements that hold the digits.

    Args:
        blocks: of BLOCK digits each, the last shorter; each digit below 2^width.
        size: digits in all.
        width: bits that a digit's sum takes.
        per: digits an element, 1 to 8; their widths together at most 64.

    Returns:
        uint64 [ceil(size / per)]; what is left of the last one is 0.

    Raises:
        MessageError: the blocks hold another number of digits, or such elements do not exist.
    """
    _check(width, per)
    elements = np.zeros(-(-size // per), dtype=np.uint64)
    scratch = np.empty(BLOCK // per + 1, dtype=np.uint64)
    done = 0
    for block in blocks:
        if done % BLOCK or done + len(block) > size:
            raise MessageError(f"{done + len(block)} digits came where {size} were expected: blocks of another size")
        into = elements[done // per : -(-(done + len(block)) // per)]
        for place in range(per):
            mine = block[place::per]
            shifted = scratch[: len(mine)]
            np.copyto(shifted, mine)
            shifted <<= np.uint64(place * width)
            into[: len(mine)] |= shifted
        done += len(block)
    if done != size:
        raise MessageError(f"{done} digits came where {size} were expected")
    return elements


def unpack(elements: NDArray[np.uint64], size: int, width: int, per: int) -> Iterator[NDArray[np.uint64]]:
    """The digits, in blocks of BLOCK, the last shorter.

    Raises:
        MessageError: there are too few or too many elements, or one has bits above its digits: it is no sum of digits.
    """
    _check(width, per)
    if elements.shape != (-(-size // per),):
        raise MessageError(f"{list(elements.shape)} elements hold no {size} digits, expected [{-(-size // per)}]")
    mask = np.uint64(2**width - 1)
    for start in range(0, size, BLOCK):
        digits = np.empty(min(BLOCK, size - start), dtype=np.uint64)
        mine = elements[start // per : -(-(start + len(digits)) // per)]
        if width * per < _WORD and int(mine.max()) >> (width * per):
            raise MessageError(
                "an element has bits above its digits: the sum is damaged, or keys and masks do not match"
            )
        for place in range(per):
            wanted = digits[place::per]
            np.right_shift(mine[: len(wanted)], np.uint64(place * width), out=wanted)
            wanted &= mask
        yield digits


def _check(width: int, per: int) -> None:
    if not 1 <= per <= 8 or not 1 <= width <= _WORD // per:
        raise MessageError(f"{per} digits of {width} bits: expected 1 to 8 digits, and 64 bits or fewer together")

"""Masks: pseudorandom elements of a ring, one stream a key.

A stream is AES-256 in counter mode under a key of 256 bits, from counter 0, read as little-endian words of 64 bits. In the
ring of 2^64 elements each word is an element. Modulo a prime t < 2^62 a word's lowest bits are an element if they are below
t, and are passed over otherwise, so that elements are uniform.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from wardround.channels.secagg import primitives
from wardround.errors import WardroundError

Elements = NDArray[np.uint64]

RING = 2**64
MOST_MODULUS = 2**62
BLOCK = 2**14
"""Words drawn at once: few enough that a block, its zeros and its target stay in a core's cache."""
_WORD = np.dtype("<u8")
_SPARE = 2
"""Words behind a buffer: some releases of `cryptography` ask for room of a cipher's block more than they write."""


def add_masks(elements: Elements, masks: Iterable[tuple[bytes, bool]], modulus: int) -> None:
    """Add streams to `elements` in place, block by block.

    Args:
        elements: uint64 [n], each below `modulus`, as they are afterwards.
        masks: (key, whether to subtract instead) of each stream. No key may be given twice, here or in another call for
            other elements.
        modulus: 2^64, or 2 to 2^62.

    Raises:
        WardroundError: another modulus, or an element that is not below it.
    """
    if modulus != RING and not 2 <= modulus <= MOST_MODULUS:
        raise WardroundError(f"modulus {modulus}: expected 2^64, or 2 to 2^62")
    if modulus != RING and elements.size and int(elements.max()) >= modulus:
        raise WardroundError(f"an element is {int(elements.max())}, expected less than the modulus {modulus}")
    scratch = np.empty(min(BLOCK, len(elements)) + _SPARE, dtype=_WORD)
    streams = [(_Stream(key, modulus, scratch), subtract) for key, subtract in masks]
    for start in range(0, len(elements), BLOCK):
        block = elements[start : start + BLOCK]
        for stream, subtract in streams:
            _combine(block, stream.draw(len(block)), modulus, subtract=subtract)


def _combine(block: Elements, drawn: Elements, modulus: int, *, subtract: bool) -> None:
    if modulus == RING:
        (np.subtract if subtract else np.add)(block, drawn, out=block)
        return
    # of a value and the same value moved by the modulus, the one that did not wrap around 2^64 is the smaller
    ring = np.uint64(modulus)
    if subtract:
        np.subtract(block, drawn, out=block)
        np.add(block, ring, out=drawn)
    else:
        np.add(block, drawn, out=block)
        np.subtract(block, ring, out=drawn)
    np.minimum(block, drawn, out=block)


class _Stream:
    def __init__(self, key: bytes, modulus: int, scratch: Elements) -> None:
        self._scratch = scratch
        self._cipher = primitives.key_stream(key)
        self._modulus = None if modulus == RING else np.uint64(modulus)
        self._bits = np.uint64(2 ** (modulus - 1).bit_length() - 1)

    def draw(self, count: int) -> Elements:
        """The next elements of the stream, in the scratch or in memory of their own."""
        found = self._words(count, self._scratch)
        if self._modulus is None:
            return found
        found &= self._bits
        good = found < self._modulus
        have = int(np.count_nonzero(good))
        if have == count:
            return found
        parts = [found[good]]
        while have < count:  # exactly as many as are missing: none is drawn and not used, so blocks may be of any size
            more = self._words(count - have, np.empty(count - have + _SPARE, dtype=_WORD))
            more &= self._bits
            parts.append(more[more < self._modulus])
            have += len(parts[-1])
        return np.concatenate(parts)

    def _words(self, count: int, buffer: NDArray[np.uint64]) -> Elements:
        self._cipher.update_into(_ZEROS[: 8 * count], buffer.data.cast("B"))
        return buffer[:count].astype(np.uint64, copy=False)


_ZEROS = memoryview(bytes(8 * BLOCK))

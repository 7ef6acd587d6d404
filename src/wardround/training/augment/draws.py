"""Random numbers of a batch's rows, named (seed, site, round, step, place in the batch, row).

A row that is drawn twice is changed twice in different ways, and whoever trains a site, in whatever chunk or process and
however often it was interrupted, draws the same. What all families need is drawn at once, each from columns of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from wardround import streams

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_PLACE = np.uint64(32)
"""Bits below the place in the batch: those of the row's number."""
_WIDTHS = {"chosen": 6, "turns": 4, "affine": 5, "shift": 3, "blur": 1, "gamma": 1, "noise": 2, "jitter": 2}
"""Numbers a row of each family; `jitter` comes last, since each channel has one more."""
_COLUMNS = {
    name: slice(end - width, end)
    for (name, width), end in zip(_WIDTHS.items(), accumulate(_WIDTHS.values()), strict=True)
}


@dataclass(frozen=True, kw_only=True)
class Draws:
    """The streams of n rows.

    Attributes:
        keys: uint64 [n].
        name: what all of them share: seed, round and step.
        numbers: uniform inside (0, 1), float64 [n, columns of all families].
    """

    keys: NDArray[np.uint64]
    name: Sequence[str | int]
    numbers: Floats

    @classmethod
    def of(cls, keys: NDArray[np.uint64], rows: Ints, *, seed: int, round: int, step: int, channels: int = 1) -> Draws:
        """The streams of the batches of k sites.

        Args:
            keys: uint64 [k], the sites' stream keys.
            rows: int64 [k, b], each row's number at its site.
            seed, round, step: where in the run.
            channels: of an image.
        """
        place = np.arange(rows.shape[1], dtype=np.uint64) << _PLACE
        own = (keys[:, None] + place + rows.astype(np.uint64)).reshape(-1)
        name = ("augment", seed, round, step)
        return cls(keys=own, name=name, numbers=_uniform(own, name, sum(_WIDTHS.values()) + channels))

    def take(self, index: Ints) -> Draws:
        """The streams of some rows."""
        return Draws(keys=self.keys[index], name=self.name, numbers=self.numbers[index])

    def uniform(self, family: str) -> Floats:
        """A family's numbers inside (0, 1), float64 [n, its width]: what another takes does not change them."""
        columns = _COLUMNS[family]
        return self.numbers[:, columns.start : None if family == "jitter" else columns.stop]

    def symmetric(self, family: str) -> Floats:
        """The same inside (-1, 1)."""
        return np.asarray(2.0 * self.uniform(family) - 1.0)

    def many(self, family: str, count: int) -> Floats:
        """Numbers inside (0, 1), float64 [n, count], of a family that few rows meet: drawn for these alone."""
        return _uniform(self.keys, (*self.name, family), count)


def _uniform(keys: NDArray[np.uint64], name: Sequence[str | int], count: int) -> Floats:
    bits = streams.uniform_bits(keys, streams.key(*name), count) >> np.uint64(11)
    return np.asarray((bits.astype(np.float64) + 0.5) * 2.0**-53)

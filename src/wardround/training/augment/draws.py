"""Random numbers of a batch's rows, named (seed, site, round, step, place in the batch, row).

A row that is drawn twice is changed twice in different ways, and whoever trains a site, in whatever chunk or process and
however often it was interrupted, draws the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wardround import streams

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_PLACE = np.uint64(32)
"""Bits below the place in the batch: those of the row's number."""


@dataclass(frozen=True, kw_only=True)
class Draws:
    """The streams of n rows.

    Attributes:
        keys: uint64 [n].
        name: what all of them share: seed, round and step, and the family that draws.
    """

    keys: NDArray[np.uint64]
    name: Sequence[str | int]

    @classmethod
    def of(cls, keys: NDArray[np.uint64], rows: Ints, *, seed: int, round: int, step: int) -> Draws:
        """The streams of the batches of k sites.

        Args:
            keys: uint64 [k], the sites' stream keys.
            rows: int64 [k, b], each row's number at its site.
            seed, round, step: where in the run.
        """
        place = np.arange(rows.shape[1], dtype=np.uint64) << _PLACE
        return cls(
            keys=(keys[:, None] + place + rows.astype(np.uint64)).reshape(-1), name=("augment", seed, round, step)
        )

    def named(self, family: str) -> Draws:
        """The streams of one family: what another draws does not change them."""
        return Draws(keys=self.keys, name=(*self.name, family))

    def take(self, index: Ints) -> Draws:
        """The streams of some rows."""
        return Draws(keys=self.keys[index], name=self.name)

    def uniform(self, count: int) -> Floats:
        """Uniform numbers inside (0, 1), float64 [n, count]; the first `c` do not depend on `count`."""
        bits = streams.uniform_bits(self.keys, streams.key(*self.name), count) >> np.uint64(11)
        return np.asarray((bits.astype(np.float64) + 0.5) * 2.0**-53)

    def symmetric(self, count: int) -> Floats:
        """Uniform numbers inside (-1, 1), float64 [n, count]."""
        return np.asarray(2.0 * self.uniform(count) - 1.0)

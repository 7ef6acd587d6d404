"""What a kind of partition sees of the pool, and what it gives."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Patients:
    """The pool, a patient an entry.

    Attributes:
        labels: int64 [n], the highest label of the patient's rows; where rows may have several labels, 1 + the patient's
            rarest one, 0 without any.
        rows: int64 [n], at least 1.
    """

    labels: Ints
    rows: Ints

    def __len__(self) -> int:
        return len(self.labels)


class Dealing(Protocol):
    """A kind of partition: one of `wardround.data.partitions`, or a plug-in `module:Class`."""

    @property
    def advice(self) -> str:
        """What to change where no draw gives every site enough rows: 'raise partition.alpha', say."""
        ...

    def deal(self, patients: Patients, sites: int, rng: np.random.Generator) -> Iterator[Ints]:
        """Draws, each the site of every patient, int64 [n] in 0..sites-1.

        The first draw in which each site has `partition.min_rows` rows is taken. An iterator that ends says that
        further draws would be no better.

        Args:
            patients: the pool; at least one patient a site.
            sites: number of sites.
            rng: the one source of randomness.
        """
        ...

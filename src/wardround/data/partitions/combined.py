"""Label and quantity skew at once.

Sizes s_k come from a law of quantity. A matrix over classes and sites starts from the label skew alone (Gamma(alpha)
draws, whose rows are Dirichlet(alpha) up to their sum) and is scaled by rows and columns in turn until classes sum to the
pool and sites to their sizes: iterative proportional fitting (Deming and Stephan, Annals of Mathematical Statistics 11,
1940). So neither skew weakens the other, and sizes are met exactly.

With few classes a site, the patients of a class are divided among the sites that have it in proportion to their shares of
the quantity; sizes then follow the law among sites of the same classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from wardround.data.partitions.counts import Floats, apportion, assign, by_class
from wardround.data.partitions.pathological import holders
from wardround.data.partitions.patients import Ints, Patients
from wardround.data.partitions.quantity import Quantity

_SWEEPS = 300
_TINY = 1e-12


@dataclass(frozen=True, kw_only=True)
class Combined:
    """Sizes and labels.

    Attributes:
        quantity: the sizes.
        alpha: concentration of the labels, above 0.
        classes: classes a site has instead, or None.
    """

    quantity: Quantity
    alpha: float = 0.5
    classes: int | None = None

    @property
    def advice(self) -> str:
        """What to change where sites stay too small."""
        return self.quantity.advice

    def deal(self, patients: Patients, sites: int, rng: np.random.Generator) -> Iterator[Ints]:
        """See `Dealing.deal`.

        Raises:
            DataError: `classes` is more than there are, or too few for every class to be somewhere.
        """
        members = by_class(patients.labels, rng)
        totals = np.array([len(group) for group in members], dtype=np.int64)
        while True:
            sizes = self.quantity.sizes(len(patients), sites, rng)
            if self.classes is None:
                skew = np.maximum(rng.standard_gamma(self.alpha, (len(members), sites)), _TINY)
                counts = _whole(_fitted(skew, totals, sizes), totals, sizes)
            else:
                held = holders(len(members), sites, self.classes, rng)
                counts = np.stack([apportion(row * sizes, int(n)) for row, n in zip(held, totals, strict=True)])
            yield assign(members, list(counts))


def _fitted(matrix: Floats, totals: Ints, sizes: Ints) -> Floats:
    """The matrix [C, K] scaled to row sums `totals` and column sums `sizes`; columns exactly, rows as far as it goes."""
    for _ in range(_SWEEPS):
        matrix = matrix * (totals / matrix.sum(axis=1))[:, None]
        columns = matrix.sum(axis=0)
        matrix = matrix * (sizes / columns)
        if np.abs(columns - sizes).max() < 0.25:
            break
    return matrix


def _whole(matrix: Floats, totals: Ints, sizes: Ints) -> Ints:
    """Whole patients, int64 [C, K], with exactly these sums; what rounding leaves over fills the open places."""
    counts = np.floor(matrix + 1e-9).astype(np.int64)
    for row, total in zip(counts, totals, strict=True):
        if row.sum() > total:
            row[:] = row * total // row.sum()
    left, room = totals - counts.sum(axis=1), sizes - counts.sum(axis=0)
    fraction = matrix - counts
    # classes with patients left over take, in turn, the open places that they come nearest to
    for c in np.argsort(left):
        places = np.repeat(np.arange(len(sizes)), room)
        nearest = np.argsort(-fraction[c][places], kind="stable")[: left[c]]
        taken = np.bincount(places[nearest], minlength=len(sizes))
        counts[c] += taken
        room -= taken
    return counts

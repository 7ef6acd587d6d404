"""Quantity skew: sites of unlike sizes whose patients are drawn alike.

power:       the r-th largest site has a share proportional to r^-exponent (Zipf); which site is the largest is drawn.
dirichlet:   shares ~ Dirichlet(alpha) over the sites (Li et al., NIID-Bench, ICDE 2022, section IV-D).
proportions: shares as given.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from wardround.data.partitions.counts import Floats, apportion, assign
from wardround.data.partitions.patients import Ints, Patients


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """Sizes of sites, in patients.

    Attributes:
        law: how shares come about.
        exponent: of `power`, 0 or more; 0 is even.
        alpha: of `dirichlet`, above 0; small is very uneven.
        proportions: of `proportions`, positive, one a site.
        least: patients below which the tail of `power` does not fall.
    """

    law: Literal["power", "dirichlet", "proportions"] = "power"
    exponent: float = 1.0
    alpha: float = 0.5
    proportions: tuple[float, ...] = ()
    least: int = 1

    @property
    def advice(self) -> str:
        """What to change where sites stay too small."""
        return {
            "power": "use fewer sites",
            "dirichlet": f"raise partition.quantity.alpha (it is {self.alpha:g}), use fewer sites, or law: power",
            "proportions": "make the smallest of partition.quantity.proportions larger",
        }[self.law]

    def deal(self, patients: Patients, sites: int, rng: np.random.Generator) -> Iterator[Ints]:
        """See `Dealing.deal`; a single draw where sizes are fixed and all patients have as many rows."""
        fixed = self.law != "dirichlet" and patients.rows.min() == patients.rows.max()
        while True:
            sizes = self.sizes(len(patients), sites, rng)
            yield assign([rng.permutation(len(patients))], [sizes])
            if fixed:
                return

    def sizes(self, patients: int, sites: int, rng: np.random.Generator) -> Ints:
        """Patients of each site, int64 [sites]."""
        if self.law == "dirichlet":
            return apportion(np.maximum(rng.dirichlet(np.full(sites, self.alpha)), 1e-300), patients)
        if self.law == "proportions":
            return apportion(np.asarray(self.proportions, dtype=np.float64), patients)
        shares = rng.permutation(np.arange(1, sites + 1) ** -self.exponent)
        return apportion(_lifted(shares, patients, min(self.least, patients // sites)), patients)


def _lifted(shares: Floats, total: int, least: int) -> Floats:
    """Targets that sum to `total`, in proportion to `shares` but for those that would be below `least`, which are it."""
    ordered = np.sort(shares)
    count = len(ordered)
    above = np.cumsum(ordered[::-1])[::-1]
    # with the j smallest lifted, the rest share what is left
    smallest = ordered * (total - least * np.arange(count)) / above
    lifted = int(np.argmax(smallest >= least))
    if smallest[lifted] < least:
        return np.full(count, total / count)
    level = (total - least * lifted) / above[lifted]
    return np.where(shares >= ordered[lifted], shares * level, float(least))

"""Label skew: for each class c, proportions p_c ~ Dirichlet(alpha) over the sites, and that many of its patients to each.

Source: Li et al., Federated learning on non-IID data silos: an experimental study (NIID-Bench), ICDE 2022, section IV-B,
after Yurochkin et al., Bayesian nonparametric federated learning of neural networks, ICML 2019.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from wardround.data.partitions.counts import assign, by_class, cut
from wardround.data.partitions.patients import Ints, Patients


@dataclass(frozen=True, kw_only=True)
class Dirichlet:
    """Each class by proportions of its own.

    Attributes:
        alpha: concentration, above 0; small is very uneven.
    """

    alpha: float

    @property
    def advice(self) -> str:
        """What to change where sites stay too small."""
        return f"raise partition.alpha (it is {self.alpha:g}), or use fewer sites"

    def deal(self, patients: Patients, sites: int, rng: np.random.Generator) -> Iterator[Ints]:
        """See `Dealing.deal`; the order of each class's patients is drawn once, the proportions anew each time."""
        members = by_class(patients.labels, rng)
        concentration = np.full(sites, self.alpha)
        while True:
            yield assign(members, [cut(rng.dirichlet(concentration), len(group)) for group in members])

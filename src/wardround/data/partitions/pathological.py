"""Each site has few classes.

Balanced: each site has exactly c classes, drawn at random so that every class is somewhere, and the patients of a class
are divided evenly among the sites that have it ('#C = c' of Li et al., NIID-Bench, ICDE 2022). Sites that share their
classes are then alike in size; others are as large as their classes are.

Shards: patients sorted by label are cut into sites x c shards of one size, and each site gets c of them (McMahan et al.,
Communication-efficient learning of deep networks from decentralized data, AISTATS 2017, section 3). All sites are of one
size; a shard may lie across the border of two classes, so that a site has about c.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wardround.data.partitions.counts import apportion, assign, by_class
from wardround.data.partitions.patients import Ints, Patients
from wardround.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Pathological:
    """A number of classes a site.

    Attributes:
        classes: how many.
        shards: whether they come as shards.
    """

    classes: int = 2
    shards: bool = False
    advice: str = "use fewer sites, or more partition.classes_per_site"

    def deal(self, patients: Patients, sites: int, rng: np.random.Generator) -> Iterator[Ints]:
        """See `Dealing.deal`.

        Raises:
            DataError: fewer or more classes than sites can hold, or fewer patients than shards.
        """
        return self._shards(patients, sites, rng) if self.shards else self._balanced(patients, sites, rng)

    def _balanced(self, patients: Patients, sites: int, rng: np.random.Generator) -> Iterator[Ints]:
        members = by_class(patients.labels, rng)
        while True:
            held = holders(len(members), sites, self.classes, rng)
            # who gets the odd patient is drawn, or the first sites would get all of them
            order = rng.permutation(sites)
            counts = []
            for group, holds in zip(members, held, strict=True):
                count = np.empty(sites, dtype=np.int64)
                count[order] = apportion(holds[order].astype(np.float64), len(group))
                counts.append(count)
            yield assign(members, counts)

    def _shards(self, patients: Patients, sites: int, rng: np.random.Generator) -> Iterator[Ints]:
        shards = sites * self.classes
        if shards > len(patients):
            raise DataError(
                f"partition.sites = {sites} of partition.classes_per_site = {self.classes} shards need {shards} "
                f"patients, and there are {len(patients)}: lower one of them"
            )
        members = np.concatenate(by_class(patients.labels, rng))
        shard = np.arange(len(patients)) * shards // len(patients)
        while True:
            owner = np.empty(len(patients), dtype=np.int64)
            owner[members] = rng.permutation(np.arange(shards) % sites)[shard]
            yield owner


def holders(classes: int, sites: int, each: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Which sites have which class, bool [classes, sites]: `each` classes a site, every class at one site at least.

    Raises:
        DataError: `each` is more than there are, or too few for every class to be somewhere.
    """
    if each > classes:
        raise DataError(
            f"partition.classes_per_site = {each}, and the records have {classes} classes: set it to at most {classes}"
        )
    if sites * each < classes:
        raise DataError(
            f"partition.sites = {sites} of partition.classes_per_site = {each} cannot hold {classes} classes: records of "
            "a class would be nowhere; raise one of them"
        )
    rank = rng.random((sites, classes))
    places = np.arange(max(sites, classes))
    # each class somewhere and each site something: ranks below all others
    rank[places % sites, rng.permutation(classes)[places % classes]] -= 1.0
    held = np.zeros((sites, classes), dtype=np.bool_)
    np.put_along_axis(held, np.argpartition(rank, each - 1, axis=1)[:, :each], True, axis=1)
    return held.T

"""Pools of records for the tests of partitions, and plug-ins as a user would write them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wardround.types import SiteData


def pool(rows: int, *, classes: int = 2, rows_each: int = 1, split: Any = None, offset: int = 0) -> SiteData:
    """Rows numbered from `offset`, patients of `rows_each` rows, their classes in turn."""
    return SiteData(
        features=np.arange(offset, offset + rows, dtype=np.float64)[:, None],
        labels=np.arange(rows, dtype=np.int64) // rows_each % classes,
        patients=np.arange(rows) // rows_each,
        split=split,
    )


def sizes(sites: dict[str, SiteData]) -> list[int]:
    """Rows of each site, in order."""
    return [len(site.labels) for site in sites.values()]


def rows_of(sites: dict[str, SiteData]) -> list[float]:
    """The numbers of all rows, sorted."""
    return sorted(value for site in sites.values() for value in site.features[:, 0].tolist())


def digest(sites: dict[str, SiteData]) -> str:
    """Which row is at which site, in sixteen digits."""
    hashed = hashlib.sha256()
    for name, site in sites.items():
        hashed.update(name.encode())
        hashed.update(site.features.astype("<i8").tobytes())
    return hashed.hexdigest()[:16]


class InTurn:
    """Patients in turn: the first to the first site, the second to the second."""

    advice = "do without"

    def deal(self, patients: Any, sites: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
        yield np.arange(len(patients)) % sites


class OutOfRange(InTurn):
    """A mistake: sites counted from 1."""

    def deal(self, patients: Any, sites: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
        yield np.arange(len(patients)) % sites + 1


class Place:
    """Adds a site's place to its features."""

    def __init__(self, step: float = 1.0) -> None:
        self.step = step

    def apply(self, features: Any, *, site: str, place: int, sites: int, rng: np.random.Generator) -> Any:
        return features + self.step * place


class Halved(Place):
    """A mistake: rows are lost."""

    def apply(self, features: Any, *, site: str, place: int, sites: int, rng: np.random.Generator) -> Any:
        return features[::2]

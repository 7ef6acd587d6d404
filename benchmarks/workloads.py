"""The workloads: synthetic sites on which every implementation can take exactly the same SGD steps."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wardround.types import Description, SiteData

TABLE, PICTURE = (30,), (1, 28, 28)


@dataclass(frozen=True, kw_only=True)
class Workload:
    """One local epoch of plain SGD a round, every site in every round.

    Attributes:
        name: of the workload.
        sites: K.
        rows: training rows of a site; their mean where `spread` is above 0.
        batch: rows of a step.
        rounds: how many.
        network: plain module, by its class in `benchmarks.networks`.
        shape: of one row's features.
        classes: labels, each of them an output of the network.
        spread: standard deviation of the logarithm of a site's rows; 0 for sites of equal size.
        cohort: sites asked each round; None for all.
    """

    name: str
    sites: int
    rows: int
    batch: int
    rounds: int
    network: str = "PlainMLP"
    shape: tuple[int, ...] = TABLE
    classes: int = 2
    spread: float = 0.0
    cohort: int | None = None
    learning_rate: float = 0.05

    @property
    def nbytes(self) -> int:
        """Bytes of all records: float32 features, labels and patients of 8 bytes, a split of one."""
        return self.sites * self.rows * (4 * math.prod(self.shape) + 8 + 8 + 1)


WORKLOADS = {
    "W1": Workload(name="W1", sites=50, rows=100, batch=16, rounds=20),
    "W2": Workload(name="W2", sites=10, rows=200, batch=32, rounds=5, network="PlainCNN", shape=PICTURE, classes=10),
    "W3": Workload(name="W3", sites=1000, rows=20, batch=16, rounds=5),
}

QUICK = {"sites": 4, "rounds": 3}
"""What a run that only asks whether it works makes of a workload."""


def workload(name: str, **changes: Any) -> Workload:
    """A workload by name, with other settings where given."""
    return replace(WORKLOADS[name], **changes)


@lru_cache(maxsize=1)
def names(workload: Workload) -> tuple[str, ...]:
    return tuple(f"site-{k:06d}" for k in range(workload.sites))


def counts(workload: Workload) -> NDArray[np.int64]:
    """Training rows of each site, int64 [K]; with a spread log-normal, at least 1, and as many in all as without."""
    total = workload.sites * workload.rows
    if not workload.spread:
        return np.full(workload.sites, workload.rows, dtype=np.int64)
    share = np.exp(workload.spread * np.random.default_rng(5).standard_normal(workload.sites))
    ends = np.rint(np.cumsum(share) / share.sum() * (total - workload.sites)).astype(np.int64)
    rows: NDArray[np.int64] = np.diff(ends, prepend=0) + 1
    return rows


Drawn = tuple[NDArray[np.float32], NDArray[np.int64]]
"""Features [n, *shape] and labels [n] of all sites, one after another."""


BLOCK = 5_000
"""Sites that are drawn together, so that a hundred thousand need not be held twice."""


def draw(workload: Workload) -> Drawn:
    """All rows of a workload."""
    blocks = [_draw(workload, number) for number in range(math.ceil(workload.sites / BLOCK))]
    features, labels = zip(*blocks, strict=True)
    return np.concatenate(features), np.concatenate(labels)


def _draw(workload: Workload, number: int) -> Drawn:
    """Rows of one block of sites: in a table the label depends on the first five features, in a picture on the bright row."""
    random = np.random.default_rng([3, number] if number else 3)
    n = int(counts(workload)[number * BLOCK : (number + 1) * BLOCK].sum())
    features = random.standard_normal((n, *workload.shape), dtype=np.float32)
    if workload.shape == PICTURE:
        labels = random.integers(0, workload.classes, n)
        features[np.arange(n), 0, 2 * labels] += 1.5
        return features, labels
    noise = 0.3 * random.standard_normal(n)
    return features, (features[:, :5].sum(1) + noise > 0).astype(np.int64)


class Rows(Mapping[str, SiteData]):
    """Every site's records, as views; all of them train. Drawn when they are asked for, and only the last block is kept."""

    def __init__(self, workload: Workload, drawn: Drawn | None = None) -> None:
        self._workload, self._drawn = workload, drawn
        self._block = -1
        self._names = names(workload)
        self._place = {name: k for k, name in enumerate(self._names)}
        self._ends = np.cumsum([0, *counts(workload)])

    def __getitem__(self, site: str) -> SiteData:
        k = self._place[site]
        block = 0 if self._drawn else k // BLOCK
        if block != self._block:
            self._block, self._held = block, self._drawn or _draw(self._workload, block)
        features, labels = self._held
        before, begin, end = self._ends[[block * BLOCK, k, k + 1]]
        own = slice(begin - before, end - before)
        return SiteData(
            features=features[own],
            labels=labels[own],
            patients=np.arange(begin, end),
            split=np.zeros(end - begin, dtype=np.int8),
        )

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def description(workload: Workload) -> Description:
    return Description(
        name=workload.name,
        title="synthetic rows for timing",
        source="drawn here",
        licence="MIT",
        sites=names(workload),
        shape=workload.shape,
        classes=tuple(f"class {c}" for c in range(workload.classes)),
        natural=True,
    )

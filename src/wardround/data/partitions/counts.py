"""From shares to whole patients, and from counts to the site of each patient."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from wardround.data.partitions.patients import Ints

Floats = NDArray[np.float64]


def apportion(shares: Floats, total: int) -> Ints:
    """`total` patients in proportion to `shares` [K], none below its floor (Hamilton's method, earlier sites first)."""
    exact = shares / shares.sum() * total
    # a quota that is whole up to rounding errors is whole
    counts: Ints = np.floor(exact + 1e-9).astype(np.int64)
    missing = total - int(counts.sum())
    counts[np.argsort(counts - exact, kind="stable")[:missing]] += 1
    return counts


def cut(shares: Floats, total: int) -> Ints:
    """`total` patients cut at the cumulative shares, int64 [K]; shares sum to 1."""
    cuts = (np.cumsum(shares) * total).astype(np.int64)[:-1]
    # rounding may carry the last cumulative share past 1
    return np.diff(np.minimum(cuts, total), prepend=0, append=total)


def by_class(labels: Ints, rng: np.random.Generator) -> list[NDArray[np.intp]]:
    """The patients of each class that occurs, in random order."""
    return [rng.permutation(np.flatnonzero(labels == c)) for c in np.unique(labels)]


def assign(members: Sequence[NDArray[np.intp]], counts: Sequence[Ints]) -> Ints:
    """The site of each patient, int64 [n]: the first counts[g][0] of `members[g]` are at site 0, and so on.

    Groups are disjoint and hold every patient; counts of a group, int64 [K], sum to its length.
    """
    owner = np.empty(sum(len(group) for group in members), dtype=np.int64)
    for group, count in zip(members, counts, strict=True):
        owner[group] = np.repeat(np.arange(len(count)), count)
    return owner

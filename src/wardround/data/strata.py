"""One class a row where rows may have several labels: what splits and partitions stratify by.

A row's class is the rarest of its labels, for that is the one that chance would spread worst; rows without a label are a
class of their own. Source: the order in which Sechidis, Tsoumakas and Vlahavas (2011, On the stratification of multi-label
data) deal labels out.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


def strata(labels: NDArray[Any], where: NDArray[np.intp] | None = None) -> Ints:
    """The class of each row, int64 [n]: labels [n] themselves; of labels [n, L], 1 + the rarest one, 0 without any.

    Args:
        labels: int [n], or [n, L] of 0 and 1.
        where: the site of each row, int [n]: a label's rarity is that among rows of the same site; None is one site.
    """
    if labels.ndim == 1:
        return labels.astype(np.int64, copy=False)
    if not len(labels):
        return np.zeros(0, dtype=np.int64)
    present = labels > 0
    place = np.zeros(len(labels), dtype=np.intp) if where is None else where
    counts = np.zeros((int(place.max()) + 1, labels.shape[1]), dtype=np.int64)
    np.add.at(counts, place, present)
    rarest = np.where(present, counts[place], np.iinfo(np.int64).max).argmin(axis=1)
    return np.where(present.any(axis=1), rarest + 1, 0).astype(np.int64)


def together(labels: NDArray[Any], owner: NDArray[np.intp], owners: int) -> Ints:
    """The highest label of each owner's rows, int64 [owners]; of labels [n, L], which ones any of them has, [owners, L]."""
    highest = np.zeros((owners, *labels.shape[1:]), dtype=np.int64)
    np.maximum.at(highest, owner, labels)
    return highest

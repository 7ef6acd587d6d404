"""Pictures that are equal in every pixel: into one group, and never on both sides of a split."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wardround.types import SPLITS


def fingerprints(rows: Iterable[NDArray[Any]]) -> NDArray[np.void]:
    """16 bytes of SHA-256 of each row's values, [n]."""
    digests = b"".join(hashlib.sha256(np.ascontiguousarray(row).data).digest()[:16] for row in rows)
    return np.frombuffer(digests, dtype="V16")


def places(prints: NDArray[Any]) -> NDArray[np.int64]:
    """The place of the first row with the same fingerprint, int64 [n]."""
    _, first, inverse = np.unique(prints, return_index=True, return_inverse=True)
    return np.asarray(first[inverse.reshape(-1)], dtype=np.int64)


def straddling(same: NDArray[np.int64], split: NDArray[np.int8]) -> NDArray[np.bool_]:
    """Rows to leave out so that no picture is in two splits, bool [n]: test keeps its copy before validation, then train.

    Args:
        same: what `places` gives.
        split: index into SPLITS, int8 [n].
    """
    strongest = np.zeros(len(same), dtype=np.int8)
    np.maximum.at(strongest, same, split)
    return np.asarray(split < strongest[same])


def elsewhere(same: NDArray[np.int64], site: NDArray[Any]) -> NDArray[np.bool_]:
    """Rows whose first copy is at another site, bool [n]."""
    return np.asarray(site != site[same])


def joined(groups: NDArray[Any], same: NDArray[np.int64]) -> NDArray[np.int64]:
    """Groups (patients, lesions) that share a picture become one, int64 [n]: the place of the first row of each."""
    _, group = np.unique(groups, return_inverse=True)
    group = group.reshape(-1)
    apart = np.flatnonzero(group != group[same])
    parent = np.arange(int(group.max(initial=-1)) + 1)

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = int(parent[node])
        return node

    for row in apart.tolist():
        a, b = root(int(group[row])), root(int(group[same[row]]))
        parent[max(a, b)] = min(a, b)
    for node in np.unique(group[apart]).tolist():
        root(node)
    roots = np.array([root(node) for node in range(len(parent))], dtype=np.int64)[group] if len(parent) else group
    return places(roots)


def counted(split: NDArray[np.int8], left_out: NDArray[np.bool_]) -> dict[str, int]:
    """Rows left out of each split."""
    return {name: int(np.sum(left_out & (split == code))) for code, name in enumerate(SPLITS)}

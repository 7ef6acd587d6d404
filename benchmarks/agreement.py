"""Do two implementations that took the same steps hold the same weights?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

TOLERANCE = {"W1": 5e-4, "W2": 1e-2, "W3": 5e-4}
"""Largest difference of a weight in float32: a sum that is rounded otherwise may pass a ReLU or a pooling on its other side,
and one such row moves a weight of W1 by some 2e-5."""
EXACT = 1e-12
"""The same in float64, which proves that the steps are the same."""

Weights = Mapping[str, Any]
"""Name -> array or tensor."""


class WeightsDiffer(AssertionError):
    """An implementation did not do what the baseline did, so their times must not be compared."""


def difference(found: Weights, expected: Weights) -> float:
    """Largest absolute difference of a weight.

    Raises:
        WeightsDiffer: other names or shapes, or a weight that is not finite.
    """
    mine, theirs = ({n: np.asarray(value) for n, value in side.items()} for side in (found, expected))
    shapes, wanted = ({n: value.shape for n, value in side.items()} for side in (mine, theirs))
    if shapes != wanted:
        raise WeightsDiffer(f"weights {shapes}, expected {wanted}")
    worst = np.max([np.abs(mine[n] - theirs[n]).max() for n in theirs])
    if not np.isfinite(worst):
        raise WeightsDiffer("a weight is not finite")
    return float(worst)


def check(found: Weights, expected: Weights, what: str, tolerance: float) -> float:
    """The largest difference. Raises WeightsDiffer above the tolerance."""
    worst = difference(found, expected)
    if worst > tolerance:
        raise WeightsDiffer(f"{what}: a weight is off by {worst:.1e}, expected at most {tolerance:.0e}")
    return worst


def save(path: Path | str, weights: Weights) -> None:
    """Write weights (tensors or arrays) for `load`."""
    with open(path, "wb") as file:
        np.savez(file, **{name: np.asarray(value) for name, value in weights.items()})  # type: ignore[arg-type]


def load(path: Path | str) -> Weights:
    with np.load(path) as stored:
        return dict(stored)

"""Flips, and quarter turns in the plane of the last two axes: exact, and only those that the anatomy allows."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from wardround.training.augment.draws import Draws, Floats


def matrices(draws: Draws, axes: Sequence[int], *, turns: bool, dimensions: int) -> Floats:
    """Signed permutations of the axes, float64 [n, d, d]: output coordinates to input coordinates.

    Args:
        draws: the rows' streams.
        axes: those that are flipped, each in half of the rows.
        turns: whether the last two axes are turned by 0, 90, 180 or 270 degrees, each in a quarter of the rows.
        dimensions: d, 2 or 3.
    """
    drawn = draws.uniform("turns")
    quarters = (drawn[:, 3] * 4).astype(np.int64) if turns else np.zeros(len(drawn), dtype=np.int64)
    signs = np.ones((len(drawn), 1, dimensions))
    for axis in axes:
        signs[:, 0, axis] = np.where(drawn[:, axis] < 0.5, -1.0, 1.0)
    return np.asarray(_quarter_turns(dimensions)[quarters] * signs)


@lru_cache(maxsize=2)
def _quarter_turns(dimensions: int) -> Floats:
    """None, one, two and three of them, [4, d, d]."""
    quarter = np.eye(dimensions)
    quarter[-2:, -2:] = [[0.0, -1.0], [1.0, 0.0]]
    return np.stack([np.linalg.matrix_power(quarter, number) for number in range(4)])

"""Flips, and quarter turns in the plane of the last two axes: exact, and only those that the anatomy allows."""

from __future__ import annotations

from collections.abc import Sequence

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
    drawn = draws.uniform(dimensions + 1)
    found = np.tile(np.eye(dimensions), (len(drawn), 1, 1))
    for axis in axes:
        found[:, axis, axis] = np.where(drawn[:, axis] < 0.5, -1.0, 1.0)
    if turns:
        quarter = np.eye(dimensions)
        quarter[-2:, -2:] = [[0.0, -1.0], [1.0, 0.0]]
        powers = np.stack([np.linalg.matrix_power(quarter, number) for number in range(4)])
        found = powers[(drawn[:, dimensions] * 4).astype(np.int64)] @ found
    return found

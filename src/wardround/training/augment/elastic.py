"""Smooth random displacement: normal numbers on a coarse grid, interpolated to every pixel by `places`.

After Simard, Steinkraus and Platt, Best practices for convolutional neural networks applied to visual document analysis,
ICDAR 2003, section 2, with a coarse grid in the place of their Gaussian filter.
"""

from __future__ import annotations

import torch

from wardround.training.augment.draws import Draws, Floats

KNOTS = 5
"""Points of the coarse grid along a side."""


def knots(draws: Draws, strength: float, dimensions: int) -> Floats:
    """Displacements at the points of the coarse grid as fractions of each side, float64 [n, *[KNOTS] * d, d].

    Args:
        draws: the rows' streams.
        strength: standard deviation, as a fraction of a side.
        dimensions: d, 2 or 3.
    """
    drawn = torch.from_numpy(draws.many("elastic", dimensions * KNOTS**dimensions))
    normal: Floats = torch.special.ndtri(drawn).numpy()
    return strength * normal.reshape(-1, *[KNOTS] * dimensions, dimensions)

"""Smooth random displacement: normal numbers on a coarse grid, interpolated to every pixel.

After Simard, Steinkraus and Platt, Best practices for convolutional neural networks applied to visual document analysis,
ICDAR 2003, section 2, with a coarse grid in the place of their Gaussian filter.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from wardround.training.augment.draws import Draws

_KNOTS = 5
"""Points of the coarse grid along a side."""


def displacements(draws: Draws, sizes: Sequence[int], strength: float, like: Tensor) -> Tensor:
    """Displacements of every pixel as fractions of each side, last axis first, [n, *sizes, d].

    Args:
        draws: the rows' streams.
        sizes: of the picture (height, width) or volume (depth, height, width).
        strength: standard deviation at a point of the coarse grid, as a fraction of a side.
        like: a tensor on the device and of the dtype that are wanted.
    """
    dimensions = len(sizes)
    drawn = torch.from_numpy(draws.uniform(dimensions * _KNOTS**dimensions))
    knots = (strength * torch.special.ndtri(drawn)).to(like.device, like.dtype)
    knots = knots.view(-1, dimensions, *[_KNOTS] * dimensions)
    mode = "bicubic" if dimensions == 2 else "trilinear"
    return F.interpolate(knots, size=tuple(sizes), mode=mode, align_corners=True).movedim(1, -1)

"""Where each pixel is read: source = A p + t + bend(p), about the centre of the picture or volume.

Each component is a sum of products of functions of one axis each, f_a(y) g_b(x) with coefficients [a, b]. The functions are 1,
the coordinate, and, for what bends, the cubics that interpolate between the points of a coarse grid. So a grid is made by one
product of matrices an axis, of few coefficients a row.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from wardround.training.augment.draws import Floats, Ints
from wardround.training.augment.elastic import KNOTS

_PLAIN = 2
"""Functions of an axis without bends: 1 and the coordinate."""


def grid(x: Tensor, matrix: Floats, shift: Floats, bent: Ints | None = None, knots: Floats | None = None) -> Tensor:
    """A grid for `torch.nn.functional.grid_sample` without aligned corners, [n, *sizes, d], on the device of x.

    Args:
        x: [n, C, *sizes], two or three sizes.
        matrix: float64 [n, d, d], from output to input coordinates, in pixels.
        shift: float64 [n, d], fractions of each side.
        bent: rows that are bent, int64 [m], or None.
        knots: of these, displacements on the coarse grid, fractions of each side, float64 [m, *[KNOTS] * d, d].
    """
    sizes, rows = x.shape[2:], len(x)
    d = len(sizes)
    count = _PLAIN if knots is None else _PLAIN + KNOTS
    # in units of a grid, whose sides go from -1 to 1, and whose components begin with the last axis
    linear = (matrix * (2.0 / np.array(sizes))[:, None])[:, ::-1]
    coefficients = np.zeros((rows, count**d, d))
    coefficients[:, 0] = 2.0 * shift[:, ::-1]
    for axis in range(d):
        coefficients[:, count ** (d - 1 - axis)] = linear[:, :, axis]
    if bent is not None and knots is not None:
        inner = np.flatnonzero((np.indices((count,) * d) >= _PLAIN).all(axis=0))
        coefficients[np.ix_(bent, inner)] = 2.0 * knots.reshape(len(bent), -1, d)[..., ::-1]
    left = coefficients.reshape(rows, -1, count, d).transpose(0, 1, 3, 2).copy()
    *others, last = (_functions(size, count, x.dtype, x.device) for size in sizes)
    found, width = (torch.from_numpy(left).to(x.device, x.dtype) @ last.T).transpose(-1, -2), d * sizes[-1]
    for functions in reversed(others):
        columns = found.reshape(-1, count, width)
        found, width = torch.bmm(functions.expand(len(columns), -1, -1), columns), width * len(functions)
    return found.view(rows, *sizes, d)


@lru_cache(maxsize=16)
def _functions(size: int, count: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """1, the coordinate in pixels and, where more are asked for, the cubics of the coarse grid: [size, count]."""
    coordinate = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    found = torch.stack([torch.ones_like(coordinate), coordinate], dim=1)
    if count > _PLAIN:
        each = torch.eye(count - _PLAIN, dtype=torch.float64)[None, :, :, None]
        cubics = F.interpolate(each, size=(size, 1), mode="bicubic", align_corners=True)[0, :, :, 0].T
        found = torch.cat([found, cubics], dim=1)
    return found.to(device, dtype)

"""Where each pixel is read: source = A p + t, about the centre of the picture or volume."""

from __future__ import annotations

import torch
from torch import Tensor

from wardround.training.augment.draws import Floats


def grid(x: Tensor, matrix: Floats, shift: Floats) -> Tensor:
    """A grid for `torch.nn.functional.grid_sample` without aligned corners, [n, *sizes, d], on the device of x.

    Args:
        x: [n, C, *sizes], two or three sizes.
        matrix: float64 [n, d, d], from output to input coordinates, in pixels.
        shift: float64 [n, d], fractions of each side.
    """
    sizes, rows = x.shape[2:], len(x)
    d = len(sizes)
    linear = torch.from_numpy(matrix).to(x.device, x.dtype)
    offset = torch.from_numpy(shift).to(x.device, x.dtype)
    along = [torch.arange(size, device=x.device, dtype=x.dtype) - (size - 1) / 2 for size in sizes]
    found = x.new_empty(rows, *sizes, d)
    for i, size in enumerate(sizes):
        place = (2.0 * offset[:, i]).view(-1, *[1] * d)
        for j, coordinate in enumerate(along):
            term = (linear[:, i, j, None] * (2.0 / size)) * coordinate
            term = term.view(-1, *[1] * j, len(coordinate), *[1] * (d - 1 - j))
            # the last axis of a picture comes first in a grid
            place = torch.add(place, term, out=found[..., d - 1 - i]) if j == d - 1 else place + term
    return found

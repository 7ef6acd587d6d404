"""Gaussian blur, an axis after the other, with the nearest pixel beyond the border."""

from __future__ import annotations

import torch
from torch import Tensor

from wardround.training.augment.draws import Draws

_REACH = 3.0
"""Standard deviations that the kernel reaches to either side."""


def blur(x: Tensor, draws: Draws, most: float) -> Tensor:
    """Each image blurred with a standard deviation between 0 and `most` pixels; x is [n, C, *sizes]."""
    sigma = torch.from_numpy(most * draws.uniform(1)[:, 0]).to(x.device, x.dtype)
    reach = max(1, int(_REACH * most + 0.5))
    offsets = torch.arange(-reach, reach + 1, device=x.device)
    kernel = torch.exp(-0.5 * (offsets / sigma[:, None].clamp_min(1e-3)) ** 2)
    kernel = kernel / kernel.sum(1, keepdim=True)
    shape = (-1, *[1] * (x.dim() - 1))
    for axis in range(2, x.dim()):
        size = x.shape[axis]
        place = torch.arange(-reach, size + reach, device=x.device).clamp_(0, size - 1)
        padded = x.index_select(axis, place)
        x = torch.zeros_like(x)
        for number in range(len(offsets)):
            x.addcmul_(padded.narrow(axis, number, size), kernel[:, number].view(shape))
    return x

"""Gaussian blur, an axis after the other, with the nearest pixel beyond the border."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from wardround.training.augment.draws import Draws

_REACH = 3.0
"""Standard deviations that the kernel reaches to either side."""
_LEAST = 1e-9
"""What is less in a kernel is 0: products with the smallest floating numbers take many times as long."""


def blur(x: Tensor, draws: Draws, most: float) -> Tensor:
    """Each image blurred with a standard deviation between 0 and `most` pixels; x is [n, C, *sizes]."""
    sigma = torch.from_numpy(most * draws.uniform("blur")[:, 0]).to(x.device, x.dtype).clamp_min_(1e-3)
    reach = max(1, int(_REACH * most + 0.5))
    offsets = torch.arange(-reach, reach + 1, device=x.device, dtype=x.dtype)
    kernel = F.threshold(torch.exp(-0.5 * (offsets[:, None] / sigma) ** 2), _LEAST, 0.0)
    taps = (kernel / kernel.sum(0)).view(len(offsets), -1, *[1] * (x.dim() - 1)).unbind()
    found = F.pad(x, (reach, reach) * (x.dim() - 2), mode="replicate")
    for axis in range(2, x.dim()):
        size, padded = x.shape[axis], found
        found = padded.narrow(axis, 0, size) * taps[0]
        for number, tap in enumerate(taps[1:], start=1):
            found.addcmul_(padded.narrow(axis, number, size), tap)
    return found

"""Brightness, contrast, tint and gamma, in units of each image's own spread: whatever the scale of its values."""

from __future__ import annotations

import torch
from torch import Tensor

from wardround.training.augment.draws import Draws, Floats


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each image, [n, 1, ...] each; an image of one value has none."""
    flat = x.flatten(1)
    shape = (-1, *[1] * (x.dim() - 1))
    mean = flat.mean(1, keepdim=True)
    deviation = torch.linalg.vector_norm(flat - mean, dim=1) / flat.shape[1] ** 0.5
    return mean.view(shape), deviation.view(shape)


def jitter(x: Tensor, draws: Draws, *, brightness: float, contrast: float, tint: float) -> Tensor:
    """Spread and level: x' = mean + c (x - mean) + deviation (b + t_channel).

    Args:
        x: [n, C, ...].
        draws: the rows' streams.
        brightness: most of |b|, in the image's standard deviations.
        contrast: the factor c is between 1 / (1 + contrast) and 1 + contrast, evenly on a logarithmic scale.
        tint: most of |t|, of each channel.
    """
    drawn = draws.symmetric(2 + x.shape[1])
    factor = _column(x, (1.0 + contrast) ** drawn[:, :1])
    added = _column(x, brightness * drawn[:, 1:2] + tint * drawn[:, 2:])
    mean, deviation = moments(x)
    return torch.addcmul(mean * (1.0 - factor) + deviation * added, x, factor)


def gamma(x: Tensor, draws: Draws, most: float) -> Tensor:
    """Exponent: x' = low + (high - low) ((x - low) / (high - low))^g between each image's least and greatest value.

    Args:
        x: [n, C, ...].
        draws: the rows' streams.
        most: g is between 1 / (1 + most) and 1 + most, evenly on a logarithmic scale.
    """
    power = _column(x, (1.0 + most) ** draws.symmetric(1))
    shape = (-1, *[1] * (x.dim() - 1))
    low, high = (bound.view(shape) for bound in torch.aminmax(x.flatten(1), dim=1))
    span = (high - low).clamp_min(torch.finfo(x.dtype).tiny)
    return x.sub(low).div_(span).pow_(power).mul_(span).add_(low)


def _column(x: Tensor, values: Floats) -> Tensor:
    """A number a row, or a row and channel, beside x."""
    return torch.from_numpy(values).to(x.device, x.dtype).view(*values.shape, *[1] * (x.dim() - 2))

"""Brightness, contrast, tint and gamma, in units of each image's own spread: whatever the scale of its values."""

from __future__ import annotations

import torch
from torch import Tensor

from wardround.training.augment.draws import Draws, Floats


def deviation(x: Tensor) -> Tensor:
    """Standard deviation of each image, [n, 1, ...]; 0 of an image of one value."""
    return _spread(x - _mean(x))


def jitter(x: Tensor, draws: Draws, *, brightness: float, contrast: float, tint: float) -> Tensor:
    """Spread and level, in place: x' = mean + c (x - mean) + deviation (b + t_channel).

    Args:
        x: [n, C, ...].
        draws: the rows' streams.
        brightness: most of |b|, in the image's standard deviations.
        contrast: the factor c is between 1 / (1 + contrast) and 1 + contrast, evenly on a logarithmic scale.
        tint: most of |t|, of each channel.
    """
    drawn = draws.symmetric("jitter")
    factor = _column(x, (1.0 + contrast) ** drawn[:, :1])
    added = _column(x, brightness * drawn[:, 1:2] + tint * drawn[:, 2:])
    mean = _mean(x)
    spread = _spread(x.sub_(mean))
    return x.mul_(factor).add_(mean + spread * added)  # by a number a row, two operations are quicker than addcmul


def gamma(x: Tensor, draws: Draws, most: float) -> Tensor:
    """Exponent, in place: x' = low + (high - low) ((x - low) / (high - low))^g between each image's least and greatest value.

    Args:
        x: [n, C, ...].
        draws: the rows' streams.
        most: g is between 1 / (1 + most) and 1 + most, evenly on a logarithmic scale.
    """
    power = _column(x, (1.0 + most) ** draws.symmetric("gamma"))
    shape = (-1, *[1] * (x.dim() - 1))
    low, high = (bound.view(shape) for bound in torch.aminmax(x.flatten(1), dim=1))
    span = (high - low).clamp_min(torch.finfo(x.dtype).tiny)
    return x.sub_(low).div_(span).pow_(power).mul_(span).add_(low)


def _mean(x: Tensor) -> Tensor:
    return x.flatten(1).mean(1).view(-1, *[1] * (x.dim() - 1))


def _spread(x: Tensor) -> Tensor:
    """Root of the mean square of each image."""
    flat = x.flatten(1)
    root: Tensor = torch.linalg.vector_norm(flat, dim=1) / flat.shape[1] ** 0.5
    return root.view(-1, *[1] * (x.dim() - 1))


def _column(x: Tensor, values: Floats) -> Tensor:
    """A number a row, or a row and channel, beside x."""
    return torch.from_numpy(values).to(x.device, x.dtype).view(*values.shape, *[1] * (x.dim() - 2))

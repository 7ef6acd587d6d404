"""Is everything finite? A sum answers for a whole tensor in one pass: a NaN or an infinity never leaves it finite."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def all_finite(value: Tensor) -> bool:
    """Whether every element is finite; True for an empty tensor."""
    # finite elements may still add up to an overflow, so only a finite sum is an answer
    return math.isfinite(value.sum()) or bool(torch.isfinite(value).all())


def finite_sites(value: Tensor) -> Tensor:
    """For arrays [K, ...] of K sites, whether each site's are all finite, bool [K] on the CPU."""
    if all_finite(value):
        return torch.ones(len(value), dtype=torch.bool)
    return torch.isfinite(value.reshape(len(value), -1)).all(1).cpu()

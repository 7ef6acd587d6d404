"""The normalisation of a network, exchanged throughout.

BatchNorm's statistics are a site's own, and mixing those of unlike sites costs accuracy; GroupNorm has none (Hsieh et al.
2020, *The non-IID data quagmire of decentralized machine learning*, section 5).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from wardround.errors import ConfigError

Norm = Literal["batch", "group", "none"]
_GROUPS = (32, 16, 8, 4, 2)
_FEWEST = 4
"""Channels of a group: with fewer, a map of 1 x 1 pixels would have hardly a variance."""


class Bias(nn.Module):
    """What is left of a normalisation: x [b, channels, ...] plus a number a channel, from zero."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """As x."""
        return x + self.bias.view(-1, *[1] * (x.dim() - 2))


def exchange(module: nn.Module, norm: Norm) -> nn.Module:
    """The module, each BatchNorm in it replaced under its name.

    Args:
        module: changed in place.
        norm: `batch` leaves it as it is; `group` has the most groups of 32, 16, 8, 4, 2, 1 that divide the channels and leave
            four or more of them a group (Wu & He 2018); `none` leaves a bias.

    Raises:
        ConfigError: another norm.
    """
    if norm not in ("batch", "group", "none"):
        raise ConfigError(f"model.options.norm = {norm!r}: expected batch, group or none")
    if norm == "batch":
        return module
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, _BatchNorm):
                channels = child.num_features
                own = nn.GroupNorm(groups(channels), channels, eps=child.eps) if norm == "group" else Bias(channels)
                setattr(parent, name, own)
    return module


def groups(channels: int) -> int:
    """Groups of a GroupNorm over that many channels."""
    return next((g for g in _GROUPS if channels % g == 0 and channels // g >= _FEWEST), 1)

"""Gaussian noise, read from a bank: each row takes a window that begins at a place of its own."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from wardround import streams
from wardround.training.augment.draws import Draws
from wardround.training.augment.intensity import deviation

_PLACES = 2**20
"""Places at which a window may begin: drawing anew for every pixel would take longer than a step."""


def noise(x: Tensor, draws: Draws, most: float) -> Tensor:
    """Added noise, in place: x' = x + s deviation e, with e standard normal and s uniform in (0, most).

    Args:
        x: [n, C, ...].
        draws: the rows' streams.
        most: in standard deviations of each image.
    """
    drawn = draws.uniform("noise")
    count = x[0].numel()
    begin = torch.from_numpy((drawn[:, 1] * _PLACES).astype(np.int64)).to(x.device)
    windows = _bank(count, x.dtype, x.device).unfold(0, count, 1)
    level = torch.from_numpy(most * drawn[:, 0]).to(x.device, x.dtype).view(-1, *[1] * (x.dim() - 1))
    return x.add_(windows.index_select(0, begin).view_as(x).mul_(level * deviation(x)))


@lru_cache(maxsize=2)
def _bank(count: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    numbers = streams.generator("augment", "noise").standard_normal(_PLACES + count, dtype=np.float32)
    return torch.from_numpy(numbers).to(device, dtype)

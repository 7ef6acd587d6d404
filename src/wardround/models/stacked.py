"""Layers of K sites at once: the same mathematics as `torch.nn`, with a leading site axis on parameters and rows."""

from __future__ import annotations

import torch
from torch import Tensor

from wardround.types import Arrays


def linear(params: Arrays, name: str, x: Tensor) -> Tensor:
    """`nn.Linear` of K sites: x [K, b, in], weight [K, out, in], bias [K, out] -> [K, b, out].

    Laid out in memory as [K, out, b], so that the gradient of the weight comes contiguous as [K, out, in]: a third off a step.
    """
    return torch.baddbmm(params[f"{name}.bias"].unsqueeze(2), params[f"{name}.weight"], x.transpose(1, 2)).transpose(
        1, 2
    )

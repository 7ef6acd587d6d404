"""Three ways to run one module for K sites, with one signature: (params [K, ...], buffers [K, ...], x [K, b, ...]) -> logits.

Buffers are updated in place, as BatchNorm does. Frozen parameters are the module's own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from wardround.types import Arrays

Forward = Callable[[Arrays, Arrays, Tensor], Tensor]
CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}
"""Axes of a batch of pictures or volumes -> its memory format."""


@dataclass(frozen=True, kw_only=True)
class Switches:
    """What may make a training forward faster, or not: measure it first.

    Attributes:
        precision: `bf16` runs what PyTorch's autocast deems safe in bfloat16; parameters and sums stay as they are.
        compile: let `torch.compile` make one kernel of it; the first step then takes tens of seconds.
    """

    precision: Literal["full", "bf16"] = "full"
    compile: bool = False


OFF = Switches()


def hand_stacked(module: nn.Module) -> Forward | None:
    """The module's own forward over a site axis, where it offers one (`stacked(params, x)`)."""
    method = getattr(module, "stacked", None)
    if not callable(method):
        return None

    def forward(params: Arrays, buffers: Arrays, x: Tensor) -> Tensor:
        logits: Tensor = method({**params, **buffers} if buffers else params, x)
        return logits

    return forward


def vmapped(module: nn.Module) -> Forward:
    """Any module, vectorised over the site axis by `torch.func.vmap`; refuses modules that draw random numbers."""

    def one(params: Arrays, buffers: Arrays, x: Tensor) -> Tensor:
        logits: Tensor = functional_call(module, (params, buffers), (x,))
        return logits

    return vmap(one, randomness="error")


def plain(module: nn.Module, *, channels_last: bool = False) -> Forward:
    """Any module without a site axis: (params, buffers, x [b, ...]) -> logits [b, outputs].

    Args:
        module: the network.
        channels_last: lay pictures [b, channels, ...] out with the channels of a pixel side by side where they are on a
            CPU: convolutions there take about two thirds of the time. Parameters stay as they are.
    """

    def forward(params: Arrays, buffers: Arrays, x: Tensor) -> Tensor:
        if channels_last and x.device.type == "cpu":
            # a single channel counts as laid out either way, and only new strides tell the kernels which
            x = torch.empty_like(x, memory_format=CHANNELS_LAST[x.dim()]).copy_(x)
        logits: Tensor = functional_call(module, (params, buffers), (x,))
        return logits

    return forward


def single(module: nn.Module, *, channels_last: bool = False) -> Forward:
    """Any module, for K = 1: the axis is taken off and put back."""
    bare = plain(module, channels_last=channels_last)

    def forward(params: Arrays, buffers: Arrays, x: Tensor) -> Tensor:
        # unlike value[0], whose gradient is written into zeros of the whole
        own = (
            {n: value.squeeze(0) for n, value in params.items()},
            {n: value.squeeze(0) for n, value in buffers.items()},
        )
        return bare(*own, x[0]).unsqueeze(0)

    return forward


def switched(forward: Forward, switches: Switches) -> Forward:
    """A training forward with the switches on."""
    if switches.compile:
        forward = torch.compile(forward)
    if switches.precision == "full":
        return forward

    def lower(params: Arrays, buffers: Arrays, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, dtype=torch.bfloat16):
            logits = forward(params, buffers, x)
        return logits.to(x.dtype)

    return lower

"""Three ways to run one module for K sites, with one signature: (params [K, ...], buffers [K, ...], x [K, b, ...]) -> logits.

Buffers are updated in place, as BatchNorm does. Frozen parameters are the module's own.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.func import functional_call, vmap

from wardround.types import Arrays

Forward = Callable[[Arrays, Arrays, Tensor], Tensor]


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


def single(module: nn.Module) -> Forward:
    """Any module, for K = 1: the axis is taken off and put back."""

    def forward(params: Arrays, buffers: Arrays, x: Tensor) -> Tensor:
        bare = {name: value[0] for name, value in params.items()}, {name: value[0] for name, value in buffers.items()}
        logits: Tensor = functional_call(module, bare, (x[0],))
        return logits.unsqueeze(0)

    return forward

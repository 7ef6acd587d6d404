"""One look at a module before training: can its sites be stacked, do its rows meet in a batch, does it draw random numbers?"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from wardround.errors import ConfigError
from wardround.training.forward import CHANNELS_LAST, Forward, hand_stacked, single, vmapped
from wardround.types import Arrays

_ROWS = 5
_TOLERANCE = 1e-8
_VECTOR = 16
"""Channels that a vector of float32 holds at most, on a CPU that PyTorch runs on."""


@dataclass(frozen=True, kw_only=True)
class Probe:
    """What was found.

    Attributes:
        stackable: whether the stacked executor gives the same as the sequential one.
        independent: whether a row's output does not depend on the other rows of its batch (no BatchNorm).
        stochastic: whether training draws random numbers (dropout).
        reason: why, in words for the report.
        single_row: whether it can train on a batch of one row (BatchNorm over a table cannot: one row has no variance).
        outputs: logits a row.
        convolves: whether it has convolutions over pictures or volumes.
        channels_last: whether its forward takes them with the channels of a pixel side by side, gives the same, and has no
            convolution whose backward would write beyond its memory (`_Overrun`).
    """

    stackable: bool
    independent: bool
    stochastic: bool
    reason: str
    single_row: bool = True
    outputs: int = 0
    convolves: bool = False
    channels_last: bool = False


def probe(module: nn.Module, shape: Sequence[int], *, stack: bool | None = True, copies: bool = True) -> Probe:
    """Try a float64 copy of the module on random rows of the given shape; the module itself is not touched.

    Args:
        module: the network.
        shape: of a row.
        stack: whether to try it; None: only where there are no convolutions. Of a large network it takes gigabytes: the trial
            alone is two of the model, and stacking thirty.
        copies: without it the module itself is tried, and has no values afterwards.

    Raises:
        ConfigError: the module cannot take rows of that shape, its output is not [rows, outputs], or its own `stacked`
            disagrees with its forward.
    """
    trial = (copy.deepcopy(module) if copies else module).double().cpu().train()
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(2, _ROWS, *shape, generator=draw, dtype=torch.float64)
    convolves = any(
        isinstance(layer, nn.Conv2d | nn.Conv3d) or getattr(layer, "convolves", False) for layer in trial.modules()
    )
    tries = not convolves if stack is None else stack
    params = {n: _sites(p.detach(), draw, tries) for n, p in trial.named_parameters() if p.requires_grad}
    plain = single(trial)
    with torch.random.fork_rng(devices=[]):
        found = _look(trial, plain, params, x, draw, tries)
        found = replace(
            found,
            outputs=_one(trial, plain, params, x, 0).shape[1],
            single_row=_takes_one_row(trial, plain, params, x),
            convolves=convolves,
            channels_last=convolves and len(shape) + 1 in CHANNELS_LAST and _takes_channels_last(trial, params, x),
        )
    for parameter in trial.parameters():  # a module that refers to itself stays until the collector comes by
        parameter.data = parameter.data.new_empty(0)
    return found


def _look(trial: nn.Module, plain: Forward, params: Arrays, x: Tensor, draw: torch.Generator, stack: bool) -> Probe:
    kind, shape = type(trial).__name__, tuple(x.shape[2:])
    before = torch.get_rng_state()
    try:
        first, second = _one(trial, plain, params, x, 0), _one(trial, plain, params, x, 0)
    except Exception as error:
        raise ConfigError(f"model {kind} cannot take rows of shape {shape}: {_first_line(error)}") from error
    if first.dim() != 2 or len(first) != _ROWS:
        raise ConfigError(
            f"model {kind} makes outputs of shape {tuple(first.shape)} from {_ROWS} rows of shape {shape}: expected "
            "logits [rows, outputs]; mend its forward, or the shape of its inputs"
        )
    # a small dropout often drops nothing in so few rows: the generator's state tells what the outputs hide
    if not (torch.equal(before, torch.get_rng_state()) and torch.equal(first, second)):
        return Probe(
            stackable=False, independent=False, stochastic=True,
            reason="sequential: the model draws random numbers while it trains (dropout)",
        )  # fmt: skip
    changed = x.clone()
    changed[:, 1:] = torch.randn(2, _ROWS - 1, *shape, generator=draw, dtype=torch.float64)
    seen, others = _buffers(trial, 1), _buffers(trial, 1)
    _one(trial, plain, params, x, 0, seen)
    other = _one(trial, plain, params, changed, 0, others)
    # where a ReLU hides the other rows from the first one's output, BatchNorm's statistics still tell
    independent = torch.allclose(first[:1], other[:1], atol=_TOLERANCE, rtol=0) and all(
        torch.equal(value, others[name]) for name, value in seen.items()
    )
    if not stack:
        return Probe(
            stackable=False, independent=independent, stochastic=False,
            reason="sequential: whether its sites can be stacked was not tried",
        )  # fmt: skip
    return _stackable(trial, plain, params, x, independent)


def _sites(value: Tensor, draw: torch.Generator, two: bool) -> Tensor:
    """A parameter of two sites that differ, [2, ...], or a view of the one, [1, ...]."""
    if not two:
        return value.unsqueeze(0)
    return torch.stack([value, value + 0.01 * torch.randn(value.shape, generator=draw, dtype=torch.float64)])


def _takes_one_row(trial: nn.Module, plain: Forward, params: Arrays, x: Tensor) -> bool:
    try:
        _one(trial, plain, params, x[:, :1], 0)
    except ValueError:  # what BatchNorm raises; anything else would have shown with more rows
        return False
    return True


def _takes_channels_last(trial: nn.Module, params: Arrays, x: Tensor) -> bool:
    plain, turned = single(trial), single(trial, channels_last=True)
    watch = _Overrun()
    try:
        with watch:
            _one(trial, turned, params, x, 0)
        if watch.found:
            return False
        trial.eval()  # dropout would draw other masks in another layout
        return torch.allclose(_one(trial, plain, params, x, 0), _one(trial, turned, params, x, 0), atol=_TOLERANCE)
    except Exception:  # noqa: BLE001 - a module's own way to refuse; `x.view(len(x), -1)` after a convolution is the usual one
        return False


class _Overrun(TorchDispatchMode):
    """Looks for convolutions of 1 x 1 pixels that skip some, over fewer channels than a vector.

    Where the channels of a pixel lie side by side, oneDNN's gradient of their weights first gathers the pixels that count into
    memory for as many channels as there are, and writes whole vectors
    (`jit_avx512_common_1x1_convolution_bwd_weights`): what lies behind it on the heap is overwritten, and the process may die.
    Seen with oneDNN 3.12 (PyTorch 2.13) for 2 to 15 channels, with AVX-512 and AVX2, from pictures of 32 x 16 pixels on; not
    with 16 channels or more, larger kernels, every pixel, volumes, or the usual layout. float64 goes another way.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.convolution.default:
            weight, stride = args[1], args[3]
            self.found |= weight.shape[1] < _VECTOR and weight[0, 0].numel() == 1 and max(stride) > 1
        return func(*args, **(kwargs or {}))


def _stackable(trial: nn.Module, plain: Forward, params: Arrays, x: Tensor, independent: bool) -> Probe:
    by_hand = hand_stacked(trial)
    how = "hand-stacked layers" if by_hand else "vmap"
    try:
        together = _changes(trial, by_hand or vmapped(trial), params, x)
    except Exception as error:  # noqa: BLE001 - vmap refuses modules in many ways, and each means the same: one at a time
        return Probe(
            stackable=False, independent=independent, stochastic=False,
            reason=f"sequential: {how} cannot take this model: {_first_line(error)}",
        )  # fmt: skip
    apart = [_changes(trial, plain, {n: p[k : k + 1] for n, p in params.items()}, x[k : k + 1]) for k in range(2)]
    same = all(
        torch.allclose(value, torch.cat([one[n] for one in apart]), atol=_TOLERANCE, rtol=_TOLERANCE)
        for n, value in together.items()
    )
    if same:
        rows = "rows independent" if independent else "rows meet in a batch (BatchNorm): grouped by batch size"
        return Probe(stackable=True, independent=independent, stochastic=False, reason=f"stacked: {how}, {rows}")
    if by_hand:
        raise ConfigError(
            f"model {type(trial).__name__}: its stacked(params, x) and its forward(x) give different gradients or "
            "buffers: mend or remove it"
        )
    return Probe(
        stackable=False, independent=independent, stochastic=False,
        reason="sequential: vmap gives other gradients than the plain model",
    )  # fmt: skip


def _buffers(trial: nn.Module, sites: int) -> Arrays:
    return {n: b.detach().clone().unsqueeze(0).repeat(sites, *[1] * b.dim()) for n, b in trial.named_buffers()}


def _one(trial: nn.Module, plain: Forward, params: Arrays, x: Tensor, k: int, buffers: Arrays | None = None) -> Tensor:
    own = _buffers(trial, 1) if buffers is None else buffers
    with torch.no_grad():
        return plain({n: p[k : k + 1] for n, p in params.items()}, own, x[k : k + 1])[0]


def _changes(trial: nn.Module, forward: Forward, params: Arrays, x: Tensor) -> Arrays:
    """What a step takes from the model: each site's gradients, and its buffers after the forward."""
    leaves = {n: p.clone().requires_grad_() for n, p in params.items()}
    buffers = _buffers(trial, len(x))
    logits = forward(leaves, buffers, x)
    weights = torch.linspace(0.5, 1.5, logits[0].numel(), dtype=logits.dtype).view(logits.shape[1:])
    found = torch.autograd.grad((torch.tanh(logits) * weights).sum(), list(leaves.values()), allow_unused=True)
    grads = {n: torch.zeros_like(p) if g is None else g for (n, p), g in zip(leaves.items(), found, strict=True)}
    return grads | buffers


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}".rstrip(": ")

"""Local optimisers as functions over a leading site axis: plain arithmetic in place, no `torch.optim`.

SGD with heavy-ball momentum as in PyTorch (Sutskever et al. 2013, without dampening); Adam (Kingma & Ba 2015); AdamW
(Loshchilov & Hutter 2019). Every site starts each round with fresh optimiser state.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from wardround.config.job import OptimizerSpec
from wardround.types import Arrays


def start(spec: OptimizerSpec, params: Arrays) -> dict[str, Arrays]:
    """Fresh optimiser state for parameters [K, ...]: slot -> name -> zeros [K, ...]."""
    slots = ["momentum"] if spec.name == "sgd" and spec.momentum else []
    slots += ["mean", "square"] if spec.name != "sgd" else []
    return {slot: {name: torch.zeros_like(value) for name, value in params.items()} for slot in slots}


def step(
    spec: OptimizerSpec, params: Arrays, grads: Arrays, slots: dict[str, Arrays], learning_rate: float, number: int
) -> None:
    """One step of k sites, in place.

    Args:
        spec: which optimiser.
        params: name -> [k, ...], changed in place.
        grads: name -> [k, ...], may be overwritten.
        slots: optimiser state of the same sites, changed in place.
        learning_rate: the round's.
        number: 1 for a site's first step of the round; all k sites are at the same step.
    """
    for name, param in params.items():
        grad = grads[name]
        # a vector has two axes here, of which the first is the sites'
        decay = spec.weight_decay if spec.decay == "all" or param.ndim > 2 else 0.0
        if decay and spec.name != "adamw":
            grad = grad.add(param, alpha=decay)
        if spec.name == "sgd":
            if spec.momentum:
                grad = slots["momentum"][name].mul_(spec.momentum).add_(grad)
            param.sub_(grad, alpha=learning_rate)
            continue
        if spec.name == "adamw" and decay:
            param.mul_(1.0 - learning_rate * decay)
        mean = slots["mean"][name].lerp_(grad, 1.0 - spec.beta1)
        square = slots["square"][name].mul_(spec.beta2).addcmul_(grad, grad, value=1.0 - spec.beta2)
        scale = (square / (1.0 - spec.beta2**number)).sqrt_().add_(spec.epsilon)
        param.addcdiv_(mean, scale, value=-learning_rate / (1.0 - spec.beta1**number))


def learning_rate(spec: OptimizerSpec, index: int, rounds: int) -> float:
    """The local learning rate of a round: a function of its number, so that a resumed run goes on with the same.

    After w rounds of warm-up, in which round t takes (t + 1) / (w + 1) of the full rate, `step` has factor^floor(s / every),
    `exponential` factor^s and `cosine` floor + (1 - floor)(1 + cos(pi s / (rounds - w))) / 2 of it, s = t - w (Loshchilov &
    Hutter 2017 for the last, without restarts).

    Args:
        spec: the optimiser with its schedule.
        index: 0-based round.
        rounds: of the run.
    """
    schedule = spec.schedule
    passed = index - schedule.warmup
    if passed < 0:
        return spec.learning_rate * (index + 1) / (schedule.warmup + 1)
    share = 1.0
    if schedule.kind == "step":
        share = (schedule.factor or 0.1) ** (passed // schedule.every)
    elif schedule.kind == "exponential":
        share = (schedule.factor or 0.95) ** passed
    elif schedule.kind == "cosine":
        share = (1.0 + math.cos(math.pi * min(passed / max(rounds - schedule.warmup, 1), 1.0))) / 2.0
        share = schedule.floor + (1.0 - schedule.floor) * share
    return spec.learning_rate * max(share, schedule.floor)


def effective_steps(spec: OptimizerSpec, steps: Tensor) -> Tensor:
    """L1 norm of the accumulation vector of SGD with momentum (Wang et al. 2020, FedNova, section 4).

    The displacement of a site is learning_rate x sum_i a_i g_i with a_i = (1 - m^(tau - i)) / (1 - m), i = 0 .. tau - 1,
    so its norm is (tau - m (1 - m^tau) / (1 - m)) / (1 - m); tau without momentum.

    Args:
        spec: the optimiser; for Adam the count of steps is returned.
        steps: float64 [K], tau.
    """
    m = spec.momentum
    if spec.name != "sgd" or not m:
        return steps
    return (steps - m * (1.0 - m**steps) / (1.0 - m)) / (1.0 - m)

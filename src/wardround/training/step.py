"""The only SGD step of the house: k sites, one ordinary backward.

The sum of the sites' losses has a block-diagonal gradient, so a single backward pass through a forward with a leading site
axis gives every site its own gradient.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from wardround.config.job import OptimizerSpec
from wardround.errors import ConfigError
from wardround.training import optimizers
from wardround.training.forward import Forward
from wardround.training.loss import RowLosses, row_losses
from wardround.types import Arrays, LocalRule, Server


@dataclass(frozen=True, kw_only=True)
class Sites:
    """Tensors of k sites that a step reads and changes in place; `take` and `put` cut out and give back a part.

    Attributes:
        params, buffers: name -> [k, ...].
        slots: optimiser state, slot -> name -> [k, ...].
        context: what the rule prepared, name -> [k, ...]; read only.
    """

    params: Arrays
    buffers: Arrays
    slots: dict[str, Arrays]
    context: Arrays

    def _each(self, change: object) -> Sites:
        def over(arrays: Arrays) -> Arrays:
            return {name: value[change] for name, value in arrays.items()}  # type: ignore[index]

        return Sites(
            params=over(self.params),
            buffers=over(self.buffers),
            slots={slot: over(arrays) for slot, arrays in self.slots.items()},
            context=over(self.context),
        )

    def first(self, k: int) -> Sites:
        """The first k sites as views: what the step changes in them is changed here."""
        return self._each(slice(0, k))

    def take(self, index: Tensor) -> Sites:
        """Copies of the sites in `index`."""
        return self._each(index)

    def put(self, index: Tensor, part: Sites) -> None:
        """Write back what `take` copied."""
        mine = [self.params, self.buffers, *self.slots.values()]
        theirs = [part.params, part.buffers, *part.slots.values()]
        for own, changed in zip(mine, theirs, strict=True):
            for name, value in own.items():
                value[index] = changed[name]


def step(
    forward: Forward,
    rule: LocalRule,
    server: Server,
    optimizer: OptimizerSpec,
    sites: Sites,
    x: Tensor,
    y: Tensor,
    weights: Tensor,
    *,
    learning_rate: float,
    number: int,
    row_losses: RowLosses = row_losses,
    parts: int = 1,
) -> Tensor:
    """One optimiser step of k sites, in place.

    Args:
        forward: the module over a site axis.
        rule: its `correct` changes the gradients.
        server: what the server broadcast (no site axis).
        optimizer: which local optimiser.
        sites: tensors of the k sites.
        x: rows [k, b, ...]; y: labels [k, b], or [k, b, labels] where a dataset is multi-label.
        weights: [k, b], each row's weight in its site's loss: 1 / (rows in the batch), 0 for padding.
        learning_rate: the round's.
        number: 1 for the first step of the round.
        row_losses: the loss that is minimised.
        parts: in so many parts the batch goes through the module, one after another; their gradients add up to the batch's.

    Returns:
        Each site's loss before the step, [k], detached.
    """
    leaves = {name: value.detach().requires_grad_() for name, value in sites.params.items()}
    first, *rest = _parts(x, y, weights, parts)
    grads, losses = _gradients(forward, leaves, sites.buffers, *first, row_losses)
    for part in rest:
        more, further = _gradients(forward, leaves, sites.buffers, *part, row_losses)
        grads, losses = {name: grad + more[name] for name, grad in grads.items()}, losses + further
    with torch.no_grad():
        corrected = rule.correct(grads, sites.params, sites.context, server)
        if number == 1:
            _check_corrected(rule, corrected, sites.params)
        grads = corrected
        optimizers.step(optimizer, sites.params, grads, sites.slots, learning_rate, number)
    return losses


def _parts(x: Tensor, y: Tensor, weights: Tensor, parts: int) -> Iterable[tuple[Tensor, Tensor, Tensor]]:
    """The batch, in parts of nearly equal numbers of rows."""
    if parts == 1:
        return [(x, y, weights)]
    return zip(x.tensor_split(parts, 1), y.tensor_split(parts, 1), weights.tensor_split(parts, 1), strict=True)


def _gradients(
    forward: Forward, leaves: Arrays, buffers: Arrays, x: Tensor, y: Tensor, weights: Tensor, row_losses: RowLosses
) -> tuple[Arrays, Tensor]:
    """Each site's gradients, zero for what its loss does not depend on, and its loss, [k]."""
    losses = row_losses(forward(leaves, buffers, x), y) * weights
    found = torch.autograd.grad(losses.sum(), list(leaves.values()), allow_unused=True)
    grads = {
        name: torch.zeros_like(leaf) if grad is None else grad
        for (name, leaf), grad in zip(leaves.items(), found, strict=True)
    }
    return grads, losses.detach().sum(1)


def _check_corrected(rule: LocalRule, grads: Arrays, params: Arrays) -> None:
    """A gradient without its site axis would broadcast, and silently mix the hospitals."""
    for name, param in params.items():
        found = grads.get(name) if isinstance(grads, dict) else None
        if found is None or found.shape != param.shape:
            what = "nothing" if found is None else f"a gradient of shape {tuple(found.shape)}"
            raise ConfigError(
                f"algorithm {rule.name}: correct gives {what} for {name}, expected {tuple(param.shape)}: [sites, ...] as it came"
            )

"""Federated averaging by hand, in PyTorch alone: one plain module, one site after another, `torch.optim.SGD`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Weights = dict[str, Tensor]
Site = tuple[Tensor, Tensor]
"""Features [n, ...] and labels [n]."""
Batches = Iterable[Tensor]
"""Row indices of one step after another."""


def local_training(module: nn.Module, site: Site, batches: Batches, learning_rate: float) -> None:
    """Train the module in place, one step a batch."""
    x, y = site
    optimizer = torch.optim.SGD(module.parameters(), lr=learning_rate)
    module.train()
    for batch in batches:
        optimizer.zero_grad()
        torch.autograd.backward(F.cross_entropy(module(x[batch]), y[batch]))
        optimizer.step()


def one_round(
    module: nn.Module, server: Weights, sites: Sequence[Site], batches: Sequence[Batches], share: Sequence[float],
    learning_rate: float,
) -> Weights:  # fmt: skip
    """The server's next weights: the mean of the sites' own, each with its share."""
    total = {name: torch.zeros_like(value) for name, value in server.items()}
    for site, own, part in zip(sites, batches, share, strict=True):
        module.load_state_dict(server)
        local_training(module, site, own, learning_rate)
        for name, value in module.named_parameters():
            total[name].add_(value.detach(), alpha=part)
    return total

"""q-FedAvg: the sites that the model serves worst move it most (Li et al. 2020, Fair resource allocation, algorithm 2).

It minimises sum p_k F_k(x)^(q+1) / (q+1), where F_k is a site's mean training loss. With L = 1 / learning_rate a site sends

    Delta_k = F_k^q L (x - y_k),    h_k = q F_k^(q-1) ||L (x - y_k)||^2 + L F_k^q,

both weighted p_k, and the mean step is -(sum p_k Delta_k) / (sum p_k h_k). L is taken out of both. With q = 0 every h_k is L,
so this is FedAvg with the same `algorithm.weighting`. The paper draws sites with probability p_k and weighs them alike; here
p_k is the weight: `samples` is the paper's objective, `uniform` treats sites alike.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from wardround.algorithms.fedavg import FedAvg
from wardround.errors import ConfigError
from wardround.types import Arrays, Progress, Round, Server, Total

_LEAST = 1e-10
"""A loss below this counts as this: F^(q-1) has no value at 0."""
_CURVATURE = "curvature"


class QFedAvg(FedAvg):
    """FedAvg that weighs sites by a power of their loss. Each round costs one more forward pass over the training rows.

    Args:
        q: fairness, 0 or more.
    """

    name = "qfedavg"

    def __init__(self, q: float = 1.0) -> None:
        if not q >= 0.0:
            raise ConfigError(f"algorithm.q = {q}: expected a number of at least 0")
        self.q = q

    def finish(
        self, params: Arrays, server: Server, states: Arrays, progress: Progress
    ) -> tuple[dict[str, Arrays], Arrays]:
        """-Delta_k / L and h_k / L; no loss is computed for q = 0. Both are 0 at a site that took no step."""
        moved = {n: params[n] - x for n, x in server.model.params.items()}
        works = (progress.steps > 0).double()
        if self.q == 0.0:
            return {"step": moved, "scale": {_CURVATURE: works}}, {}
        loss = progress.incoming_loss().clamp_min(_LEAST)
        share = loss**self.q
        length = torch.zeros_like(loss)
        for value in moved.values():
            length += value.square().flatten(1).sum(1).cpu().double()
        curvature = self.q * loss ** (self.q - 1.0) * length / progress.learning_rate + share
        step = {n: value * share.view(-1, *[1] * (value.dim() - 1)).to(value) for n, value in moved.items()}
        return {"step": step, "scale": {_CURVATURE: curvature * works}}, {}

    def combine(self, total: Total, server: Server, round: Round) -> Total:
        """The sum of steps, such that its mean is their sum over the sum of h_k."""
        mean = total.mean("scale")
        if not mean or "step" not in total.sums:
            return total
        curvature = float(mean[_CURVATURE])
        return replace(total, sums={**total.sums, "step": {n: v / curvature for n, v in total.sums["step"].items()}})

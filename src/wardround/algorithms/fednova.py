"""FedNova: sites that take more steps do not count for more (Wang et al. 2020, section 4).

A site's step is divided by the accumulation of its gradients, d_k = (y_k - x) / a_k, and the mean step is

    (sum p_k a_k) x (sum p_k d_k),    p_k = n_k / sum of n_k over the sites in the round.

a_k is how far a constant unit gradient would have taken the site, in units of the learning rate: tau steps of plain SGD give
tau, with momentum m each gradient goes on to act, and with a proximal pull mu earlier ones fade, since g_i enters with
(1 - learning_rate mu)^(tau - i). It is the L1 norm of the paper's accumulation vector wherever that is not negative (with
momentum m: learning_rate mu <= (1 - sqrt m)^2). Where all a_k are equal, this is FedAvg, or FedProx with the same mu.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from wardround.algorithms.fedavg import FedAvg
from wardround.algorithms.fedprox import FedProx
from wardround.types import Arrays, Progress, Round, Server, Total

_ACCUMULATION = "accumulation"


class FedNova(FedAvg):
    """Normalised averaging. A site sends d_k and the number a_k, both weighted like FedAvg's step.

    Args:
        mu: weight of a proximal pull as in FedProx, 0 or more.
    """

    name = "fednova"

    def __init__(self, mu: float = 0.0) -> None:
        self._proximal = FedProx(mu)

    def correct(self, grads: Arrays, params: Arrays, context: Arrays, server: Server) -> Arrays:
        """G + mu (w - w_t), for names that the server holds."""
        return self._proximal.correct(grads, params, context, server)

    def finish(
        self, params: Arrays, server: Server, states: Arrays, progress: Progress
    ) -> tuple[dict[str, Arrays], Arrays]:
        """d_k and a_k; both are 0 at a site that took no step."""
        length = progress.effective_steps
        if self._proximal.mu:
            length = accumulation(progress.steps, progress.momentum, progress.learning_rate * self._proximal.mu)
        divisor = length.clamp_min(torch.finfo(torch.float32).tiny)
        step = {n: (params[n] - x) / divisor.view(-1, *[1] * x.dim()).to(x) for n, x in server.model.params.items()}
        return {"step": step, "scale": {_ACCUMULATION: length}}, {}

    def combine(self, total: Total, server: Server, round: Round) -> Total:
        """The sum of steps, lengthened by the mean of a_k."""
        mean = total.mean("scale")
        if not mean or "step" not in total.sums:
            return total
        length = float(mean[_ACCUMULATION])
        return replace(total, sums={**total.sums, "step": {n: v * length for n, v in total.sums["step"].items()}})


def accumulation(steps: Tensor, momentum: float, pull: float) -> Tensor:
    """How far a constant unit gradient takes SGD with momentum and a proximal pull, divided by the learning rate.

    With e the distance from the start: v <- m v + 1 - pull e, e <- e + v, from e = v = 0. Without momentum it is
    (1 - (1 - pull)^tau) / pull.

    Args:
        steps: float64 [K], tau.
        momentum: m, in [0, 1).
        pull: learning rate x mu, in [0, 1).

    Returns:
        Float64 [K].
    """
    distance, velocity, reached = 0.0, 0.0, [0.0]
    for _ in range(int(steps.max()) if len(steps) else 0):
        velocity = momentum * velocity + 1.0 - pull * distance
        distance += velocity
        reached.append(distance)
    return torch.tensor(reached, dtype=torch.float64)[steps.long()]

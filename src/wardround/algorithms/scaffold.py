"""SCAFFOLD: control variates take out client drift (Karimireddy et al. 2020, algorithm 1, option II).

A site's gradient is g - c_k + c. After its steps, c_k+ = c_k - c + (x - y_k) / (sum of a_i x learning rate), where x is the
server's model, y_k the site's, and the sum is the number of steps for plain SGD (under momentum the accumulation's L1 norm,
so that the quotient stays a mean gradient). The site sends c_k+ - c_k with weight 1; the server moves c by their sum over
the whole population, so sites that sat out count as unchanged.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from wardround.algorithms.fedavg import FedAvg
from wardround.types import Arrays, ModelState, Progress, Round, Server, Total

_VARIATE = "variate"
_PREFIX = "variate/"


class Scaffold(FedAvg):
    """FedAvg with control variates; one array as large as the model at each site, and one at the server."""

    name = "scaffold"

    def initial(self, model: ModelState) -> Arrays:
        """c_k = 0."""
        return {_PREFIX + n: torch.zeros_like(value) for n, value in model.params.items()}

    def broadcast(self, model: ModelState) -> Arrays:
        """C = 0."""
        return self.initial(model)

    def start(self, server: Server, states: Arrays) -> Arrays:
        """C - c_k, [K, ...]."""
        return {n: server.rule[_PREFIX + n] - states[_PREFIX + n] for n in server.model.params}

    def correct(self, grads: Arrays, params: Arrays, context: Arrays, server: Server) -> Arrays:
        """G - c_k + c, for names that the server holds."""
        return {**grads, **{n: grads[n] + value for n, value in context.items()}}

    def finish(
        self, params: Arrays, server: Server, states: Arrays, progress: Progress
    ) -> tuple[dict[str, Arrays], Arrays]:
        """The change of c_k as a term, and the new c_k. A site that took no step keeps its own."""
        change: Arrays = {}
        for n, x in server.model.params.items():
            shape = (-1, *[1] * x.dim())
            length = (progress.effective_steps * progress.learning_rate).view(shape).to(x)
            moved = (x - params[n]) / length.clamp_min(torch.finfo(x.dtype).tiny) - server.rule[_PREFIX + n]
            change[n] = torch.where(length > 0, moved, torch.zeros_like(moved))
        kept = {_PREFIX + n: states[_PREFIX + n] + value for n, value in change.items()}
        return {_VARIATE: change}, kept

    def absorb(self, server: Server, total: Total, round: Round) -> Server:
        """C + (sum of changes) / population."""
        sums = total.sums.get(_VARIATE, {})
        moved = {_PREFIX + n: server.rule[_PREFIX + n] + value / round.population for n, value in sums.items()}
        return replace(server, rule={**server.rule, **moved})

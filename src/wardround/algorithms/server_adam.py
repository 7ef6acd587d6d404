"""FedAdam: the mean step is a pseudo-gradient for Adam at the server (Reddi et al. 2021, algorithm 2).

m = beta1 m + (1 - beta1) d;  v = beta2 v + (1 - beta2) d^2;  x = x + learning_rate x m / (sqrt(v) + tau). As in the paper,
without bias correction. Buffers are averaged, not optimised.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from wardround.algorithms.server_average import averaged_buffers
from wardround.types import Arrays, ModelState, Round, Server, Total


class Adam:
    """Adam over rounds; the base of the adaptive rules, which differ in how the second moment moves.

    Args:
        learning_rate: above 0.
        beta1, beta2: decay of the moments, in [0, 1).
        epsilon: tau, the degree of adaptivity, above 0.
    """

    name = "adam"

    def __init__(
        self, learning_rate: float = 0.1, beta1: float = 0.9, beta2: float = 0.99, epsilon: float = 1e-3
    ) -> None:
        self.learning_rate, self.beta1, self.beta2, self.epsilon = learning_rate, beta1, beta2, epsilon

    def initial(self, model: ModelState) -> Arrays:
        """M = 0 and v = 0."""
        return {f"{slot}/{n}": torch.zeros_like(p) for slot in ("mean", "square") for n, p in model.params.items()}

    def apply(self, server: Server, total: Total, round: Round) -> Server:
        """The next server; a total without weight changes nothing, not even the moments."""
        params, memory = dict(server.model.params), dict(server.optimizer)
        for n, step in total.mean("step").items():
            mean = self.beta1 * memory[f"mean/{n}"] + (1.0 - self.beta1) * step
            square = self.second(memory[f"square/{n}"], step)
            params[n] = params[n] + self.learning_rate * mean / (square.sqrt() + self.epsilon)
            memory[f"mean/{n}"], memory[f"square/{n}"] = mean, square
        model = ModelState(params=params, buffers=averaged_buffers(server, total))
        return replace(server, model=model, optimizer=memory)

    def second(self, square: Tensor, step: Tensor) -> Tensor:
        """Beta2 v + (1 - beta2) d^2."""
        return self.beta2 * square + (1.0 - self.beta2) * step * step

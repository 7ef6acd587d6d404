"""FedAvgM: the server keeps a velocity of mean steps (Hsu et al. 2019, section 4.3).

v = beta v + d;  x = x + learning_rate x v. A constant step d is thereby followed 1 / (1 - beta) times as far; with beta = 0 it
is plain averaging. Buffers are averaged, not optimised.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from wardround.algorithms.server_average import averaged_buffers
from wardround.types import Arrays, ModelState, Round, Server, Total


class Momentum:
    """Heavy-ball momentum over rounds.

    Args:
        learning_rate: above 0.
        beta1: decay of the velocity, in [0, 1).
    """

    name = "momentum"

    def __init__(self, learning_rate: float = 1.0, beta1: float = 0.9) -> None:
        self.learning_rate, self.beta1 = learning_rate, beta1

    def initial(self, model: ModelState) -> Arrays:
        """V = 0."""
        return {f"velocity/{n}": torch.zeros_like(p) for n, p in model.params.items()}

    def apply(self, server: Server, total: Total, round: Round) -> Server:
        """The next server; a total without weight changes nothing, not even the velocity."""
        params, memory = dict(server.model.params), dict(server.optimizer)
        for n, step in total.mean("step").items():
            velocity = self.beta1 * memory[f"velocity/{n}"] + step
            params[n] = params[n] + self.learning_rate * velocity
            memory[f"velocity/{n}"] = velocity
        model = ModelState(params=params, buffers=averaged_buffers(server, total))
        return replace(server, model=model, optimizer=memory)

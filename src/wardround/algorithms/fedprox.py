"""FedProx: a proximal term mu/2 ||w - w_t||^2 holds each site near the global model (Li et al. 2020, algorithm 2).

Its gradient is g + mu (w - w_t). With mu = 0 it is FedAvg.
"""

from __future__ import annotations

from wardround.algorithms.fedavg import FedAvg
from wardround.errors import ConfigError
from wardround.types import Arrays, Server


class FedProx(FedAvg):
    """FedAvg with a proximal pull on the shared parameters.

    Args:
        mu: weight of the pull, 0 or more.
    """

    name = "fedprox"

    def __init__(self, mu: float = 0.01) -> None:
        if not mu >= 0.0:
            raise ConfigError(f"algorithm.mu = {mu}: expected a number of at least 0")
        self.mu = mu

    def correct(self, grads: Arrays, params: Arrays, context: Arrays, server: Server) -> Arrays:
        """G + mu (w - w_t), for names that the server holds."""
        if self.mu == 0.0:
            return grads
        pulled = {n: grads[n].add(params[n] - value, alpha=self.mu) for n, value in server.model.params.items()}
        return {**grads, **pulled}

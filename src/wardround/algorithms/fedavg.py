"""FedAvg: each site takes ordinary SGD steps, the server averages (McMahan et al. 2017, algorithm 1).

The other local rules differ from it in a method or two, so it is also the one base they extend.
"""

from __future__ import annotations

from torch import nn

from wardround.types import Arrays, ModelState, Progress, Round, Server, Total


class FedAvg:
    """Leaves gradients as they are and remembers nothing."""

    name = "fedavg"

    def local(self, name: str, module: nn.Module) -> bool:
        """Nothing stays at a site."""
        return False

    def initial(self, model: ModelState) -> Arrays:
        """No memory at a site."""
        return {}

    def broadcast(self, model: ModelState) -> Arrays:
        """Nothing beside the model."""
        return {}

    def start(self, server: Server, states: Arrays) -> Arrays:
        """Nothing to prepare."""
        return {}

    def correct(self, grads: Arrays, params: Arrays, context: Arrays, server: Server) -> Arrays:
        """The gradients as they are."""
        return grads

    def finish(
        self, params: Arrays, server: Server, states: Arrays, progress: Progress
    ) -> tuple[dict[str, Arrays], Arrays]:
        """No terms beside the model's step, no new memory."""
        return {}, {}

    def combine(self, total: Total, server: Server, round: Round) -> Total:
        """The sums as they are."""
        return total

    def absorb(self, server: Server, total: Total, round: Round) -> Server:
        """Nothing to absorb."""
        return server

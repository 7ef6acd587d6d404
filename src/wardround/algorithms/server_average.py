"""The plain server: the global model moves by the mean step (McMahan et al. 2017), scaled by a learning rate (default 1)."""

from __future__ import annotations

from dataclasses import replace

from wardround.types import Arrays, ModelState, Round, Server, Total


class Average:
    """x + learning_rate x mean step; buffers take their mean whole.

    Args:
        learning_rate: above 0; 1 is FedAvg.
    """

    name = "average"

    def __init__(self, learning_rate: float = 1.0) -> None:
        self.learning_rate = learning_rate

    def initial(self, model: ModelState) -> Arrays:
        """No memory."""
        return {}

    def apply(self, server: Server, total: Total, round: Round) -> Server:
        """The next server. It uses up the sums of `step`, of which a copy would be a model more."""
        params = dict(server.model.params)
        for name, step in total.drained("step"):
            params[name] = params[name] + self.learning_rate * step
        return replace(server, model=ModelState(params=params, buffers=averaged_buffers(server, total)))


def averaged_buffers(server: Server, total: Total) -> Arrays:
    """Buffers moved by their mean difference: every server rule treats them alike, since they are no gradient."""
    moved = total.mean("buffers")
    return {n: value + moved[n] if n in moved else value for n, value in server.model.buffers.items()}

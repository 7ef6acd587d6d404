"""A local rule, as a plug-in brings one, under which some sites give what no sum may hold."""

from __future__ import annotations

import torch

from wardround.algorithms.fedavg import FedAvg
from wardround.types import Arrays, Progress, Server


class Diverging(FedAvg):
    """FedAvg with a term that is not finite at the sites that took a given number of steps.

    Args:
        steps: that number.
    """

    name = "diverging"

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def finish(
        self, params: Arrays, server: Server, states: Arrays, progress: Progress
    ) -> tuple[dict[str, Arrays], Arrays]:
        """One term, `marker`, which nobody reads."""
        bad = progress.steps == self.steps
        return {
            "marker": {"value": torch.where(bad, torch.full_like(progress.steps, float("nan")), progress.steps)}
        }, {}

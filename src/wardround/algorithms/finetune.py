"""Fine-tuning: sites go on from a trained model by plain steps on their own rows, and send nothing of it.

Not chosen by `algorithm.name`, but by `finetuning.epochs`. What trains is local; shared parameters are frozen, and what
training would do to shared buffers is dropped, so the trained model stays as it is.
"""

from __future__ import annotations

from wardround.algorithms.fedavg import FedAvg
from wardround.types import Arrays, Progress, Server


class FineTune(FedAvg):
    """FedAvg without a step of the shared model."""

    name = "finetune"

    def finish(
        self, params: Arrays, server: Server, states: Arrays, progress: Progress
    ) -> tuple[dict[str, Arrays], Arrays]:
        """No step, no buffers."""
        return {"step": {}, "buffers": {}}, {}

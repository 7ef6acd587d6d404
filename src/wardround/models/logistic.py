"""Logistic regression: one linear layer, of which the logistic function or the softmax is in the loss."""

from __future__ import annotations

from torch import Tensor, nn

from wardround.models.stacked import linear
from wardround.types import Arrays


class Logistic(nn.Module):
    """Maps x [b, inputs] to logits [b, outputs]; starts from zero, so that no seed is better than another.

    Args:
        inputs: number of features.
        outputs: 1 for a binary label (logit of the positive class), or the number of classes.
    """

    def __init__(self, inputs: int, outputs: int = 1) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [b, outputs] of x [b, inputs]."""
        logits: Tensor = self.linear(x)
        return logits

    def stacked(self, params: Arrays, x: Tensor) -> Tensor:
        """Logits [K, b, outputs] of K sites' own parameters on x [K, b, inputs]."""
        return linear(params, "linear", x)

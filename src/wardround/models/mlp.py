"""A multilayer perceptron for tables: linear layers with ReLU between them, and batch normalisation where asked."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from wardround.errors import ConfigError
from wardround.models.stacked import linear
from wardround.types import Arrays


class MLP(nn.Module):
    """Maps x [b, inputs] to logits [b, outputs].

    Args:
        inputs: number of features.
        outputs: 1 for a binary label, or the number of classes.
        hidden: widths of the hidden layers, at least one.
        norm: `batch` puts BatchNorm1d before each ReLU (what FedBN keeps at a site); `none` leaves it out.
    """

    def __init__(
        self, inputs: int, outputs: int = 1, hidden: Sequence[int] = (64,), norm: Literal["none", "batch"] = "none"
    ) -> None:
        super().__init__()
        if not hidden or any(width < 1 for width in hidden):
            raise ConfigError(f"model.options.hidden = {list(hidden)}: expected one or more widths of at least 1")
        if norm not in ("none", "batch"):
            raise ConfigError(f"model.options.norm = {norm!r}: expected none or batch")
        widths = [inputs, *hidden]
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) for width in hidden) if norm == "batch" else None
        self.head = nn.Linear(widths[-1], outputs)
        # a hand-stacked forward exists only where rows are independent of each other
        self.stacked = self._stacked if norm == "none" else None

    def forward(self, x: Tensor) -> Tensor:
        """Logits [b, outputs] of x [b, inputs]."""
        for i, layer in enumerate(self.hidden):
            x = layer(x)
            x = F.relu(x if self.norms is None else self.norms[i](x))
        logits: Tensor = self.head(x)
        return logits

    def _stacked(self, params: Arrays, x: Tensor) -> Tensor:
        """Logits [K, b, outputs] of K sites' own parameters on x [K, b, inputs]."""
        for i in range(len(self.hidden)):
            x = F.relu(linear(params, f"hidden.{i}", x))
        return linear(params, "head", x)

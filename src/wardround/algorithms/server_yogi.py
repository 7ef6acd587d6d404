"""FedYogi: FedAdam whose second moment moves additively (Reddi et al. 2021, algorithm 2).

v = v - (1 - beta2) d^2 sign(v - d^2): it grows as quickly as Adam's and shrinks more slowly, so that a few rounds of small
steps do not make the next one long.
"""

from __future__ import annotations

import torch
from torch import Tensor

from wardround.algorithms.server_adam import Adam


class Yogi(Adam):
    """Yogi over rounds; the arguments are those of `Adam`."""

    name = "yogi"

    def second(self, square: Tensor, step: Tensor) -> Tensor:
        """V - (1 - beta2) d^2 sign(v - d^2)."""
        now = step * step
        return square - (1.0 - self.beta2) * now * torch.sign(square - now)

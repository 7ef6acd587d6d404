"""Networks as a user would write them, without a word about federation. They need PyTorch alone."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


class PlainMLP(nn.Module):
    """What the built-in `mlp` computes, without its forward over a site axis; parameters have the same names."""

    def __init__(self, inputs: int = 30, outputs: int = 2, hidden: int = 64) -> None:
        super().__init__()
        self.hidden = nn.ModuleList([nn.Linear(inputs, hidden)])
        self.head = nn.Linear(hidden, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(F.relu(self.hidden[0](x)))
        return logits


class PlainCNN(nn.Module):
    """Two convolutions with pooling and two linear layers, for pictures of 28 x 28: 105,866 parameters."""

    def __init__(self, outputs: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1)
        self.hidden = nn.Linear(32 * 7 * 7, 64)
        self.head = nn.Linear(64, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        logits: torch.Tensor = self.head(F.relu(self.hidden(x.flatten(1))))
        return logits

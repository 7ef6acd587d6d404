"""Loss and probabilities from logits. One output is a binary logit, several are classes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def row_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of each row.

    Args:
        logits: float [..., outputs]; one output is the logit of class 1.
        labels: int64 [...].

    Returns:
        Float [...].
    """
    if logits.shape[-1] == 1:
        flat = logits.squeeze(-1)
        return F.binary_cross_entropy_with_logits(flat, labels.to(flat.dtype), reduction="none")
    return F.cross_entropy(logits.movedim(-1, 1), labels, reduction="none")


def positive_probability(logits: Tensor) -> Tensor:
    """Probability of class 1, float64 [...] on the CPU, of logits [..., 1] or [..., 2]."""
    wide = logits.cpu().double()
    return torch.sigmoid(wide.squeeze(-1)) if wide.shape[-1] == 1 else torch.softmax(wide, -1)[..., 1]


def scores(logits: Tensor) -> Tensor:
    """What a row is judged by, float64 on the CPU: the probability of class 1 [...] of two classes, else of each [..., C].

    Args:
        logits: float [..., outputs]; one or two outputs are two classes.
    """
    return positive_probability(logits) if logits.shape[-1] <= 2 else torch.softmax(logits.cpu().double(), -1)

"""Loss and probabilities from logits. One output is a binary logit, several are classes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

RowLosses = Callable[[Tensor, Tensor], Tensor]
"""Logits and labels -> the loss of each row."""


def row_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of each row; where rows have several labels, the mean over them of each one's binary cross-entropy.

    Args:
        logits: float [..., outputs]; one output is the logit of class 1.
        labels: int64 [...], or [..., outputs] of 0 and 1.

    Returns:
        Float [...].
    """
    if multilabel(logits, labels):
        return F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), reduction="none").mean(-1)
    if logits.shape[-1] == 1:
        flat = logits.squeeze(-1)
        return F.binary_cross_entropy_with_logits(flat, labels.to(flat.dtype), reduction="none")
    return F.cross_entropy(logits.movedim(-1, 1), labels, reduction="none")


def focal_losses(logits: Tensor, labels: Tensor, gamma: float) -> Tensor:
    """Focal loss of each row, (1 - p)^gamma (-log p) with p the probability of its class (Lin et al. 2017, equation 4).

    Without their alpha: the factors of the classes are apart. Of several labels a row, the mean over them, each a question
    of its own. Arguments and result as for `row_losses`; gamma 0 gives the same.
    """
    if multilabel(logits, labels):
        each = F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), reduction="none")
        return _focused(each, gamma).mean(-1)
    return _focused(row_losses(logits, labels), gamma)


def _focused(entropy: Tensor, gamma: float) -> Tensor:
    # a row that is right beyond the last digit has no slope, which a root of 0 would make infinite
    wrong = (-torch.expm1(-entropy)).clamp_min(torch.finfo(entropy.dtype).tiny)
    return wrong**gamma * entropy


def multilabel(logits: Tensor, labels: Tensor) -> bool:
    """Whether each output [.., L] has a label of its own [.., L]; else a row has one label [..]."""
    return labels.dim() == logits.dim()


def positive_probability(logits: Tensor) -> Tensor:
    """Probability of class 1, float64 [...] on the CPU, of logits [..., 1] or [..., 2]."""
    wide = logits.cpu().double()
    return torch.sigmoid(wide.squeeze(-1)) if wide.shape[-1] == 1 else torch.softmax(wide, -1)[..., 1]


def scores(logits: Tensor, *, labelled: bool = False) -> Tensor:
    """What a row is judged by, float64 on the CPU: the probability of class 1 [...] of two classes, else of each [..., C].

    Args:
        logits: float [..., outputs]; one or two outputs are two classes.
        labelled: whether each output is a label of its own.
    """
    if labelled:
        return torch.sigmoid(logits.cpu().double())
    return positive_probability(logits) if logits.shape[-1] <= 2 else torch.softmax(logits.cpu().double(), -1)

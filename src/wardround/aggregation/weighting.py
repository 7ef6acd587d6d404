"""The one place where a weight goes on: after clip and noise and encoding, before mask or encryption.

A weight is a fraction of its public maximum, so that it never changes a sensitivity silently and never overflows a ring.
"""

from __future__ import annotations

import torch

from wardround.types import Arrays, Term

WEIGHT = ".weight"
"""Name, in a weighed term, of the sum of fractions. The dot keeps it apart from a parameter that is named `weight`: no full
name in PyTorch begins with one."""


def fractions(term: Term) -> torch.Tensor:
    """Weights / maximum, float64 [K]."""
    return term.weights.double() / term.maximum


def weighed_sum(term: Term) -> Arrays:
    """Sum over the K sites of fraction x array, and of the fractions themselves under the name `WEIGHT`.

    Sums lie on the CPU, whatever device trained. Arrays keep their floating dtype; integers are summed as float64.
    A site of weight 0 adds nothing.
    """
    share = fractions(term)
    sums: Arrays = {WEIGHT: share.sum()}
    for name, value in term.arrays.items():
        wide = value if value.is_floating_point() else value.double()
        sums[name] = torch.tensordot(share.to(wide), wide, dims=1).cpu()
    return sums


def weighed(term: Term) -> Arrays:
    """Fraction x array of each site, [K, ...], and the fractions [K] under the name `WEIGHT`."""
    share = fractions(term)
    scaled: Arrays = {WEIGHT: share}
    for name, value in term.arrays.items():
        wide = value if value.is_floating_point() else value.double()
        scaled[name] = (wide * share.to(wide).view(-1, *[1] * (wide.dim() - 1))).cpu()
    return scaled

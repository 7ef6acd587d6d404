"""FedBN: batch normalisation stays at the site, everything else is averaged (Li et al. 2021, algorithm 1).

A hospital's scanner or laboratory shifts features; its own statistics and affine parameters absorb that shift.
"""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from wardround.algorithms.fedavg import FedAvg

_KERAS = "BatchNormalization"
"""Known by its name: Keras is imported only where a model needs it."""


class FedBN(FedAvg):
    """FedAvg with local BatchNorm layers."""

    name = "fedbn"

    def local(self, name: str, module: nn.Module) -> bool:
        """Parameters and statistics of BatchNorm layers stay, those of Keras too."""
        return isinstance(module, _BatchNorm) or any(kind.__name__ == _KERAS for kind in type(module).__mro__)

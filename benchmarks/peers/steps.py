"""One workload as a file: rows, first weights, and every batch. Each side reads it, and needs PyTorch and NumPy for that."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks import networks
from benchmarks.loop import Site

_FIRST = "first/"


@dataclass(frozen=True, kw_only=True)
class Steps:
    """What everybody computes.

    Attributes:
        workload: its name.
        network: class in `benchmarks.networks`.
        batch: rows of a step.
        learning_rate: of a step.
        features: [K, n, ...], of the precision in which everybody computes.
        labels: [K, n].
        order: [T, K, n], each site's rows in the order in which a round's batches take them.
        first: the first weights.
    """

    workload: str
    network: str
    batch: int
    learning_rate: float
    features: NDArray[np.floating]
    labels: NDArray[np.int64]
    order: NDArray[np.int64]
    first: dict[str, NDArray[np.floating]]

    @property
    def rounds(self) -> int:
        return len(self.order)

    @property
    def sites(self) -> int:
        return len(self.labels)

    def rows(self, site: int) -> Site:
        """One site's features and labels."""
        return torch.from_numpy(self.features[site]), torch.from_numpy(self.labels[site])

    def batches(self, round: int, site: int) -> tuple[Tensor, ...]:
        """Row indices of each step."""
        batches: tuple[Tensor, ...] = torch.split(torch.from_numpy(self.order[round, site]), self.batch)
        return batches

    def module(self) -> nn.Module:
        """The network with its first weights."""
        module: nn.Module = getattr(networks, self.network)()
        module.to(torch.from_numpy(self.features[:0]).dtype)
        module.load_state_dict({name: torch.from_numpy(value) for name, value in self.first.items()})
        return module

    def save(self, path: Path) -> None:
        """Write the file."""
        fields = asdict(self)
        first = {_FIRST + name: value for name, value in fields.pop("first").items()}
        with path.open("wb") as file:
            np.savez(file, **fields, **first)

    @classmethod
    def load(cls, path: Path | str) -> Steps:
        """Read the file."""
        with np.load(path) as stored:
            first = {name.removeprefix(_FIRST): stored[name] for name in stored.files if name.startswith(_FIRST)}
            arrays = {name: stored[name] for name in ("features", "labels", "order")}
            scalars = {name: stored[name].item() for name in ("workload", "network", "batch", "learning_rate")}
        return cls(first=first, **arrays, **scalars)

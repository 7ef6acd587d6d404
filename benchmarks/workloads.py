"""The speed workloads: synthetic sites on which every implementation can take exactly the same SGD steps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from wardround.types import Description, SiteData


@dataclass(frozen=True, kw_only=True)
class Workload:
    """Sites of equal size, one local epoch of plain SGD a round, every site in every round."""

    name: str
    sites: int
    rows: int
    batch: int
    rounds: int
    features: int = 30
    hidden: int = 64
    learning_rate: float = 0.05


W1 = Workload(name="W1", sites=50, rows=100, batch=16, rounds=20)
W3 = Workload(name="W3", sites=1000, rows=20, batch=16, rounds=5)


def names(workload: Workload) -> tuple[str, ...]:
    return tuple(f"site-{k:06d}" for k in range(workload.sites))


def site(workload: Workload, k: int) -> SiteData:
    """Fixed rows of one site; the label depends on the first five features."""
    draw = torch.Generator().manual_seed(10_000 + k)
    x = torch.randn(workload.rows, workload.features, generator=draw)
    y = (x[:, :5].sum(1) + 0.3 * torch.randn(workload.rows, generator=draw) > 0).long()
    return SiteData(
        features=x.numpy(),
        labels=y.numpy(),
        patients=np.arange(workload.rows),
        split=np.zeros(workload.rows, dtype=np.int8),
    )


def description(workload: Workload) -> Description:
    return Description(
        name=workload.name,
        title="synthetic rows for timing",
        source="drawn here",
        licence="MIT",
        sites=names(workload),
        shape=(workload.features,),
    )

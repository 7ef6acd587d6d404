"""Plug-ins as a user would write them, named in jobs as `sample_plugins:Class`."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from wardround import streams
from wardround.algorithms.fedavg import FedAvg
from wardround.federation.engines.local import LocalEngine
from wardround.types import Arrays, Column, Description, Server, SiteData

CLINICS = ("north", "south", "west")
COLUMNS = (
    Column(name="age"),
    Column(name="sex", kind="categorical", levels=("f", "m")),
    Column(name="marker", missing_codes=(-1.0,)),
)


class Clinics:
    """Three hospitals that see the disease in 30, 50 and 70 % of their patients; one in eight markers is missing."""

    def __init__(self, rows: int = 60, gaps: bool = True, classes: int = 2) -> None:
        self.rows, self.gaps, self.classes = rows, gaps, classes

    def describe(self) -> Description:
        return Description(
            name="clinics",
            title="Three clinics",
            source="drawn",
            licence="CC0",
            sites=CLINICS,
            columns=COLUMNS,
            classes=tuple(f"class {c}" for c in range(self.classes)),
            natural=True,
        )

    def load(self, site: str) -> SiteData:
        draw = streams.generator("clinics", site)
        ill = draw.random(self.rows) < 0.3 + 0.2 * CLINICS.index(site)
        age = draw.normal(60 + 5 * ill, 8)
        sex = draw.integers(0, 2, self.rows).astype(float)
        marker = draw.normal(2 + ill, 1)
        if self.gaps:
            marker[::8] = math.nan
        return SiteData(
            features=np.stack([age, sex, marker], axis=1),
            labels=ill.astype(np.int64),
            patients=np.arange(self.rows),
        )


class Poisoned(FedAvg):
    """FedAvg whose gradients are NaN at some sites of a chunk, by place."""

    name = "poisoned"

    def __init__(self, places: Sequence[int] = (0,)) -> None:
        self.places = tuple(places)

    def start(self, server: Server, states: Arrays) -> Arrays:
        return {"poison": torch.tensor([math.nan if k in self.places else 0.0 for k in range(5)])}

    def correct(self, grads: Arrays, params: Arrays, context: Arrays, server: Server) -> Arrays:
        poison = context["poison"]
        return {n: g + poison.view(-1, *[1] * (g.dim() - 1)).to(g) for n, g in grads.items()}


class Apart(LocalEngine):
    """An engine behind which records cannot be merged."""

    merges = False

"""Plug-ins as a user would write them, named in jobs as `sample_plugins:Class`."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

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
        labels = ill.astype(np.int64)
        if self.classes > 2:  # the sicker, the higher the marker: grades 1, 2, ... share the ill evenly
            labels = np.where(ill, 1 + draw.integers(0, self.classes - 1, self.rows), 0)
            marker += labels
        return SiteData(
            features=np.stack([age, sex, marker], axis=1),
            labels=labels,
            patients=np.arange(self.rows),
        )


class Pictures:
    """Four clinics of unequal size whose pictures are lighter where the patient is ill."""

    counts = (24, 40, 60, 36)

    def describe(self) -> Description:
        return Description(
            name="pictures",
            title="Pictures",
            source="drawn",
            licence="CC0",
            sites=tuple(f"clinic-{k}" for k in range(len(self.counts))),
            shape=(1, 8, 8),
            natural=True,
        )

    def load(self, site: str) -> SiteData:
        draw, rows = streams.generator("pictures", site), self.counts[int(site[-1])]
        ill = draw.random(rows) < 0.5
        return SiteData(
            features=draw.normal(size=(rows, 1, 8, 8)) + 0.5 * ill[:, None, None, None],
            labels=ill.astype(np.int64),
            patients=np.arange(rows),
        )


class Convolutional(nn.Module):
    """A plain network with dropout."""

    def __init__(self, outputs: int = 1) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(4), nn.Flatten())
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(16, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.dropout(self.layers(x)))


class Damped(FedAvg):
    """FedAvg with gradients of half their length."""

    name = "damped"

    def correct(self, grads: Arrays, params: Arrays, context: Arrays, server: Server) -> Arrays:
        return {n: g / 2 for n, g in grads.items()}


class Broken(FedAvg):
    """Forgets the site axis."""

    name = "broken"

    def correct(self, grads: Arrays, params: Arrays, context: Arrays, server: Server) -> Arrays:
        return {n: g.sum(0) for n, g in grads.items()}


class Deadly(FedAvg):
    """Ends its process without a word, as the kernel does where memory is short."""

    name = "deadly"

    def correct(self, grads: Arrays, params: Arrays, context: Arrays, server: Server) -> Arrays:
        os.kill(os.getpid(), signal.SIGKILL)
        return grads


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

"""A plug-in dataset whose rows have several labels: findings as in ChestX-ray14, on drawn pictures."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from wardround.types import Description, SiteData

FINDINGS = ("Effusion", "Infiltration", "Mass", "Nodule")


class Xrays:
    """Grey noise, and for each finding a bright spot at a place of its own.

    Args:
        table: the official table of labels, of which Image Index, Finding Labels and Patient ID are read; None draws rows.
        findings: which labels.
        rows: how many, at most.
        size: side in pixels.
        strength: how bright a spot is, in deviations of the noise.
        sites: 1 is a pool; more are hospitals with patients of their own.
    """

    def __init__(
        self,
        table: str | None = None,
        findings: Sequence[str] = FINDINGS,
        rows: int = 360,
        size: int = 12,
        strength: float = 3.0,
        sites: int = 1,
    ) -> None:
        self.table, self.findings, self.rows = table, tuple(findings), rows
        self.size, self.strength, self.sites = size, strength, sites

    def describe(self) -> Description:
        return Description(
            name="xrays",
            title="Drawn X-rays",
            source="drawn",
            licence="none",
            sites=tuple(f"hospital-{k}" for k in range(self.sites)),
            shape=(1, self.size, self.size),
            classes=self.findings,
            multilabel=True,
            natural=self.sites > 1,
        )

    def load(self, site: str) -> SiteData:
        place = int(site.rpartition("-")[2])
        random = np.random.default_rng([7, place])
        patients, labels = self._table() if self.table else self._drawn(random)
        side, step = self.size, -(-len(self.findings) // 4)
        pictures = random.normal(size=(len(labels), 1, side, side)).astype(np.float32)
        for label in range(len(self.findings)):
            row, column = (label // 4) * side // step, (label % 4) * side // 4
            pictures[labels[:, label] == 1, :, row : row + side // 4, column : column + side // 4] += self.strength
        groups = np.array([f"{p}/{k // 2}" for k, p in enumerate(patients)])
        return SiteData(features=pictures, labels=labels, patients=patients, groups=groups)

    def _drawn(self, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        frequent = np.linspace(0.35, 0.12, len(self.findings))
        labels = (random.random((self.rows, len(self.findings))) < frequent).astype(np.int64)
        return np.arange(self.rows) // 2, labels

    def _table(self) -> tuple[np.ndarray, np.ndarray]:
        with Path(self.table or "").open(encoding="utf-8", newline="") as file:
            lines = [line for line, _ in zip(csv.DictReader(file), range(self.rows), strict=False)]
        found = [set(line["Finding Labels"].split("|")) for line in lines]
        labels = np.array([[int(name in own) for name in self.findings] for own in found], dtype=np.int64)
        return np.array([line["Patient ID"] for line in lines]), labels


class Spots(nn.Module):
    """One convolution as coarse as a spot, and a linear layer."""

    def __init__(self, inputs: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs[0], 4, 3, stride=3)
        self.head = nn.Linear(4 * (inputs[1] // 3) ** 2, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(x).relu().flatten(1))


class Flat(nn.Module):
    """A linear layer over the pixels."""

    def __init__(self, inputs: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        self.head = nn.Linear(math.prod(inputs), outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.flatten(1))


class OnlySecond:
    """Turns the pictures of site-2 into noise, and leaves the others."""

    def apply(self, features: np.ndarray, *, site: str, place: int, sites: int, rng: np.random.Generator) -> np.ndarray:
        return rng.normal(size=features.shape).astype(features.dtype) if site == "site-2" else features

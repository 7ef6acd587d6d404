"""What the decision threshold does: on the validation rows that it was chosen on, and on test rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from wardround.plots.estimate import Estimate, estimate, number
from wardround.plots.labels import METRICS, MODELS
from wardround.types import Json

FIGURES = ("sensitivity", "specificity", "ppv", "npv")


@dataclass(frozen=True, kw_only=True)
class OperatingRow:
    """A model at its threshold: sensitivity and specificity on validation rows, and `FIGURES` on pooled test rows."""

    model: str
    threshold: float | None
    seen: tuple[float | None, ...]
    test: tuple[Estimate | None, ...]


def columns() -> list[str]:
    """Titles of the figures."""
    return [METRICS[metric] for metric in FIGURES]


def operating(result: Mapping[str, Json]) -> list[OperatingRow]:
    """A row a model; [] for more than two classes, which have no threshold."""
    points = result.get("operating_point") or {}
    return [
        OperatingRow(
            model=title,
            threshold=number(points[model].get("threshold")),
            seen=tuple(number((points[model].get("validation") or {}).get(name)) for name in FIGURES[:2]),
            test=tuple(estimate(points[model].get("test") or {}, name) for name in FIGURES),
        )
        for model, title in MODELS.items()
        if model in points
    ]

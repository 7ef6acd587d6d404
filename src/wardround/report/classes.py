"""Each of more than two classes against the rest, and which classes a site cannot be judged on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from wardround.plots.estimate import Estimate, estimate
from wardround.plots.labels import METRICS, MODELS, class_titles, count_of
from wardround.plots.sites import MANY_SITES
from wardround.types import Json

CLASS_METRICS = ("auroc", "auprc", "sensitivity", "specificity", "ppv", "npv", "f1")


@dataclass(frozen=True, kw_only=True)
class ClassRow:
    """One class of one model, pooled test rows: their number, and a figure (or None) for each of `columns`."""

    name: str
    rows: int
    figures: tuple[Estimate | None, ...]


def columns() -> list[str]:
    """Titles of the figures of a class."""
    return [METRICS[metric] for metric in CLASS_METRICS]


def by_class(result: Mapping[str, Json]) -> list[tuple[str, list[ClassRow]]]:
    """Title of each model, and its rows in label order; [] for two classes."""
    names = class_titles(result)
    found = []
    for model, title in MODELS.items():
        blocks = (result.get(model) or {}).get("classes") or ()
        matrix = (result.get("confusion") or {}).get(model) or [[]] * len(blocks)
        rows = [
            ClassRow(
                name=names[label] if label < len(names) else f"class {label}",
                rows=round(sum(matrix[label])),
                figures=tuple(estimate(block, metric) for metric in CLASS_METRICS),
            )
            for label, block in enumerate(blocks)
        ]
        if rows:
            found.append((title, rows))
    return found


def absent(result: Mapping[str, Json]) -> str:
    """Which sites have no test rows of some class, where there are more than two; empty where every site has all."""
    names = class_titles(result)
    if len(names) <= 2:
        return ""
    parts = result.get("partition") or {}
    lacking = {
        site: [names[label] for label, rows in enumerate(part.get("test") or ()) if not rows and label < len(names)]
        for site, part in parts.items()
        if any(part.get("test") or ())
    }
    lacking = {site: classes for site, classes in lacking.items() if classes}
    if not lacking:
        return ""
    if len(lacking) > min(8, MANY_SITES):
        whom = f"{count_of(len(lacking), 'site')} lack test rows of at least one class"
    else:
        whom = "; ".join(f"{site} has no test rows of {', '.join(classes)}" for site, classes in lacking.items())
    return (
        f"{whom}. Figures that average over classes run over those that a site has, so they are not of the same classes "
        "everywhere."
    )

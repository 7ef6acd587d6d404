"""Each of more than two classes against the rest, or each label, and which classes a site cannot be judged on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from wardround.plots.estimate import Estimate, estimate, number
from wardround.plots.labels import METRICS, MODELS, class_rows, class_titles, count_of, many_classes, multilabel
from wardround.plots.sites import MANY_SITES
from wardround.types import Json

CLASS_METRICS = ("auroc", "auprc", "sensitivity", "specificity", "ppv", "npv", "f1")


@dataclass(frozen=True, kw_only=True)
class ClassRow:
    """One class or label of one model, pooled test rows: their number, and a figure (or None) for each of `columns`.

    The threshold is a label's own; classes have none.
    """

    name: str
    rows: int
    figures: tuple[Estimate | None, ...]
    threshold: float | None = None


def columns() -> list[str]:
    """Titles of the figures of a class."""
    return [METRICS[metric] for metric in CLASS_METRICS]


def by_class(result: Mapping[str, Json]) -> list[tuple[str, list[ClassRow]]]:
    """Title of each model, and its rows in label order; [] for two classes."""
    names = class_titles(result)
    found = []
    for model, title in MODELS.items():
        blocks = (result.get(model) or {}).get("classes") or ()
        counts = class_rows(result, model) or [0.0] * len(blocks)
        cuts = ((result.get("thresholds") or {}).get(model) or ()) if multilabel(result) else ()
        rows = [
            ClassRow(
                name=names[label] if label < len(names) else f"class {label}",
                rows=round(counts[label]),
                figures=tuple(estimate(block, metric) for metric in CLASS_METRICS),
                threshold=number(cuts[label]) if label < len(cuts) else None,
            )
            for label, block in enumerate(blocks)
        ]
        if rows:
            found.append((title, rows))
    return found


def absent(result: Mapping[str, Json]) -> str:
    """Which sites have no test rows of some class or label, where figures are means over them; empty where all have all."""
    names = class_titles(result)
    if not many_classes(result):
        return ""
    parts = result.get("partition") or {}
    lacking = {
        site: [names[label] for label, rows in enumerate(part.get("test") or ()) if rows == 0 and label < len(names)]
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

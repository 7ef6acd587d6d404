"""Sites that never trained: how the models do there, in rows and in a sentence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from wardround.plots.estimate import Estimate, estimate
from wardround.plots.labels import METRICS, MODELS, count_of, titles
from wardround.report import numbers
from wardround.types import Json

SHOWN = ("auroc", "auprc", "accuracy", "balanced_accuracy", "sensitivity", "specificity")


@dataclass(frozen=True, kw_only=True)
class HeldOutRow:
    """One model at one site, or at all of them together: its test rows, and a figure (or None) for each of `columns`."""

    site: str
    model: str
    rows: int
    figures: tuple[Estimate | None, ...]


def columns(result: Mapping[str, Json]) -> list[str]:
    """Titles of the figures that any row has."""
    return [titles(result)[metric] for metric in _defined(result)]


def rows(result: Mapping[str, Json]) -> list[HeldOutRow]:
    """A row a site and model, and last those of all sites where there are several; [] where every site trained."""
    found = result.get("held_out") or {}
    sizes = found.get("rows") or {}
    each = {site: {m: (found[m].get("sites") or {}).get(site) for m in MODELS if m in found} for site in sizes}
    pooled = {model: found[model].get("pooled") for model in MODELS if model in found}
    blocks = [(site, sizes[site], own) for site, own in each.items() if any(own.values())]
    if len(blocks) != 1:
        name = "all held-out sites" if len(sizes) > 1 else next(iter(sizes), "")
        blocks.append((name, sum(sizes.values()), pooled))
    return [
        HeldOutRow(
            site=site,
            model=MODELS[model],
            rows=int(size),
            figures=tuple(estimate(block or {}, metric) for metric in _defined(result)),
        )
        for site, size, own in blocks
        for model, block in own.items()
        if block
    ]


def sentences(result: Mapping[str, Json]) -> list[str]:
    """What a stranger may expect; [] where every site trained."""
    found = result.get("held_out") or {}
    if not found:
        return []
    sites = list(found.get("rows") or {})
    metric = next((m for m in ("auroc", "accuracy") if m in (found["federated"].get("pooled") or {})), None)
    said = [f"{', '.join(sites)} took no part in training, preprocessing or selection."]
    if metric is None:
        return [*said, "No figure is defined there."]
    figure = estimate(found["federated"]["pooled"], metric)
    ends = numbers.interval(figure)
    text = f"On {count_of(sum(found['rows'].values()), 'row')} there, the federated model has {titles(result)[metric]} "
    text += numbers.plain(figure.value if figure else None) + (f" (95\u00a0% interval {ends})" if ends else "")
    inside = estimate((result.get("federated") or {}).get("pooled") or {}, metric)
    if inside is not None:
        text += f"; on test rows of the sites that trained it, {numbers.plain(inside.value)}"
    said.append(text + ".")
    own = [MODELS[name].lower() for name in ("local", "finetuned") if result.get(name)]
    if own:
        said.append(f"There is no row of {' and '.join(own)}: a site that never trained has no model of its own.")
    if result.get("personalized"):
        said.append(
            "The model is personalised, and a stranger gets its shared part with the mean of what stays at the sites."
        )
    return said


def _defined(result: Mapping[str, Json]) -> list[str]:
    found = result.get("held_out") or {}
    blocks = [found[model].get("pooled") or {} for model in MODELS if model in found]
    return [metric for metric in METRICS if metric in SHOWN and any(metric in block for block in blocks)]

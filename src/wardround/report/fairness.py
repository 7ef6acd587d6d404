"""How evenly the models serve the sites, as a table and in sentences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from wardround.plots.estimate import number
from wardround.plots.labels import LOWER_IS_BETTER, METRICS, MODELS, count_of, in_a_sentence, titles
from wardround.report import numbers
from wardround.types import Json

SHOWN = ("auroc", "auprc", "accuracy", "balanced_accuracy")
_AGAINST = {
    "finetuned": "each site's fine-tuned model",
    "local": "each site's own model",
    "centralized": "the centralised model",
}


@dataclass(frozen=True, kw_only=True)
class FairnessRow:
    """One metric of one model over the sites that define it."""

    metric: str
    model: str
    sites: int
    mean: float | None
    deviation: float | None
    spread: float | None
    worst_tenth: float | None
    worst: float | None
    worst_site: str


def fairness(result: Mapping[str, Json]) -> list[FairnessRow]:
    """A row a metric and model; [] where the run has no figures by site."""
    found, names = result.get("fairness") or {}, titles(result)
    rows = []
    for metric in METRICS:
        for model, title in MODELS.items():
            block = (found.get(model) or {}).get(metric) or {}
            if metric not in SHOWN or not block:
                continue
            figures = {key: number(block.get(key)) for key in ("mean", "deviation", "spread", "worst_tenth", "worst")}
            rows.append(
                FairnessRow(
                    metric=names[metric], model=title, sites=int(block["sites"]), worst_site=str(block["worst_site"]),
                    **figures,
                )
            )  # fmt: skip
    return rows


def who_gains(result: Mapping[str, Json], metric: str) -> list[str]:
    """A sentence on each baseline: at how many sites the federated model is better, and where it is worst."""
    gains = (result.get("fairness") or {}).get("gain") or {}
    sentences = []
    for baseline, what in _AGAINST.items():
        sides = (gains.get(baseline) or {}).get(metric)
        if not sides:
            continue
        name = in_a_sentence(titles(result)[metric])
        text = (
            f"Against {what}, {name} is better at {sides['gain']} of {count_of(sides['sites'], 'site')} and "
            f"worse at {sides['lose']}; a site's own paired interval excludes 0 at {sides['surely_gain']} of the better and "
            f"{sides['surely_lose']} of the worse."
        )
        worst = number(sides["worst"])
        loses = worst is not None and (worst > 0 if metric in LOWER_IS_BETTER else worst < 0)
        if loses:
            text += f" {sides['worst_site']} loses most, {numbers.signed(worst)}."
        sentences.append(text)
    return sentences

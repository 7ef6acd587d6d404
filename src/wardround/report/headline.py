"""What the figures support, in sentences, and no more than that."""

from __future__ import annotations

from collections.abc import Mapping

from wardround.plots.estimate import Estimate, estimate, pooled
from wardround.plots.labels import LOWER_IS_BETTER, METRICS, count_of, multilabel, titles
from wardround.plots.sites import site_count
from wardround.report import numbers
from wardround.types import Json

AGAINST: Mapping[str, str] = {
    "finetuned": "the models that sites fine-tune from it",
    "local": "the models that each site trains alone",
    "centralized": "the model trained on all records in one place",
}
"""Baseline -> what it is, in a sentence."""


def main_metric(result: Mapping[str, Json]) -> str | None:
    """AUROC where it is defined, else accuracy, else the first defined metric, else None."""
    defined = [metric for metric in METRICS if pooled(result, "federated", metric)]
    return next((metric for metric in ("auroc", "accuracy") if metric in defined), defined[0] if defined else None)


def reading(difference: Estimate | None, metric: str) -> str:
    """A paired difference in words: `better`, `worse`, `not separated` (the interval holds 0), or `no interval`."""
    if difference is None or difference.direction is None:
        return "no interval"
    good = -difference.direction if metric in LOWER_IS_BETTER else difference.direction
    return {1: "better", 0: "not separated", -1: "worse"}[good]


def headline(result: Mapping[str, Json]) -> list[str]:
    """One sentence on the federated model, then one on each paired comparison and one on the majority class."""
    metric = main_metric(result)
    figure = pooled(result, "federated", metric) if metric else None
    if metric is None or figure is None:
        return ["No test figure of the federated model is defined in this run."]
    sentences = [_level(result, figure, metric)]
    for baseline, what in AGAINST.items():
        gains = ((result.get("gain") or {}).get(baseline) or {}).get("pooled") or {}
        difference = estimate(gains, metric)
        if difference is not None:
            sentences.append(compare(difference, metric, what, titles(result)[metric]))
    accuracy, majority = (pooled(result, model, "accuracy") for model in ("federated", "majority"))
    if accuracy and majority:
        sentences.append(
            f"Its pooled {_name('accuracy', titles(result)['accuracy'])} is {_with_interval(accuracy)}; always answering "
            f"{'what most rows have for each label' if multilabel(result) else 'the most frequent class'} gives "
            f"{numbers.plain(majority.value)}."
        )
    return sentences


def _level(result: Mapping[str, Json], figure: Estimate, metric: str) -> str:
    sites = count_of(site_count(result), "site")
    own = ", each site's rows scored by that site's own personalised model" if result.get("personalized") else ""
    name = _name(metric, titles(result)[metric])
    return f"On the pooled test rows of {sites}, the federated model has {name} {_with_interval(figure)}{own}."


def _name(metric: str, title: str) -> str:
    if title.startswith("Macro "):
        return f"macro {title.removeprefix('Macro ')}"
    return (
        title
        if title.isupper() or title.startswith("Hamming") or metric in ("f1", "kappa", "ece", "ppv")
        else title.lower()
    )


def _with_interval(figure: Estimate) -> str:
    ends = numbers.interval(figure)
    return numbers.plain(figure.value) + (f" (95\u00a0% interval {ends})" if ends else "")


def compare(difference: Estimate, metric: str, what: str, title: str) -> str:
    """A sentence on federated minus baseline, which claims a difference only where the paired interval excludes 0."""
    name = _name(metric, title)
    size = numbers.signed(difference.value)
    ends = numbers.signed_interval(difference)
    match difference.direction:
        case None:
            return f"The difference to {what} is {size} in {name}; without an interval it supports no claim."
        case 0:
            return (
                f"The evidence does not separate it from {what}: the paired difference in {name} is {size}, "
                f"and its 95\u00a0% interval, {ends}, includes 0."
            )
        case direction:
            side = "higher" if direction > 0 else "lower"
            return (
                f"Its {name} is {side} than that of {what}: the paired difference is {size}, "
                f"and its 95\u00a0% interval, {ends}, excludes 0."
            )

"""What models and metrics are called in figures and tables, and how an untrusted name becomes printable."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from wardround.types import Json

MODELS: Mapping[str, str] = MappingProxyType(
    {
        "federated": "Federated",
        "finetuned": "Fine-tuned",
        "centralized": "Centralised",
        "local": "Each site alone",
        "majority": "Majority class",
    }
)
"""Key in the result -> title, in the order of every figure and table."""

METRICS: Mapping[str, str] = MappingProxyType(
    {
        "auroc": "AUROC",
        "auprc": "AUPRC",
        "accuracy": "Accuracy",
        "subset_accuracy": "Subset accuracy",
        "balanced_accuracy": "Balanced accuracy",
        "sensitivity": "Sensitivity",
        "specificity": "Specificity",
        "ppv": "PPV (precision)",
        "npv": "NPV",
        "f1": "F1",
        "kappa": "Cohen's kappa",
        "brier": "Brier score",
        "ece": "Calibration error (ECE)",
    }
)
"""Key in the result -> title, in the order of every table."""

_MACRO = {"auroc": "Macro AUROC", "auprc": "Macro AUPRC", "f1": "Macro F1"}

_LABELLED = {
    **_MACRO,
    "accuracy": "Hamming accuracy",
    "balanced_accuracy": "Macro balanced accuracy",
    "sensitivity": "Macro sensitivity",
    "specificity": "Macro specificity",
    "ece": "Macro calibration error",
}

LOWER_IS_BETTER = frozenset({"brier", "ece", "loss"})
"""Metrics in which a smaller figure is the better one."""


def class_count(result: Mapping[str, Json]) -> int:
    """The number of classes; 2 where the result does not say."""
    return len((result.get("dataset") or {}).get("classes") or ()) or 2


def multilabel(result: Mapping[str, Json]) -> bool:
    """Whether a row may have several of the classes, or none."""
    return bool((result.get("dataset") or {}).get("multilabel"))


def many_classes(result: Mapping[str, Json]) -> bool:
    """Whether figures are means over classes or labels."""
    return multilabel(result) or class_count(result) > 2


def class_rows(result: Mapping[str, Json], model: str) -> list[float]:
    """Test rows of each class, or with each label, out of a model's confusion matrices; [] without them."""
    matrix = (result.get("confusion") or {}).get(model) or ()
    return [sum(row[1]) if multilabel(result) else sum(row) for row in matrix]


def site_rows(result: Mapping[str, Json], site: str, split: str) -> int:
    """Rows of a split at a site; 0 where it does not tell them."""
    own = (result.get("rows") or {}).get(site)
    if own is not None:
        return int(own.get(split) or 0)
    return int(sum(((result.get("partition") or {}).get(site) or {}).get(split) or ()))


def told_counts(result: Mapping[str, Json]) -> dict[str, Mapping[str, Json]]:
    """The partition without the sites that withhold a count."""
    parts: Mapping[str, Mapping[str, Json]] = result.get("partition") or {}
    return {site: part for site, part in parts.items() if not any(None in counts for counts in part.values())}


def titles(result: Mapping[str, Json]) -> Mapping[str, str]:
    """`METRICS`, with what averages over labels or more than two classes named so, and the loss."""
    means = _LABELLED if multilabel(result) else _MACRO if class_count(result) > 2 else {}
    return {**METRICS, "loss": "loss", **means}


def in_a_sentence(title: str) -> str:
    """A title of `titles` within a sentence: `AUROC`, `macro AUROC`."""
    return title.replace("Macro ", "macro ")


def class_titles(result: Mapping[str, Json]) -> list[str]:
    """The class names, in label order."""
    return [str(name) for name in (result.get("dataset") or {}).get("classes") or ()]


def printable(name: object, width: int = 24) -> str:
    """A name as one line of at most `width` characters.

    Control characters would make an SVG malformed, and matplotlib leaves labels that begin with an underscore out of
    its legends.
    """
    text = " ".join("".join(letter if letter.isprintable() else " " for letter in str(name)).split())
    if len(text) > width:
        text = text[: width - 1].rstrip() + "…"
    return f"\u2009{text}" if text.startswith("_") else text


def count_of(number: int, noun: str) -> str:
    """`1 site`, `5 sites`, `1 000 sites`."""
    return f"{number:,}".replace(",", "\u202f") + f" {noun}" + ("" if number == 1 else "s")

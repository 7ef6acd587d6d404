"""What models and metrics are called in figures and tables, and how an untrusted name becomes printable."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

MODELS: Mapping[str, str] = MappingProxyType(
    {
        "federated": "Federated",
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
        "balanced_accuracy": "Balanced accuracy",
        "sensitivity": "Sensitivity",
        "specificity": "Specificity",
        "f1": "F1",
        "kappa": "Cohen's kappa",
        "brier": "Brier score",
        "ece": "Calibration error (ECE)",
    }
)
"""Key in the result -> title, in the order of every table."""

LOWER_IS_BETTER = frozenset({"brier", "ece", "loss"})
"""Metrics in which a smaller figure is the better one."""


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

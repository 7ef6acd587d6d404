"""The files of a comparison for people: one page that needs nothing else, a Markdown table, CSV, figures."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

from wardround.comparison import tables, words
from wardround.plots import carried, methods
from wardround.plots.labels import count_of
from wardround.report.figures import pictures_of
from wardround.report.page import html
from wardround.store import atomic

FIGURES = "figures"
PAGE = "comparison.html"


def write(folder: Path, result: Mapping[str, Any]) -> None:
    """Write `figures/*.png`, `comparison.md`, `comparison.csv` and the page; the same result gives the same bytes.

    Raises:
        StorageError: a file could not be written.
    """
    names = {method: words.name(method) for method in result["methods"]}
    drawn = {
        "methods": (
            partial(methods.methods_by_setting, names=names),
            "Mean test figure of each method with its 95 % interval, a panel a setting.",
        ),
        "convergence": (
            partial(methods.convergence_by_setting, names=names),
            "Validation figure by completed rounds, a curve a method, a panel a setting.",
        ),
    }
    if result.get("channels"):
        drawn["channels"] = (
            partial(carried.figure_by_bytes, names=names),
            "Test figure of each method against the bytes that its sites send, a panel a setting; a marker a channel.",
        )
    pictures = pictures_of(drawn, result)
    atomic.make_folder(folder / FIGURES)
    for name, picture in pictures.items():
        atomic.write_bytes(folder / FIGURES / f"{name}.png", picture.png)
    atomic.write_text(folder / "comparison.md", tables.text(result))
    atomic.write_text(folder / "comparison.csv", tables.cells_csv(result))
    source = resources.files("wardround.comparison").joinpath("comparison.html.j2").read_text(encoding="utf-8")
    facts = {
        "result": result,
        "metric": words.METRICS[result["metric"]],
        "pictures": pictures,
        "scores": tables.scores(result),
        "others": [
            (title, tables.scores(result, metric, scope))
            for title, metric, scope in (
                (f"{words.METRICS[result['metric']]}, mean of sites", result["metric"], "site_mean"),
                ("AUPRC, all rows", "auprc", "test"),
                ("Balanced accuracy, all rows", "balanced_accuracy", "test"),
                ("Brier score, all rows (less is better)", "brier", "test"),
            )
        ],
        "differences": tables.differences(result),
        "settings": [
            (
                s,
                tables.by_site(result, s),
                tables.fairness(result, s),
                tables.costs(result, s),
                tables.chosen(result, s),
                tables.channels(result, s),
            )
            for s in result["settings"]
        ],
        "target": _target(result),
        "runs": count_of(sum(cell["tried"] for cell in result["cells"]), "training run"),
    }
    atomic.write_text(folder / PAGE, html(source, facts))


def _target(result: Mapping[str, Any]) -> str:
    targets = {cell["target"] for cell in result["cells"]}
    if targets == {None}:
        return "No target was given, and there is no centralised model to take one from."
    if len(targets) == 1:
        return f"The target is {targets.pop():.3f} on validation rows."
    return "The target is 99 % of the centralised model's validation figure, in each setting and seed."

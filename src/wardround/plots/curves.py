"""Calibration and receiver operating characteristic, on test rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from wardround.plots import canvas
from wardround.plots.estimate import number
from wardround.plots.labels import MODELS
from wardround.plots.theme import Theme
from wardround.types import Json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SIDE = 3.6


@canvas.isolated
def calibration(result: Mapping[str, Json], theme: Theme) -> Figure | None:
    """Observed frequency over predicted probability by bin, areas of dots by rows; None where the result has none.

    Source: DeGroot and Fienberg 1983, the reliability diagram.
    """
    drawn = {}
    for model in MODELS:
        bins = (result.get("calibration") or {}).get(model) or {}
        columns = [bins.get(name) or () for name in ("predicted", "observed", "count")]
        points = [tuple(number(cell) for cell in row) for row in zip(*columns, strict=False)]
        kept = [(x, y, count) for x, y, count in points if x is not None and y is not None and count]
        if kept:
            drawn[model] = kept
    if not drawn:
        return None
    figure, axes = canvas.new(theme, height=_SIDE)
    axes.plot([0, 1], [0, 1], color=theme.muted, linewidth=0.8, linestyle=(0, (2, 2)))
    largest = max(count for points in drawn.values() for _, _, count in points)
    handles = {}
    for model, bins_ in reversed(drawn.items()):
        color = theme.models[model]
        xs, ys = [x for x, _, _ in bins_], [y for _, y, _ in bins_]
        (line,) = axes.plot(xs, ys, color=color, linewidth=1.2, linestyle=canvas.STYLES[model])
        sizes = [8 + 60 * count / largest for _, _, count in bins_]
        axes.scatter(xs, ys, s=sizes, color=color, marker=canvas.MARKERS[model], alpha=0.8, linewidths=0)
        handles[model] = line
    axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal")
    canvas.title(figure, theme, "Calibration, test rows")
    canvas.axis_titles(axes, theme, "predicted probability (size: rows)", "observed frequency")
    canvas.legend(figure, theme, {MODELS[model]: handles[model] for model in drawn})
    return figure


@canvas.isolated
def roc(result: Mapping[str, Json], theme: Theme) -> Figure | None:
    """Sensitivity over 1 - specificity for every threshold; None where the result has no curve."""
    drawn = {}
    for model in MODELS:
        rates = (result.get("roc") or {}).get(model) or {}
        xs, ys = rates.get("false_positive_rate") or (), rates.get("true_positive_rate") or ()
        if len(xs) and len(xs) == len(ys):
            drawn[model] = (xs, ys)
    if not drawn:
        return None
    figure, axes = canvas.new(theme, height=_SIDE)
    axes.plot([0, 1], [0, 1], color=theme.muted, linewidth=0.8, linestyle=(0, (2, 2)))
    handles = {}
    for model, (xs, ys) in reversed(drawn.items()):
        width = 1.9 if model == "federated" else 1.4
        (line,) = axes.plot(xs, ys, color=theme.models[model], linestyle=canvas.STYLES[model], linewidth=width)
        handles[model] = line
    axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal")
    canvas.title(figure, theme, "ROC, test rows of all sites")
    canvas.axis_titles(axes, theme, "1 \u2212 specificity", "sensitivity")
    canvas.legend(figure, theme, {MODELS[model]: handles[model] for model in drawn})
    return figure

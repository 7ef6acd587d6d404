"""Models side by side: a dot and its 95 % interval for a few pooled figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from wardround.plots import canvas
from wardround.plots.estimate import Estimate, pooled
from wardround.plots.labels import MODELS, titles
from wardround.plots.theme import Theme
from wardround.types import Json

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN = ("auroc", "auprc", "accuracy", "balanced_accuracy", "sensitivity", "specificity")
TITLE = "Test figures, all sites pooled"


@canvas.isolated
def comparison(result: Mapping[str, Json], theme: Theme) -> Figure | None:
    """Pooled test figures of every model, with intervals; the majority class for accuracy. None without any figure."""
    rows = len(_defined(result, SHOWN))
    if not rows:
        return None
    figure, axes = canvas.new(theme, height=1.2 + 0.46 * rows, legend_rows=2)
    handles = draw_comparison(axes, result, theme, SHOWN)
    canvas.title(figure, theme, TITLE)
    canvas.legend(figure, theme, {MODELS[model]: handle for model, handle in handles.items()}, columns=2)
    return figure


def _defined(result: Mapping[str, Json], metrics: Sequence[str]) -> list[str]:
    return [metric for metric in metrics if any(pooled(result, model, metric) for model in MODELS)]


def draw_comparison(axes: Axes, result: Mapping[str, Json], theme: Theme, metrics: Sequence[str]) -> dict[str, Artist]:
    """Draw the defined metrics, one group of dots each, on `axes`; returns a legend's handle a model."""
    defined = _defined(result, metrics)
    present = [model for model in MODELS if any(_shown(result, model, metric) for metric in defined)]
    handles: dict[str, Artist] = {}
    for row, metric in enumerate(defined):
        if row:
            axes.axhline(row - 0.5, color=theme.grid, linewidth=0.7)
        here = [model for model in present if _shown(result, model, metric)]
        for place, model in enumerate(here):
            figure = _shown(result, model, metric)
            if figure is not None:
                offset = (place - (len(here) - 1) / 2) * 0.2
                handles[model] = dot(axes, theme, model, figure, row + offset)
    canvas.row_names(axes, theme, [titles(result)[metric] for metric in defined], range(len(defined)))
    axes.set_ylim(len(defined) - 0.45, -0.55)
    canvas.few_ticks(axes)
    canvas.axis_titles(axes, theme, "dot: figure; line: 95 % interval")
    return {model: handles[model] for model in present}


def _shown(result: Mapping[str, Json], model: str, metric: str) -> Estimate | None:
    # beyond accuracy the majority class gives constants (0.5, 0, 1) that say nothing and stretch the axis
    return None if model == "majority" and metric != "accuracy" else pooled(result, model, metric)


def dot(axes: Axes, theme: Theme, model: str, figure: Estimate, height: float, *, hollow: bool = False) -> Artist:
    """A figure's dot, with its interval as a line where there is one; `hollow` says that it is another metric."""
    color = theme.models[model]
    if figure.low is not None and figure.high is not None:
        axes.plot([figure.low, figure.high], [height, height], color=color, linewidth=1.5, solid_capstyle="butt")
    (marker,) = axes.plot(
        [figure.value],
        [height],
        linestyle="none",
        marker=canvas.MARKERS[model],
        markersize=5.4 if model in ("federated", "majority") else 4.6,
        markerfacecolor=theme.background if hollow else color,
        markeredgecolor=color,
        markeredgewidth=1.1 if hollow else 0.0,
    )
    return marker

"""The figures of a comparison of methods: test figures with intervals, and convergence, a panel a setting."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from wardround.plots import canvas
from wardround.plots.labels import METRICS
from wardround.plots.theme import Theme

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from wardround.types import Json

BASELINES = ("centralized", "local")
_MARKERS = ("o", "s", "D", "^", "v", "P", "X", "*", "<", ">")
_LINES = ("-", (0, (4, 1.6)), (0, (1, 1.2)), (0, (5, 1, 1, 1)), (0, (3, 1, 1, 1, 1, 1)))
_PANEL = 2.9
"""Inches of a panel's width."""
_ROW = 0.24
"""Inches of a method's row."""


def methods_by_setting(result: Mapping[str, Json], theme: Theme, names: Mapping[str, str]) -> Figure:
    """Mean test figure over seeds with its interval, a dot a method, a panel a setting; small dots are the seeds.

    Args:
        result: what `comparison.json` holds.
        theme: colours.
        names: method -> what it is called.
    """
    methods, settings, metric = result["methods"], result["settings"], result["metric"]
    figure, panels = _panels(theme, len(settings), 0.75 + _ROW * len(methods), rows=0)
    colours = _colours(methods, theme)
    every = [cell["test"].get(metric) for cell in result["cells"]]
    for axes, setting in zip(panels, settings, strict=True):
        for row, method in enumerate(methods):
            found = result["table"][setting].get(method, {}).get("test", {}).get(metric)
            if found is None or found["value"] is None:
                continue
            seeds = [c["test"].get(metric) for c in result["cells"] if (c["setting"], c["method"]) == (setting, method)]
            axes.plot(
                [v for v in seeds if v is not None], [row + 0.24] * sum(v is not None for v in seeds),
                linestyle="none", marker=".", markersize=3, color=colours[method], alpha=0.55, markeredgewidth=0,
            )  # fmt: skip
            if found["low"] is not None:
                axes.plot([found["low"], found["high"]], [row, row], color=colours[method], linewidth=1.6)
            axes.plot([found["value"]], [row], marker=_marker(methods, method), markersize=5, color=colours[method],
                      markeredgewidth=0)  # fmt: skip
        canvas.row_names(axes, theme, [names.get(m, m) for m in methods], range(len(methods)))
        axes.set_ylim(len(methods) - 0.4, -0.6)
        canvas.few_ticks(axes)
        canvas.axis_titles(axes, theme, setting)
    known = [v for v in every if v is not None]
    for axes in panels:
        axes.set_xlim(*_limits(known, list(result["table"].values()), metric))
    canvas.title(figure, theme, f"Test {METRICS.get(metric, metric)}: mean over seeds, 95 % interval")
    return figure


def convergence_by_setting(result: Mapping[str, Json], theme: Theme, names: Mapping[str, str]) -> Figure:
    """Validation figure by completed rounds, mean over seeds of the chosen configurations; a panel a setting.

    Centralised and each alone are drawn as their figure at the end, which costs no communication.
    """
    methods, settings, metric = result["methods"], result["settings"], result["metric"]
    columns = 4
    rows = -(-len(methods) // columns)
    figure, panels = _panels(theme, len(settings), 2.5, rows=rows)
    colours = _colours(methods, theme)
    handles: dict[str, Artist] = {}
    for axes, setting in zip(panels, settings, strict=True):
        for number, method in enumerate(methods):
            curves = [c["curve"] for c in result["cells"] if (c["setting"], c["method"]) == (setting, method)]
            points = _mean_curve(curves, metric)
            if not points:
                continue
            xs, ys = zip(*points, strict=True)
            if method in BASELINES:
                ends = [c["validation"][metric] for c in result["cells"]
                        if (c["setting"], c["method"]) == (setting, method)]  # fmt: skip
                line = axes.axhline(statistics.mean(ends), color=colours[method], linewidth=1.2,
                                    linestyle=_LINES[2 if method == "centralized" else 1])  # fmt: skip
            else:
                (line,) = axes.plot(xs, ys, color=colours[method], linewidth=1.4, linestyle=_LINES[number % 5])
            handles.setdefault(names.get(method, method), line)
        canvas.few_ticks(axes, whole=True)
        canvas.axis_titles(axes, theme, f"completed rounds, {setting}")
        _focus(axes)
    canvas.title(figure, theme, f"Validation {METRICS.get(metric, metric)} by round, mean over seeds")
    canvas.legend(figure, theme, handles, columns=columns)
    return figure


def _panels(theme: Theme, count: int, height: float, *, rows: int) -> tuple[Figure, list[Axes]]:
    width = max(canvas.WIDTH, _PANEL * count)
    return canvas.panels(theme, width, height + 0.16 * rows, count, legend_rows=rows)


def _colours(methods: Sequence[str], theme: Theme) -> dict[str, str]:
    federated = [method for method in methods if method not in BASELINES]
    own = {method: theme.of_class(number) for number, method in enumerate(federated)}
    return own | {method: theme.muted if method == "local" else theme.ink for method in BASELINES}


def _marker(methods: Sequence[str], method: str) -> str:
    return _MARKERS[list(methods).index(method) % len(_MARKERS)]


def _mean_curve(curves: Sequence[Sequence[Mapping[str, Any]]], metric: str) -> list[tuple[int, float]]:
    by_round: dict[int, list[float]] = {}
    for curve in curves:
        for point in curve:
            if point.get(metric) is not None:
                by_round.setdefault(point["completed"], []).append(point[metric])
    # a round that some seed lacks would make the mean jump
    return [(number, statistics.mean(v)) for number, v in sorted(by_round.items()) if len(v) == len(curves)]


def _limits(values: Sequence[float], tables: Sequence[Mapping[str, Any]], metric: str) -> tuple[float, float]:
    ends = [
        row["test"][metric][end]
        for table in tables
        for row in table.values()
        for end in ("low", "high")
        if row["test"].get(metric, {}).get(end) is not None
    ]
    low, high = min([*values, *ends]), max([*values, *ends])
    margin = 0.04 * max(high - low, 0.01)
    return max(low, 0.0) - margin, min(high, 1.0) + margin


def _focus(axes: Axes) -> None:
    """Leave out what the first rounds lie below, where that would press the rest together."""
    lines = [[float(y) for y in np.asarray(line.get_ydata())] for line in axes.get_lines()]
    if not lines:
        return
    low, high = min(line[-1] for line in lines), max(map(max, lines))
    room = max(high - low, 0.02)
    axes.set_ylim(max(min(map(min, lines)) - 0.005, low - 1.5 * room), high + 0.12 * room)

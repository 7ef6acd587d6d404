"""How validation figures move with rounds and with bytes; the kept round is marked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from wardround.plots import canvas
from wardround.plots.estimate import number
from wardround.plots.labels import LOWER_IS_BETTER, MODELS, titles
from wardround.plots.theme import Theme
from wardround.plots.units import byte_unit
from wardround.types import Json

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TRAINED = ("federated", "centralized", "local")

Curve = list[tuple[float, float]]


def curve(history: Sequence[Mapping[str, Json]], metric: str) -> Curve:
    """Points (completed rounds, figure) of the entries whose validation has the metric."""
    points = ((entry.get("completed"), (entry.get("validation") or {}).get(metric)) for entry in history)
    numbers = ((number(round_), number(value)) for round_, value in points)
    return [(round_, value) for round_, value in numbers if round_ is not None and value is not None]


def _curves(result: Mapping[str, Json], metric: str) -> dict[str, Curve]:
    history = result.get("history") or {}
    drawn = {model: curve(history.get(model) or (), metric) for model in TRAINED}
    return {model: points for model, points in drawn.items() if points}


def ranking_metric(result: Mapping[str, Json]) -> str | None:
    """`auroc` where any validation figure has it, else `accuracy`, else None."""
    return next((metric for metric in ("auroc", "accuracy") if _curves(result, metric)), None)


@canvas.isolated
def loss_by_round(result: Mapping[str, Json], theme: Theme) -> Figure | None:
    """Validation loss after each round; None where no round has one."""
    if not _curves(result, "loss"):
        return None
    figure, axes = canvas.new(theme)
    return _with_header(figure, theme, by_round_title(result, "loss"), draw_by_round(axes, result, theme, "loss"))


@canvas.isolated
def ranking_by_round(result: Mapping[str, Json], theme: Theme) -> Figure | None:
    """Validation AUROC after each round, or accuracy where AUROC is nowhere defined; None without either."""
    metric = ranking_metric(result)
    if metric is None:
        return None
    figure, axes = canvas.new(theme)
    return _with_header(figure, theme, by_round_title(result, metric), draw_by_round(axes, result, theme, metric))


def _with_header(figure: Figure, theme: Theme, heading: str, handles: Mapping[str, Artist]) -> Figure:
    canvas.title(figure, theme, heading)
    canvas.legend(figure, theme, {MODELS[model]: handle for model, handle in handles.items()})
    return figure


def by_round_title(result: Mapping[str, Json], metric: str) -> str:
    """The heading of a figure by round."""
    return f"Validation {titles(result)[metric]} by round"


def draw_by_round(axes: Axes, result: Mapping[str, Json], theme: Theme, metric: str) -> dict[str, Artist]:
    """Draw the metric's curves of all trained models on `axes`; returns a legend's handle a model."""
    curves = _curves(result, metric)
    # the federated curve lies on top
    lines = {model: _line(axes, theme, model, curves[model]) for model in reversed(curves)}
    _mark_target(axes, result, theme, metric)
    falling = metric in LOWER_IS_BETTER
    _mark_selected(axes, theme, curves.get("federated", []), number(result.get("selected_round")), top=falling)
    canvas.few_ticks(axes, whole=True)
    canvas.axis_titles(axes, theme, "completed rounds")
    return {model: lines[model] for model in curves}


def _line(axes: Axes, theme: Theme, model: str, points: Curve) -> Artist:
    few = len(points) <= 30
    (line,) = axes.plot(
        [x for x, _ in points],
        [y for _, y in points],
        color=theme.models[model],
        linestyle=canvas.STYLES[model],
        linewidth=1.9 if model == "federated" else 1.4,
        marker=canvas.MARKERS[model] if few else None,
        markersize=3.2,
        markeredgewidth=0,
    )
    return line


def _mark_target(axes: Axes, result: Mapping[str, Json], theme: Theme, metric: str) -> None:
    target = result.get("target") or {}
    value = number(target.get("value"))
    if target.get("metric") != metric or value is None:
        return
    axes.axhline(value, color=theme.muted, linewidth=0.9, linestyle=(0, (5, 2)), zorder=1)
    axes.annotate(
        f"target {value:.3f}",
        (1.0, value),
        xycoords=axes.get_yaxis_transform(),
        xytext=(0, 2),
        textcoords="offset points",
        ha="right",
        fontsize=canvas.SMALL,
        color=theme.muted,
    )


def _mark_selected(axes: Axes, theme: Theme, points: Curve, selected: float | None, *, top: bool) -> None:
    chosen = [(x, y) for x, y in points if x == selected]
    if not chosen:
        return
    x, y = chosen[0]
    axes.axvline(x, color=theme.muted, linewidth=0.7, linestyle=(0, (2, 2)), zorder=1)
    canvas.ring(axes, theme, x, y)
    left = x > (points[0][0] + points[-1][0]) / 2
    axes.annotate(
        f"kept: round {x:.0f}",
        (x, 1.0 if top else 0.0),
        xycoords=axes.get_xaxis_transform(),
        xytext=(-5 if left else 5, -3 if top else 3),
        textcoords="offset points",
        ha="right" if left else "left",
        va="top" if top else "bottom",
        fontsize=canvas.SMALL,
        color=theme.ink,
        bbox={"facecolor": theme.background, "edgecolor": "none", "alpha": 0.75, "pad": 1.0},
    )


@canvas.isolated
def by_bytes(result: Mapping[str, Json], theme: Theme) -> Figure | None:
    """The federated model's validation AUROC, accuracy or loss over the bytes sent so far, up and down together.

    None where no round has both figures and bytes.
    """
    history = (result.get("history") or {}).get("federated") or ()
    metric = ranking_metric({"history": {"federated": history}}) or "loss"
    points: Curve = []
    rounds: list[float | None] = []
    for entry in history:
        value = number((entry.get("validation") or {}).get(metric))
        sent = [number(entry.get(way)) for way in ("bytes_up", "bytes_down")]
        if value is not None and None not in sent:
            points.append((sum(part for part in sent if part is not None), value))
            rounds.append(number(entry.get("completed")))
    if not points:
        return None
    figure, axes = canvas.new(theme)
    divisor, unit = byte_unit(max(x for x, _ in points))
    scaled = [(x / divisor, y) for x, y in points]
    handle = _line(axes, theme, "federated", scaled)
    selected = number(result.get("selected_round"))
    if selected is not None and selected in rounds:
        x, y = scaled[rounds.index(selected)]
        canvas.ring(axes, theme, x, y)
    _mark_target(axes, result, theme, metric)
    canvas.title(figure, theme, f"Validation {titles(result)[metric]} by communication")
    canvas.axis_titles(axes, theme, f"{unit} sent by and to all sites, cumulative")
    canvas.legend(figure, theme, {f"{MODELS['federated']} (ring: round kept)": handle})
    return figure

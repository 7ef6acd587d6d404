"""ROC, precision against recall, and calibration, on test rows.

Of two classes, every model has a curve and the federated one a 95 % band. Of more, the federated model has a curve for each
class against the rest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from wardround.plots import canvas
from wardround.plots.estimate import number
from wardround.plots.labels import MODELS, class_rows, class_titles, many_classes, multilabel, printable
from wardround.plots.theme import Theme
from wardround.types import Json

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SIDE = 3.6
_BINS = 10
_COLUMNS = 3
_MOST_CLASSES = 8
"""Colours that can be told apart; the rarest of more classes have a row in the table and no curve."""

Points = tuple[Sequence[float], Sequence[float]]


@canvas.isolated
def roc(result: Mapping[str, Json], theme: Theme) -> Figure | None:
    """Sensitivity over 1 - specificity for every threshold; None where the result has no curve."""
    models = _models(result, "roc", ("false_positive_rate", "true_positive_rate"))
    classes = _classes(result, "roc", ("false_positive_rate", "true_positive_rate"))
    if not (models or classes):
        return None
    figure, axes = canvas.new(theme, height=_SIDE, legend_rows=_rows(classes))
    axes.plot([0, 1], [0, 1], color=theme.muted, linewidth=0.8, linestyle=(0, (2, 2)))
    handles = _by_class(axes, result, theme, classes) if classes else _by_model(axes, theme, models, steps=False)
    _band(axes, result, theme, "roc")
    return _finished(figure, axes, theme, handles, "ROC", ("1 \u2212 specificity", "sensitivity"), classes, result)


@canvas.isolated
def precision_recall(result: Mapping[str, Json], theme: Theme) -> Figure | None:
    """Precision over recall for every threshold, in steps; None where the result has no curve.

    Of two classes, the dashed line is the precision of chance: the fraction of positive rows.
    """
    models = _models(result, "precision_recall", ("recall", "precision"))
    classes = _classes(result, "precision_recall", ("recall", "precision"))
    if not (models or classes):
        return None
    figure, axes = canvas.new(theme, height=_SIDE, legend_rows=_rows(classes))
    counts: Sequence[Sequence[float]] = next(iter((result.get("confusion") or {}).values()), [])
    if models and len(counts) == 2 and sum(map(sum, counts)):
        axes.axhline(sum(counts[1]) / sum(map(sum, counts)), color=theme.muted, linewidth=0.8, linestyle=(0, (2, 2)))
    handles = (
        _by_class(axes, result, theme, classes, steps=True) if classes else _by_model(axes, theme, models, steps=True)
    )
    _band(axes, result, theme, "precision_recall")
    names = ("recall (sensitivity)", "precision (PPV)")
    return _finished(figure, axes, theme, handles, "Precision and recall", names, classes, result)


def _models(result: Mapping[str, Json], key: str, names: tuple[str, str]) -> dict[str, Points]:
    curves = {model: _points((result.get(key) or {}).get(model) or {}, names) for model in MODELS}
    return {model: points for model, points in curves.items() if points}


def _classes(result: Mapping[str, Json], key: str, names: tuple[str, str]) -> dict[int, Points]:
    """Curves of the federated model by label, of the most frequent classes."""
    curves = ((result.get(key) or {}).get("federated") or {}).get("classes") or ()
    found = {label: points for label, curve in enumerate(curves) if (points := _points(curve, names))}
    rows = dict(enumerate(class_rows(result, "federated")))
    shown = sorted(found, key=lambda label: -rows.get(label, 0))[:_MOST_CLASSES]
    return {label: found[label] for label in sorted(shown)}


def _points(curve: Mapping[str, Json], names: tuple[str, str]) -> Points | None:
    xs, ys = (curve.get(name) or () for name in names)
    return (xs, ys) if len(xs) and len(xs) == len(ys) else None


def _rows(classes: Mapping[int, Points]) -> int:
    return max(1, math.ceil(len(classes) / _COLUMNS))


def _by_model(axes: Axes, theme: Theme, drawn: dict[str, Points], *, steps: bool) -> dict[str, Artist]:
    handles: dict[str, Artist] = {}
    for model, points in reversed(drawn.items()):
        handles[model] = _line(
            axes, points, theme.models[model], canvas.STYLES[model], 1.9 if model == "federated" else 1.4, steps=steps
        )
    return {MODELS[model]: handles[model] for model in drawn}


def _by_class(
    axes: Axes, result: Mapping[str, Json], theme: Theme, drawn: Mapping[int, Points], *, steps: bool = False
) -> dict[str, Artist]:
    names = class_titles(result)
    styles = list(canvas.STYLES.values())
    handles: dict[str, Artist] = {}
    for label, points in drawn.items():
        name = printable(names[label] if label < len(names) else f"class {label}", 18)
        if name in handles:
            name = f"{name} ({label})"
        handles[name] = _line(axes, points, theme.of_class(label), styles[label % len(styles)], 1.6, steps=steps)
    return handles


def _line(axes: Axes, points: Points, color: str, style: Json, width: float, *, steps: bool) -> Artist:
    xs, ys = points
    if steps:  # precision holds back to the recall before
        xs, ys = [0.0, *xs], [ys[0], *ys]
    (line,) = axes.plot(xs, ys, color=color, linestyle=style, linewidth=width, drawstyle="steps-pre" if steps else None)
    return line


def _band(axes: Axes, result: Mapping[str, Json], theme: Theme, key: str) -> None:
    band = (result.get("bands") or {}).get(key) or {}
    if band:
        axes.fill_between(
            band["at"], band["low"], band["high"], color=theme.models["federated"], alpha=0.16, linewidth=0, zorder=1
        )


def _finished(
    figure: Figure,
    axes: Axes,
    theme: Theme,
    handles: Mapping[str, Artist],
    heading: str,
    names: tuple[str, str],
    classes: Mapping[int, Points],
    result: Mapping[str, Json],
) -> Figure:
    canvas.square(axes)
    each = "each label" if multilabel(result) else "each class against the rest"
    canvas.title(figure, theme, f"{heading}, {each}" if classes else f"{heading}, test rows")
    canvas.axis_titles(axes, theme, *names)
    canvas.legend(figure, theme, handles, columns=_COLUMNS if classes else len(handles))
    return figure


@canvas.isolated
def calibration(result: Mapping[str, Json], theme: Theme) -> Figure | None:
    """Observed frequency over predicted probability by bin, and below it the federated rows of each bin; None without any.

    Of more than two classes, the probability is that of the predicted class and the frequency that of being right.
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
    figure, axes = canvas.new(theme, height=_SIDE + 0.55)
    axes.plot([0, 1], [0, 1], color=theme.muted, linewidth=0.8, linestyle=(0, (2, 2)))
    handles = {}
    for model, bins_ in reversed(drawn.items()):
        color = theme.models[model]
        (line,) = axes.plot(
            [x for x, _, _ in bins_],
            [y for _, y, _ in bins_],
            color=color,
            linewidth=1.2,
            linestyle=canvas.STYLES[model],
            marker=canvas.MARKERS[model],
            markersize=4,
            markeredgewidth=0,
        )
        handles[model] = line
    canvas.square(axes)
    shown = "federated" if "federated" in drawn else next(iter(drawn))
    _counts(axes, theme, shown, [(x, count) for x, _, count in drawn[shown]])
    if multilabel(result):
        heading = "Calibration, all labels together"
    else:
        heading = "Calibration of the predicted class" if many_classes(result) else "Calibration, test rows"
    right = many_classes(result) and not multilabel(result)
    canvas.title(figure, theme, heading)
    canvas.axis_titles(axes, theme, "", "fraction right" if right else "observed frequency")
    axes.set_xticklabels([])
    canvas.legend(figure, theme, {MODELS[model]: handles[model] for model in drawn}, columns=len(drawn))
    return figure


def _counts(axes: Axes, theme: Theme, model: str, bins: Sequence[tuple[float, float]]) -> None:
    """Bars below the diagram: rows in each tenth of the probability, with their numbers."""
    below = axes.inset_axes((0.0, -0.21, 1.0, 0.16))
    places = [(min(int(x * _BINS), _BINS - 1) + 0.5) / _BINS for x, _ in bins]
    counts = [count for _, count in bins]
    below.bar(places, counts, width=0.8 / _BINS, color=theme.models[model], alpha=0.55, linewidth=0)
    for place, count in zip(places, counts, strict=True):
        below.annotate(
            f"{count:.0f}",
            (place, count),
            xytext=(0, 1.5),
            textcoords="offset points",
            ha="center",
            fontsize=5.8,
            color=theme.muted,
        )
    below.set(xlim=axes.get_xlim(), ylim=(0, 1.35 * max(counts)), yticks=[])
    below.set_facecolor("none")
    for side, spine in below.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(theme.muted)
        spine.set_linewidth(0.6)
    below.tick_params(colors=theme.muted, labelsize=canvas.NORMAL, length=0, pad=4)
    below.set_xlabel(
        f"predicted probability (bars: rows, {MODELS[model].lower()})",
        color=theme.muted, fontsize=canvas.NORMAL, parse_math=False,
    )  # fmt: skip

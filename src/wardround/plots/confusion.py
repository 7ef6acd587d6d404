"""Confusion matrices: how many rows of each class were called what, shaded by their share of the class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from wardround.plots import canvas
from wardround.plots.labels import MODELS, class_titles, multilabel, printable
from wardround.plots.theme import Theme
from wardround.types import Json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST = 20
"""Classes that a picture of this size can show."""


@canvas.isolated
def confusion(result: Mapping[str, Json], theme: Theme, model: str = "federated") -> Figure | None:
    """Test rows of one model by true class (row) and predicted class (column): share of the row, and count.

    None where the result has no matrix, one of more classes than fit, or rows that may have several labels.
    """
    if multilabel(result):
        return None
    matrix = (result.get("confusion") or {}).get(model) or ()
    classes = len(matrix)
    if not 0 < classes <= _MOST or not any(map(sum, matrix)):
        return None
    from matplotlib.colors import LinearSegmentedColormap

    names = class_titles(result)
    width = 8 if classes > 6 else 12 if classes > 3 else 18
    labels = [printable(names[label] if label < len(names) else label, width) for label in range(classes)]
    shares = [[count / sum(row) if sum(row) else 0.0 for count in row] for row in matrix]
    figure, axes = canvas.new(theme, height=2.9 if classes == 2 else min(4.4, 2.6 + 0.25 * classes), legend_rows=0)
    shades = LinearSegmentedColormap.from_list("shares", [theme.background, theme.models[model]])
    axes.imshow(shares, cmap=shades, vmin=0.0, vmax=1.25, aspect="auto")
    size = canvas.LARGE if classes <= 3 else canvas.SMALL if classes <= 6 else 5.4
    for true, row in enumerate(matrix):
        for called, count in enumerate(row):
            share, text = shares[true][called], f"{count:.0f}"
            if classes <= 6:
                text = f"{100 * share:.0f} %\n{text}"
            axes.text(
                called, true, text, ha="center", va="center", color=theme.ink, fontsize=size, linespacing=1.25,
                fontweight="bold" if true == called else "normal",
            )  # fmt: skip
    axes.grid(False)
    axes.spines["bottom"].set_visible(False)
    ticks: dict[str, Json] = {"fontsize": canvas.SMALL, "color": theme.ink, "parse_math": False}
    axes.set_xticks(range(classes))
    axes.set_xticklabels(labels, rotation=0 if classes <= 4 else 40, ha="center" if classes <= 4 else "right", **ticks)
    axes.set_yticks(range(classes))
    axes.set_yticklabels(labels, **ticks)
    canvas.title(figure, theme, MODELS[model])
    canvas.axis_titles(axes, theme, "predicted", "true")
    return figure

"""The AUROC of every label: a dot and its 95 % interval a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from wardround.plots import canvas
from wardround.plots.comparison import dot
from wardround.plots.estimate import Estimate, estimate
from wardround.plots.labels import MODELS, class_titles, multilabel, printable
from wardround.plots.theme import Theme
from wardround.types import Json

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure

_MOST = 40
"""Labels that a picture can list."""


@canvas.isolated
def by_label(result: Mapping[str, Json], theme: Theme) -> Figure | None:
    """Pooled test AUROC of each label under each model; None for data whose rows have one class, and without figures."""
    names = class_titles(result)
    if not multilabel(result) or len(names) > _MOST:
        return None
    found: dict[str, list[Estimate | None]] = {}
    for model in MODELS:
        blocks = (result.get(model) or {}).get("classes") or ()
        figures = [estimate(block, "auroc") for block in blocks]
        if any(figures):
            found[model] = figures
    if not found:
        return None
    figure, axes = canvas.new(theme, height=1.0 + len(names) * max(0.2, 0.08 * len(found)), legend_rows=2)
    axes.axvline(0.5, color=theme.muted, linewidth=0.8, linestyle=(0, (2, 2)))
    handles: dict[str, Artist] = {}
    for place, (model, figures) in enumerate(found.items()):
        for row, value in enumerate(figures):
            if value is not None:
                handles[model] = dot(axes, theme, model, value, row + (place - (len(found) - 1) / 2) * 0.22)
    canvas.row_names(axes, theme, [printable(name) for name in names], range(len(names)))
    axes.set_ylim(len(names) - 0.4, -0.6)
    canvas.few_ticks(axes)
    canvas.axis_titles(axes, theme, "AUROC (dashed: chance); line: 95 % interval")
    canvas.title(figure, theme, "Label by label, test rows")
    canvas.legend(figure, theme, {MODELS[model]: handles[model] for model in handles}, columns=2)
    return figure

"""The run in one wide picture: convergence at the left, the models compared at the right."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from wardround.plots import canvas
from wardround.plots.comparison import TITLE, draw_comparison
from wardround.plots.convergence import by_round_title, draw_by_round, ranking_metric
from wardround.plots.labels import MODELS
from wardround.plots.theme import Theme
from wardround.types import Json

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@canvas.isolated
def overview(result: Mapping[str, Json], theme: Theme) -> Figure:
    """7.5 x 2.65 inches: 1200 x 424 pixels as a PNG. A half without data stays empty."""
    metric = ranking_metric(result) or "loss"
    figure, (left, right) = canvas.panels(theme, 7.5, 2.65, 2)
    canvas.title(figure, theme, by_round_title(result, metric))
    canvas.title(figure, theme, TITLE, left=0.5)
    handles = draw_comparison(right, result, theme, ("auroc", "accuracy", "balanced_accuracy"))
    handles |= draw_by_round(left, result, theme, metric)
    canvas.legend(figure, theme, {MODELS[model]: handle for model, handle in handles.items()}, columns=4)
    return figure

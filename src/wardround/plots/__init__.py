"""Figures from tables.

Every figure is a function of a result, as `result.json` holds it, and a theme; it gives None where the result holds
nothing to draw. matplotlib is imported when a figure is drawn, through its object API alone.
"""

from __future__ import annotations

from wardround.plots.by_label import by_label
from wardround.plots.canvas import darkened, render
from wardround.plots.class_mix import class_mix
from wardround.plots.comparison import comparison
from wardround.plots.confusion import confusion
from wardround.plots.convergence import by_bytes, loss_by_round, ranking_by_round
from wardround.plots.curves import calibration, precision_recall, roc
from wardround.plots.feature_shift import feature_shift
from wardround.plots.gains import gain_by_site
from wardround.plots.overview import overview
from wardround.plots.partition import partition
from wardround.plots.site_sizes import site_sizes
from wardround.plots.sites import by_site
from wardround.plots.theme import DARK, LIGHT, Theme

__all__ = [
    "DARK",
    "LIGHT",
    "Theme",
    "by_bytes",
    "by_label",
    "by_site",
    "calibration",
    "class_mix",
    "comparison",
    "confusion",
    "darkened",
    "feature_shift",
    "gain_by_site",
    "loss_by_round",
    "overview",
    "partition",
    "precision_recall",
    "ranking_by_round",
    "render",
    "roc",
    "site_sizes",
]

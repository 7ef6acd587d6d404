"""How unlike in size the sites are: rows by rank."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from wardround.plots import canvas
from wardround.plots.estimate import number
from wardround.plots.labels import count_of, site_rows
from wardround.plots.theme import Theme
from wardround.types import SPLITS, Json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FEWEST = 10
"""Fewer sites than this are compared by their bars."""
_WIDE_RANGE = 30.0
"""Largest to smallest from which sizes are drawn on a logarithmic scale."""


@canvas.isolated
def site_sizes(result: Mapping[str, Json], theme: Theme) -> Figure | None:
    """Rows of each site from the largest to the smallest; None for fewer than 10 sites with rows."""
    sites = result.get("partition") or {}
    totals = (sum(site_rows(result, site, split) for split in SPLITS) for site in sites)
    rows = sorted((total for total in totals if total), reverse=True)
    if len(rows) < _FEWEST:
        return None
    from matplotlib.ticker import FuncFormatter, LogLocator

    figure, axes = canvas.new(theme)
    axes.fill_between(
        [rank + 0.5 for rank in range(len(rows) + 1)],
        [*rows, rows[-1]],
        step="post",
        color=theme.models["federated"],
        alpha=0.75,
        linewidth=0,
    )
    mean = sum(rows) / len(rows)
    axes.axhline(mean, color=theme.ink, linewidth=0.9, linestyle=(0, (2, 2)))
    if rows[0] > _WIDE_RANGE * rows[-1]:
        axes.set_yscale("log")
        axes.minorticks_off()
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.set_ylim(max(0.5, 0.7 * rows[-1]), 1.3 * rows[0])
    else:
        axes.set_ylim(0, 1.05 * rows[0])
    axes.set_xlim(0.5, len(rows) + 0.5)
    axes.grid(False, axis="x")
    canvas.few_ticks(axes, whole=True)
    canvas.axis_titles(axes, theme, "sites, from the largest to the smallest", "rows (dashed: mean)")
    canvas.title(figure, theme, "Sizes of sites")
    quantity = (result.get("heterogeneity") or {}).get("quantity") or {}
    effective = number(quantity.get("effective_sites"))
    if effective is not None:
        canvas.note(figure, theme, f"{count_of(len(rows), 'site')} that weigh as {effective:.1f} of one size would")
    return figure

"""How the columns of sites differ: a heat map of shifts, or the columns' distances where there are many sites."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from wardround.plots import canvas
from wardround.plots.estimate import number
from wardround.plots.labels import printable
from wardround.plots.theme import Theme
from wardround.types import Json

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ROWS = 30
_NUMBERED = 8
"""Up to so many sites each cell has its number."""
_NAMED = 12
"""Up to so many sites they have their names below."""
_LEAST, _MOST = 0.5, 3.0
"""Bounds of the scale's end, in standard deviations."""


@canvas.isolated
def feature_shift(result: Mapping[str, Json], theme: Theme) -> Figure | None:
    """Each site's mean minus the pool's, in the pool's standard deviations; columns that differ most come first.

    Where the result lists no shifts by site, the distance of each column beyond chance. None without columns.
    """
    found = result.get("heterogeneity") or {}
    shifts = found.get("shifts") or {}
    if shifts:
        return _heat_map(theme, {name: shifts[name] for name in list(shifts)[:_ROWS]})
    distances = {
        name: value
        for name, given in ((found.get("feature") or {}).get("columns") or {}).items()
        if (value := number(given)) is not None
    }
    return _bars(theme, distances) if distances else None


def _heat_map(theme: Theme, shifts: Mapping[str, Mapping[str, Json]]) -> Figure:
    from matplotlib.colors import LinearSegmentedColormap

    sites = list(next(iter(shifts.values())))
    values = [[number(row.get(site)) for site in sites] for row in shifts.values()]
    known = [abs(value) for row in values for value in row if value is not None]
    end = min(_MOST, max(_LEAST, *known)) if known else _LEAST
    names = [printable(site, 16) for site in sites]
    upright = len(sites) <= _NAMED and len(sites) > 4
    below = 0.075 * max(map(len, names)) if upright else 0.15
    figure, axes = canvas.new(theme, height=1.0 + 0.185 * len(values) + below)
    colours = LinearSegmentedColormap.from_list(
        "shift", [theme.models["federated"], theme.background, theme.models["local"]]
    )
    drawn = axes.pcolormesh(
        [[float("nan") if value is None else value for value in row] for row in values],
        cmap=colours,
        vmin=-end,
        vmax=end,
        edgecolors=theme.grid,
        linewidth=0.4,
    )
    _cells(axes, theme, values, end, numbered=len(sites) <= _NUMBERED)
    canvas.row_names(axes, theme, [printable(name) for name in shifts], [row + 0.5 for row in range(len(values))])
    axes.grid(False)
    axes.spines["bottom"].set_visible(False)
    if len(sites) <= _NAMED:
        axes.set_xticks([place + 0.5 for place in range(len(sites))])
        axes.set_xticklabels(names, parse_math=False, rotation=90 if upright else 0)
    else:
        axes.set_xticks([])
        canvas.axis_titles(axes, theme, f"{len(sites)} sites, in order of their names")
    bar = figure.colorbar(drawn, ax=axes, orientation="vertical", fraction=0.05, pad=0.03, aspect=24)
    bar.ax.locator_params(nbins=6)
    bar.outline.set_visible(False)
    bar.ax.tick_params(colors=theme.muted, labelsize=canvas.SMALL, length=0)
    canvas.title(figure, theme, "Shift of columns by site")
    absent = any(value is None for row in values for value in row)
    crosses = "; \u00d7: never measured" if absent else ""
    canvas.note(figure, theme, f"Site's mean minus pooled mean, in pooled SD{crosses}")
    return figure


def _cells(axes: Axes, theme: Theme, values: list[list[float | None]], end: float, *, numbered: bool) -> None:
    for row, cells in enumerate(values):
        for place, value in enumerate(cells):
            if value is None:
                axes.text(place + 0.5, row + 0.5, "\u00d7", color=theme.muted, fontsize=7.0, ha="center", va="center")
            elif numbered:
                # a strong cell is dark on light paper and light on dark paper: the paper's colour can be read on it
                ink = theme.background if abs(value) > 0.65 * end else theme.ink
                text = f"{value + 0.0:.1f}".replace("-0.0", "0.0")
                axes.text(place + 0.5, row + 0.5, text, color=ink, fontsize=6.4, ha="center", va="center")


def _bars(theme: Theme, distances: Mapping[str, float]) -> Figure:
    chosen = sorted(distances.items(), key=lambda item: -item[1])[:_ROWS]
    figure, axes = canvas.new(theme, height=0.95 + 0.185 * len(chosen))
    axes.barh(range(len(chosen)), [value for _, value in chosen], height=0.62, color=theme.models["federated"])
    axes.axvline(0.0, color=theme.muted, linewidth=0.8)
    canvas.row_names(axes, theme, [printable(name) for name, _ in chosen], range(len(chosen)))
    axes.set_ylim(len(chosen) - 0.4, -0.6)
    canvas.few_ticks(axes)
    canvas.axis_titles(axes, theme, "mean distance beyond chance, pooled SD")
    canvas.title(figure, theme, "How far columns differ between sites")
    rest = len(distances) - len(chosen)
    canvas.note(
        figure, theme, f"The {len(chosen)} columns that differ most, of {len(distances)}" if rest else "All columns"
    )
    return figure

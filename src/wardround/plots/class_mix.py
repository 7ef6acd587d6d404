"""Which classes each site has: bubbles of sites by classes, or how a class's share spreads over many sites."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from wardround.plots import canvas
from wardround.plots.labels import count_of, multilabel, printable, site_rows, told_counts
from wardround.plots.partition import class_names, legend_columns, rows_of
from wardround.plots.sites import MANY_SITES
from wardround.plots.theme import Theme
from wardround.types import SPLITS, Json

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LARGEST = 15.0
"""Points across the largest bubble."""
_NAMED = 8
"""More classes than this have their names written upwards."""


@canvas.isolated
def class_mix(result: Mapping[str, Json], theme: Theme) -> Figure | None:
    """Bubbles whose area is the rows of a class at a site; beyond 40 sites the sorted shares of each class.

    None without counts, and for up to 40 sites of two classes, whose stacked bars say the same. Shares of labels are of a
    site's rows, which may have several.
    """
    classes = class_names(result)
    counts = {
        site: [sum(rows_of(splits, split, label) for split in SPLITS) for label in range(len(classes))]
        for site, splits in told_counts(result).items()
    }
    if not any(map(sum, counts.values())):
        return None
    if len(counts) > MANY_SITES:
        return _curves(theme, classes, counts, _totals(result, counts), labelled=multilabel(result))
    return _bubbles(theme, classes, counts) if len(classes) > 2 or multilabel(result) else None


def _totals(result: Mapping[str, Json], counts: Mapping[str, list[int]]) -> list[int]:
    """Rows of each site."""
    if multilabel(result):
        return [sum(site_rows(result, site, split) for split in SPLITS) for site in counts]
    return [sum(row) for row in counts.values()]


def _bubbles(theme: Theme, classes: list[str], counts: Mapping[str, list[int]]) -> Figure:
    names = [printable(name, 18) for name in classes]
    upright = len(names) > _NAMED or max(map(len, names)) * len(names) > 44
    height = 0.75 + 0.24 * len(counts) + (0.075 * max(map(len, names)) if upright else 0.1)
    figure, axes = canvas.new(theme, height=height)
    most = max(max(row) for row in counts.values())
    for label in range(len(classes)):
        rows = [row[label] for row in counts.values()]
        axes.scatter(
            [label] * len(rows),
            range(len(rows)),
            s=[_LARGEST**2 * count / most for count in rows],
            color=theme.of_class(label),
            linewidths=0,
        )
    canvas.row_names(axes, theme, [printable(site) for site in counts], range(len(counts)))
    axes.grid(True, axis="y", color=theme.grid, linewidth=0.7)
    axes.set_ylim(len(counts) - 0.4, -0.6)
    axes.set_xlim(-0.6, len(classes) - 0.4)
    axes.set_xticks(range(len(classes)))
    axes.set_xticklabels(names, parse_math=False, rotation=90 if upright else 0)
    canvas.title(figure, theme, "Classes at each site")
    canvas.note(figure, theme, f"Area: rows, the largest bubble {count_of(most, 'row')}; no bubble: none")
    return figure


def _curves(
    theme: Theme, classes: list[str], counts: Mapping[str, list[int]], totals: list[int], *, labelled: bool
) -> Figure:
    columns = legend_columns(classes)
    legend_rows = -(-len(classes) // columns)
    figure, axes = canvas.new(theme, height=canvas.HEIGHT + 0.155 * (legend_rows - 1), legend_rows=legend_rows)
    filled = [(row, total) for row, total in zip(counts.values(), totals, strict=True) if total]
    # one class of two says all
    shown = [1] if len(classes) == 2 and not labelled else range(len(classes))
    lines: dict[str, Artist] = {}
    for label in shown:
        shares = sorted(row[label] / total for row, total in filled)
        (line,) = axes.plot(range(1, len(shares) + 1), shares, color=theme.of_class(label), linewidth=1.4)
        pool = sum(row[label] for row, _ in filled) / sum(total for _, total in filled)
        axes.axhline(pool, color=theme.of_class(label), linewidth=0.9, linestyle=(0, (2, 2)))
        text = printable(classes[label], 18)
        lines[text if text not in lines else f"{text} ({label})"] = line
    axes.set_ylim(-0.02, 1.02)
    _many_ticks(axes, len(filled))
    canvas.axis_titles(axes, theme, f"{count_of(len(filled), 'site')}, sorted for each class", "share of a site's rows")
    canvas.title(figure, theme, "Share of a class at the sites (dashed: all)")
    canvas.legend(figure, theme, lines, columns)
    return figure


def _many_ticks(axes: Axes, count: int) -> None:
    axes.set_xlim(1, count)
    canvas.few_ticks(axes, whole=True)

"""Who holds how many rows of which class, and in which split."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING

from wardround.plots import canvas
from wardround.plots.labels import count_of, multilabel, printable, told_counts
from wardround.plots.sites import MANY_SITES
from wardround.plots.theme import Theme
from wardround.types import SPLITS, Json

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_CUT = 18
"""Letters of a class's name in a legend."""
_STEPS = 40
_STRENGTH = {"train": 1.0, "validation": 0.62, "test": 0.3}
"""A class is a hue, a split its strength, so that both are readable at once."""


def class_names(result: Mapping[str, Json]) -> list[str]:
    """Names of the classes, numbered where the dataset names fewer than the partition counts."""
    named = [str(name) for name in (result.get("dataset") or {}).get("classes") or ()]
    splits = [split for site in (result.get("partition") or {}).values() for split in site.values()]
    classes = max((len(split) for split in splits), default=0)
    return named + [f"class {label}" for label in range(len(named), classes)]


def legend_columns(classes: list[str]) -> int:
    """As many columns of a legend as names of this length leave room for."""
    longest = max((len(printable(name, _CUT)) for name in classes), default=0)
    return 3 if longest <= 13 else 2


def rows_of(site: Mapping[str, Json], split: str, label: int) -> int:
    """Rows of a class in a split of a site; 0 where the partition does not say."""
    counts = site.get(split) or ()
    return int(counts[label]) if label < len(counts) else 0


@canvas.isolated
def partition(result: Mapping[str, Json], theme: Theme) -> Figure | None:
    """A stacked bar a site by class and split; None without counts. A row with several labels counts for each of them.

    More than 40 sites are 40 groups in order of size, each drawn as the mean of its sites.
    """
    sites = told_counts(result)
    if not sites or not class_names(result):
        return None
    many = len(sites) > MANY_SITES
    classes = class_names(result)
    rows = 1 + -(-len(classes) // legend_columns(classes))
    figure, axes = canvas.new(
        theme, height=canvas.HEIGHT if many else 0.85 + 0.155 * rows + 0.24 * len(sites), legend_rows=rows
    )
    if many:
        _steps(axes, theme, result, sites)
    else:
        _bars(axes, theme, result, sites)
    _legends(
        figure, theme, classes, "Labels by site and split" if multilabel(result) else "Rows by site, class and split"
    )
    return figure


def _bars(axes: Axes, theme: Theme, result: Mapping[str, Json], sites: Mapping[str, Mapping[str, Json]]) -> None:
    ends = [0] * len(sites)
    for label, _ in enumerate(class_names(result)):
        for split in SPLITS:
            widths = [rows_of(site, split, label) for site in sites.values()]
            axes.barh(
                range(len(sites)),
                widths,
                left=ends,
                height=0.66,
                color=theme.of_class(label),
                alpha=_STRENGTH[split],
                linewidth=0,
            )
            ends = [end + width for end, width in zip(ends, widths, strict=True)]
    canvas.row_names(axes, theme, [printable(site) for site in sites], range(len(sites)))
    axes.set_ylim(len(sites) - 0.4, -0.6)
    canvas.few_ticks(axes, whole=True)
    canvas.axis_titles(axes, theme, "labels of rows" if multilabel(result) else "rows")


def _steps(axes: Axes, theme: Theme, result: Mapping[str, Json], sites: Mapping[str, Mapping[str, Json]]) -> None:
    ordered = sorted(sites.values(), key=lambda site: -sum(sum(site.get(split) or ()) for split in SPLITS))
    edges = [round(step * len(ordered) / _STEPS) for step in range(_STEPS + 1)]
    groups = [ordered[start:end] for start, end in pairwise(edges)]
    floor = [0.0] * len(groups)
    for label, _ in enumerate(class_names(result)):
        for split in SPLITS:
            means = [sum(rows_of(site, split, label) for site in group) / len(group) for group in groups]
            top = [low + mean for low, mean in zip(floor, means, strict=True)]
            axes.fill_between(
                edges,
                [*floor, floor[-1]],
                [*top, top[-1]],
                step="post",
                color=theme.of_class(label),
                alpha=_STRENGTH[split],
                linewidth=0,
            )
            floor = top
    axes.set_xlim(0, len(ordered))
    axes.set_ylim(0, None)
    axes.grid(False, axis="x")
    many = count_of(len(ordered), "site")
    across = f"{many}, from the largest to the smallest, {_STEPS} groups"
    canvas.axis_titles(axes, theme, across, f"mean {'labels' if multilabel(result) else 'rows'} a site")


def _legends(figure: Figure, theme: Theme, classes: list[str], title: str) -> None:
    from matplotlib.patches import Patch

    hues: dict[str, Artist] = {}
    for label, name in enumerate(classes):
        text = printable(name, _CUT)
        # two names may look the same once they are cut
        hues[text if text not in hues else f"{text} ({label})"] = Patch(color=theme.of_class(label), linewidth=0)
    strengths: dict[str, Artist] = {
        split: Patch(color=theme.muted, alpha=_STRENGTH[split], linewidth=0) for split in SPLITS
    }
    canvas.title(figure, theme, title)
    columns = legend_columns(classes)
    canvas.legend(figure, theme, hues, columns)
    canvas.legend(figure, theme, strengths, row=-(-len(classes) // columns))

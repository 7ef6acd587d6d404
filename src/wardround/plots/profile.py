"""A table before anything is trained on it: gaps, labels by site, correlations, what one column alone tells.

Every figure is a function of a profile's tree and a theme, None where there is nothing to draw.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from wardround.plots import canvas
from wardround.plots.labels import printable
from wardround.plots.theme import Theme
from wardround.types import Json

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

_MOST = 30
_NAME = 22
_ROW = 0.2
"""Inches of a row."""


@canvas.isolated
def missing_by_column(profile: Mapping[str, Json], theme: Theme) -> Figure | None:
    """The share of gaps a column, disguised ones pale beside them; None where no column has any."""
    columns = [
        (column["name"], column["missing"] / profile["rows"], column["disguised"] / profile["rows"])
        for column in profile["columns"]
        if column["missing"] or column["disguised"]
    ]
    columns = sorted(columns, key=lambda column: -(column[1] + column[2]))[:_MOST]
    if not columns:
        return None
    disguised = any(column[2] for column in columns)
    figure, axes = canvas.new(theme, height=0.85 + _ROW * len(columns), legend_rows=int(disguised))
    places = range(len(columns))
    plain = [100 * column[1] for column in columns]
    handles: dict[str, Any] = {
        "gaps": axes.barh(places, plain, height=0.62, color=theme.models["federated"], linewidth=0)
    }
    if disguised:
        handles["values that seem to mean 'not measured'"] = axes.barh(
            places, [100 * column[2] for column in columns], left=plain, height=0.62,
            color=theme.models["local"], linewidth=0,
        )  # fmt: skip
    canvas.row_names(axes, theme, [printable(column[0], _NAME) for column in columns], places)
    axes.set_xlim(0, 100)
    axes.set_ylim(len(columns) - 0.4, -0.6)
    canvas.axis_titles(axes, theme, "% of rows")
    canvas.title(figure, theme, "Missing values by column")
    if disguised:
        canvas.legend(figure, theme, handles)
    return figure


@canvas.isolated
def missing_by_site(profile: Mapping[str, Json], theme: Theme) -> Figure | None:
    """The share of gaps by column and site as a chart of colours; None without sites or gaps."""
    shares: Mapping[str, Sequence[float]] = profile["missing"]["by_site"]
    names = list(profile["missing"]["columns"])
    if not shares or not names or len(shares) < 2:
        return None
    order = sorted(range(len(names)), key=lambda place: -max(row[place] for row in shares.values()))[:_MOST]
    kept = sorted(order)
    values = [[row[place] for place in kept] for row in shares.values()]
    longest = min(max(len(names[place]) for place in kept), _NAME)
    figure, axes = canvas.new(theme, height=0.8 + _ROW * len(values) + 0.072 * longest, legend_rows=1)
    image = axes.imshow(values, aspect="auto", cmap=_ramp(theme), vmin=0, vmax=1, interpolation="nearest")
    canvas.row_names(axes, theme, [printable(site, 18) for site in shares], range(len(values)))
    axes.set_ylim(len(values) - 0.5, -0.5)
    _upright(axes, theme, [names[place] for place in kept])
    _colours(figure, image, theme, "of the rows have no value", ("0", "100 %"))
    canvas.title(figure, theme, "Missing values by site")
    return figure


@canvas.isolated
def label_by_site(profile: Mapping[str, Json], theme: Theme) -> Figure | None:
    """The share of each class a site, and in all rows; sites with a withheld count are hatched where it would be."""
    label = profile["label"]
    if not label:
        return None
    rows = {"all rows": label["rows"], **label["by_site"]}
    below = profile["below"]
    figure, axes = canvas.new(
        theme, height=0.75 + _ROW * 1.15 * len(rows) + 0.155 * -(-len(label["classes"]) // 3),
        legend_rows=-(-len(label["classes"]) // 3),
    )  # fmt: skip
    handles: dict[str, Any] = {}
    ends = [0.0] * len(rows)
    totals = [sum(below / 2 if count is None else count for count in counts) or 1 for counts in rows.values()]
    for place, name in enumerate(label["classes"]):
        shown = [counts[place] for counts in rows.values()]
        widths = [
            100 * (below / 2 if count is None else count) / total for count, total in zip(shown, totals, strict=True)
        ]
        bars = axes.barh(
            range(len(rows)), widths, left=ends, height=0.66, color=theme.of_class(place), linewidth=0
        )  # fmt: skip
        for bar, count in zip(bars, shown, strict=True):
            if count is None:
                bar.set(hatch="////", edgecolor=theme.ink)
        handles[_unlike(printable(name, 18), handles, place)] = bars
        ends = [end + width for end, width in zip(ends, widths, strict=True)]
    canvas.row_names(axes, theme, [printable(site, 18) for site in rows], range(len(rows)))
    axes.set_xlim(0, 100)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    hatched = any(count is None for counts in rows.values() for count in counts)
    canvas.axis_titles(axes, theme, f"% of rows{f' (hatched: fewer than {below} rows)' if hatched else ''}")
    canvas.title(figure, theme, "Classes by site" if len(rows) > 1 else "Classes")
    canvas.legend(figure, theme, handles)
    return figure


@canvas.isolated
def rows_by_site(profile: Mapping[str, Json], theme: Theme) -> Figure | None:
    """Rows a site, the largest first; None without a site column. Small counts are drawn hollow at the threshold."""
    if not profile["sites"] or not profile["sites"]["rows"]:
        return None
    rows: Mapping[str, int | None] = profile["sites"]["rows"]
    figure, axes = canvas.new(theme, height=0.75 + _ROW * len(rows), legend_rows=0)
    places = range(len(rows))
    bars = axes.barh(
        places, [profile["below"] if count is None else count for count in rows.values()],
        height=0.62, color=theme.models["federated"], linewidth=0,
    )  # fmt: skip
    for bar, count in zip(bars, rows.values(), strict=True):
        if count is None:
            bar.set(facecolor="none", edgecolor=theme.muted, linewidth=0.8)
    canvas.row_names(axes, theme, [printable(site, 18) for site in rows], places)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    canvas.few_ticks(axes, whole=True)
    canvas.axis_titles(axes, theme, "rows")
    canvas.title(figure, theme, "Rows by site")
    return figure


@canvas.isolated
def correlation(profile: Mapping[str, Json], theme: Theme) -> Figure | None:
    """Spearman's correlations of numeric columns, blue negative, red positive; None with fewer than two."""
    found = profile["correlation"]
    if not found:
        return None
    from matplotlib.colors import LinearSegmentedColormap

    names = found["names"]
    ramp = LinearSegmentedColormap.from_list(
        "signed", [theme.models["federated"], theme.grid, theme.models["local"]], N=129
    )
    values = [[float("nan") if value is None else value for value in row] for row in found["values"]]
    side = max(1.2, 0.145 * len(names))
    longest = min(max(map(len, names)), _NAME)
    figure, axes = canvas.new(theme, height=0.75 + side + 0.072 * longest, legend_rows=1)
    image = axes.imshow(values, aspect="auto", cmap=ramp, vmin=-1, vmax=1, interpolation="nearest")
    canvas.row_names(axes, theme, [printable(name, _NAME) for name in names], range(len(names)))
    axes.set_ylim(len(names) - 0.5, -0.5)
    _upright(axes, theme, names)
    if len(names) > 12:
        axes.tick_params(labelsize=canvas.SMALL - 1.6)
    if len(names) <= 10:
        for row, line in enumerate(values):
            for place, value in enumerate(line):
                if row != place and value == value and abs(value) >= 0.1:  # noqa: PLR0124  # not NaN
                    axes.text(
                        place, row, f"{value:.1f}".replace("-", "\u2212").replace("0.", "."), ha="center", va="center",
                        color=theme.ink, fontsize=canvas.SMALL - 1,
                    )  # fmt: skip
    _colours(figure, image, theme, "Spearman's rank correlation", ("\u22121", "1"))
    canvas.title(figure, theme, "Numeric columns together")
    return figure


@canvas.isolated
def telling(profile: Mapping[str, Json], theme: Theme) -> Figure | None:
    """AUROC of each column alone on held-out rows, the best 20; None without a label."""
    columns = sorted(
        ((column["auroc"], column["name"]) for column in profile["columns"] if column["auroc"] is not None),
        reverse=True,
    )[:20]
    if not columns:
        return None
    figure, axes = canvas.new(theme, height=0.75 + _ROW * len(columns), legend_rows=1)
    suspect = [auroc >= 0.985 for auroc, _ in columns]
    for place, ((auroc, _), warn) in enumerate(zip(columns, suspect, strict=True)):
        colour = theme.models["local"] if warn else theme.models["federated"]
        axes.plot([0.5, auroc], [place, place], color=colour, linewidth=1.4)
        axes.plot([auroc], [place], marker="D" if warn else "o", color=colour, markersize=5, markeredgewidth=0)
    canvas.row_names(axes, theme, [printable(name, _NAME) for _, name in columns], range(len(columns)))
    axes.set_xlim(min(0.48, min(auroc for auroc, _ in columns) - 0.02), 1.01)
    axes.set_ylim(len(columns) - 0.4, -0.6)
    canvas.axis_titles(axes, theme, "AUROC on held-out rows, 0.5 is chance")
    canvas.title(figure, theme, "What one column alone tells of the label")
    canvas.note(figure, theme, "Diamonds nearly determine it" if any(suspect) else "For the class that it tells best")
    return figure


def _ramp(theme: Theme) -> Colormap:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("share", [theme.grid, theme.models["local"]], N=101)


def _upright(axes: Axes, theme: Theme, names: Sequence[str]) -> None:
    axes.set_xticks(range(len(names)))
    axes.set_xticklabels(
        [printable(name, _NAME) for name in names],
        rotation=90,
        color=theme.ink,
        fontsize=canvas.SMALL,
        parse_math=False,
    )
    axes.grid(False)
    axes.spines["bottom"].set_visible(False)


def _colours(figure: Figure, image: Any, theme: Theme, text: str, labels: tuple[str, str]) -> None:
    """A small scale of colours in the legend's row, its text behind it."""
    width, height = figure.get_size_inches()
    top = 1.0 - 0.36 / height
    left = 0.05 / width
    first, last = labels[0], labels[-1]
    figure.text(left, top, f"{first} ", va="bottom", color=theme.muted, fontsize=canvas.SMALL)
    scale = figure.add_axes((0.24 / width, top + 0.015 / height, 0.7 / width, 0.07 / height))
    bar = figure.colorbar(image, cax=scale, orientation="horizontal")
    bar.outline.set_visible(False)
    bar.set_ticks([])
    figure.text(0.99 / width, top, f"{last}    {text}", va="bottom", color=theme.ink, fontsize=canvas.SMALL)


def _unlike(text: str, taken: Mapping[str, object], place: int) -> str:
    return text if text not in taken else f"{text} ({place})"

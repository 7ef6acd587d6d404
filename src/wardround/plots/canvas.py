"""An empty figure in the house's style, and a figure as bytes: matplotlib's object API alone, without pyplot.

Figures of one panel are 3.9 inches wide, so that their letters stay readable on a telephone and calm on a desk.
"""

from __future__ import annotations

import functools
import io
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, ParamSpec, TypeVar

from wardround.plots.theme import DARK, LIGHT, Theme

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from wardround.types import Json

    Draw = Callable[[Mapping[str, Json], Theme], Figure | None]
    Paint = Callable[[Theme], Figure | None]

Parameters = ParamSpec("Parameters")
Drawn = TypeVar("Drawn")

WIDTH, HEIGHT = 3.9, 2.8
"""Inches of a one-panel figure."""
DPI = 160
SMALL, NORMAL, LARGE = 7.6, 8.2, 9.6
"""Points."""
_TITLE_ROW, _LEGEND_ROW, _MARGIN = 0.27, 0.155, 0.04
"""Inches."""
MARKERS = {"federated": "o", "finetuned": "^", "centralized": "D", "local": "s", "majority": "X"}
STYLES = {
    "federated": "-",
    "finetuned": (0, (6, 1, 1, 1)),
    "centralized": (0, (1, 1.2)),
    "local": (0, (4, 1.6)),
    "majority": (0, (3, 1, 1, 1)),
}

# Measured with the one font that comes with matplotlib, shown by browsers in the page's own.
_MEASURED = "DejaVu Sans"
_SHOWN = "-apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, 'Liberation Sans', 'DejaVu Sans', sans-serif"
_OWN = (
    *("axes.", "errorbar.", "figure.", "font.", "hatch.", "legend.", "lines.", "markers.", "mathtext.", "patch."),
    *("path.", "savefig.", "scatter.", "svg.", "text.", "xtick.", "ytick."),
)


def isolated(draw: Callable[Parameters, Drawn]) -> Callable[Parameters, Drawn]:
    """Run `draw` under matplotlib's defaults, so that a user's matplotlibrc changes no figure."""

    @functools.wraps(draw)
    def drawn(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Drawn:
        import matplotlib

        defaults = {name: value for name, value in matplotlib.rcParamsDefault.items() if name.startswith(_OWN)}
        defaults |= {"font.family": [_MEASURED], "svg.fonttype": "none", "svg.hashsalt": "wardround"}
        with matplotlib.rc_context(defaults):
            return draw(*args, **kwargs)

    return drawn


def new(theme: Theme, width: float = WIDTH, height: float = HEIGHT, *, legend_rows: int = 1) -> tuple[Figure, Axes]:
    """A figure of `width` x `height` inches with one axes, below room for a title and rows of a legend."""
    figure, (axes,) = panels(theme, width, height, 1, legend_rows)
    return figure, axes


def panels(theme: Theme, width: float, height: float, count: int, legend_rows: int = 1) -> tuple[Figure, list[Axes]]:
    """As `new`, with `count` axes side by side, each in a part of the same width."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    header = (_TITLE_ROW + _LEGEND_ROW * legend_rows) / height
    layout = ConstrainedLayoutEngine(w_pad=0.04, h_pad=0.03, rect=(0.0, 0.0, 1.0, 1.0 - header))
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor=theme.background, layout=layout)
    parts = figure.subfigures(1, count, squeeze=False)[0]
    for part in parts:
        part.set_facecolor("none")
    return figure, [_plain(part.subplots(), theme) for part in parts]


def _plain(axes: Axes, theme: Theme) -> Axes:
    axes.set_facecolor("none")
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(theme.muted)
        spine.set_linewidth(0.6)
    axes.tick_params(colors=theme.muted, labelsize=NORMAL, length=0, pad=4)
    axes.set_axisbelow(True)
    axes.grid(True, color=theme.grid, linewidth=0.7)
    return axes


def title(figure: Figure, theme: Theme, text: str, *, left: float = 0.0) -> None:
    """A heading at the top; `left` is the fraction of the width at which its panel begins."""
    width, height = figure.get_size_inches()
    place = (left + _MARGIN / width, 1.0 - 0.05 / height)
    figure.text(*place, text, va="top", color=theme.ink, fontsize=LARGE, fontweight="bold", parse_math=False)


def axis_titles(axes: Axes, theme: Theme, x: str, y: str = "") -> None:
    """Titles of the two axes, literal: a dollar sign is a dollar sign."""
    axes.set_xlabel(x, color=theme.muted, fontsize=NORMAL, parse_math=False)
    axes.set_ylabel(y, color=theme.muted, fontsize=NORMAL, parse_math=False)


def legend(figure: Figure, theme: Theme, entries: Mapping[str, Artist], columns: int = 3, *, row: int = 0) -> None:
    """A frameless legend (label -> what it explains) from its row `row` below the title; nothing without entries.

    Labels differ from each other; with more than `columns` entries they run down each column first.
    """
    if not entries:
        return
    width, height = figure.get_size_inches()
    drawn = figure.legend(
        list(entries.values()),
        list(entries),
        loc="upper left",
        bbox_to_anchor=(_MARGIN / width, 1.0 - (_TITLE_ROW + row * _LEGEND_ROW) / height),
        ncols=min(columns, len(entries)),
        frameon=False,
        fontsize=SMALL,
        labelcolor=theme.ink,
        borderaxespad=0.0,
        borderpad=0.0,
        labelspacing=0.35,
        handlelength=1.6,
        handletextpad=0.45,
        columnspacing=1.0,
    )
    drawn.set_in_layout(False)
    for text in drawn.get_texts():
        text.set_parse_math(False)


def note(figure: Figure, theme: Theme, text: str) -> None:
    """A line of text where the legend would be."""
    width, height = figure.get_size_inches()
    place = (_MARGIN / width, 1.0 - (_TITLE_ROW + 0.01) / height)
    figure.text(*place, text, va="top", color=theme.ink, fontsize=SMALL, parse_math=False)


def square(axes: Axes) -> None:
    """Both axes from 0 to 1, of one scale."""
    axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal")


def few_ticks(axes: Axes, *, whole: bool = False) -> None:
    """At most six steps along x, so that their labels do not touch; whole numbers where asked."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10], integer=whole, min_n_ticks=1))


def ring(axes: Axes, theme: Theme, x: float, y: float) -> None:
    """A ring round one point of a curve: the round that was kept."""
    axes.plot([x], [y], color=theme.ink, marker="o", markersize=9, markerfacecolor="none", markeredgewidth=1.1)


def row_names(axes: Axes, theme: Theme, names: Sequence[str], positions: Sequence[float]) -> None:
    """Names down the left side, the first on top, without horizontal grid lines."""
    axes.set_yticks(list(positions))
    # literal text: a name is not a formula
    axes.set_yticklabels(list(names), color=theme.ink, fontsize=NORMAL, parse_math=False)
    axes.grid(False, axis="y")
    axes.invert_yaxis()


@isolated
def render(figure: Figure, kind: Literal["png", "svg"]) -> bytes:
    """The figure as bytes: a PNG of 160 dpi on its paper, or a transparent SVG without date or random identifiers."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # a site's name in a script that the measuring font lacks: browsers have it, a PNG shows a box
        warnings.filterwarnings("ignore", message="Glyph")
        if kind == "png":
            figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
            return buffer.getvalue()
        figure.savefig(buffer, format="svg", facecolor="none", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue().decode("utf-8")
    return text.replace(f"'{_MEASURED}'", _SHOWN).encode("utf-8")


_COLOUR = re.compile(rb"(?<=fill: |roke: )#[0-9a-f]{6}")
_ON_DARK = {light.encode(): dark.encode() for light, dark in zip(LIGHT.colours, DARK.colours, strict=True)}


def darkened(svg: bytes) -> bytes | None:
    """What `render` gave of a light figure, in the colours of the dark theme: in no time, where drawing it again takes long.

    None where it shows other colours than the theme's, as a scale or a photograph does: then it has to be drawn.
    """
    if b"<image" in svg or not _ON_DARK.keys() >= set(_COLOUR.findall(svg)):
        return None
    return _COLOUR.sub(lambda found: _ON_DARK[found[0]], svg)

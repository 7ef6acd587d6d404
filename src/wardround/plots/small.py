"""Small pictures of one column as SVG text: a page of hundreds of columns cannot wait for matplotlib.

Colours are the page's own CSS classes, so that they follow its light and dark paper: `bar`, `few` (a withheld count),
`line`, `box`, `middle`, `tick`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from wardround.plots.labels import printable
from wardround.types import Json

_WIDTH, _TALL, _FOOT = 300.0, 70.0, 16.0
_ROW, _NAMES = 17.0, 92.0


def histogram(shown: Mapping[str, Json], below: int) -> str:
    """Bars of a histogram; a bin with a withheld count is hollow, as high as the threshold."""
    edges: Sequence[float] = shown["edges"]
    rows: Sequence[int | None] = shown["rows"]
    tallest = max([count for count in rows if count is not None] + [below])
    span = edges[-1] - edges[0]
    parts = []
    for place, count in enumerate(rows):
        left = (edges[place] - edges[0]) / span * _WIDTH
        width = (edges[place + 1] - edges[place]) / span * _WIDTH
        high = _TALL * (below if count is None else count) / tallest
        told = f"fewer than {below}" if count is None else f"{count:,}"
        if high:
            parts.append(
                f'<rect class="{"few" if count is None else "bar"}" x="{left + 0.5:.1f}" y="{_TALL - high:.1f}" '
                f'width="{max(width - 1, 0.5):.1f}" height="{high:.1f}"><title>{_number(edges[place])} to '
                f"{_number(edges[place + 1])}: {told}</title></rect>"
            )
    parts.append(f'<line class="line" x1="0" y1="{_TALL}" x2="{_WIDTH}" y2="{_TALL}"/>')
    whole = all(edge % 1 == 0.5 for edge in edges)
    low, high = (edges[0] + 0.5, edges[-1] - 0.5) if whole else (edges[0], edges[-1])
    more = ("\u2264\u2009", "\u2265\u2009") if shown["clipped"] else ("", "")
    parts.append(f'<text class="tick" x="0" y="{_TALL + 12}">{more[0]}{_number(low)}</text>')
    parts.append(f'<text class="tick" x="{_WIDTH}" y="{_TALL + 12}" text-anchor="end">{more[1]}{_number(high)}</text>')
    return _svg(_TALL + _FOOT, parts, "Histogram")


def boxes(shown: Sequence[Mapping[str, Json]]) -> str:
    """A row a site: whiskers at 5 and 95 %, a box from 25 to 75 %, a stroke at the median; '' of nothing."""
    if not shown:
        return ""
    low = min(box["five"][0] for box in shown)
    high = max(box["five"][4] for box in shown)
    span = (high - low) or 1.0
    left, width = _NAMES, _WIDTH - _NAMES - 4

    def at(value: float) -> float:
        return float(left + (value - low) / span * width)

    parts = []
    for row, box in enumerate(shown):
        a, b, c, d, e = (at(value) for value in box["five"])
        y = row * _ROW + _ROW / 2
        told = ", ".join(_number(value) for value in box["five"])
        name = escape(printable(box["name"], 14))
        parts += [
            f'<text class="tick" x="0" y="{y + 3.5:.1f}">{name}</text>',
            f'<line class="line" x1="{a:.1f}" y1="{y}" x2="{e:.1f}" y2="{y}"/>',
            f'<rect class="box" x="{b:.1f}" y="{y - 4.5}" width="{max(d - b, 0.8):.1f}" height="9"><title>'
            f"5, 25, 50, 75, 95 %: {told}</title></rect>",
            f'<line class="middle" x1="{c:.1f}" y1="{y - 4.5}" x2="{c:.1f}" y2="{y + 4.5}"/>',
        ]
    foot = len(shown) * _ROW + 11
    parts.append(f'<text class="tick" x="{left}" y="{foot}">{_number(low)}</text>')
    parts.append(f'<text class="tick" x="{_WIDTH}" y="{foot}" text-anchor="end">{_number(high)}</text>')
    return _svg(foot + 4, parts, "Box plots")


def _svg(height: float, parts: Sequence[str], text: str) -> str:
    return (
        f'<svg class="small-picture" viewBox="0 0 {_WIDTH:.0f} {height:.0f}" role="img" aria-label="{text}">'
        f"{''.join(parts)}</svg>"
    )


def _number(value: float) -> str:
    return f"{value:.4g}".replace("-", "\u2212")

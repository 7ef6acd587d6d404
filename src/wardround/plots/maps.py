"""Pictures with the evidence that a model finds in them, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from wardround.plots import canvas
from wardround.plots.labels import printable
from wardround.plots.theme import Theme
from wardround.types import Json

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

_SIDE = 1.5
"""Inches of one picture."""
_ACROSS = 2
"""Pictures, each beside its map, in a line."""
_STRONGEST = 0.6
"""Opacity of the map where it is strongest: the picture stays visible below it."""


@canvas.isolated
def maps(
    facts: Sequence[Mapping[str, Json]], pictures: NDArray[np.uint8], evidence: NDArray[np.uint8], theme: Theme
) -> Figure | None:
    """Each picture, and beside it the same with its map; None without any.

    Args:
        facts: of each picture: `site`, `true`, `shown`, `probability`, see `federation.maps`.
        pictures: [n, C, H, W]; three channels are red, green and blue, of other numbers the first is shown.
        evidence: [n, H, W].
        theme: the paper.
    """
    if not len(pictures):
        return None
    from matplotlib.figure import Figure

    lines = -(-len(pictures) // _ACROSS)
    height = 0.45 + lines * (_SIDE + 0.45)
    figure = Figure(figsize=(2 * canvas.WIDTH, height), dpi=canvas.DPI, facecolor=theme.background)
    places = figure.subplots(
        lines, 2 * _ACROSS, squeeze=False,
        gridspec_kw={"left": 0.01, "right": 0.99, "bottom": 0.01, "top": 1 - 0.75 / height, "hspace": 0.32, "wspace": 0.03},
    )  # fmt: skip
    for axes in places.flat:
        axes.set_axis_off()
    for number, (fact, picture, heat) in enumerate(zip(facts, pictures, evidence, strict=True)):
        line, place = divmod(number, _ACROSS)
        bare, mapped = places[line][2 * place : 2 * place + 2]
        _picture(bare, picture)
        _picture(mapped, picture)
        mapped.imshow(heat, cmap="inferno", vmin=0, vmax=255, alpha=_STRONGEST * heat / 255.0)
        true = ", ".join(map(str, fact.get("true") or ())) or "none"
        text = f"{printable(fact.get('site'), 26)}: {printable(true, 34)}\nmap: {printable(fact.get('shown'), 26)}"
        bare.text(
            0.0, 1.03, f"{text}, probability {float(fact.get('probability') or 0.0):.2f}", transform=bare.transAxes,
            va="bottom", color=theme.ink, fontsize=canvas.SMALL, parse_math=False, linespacing=1.3,
        )  # fmt: skip
    canvas.title(figure, theme, "Where the model finds evidence, validation images")
    return figure


def _picture(axes: Axes, picture: NDArray[np.uint8]) -> None:
    grey: dict[str, Any] = {"cmap": "gray", "vmin": 0, "vmax": 255}
    axes.imshow(picture.transpose(1, 2, 0) if len(picture) == 3 else picture[0], **({} if len(picture) == 3 else grey))

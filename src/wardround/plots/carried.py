"""The figure of a comparison over channels: what is learned against what is sent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from wardround.plots import canvas
from wardround.plots.labels import METRICS
from wardround.plots.theme import Theme
from wardround.plots.units import byte_unit

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure

    from wardround.types import Json

_MARKERS = {"plain": "o", "8-bit": "v", "secagg": "s", "he": "D", "masked-he": "^"}


def figure_by_bytes(result: Mapping[str, Json], theme: Theme, names: Mapping[str, str]) -> Figure:
    """Mean test figure with its interval against a run's bytes from sites to server; a colour an algorithm, a marker a channel.

    Args:
        result: what `comparison.json` holds, of a comparison over channels.
        theme: colours.
        names: method -> what it is called.
    """
    settings, metric = result["settings"], result["metric"]
    count = max(len(of) for of in result["channels"].values())
    width = max(canvas.WIDTH, 3.4 * len(settings))
    rows = -(-count // 3)
    figure, panels = canvas.panels(theme, width, 2.6 + 0.16 * rows, len(settings), legend_rows=rows)
    algorithms = list(dict.fromkeys(one["algorithm"] for of in result["channels"].values() for one in of.values()))
    handles: dict[str, Artist] = {}
    for axes, setting in zip(panels, settings, strict=True):
        divisor, unit = byte_unit(max(row["bytes_up"] for row in result["table"][setting].values()))
        for method, facts in result["channels"][setting].items():
            row = result["table"][setting].get(method, {})
            found = row.get("test", {}).get(metric)
            if found is None or found["value"] is None:
                continue
            colour, place = theme.of_class(algorithms.index(facts["algorithm"])), row["bytes_up"] / divisor
            if found["low"] is not None:
                axes.plot([place, place], [found["low"], found["high"]], color=colour, linewidth=1.0, alpha=0.6)
            (point,) = axes.plot(
                [place], [found["value"]], linestyle="none", marker=_MARKERS.get(facts["channel"], "P"), markersize=5.5,
                color=colour, markeredgewidth=0,
            )  # fmt: skip
            handles.setdefault(names.get(method, method), point)
        axes.set_xscale("log")
        canvas.axis_titles(axes, theme, f"{unit} from sites to server, {setting}")
    canvas.title(figure, theme, f"Test {METRICS.get(metric, metric)} by what is sent")
    canvas.legend(figure, theme, handles, columns=3)
    return figure

"""What the federation gives each site over its own model: paired differences, from the greatest loss to the greatest gain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from wardround.plots import canvas
from wardround.plots.estimate import Estimate, estimate
from wardround.plots.labels import LOWER_IS_BETTER, count_of, printable, titles
from wardround.plots.sites import MANY_SITES, telling
from wardround.plots.theme import Theme
from wardround.types import Json

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@canvas.isolated
def gain_by_site(
    result: Mapping[str, Json], theme: Theme, baseline: str = "local", metric: str = "auroc"
) -> Figure | None:
    """Federated minus baseline at every site, sorted; a row a site up to 40, beyond them a point each.

    Accuracy, where fewer than half of the sites define `metric`. None where no site has a difference.
    """
    blocks = ((result.get("gain") or {}).get(baseline) or {}).get("sites") or {}
    known = {name: {site: found for site, block in blocks.items() if (found := estimate(block, name))}
             for name in (metric, "accuracy")}  # fmt: skip
    shown = metric if 2 * len(known[metric]) >= len(telling(result)) else "accuracy"
    gains = dict(sorted(known[shown].items(), key=lambda item: item[1].value))
    if not gains:
        return None
    few = len(gains) <= MANY_SITES
    figure, axes = canvas.new(theme, height=(0.95 + 0.2 * len(gains)) if few else canvas.HEIGHT)
    axes.axhline(0.0, color=theme.muted, linewidth=0.9) if not few else axes.axvline(
        0.0, color=theme.muted, linewidth=0.9
    )
    (_rows if few else _points)(axes, theme, gains, worse=1.0 if shown in LOWER_IS_BETTER else -1.0)
    title = titles(result)[shown]
    if few:
        canvas.axis_titles(axes, theme, f"federated minus own, {title}; line: 95 % interval")
    else:
        canvas.axis_titles(axes, theme, "sites, sorted", f"federated minus own, {title}")
    up, down = (sum(sign * gain.value > 0 for gain in gains.values()) for sign in (1, -1))
    canvas.title(figure, theme, "Gain over training alone")
    canvas.note(figure, theme, f"{title}: higher at {count_of(up, 'site')}, lower at {down}")
    return figure


def _rows(axes: Axes, theme: Theme, gains: Mapping[str, Estimate], *, worse: float) -> None:
    for row, gain in enumerate(gains.values()):
        color = theme.models["local" if gain.value * worse > 0 else "federated"]
        if gain.low is not None and gain.high is not None:
            axes.plot([gain.low, gain.high], [row, row], color=color, linewidth=1.4, solid_capstyle="butt")
        axes.plot([gain.value], [row], marker="o", markersize=4.6, color=color, markeredgewidth=0)
    canvas.row_names(axes, theme, [printable(site) for site in gains], range(len(gains)))
    axes.set_ylim(len(gains) - 0.4, -0.6)
    canvas.few_ticks(axes)


def _points(axes: Axes, theme: Theme, gains: Mapping[str, Estimate], *, worse: float) -> None:
    values = [gain.value for gain in gains.values()]
    colors = [theme.models["local" if value * worse > 0 else "federated"] for value in values]
    axes.scatter(range(len(values)), values, s=7, c=colors, linewidths=0, rasterized=len(values) > 500)
    canvas.few_ticks(axes, whole=True)

"""Federated against local, site by site: dots with intervals, or one point a site where there are many."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from wardround.plots import canvas
from wardround.plots.comparison import dot
from wardround.plots.estimate import Estimate, of_site
from wardround.plots.labels import MODELS, count_of, printable, titles
from wardround.plots.theme import Theme
from wardround.types import Json

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MANY_SITES = 40
"""More sites than this are summarised rather than listed."""


def site_names(result: Mapping[str, Json]) -> list[str]:
    """Sites of the partition, in its order, and after them any that only the figures know, or that told none."""
    figures = (result.get("federated") or {}).get("sites") or {}
    silent = ((result.get("by_site") or {}).get("withheld") or {}).get("federated") or {}
    return list(dict.fromkeys([*(result.get("partition") or {}), *figures, *silent]))


def telling(result: Mapping[str, Json]) -> list[str]:
    """Sites that do not withhold their figures."""
    figures = (result.get("federated") or {}).get("sites") or {}
    silent = ((result.get("by_site") or {}).get("withheld") or {}).get("federated") or {}
    return [site for site in site_names(result) if site in figures or site not in silent]


def site_count(result: Mapping[str, Json]) -> int:
    """The number of sites; where none is named, as many as a round asked at most."""
    rounds = (result.get("history") or {}).get("federated") or ()
    return len(site_names(result)) or max((int(entry.get("cohort") or 0) for entry in rounds), default=0)


@canvas.isolated
def by_site(result: Mapping[str, Json], theme: Theme, metric: str = "auroc") -> Figure | None:
    """The federated and the local model at every site; None where no site has a figure.

    Up to 40 sites: a row each, hollow dots (and a named row) where `metric` is undefined and accuracy stands in.
    Beyond: a point a site, local against federated; accuracy for all where `metric` is defined for fewer than half.
    """
    sites = [site for site in site_names(result) if _figure(result, "federated", site, metric) is not None]
    if not sites:
        return None
    if len(sites) > MANY_SITES:
        return _cloud(result, theme, sites, metric)
    figure, axes = canvas.new(theme, height=0.95 + 0.27 * len(sites))
    whole = {site for site in sites if of_site(result, "federated", site, metric)}
    shown = metric if whole else "accuracy"
    names = titles(result)
    handles = _rows(axes, result, theme, {site: shown if site in whole else "accuracy" for site in sites})
    reason = f"; hollow: accuracy, where {names[shown]} is undefined" if whole and len(whole) < len(sites) else ""
    canvas.axis_titles(axes, theme, f"dot: figure; line: 95 % interval{reason}")
    canvas.title(figure, theme, f"Test {names[shown]} by site")
    canvas.legend(figure, theme, {MODELS[model]: handle for model, handle in handles.items()})
    return figure


def _figure(result: Mapping[str, Json], model: str, site: str, metric: str) -> Estimate | None:
    return of_site(result, model, site, metric) or of_site(result, model, site, "accuracy")


def _rows(axes: Axes, result: Mapping[str, Json], theme: Theme, shown: Mapping[str, str]) -> dict[str, Artist]:
    mixed = len(set(shown.values())) > 1
    models = ["federated", "local"] if mixed or "accuracy" not in shown.values() else ["federated", "local", "majority"]
    handles: dict[str, Artist] = {}
    for row, (site, metric) in enumerate(shown.items()):
        hollow = mixed and metric == "accuracy"
        found = {model: of_site(result, model, site, metric) for model in models}
        defined = [(model, figure) for model, figure in found.items() if figure is not None]
        for place, (model, figure) in enumerate(defined):
            offset = (place - (len(defined) - 1) / 2) * 0.3
            marker = dot(axes, theme, model, figure, row + offset, hollow=hollow)
            if not hollow or model not in handles:
                handles[model] = marker
        if row:
            axes.axhline(row - 0.5, color=theme.grid, linewidth=0.5)
    names = [printable(site) + (" (accuracy)" if mixed and shown[site] == "accuracy" else "") for site in shown]
    canvas.row_names(axes, theme, names, range(len(shown)))
    axes.set_ylim(len(shown) - 0.4, -0.6)
    canvas.few_ticks(axes)
    return handles


def summary_metric(result: Mapping[str, Json], sites: list[str], metric: str) -> str:
    """`metric` where at least half of the sites have it, else `accuracy`."""
    defined = sum(of_site(result, "federated", site, metric) is not None for site in sites)
    return metric if 2 * defined >= len(sites) else "accuracy"


def _cloud(result: Mapping[str, Json], theme: Theme, sites: list[str], metric: str) -> Figure | None:
    shown = summary_metric(result, sites, metric)
    pairs = []
    alone = []
    for site in sites:
        federated, local = (of_site(result, model, site, shown) for model in ("federated", "local"))
        if federated and local:
            pairs.append((local.value, federated.value))
        elif federated:
            alone.append(federated.value)
    figure, axes = canvas.new(theme, height=3.8 if pairs else canvas.HEIGHT)
    canvas.title(figure, theme, f"Test {titles(result)[shown]} of {count_of(len(pairs) or len(alone), 'site')}")
    if pairs:
        _scatter(axes, theme, pairs)
        above, below = sum(y > x for x, y in pairs), sum(y < x for x, y in pairs)
        rest = len(pairs) - above - below
        canvas.note(figure, theme, f"Federated higher at {above}, each site alone at {below}, equal at {rest}")
    else:
        _distribution(axes, theme, alone, titles(result)[shown])
    return figure


def _scatter(axes: Axes, theme: Theme, pairs: list[tuple[float, float]]) -> None:
    low = min(min(pair) for pair in pairs)
    high = max(max(pair) for pair in pairs)
    margin = 0.04 * max(high - low, 1e-3)
    axes.plot([low, high], [low, high], color=theme.muted, linewidth=0.8, linestyle=(0, (2, 2)))
    axes.scatter(
        [x for x, _ in pairs],
        [y for _, y in pairs],
        s=10,
        color=theme.models["federated"],
        alpha=0.35,
        linewidths=0,
        rasterized=len(pairs) > 500,  # a page with thousands of vector circles is slow
    )
    axes.set(xlim=(low - margin, high + margin), ylim=(low - margin, high + margin), aspect="equal")
    canvas.axis_titles(axes, theme, MODELS["local"], MODELS["federated"])


def _distribution(axes: Axes, theme: Theme, values: list[float], title: str) -> None:
    from statistics import median

    axes.hist(values, bins=30, color=theme.models["federated"])
    axes.axvline(median(values), color=theme.ink, linewidth=1.0, linestyle=(0, (2, 2)))
    canvas.axis_titles(axes, theme, f"federated {title} (dashed: median)", "sites")

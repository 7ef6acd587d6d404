"""How much the sites differ, in words: the figures of `wardround.data.heterogeneity`."""

from __future__ import annotations

from collections.abc import Mapping

from wardround.plots.estimate import number
from wardround.plots.labels import count_of
from wardround.types import Json


def rows(result: Mapping[str, Json]) -> list[tuple[str, str, str]]:
    """What, figure, and how to read it; [] where the result has no such figures."""
    found = result.get("heterogeneity") or {}
    if not found:
        return []
    label, feature, gaps, quantity = (found.get(part) or {} for part in ("label", "feature", "gaps", "quantity"))
    sites = count_of(int(found.get("sites") or 0), "site")
    return [
        (
            "Label skew",
            _figure(label.get("skew")),
            "0: classes as in a random deal of the same sizes; 1: every site has a single class",
        ),
        (
            "Feature skew",
            _figure(feature.get("skew"), " SD"),
            "mean distance of a site's columns from all sites, beyond chance, in pooled standard deviations",
        ),
        ("Gaps", _figure(gaps.get("skew")), "mean difference of a column's fraction of gaps, beyond chance"),
        (
            "Effective sites",
            _figure(quantity.get("effective_sites"), digits=1),
            f"{sites} weigh as so many of one size; coefficient of variation {_figure(quantity.get('cv'))}",
        ),
    ]


def sentence(result: Mapping[str, Json]) -> str:
    """One line for a terminal; empty where the result has no such figures."""
    found = rows(result)
    if not found:
        return ""
    label, feature, gaps, effective = (figure for _, figure, _ in found)
    return (
        f"sites differ: label skew {label} (0 at random, 1 one class each), features {feature}, gaps {gaps}; "
        f"like {effective} of {int(result['heterogeneity'].get('sites') or 0)} equal ones"
    )


def _figure(value: Json, unit: str = "", *, digits: int = 2) -> str:
    known = number(value)
    if known is None:
        return "undefined"
    # + 0.0 takes the sign from a zero
    return f"{round(known, digits) + 0.0:.{digits}f}{unit}"

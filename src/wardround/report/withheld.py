"""Figures by site that the sites worked out themselves, and which of them they keep."""

from __future__ import annotations

from collections.abc import Mapping

from wardround.types import Json


def reason(result: Mapping[str, Json], site: str) -> str:
    """Why a site does not tell some figure of the federated model or of its own; "" where it tells all."""
    found = (result.get("by_site") or {}).get("withheld") or {}
    return next((str(sites[site]) for sites in found.values() if site in sites), "")


def sentences(result: Mapping[str, Json]) -> list[str]:
    """Where figures by site come from, and who keeps which; [] where one process computed them."""
    found = result.get("by_site") or {}
    if not found:
        return []
    said = [
        "Each site worked out the figures of its own rows and handed them over finished; scores of rows stayed there. Means over "
        "sites have no intervals, for these would need the rows of all."
    ]
    kept = {site for sites in (found.get("withheld") or {}).values() for site in sites}
    said += [f"{site} does not tell all of its counts and figures: {reason(result, site)}." for site in sorted(kept)]
    if kept:
        said.append(
            "Means, spreads and worst sites are of the sites that tell. Sums over all sites less what the others tell may give "
            "what a single site withholds."
        )
    return said

"""Who is in which group, and whose neighbour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from wardround.channels.secagg.primitives import digest


def groups_of(run: str, population: Sequence[str], groups: int) -> dict[str, int]:
    """Site -> group, fixed over a run: names are ordered by a hash, and cut into parts that differ by one at most."""
    order = _shuffled("groups", run.encode(), population)
    return {site: place * groups // len(order) for place, site in enumerate(order)}


def neighbours_of(sites: Sequence[str], degree: int, seed: bytes) -> Mapping[str, tuple[str, ...]]:
    """Site -> its neighbours, each in the order of `sites`: all others, or `degree` (even) on a ring shuffled by `seed`."""
    if degree >= len(sites) - 1:
        return {site: tuple(other for other in sites if other != site) for site in sites}
    ring = _shuffled("ring", seed, sites)
    place = {site: i for i, site in enumerate(sites)}
    reach = [step for step in range(-degree // 2, degree // 2 + 1) if step]
    return {
        site: tuple(sorted((ring[(i + step) % len(ring)] for step in reach), key=place.__getitem__))
        for i, site in enumerate(ring)
    }


def _shuffled(purpose: str, seed: bytes, sites: Sequence[str]) -> list[str]:
    return sorted(sites, key=lambda site: digest(purpose, seed, site.encode()))

"""From 100 to 100,000 sites: peak memory of the whole process, and time a site."""

from __future__ import annotations

import statistics
import sys

from benchmarks.fresh import call
from benchmarks.tables import figure, ratio, spread, table

POPULATIONS = (100, 1_000, 10_000, 100_000)
COHORT = 100
HEADER = (
    "sites", "asked a round", "records, MB", "peak memory, MB", "peak less records, MB", "/ same with 100 sites",
    "ms a round", "us a site asked", "/ same with 1,000 sites",
)  # fmt: skip


Once = dict[str, float]


def section(repeats: int, quick: bool) -> str:
    """The table. Peak memory is of the whole process, PyTorch and records included."""
    populations, cohort = ((10, 20), 5) if quick else (POPULATIONS, COHORT)
    asked = {(sites, sites): None for sites in populations} | {(populations[-1], cohort): cohort}
    found: dict[tuple[int, int], list[Once]] = {sizes: [] for sizes in asked}
    for number in range(repeats):
        for (sites, many), count in asked.items():
            print(f"  {many:,} of {sites:,} sites, {number + 1} of {repeats}", file=sys.stderr, flush=True)
            given = {"name": "W3", "rounds": 3, "sites": sites, "cohort": count}
            found[sites, many].append(call("benchmarks.product:measure", given=given, kind="built-in"))
    least, linear = (found[sites, sites] for sites in populations[:2])
    return table(HEADER, [_line(*sizes, mine, least, _each(linear, populations[1])) for sizes, mine in found.items()])


def _line(sites: int, asked: int, mine: list[Once], least: list[Once], linear: list[float]) -> list[str]:
    each = _each(mine, asked)
    return [
        f"{sites:,}", f"{asked:,}", figure(mine[0]["raw"] / 1e6),
        spread([one["peak"] for one in mine], scale=1e-6),
        figure(_beyond(mine) / 1e6), figure(_beyond(mine) / _beyond(least)),
        spread(each, scale=1e3 * asked), spread(each, scale=1e6), ratio(each, linear),
    ]  # fmt: skip


def _each(measured: list[Once], asked: int) -> list[float]:
    """Seconds a round and site."""
    return [one["round"] / asked for one in measured]


def _beyond(measured: list[Once]) -> float:
    """Peak memory less the records' own bytes."""
    return statistics.median(one["peak"] - one["raw"] for one in measured)

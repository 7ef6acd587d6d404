"""As many rows in all, but at sites of very unequal size: what a row then costs."""

from __future__ import annotations

from typing import Any

from benchmarks.agreement import TOLERANCE
from benchmarks.beside import KINDS, ONE_THREAD, beside_bare, seconds
from benchmarks.tables import ratio, spread, table
from benchmarks.workloads import QUICK, counts, workload

SPREADS = (0.0, 0.5, 1.0)
"""Standard deviations of the logarithm of a site's rows; with the last the largest of 50 has thirty times the smallest."""
TABULAR = ("W1", "W3")
HEADER = ("workload", "rows of a site", "who", "us a row", "/ same with equal sites", "/ bare, 1 thread")


def section(repeats: int, quick: bool) -> str:
    """The table. Raises WeightsDiffer where product and bare loop did not take the same steps."""
    lines = []
    for name in TABULAR:
        shapes: list[dict[str, Any]] = [
            {"name": name, **(QUICK if quick else {}), "spread": width} for width in SPREADS
        ]
        every = _in_turn(shapes, repeats)
        for given, found in zip(shapes, every, strict=True):
            rows = counts(workload(**given))
            for label, times in found.items():
                lines.append(
                    [
                        name, f"{rows.min()} to {rows.max()}", label, spread(times, scale=1e6 / rows.sum()),
                        ratio(times, every[0][label]), *(ratio(times, found[bare]) for bare in ONE_THREAD),
                    ]
                )  # fmt: skip
    return table(HEADER, lines)


def _in_turn(shapes: list[dict[str, Any]], repeats: int) -> list[dict[str, list[float]]]:
    """For each shape, label -> seconds a round, one of every shape before the next repeat."""
    found: list[dict[str, list[float]]] = [{label: [] for label in (*ONE_THREAD, *KINDS)} for _ in shapes]
    for _ in range(repeats):
        for given, mine in zip(shapes, found, strict=True):
            once = beside_bare(given, KINDS, 1, tolerance=TOLERANCE[given["name"]], bare=ONE_THREAD)
            for label, measured in once.items():
                mine[label] += seconds(measured)
    return found

"""Milliseconds a round of the product, over those of a bare PyTorch loop that takes the same steps."""

from __future__ import annotations

from typing import Any

from benchmarks.agreement import EXACT, TOLERANCE
from benchmarks.beside import ANY_MODULE, HEADER, KINDS, ONE_THREAD, beside_bare, rows
from benchmarks.tables import table
from benchmarks.workloads import QUICK

WORKERS = "product, plain module, 2 workers"
PRODUCTS: dict[str, dict[str, Any]] = {
    "W1": KINDS,
    "W2": {ANY_MODULE: KINDS[ANY_MODULE], WORKERS: {**KINDS[ANY_MODULE], "engine": {"workers": 2}}},
    "W3": KINDS,
}


def section(repeats: int, quick: bool) -> str:
    """The tables. Raises WeightsDiffer where product and bare loop did not take the same steps."""
    lines, exact = [], []
    for name, products in PRODUCTS.items():
        given = {"name": name, **(QUICK if quick else {})}
        lines += rows(name, beside_bare(given, products, repeats, tolerance=TOLERANCE[name]))
        exact.append(_in_float64(given, products))
    return f"{table(HEADER, lines)}\n\nIn float64 the largest difference is {', '.join(exact)}."


def _in_float64(given: dict[str, Any], products: dict[str, dict[str, Any]]) -> str:
    found = beside_bare(given, products, 1, tolerance=EXACT, dtype="float64", bare=ONE_THREAD)
    worst = max(one["difference"] for measured in found.values() for one in measured if "difference" in one)
    return f"{worst:.0e} ({given['name']})"

"""What the switches of the engine are worth: lower precision, compilation."""

from __future__ import annotations

from typing import Any

from benchmarks.beside import ANY_MODULE, BUILT_IN, HEADER, KINDS, beside_bare, rows
from benchmarks.tables import table
from benchmarks.workloads import QUICK

ENGINES: dict[str, dict[str, Any]] = {"bf16": {"precision": "bf16"}, "compiled": {"compile": True}}
SLOW = "compiled"
"""Measured once: it takes a minute to begin."""
NETWORKS = {"W1": BUILT_IN, "W2": ANY_MODULE}
TOLERANCE = 0.1
"""Eight bits of a weight's fraction: what differs more took other steps."""


def section(repeats: int, quick: bool) -> str:
    """The table; a switch that this version lacks is a line with the refusal."""
    lines = []
    for name, label in NETWORKS.items():
        products = {label: KINDS[label]}
        products |= {f"{label}, {what}": {**KINDS[label], "engine": engine} for what, engine in ENGINES.items()}
        given = {"name": name, **(QUICK if quick else {})}
        lines += rows(name, beside_bare(given, products, repeats, tolerance=TOLERANCE, once=f"{label}, {SLOW}"))
    return table(HEADER, lines)

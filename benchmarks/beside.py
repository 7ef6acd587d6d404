"""The product and a bare loop in turn, on the same steps from the same weights, each time in fresh processes."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import agreement
from benchmarks.fresh import call
from benchmarks.tables import ratio, spread

BARE = {"bare loop, 1 thread": 1, "bare loop, 2 threads": 2}
ONE_THREAD = {"bare loop, 1 thread": 1}
BUILT_IN, ANY_MODULE = "product, built-in network", "product, plain module"
KINDS: dict[str, dict[str, Any]] = {BUILT_IN: {"kind": "built-in"}, ANY_MODULE: {"kind": "any module"}}

Measured = dict[str, list[dict[str, Any]]]
"""Label -> what each repeat gave."""


def beside_bare(
    given: Mapping[str, Any], products: Mapping[str, Mapping[str, Any]], repeats: int, *,
    tolerance: float, dtype: str = "float32", bare: Mapping[str, int] = BARE, once: str = "",
) -> Measured:  # fmt: skip
    """Measure the bare loop and the product in each of some settings.

    Args:
        given: arguments of `workloads.workload`.
        products: label -> arguments of `product.measure`; settings that this version refuses are not tried again.
        repeats: how often.
        tolerance: largest difference of a last weight from the bare loop's.
        dtype: of all.
        bare: label -> threads of a bare loop.
        once: label of a product that is measured in the first repeat only.

    Returns:
        Each with `round`, seconds; the products with `difference` as well, or `refused` instead.

    Raises:
        WeightsDiffer: a product did not take the bare loop's steps.
    """
    found: Measured = {label: [] for label in (*bare, *products)}
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / "weights.npz")
        for number in range(repeats):
            for label, threads in bare.items():
                _tell(given, label, number, repeats)
                one = call("benchmarks.bare:measure", given=given, threads=threads, weights=file, dtype=dtype)
                found[label].append(one)
            expected = agreement.load(file)
            for label, settings in products.items():
                if refused(found[label]) or (number and label == once):
                    continue
                _tell(given, label, number, repeats)
                one = call("benchmarks.product:measure", given=given, weights=file, dtype=dtype, **settings)
                if "refused" not in one:
                    what = f"{given['name']}, {label}"
                    one["difference"] = agreement.check(agreement.load(file), expected, what, tolerance)
                found[label].append(one)
    return found


def refused(found: list[dict[str, Any]]) -> str:
    """Why there are no figures, or an empty string."""
    return next((str(one["refused"]) for one in found if "refused" in one), "")


def seconds(found: list[dict[str, Any]]) -> list[float]:
    return [one["round"] for one in found]


HEADER = ("workload", "who", "ms a round", "/ bare, 1 thread", "/ bare, 2 threads", "largest difference of a weight")


def rows(name: str, found: Measured) -> list[list[str]]:
    """Lines under `HEADER`."""
    lines = []
    for label, measured in found.items():
        if refused(measured):
            lines.append([name, label, f"not measured: {refused(measured)}", "", "", ""])
            continue
        times = seconds(measured)
        difference = max((one["difference"] for one in measured if "difference" in one), default=None)
        lines.append(
            [
                name, label, spread(times, scale=1e3),
                *(ratio(times, seconds(found[bare])) for bare in BARE),
                "" if difference is None else f"{difference:.0e}",
            ]
        )  # fmt: skip
    return lines


def _tell(given: Mapping[str, Any], label: str, number: int, repeats: int) -> None:
    print(f"  {given['name']}, {label}, {number + 1} of {repeats}", file=sys.stderr, flush=True)

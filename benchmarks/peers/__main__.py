"""Time Flower, pfl, a bare loop and the product on the same steps, and write the figures into `benchmarks/peers.md`.

    python -m benchmarks.peers [--only W1 W3] [--repeats 3] [--venvs .venvs] [--quick]

The sides of a workload take turns; each workload replaces its own figures on the page as soon as it has them.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks import agreement, command
from benchmarks.fresh import ROOT, call
from benchmarks.peers.environments import python_of
from benchmarks.peers.sides import ANY_MODULE, BARE, BUILT_IN, SIDES, WORKERS, Taken, take
from benchmarks.tables import figure, ratio, spread, table
from benchmarks.workloads import QUICK

PAGE = ROOT / "benchmarks" / "peers.md"
ABSENT: dict[str, set[str]] = {"W1": {WORKERS}, "W2": {BUILT_IN}, "W3": {WORKERS}}
"""Workload -> sides that it does without: no built-in network, or sites that are trained together."""
NEARLY = 1e-7
"""Largest difference of a weight where everybody computes in float64: pfl takes a model's step to float32 all the same."""
HEADER = (
    "who", "ms a round", "/ product, built-in", "/ product, plain module", "first round, s", "start-up, s", "total, s",
    "peak memory, MB", "shared pages divided, MB", "processes", "largest difference of a weight",
)  # fmt: skip


def section(name: str, repeats: int, venvs: Path, quick: bool) -> str:
    """One workload's table. Raises WeightsDiffer where somebody took other steps than the bare loop."""
    sides = {label: side for label, side in SIDES.items() if label not in ABSENT[name]}
    python = {"": sys.executable}
    python |= {e: python_of(e, venvs) for e in {side.environment for side in sides.values()} if e}
    given = {"name": name, **(QUICK if quick else {})}
    found: dict[str, list[Taken]] = {label: [] for label in sides}
    exact: dict[str, Taken] = {}
    with tempfile.TemporaryDirectory(prefix="peers") as folder:
        single, double = Path(folder) / "float32.npz", Path(folder) / "float64.npz"
        call("benchmarks.peers.draw_steps:write", given=given, path=str(single))
        call("benchmarks.peers.draw_steps:write", given={**given, "rounds": 2}, path=str(double), dtype="float64")

        def turn(label: str, steps: Path, what: str) -> Taken:
            print(f"  {name}, {label}, {what}", file=sys.stderr, flush=True)
            own = Path(tempfile.mkdtemp(dir=folder))
            return take(sides[label], python[sides[label].environment], steps, own)

        for label in sides:
            exact[label] = turn(label, double, "two rounds in float64")
        proved = max(agreement.check(one.weights, exact[BARE].weights, label, NEARLY) for label, one in exact.items())
        for number in range(repeats):
            for label in sides:
                found[label].append(turn(label, single, f"{number + 1} of {repeats}"))
    expected, limit = found[BARE][0].weights, agreement.TOLERANCE[name]
    lines = []
    for label, taken in found.items():
        worst = max(agreement.check(one.weights, expected, f"{name}, {label}", limit) for one in taken)
        lines.append(_line(label, taken, found, worst))
    return f"{table(HEADER, lines)}\n\nAfter two rounds in float64 the largest difference of all is {proved:.0e}."


def _line(label: str, taken: Sequence[Taken], found: dict[str, list[Taken]], worst: float) -> list[str]:
    def median(key: str, scale: float = 1.0) -> str:
        return figure(scale * statistics.median(getattr(one, key) for one in taken))

    times = _rounds(taken)
    return [
        label, spread(times, scale=1e3),
        *(ratio(times, _rounds(found[product])) if product in found else "" for product in (BUILT_IN, ANY_MODULE)),
        median("first"), median("start"), median("total"),
        median("peak", 1e-6), median("divided", 1e-6), median("processes"),
        "" if label == BARE else f"{worst:.0e}",
    ]  # fmt: skip


def _rounds(taken: Sequence[Taken]) -> list[float]:
    return [one.round for one in taken]


def main() -> None:
    parser = command.parser("benchmarks.peers", __doc__, list(ABSENT), repeats=3)
    parser.add_argument("--venvs", type=Path, default=ROOT / ".venvs", help="folder of the frameworks' environments")
    given = parser.parse_args()
    command.measure(given, lambda name, repeats: section(name, repeats, given.venvs, given.quick), PAGE)


if __name__ == "__main__":
    main()

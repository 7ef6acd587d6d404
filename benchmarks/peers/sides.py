"""Who takes part, each as its makers advise for one machine: evaluation off, as many processors as there are."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import agreement
from benchmarks.fresh import ROOT
from benchmarks.peers.watch import watched

LIMIT = 600.0
"""Seconds after which a side is given up."""
_QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


@dataclass(frozen=True, kw_only=True)
class Side:
    """A module of this package, the environment in which it runs (the product's own by default), and what it is told."""

    module: str
    environment: str = ""
    threads: int | None = None
    settings: dict[str, Any] = field(default_factory=dict)


BARE = "bare loop, 1 thread"
BUILT_IN, ANY_MODULE = "product, built-in network", "product, plain module"
WORKERS = "product, plain module, 2 workers"
SIDES = {
    BARE: Side(module="bare_side", threads=1),
    "bare loop, 2 threads": Side(module="bare_side", threads=2),
    "pfl 0.6, 1 thread": Side(module="pfl_side", environment="pfl", threads=1),
    "pfl 0.6, 2 threads": Side(module="pfl_side", environment="pfl", threads=2),
    "Flower 1.41 on Ray": Side(module="flower_side", environment="flower"),
    BUILT_IN: Side(module="wardround_side", settings={"kind": "built-in"}),
    ANY_MODULE: Side(module="wardround_side", settings={"kind": "any module"}),
    WORKERS: Side(module="wardround_side", settings={"kind": "any module", "engine": {"workers": 2}}),
}


@dataclass(frozen=True, kw_only=True)
class Taken:
    """What a side took, in seconds and bytes.

    Attributes:
        round: mean of the rounds after the first.
        first: the first round.
        start: from the launch of the process until the first round began.
        total: until the process ended.
        peak, divided, processes: as in `Watched`.
        weights: the last ones.
    """

    round: float
    first: float
    start: float
    total: float
    peak: int
    divided: int
    processes: int
    weights: agreement.Weights


def take(side: Side, python: str, steps: Path, folder: Path) -> Taken:
    """Run a side in an empty folder. Raises SideFailed where it does not come to its end."""
    command = [python, "-m", f"benchmarks.peers.{side.module}", str(steps), str(folder)]
    command += ["--settings", json.dumps(side.settings)]
    if side.threads:
        command += ["--threads", str(side.threads)]
    own = {"PYTHONPATH": str(ROOT), "FLWR_HOME": str(folder / "flower"), "RAY_TMPDIR": str(folder / "ray")}
    seen = watched(command, {**os.environ, **_QUIET, **own}, folder / "log", LIMIT)
    marks = json.loads((folder / "marks.json").read_text(encoding="utf-8"))
    return Taken(
        round=(marks[-1] - marks[1]) / (len(marks) - 2),
        first=marks[1] - marks[0],
        start=marks[0] - seen.began,
        total=seen.seconds,
        peak=seen.peak,
        divided=seen.divided,
        processes=seen.processes,
        weights=agreement.load(folder / "weights.npz"),
    )

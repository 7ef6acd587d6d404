"""What a side leaves behind: when its rounds ended, and its last weights."""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import agreement


@dataclass(kw_only=True)
class Marks:
    """Wall-clock times: when the first round began, and when each ended."""

    times: list[float] = field(default_factory=list)

    def now(self) -> None:
        self.times.append(time.time())


def save(folder: Path, marks: Marks, weights: agreement.Weights) -> None:
    """Write both."""
    agreement.save(folder / "weights.npz", weights)
    (folder / "marks.json").write_text(json.dumps(marks.times), encoding="utf-8")


def arguments() -> argparse.Namespace:
    """What every side is given: `steps`, `folder` for its outcome, `threads`, and `settings` of its own."""
    parser = argparse.ArgumentParser()
    parser.add_argument("steps", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--settings", type=json.loads, default={})
    return parser.parse_args()

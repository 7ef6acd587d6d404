"""A measurement in a process of its own, so that no earlier one has warmed or cluttered it.

python -m benchmarks.fresh benchmarks.bare:measure '{"given": {"name": "W1"}, "threads": 1}'
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


class MeasurementFailed(RuntimeError):
    """A process ended without a result; the message has the end of what it said."""


def call(function: str, **given: Any) -> Any:
    """What `module:function` gives for the keyword arguments, both as JSON, from a new process."""
    return json.loads(output([sys.executable, "-m", "benchmarks.fresh", function, json.dumps(given)]).splitlines()[-1])


def output(command: list[str], environment: Mapping[str, str] | None = None) -> str:
    """Standard output of a command, which finds this package's modules."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": path, **(environment or {})},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise MeasurementFailed(f"{' '.join(command[:4])}: exit code {done.returncode}\n{done.stderr[-2000:]}")
    return done.stdout


def peak_memory() -> int:
    """Bytes: the largest resident size that this process has had."""
    status = Path("/proc/self/status")
    if status.exists():
        # getrusage would count what the process held before it became this program
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def main() -> None:
    module, _, function = sys.argv[1].partition(":")
    print(json.dumps(getattr(importlib.import_module(module), function)(**json.loads(sys.argv[2]))))


if __name__ == "__main__":
    main()

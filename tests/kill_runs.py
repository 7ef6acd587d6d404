"""Kill a run at random moments, go on with it, and compare it with one that nobody disturbed.

`python kill_runs.py FOLDER KILLS` prints a JSON list, one object a kill. Importing torch takes seconds, so every run is a
fork of this one warmed process, which itself trains nothing.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sklearn.datasets  # noqa: F401 - warms what every fork needs
import torch
from safetensors import safe_open

from wardround.config import Job
from wardround.experiment import run
from wardround.report import figures

JOB = Job.model_validate(
    {
        "name": "killed",
        "seed": 3,
        "partition": {"kind": "dirichlet", "sites": 5},
        "model": {"local": ["linear.bias"]},
        "algorithm": {"name": "scaffold"},
        "training": {"rounds": 15, "local_steps": 4},
        "participation": {"fraction": 0.6},
        "evaluation": {"bootstrap": 10},
        "engine": {"threads": 1, "commit_seconds": 0},
    }
)
DEADLINE = 120.0


def fork(work: Callable[[], object]) -> int:
    """Start `work` in a process of its own."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        work()
        code = 0
    except BaseException:  # noqa: BLE001 - a fork must end here, whatever happens
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def wait(child: int, seconds: float) -> int | None:
    """The exit status of a process, or None if it is still there after some time."""
    end = time.monotonic() + seconds
    while True:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return status
        if time.monotonic() >= end:
            return None
        time.sleep(0.002)


def finish(folder: Path, *, page: bool) -> float:
    """Run to the end, from wherever the folder is. Returns the seconds it took."""
    began = time.monotonic()
    child = fork(lambda: run(JOB, folder, resume=(folder / "run.json").exists(), report=page))
    status = wait(child, DEADLINE)
    if status is None:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    if status != 0:
        raise SystemExit(f"{folder}: a run ended with status {status}")
    return time.monotonic() - began


def stage(folder: Path) -> str:
    """How far a run had come."""
    if (folder / "result.json").exists():
        return "report"
    if (folder / "baselines").exists():
        return "baselines"
    journal = folder / "journal.jsonl"
    commits = journal.read_bytes().count(b"\n") if journal.exists() else 0
    return "setup" if commits <= 1 else "rounds"


def tensors(folder: Path) -> dict[str, list[Any]]:
    """Every tensor that a run hands out, with its bits."""
    found = {}
    for path in [
        folder / "model.safetensors",
        *sorted(folder.glob("overlay*/*")),
        folder / "overlay-average.safetensors",
    ]:
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 - not a dict
                value = file.get_tensor(name)
                bits = value.contiguous().view(torch.uint8).flatten().tolist()
                found[f"{path.relative_to(folder)}/{name}"] = [str(value.dtype), list(value.shape), bits]
    return found


def outcome(folder: Path) -> Any:
    """The result without the seconds that it took."""

    def timeless(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: timeless(item) for key, item in value.items() if key != "seconds"}
        return [timeless(item) for item in value] if isinstance(value, list) else value

    return timeless(json.loads((folder / "result.json").read_text()))


def main(folder: Path, kills: int) -> None:
    """Kill, resume, compare."""
    # drawing is most of a short run: one figure stands for all
    for name in {*figures.DRAWN} - {"loss"}:
        del figures.DRAWN[name]  # type: ignore[attr-defined]
    finish(folder / "warm", page=True)
    duration = finish(folder / "whole", page=True)
    expected, wanted = outcome(folder / "whole"), tensors(folder / "whole")
    draw = random.Random(20)
    told: list[dict[str, Any]] = []
    for number in range(3 * kills):
        path = folder / f"killed-{number}"
        # the moments are spread over the whole run, one in each of as many parts
        delay = (len(told) + draw.random()) / kills * duration
        child = fork(lambda path=path: run(JOB, path))  # type: ignore[misc]
        if wait(child, delay) is not None:
            duration = min(duration, delay)
            continue
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        reached = stage(path)
        finish(path, page=number % 5 == 0)
        told.append(
            {
                "delay": round(delay, 3),
                "stage": reached,
                "same result": outcome(path) == expected,
                "same tensors": tensors(path) == wanted,
                "left over": sorted(p.name for p in path.rglob("*.tmp")),
            }
        )
        if len(told) == kills:
            break
    print(json.dumps(told))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))

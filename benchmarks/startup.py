"""What a command costs from start to end, beside `import torch`, of which every run needs one."""

from __future__ import annotations

import statistics
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

from benchmarks.fresh import call, output
from benchmarks.tables import figure, ratio, spread, table

JOB = Path(__file__).with_name("startup.yaml")
TORCH, HELP, RUN = "`python -c 'import torch'`", "`wardround --help`", "`wardround run` of W1"
HEADER = ("whole process", "seconds", "/ import torch")
QUIET = ("--no-report", "--quiet")


def section(repeats: int, quick: bool) -> str:
    """Both tables."""
    wardround = str(Path(sysconfig.get_path("scripts")) / "wardround")
    rounds = ("--set", "training.rounds=3") if quick else ()
    found: dict[str, list[float]] = {TORCH: [], HELP: [], RUN: []}
    parts: dict[str, list[float]] = {}
    for number in range(repeats):
        print(f"  start-up, {number + 1} of {repeats}", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory() as folder:
            found[TORCH].append(_seconds([sys.executable, "-c", "import torch"]))
            found[HELP].append(_seconds([wardround, "--help"]))
            found[RUN].append(_seconds([wardround, "run", str(JOB), "--out", f"{folder}/command", *QUIET, *rounds]))
            for part, seconds in call("benchmarks.startup:parts", folder=f"{folder}/parts").items():
                parts.setdefault(part, []).append(seconds)
    torch, whole = statistics.median(found[TORCH]), statistics.median(found[RUN])
    rest = whole - sum(statistics.median(seconds) for seconds in parts.values())
    parts["start of Python, command line, end of the process"] = [rest]
    return "\n\n".join(
        [
            table(HEADER, [[who, spread(seconds), ratio(seconds, found[TORCH])] for who, seconds in found.items()]),
            f"The run takes {figure(whole - 1.35 * torch)} s more than 1.35 x `import torch`. Of it are:",
            table(("part of the run", "seconds"), [[part, spread(seconds)] for part, seconds in parts.items()]),
        ]
    )


def parts(folder: str) -> dict[str, float]:
    """Seconds of what the command does, one after the other, in this process."""
    marks = [("", time.perf_counter())]

    def mark(part: str) -> None:
        marks.append((part, time.perf_counter()))

    import torch  # noqa: F401

    mark("import torch")
    from wardround.config import load

    job = load(JOB)
    mark("read the job")
    from wardround.experiment import run

    mark("import the rest")
    told: list[tuple[str, float]] = []
    run(job, folder, report=False, listener=lambda event: told.append((event["event"], time.perf_counter())))
    rounds = [when for event, when in told if event == "round"]
    once = dict(told)
    marks += [
        ("records, folder, set-up", once["setup"]),
        ("first round", rounds[0]),
        ("the other rounds", rounds[-1]),
        ("keep the last model", once["selected"]),
    ]
    mark("score, write model and result")
    return {part: now - before for (part, now), (_, before) in zip(marks[1:], marks, strict=False)}


def _seconds(command: list[str]) -> float:
    began = time.perf_counter()
    output(command)
    return time.perf_counter() - began

"""Run a command, and see how much memory it and all its descendants take."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.fresh import MeasurementFailed

INTERVAL = 0.2
"""Seconds between two looks."""
SELDOM = 5
"""Looks between two that divide shared pages, which takes a millisecond a process."""


class SideFailed(MeasurementFailed):
    """A side ended without a result; the message has the end of what it said."""


@dataclass(frozen=True, kw_only=True)
class Watched:
    """What was seen.

    Attributes:
        began: wall-clock time at which the command was launched.
        seconds: until it ended.
        peak: largest sum of resident bytes over the processes; pages that several share count for each.
        divided: the same with shared pages divided between those who share them; 0 where the system does not tell.
        processes: most of them at a time.
    """

    began: float
    seconds: float
    peak: int
    divided: int
    processes: int


def watched(command: Sequence[str], environment: Mapping[str, str], log: Path, limit: float) -> Watched:
    """Run a command to its end, and end what it left running.

    Raises:
        SideFailed: it failed, or took longer than `limit` seconds.
    """
    peak = divided = most = looks = 0
    seen: set[psutil.Process] = set()
    began = time.time()
    with log.open("wb") as file:
        process = subprocess.Popen(command, env=environment, stdout=file, stderr=subprocess.STDOUT)
        try:
            while process.poll() is None and time.time() - began < limit:
                family = _family(process.pid)
                seen.update(family)
                peak, most = max(peak, sum(map(_resident, family))), max(most, len(family))
                if looks % SELDOM == 0:
                    divided = max(divided, sum(map(_share, family)))
                looks += 1
                with suppress(subprocess.TimeoutExpired):
                    process.wait(INTERVAL)
            seconds, code = time.time() - began, process.poll()
        finally:
            process.kill()
            process.wait()
            _end(seen)
    if code != 0:
        said = log.read_text(encoding="utf-8", errors="replace")[-2000:]
        how = f"not at its end after {limit:g} s" if code is None else f"exit code {code}"
        raise SideFailed(f"{' '.join(command[1:4])}: {how}\n{said}")
    return Watched(began=began, seconds=seconds, peak=peak, divided=divided, processes=most)


def _family(number: int) -> list[psutil.Process]:
    try:
        process = psutil.Process(number)
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return []


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0


def _share(process: psutil.Process) -> int:
    try:
        return int(getattr(process.memory_full_info(), "pss", 0))
    except psutil.Error:
        return 0


def _end(processes: set[psutil.Process]) -> None:
    for one in processes:
        with suppress(psutil.Error):
            one.terminate()
    _, alive = psutil.wait_procs(processes, timeout=5)
    for one in alive:
        with suppress(psutil.Error):
            one.kill()

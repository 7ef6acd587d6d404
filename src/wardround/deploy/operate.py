"""What an operator does to processes: begin one in the background, look at it, stop it, and hand in a job."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wardround.config.job import Job
from wardround.config.load import load
from wardround.deploy.coordinator import INBOX, OUTCOME, RUNS, STATE
from wardround.deploy.jobs import SignedJob, sign_job
from wardround.deploy.kit import CoordinatorFolder, PartyFolder, open_folder
from wardround.errors import ConfigError, DataError, MessageError, Refused, RunError
from wardround.store import atomic

_STARTING = 60.0


def detach(arguments: Sequence[str], folder: Path) -> int:
    """Begin `wardround ARGUMENTS` as a process of its own; its output goes to DIR/state/process.log. Returns its number.

    Raises:
        RunError: it ended at once; the error is the log's last line.
    """
    state = folder / STATE
    atomic.make_folder(state)
    path = state / "process.log"
    with path.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "wardround", *arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip
    end = time.monotonic() + _STARTING
    while time.monotonic() < end:
        if process.poll() is not None:
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines() or ["(nothing)"]
            raise RunError(f"{folder}: the process ended at once: {lines[-1]}")
        if running(folder) == process.pid:
            return process.pid
        time.sleep(0.1)
    raise RunError(f"{folder}: the process did not come up in {_STARTING:g} s: see {path}")


def running(folder: Path) -> int | None:
    """The number of the process that serves a folder, where one does."""
    path = folder / STATE / "pid"
    try:
        pid = int(path.read_text(encoding="ascii"))
        os.kill(pid, 0)
    except (OSError, ValueError):
        return None
    try:  # a number that went to somebody else since
        return pid if b"wardround" in Path(f"/proc/{pid}/cmdline").read_bytes() else None
    except OSError:
        return pid


def stop(folder: Path, *, seconds: float = 60.0) -> bool:
    """End the process of a folder, and wait until it is gone; False where none ran.

    Raises:
        RunError: it did not end in `seconds`.
    """
    pid = running(folder)
    if pid is None:
        return False
    os.kill(pid, signal.SIGTERM)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if running(folder) != pid:
            return True
        time.sleep(0.1)
    raise RunError(f"process {pid} of {folder} did not end in {seconds:g} s: it finishes a task; try again, or kill it")


def status(folder: Path) -> dict[str, Any]:
    """What status.json says, and whether the process is there."""
    open_folder(folder)
    path = folder / STATE / "status.json"
    found: dict[str, Any] = {}
    if path.exists():
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise DataError(f"{path} is damaged: {error}; it is written anew by the process") from error
    found["running"] = running(folder) is not None
    runs = folder / RUNS
    found["runs"] = {
        path.name.removesuffix(f".{OUTCOME}"): json.loads(path.read_text(encoding="utf-8"))["status"]
        for path in sorted(runs.glob(f"*.{OUTCOME}"))
    }
    return found


def logs(folder: Path, lines: int) -> list[str]:
    """The last lines of the processes' logs of a folder, each with its file's name."""
    found = []
    for path in sorted((folder / STATE).glob("*.log")):
        text = path.read_text(encoding="utf-8", errors="replace").splitlines()
        found += [f"{path.stem}: {line}" for line in text[-lines:]]
    return found


def submit(
    job: Path, folder: Path, *, signer: Path | None = None, sites: Sequence[str] = (), overrides: Sequence[str] = ()
) -> tuple[SignedJob, Path]:
    """Sign a job and put it into the coordinator's inbox, or beside the submitter's keys to be handed over.

    Args:
        job: a YAML file, or a signed job (JSON) that a submitter handed over.
        folder: the coordinator's folder, or a submitter's.
        signer: folder of the submitter whose key signs; None: whose `folder` is.
        sites: names of the sites that the job needs; () for all that are enrolled.
        overrides: KEY=VALUE, as for `run`.

    Raises:
        ConfigError, Refused, IdentityError: what cannot run is not signed.
    """
    own = open_folder(folder)
    if job.suffix == ".json":
        try:
            signed = SignedJob.from_bytes(job.read_bytes())
        except OSError as error:
            raise ConfigError(f"{job} cannot be read: {error}") from error
        except MessageError as error:
            raise ConfigError(f"{job} is no signed job: {error}") from error
        signed.verify(own.pins())
    else:
        by = open_folder(signer) if signer is not None else own
        if isinstance(by, PartyFolder) and by.role != "submitter":
            raise Refused(f"{by.path} belongs to site {by.name}, and sites sign no jobs: give a submitter's folder")
        wanted = between(load(job, list(overrides)))
        roster = own.roster()
        known = {entry.name: entry.fingerprint for entry in roster.entries if entry.role == "site"}
        unknown = [name for name in sites if name not in known]
        if unknown:
            raise ConfigError(f"site {unknown[0]!r} is not enrolled: known are {', '.join(sorted(known)) or 'none'}")
        chosen = {name: known[name] for name in (sites or sorted(known))}
        plugins = by.path / "plugins"
        signed = sign_job(by.identity(), wanted, chosen, plugins=plugins if plugins.is_dir() else None)
    place = folder / INBOX if isinstance(own, CoordinatorFolder) else folder / "jobs"
    atomic.make_folder(place)
    path = place / f"{signed.id}.json"
    atomic.write_bytes(path, signed.to_bytes())
    return signed, path


def between(job: Job) -> Job:
    """The job as it runs between hospitals: the engine flower, and nothing that needs all records in one place."""
    from wardround.experiment import check_between
    from wardround.federation.baselines import changed

    found = changed(
        job,
        {
            "engine.kind": "flower", "engine.options": {}, "evaluation.baselines": (), "evaluation.release_scores": False,
            "evaluation.target": None,
        },
    )  # fmt: skip
    check_between(found)
    return found

"""What an operator does to processes: begin one in the background, look at it, stop it, and hand in a job."""

from __future__ import annotations

import contextlib
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
from wardround.deploy import keeper
from wardround.deploy.coordinator import INBOX, OUTCOME, RUNS, STATE
from wardround.deploy.jobs import SignedJob, check_plugins, named_files, sign_job
from wardround.deploy.kit import CoordinatorFolder, PartyFolder, open_folder
from wardround.errors import ConfigError, DataError, MessageError, Refused, RunError
from wardround.store import atomic

_STARTING = 60.0
_TAIL = 2**20
"""Most bytes from the end of a log that are shown."""


def detach(arguments: Sequence[str], folder: Path) -> int:
    """Begin `wardround ARGUMENTS` as a process of its own, with a keeper that begins it again when it dies.

    Its output goes to DIR/state/process.log. Returns its number.

    Raises:
        RunError: one serves the folder already, or it ended at once; the error is the log's last line.
    """
    state = folder / STATE
    atomic.make_folder(state)
    if running(folder) is not None or _kept(folder) is not None:
        raise RunError(f"{folder} is served by a process already: stop it first")
    path = state / keeper.LOG
    with path.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", keeper.__name__, str(state), *arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip
    end = time.monotonic() + _STARTING
    while time.monotonic() < end:
        pid = running(folder)
        if process.poll() is not None:
            raise RunError(f"{folder}: the process ended at once: {keeper.last_line(path)}")
        if pid is not None:
            process.returncode = 0  # it outlives this process, of which Python would warn
            return pid
        time.sleep(0.1)
    process.terminate()
    raise RunError(f"{folder}: the process did not come up in {_STARTING:g} s: see {path}")


def running(folder: Path) -> int | None:
    """The number of the process that serves a folder, where one does."""
    try:
        pid = int((folder / STATE / "pid").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    return pid if keeper.is_ours(pid) else None


def _kept(folder: Path) -> int | None:
    """The number of a folder's keeper, where one is there."""
    told = keeper.told(folder / STATE)
    return int(told["pid"]) if told is not None and told["alive"] else None


def stop(folder: Path, *, seconds: float = 60.0) -> bool:
    """End the process of a folder, and its keeper, and wait until they are gone; False where neither was there.

    Raises:
        RunError: it did not end in `seconds`.
    """
    pid, kept = running(folder), _kept(folder)
    target = pid if kept is None else kept  # a keeper ends what it keeps, and begins nothing any more
    if target is None:
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(target, signal.SIGTERM)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if (pid is None or running(folder) != pid) and (kept is None or _kept(folder) != kept):
            return True
        time.sleep(0.1)
    raise RunError(
        f"process {target} of {folder} did not end in {seconds:g} s: it finishes a task; try again, or kill it"
    )


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
    if not found["running"]:  # what it knew of connections ended with it
        found |= {"connected": False} | (
            {"sites": dict.fromkeys(found["sites"], "unknown")} if "sites" in found else {}
        )
    found["keeper"] = keeper.told(folder / STATE)
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
        with path.open("rb") as file:
            file.seek(max(file.seek(0, os.SEEK_END) - _TAIL, 0))
            text = file.read().decode(errors="replace").splitlines()
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
        for name, value in named_files(wanted):
            more = ": give its content" if name == "schema" else ", for each site's site.yaml says where its own are"
            raise ConfigError(f"data.options.{name} = {value!r:.100}: a job between hospitals names no file{more}")
        roster = own.roster()
        known = {entry.name: entry.fingerprint for entry in roster.entries if entry.role == "site"}
        unknown = [name for name in sites if name not in known]
        if unknown:
            raise ConfigError(f"site {unknown[0]!r} is not enrolled: known are {', '.join(sorted(known)) or 'none'}")
        chosen = {name: known[name] for name in (sites or sorted(known))}
        plugins = by.path / "plugins"
        signed = sign_job(by.identity(), wanted, chosen, plugins=plugins if plugins.is_dir() else None)
    if isinstance(own, CoordinatorFolder):
        check_plugins(signed, own.plugins, own.approved_plugins())
    place = folder / INBOX if isinstance(own, CoordinatorFolder) else folder / "jobs"
    atomic.make_folder(place)
    path = place / f"{signed.id}.json"
    atomic.write_bytes(path, signed.to_bytes())
    return signed, path


def between(job: Job) -> Job:
    """The job as it runs between hospitals: the engine flower, and nothing that needs all records in one place.

    Sites train alone as well where the job itself names the baseline `local`; the default, which a simulation takes, does not.
    """
    from wardround.experiment import check_between
    from wardround.federation.baselines import changed
    from wardround.federation.messages import ALONE

    named = "baselines" in job.evaluation.model_fields_set and ALONE in job.evaluation.baselines
    found = changed(
        job,
        {
            "engine.kind": "flower", "engine.options": {}, "evaluation.release_scores": False, "evaluation.target": None,
            "evaluation.baselines": (ALONE,) if named else (),
        },
    )  # fmt: skip
    check_between(found)
    return found

"""One run of a comparison: trained in a worker process, kept under a key of its content."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wardround import __version__
from wardround.comparison.plan import Trial
from wardround.config.job import DataSpec, Job
from wardround.data import registry as datasets
from wardround.errors import ConfigError, QuorumLost, RunError
from wardround.experiment import facts_of, foreign_files, records_of, train_arm
from wardround.federation.baselines import alone, centralized
from wardround.federation.records import Records
from wardround.judgement import ALONE, CENTRALIZED, Arm
from wardround.store import atomic
from wardround.store.run import Run
from wardround.training.figures import figures
from wardround.types import Description, Json

Record = dict[str, Any]
"""What a trial found, as JSON."""

_APART = ("cli", "comparison", "plots", "report")
"""Packages that no figure of a trial depends on."""


@lru_cache(maxsize=1)
def code_digest() -> str:
    """SHA-256 of the package's source, as far as figures depend on it, and of the versions of its numerics."""
    root = Path(str(resources.files("wardround")))
    digest = hashlib.sha256(f"{__version__} {torch.__version__} {np.__version__}".encode())
    for path in sorted(root.rglob("*.py")):
        where = path.relative_to(root)
        if where.parts[0] not in _APART:
            digest.update(f"{where.as_posix()}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def key(trial: Trial) -> str:
    """SHA-256 over all that a trial's figures follow from, but for the records: their fingerprint stands in its file."""
    tree = trial.job.model_dump(mode="json") | {"name": ""}
    content = {"job": tree, "arm": trial.arm, "code": code_digest(), **foreign_files(trial.job)}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


def cached(folder: Path, trial: Trial, data: str) -> Record | None:
    """The record of a trial that was run before on the same records, or None."""
    path = folder / f"{key(trial)}.json"
    try:
        record: Record = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return record if isinstance(record, dict) and record.get("data") == data else None


def fingerprint(job: Job) -> str:
    """SHA-256 of the dataset's records as they are read, before they are dealt."""
    return _raw_digest(job.data.model_dump_json())


@lru_cache(maxsize=2)
def _raw_digest(data: str) -> str:
    dataset = datasets.build(DataSpec.model_validate_json(data))
    digest = hashlib.sha256()
    for site in dataset.describe().sites:
        rows = dataset.load(site)
        split = np.zeros(0) if rows.split is None else rows.split
        for array in (rows.features, rows.labels, np.asarray(rows.patients).astype(np.str_), split):
            digest.update(f"{site} {array.shape} {array.dtype}".encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def execute(trial: Trial, folder: Path, work: Path) -> Record:
    """Train and judge one trial, and write its record.

    Args:
        trial: what to train.
        folder: where records of trials lie.
        work: where its run folder lies while it goes on; one that was cut short is taken up.

    Returns:
        The record; `failed` has the cause where training broke down (diverged, say), `refused` why the method cannot be
        had with this job (FedBN without BatchNorm, say).

    Raises:
        DataError: records that cannot be read or dealt.
    """
    torch.set_num_threads(trial.job.engine.threads or 1)
    description, records = _records(*_data_key(trial.job))
    name = key(trial)
    record: Record = {
        "method": trial.method,
        "setting": trial.setting,
        "seed": trial.seed,
        "number": trial.number,
        "configuration": trial.configuration,
        "data": fingerprint(trial.job),
        "sites": len(records.sites),
        "rows": _rows(records),
    }
    job, rows, origin = trial.job, records.unprepared(), None
    if trial.arm == ALONE:
        job = alone(job)
    elif trial.arm == CENTRALIZED:
        job, rows, origin = centralized(job, len(records.sites)), records.merged(), records
    with _folder(work / name, job, facts_of(trial.job, records)) as run:
        try:
            arm = train_arm(trial.arm, job, run, description, rows, lambda event: None, origin=origin)
            record |= _figures(trial, arm)
        except QuorumLost as error:
            record["failed"] = str(error)
        except ConfigError as error:
            record["refused"] = str(error)
    if "refused" not in record:
        atomic.write_json(folder / f"{name}.json", record)
    atomic.remove_tree(run.path)
    return record


def _folder(path: Path, job: Job, facts: Mapping[str, Json]) -> Run:
    """The trial's run folder: that of one that was cut short, else a new one."""
    try:
        return Run.open(path)
    except RunError:
        pass  # there is none, it was cut short before it began, or the worker of a killed comparison still writes it
    try:
        Run.discard(path)
    except RunError:
        path = Path(tempfile.mkdtemp(prefix=f"{path.name}-", dir=path.parent))
    return Run.create(path, job, facts)


def _figures(trial: Trial, arm: Arm) -> Record:
    found = figures(arm.scores.test, arm.threshold, 0, seed=trial.seed)
    curve = [
        {"completed": entry["completed"], "bytes": entry["bytes_up"] + entry["bytes_down"], **entry["validation"]}
        for entry in arm.history
        if entry["validation"]
    ]
    kept = next((point for point in curve if point["completed"] == arm.outcome.selected), {})
    return {
        "validation": kept,
        "selected": arm.outcome.selected,
        "threshold": arm.threshold,
        "test": {"pooled": found["pooled"], "site_mean": found["site_mean"], "sites": found["sites"]},
        "curve": curve,
        "bytes_up": arm.outcome.bytes_up,
        "bytes_down": arm.outcome.bytes_down,
        "seconds": arm.outcome.seconds,
        "personalized": arm.personalized,
    }


def _rows(records: Records) -> dict[str, int]:
    return {split: int(records.count(records.sites, split).sum()) for split in ("train", "validation", "test")}


def _data_key(job: Job) -> tuple[str, str, str, int]:
    spec = job.evaluation
    judged = json.dumps({"aggregate": spec.aggregate, "held_out": spec.held_out})
    return job.data.model_dump_json(), job.partition.model_dump_json(), judged, job.seed


@lru_cache(maxsize=2)
def _records(data: str, partition: str, judged: str, seed: int) -> tuple[Description, Records]:
    tree = {"data": json.loads(data), "partition": json.loads(partition), "evaluation": json.loads(judged)}
    job = Job.model_validate({**tree, "seed": seed})
    description, sites = records_of(job)
    return description, Records(description, sites, grouped=job.evaluation.aggregate != "none")

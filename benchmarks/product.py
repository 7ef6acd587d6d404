"""Training as a user's run does it: engine, channel, metering, journal and checkpoints in a run folder; no evaluation."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from benchmarks import agreement
from benchmarks.fresh import peak_memory
from benchmarks.workloads import Drawn, Rows, Workload, description, workload
from wardround import Job
from wardround.channels.plain import Plain
from wardround.errors import WardroundError
from wardround.federation.engines.local import LocalEngine
from wardround.federation.records import Records
from wardround.federation.rounds import Federation, Listener
from wardround.federation.site import Host
from wardround.store.run import Run
from wardround.store.states import StateTable
from wardround.types import Arrays

BUILT_IN, ANY_MODULE = "built-in", "any module"


@dataclass(frozen=True, kw_only=True)
class Trained:
    """Times and weights of a run.

    Attributes:
        marks: `perf_counter` when the first round began, at the end of each, and for the last when it was on the disk.
        weights: of the last model.
    """

    marks: list[float]
    weights: Arrays

    @property
    def seconds_a_round(self) -> float:
        """Mean of the rounds after the first, so that what is put off to a later round is counted."""
        return (self.marks[-1] - self.marks[1]) / (len(self.marks) - 2)


def model_of(workload: Workload, kind: str) -> dict[str, Any]:
    """The job's `model`: the built-in network, or the same as a plain module."""
    if kind == BUILT_IN:
        return {"name": "mlp", "options": {"hidden": [64], "outputs": workload.classes}}
    return {"name": f"benchmarks.networks:{workload.network}", "options": {"outputs": workload.classes}}


def job_for(workload: Workload, kind: str, *, engine: Mapping[str, Any] | None = None, dtype: str = "float32") -> Job:
    """The job of a workload. Raises pydantic's ValidationError for an engine that this version does not know."""
    return Job.model_validate(
        {
            "name": workload.name,
            "model": model_of(workload, kind),
            "training": {
                "rounds": workload.rounds,
                "local_epochs": 1,
                "batch_size": workload.batch,
                "optimizer": {"learning_rate": workload.learning_rate},
                "dtype": dtype,
            },
            "participation": {"count": workload.cohort},
            "evaluation": {"every": 10**6, "select": "last"},
            "engine": dict(engine or {}),
        }
    )


def train(workload: Workload, job: Job, drawn: Drawn | None = None, tell: Listener = lambda event: None) -> Trained:
    """Train on the workload's rows, or on those given, in a folder that is deleted afterwards."""
    facts = description(workload)
    records = Records(facts, Rows(workload, drawn))
    channel = Plain()
    host = Host(job, records, StateTable(records.sites), channel.site_half(records.sites), torch.device("cpu"))
    engine = LocalEngine(host)
    marks: list[float] = []
    commits: list[float] = []

    def listen(event: Mapping[str, Any]) -> None:
        marks.append(time.perf_counter())
        tell(event)

    with tempfile.TemporaryDirectory() as folder, Run.create(Path(folder) / "run", job, {}) as run:
        commit = run.commit

        def committed(*given: Any, **more: Any) -> None:
            commit(*given, **more)
            commits.append(time.perf_counter())

        run.commit = committed  # type: ignore[method-assign]
        outcome = Federation(job, engine, channel, facts, run, listen).train()
        engine.close()
    marks = marks[: workload.rounds + 1]
    # rounds may be committed together, the last ones after the last round was told of
    marks[-1] = max(marks[-1], commits[-1])
    return Trained(marks=marks, weights=outcome.server.model.params)


def measure(given: Mapping[str, Any], kind: str, weights: str = "", **settings: Any) -> dict[str, Any]:
    """Seconds a round, peak memory and the raw records' bytes, or why this version refuses the settings.

    Args:
        given: arguments of `workload`.
        kind: `BUILT_IN` or `ANY_MODULE`.
        weights: file for the last weights; none where empty.
        settings: of `job_for`.
    """
    chosen = workload(**given)
    try:
        trained = train(chosen, job_for(chosen, kind, **settings))
    except ValidationError as error:
        return {"refused": "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())}
    except WardroundError as error:
        return {"refused": str(error)}
    if weights:
        agreement.save(weights, trained.weights)
    return {"round": trained.seconds_a_round, "peak": peak_memory(), "raw": chosen.nbytes}

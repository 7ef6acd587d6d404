"""Small federations over wdbc for the tests of the seams, and what is compared between two of them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from federation.adverse import AdverseEngine
from small_federation import job_of
from wardround.channels.plain import Plain
from wardround.config.job import Job
from wardround.data.preprocess import Preprocessing
from wardround.experiment import records_of
from wardround.federation.engines.local import LocalEngine
from wardround.federation.records import Records
from wardround.federation.rounds import Federation, Outcome
from wardround.federation.site import Host
from wardround.store.run import Run
from wardround.store.states import StateTable
from wardround.types import Arrays, Channel, Description, Engine, Reply, Request, SiteData

SITES = ("site-1", "site-2", "site-3", "site-4", "site-5")
FEATURES = 30

NETWORK = {"name": "mlp", "options": {"hidden": [6]}}
NORMED = {"name": "mlp", "options": {"hidden": [6], "norm": "batch"}}
TRAINING = {"rounds": 3, "batch_size": 16, "optimizer": {"learning_rate": 0.05}, "dtype": "float64"}
SHORT = {**TRAINING, "rounds": 2, "batch_size": 48}
RULES: dict[str, dict[str, Any]] = {
    "fedavg": {},
    "fedprox": {"algorithm": {"name": "fedprox", "mu": 0.1}, "model": NETWORK},
    "scaffold": {"algorithm": {"name": "scaffold"}},
    "fedbn": {"algorithm": {"name": "fedbn"}, "model": NORMED, "training": SHORT},
    "shared batch norm": {"model": NORMED, "training": SHORT},
    "own head bias": {"model": {**NETWORK, "local": ["head.bias"]}},
    "adam": {"algorithm": {"server": {"name": "adam"}}},
    "momentum": {"algorithm": {"server": {"name": "momentum"}}},
    "fednova": {
        "algorithm": {"name": "fednova", "mu": 0.1, "server": {"name": "yogi"}},
        "training": {
            **TRAINING,
            "local_epochs": [1, 4],
            "optimizer": {"learning_rate": 0.05, "momentum": 0.5, "schedule": {"kind": "cosine", "warmup": 1}},
        },
    },
    "qfedavg": {"algorithm": {"name": "qfedavg", "server": {"name": "adagrad"}}, "model": {"local": ["linear.bias"]}},
}


def a_job(rule: str = "fedavg", **changes: Any) -> Job:
    """A tiny run; `changes` are `node__leaf=value`, or a whole node."""
    tree: dict[str, Any] = {
        "seed": 3,
        "partition": {"kind": "dirichlet", "sites": len(SITES), "alpha": 2.0, "min_rows": 40},
        "training": TRAINING,
        "evaluation": {"baselines": [], "bootstrap": 0, "select": "last"},
        **copy.deepcopy(RULES[rule]),
    }
    tree["training"] = copy.deepcopy(tree["training"])
    return job_of(tree, changes)


@cache
def _dealt(data: str) -> tuple[Description, dict[str, SiteData]]:
    return records_of(Job.model_validate_json(data))


def data_of(job: Job) -> tuple[Description, dict[str, SiteData]]:
    """The dataset's description and each site's records."""
    spec = a_job()
    return _dealt(spec.model_copy(update={"data": job.data, "partition": job.partition}).model_dump_json())


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What a federation ended with; `states` are the sites' own, without site axis."""

    outcome: Outcome
    records: list[dict[str, Any]]
    history: list[dict[str, Any]]
    states: dict[str, Arrays]
    overlay: Arrays

    @property
    def survivors(self) -> list[tuple[str, ...]]:
        """Who was counted, round by round, where everybody was asked."""
        return [tuple(s for s in SITES if s not in record["missing"]) for record in self.records[1:]]


def local_engine(
    job: Job, channel: Channel, chunk: int | None = None, data: Mapping[str, SiteData] | None = None
) -> LocalEngine:
    """All sites in one process."""
    description, dealt = data_of(job)
    records = Records(description, dealt if data is None else data)
    host = Host(job, records, StateTable(records.sites), channel.site_half(records.sites), torch.device("cpu"))
    return LocalEngine(host, chunk)


def adverse_engine(folder: Path, job: Job, channel: Channel, **faults: Any) -> AdverseEngine:
    """Each site a process of its own, behind bytes."""
    description, data = data_of(job)
    return AdverseEngine(folder, job, description, faults.pop("data", data), channel, **faults)


def federation(
    folder: Path, job: Job, engine: Engine, channel: Channel, preprocessing: Preprocessing | None = None,
    listener: Callable[[Mapping[str, Any]], None] = lambda event: None,
) -> Federation:  # fmt: skip
    """The server's side in a new run folder, or in the one that is there."""
    run = Run.open(folder) if (folder / "run.json").exists() else Run.create(folder, job, {})
    return Federation(job, engine, channel, data_of(job)[0], run, listener, preprocessing)


def trained(
    folder: Path, job: Job, engine: Engine, channel: Channel | None = None, preprocessing: Preprocessing | None = None,
    listener: Callable[[Mapping[str, Any]], None] = lambda event: None,
) -> Trained:  # fmt: skip
    """Train to the end and gather what there is to compare."""
    server = federation(folder, job, engine, channel or Plain(), preprocessing, listener)
    outcome = server.train()
    with Run.open(folder, writer=False) as run:
        records = run.records
    return Trained(
        outcome=outcome, records=records, history=server.history(), states=states_of(engine), overlay=outcome.overlay
    )


def plain(folder: Path, job: Job, preprocessing: Preprocessing | None = None) -> Trained:
    """The run as one process has it."""
    return trained(folder, job, local_engine(job, Plain()), preprocessing=preprocessing)


def states_of(engine: Engine) -> dict[str, Arrays]:
    """What each site keeps, without site axis."""
    if isinstance(engine, Restricted):
        engine = engine.engine
    if isinstance(engine, AdverseEngine):
        read = engine.state
    else:
        assert isinstance(engine, LocalEngine)
        host = engine.host

        def read(site: str) -> Arrays:
            return host.states.read((site,), host.network.initial_state)

    return {site: {name: value[0] for name, value in read(site).items()} for site in engine.sites}


class Restricted:
    """An engine whose `train` of round t asks only the sites `allowed[t]`: what others lost, here never was."""

    def __init__(self, engine: LocalEngine, allowed: Sequence[Sequence[str]]) -> None:
        self.engine, self._allowed = engine, allowed

    @property
    def sites(self) -> tuple[str, ...]:
        return self.engine.sites

    def ask(self, request: Request, sites: Sequence[str], deadline: float | None) -> Iterator[Reply]:
        meta = request.message.meta
        if meta.get("task") == "train":
            sites = [site for site in sites if site in self._allowed[meta["round"]["index"]]]
        return self.engine.ask(request, sites, deadline)

    def journal(self, index: int, sites: Sequence[str]) -> tuple[tuple[str, ...], Arrays]:
        return self.engine.journal(index, sites)

    def restore(self, sites: Sequence[str], states: Arrays) -> None:
        self.engine.restore(sites, states)

    def close(self) -> None:
        self.engine.close()


def gap(one: Arrays, other: Arrays) -> float:
    """The largest difference between two sets of arrays; they must have the same names, shapes and dtypes."""
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert (value.shape, value.dtype) == (other[name].shape, other[name].dtype), name
    return max((float((v - other[n]).abs().max()) for n, v in one.items() if v.numel()), default=0.0)


def assert_same(one: Trained, other: Trained, tolerance: float) -> None:
    """Model, rule, optimiser, every site's own state, their mean, losses and participation."""
    a, b = one.outcome.server, other.outcome.server
    for mine, theirs in (
        (a.model.params, b.model.params),
        (a.model.buffers, b.model.buffers),
        (a.rule, b.rule),
        (a.optimizer, b.optimizer),
        (one.overlay, other.overlay),
        *((one.states[site], other.states[site]) for site in one.states.keys() | other.states.keys()),
    ):
        assert gap(mine, theirs) <= tolerance
    assert one.outcome.selected == other.outcome.selected
    assert one.survivors == other.survivors
    for mine_row, their_row in zip(one.history, other.history, strict=True):
        assert abs(mine_row["train_loss"] - their_row["train_loss"]) <= tolerance
        assert (mine_row["validation"] is None) == (their_row["validation"] is None)
        if mine_row["validation"]:
            assert abs(mine_row["validation"]["loss"] - their_row["validation"]["loss"]) <= tolerance
            assert mine_row["validation"]["rows"] == their_row["validation"]["rows"]


def moved(one: Trained) -> float:
    """How far training took the model from where it began: a comparison of two runs that went nowhere says nothing."""
    return gap(one.outcome.server.model.params, one.outcome.network.shared.params)


def with_huge_values(data: SiteData, preprocessing: Preprocessing) -> SiteData:
    """Records whose features are finite, and whose logits are not: about 17 of them at +-1e308, the sign by the row."""
    mean, scale = np.asarray(preprocessing.mean), np.asarray(preprocessing.scale)
    sign = np.where(np.arange(len(data.labels)) % 2, 1.0, -1.0)[:, None]
    huge = mean + sign * 1e308 * np.minimum(scale, 1.0)
    return replace(data, features=np.where(scale < 1.0, huge, data.features))

"""Which executor and how many processes: a function of job, model, shape and machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch

from wardround import Job
from wardround.errors import ConfigError
from wardround.federation import choice
from wardround.federation.choice import choose_executor, choose_workers
from wardround.training.probe import Probe

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
CONVOLVES = Probe(stackable=True, independent=True, stochastic=False, reason="stacked: vmap", convolves=True)
TABLE = Probe(stackable=True, independent=True, stochastic=False, reason="stacked: vmap")
DROPOUT = Probe(stackable=False, independent=False, stochastic=True, reason="sequential: dropout", convolves=True)


def job(engine: Mapping[str, Any] = {}, **training: Any) -> Job:
    return Job.model_validate({"engine": engine, "training": training})


@pytest.mark.parametrize(
    ("found", "shape", "device", "batch", "stacked"),
    [
        # 16 x 512 = 8192 pixels
        (CONVOLVES, (3, 16, 32), CPU, 16, False),
        (CONVOLVES, (3, 16, 32), CPU, 15, True),
        (CONVOLVES, (1, 8, 8, 8), CPU, 16, False),
        (CONVOLVES, (3, 64, 64), CUDA, 16, True),
        (TABLE, (8192,), CPU, 16, True),
        (TABLE, (3, 64, 64), CPU, 16, True),
        (DROPOUT, (3, 4, 4), CPU, 2, False),
    ],
)
def test_only_larger_convolutions_on_a_cpu_are_not_stacked(
    found: Probe, shape: tuple[int, ...], device: torch.device, batch: int, stacked: bool
) -> None:
    chosen, reason = choose_executor(job(batch_size=batch), found, shape, device)
    assert chosen is stacked
    assert reason.startswith("stacked: " if stacked else "sequential: ")


def test_a_job_that_names_its_executor_gets_it() -> None:
    large = (3, 64, 64)
    assert choose_executor(job({"executor": "stacked"}), CONVOLVES, large, CPU)[0]
    assert not choose_executor(job({"executor": "sequential"}), TABLE, (4,), CUDA)[0]
    with pytest.raises(ConfigError, match=r"engine.executor = stacked, but this model cannot be: sequential: dropout"):
        choose_executor(job({"executor": "stacked"}), DROPOUT, large, CPU)


def workers(run: Job, *, stacked: bool = False, device: torch.device = CPU, rows: int = 1000, sites: int = 10) -> int:
    return choose_workers(run, stacked=stacked, shape=(1, 8, 8), rows=rows, sites=sites, device=device)


@pytest.fixture
def _machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight cores, and a worker pays from 1000 rows of 64 features on."""
    monkeypatch.setattr(choice, "_cores", lambda: 8)
    monkeypatch.setattr(choice, "_WORTH", 64_000)


@pytest.mark.usefixtures("_machine")
@pytest.mark.parametrize(
    ("run", "number"),
    [
        (job(rounds=1), 1),
        (job(rounds=2), 2),
        (job(rounds=1, local_epochs=3), 3),
        (job(rounds=100), 8),
        (job(rounds=1, local_steps=50, batch_size=4), 2),  # 10 sites x 200 rows
    ],
)
def test_a_run_gets_the_workers_that_it_pays_for(run: Job, number: int) -> None:
    assert workers(run) == number


@pytest.mark.usefixtures("_machine")
def test_workers_are_for_sites_that_train_one_by_one_on_a_cpu() -> None:
    long = job(rounds=100)
    assert workers(long) == 8
    assert workers(long, stacked=True) == 1
    assert workers(long, device=CUDA) == 1
    assert workers(long, sites=3) == 3
    assert workers(long, sites=1) == 1
    few = Job.model_validate({"training": {"rounds": 100}, "participation": {"count": 2}})
    assert workers(few) == 2


def test_a_job_that_names_a_number_gets_it_as_far_as_there_are_sites() -> None:
    assert workers(job({"workers": 4}), stacked=True) == 4
    assert workers(job({"workers": 4}), sites=3) == 3
    assert workers(job({"workers": 1}, rounds=10**9)) == 1
    assert workers(job({"workers": 1}), device=CUDA) == 1
    with pytest.raises(ConfigError, match=r"engine.workers = 2 on engine.device cuda: .*; use workers: 1"):
        workers(job({"workers": 2}), device=CUDA)


def test_a_short_run_starts_nothing_and_threads_are_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    assert workers(job(rounds=100)) == 1
    monkeypatch.setattr("loky.cpu_count", lambda: 64)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert workers(job(rounds=10**6)) == 1
        torch.set_num_threads(3)
        assert workers(job(rounds=10**6)) == 3
    finally:
        torch.set_num_threads(threads)

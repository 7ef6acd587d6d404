"""Sites spread over processes: the same numbers as in one process, errors by name, and nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from small_federation import RAGGED, Federation, difference, make_round, make_rows
from wardround import Job, run
from wardround.algorithms.fedbn import FedBN
from wardround.algorithms.fednova import FedNova
from wardround.algorithms.qfedavg import QFedAvg
from wardround.algorithms.scaffold import Scaffold
from wardround.config.job import OptimizerSpec
from wardround.errors import ConfigError, RunError, WardroundError
from wardround.federation import choice
from wardround.models.cnn import CNN
from wardround.models.mlp import MLP
from wardround.training.evaluate import Evaluator
from wardround.training.workers import Workers, split
from wardround.types import LocalRule

CHUNKS = {"whole": None, "two": [[0, 1, 2], [3, 4, 5]], "three": [[5, 0], [3], [1, 4, 2]]}
TREE: dict[str, Any] = {
    "data": {"dataset": "sample_plugins:Pictures"},
    "model": {"name": "sample_plugins:Convolutional", "local": ["head.bias"]},
    "algorithm": {"name": "sample_plugins:Damped"},
    "training": {"rounds": 3, "dtype": "float64"},
    "evaluation": {"bootstrap": 0},
}


def job(**changes: Mapping[str, Any]) -> Job:
    return Job.model_validate({**TREE, "engine": {"workers": 2}, **changes})


def processes() -> list[psutil.Process]:
    return [p for p in psutil.Process().children(recursive=True) if "LokyProcess" in " ".join(p.cmdline())]


@pytest.fixture(autouse=True)
def own_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the shared files lie; empty once a test is through."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    yield folder
    assert list(folder.iterdir()) == []


@pytest.fixture(scope="module", autouse=True)
def _no_process_is_left() -> Iterator[None]:
    """The processes serve every test of this file."""
    yield
    from loky import get_reusable_executor

    get_reusable_executor(max_workers=2).shutdown(kill_workers=True)


# ------------------------------------------------------------------------------------------------ the same numbers


def cnn() -> nn.Module:
    torch.manual_seed(0)
    return CNN((1, 8, 8), width=2).double()


def mlp() -> nn.Module:
    torch.manual_seed(0)
    return MLP(5, outputs=3, hidden=(6, 4)).double()


def dropout() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 1)).double()


CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int, LocalRule, tuple[str, ...]]] = {
    "fedavg": (mlp, (5,), 3, Federation.__dataclass_fields__["rule"].default_factory(), ()),
    "scaffold with BatchNorm": (cnn, (1, 8, 8), 2, Scaffold(), ()),
    "fednova": (mlp, (5,), 3, FedNova(0.1), ()),
    "qfedavg": (cnn, (1, 8, 8), 2, QFedAvg(2.0), ("head.bias",)),
    "fedbn": (cnn, (1, 8, 8), 2, FedBN(), ()),
    "local names": (mlp, (5,), 3, Scaffold(), ("head",)),
}


def spread(made: Federation, number: int = 2) -> Workers:
    """Let the federation train in worker processes."""
    workers = Workers(made.executor, made.data.features, made.data.labels, number)
    made.data = replace(made.data, features=workers.features, labels=workers.labels)
    made.executor = workers  # type: ignore[assignment]
    return workers


@pytest.mark.parametrize("stacked", [False, True], ids=["sequential", "stacked"])
@pytest.mark.parametrize("case", CASES)
def test_workers_and_chunks_change_no_number(case: str, stacked: bool) -> None:
    make, shape, classes, rule, local = CASES[case]
    data = make_rows(RAGGED, shape, classes=classes)
    options = {"rule": rule, "optimizer": OptimizerSpec(momentum=0.5), "local": local}
    learning = {"epochs": 2, "learning_rate": 0.05}
    expected = Federation(make(), data, stacked=not stacked, **options).run(3, **learning)
    for chunks in CHUNKS.values():
        made = Federation(make(), data, stacked=stacked, chunks=chunks, **options)
        workers = spread(made)
        before = {n: v.clone() for n, v in made.everything().items()}
        made.run(3, **learning)
        scored = workers.logits(made.server.model, made.states, made.data)
        workers.close()
        assert difference(before, made.everything()) > 1e-3
        assert difference(made.everything(), expected.everything()) <= 1e-12
        assert all(value.is_contiguous() for arrays in made.trained.terms.values() for value in arrays.values())
        alone = Evaluator(made.module, stackable=False).logits(expected.server.model, expected.states, data)
        assert torch.allclose(scored[0], alone[0], atol=1e-12, rtol=0)
        assert torch.equal(scored[1], data.labels)
        assert np.array_equal(scored[2], alone[2])


def test_the_loss_and_dropout_of_a_site_are_its_own_in_any_process() -> None:
    data = make_rows(RAGGED, (5,))
    alone, made = (Federation(dropout(), data, stacked=False) for _ in range(2))
    workers = spread(made, 3)
    expected, found = alone.run(2), made.run(2)
    workers.close()
    assert difference(expected.everything(), found.everything()) <= 1e-12
    assert torch.allclose(expected.trained.loss, found.trained.loss, atol=1e-12, rtol=0)


def test_sites_without_rows_are_spread_too() -> None:
    data = make_rows((0, 9, 0), (5,), classes=3)
    made = Federation(mlp(), data, stacked=False)
    expected = made.executor.train(made.rule, made.server, {}, data, make_round())
    workers = spread(made)
    found = workers.train(made.rule, made.server, {}, made.data, make_round())
    workers.close()
    assert torch.equal(made.data.features, data.features)  # still mapped
    assert torch.isnan(found.loss[[0, 2]]).all()
    assert difference(found.terms["step"], expected.terms["step"]) <= 1e-12


def test_a_split_is_even_and_whole() -> None:
    # the longest first, each to the lighter list: 9 | 7, then 4 joins 7, 3 joins 9, 1 joins 11 (11 < 12), 0 joins 12
    parts = split(np.array([1, 9, 4, 0, 7, 3]), 2)
    assert [part.tolist() for part in parts] == [[1, 3, 5], [0, 2, 4]]
    assert [part.tolist() for part in split(np.array([2, 2]), 5)] == [[0], [1]]
    assert [part.tolist() for part in split(np.zeros(4, dtype=np.int64), 2)] == [[0, 2], [1, 3]]


# ------------------------------------------------------------------------------------------------ whole runs


_HOW = ("seconds", "executor_reason", "bytes_up", "job")


def timeless(value: Any) -> Any:
    """What a run found, without how it was done: a site says by what executor, in bytes that count."""
    if isinstance(value, dict):
        return {key: timeless(item) for key, item in value.items() if key not in _HOW}
    return [timeless(item) for item in value] if isinstance(value, list) else value


def close(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: close(item) for key, item in value.items()}
    if isinstance(value, list):
        return [close(item) for item in value]
    return pytest.approx(value, abs=1e-12, rel=0) if isinstance(value, float) else value


def test_a_run_of_plug_ins_with_its_baselines_gives_the_same_in_workers(tmp_path: Path) -> None:
    alone = run(job(engine={"workers": 1}), tmp_path / "alone", report=False)
    spread = run(job(engine={"workers": 2, "chunk": 3}), tmp_path / "spread", report=False)
    assert spread["executor_reason"].startswith("sequential on 2 workers: the model draws random numbers")
    assert alone["executor_reason"].startswith("sequential: ")
    assert timeless(spread) == close(timeless(alone))
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("alone", "spread"))
    assert difference(one, other) <= 1e-12
    assert processes()


def test_a_file_beside_the_job_is_found_by_workers_that_run_already(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = {"evaluation": {"bootstrap": 0, "baselines": []}}
    run(job(**short), tmp_path / "before", report=False)
    (tmp_path / "beside_the_job.py").write_text(
        "from sample_plugins import Damped\n\n\nclass Mine(Damped):\n    pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    found = run(job(algorithm={"name": "beside_the_job:Mine"}, **short), tmp_path / "run", report=False)
    assert "on 2 workers" in found["executor_reason"]


def test_a_resumed_run_keeps_its_number_of_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "_WORTH", 1000)
    monkeypatch.setattr(choice, "_cores", lambda: 2)
    auto = job(engine={}, evaluation={"bootstrap": 0, "baselines": []})

    def interrupt(event: Any) -> None:
        if event["event"] == "round" and event["round"] == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(auto, tmp_path / "run", report=False, listener=interrupt)
    monkeypatch.setattr(choice, "_cores", lambda: 1)
    with pytest.raises(RunError, match=r"sites trained as 'sequential on 2 workers: .* and now as 'sequential: "):
        run(auto, tmp_path / "run", resume=True, report=False)
    monkeypatch.setattr(choice, "_cores", lambda: 2)
    assert "on 2 workers" in run(auto, tmp_path / "run", resume=True, report=False)["executor_reason"]


# ------------------------------------------------------------------------------------------------ what goes wrong


def test_an_error_in_a_worker_is_the_error_of_the_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"algorithm broken: correct gives a gradient of shape"):
        run(job(algorithm={"name": "sample_plugins:Broken"}), tmp_path / "run", report=False)
    assert not (tmp_path / "run").exists()
    assert processes() == []


def test_what_cannot_be_sent_is_refused_by_name() -> None:
    made = Federation(mlp(), make_rows(RAGGED, (5,), classes=3), stacked=False)
    made.executor.module.lock = threading.Lock()  # type: ignore[assignment]
    with pytest.raises(ConfigError, match=r"the model cannot be sent to a worker process: .*; use engine.workers: 1"):
        spread(made)


@pytest.mark.skipif(os.name == "nt", reason="a signal of POSIX")
def test_a_worker_that_died_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(
        WardroundError, match=r"one of 2 worker processes died, .* lower engine.workers or engine.chunk"
    ):
        run(job(algorithm={"name": "sample_plugins:Deadly"}), tmp_path / "run", report=False)
    assert processes() == []


SCRIPT = """
import os, signal, sys
import psutil
from torch import nn
from wardround import Job, run

class Net(nn.Module):
    def __init__(self, outputs=1):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Dropout(0.1), nn.Linear(64, outputs))

    def forward(self, x):
        return self.layers(x)

def listen(event):
    if event["event"] == sys.argv[1]:
        print(*(child.pid for child in psutil.Process().children(recursive=True)), flush=True)
        if event["event"] != "selected":
            os.kill(os.getpid(), signal.SIGKILL)

job = Job.model_validate({
    "data": {"dataset": "sample_plugins:Pictures"}, "model": {"name": "__main__:Net"},
    "training": {"rounds": 3}, "evaluation": {"bootstrap": 0, "baselines": []}, "engine": {"workers": 2},
})
print(run(job, "out", report=False, listener=listen)["executor_reason"])
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="a signal of POSIX")
@pytest.mark.parametrize(
    "until",
    [pytest.param("selected", marks=pytest.mark.long), pytest.param("setup", marks=pytest.mark.long), "round"],
)
def test_a_script_needs_no_guard_and_leaves_nothing_even_if_killed(
    until: str, tmp_path: Path, own_temporary_folder: Path
) -> None:
    (tmp_path / "script.py").write_text(SCRIPT, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "script.py", until], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=480,
        env={**os.environ, "TMPDIR": str(own_temporary_folder), "PYTHONPATH": str(Path(__file__).parents[1])},
    )  # fmt: skip
    said = done.stdout.splitlines()
    workers = [int(pid) for pid in said[0].split()]
    assert len(workers) >= 2
    if until == "selected":
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        assert said[1].startswith("sequential on 2 workers: ")
    else:
        assert done.returncode == -signal.SIGKILL
    end = time.monotonic() + 240
    while any(psutil.pid_exists(pid) for pid in workers):
        assert time.monotonic() < end, "worker processes outlive the run"
        time.sleep(0.05)

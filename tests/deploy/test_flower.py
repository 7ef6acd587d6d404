"""The engine between real processes: the same model as in one process, and what happens when one of them dies."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.torch import load_file

from deploy.hospitals import SITES, Hospitals, flower_python, until
from wardround import config
from wardround.deploy.audit import verify
from wardround.experiment import run
from wardround.federation.baselines import changed

DATA = os.environ.get("WARDROUND_DATA", "")
PYTHON = flower_python() if DATA else None
pytestmark = pytest.mark.skipif(
    PYTHON is None or not (Path(DATA) / "uci_heart").is_dir(),
    reason="needs an interpreter with flwr (WARDROUND_FLOWER_PYTHON) and uci_heart (WARDROUND_DATA)",
)

JOB = """
name: heart
seed: 3
data: {dataset: heart, preprocessing: {indicators: true}}
model: {name: mlp, options: {hidden: [8], norm: batch}}
algorithm: {name: ALGORITHM}
training: {rounds: 3, local_steps: 5, batch_size: 16, optimizer: {name: sgd, learning_rate: 0.05}}
evaluation: {bootstrap: 0, baselines: []}
"""


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospitals]:
    made = Hospitals(tmp_path_factory.mktemp("hospitals"), DATA, str(PYTHON))
    made.start("coordinator", *SITES)
    try:
        until(
            lambda: set(made.status().get("sites", {}).values()) == {"online"}, 90,
            "all sites are online",
        )  # fmt: skip
        yield made
    finally:
        made.stop()
    assert not made.left()


def write_job(folder: Path, algorithm: str) -> Path:
    path = folder / f"{algorithm}.yaml"
    path.write_text(JOB.replace("ALGORITHM", algorithm))
    return path


def local_model(job: Path, folder: Path, *overrides: str) -> dict[str, object]:
    alone = changed(config.load(job, list(overrides)), {"evaluation.release_scores": False})
    run(alone, folder, report=False)
    return dict(load_file(folder / "model.safetensors"))


def assert_same_model(remote: Path, local: dict[str, object], tolerance: float = 1e-6) -> None:
    found = load_file(remote / "model.safetensors")
    assert found.keys() == local.keys()
    for name, value in found.items():
        assert (value.double() - local[name].double()).abs().max() <= tolerance, name  # type: ignore[attr-defined]


@pytest.mark.parametrize("algorithm", ["fedavg", "scaffold", "fedbn"])
def test_hospitals_train_the_model_that_one_process_trains(
    hospitals: Hospitals, tmp_path: Path, algorithm: str
) -> None:
    job = write_job(tmp_path, algorithm)
    name = hospitals.submit(job)
    assert hospitals.outcome(name)["status"] == "done"
    assert_same_model(hospitals.run_folder(name), local_model(job, tmp_path / "local"))


def test_what_was_done_is_in_all_logs_and_no_round_took_long(hospitals: Hospitals) -> None:
    until(lambda: hospitals.status()["run"] is None, 30, "the last run's end is told")
    name = sorted(hospitals.status()["runs"])[0]
    rounds = [entry for entry in hospitals.entries("coordinator", "round") if entry["run"] == name]
    assert [entry["round"] for entry in rounds] == [0, 1, 2]
    assert all(entry["counted"] == list(SITES) for entry in rounds)
    for party in ("coordinator", *SITES):
        assert verify(hospitals.folder / party / "audit.jsonl") == []
        assert any(entry["run"] == name for entry in hospitals.entries(party, "message-sent"))
    spent = [entry["seconds"] for entry in json.loads((hospitals.run_folder(name) / "result.json").read_text())["history"]["federated"]]
    each = sorted(b - a for a, b in zip(spent, spent[1:], strict=False))
    assert each[len(each) // 2] <= 4.0


def test_a_site_killed_in_training_comes_back_with_its_state(hospitals: Hospitals, tmp_path: Path) -> None:
    job = write_job(tmp_path, "scaffold")
    name = hospitals.submit(job, overrides=("training.rounds=6", "seed=5"))
    hospitals.reached(name, 2)
    hospitals.kill("va")
    hospitals.start("va")
    assert hospitals.outcome(name, 120)["status"] == "done"
    assert_same_model(
        hospitals.run_folder(name), local_model(job, tmp_path / "local", "training.rounds=6", "seed=5")
    )


def test_a_killed_coordinator_goes_on_with_its_run(hospitals: Hospitals, tmp_path: Path) -> None:
    job = write_job(tmp_path, "scaffold")
    name = hospitals.submit(job, overrides=("training.rounds=6", "seed=6"))
    hospitals.reached(name, 3)
    hospitals.kill("coordinator")
    hospitals.start("coordinator")
    assert hospitals.outcome(name, 120)["status"] == "done"
    assert_same_model(
        hospitals.run_folder(name), local_model(job, tmp_path / "local", "training.rounds=6", "seed=6")
    )


def test_a_killed_superlink_is_begun_again(hospitals: Hospitals, tmp_path: Path) -> None:
    job = write_job(tmp_path, "fedavg")
    name = hospitals.submit(job, overrides=("training.rounds=6", "seed=7"))
    hospitals.reached(name, 2)
    os.kill(hospitals.status()["pids"]["superlink"], signal.SIGKILL)
    assert hospitals.outcome(name, 120)["status"] == "done"
    assert_same_model(
        hospitals.run_folder(name), local_model(job, tmp_path / "local", "training.rounds=6", "seed=7")
    )

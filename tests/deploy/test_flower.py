"""The engine between real processes: the same model as in one process, and what happens when one of them dies."""

from __future__ import annotations

import itertools
import json
import os
import signal
from pathlib import Path

import pytest
from safetensors.torch import load_file

from deploy.hospitals import SITES, Hospitals, needs_flower, until
from wardround import config
from wardround.deploy.audit import verify
from wardround.experiment import run
from wardround.federation.baselines import changed

pytestmark = [pytest.mark.slow, needs_flower]

JOB = """
name: heart
seed: 3
data: {dataset: heart, preprocessing: {indicators: true}}
model: {name: mlp, options: {hidden: [8], norm: batch}}
algorithm: {name: ALGORITHM}
training: {rounds: 3, local_steps: 5, batch_size: 16, optimizer: {name: sgd, learning_rate: 0.05}}
evaluation: {bootstrap: 0, baselines: []}
"""


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
    spent = [
        entry["seconds"]
        for entry in json.loads((hospitals.run_folder(name) / "result.json").read_text())["history"]["federated"]
    ]
    each = sorted(b - a for a, b in itertools.pairwise(spent))
    assert each[len(each) // 2] <= 4.0


def memory(pid: int) -> tuple[float, float]:
    """Resident memory of a process now, and its peak since `clear_refs`, in MB (10^6 bytes)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    found = {
        name: int(rest.split()[0]) * 1024 / 1e6
        for name, _, rest in (line.partition(":") for line in lines)
        if "Vm" in name
    }
    return found["VmRSS"], found["VmHWM"]


def named_processes(hospitals: Hospitals) -> dict[str, int]:
    """What each process of the coordinator and of a site is, and its id."""
    found = {"coordinator": hospitals.processes["coordinator"].pid, "site": hospitals.processes["va"].pid}
    found |= {f"coordinator's {kind}": pid for kind, pid in hospitals.status()["pids"].items()}
    threads = Path(f"/proc/{found['site']}/task").glob("*/children")
    children = [pid for path in threads for pid in path.read_text().split()]
    return found | {"site's relay": int(children[0])}


@pytest.mark.skipif(
    "WARDROUND_MODEL_WIDTH" not in os.environ or not Path("/proc/self/clear_refs").exists(),
    reason="takes minutes, on Linux: WARDROUND_MODEL_WIDTH=5000 asks for a model of 100 MB",
)
def test_a_large_model_takes_a_few_times_its_size(hospitals: Hospitals, tmp_path: Path) -> None:
    """With `-s` it prints the table of docs/deploy/processes.md. Smaller models stay in the heap when they are freed."""
    width = int(os.environ["WARDROUND_MODEL_WIDTH"])
    model = 4 * width * (width + 30) / 1e6
    pids = named_processes(hospitals)
    before = {}
    for name, pid in pids.items():
        Path(f"/proc/{pid}/clear_refs").write_text("5")
        before[name] = memory(pid)[0]
    more = (f"model.options={{hidden: [{width}, {width}], norm: none}}", "training.rounds=2", "training.local_steps=2")
    run_id = hospitals.submit(write_job(tmp_path, "fedavg"), overrides=more)
    assert hospitals.outcome(run_id, 600)["status"] == "done"
    times = {}
    for name, pid in pids.items():
        peak = memory(pid)[1]
        times[name] = (peak - before[name]) / model
        print(
            f"{name:24} before {before[name]:6.0f} MB  peak {peak:6.0f} MB  {times[name]:4.1f} models of {model:.0f} MB"
        )
    assert times["site"] < 6  # of which training with SGD needs two: parameters and gradients
    assert times["coordinator"] < 11
    assert max(times["site's relay"], times["coordinator's coordinator"]) < 3


def test_a_site_killed_in_training_comes_back_with_its_state(hospitals: Hospitals, tmp_path: Path) -> None:
    job = write_job(tmp_path, "scaffold")
    name = hospitals.submit(job, overrides=("training.rounds=6", "seed=5"))
    hospitals.reached(name, 2)
    hospitals.kill("va")
    hospitals.start("va")
    assert hospitals.outcome(name, 120)["status"] == "done"
    assert_same_model(hospitals.run_folder(name), local_model(job, tmp_path / "local", "training.rounds=6", "seed=5"))


def test_a_killed_coordinator_goes_on_with_its_run(hospitals: Hospitals, tmp_path: Path) -> None:
    job = write_job(tmp_path, "scaffold")
    name = hospitals.submit(job, overrides=("training.rounds=6", "seed=6"))
    hospitals.reached(name, 3)
    hospitals.kill("coordinator")
    hospitals.start("coordinator")
    assert hospitals.outcome(name, 120)["status"] == "done"
    assert_same_model(hospitals.run_folder(name), local_model(job, tmp_path / "local", "training.rounds=6", "seed=6"))


def test_a_killed_superlink_is_begun_again(hospitals: Hospitals, tmp_path: Path) -> None:
    job = write_job(tmp_path, "fedavg")
    name = hospitals.submit(job, overrides=("training.rounds=6", "seed=7"))
    hospitals.reached(name, 2)
    os.kill(hospitals.status()["pids"]["superlink"], signal.SIGKILL)
    assert hospitals.outcome(name, 120)["status"] == "done"
    assert_same_model(hospitals.run_folder(name), local_model(job, tmp_path / "local", "training.rounds=6", "seed=7"))

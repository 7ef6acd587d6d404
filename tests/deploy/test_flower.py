"""The engine between real processes: the same model as in one process, and what happens when one of them dies."""

from __future__ import annotations

import itertools
import json
import os
import signal
import time
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


OVERSHOOTING = ("training.rounds=5", "training.optimizer.learning_rate=2.0", "training.dtype=float64")
"""So long a step that the best round is not the last, and no rounding decides which it is."""


def assert_same_personalized(hospitals: Hospitals, name: str, local: Path, selected: int) -> None:
    """Shared model, pooled figures, the mean of what stays at the sites, and what each of them has on its disk."""
    remote = hospitals.run_folder(name)
    found, expected = (json.loads((folder / "result.json").read_text()) for folder in (remote, local))
    assert found["selected_round"] == expected["selected_round"] == selected
    assert found["federated"]["pooled"] == pytest.approx(expected["federated"]["pooled"], abs=1e-6)
    assert_same_model(remote, dict(load_file(local / "model.safetensors")))
    average = local / "overlay-average.safetensors"
    assert average.exists() == (remote / average.name).exists()
    if average.exists():
        mean = load_file(average)
        assert load_file(remote / average.name).keys() == mean.keys()
        for key, value in load_file(remote / average.name).items():
            assert (value.double() - mean[key].double()).abs().max() <= 1e-6, key
    for site in SITES:
        [kept] = (hospitals.folder / site / "runs" / name / "state").iterdir()
        states = load_file(kept)
        for overlay in (local / "overlays").glob(f"{site}.safetensors"):
            for key, value in load_file(overlay).items():
                assert (states[f"states/local/{key}"][0].double() - value.double()).abs().max() <= 1e-6, (site, key)


@pytest.mark.parametrize(("algorithm", "selected"), [pytest.param("fedbn", 3, marks=pytest.mark.long), ("scaffold", 2)])
def test_hospitals_keep_what_one_process_keeps_of_the_best_round(
    hospitals: Hospitals, tmp_path: Path, algorithm: str, selected: int
) -> None:
    job = write_job(tmp_path, algorithm)
    name = hospitals.submit(job, overrides=OVERSHOOTING)
    assert hospitals.outcome(name)["status"] == "done"
    local_model(job, tmp_path / "local", *OVERSHOOTING)
    assert_same_personalized(hospitals, name, tmp_path / "local", selected)


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
@pytest.mark.parametrize("layers", [17, 2])
def test_a_large_model_takes_a_few_times_its_size(hospitals: Hospitals, tmp_path: Path, layers: int) -> None:
    """With `-s` it prints the tables of docs/deploy/processes.md: of many layers, and of one that is nearly all of the model."""
    width = int(os.environ["WARDROUND_MODEL_WIDTH"]) if layers == 2 else int(os.environ["WARDROUND_MODEL_WIDTH"]) // 4
    model = 4 * width * ((layers - 1) * width + 30) / 1e6
    pids = named_processes(hospitals)
    before = {}
    for name, pid in pids.items():
        Path(f"/proc/{pid}/clear_refs").write_text("5")
        before[name] = memory(pid)[0]
    hidden = ", ".join([str(width)] * layers)
    more = (f"model.options={{hidden: [{hidden}], norm: none}}", "training.rounds=2", "training.local_steps=2")
    began = time.monotonic()
    run_id = hospitals.submit(write_job(tmp_path, "fedavg"), overrides=more)
    assert hospitals.outcome(run_id, 600)["status"] == "done"
    print(f"two rounds of {layers} layers of {width} in {time.monotonic() - began:.0f} s")
    times = {}
    for name, pid in pids.items():
        peak = memory(pid)[1]
        times[name] = (peak - before[name]) / model
        print(
            f"{name:24} before {before[name]:6.0f} MB  peak {peak:6.0f} MB  {times[name]:4.1f} models of {model:.0f} MB"
        )
    assert max(times.values()) < (3 if layers > 2 else 5)


def test_a_site_killed_in_training_comes_back_with_its_state(hospitals: Hospitals, tmp_path: Path) -> None:
    job = write_job(tmp_path, "scaffold")
    name = hospitals.submit(job, overrides=("training.rounds=6", "seed=5"))
    hospitals.reached(name, 2)
    hospitals.kill("va")
    hospitals.start("va")
    assert hospitals.outcome(name, 120)["status"] == "done"
    assert_same_model(hospitals.run_folder(name), local_model(job, tmp_path / "local", "training.rounds=6", "seed=5"))


@pytest.mark.long
def test_processes_killed_after_the_best_round_go_back_to_it(hospitals: Hospitals, tmp_path: Path) -> None:
    job = write_job(tmp_path, "fedbn")
    name = hospitals.submit(job, overrides=OVERSHOOTING)
    hospitals.reached(name, 4)
    for killed in ("va", "coordinator"):
        hospitals.kill(killed)
        hospitals.start(killed)
    assert hospitals.outcome(name, 120)["status"] == "done"
    local_model(job, tmp_path / "local", *OVERSHOOTING)
    assert_same_personalized(hospitals, name, tmp_path / "local", 3)


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

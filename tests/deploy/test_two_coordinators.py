"""A coordinator's folder that was copied to a second machine: whom the sites serve, and what becomes of the run.

Sites dial one address; where it leads is moved between the coordinator and its copy. The one that they do not reach is alive.
"""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.hospitals import DATA, PYTHON, SITES, Cable, Hospitals, free_port, needs_flower, until
from deploy.test_flower import assert_same_model, local_model, write_job
from wardround.deploy import checkup

pytestmark = [pytest.mark.slow, needs_flower]


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospitals]:
    """Apart from the other tests' hospitals, for what these sites witness of two coordinators stays in their logs."""
    made = Hospitals(tmp_path_factory.mktemp("hospitals"), DATA, str(PYTHON))
    inner = free_port()
    made.listen, made.cable = f"127.0.0.1:{inner}", Cable(made.port, inner)
    made.start("coordinator", *SITES)
    try:
        made.online()
        yield made
    finally:
        made.stop()
        made.cable.close()
    assert not made.left()


@contextlib.contextmanager
def frozen(hospitals: Hospitals, name: str) -> Iterator[None]:
    hospitals.processes[name].send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        hospitals.processes[name].send_signal(signal.SIGCONT)


def ended(hospitals: Hospitals, name: str, run: str) -> dict[str, Any]:
    path = hospitals.folder / name / "runs" / f"{run}.outcome.json"
    until(path.exists, 150, f"run {run} ends at {name}: {hospitals.log(name)[-2000:]}")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def refusals(hospitals: Hospitals, run: str) -> dict[str, set[str]]:
    """Site -> the reasons for which it refused messages of the coordinator in a run."""
    return {
        site: {
            entry["reason"]
            for entry in hospitals.entries(site, "message-refused")
            if entry["claimed"] == "coordinator" and entry["run"] == run
        }
        for site in SITES
    }


def counted(hospitals: Hospitals, name: str, run: str) -> list[int]:
    """Rounds that a coordinator has completed."""
    return [entry["round"] for entry in hospitals.entries(name, "round") if entry["run"] == run]


def losses(hospitals: Hospitals, name: str, run: str) -> dict[int, float]:
    """Round -> its training loss, of the rounds that a coordinator has completed."""
    lines = (hospitals.folder / name / "runs" / run / "journal.jsonl").read_text().splitlines()
    records = [record for line in lines for record in json.loads(line)["records"]]
    return {record["round"]: record["train_loss"] for record in records if "round" in record}


def test_a_copy_goes_on_where_its_sites_are_and_the_older_one_is_refused_by_name(
    hospitals: Hospitals, tmp_path: Path
) -> None:
    job, more = write_job(tmp_path, "scaffold"), ("training.rounds=7", "seed=31")
    first = int(hospitals.listen.rpartition(":")[2])
    run = hospitals.submit(job, overrides=more)
    hospitals.reached(run, 2)
    with frozen(hospitals, "coordinator"):
        hospitals.cable.move(hospitals.copy_coordinator("copy"))
        hospitals.start("copy")
        assert ended(hospitals, "copy", run)["status"] == "done"
    before = counted(hospitals, "coordinator", run)
    assert counted(hospitals, "copy", run) == list(range(7))  # the copy's log begins as the first one's did
    assert_same_model(hospitals.folder / "copy" / "runs" / run, local_model(job, tmp_path / "local", *more))
    # the first one is still in the middle of the run when sites hear it again
    assert len(before) < 7
    hospitals.cable.move(first)
    outcome = ended(hospitals, "coordinator", run)
    hospitals.kill("copy")
    assert outcome["status"] == "failed"
    assert "in use in two places" in outcome["cause"]
    # what the first one had sent before the copy spoke is no second place yet, only behind
    assert all(
        {"second-place"} <= reasons <= {"second-place", "behind"} for reasons in refusals(hospitals, run).values()
    )
    # what was on its way when it was frozen may have completed one more round, of the same contributions
    assert counted(hospitals, "coordinator", run) in (before, [*before, len(before)])
    both = losses(hospitals, "coordinator", run), losses(hospitals, "copy", run)
    assert len(both[0]) >= 2
    assert both[0].items() <= both[1].items()
    assert not (hospitals.run_folder(run) / "model.safetensors").exists()


@pytest.mark.long
def test_a_copy_that_is_older_than_what_its_sites_know_says_why_it_cannot_go_on_and_the_first_one_can(
    hospitals: Hospitals, tmp_path: Path
) -> None:
    job, more = write_job(tmp_path, "scaffold"), ("training.rounds=12", "seed=32")
    hospitals.online()
    run = hospitals.submit(job, overrides=more)
    hospitals.reached(run, 1)
    with frozen(hospitals, "coordinator"):
        port = hospitals.copy_coordinator("old")
    had = counted(hospitals, "old", run)
    hospitals.reached(run, had[-1] + 3)
    with frozen(hospitals, "coordinator"):
        hospitals.start("old")
        hospitals.cable.move(port)
        outcome = ended(hospitals, "old", run)
        hospitals.kill("old")
        assert outcome["status"] == "failed"
        assert "an older copy" in outcome["cause"]
        assert refusals(hospitals, run) == {site: {"behind"} for site in SITES}
        assert counted(hospitals, "old", run) == had
        for site in SITES:  # the copy has ended, and the first one is the only one again
            checkup.clear(hospitals.folder / site, "coordinator")
        hospitals.cable.move(int(hospitals.listen.rpartition(":")[2]))
    assert hospitals.outcome(run, 180)["status"] == "done"
    assert counted(hospitals, "coordinator", run) == list(range(12))
    assert_same_model(hospitals.run_folder(run), local_model(job, tmp_path / "local", *more))

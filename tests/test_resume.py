"""Resumed equals uninterrupted, in bits: after a kill at any moment, an interruption, a full disk."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

HERE = Path(__file__).parent
POSIX = pytest.mark.skipif(not hasattr(os, "fork"), reason="kills and limits of POSIX")
TREE: dict[str, Any] = {
    "name": "resumed",
    "seed": 3,
    "partition": {"kind": "dirichlet", "sites": 5},
    "model": {"local": ["linear.bias"]},
    "algorithm": {"name": "scaffold"},
    "training": {"rounds": 40, "local_steps": 2},
    "participation": {"fraction": 0.6},
    "evaluation": {"bootstrap": 0, "baselines": []},
    "engine": {"threads": 1, "commit_seconds": 0},
}


@POSIX
@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.long)])
def test_kills_leave_no_trace(kills: int, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(HERE / "kill_runs.py"), str(tmp_path), str(kills)],
        capture_output=True, text=True, check=False, timeout=2400, env={**os.environ, "MPLBACKEND": "Agg"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert len(told) == kills
    for kill in told:
        assert kill["same result"], kill
        assert kill["same tensors"], kill
        assert kill["left over"] == []
    # the moments are spread: of many, some hit training, and some what comes before or after it
    assert len({kill["stage"] for kill in told}) >= (3 if kills == 20 else 1)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nobody disturbed."""
    from wardround import Job, run

    out = tmp_path_factory.mktemp("whole") / "run"
    run(Job.model_validate(TREE), out, report=False)
    return out


def start(tmp_path: Path, out: Path, *before: str) -> subprocess.Popen[str]:
    job = tmp_path / "job.yaml"
    job.write_text(yaml.safe_dump(TREE))
    # a runner that sits in the background may have handed down that interruptions are ignored
    heed = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    code = "\n".join([heed, *before, "from wardround.cli.app import main", "main()"])
    return subprocess.Popen(
        [sys.executable, "-c", code, "run", str(job), "--out", str(out), "--no-report"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 480
    while not condition() and process.poll() is None:
        assert time.monotonic() < end, "the run did not come so far in eight minutes"
        time.sleep(0.002)


def commits(out: Path) -> int:
    journal = out / "journal.jsonl"
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


def assert_same(one: Path, other: Path) -> None:
    def timeless(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: timeless(item) for key, item in value.items() if key != "seconds"}
        return [timeless(item) for item in value] if isinstance(value, list) else value

    results = [timeless(json.loads((folder / "result.json").read_text())) for folder in (one, other)]
    assert results[0] == results[1]
    names = [
        "model.safetensors",
        "overlay-average.safetensors",
        *(f"overlays/site-{k}.safetensors" for k in range(1, 6)),
    ]
    for name in names:
        mine, theirs = load_file(one / name), load_file(other / name)
        assert mine.keys() == theirs.keys()
        for tensor in mine:
            assert torch.equal(mine[tensor], theirs[tensor])


@POSIX
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_command_that_was_stopped_goes_on(how: signal.Signals, tmp_path: Path, whole: Path) -> None:
    from wardround import load, run

    out = tmp_path / "run"
    process = start(tmp_path, out)
    wait_for(lambda: commits(out) >= 5, process)
    process.send_signal(how)
    _, said = process.communicate(timeout=240)
    assert commits(out) < 41, "the run ended before the signal came"
    if how is signal.SIGINT:
        assert process.returncode == 130
        assert f"wardround resume {out}" in said
        assert "Traceback" not in said
        assert json.loads((out / "run.json").read_text())["status"] == "interrupted"
    else:
        assert process.returncode == -signal.SIGKILL
    run(load(out / "job.yaml"), out, resume=True, report=False)
    assert_same(out, whole)


@POSIX
def test_a_full_disk_costs_nothing_that_was_committed(tmp_path: Path, whole: Path) -> None:
    from wardround import load, run
    from wardround.store.run import Run

    out = tmp_path / "run"
    size = (whole / "journal.jsonl").stat().st_size
    # no file may grow beyond half of what the journal needs: writing fails in the middle of the rounds
    limit = ("import resource", f"resource.setrlimit(resource.RLIMIT_FSIZE, ({size // 2},) * 2)")
    process = start(tmp_path, out, *limit)
    _, said = process.communicate(timeout=480)
    assert process.returncode == 8, said
    assert "journal.jsonl could not be extended" in said
    assert "Traceback" not in said
    with Run.open(out, writer=False) as stopped:
        assert stopped.completed is not None
        assert 5 < stopped.completed < 35
        assert stopped.status == "failed"
        stopped.verify()
    run(load(out / "job.yaml"), out, resume=True, report=False)
    assert_same(out, whole)


def test_a_folder_without_a_head_is_begun_again(tmp_path: Path, whole: Path) -> None:
    """What a kill leaves before run.json is written: the lock, an empty journal, the job, a temporary file."""
    from wardround import Job, run

    out = tmp_path / "run"
    out.mkdir()
    for name in (".lock", "journal.jsonl", "job.yaml", ".run.json.0a1b2c3d.tmp"):
        (out / name).write_text("")
    run(Job.model_validate(TREE), out, report=False)
    assert_same(out, whole)
    assert not list(out.glob(".*.tmp"))


def test_resuming_what_is_done_changes_nothing(whole: Path) -> None:
    from wardround import Job, run

    before = {p: p.read_bytes() for p in whole.rglob("*") if p.is_file() and p.name != ".lock"}
    result = run(Job.model_validate(TREE), whole, resume=True, report=False)
    assert result == json.loads((whole / "result.json").read_text())
    assert {p: p.read_bytes() for p in whole.rglob("*") if p.is_file() and p.name != ".lock"} == before


def test_an_interruption_in_this_process_is_recorded_and_goes_on(tmp_path: Path, whole: Path) -> None:
    from wardround import Job, run

    out, job = tmp_path / "run", Job.model_validate(TREE)

    def interrupt(event: Any) -> None:
        if event["event"] == "round" and event["round"] == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(job, out, report=False, listener=interrupt)
    assert json.loads((out / "run.json").read_text())["status"] == "interrupted"
    assert commits(out) == 9
    rounds: list[int] = []
    run(
        job,
        out,
        resume=True,
        report=False,
        listener=lambda e: rounds.append(e["round"]) if e["event"] == "round" else None,
    )
    assert rounds == list(range(8, 40))
    assert_same(out, whole)


def test_a_lost_model_or_page_of_a_finished_run_is_made_again(whole: Path, tmp_path: Path) -> None:
    from wardround import Job, run

    copy = tmp_path / "run"
    shutil.copytree(whole, copy)
    (copy / "model.safetensors").unlink()
    run(Job.model_validate(TREE), copy, resume=True, report=False)
    assert_same(copy, whole)
    assert not (copy / "report.html").exists()
    run(Job.model_validate(TREE), copy, resume=True)
    assert (copy / "report.html").exists()


def test_changed_plug_in_code_is_not_resumed_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from wardround import Job, run
    from wardround.errors import RunError

    source = tmp_path / "rule_of_today.py"
    source.write_text("from wardround.algorithms.fedavg import FedAvg\n\n\nclass Rule(FedAvg):\n    pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    job = Job.model_validate({**TREE, "algorithm": {"name": "rule_of_today:Rule"}})
    run(job, tmp_path / "run", report=False)
    source.write_text(source.read_text() + "# changed\n")
    with pytest.raises(RunError, match="plugins"):
        run(job, tmp_path / "run", resume=True, report=False)

"""`wardround run`: what it writes, where, and what it says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors import safe_open

METRICS = {
    "accuracy", "auroc", "auprc", "balanced_accuracy", "sensitivity", "specificity", "ppv", "npv", "f1", "kappa", "brier", "ece",
}  # fmt: skip
LEAN = ("--no-report", "-s", "evaluation.baselines=[]", "-s", "evaluation.bootstrap=0")
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A short run of the example by the real command, from a folder that is not the repository's."""
    here = tmp_path_factory.mktemp("real")
    command = [
        *(sys.executable, "-m", "wardround", "run", str(ROOT / "examples/wdbc.yaml"), "--out", "demo"),
        *("--set", "training.rounds=4", "--set", "evaluation.bootstrap=50", "--set", "engine.threads=1"),
    ]
    environment = {**os.environ, "MPLBACKEND": "Agg", "COLUMNS": "200"}
    done = subprocess.run(command, cwd=here, capture_output=True, text=True, check=False, env=environment)
    return here / "demo", done


def result_of(folder: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return result


def test_the_real_command_ends_well(finished: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, done = finished
    assert done.returncode == 0, done.stderr
    assert "federated" in done.stdout
    assert f"demo{os.sep}report.html" in done.stdout
    assert "Traceback" not in done.stderr
    assert "Warning" not in done.stderr
    assert {p.name for p in folder.iterdir()} >= {"result.json", "model.safetensors", "report.html", "job.yaml"}


def test_the_result_keeps_its_contract(finished: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    result = result_of(finished[0])
    for arm in ("federated", "centralized", "local", "majority"):
        assert set(result[arm]) == {"pooled", "site_mean", "sites"}
        assert set(result[arm]["sites"]) == {f"site-{k}" for k in range(1, 6)}
        for figures in (result[arm]["pooled"], result[arm]["site_mean"], *result[arm]["sites"].values()):
            names = {n.removesuffix("_low").removesuffix("_high") for n in figures} - {"rows", "records"}
            assert names <= METRICS
            for name in set(figures) & METRICS:
                assert 0.0 <= figures[name] <= 1.0 or name == "kappa"
    for arm in ("federated", "centralized", "local"):
        pooled = result[arm]["pooled"]
        assert set(pooled) >= METRICS
        assert all(pooled[f"{name}_low"] <= pooled[f"{name}_high"] for name in METRICS)
    assert result["personalized"] is False
    assert result["rounds"] == 4
    assert 0 <= result["selected_round"] <= 4
    assert result["seconds"] > 0
    assert result["bytes_up"] > 0
    assert result["bytes_down"] > 0
    assert result["executor"] in ("stacked", "sequential")
    assert len(result["history"]["federated"]) == 4


def test_what_is_undefined_is_absent(finished: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    result = result_of(finished[0])
    # a constant decision has no ranking and no calibration
    assert not {"auroc", "auprc", "brier", "ece"} & set(result["majority"]["pooled"])
    for site, counts in result["partition"].items():
        one_class = 0 in counts["test"]
        assert ("auroc" in result["federated"]["sites"][site]) is not one_class
    assert "NaN" not in (finished[0] / "result.json").read_text()


def test_the_model_file_opens_with_safetensors(finished: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    with safe_open(finished[0] / "model.safetensors", "pt") as file:
        assert set(file.keys()) == {"linear.weight", "linear.bias"}
        assert file.get_tensor("linear.weight").shape == (1, 30)
        assert file.metadata()["format"] == "wardround-model-1"


def test_the_report_is_one_page_without_the_network(finished: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    page = (finished[0] / "report.html").read_text()
    assert page.lstrip().lower().startswith("<!doctype html>")
    assert 'src="http' not in page
    assert "@import" not in page


def test_report_is_written_again_alike(finished: tuple[Path, subprocess.CompletedProcess[str]], wardround: Any) -> None:
    page = finished[0] / "report.html"
    before = page.read_text()
    page.unlink()
    ended = wardround("report", finished[0])
    assert ended.code == 0
    assert page.read_text() == before


def test_resuming_a_finished_run_gives_its_result(
    finished: tuple[Path, subprocess.CompletedProcess[str]], wardround: Any
) -> None:
    before = (finished[0] / "result.json").read_bytes()
    ended = wardround("resume", finished[0], "--json")
    assert ended.code == 0
    assert ended.events()[-1] == {"event": "result", **result_of(finished[0])}
    assert (finished[0] / "result.json").read_bytes() == before


def test_json_is_one_object_a_line_and_the_result_last(job: Path, tmp_path: Path, wardround: Any) -> None:
    ended = wardround("run", job, "--out", tmp_path / "run", "--json", "--no-report")
    assert ended.code == 0
    assert ended.err == ""
    events = ended.events()
    assert events[-1] == {"event": "result", **result_of(tmp_path / "run")}
    rounds = [(e["arm"], e["round"]) for e in events if e["event"] == "round"]
    assert rounds == [(arm, k) for arm in ("federated", "centralized", "local") for k in range(3)]


def test_quiet_says_nothing_on_success(job: Path, tmp_path: Path, wardround: Any) -> None:
    ended = wardround("run", job, "--out", tmp_path / "run", "--quiet", *LEAN)
    assert (ended.code, ended.out, ended.err) == (0, "", "")
    assert result_of(tmp_path / "run")["rounds"] == 3


def test_without_a_report_none_is_written_or_named(job: Path, tmp_path: Path, wardround: Any) -> None:
    ended = wardround("run", job, "--out", tmp_path / "run", *LEAN)
    assert "report:" not in ended.out
    assert "model.safetensors" in ended.out
    assert not (tmp_path / "run/report.html").exists()
    assert not (tmp_path / "run/figures").exists()


def test_without_out_the_folder_takes_the_name_and_a_number(
    job: Path, tmp_path: Path, wardround: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert wardround("run", job, *LEAN, "-s", "training.rounds=1").code == 0
    assert sorted(p.name for p in (tmp_path / "runs").iterdir()) == ["quick", "quick-2"]


def test_set_wins_over_the_file_and_is_recorded(job: Path, tmp_path: Path, wardround: Any) -> None:
    ended = wardround(
        "run", job, "--out", tmp_path / "run", *LEAN, "--set", "training.rounds=2", "-s", "training.local_epochs=1"
    )
    assert ended.code == 0
    recorded = yaml.safe_load((tmp_path / "run/job.yaml").read_text())
    assert recorded["training"]["rounds"] == 2
    assert (recorded["training"]["local_epochs"], recorded["training"]["local_steps"]) == (1, None)


def test_overwrite_replaces_a_run_and_only_a_run(job: Path, tmp_path: Path, wardround: Any) -> None:
    out = tmp_path / "run"
    assert wardround("run", job, "--out", out, *LEAN, "-s", "training.rounds=1").code == 0
    (out / "mine.txt").write_text("left in the run's folder")
    again = wardround("run", job, "--out", out, *LEAN)
    assert again.code == 6
    assert f"wardround resume {out}" in again.err
    assert wardround("run", job, "--out", out, "--overwrite", *LEAN).code == 0
    assert result_of(out)["rounds"] == 3
    assert not (out / "mine.txt").exists()
    # there may be no run yet
    assert wardround("run", job, "--out", tmp_path / "new", "--overwrite", *LEAN).code == 0


def test_overwrite_leaves_the_old_run_where_the_new_one_cannot_begin(job: Path, tmp_path: Path, wardround: Any) -> None:
    out = tmp_path / "run"
    assert wardround("run", job, "--out", out, *LEAN).code == 0
    before = (out / "result.json").read_bytes()
    for wrong in ("training.rounds=0", "model.name=lgistic", "partition.sites=600", "participation.quorum=6"):
        assert wardround("run", job, "--out", out, "--overwrite", "-s", wrong, *LEAN).code in (2, 3)
        assert (out / "result.json").read_bytes() == before


def test_overwrite_leaves_a_folder_of_other_files(job: Path, tmp_path: Path, wardround: Any) -> None:
    out = tmp_path / "papers"
    out.mkdir()
    (out / "thesis.tex").write_text("years of work")
    for option in ((), ("--overwrite",)):
        ended = wardround("run", job, "--out", out, *option, *LEAN)
        assert ended.code == 6
        assert "thesis.tex" in ended.err
    assert (out / "thesis.tex").read_text() == "years of work"


def test_a_run_that_another_process_writes_is_not_overwritten(job: Path, tmp_path: Path, wardround: Any) -> None:
    from wardround.store.run import Run

    out = tmp_path / "run"
    assert wardround("run", job, "--out", out, *LEAN).code == 0
    with Run.open(out):
        ended = wardround("run", job, "--out", out, "--overwrite", *LEAN)
    assert ended.code == 6
    assert "another process" in ended.err
    assert (out / "result.json").exists()

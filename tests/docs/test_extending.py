"""The code of docs/extending.md, run as it stands there."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from docs.pages import ROOT, files
from wardround.config import load
from wardround.experiment import run
from wardround.store.run import Run

FILES = files(ROOT / "docs" / "extending.md")
QUICK = ["evaluation.bootstrap=0", "evaluation.baselines=[]"]


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that holds the page's files, from which modules are imported."""
    for name, content in FILES.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in FILES:
        sys.modules.pop(Path(name).stem, None)


def test_the_page_has_the_files_that_it_speaks_of() -> None:
    assert set(FILES) == {"my_rules.py", "my_models.py", "job.yaml", "my_data.py", "registry.yaml"}
    assert len(FILES["my_rules.py"].splitlines()) < 40


def test_the_rule_and_the_model_train(desk: Path) -> None:
    result = run(load("job.yaml", QUICK), "runs/mine", report=False)
    assert result["model"]["name"] == "my_models:Residual"
    assert result["executor"] == "stacked"
    assert result["federated"]["pooled"]["auroc"] > 0.95


def test_the_servers_memory_is_the_mean_of_the_sites(desk: Path) -> None:
    # h_k <- h_k - alpha d_k at every site and h <- h - alpha sum(d_k) / K, all from 0: so h = mean(h_k) after any round
    run(load("job.yaml", [*QUICK, "training.dtype=float64"]), "runs/mine", report=False)
    with Run.open("runs/mine", writer=False) as folder:
        server, sites, states = folder.restore()
    assert len(sites) == 4
    assert states.keys() == server.rule.keys()
    for name, kept in server.rule.items():
        assert kept.abs().max() > 0
        torch.testing.assert_close(kept, states[name].mean(0), rtol=0, atol=1e-12)


def test_the_rule_is_right_about_the_site_axis(desk: Path) -> None:
    models = []
    for executor in ("stacked", "sequential"):
        overrides = [*QUICK, "training.dtype=float64", f"engine.executor={executor}", "evaluation.select=last"]
        run(load("job.yaml", overrides), executor, report=False)
        with Run.open(executor, writer=False) as folder:
            models.append(folder.restore()[0].model.params)
    for name, value in models[0].items():
        torch.testing.assert_close(value, models[1][name], rtol=0, atol=1e-10)


def test_the_dataset_reads_a_file_a_hospital(desk: Path) -> None:
    (desk / "hospitals").mkdir()
    draw = np.random.default_rng(0)
    for hospital in ("north", "south"):
        lines = ["patient,age,sex,marker,ill"]
        for patient in range(80):
            marker = draw.normal()
            ill = "yes" if marker + 0.3 * draw.normal() > 0 else "no"
            shown = "" if patient % 10 == 0 else -1 if patient % 10 == 1 else f"{marker:.3f}"
            lines.append(f"p{patient // 2},{draw.integers(20, 90)},{draw.choice(['f', 'm'])},{shown},{ill}")
        (desk / "hospitals" / f"{hospital}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    result = run(load("registry.yaml", QUICK), "runs/registry", report=False)
    assert set(result["partition"]) == {"north", "south"}
    assert result["preprocessing"]["features"] == ["age", "marker", "sex=m"]
    assert result["federated"]["pooled"]["auroc"] > 0.8

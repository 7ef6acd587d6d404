from __future__ import annotations

import json
from pathlib import Path

from cli.conftest import Command


def test_counts_and_heterogeneity_without_training(wardround: Command, job: Path, tmp_path: Path) -> None:
    ended = wardround("data", "partition", job)
    assert ended.code == 0
    assert "site-5" in ended.out
    assert "all 5 sites" in ended.out
    assert "Label skew:" in ended.out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["job.yaml"]


def test_the_record_and_the_pictures_are_written(wardround: Command, job: Path, tmp_path: Path) -> None:
    out = tmp_path / "preview"
    ended = wardround("data", "partition", job, "--out", out, "--json", "-s", "partition.features.shift=1")
    shown = json.loads(ended.out)
    assert json.loads((out / "partition.json").read_text()) == shown
    assert sum(sum(split) for site in shown["partition"].values() for split in site.values()) == 569
    assert shown["heterogeneity"]["feature"]["skew"] > 0.2
    assert {path.name for path in out.iterdir()} == {"partition.json", "partition.png", "shift.png"}


def test_a_run_has_the_sites_that_were_previewed(wardround: Command, job: Path, tmp_path: Path) -> None:
    shown = json.loads(wardround("data", "partition", job, "--json").out)
    wardround("run", job, "--out", tmp_path / "run", "--quiet", "--no-report")
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["partition"] == shown["partition"]
    assert result["heterogeneity"] == shown["heterogeneity"]


def test_many_sites_are_summarised(wardround: Command, job: Path) -> None:
    ended = wardround("data", "partition", job, "-s", "partition={kind: iid, sites: 50, min_rows: 1}")
    assert "median (site-" in ended.out
    assert len(ended.out.splitlines()) < 15


def test_an_unknown_kind_is_refused(wardround: Command, job: Path) -> None:
    ended = wardround("data", "partition", job, "-s", "partition.kind=dirichle")
    assert ended.code == 2
    assert "did you mean 'dirichlet'" in ended.err

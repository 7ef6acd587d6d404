"""The pages of docs/partitions: one a kind, whose YAML is a job's and whose code runs."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from docs.pages import ROOT, blocks, files
from wardround.config.job import PartitionSpec
from wardround.config.load import from_mapping, parse_yaml
from wardround.data.partitions.partition import partition
from wardround.data.partitions.registry import NATURAL, PARTITIONS
from wardround.data.partitions.scanner import Scanner
from wardround.types import SiteData

FOLDER = ROOT / "docs" / "partitions"
PAGES = sorted(FOLDER.glob("*.md"))


def test_every_kind_has_a_page() -> None:
    assert {page.stem for page in PAGES} == {*PARTITIONS, NATURAL, "features", "scanner", "custom"}


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.stem not in ("custom", "scanner")], ids=lambda page: page.stem
)
def test_the_job_on_a_page_is_one_and_its_picture_is_made_by_the_command(page: Path) -> None:
    (tree,) = (parse_yaml(code, page.name) for code in blocks(page, "yaml"))
    kind = from_mapping(tree).partition.kind
    assert kind == ("iid" if page.stem == "features" else page.stem)
    (command,) = blocks(page, "console")
    assert f"--out partitions/{page.stem}" in command
    assert f"../images/partitions/{page.stem}-" in page.read_text(encoding="utf-8")


def test_the_scanner_on_its_page_is_one() -> None:
    (tree,) = (parse_yaml(code, "scanner.md") for code in blocks(FOLDER / "scanner.md", "yaml"))
    features = from_mapping(tree).partition.features
    assert (features.effect, Scanner(**features.options).strength) == ("scanner", 1.0)


def test_the_code_of_the_plug_ins_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = files(FOLDER / "custom.md")
    for name, content in code.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    pool = SiteData(features=np.zeros((40, 2)), labels=np.arange(40) % 2, patients=np.arange(40))
    spec = PartitionSpec.model_validate(
        {
            "kind": "my_partitions:ByAgeOfRecord",
            "sites": 4,
            "features": {"effect": "my_scanners:Brighter", "options": {"step": 2.0}},
        }
    )
    sites = partition({"p": pool}, spec, seed=0, classes=2)
    for name in code:
        sys.modules.pop(Path(name).stem, None)
    assert sites["site-2"].patients.tolist() == list(range(10, 20))
    assert (sites["site-4"].features == 6.0).all()

"""README.md: its Python example runs, and it stays short."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from docs.pages import ROOT, blocks

README = ROOT / "README.md"


def test_the_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    (code,) = blocks(README, "python")
    exec(compile(code, "README.md", "exec"), {"__name__": "example"})
    said = capsys.readouterr().out.splitlines()
    figures = re.fullmatch(r"AUROC (\d\.\d{3}) \[(\d\.\d{3}), (\d\.\d{3})\]", said[0])
    assert figures is not None
    assert float(figures[2]) <= float(figures[1]) <= float(figures[3])
    # the first three women of the set have cancer
    assert said[1].startswith("('benign', 'malignant') [0.9") or said[1].startswith("('benign', 'malignant') [1.")


def test_it_stays_short() -> None:
    lines = README.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 160

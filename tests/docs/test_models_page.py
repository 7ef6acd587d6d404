"""The code of docs/models.md, run as it stands there; its table has every built-in model."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from docs.pages import ROOT, blocks, files
from wardround.config import load
from wardround.experiment import run
from wardround.models.registry import MODELS

PAGE = ROOT / "docs" / "models.md"


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that holds the page's files, from which modules are imported."""
    for name, content in files(PAGE).items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("my_networks", None)


def test_every_built_in_model_is_in_the_table() -> None:
    named = re.findall(r"^\| `(\w+)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert named == list(MODELS)


@pytest.mark.skipif(importlib.util.find_spec("keras") is None, reason='Keras is absent: pip install "wardround[keras]"')
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras's own, when it saves
def test_the_keras_model_trains_and_goes_back(desk: Path) -> None:
    assert os.environ.get("KERAS_BACKEND", "torch") == "torch"
    quick = ["evaluation.bootstrap=0", "evaluation.baselines=[]"]
    result = run(load("keras.yaml", quick), "runs/keras", report=False)
    assert result["executor"] == "stacked"
    assert result["personalized"]
    assert result["federated"]["pooled"]["auroc"] > 0.95
    exec(compile(blocks(PAGE, "python")[1], str(PAGE), "exec"), {})
    assert (desk / "site-1.keras").stat().st_size > 0

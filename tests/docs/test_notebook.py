"""The example notebook: it runs from top to bottom, shows what it promises, and is kept without outputs."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from docs.pages import ROOT

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

NOTEBOOK = ROOT / "examples" / "notebooks" / "compare.ipynb"


def outputs(notebook: nbformat.NotebookNode, kind: str) -> list[str]:
    """All outputs of a MIME type, in order."""
    found = [output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", [])]
    return [data[kind] for data in found if kind in data]


def test_it_is_kept_without_outputs() -> None:
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert len(code) > 8
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)


def test_its_links_lead_somewhere() -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", NOTEBOOK.read_text(encoding="utf-8"))
    assert len(targets) > 3
    assert [target for target in targets if not (NOTEBOOK.parent / target).exists()] == []


@pytest.mark.long
def test_it_runs(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "examples", tmp_path / "examples", ignore=shutil.ignore_patterns("runs"))
    folder = tmp_path / "examples" / "notebooks"
    notebook = nbformat.read(folder / NOTEBOOK.name, as_version=4)
    nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3").execute(cwd=folder)
    assert len(outputs(notebook, "image/png")) == 4
    (conclusion,) = outputs(notebook, "text/markdown")
    for setting in ("IID", "alpha 0.5", "alpha 0.1"):
        assert f"- {setting}: " in conclusion
    assert "Rests on 3 seeds" in conclusion
    said = [output for cell in notebook.cells for output in cell.get("outputs", []) if output.output_type == "stream"]
    assert said == []
    tables = outputs(notebook, "text/html")
    assert len(tables) == 6
    assert "malignant" in tables[-1]

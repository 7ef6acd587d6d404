"""docs/job.md is what docs/generate_job.py writes from the job's classes as they are."""

from __future__ import annotations

import importlib.util
from types import ModuleType

import pytest

from docs.pages import ROOT
from wardround.config.job import Job
from wardround.config.load import dump, from_mapping, parse_yaml


@pytest.fixture
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_job", ROOT / "docs" / "generate_job.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_up_to_date(generator: ModuleType) -> None:
    there = (ROOT / "docs" / "job.md").read_text(encoding="utf-8")
    assert there == generator.page(), "run `.venv/bin/python docs/generate_job.py`"


def test_every_key_of_a_job_is_on_the_page(generator: ModuleType) -> None:
    def leaves(tree: object, prefix: str) -> list[str]:
        if isinstance(tree, dict) and tree:
            return [leaf for key, value in tree.items() for leaf in leaves(value, f"{prefix}{key}.")]
        return [prefix.removesuffix(".")]

    page = generator.page()
    keys = leaves(parse_yaml(dump(Job()), "dump"), "")
    assert len(keys) > 40
    assert [key for key in keys if f"| `{key}` |" not in page] == []


def test_a_default_on_the_page_is_the_one_in_the_job(generator: ModuleType) -> None:
    assert "| `training.batch_size` | whole number at least 1 | `16` |" in generator.page()
    assert from_mapping({}).training.batch_size == 16


def test_a_key_without_meaning_is_refused(generator: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Job.model_fields["seed"], "description", None)
    with pytest.raises(ValueError, match="seed: say what it means"):
        generator.page()


def test_a_note_without_key_is_refused(generator: ModuleType) -> None:
    generator.NOTES = {"training.depth": "?"}
    with pytest.raises(ValueError, match=r"training\.depth"):
        generator.page()

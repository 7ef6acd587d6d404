"""docs/algorithms.md and docs/rules/: a page for each rule, and the presets as they are."""

from __future__ import annotations

import re

import yaml

from docs.pages import ROOT
from wardround.algorithms.presets import PRESETS
from wardround.algorithms.registry import LOCAL_RULES, SERVER_RULES
from wardround.config.load import from_mapping

INDEX = (ROOT / "docs" / "algorithms.md").read_text(encoding="utf-8")
RULES = ROOT / "docs" / "rules"


def test_every_rule_has_a_page_and_a_row() -> None:
    named = {*LOCAL_RULES, *SERVER_RULES}
    assert {page.stem for page in RULES.glob("*.md")} == named | {"fine-tuning"}
    assert set(re.findall(r"^\| \[`(\w+)`\]\(rules/\1\.md\)", INDEX, re.MULTILINE)) == named


def test_the_table_of_presets_is_that_of_the_code() -> None:
    rows = re.findall(r"^\| `(\w+)` \| `([\w.]+): (\w+)` \|$", INDEX, re.MULTILINE)
    assert {name: {key: value} for name, key, value in rows} == PRESETS


def test_the_job_on_each_page_chooses_its_rule() -> None:
    for page in RULES.glob("*.md"):
        first = re.search(r"\n\n((?:    .*\n)+)\n", page.read_text(encoding="utf-8"))
        assert first is not None
        job = from_mapping(yaml.safe_load(first[1]))
        if page.stem == "fine-tuning":
            assert job.finetuning.epochs > 0
        else:
            assert page.stem in (job.algorithm.name, job.algorithm.server.name)

"""The pages name every key of the policy with its default, and every kind of entry and fact of the audit log."""

from __future__ import annotations

import json
import re

import pytest
from pydantic import BaseModel

from docs.pages import ROOT, blocks
from wardround.config.load import parse_yaml
from wardround.deploy import policy
from wardround.deploy.audit import KINDS
from wardround.deploy.policy import SitePolicy
from wardround.deploy.project import Project, strict_from

PAGES = ROOT / "docs" / "deploy"
NODES: dict[str, type[BaseModel]] = {
    "data.NAME.": policy.Binding,
    "allow.": policy.Allow,
    "privacy.": policy.PrivacyFloor,
    "cohort.": policy.Cohort,
    "release.": policy.Release,
    "limits.": policy.Limits,
    "schedule.": policy.Schedule,
    "approval.": policy.ApprovalSpec,
    "approval.auto[].": policy.AutoRule,
}


@pytest.mark.parametrize("prefix", NODES)
def test_the_policy_page_says_what_the_policy_says(prefix: str) -> None:
    page = (PAGES / "policy.md").read_text(encoding="utf-8")
    for name, field in NODES[prefix].model_fields.items():
        default = "required" if field.is_required() else f"`{json.dumps(field.get_default(call_default_factory=True))}`"
        meaning = " ".join((field.description or "").split())
        assert f"| `{prefix}{name}` | {default} | {meaning} |" in page


def test_the_policy_page_has_a_heading_for_every_part() -> None:
    page = (PAGES / "policy.md").read_text(encoding="utf-8")
    assert set(SitePolicy.model_fields) <= set(re.findall(r"^## (\w+)$", page, re.MULTILINE))


def test_the_audit_page_has_every_kind_and_its_facts() -> None:
    page = (PAGES / "audit.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `([a-z-]+)` \| (`\w+`(?: `\w+`)*) \|", page, re.MULTILINE))
    assert {kind: set(re.findall(r"`(\w+)`", facts)) for kind, facts in rows.items()} == {
        kind: set(facts) for kind, facts in KINDS.items()
    }


def test_the_audit_page_has_every_reason_for_a_refusal() -> None:
    page = (PAGES / "audit.md").read_text(encoding="utf-8")
    told = page.partition("## Why a message is refused")[2]
    source = ROOT / "src" / "wardround" / "deploy"
    code = "".join((source / name).read_text(encoding="utf-8") for name in ("envelope.py", "identity.py"))
    reasons = set(re.findall(r'(?:Envelope|Identity)Refused\(\s*"([a-z-]+)"', code))
    assert len(reasons) > 10
    assert {reason for reason in reasons if f"`{reason}`" not in told} == set()


def test_the_examples_of_the_pages_are_valid() -> None:
    (first, *_) = blocks(PAGES / "policy.md", "yaml")
    assert strict_from(parse_yaml(first, "page"), SitePolicy, "page").data
    (project, *_) = blocks(PAGES / "trust.md", "yaml")
    assert strict_from(parse_yaml(project, "page"), Project, "page").sites

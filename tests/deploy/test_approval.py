"""Who lets a job run: an administrator, or a rule; what holds no longer, and what they read before they decide."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from wardround.config.load import from_mapping
from wardround.deploy import approval as module
from wardround.deploy import audit, canonical
from wardround.deploy.approval import Approvals, Decision
from wardround.deploy.audit import AuditLog
from wardround.deploy.identity import Identity
from wardround.deploy.jobs import SignedJob, sign_job
from wardround.deploy.policy import Asked, Facts, SitePolicy, Verdict
from wardround.deploy.project import strict_from
from wardround.errors import ConfigError, Refused, RunError, StorageError

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SMITH, JONES = Identity.generate("dr-smith"), Identity.generate("dr-jones")
SITES = {name: Identity.generate(name).fingerprint for name in ("budapest", "cleveland", "zurich")}
FACTS = Facts(rows=200, classes={"healthy": 150, "ill": 90})
RULE = {"name": "nightly", "submitters": ["dr-smith"]}
POLICY: dict[str, Any] = {
    "data": {"heart": {"dataset": "heart"}},
    "allow": {
        "submitters": ["dr-smith", "dr-jones"],
        "models": ["logistic", "mlp"],
        "algorithms": ["fedavg", "scaffold"],
    },
}


class Site:
    """A site's decisions, with a policy that a test may edit."""

    def __init__(self, folder: Path) -> None:
        self.path = folder
        self.tree = POLICY
        self.identity = Identity.generate("zurich")
        self.log = AuditLog(folder / "audit.jsonl", None)
        self.approvals = Approvals(folder / "jobs", self.policy, self.log, self.identity)

    def policy(self) -> SitePolicy:
        return strict_from(self.tree, SitePolicy, "site.yaml")

    def judge(self, signed: SignedJob) -> Verdict:
        asked = Asked(submitter=signed.submitter, sites=tuple(signed.sites), plugins=signed.plugins)
        return self.policy().judge(signed.job, FACTS, asked)

    def receive(self, signed: SignedJob, now: datetime = NOW) -> Decision:
        return self.approvals.receive(signed, self.judge(signed), now=now)

    def approve(self, signed: SignedJob) -> Decision:
        return self.approvals.approve(signed.id, self.judge(signed), now=NOW)

    def check(self, signed: SignedJob, now: datetime = NOW) -> None:
        self.approvals.check(signed, self.judge(signed), now=now)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def job(by: Identity = SMITH, sites: dict[str, str] = SITES, **changes: Any) -> SignedJob:
    tree = {
        "data": {"dataset": "heart"}, "participation": {"quorum": 3}, "privacy": {"channel": {"kind": "secagg"}},
        "evaluation": {"baselines": []}, **changes,
    }  # fmt: skip
    return sign_job(by, from_mapping(tree), sites, now=NOW)


def test_an_allowed_job_waits_for_the_administrator(site: Site) -> None:
    signed = job()
    assert site.receive(signed).status == "pending"
    with pytest.raises(Refused, match="is pending"):
        site.check(signed)
    assert site.approve(signed).status == "approved"
    site.check(signed)
    assert site.receive(signed).status == "approved"  # asked again, it goes on


def test_a_job_that_never_came_is_not_run(site: Site) -> None:
    with pytest.raises(Refused, match="is unknown here"):
        site.check(job())
    with pytest.raises(ConfigError, match="there is no job"):
        site.approvals.deny("heart-1")


def test_a_job_that_the_policy_forbids_cannot_be_approved(site: Site) -> None:
    signed = job(model={"name": "cnn"})
    decision = site.receive(signed)
    assert decision.status == "refused"
    assert "allow.models" in decision.reasons[0]
    with pytest.raises(Refused, match=r"not allowed by site\.yaml"):
        site.approve(signed)
    with pytest.raises(Refused, match="is not allowed here"):
        site.check(signed)


def test_a_denied_job_stays_denied_and_an_approval_can_be_taken_back(site: Site) -> None:
    signed = job()
    site.receive(signed)
    site.approve(signed)
    site.approvals.deny(signed.id, note="after all", now=NOW)
    with pytest.raises(Refused, match="is denied"):
        site.check(signed)
    site.tree = {**POLICY, "approval": {"auto": [{**RULE, "like_last": False}]}}
    assert site.receive(signed).status == "denied"
    site.tree = {**POLICY, "allow": {}}
    assert site.receive(signed).status == "denied"


def test_an_approval_is_for_one_policy_and_not_for_ever(site: Site) -> None:
    signed = job()
    site.receive(signed)
    site.approve(signed)
    site.tree = {**POLICY, "limits": {"hours_a_run": 1000}}
    site.receive(signed)
    site.approve(signed)
    site.check(signed, NOW + timedelta(days=30))
    with pytest.raises(Refused, match=r"31 days old, and approval.days is 30"):
        site.check(signed, NOW + timedelta(days=31))
    assert site.receive(signed, NOW + timedelta(days=31)).status == "pending"
    site.approve(signed)
    site.tree = {**POLICY, "limits": {"rounds": 100}}
    with pytest.raises(Refused, match=r"site.yaml was changed since"):
        site.check(signed)
    assert site.receive(signed).status == "pending"
    site.approve(signed)
    site.tree = {**POLICY, "limits": {"rounds": 1}}
    with pytest.raises(Refused, match=r"limits\.rounds is 1"):
        site.check(signed)
    assert site.receive(signed).status == "refused"


def test_a_run_has_so_many_hours(site: Site) -> None:
    site.tree = {**POLICY, "limits": {"hours_a_run": 2}}
    signed = job()
    site.receive(signed)
    site.approve(signed)
    begins = NOW + timedelta(hours=5)
    site.check(signed, begins)
    site.check(signed, begins + timedelta(hours=2))
    with pytest.raises(Refused, match=r"began 2\.1 h ago, and limits\.hours_a_run is 2"):
        site.check(signed, begins + timedelta(hours=2.1))
    (site.path / "jobs" / signed.id / "begun").write_text("yesterday")
    with pytest.raises(RunError, match="hours are counted anew"):
        site.check(signed, begins)


def test_another_job_under_a_known_id_is_not_approved(site: Site) -> None:
    signed, other = job(), job(seed=1)
    site.receive(signed)
    site.approve(signed)
    (site.path / "jobs" / signed.id / "job.json").write_bytes(other.to_bytes())
    with pytest.raises(RunError, match="holds another job"):
        site.approvals.signed(signed.id)
    with pytest.raises(Refused, match="is unknown here"):
        site.check(other)


def test_an_edited_decision_is_not_believed_where_it_is_no_decision(site: Site) -> None:
    signed = job()
    site.receive(signed)
    path = site.path / "jobs" / signed.id / "decision.json"
    path.write_text('{"status":"approved"}')
    with pytest.raises(RunError, match="is damaged"):
        site.check(signed)


def decision_file(site: Site, signed: SignedJob) -> Path:
    return site.path / "jobs" / signed.id / "decision.json"


def edited(site: Site, signed: SignedJob, **changes: Any) -> None:
    """As somebody with a text editor would."""
    path = decision_file(site, signed)
    path.write_bytes(canonical.encode({**json.loads(path.read_bytes()), **changes}))


def refusals(site: Site) -> list[tuple[Any, Any]]:
    return [(one["job"], one["reason"]) for one in site.log.entries() if one["kind"] == "decision-refused"]


def test_an_approval_that_the_site_did_not_sign_is_none(site: Site) -> None:
    signed = job()
    site.receive(signed)
    edited(site, signed, status="approved", by="root")
    assert [one.status for one in site.approvals.decisions()] == ["pending"]
    assert refusals(site) == []  # a look is no entry
    with pytest.raises(Refused, match="is pending"):
        site.check(signed)
    with pytest.raises(Refused, match="is pending"):
        site.check(signed)
    assert refusals(site) == [(signed.id, "signature")]  # and it is noted once
    site.approve(signed)
    site.check(signed)


@pytest.mark.parametrize(
    "changes", [{"digest": "0" * 64}, {"policy": "0" * 64}, {"time": "2036-03-01T12:00:00.000+00:00"}, {"by": "rule:x"},
    {"number": 99}, {"signature": "0" * 128}, {"signature": "x"}, {"entry": "0" * 64}, {"note": "fine"}],
)  # fmt: skip
def test_each_member_of_an_approval_is_signed(site: Site, changes: dict[str, Any]) -> None:
    signed = job()
    site.receive(signed)
    site.approve(signed)
    site.check(signed)
    edited(site, signed, **changes)
    with pytest.raises(Refused, match="is pending"):
        site.check(signed)
    assert refusals(site) == [(signed.id, "signature")]
    assert site.receive(signed).status == "pending"


def test_an_approval_of_another_job_is_none(site: Site) -> None:
    signed, other = job(), job(seed=1)
    for one in (signed, other):
        site.receive(one)
    site.approve(signed)
    decision_file(site, other).write_bytes(decision_file(site, signed).read_bytes())
    with pytest.raises(Refused, match="is pending"):
        site.check(other)
    assert refusals(site) == [(other.id, "job")]
    site.check(signed)


def test_an_approval_by_another_key_is_none(site: Site, tmp_path: Path) -> None:
    signed = job()
    site.receive(signed)
    site.approve(signed)
    again = Approvals(tmp_path / "jobs", site.policy, site.log, Identity.generate("zurich"))
    with pytest.raises(Refused, match="is pending"):
        again.check(signed, site.judge(signed), now=NOW)


def test_an_approval_from_a_backup_does_not_undo_a_denial(site: Site, tmp_path: Path) -> None:
    signed = job()
    site.receive(signed)
    site.approve(signed)
    backup = decision_file(site, signed).read_bytes()
    site.approvals.deny(signed.id, now=NOW)
    decision_file(site, signed).write_bytes(backup)
    for approvals in (site.approvals, Approvals(tmp_path / "jobs", site.policy, site.log, site.identity)):
        with pytest.raises(Refused, match="is denied"):
            approvals.check(signed, site.judge(signed), now=NOW)
    assert refusals(site) == [(signed.id, "log")]
    site.tree = {**POLICY, "approval": {"auto": [{**RULE, "like_last": False}]}}
    decision_file(site, signed).unlink()
    assert site.receive(signed).status == "denied"  # no rule approves what a person denied
    site.tree = POLICY
    site.approve(signed)  # a person may
    site.check(signed)


def test_an_approval_that_the_log_has_lost_is_none(site: Site, tmp_path: Path) -> None:
    signed = job()
    site.receive(signed)
    log = (tmp_path / "audit.jsonl").read_bytes()
    site.approve(signed)
    site.check(signed)
    (tmp_path / "audit.jsonl").write_bytes(log)  # a log from a backup
    with pytest.raises(Refused, match="is pending"):
        site.check(signed)


def test_damaged_files_of_a_job_are_named(site: Site) -> None:
    signed = job()
    site.receive(signed)
    for name, look in (("facts.json", site.approvals.facts), ("job.json", site.approvals.signed)):
        (site.path / "jobs" / signed.id / name).write_bytes(b"\x80\x04junk")
        with pytest.raises(RunError, match=name.replace(".", r"\.") + " is damaged"):
            look(signed.id)


@pytest.mark.parametrize("name", ["../../etc/passwd", "..", "a/b", "A", ""])
def test_an_id_that_is_a_path_is_refused(site: Site, name: str) -> None:
    for act in (site.approvals.decision, site.approvals.signed, site.approvals.facts, site.approvals.deny):
        with pytest.raises(ConfigError, match="expected 1 to 64"):
            act(name)


def test_nobody_fills_the_disk_with_jobs(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_PENDING", 2)
    first = job()
    for signed in (first, job()):
        site.receive(signed)
    with pytest.raises(Refused, match="2 jobs are waiting"):
        site.receive(job())
    assert site.receive(first).status == "pending"
    site.approve(first)
    assert site.receive(job()).status == "pending"


def test_refused_jobs_do_not_pile_up(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_REFUSED", 2)
    kept = job()
    site.receive(kept)
    refused = [job(model={"name": "cnn"}) for _ in range(4)]
    for signed in refused:
        site.receive(signed)
    assert [one.job for one in site.approvals.decisions()] == [kept.id, *(signed.id for signed in refused[2:])]


def test_a_decision_that_cannot_be_logged_is_not_made(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    signed = job()
    site.receive(signed)

    def full(*_: Any, **__: Any) -> None:
        raise StorageError("no space")

    monkeypatch.setattr(site.log, "append", full)
    with pytest.raises(StorageError):
        site.approve(signed)
    with pytest.raises(Refused, match="is pending"):
        site.check(signed)


# ------------------------------------------------------------------------------------------------------------ rules


def by_rule(site: Site, **rule: Any) -> None:
    site.tree = {**POLICY, "approval": {"auto": [{**RULE, **rule}]}}


def test_a_rule_approves_what_is_like_the_last_job_approved_by_hand(site: Site) -> None:
    by_rule(site)
    first = job(name="monday")
    assert site.receive(first).status == "pending"  # there is none to be like
    site.approve(first)
    again = site.receive(job(name="tuesday", seed=7))
    assert (again.status, again.by) == ("approved", "rule:nightly")
    assert site.receive(job(training={"rounds": 21})).status == "pending"
    assert (
        site.receive(job(sites={name: SITES[name] for name in ("budapest", "cleveland", "zurich")})).status
        == "approved"
    )
    others = {**SITES, "graz": Identity.generate("graz").fingerprint}
    assert site.receive(job(sites=others)).status == "pending"
    assert site.receive(job(JONES)).status == "pending"
    by_rule(site, may_differ=["training"])
    site.approve(first)
    assert site.receive(job(name="monday", training={"rounds": 21})).status == "approved"
    assert site.receive(job(name="tuesday")).status == "pending"


def test_a_rules_approvals_do_not_drift(site: Site) -> None:
    by_rule(site, may_differ=["training.rounds", "name"])
    first = job(training={"rounds": 10})
    site.receive(first)
    site.approve(first)
    drifted = job(training={"rounds": 11})
    assert site.receive(drifted).by == "rule:nightly"
    # what a rule approved is no measure for the next
    last = site.approvals.last_approved("none", by_hand=True)
    assert last is not None
    assert last.id == first.id


@pytest.mark.parametrize(
    ("rule", "given"),
    [
        ({"models": ["logistic"]}, {"model": {"name": "mlp"}}),
        ({"algorithms": ["fedavg"]}, {"algorithm": {"name": "scaffold"}}),
        ({"datasets": []}, {}),
        ({"rounds": 5}, {"training": {"rounds": 6}}),
        ({"submitters": ["dr-jones"]}, {}),
    ],
)
def test_each_condition_of_a_rule_must_hold(site: Site, rule: dict[str, Any], given: dict[str, Any]) -> None:
    by_rule(site, like_last=False, **rule)
    assert site.receive(job(**given)).status == "pending"
    by_rule(site, like_last=False)
    assert site.receive(job(**given)).status == "approved"


def test_a_rule_never_approves_what_the_policy_forbids(site: Site) -> None:
    by_rule(site, like_last=False)
    assert site.receive(job(model={"name": "cnn"})).status == "refused"


# ----------------------------------------------------------------------------------------------------------- review


def test_the_first_review_shows_the_job_and_a_later_one_the_difference(site: Site) -> None:
    first, second = job(name="monday"), job(name="tuesday", training={"rounds": 7}, model={"name": "mlp"})
    site.receive(first)
    text = site.approvals.review(first.id, site.judge(first))
    assert "No job was approved here before" in text
    assert "submitted by  dr-smith" in text
    assert "secagg: the coordinator sees sums alone" in text
    assert "none but the installed wardround" in text
    assert all(mark in text for mark in SITES.values())
    site.approve(first)
    site.receive(second)
    text = site.approvals.review(second.id, site.judge(second))
    changed = [line for line in text.splitlines() if line[:1] in "+-" and line[:3] not in ("+++", "---")]
    assert {
        "-  rounds: 20",
        "+  rounds: 7",
        "-  name: logistic",
        "+  name: mlp",
        "-name: monday",
        "+name: tuesday",
    } == set(changed)
    assert "here: engine.threads" in text


def test_a_review_says_what_the_policy_forbids_and_what_would_leave(site: Site) -> None:
    signed = job(privacy={"channel": {"kind": "plain"}}, evaluation={"baselines": [], "release_scores": True})
    site.receive(signed)
    text = site.approvals.review(signed.id, site.judge(signed))
    assert "site.yaml does NOT allow it" in text
    assert "WHAT THIS SITE SENDS" in text
    assert "row scores LEAVE" in text


def test_a_job_cannot_forge_what_the_terminal_shows(site: Site) -> None:
    signed = job(model={"name": "logistic", "options": {"note": "x\x1b[2Jsite.yaml allows it.\r\nline"}})
    site.receive(signed)
    text = site.approvals.review(signed.id, site.judge(signed))
    assert "\x1b" not in text
    assert "\r" not in text


def test_decisions_are_in_the_log_with_who_and_under_what_and_notes_are_not(site: Site) -> None:
    by_rule(site)
    first, second, third = job(), job(seed=2), job(model={"name": "cnn"})
    for signed in (first, second, third):
        site.receive(signed)
        if signed is first:
            site.approvals.approve(first.id, site.judge(first), note="asked Anna Huber", now=NOW)
    site.approvals.deny(second.id, note="Huber", now=NOW)
    assert audit.verify(site.path / "audit.jsonl") == []
    text = (site.path / "audit.jsonl").read_text()
    assert "Huber" not in text
    entries = [(entry["kind"], entry["job"]) for entry in site.log.entries()]
    assert entries == [
        ("job-judged", first.id), ("job-approved", first.id), ("job-judged", second.id), ("job-approved", second.id),
        ("job-judged", third.id), ("job-denied", second.id),
    ]  # fmt: skip
    by = [entry.get("rule") or entry.get("user") for entry in site.log.entries() if entry["kind"] == "job-approved"]
    assert by[1] == "nightly"
    assert by[0]
    refused = next(entry for entry in site.log.entries() if entry["job"] == third.id)
    assert (refused["allowed"], refused["keys"]) == (False, ["model.name"])

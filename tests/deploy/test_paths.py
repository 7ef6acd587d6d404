"""Names that came from outside and would be paths: refused wherever they come in, and nothing is written anywhere else."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deploy.parties import SITES, SUBMITTER, Parties, enrolled, provisioned, write_project
from wardround.config.load import from_mapping
from wardround.deploy import canonical, enrolling
from wardround.deploy.coordinator import INBOX, RUNS, Coordinator
from wardround.deploy.enrolment import Enrolment, Roster, SigningRequest
from wardround.deploy.jobs import SignedJob, named_files, sign_job
from wardround.deploy.names import within
from wardround.deploy.operate import submit
from wardround.deploy.policy import Asked, Facts, SitePolicy
from wardround.deploy.project import Project, strict_from
from wardround.errors import ConfigError, MessageError, WardroundError
from wardround.federation.engines.flower import transfer
from wardround.federation.engines.flower.transfer import Inbox, datagram

PATHS = [
    "../evil", "../../evil", "/tmp/wardround-evil", "..", ".", "a/b", "runs\\evil", "evil\0", "evil\n", "nul", "con", "~",
    "%2e%2e%2fevil", "\uff45vil", "a" * 65, "",
]  # fmt: skip
JOB = {
    "name": "heart", "data": {"dataset": "heart"}, "participation": {"quorum": 3}, "privacy": {"channel": {"kind": "secagg"}},
    "evaluation": {"baselines": []},
}  # fmt: skip


@pytest.fixture
def parties(tmp_path: Path) -> Parties:
    return enrolled(tmp_path / "inner" / "project")


@pytest.fixture
def coordinator(parties: Parties, monkeypatch: pytest.MonkeyPatch) -> Iterator[Coordinator]:
    monkeypatch.setenv("WARDROUND_FLOWER_PYTHON", sys.executable)
    made = Coordinator(parties.coordinator.path)
    yield made
    made._lock.release()


def tree(folder: Path) -> dict[str, bytes | None]:
    """All that lies in a folder, with its content, but for logs, locks and what says who was seen."""
    beside = ("audit.jsonl", "seen.db", ".lock", "lock")
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
        if not path.name.startswith(beside) and not path.name.endswith(".lock")
    }


def refused(folder: Path, kind: type[WardroundError], act: Callable[..., object], *arguments: object) -> None:
    before = tree(folder)
    with pytest.raises(kind):
        act(*arguments)
    assert tree(folder) == before


@pytest.mark.parametrize("member", ["name", "project", "coordinator"])
def test_an_enrolment_file(parties: Parties, tmp_path: Path, member: str) -> None:
    for name in PATHS:
        own = parties.coordinator.identity()
        made = replace(parties.sites["zurich"].enrolment, **{member: name}).sealed(own)
        file = tmp_path / "enrolment.json"
        file.write_bytes(made.to_bytes())
        refused(tmp_path, MessageError, enrolling.init_party, file, tmp_path / "new")
        with pytest.raises(MessageError):
            Enrolment.from_bytes(made.to_bytes())


@pytest.mark.parametrize("member", ["name", "project"])
def test_a_signing_request(tmp_path: Path, member: str) -> None:
    folder = provisioned(tmp_path / "inner" / "project")
    site = enrolling.init_party(folder.path / "enrolments" / "zurich.json", tmp_path / "zurich")
    for name in PATHS:
        request = SigningRequest.from_bytes((site.path / "request.json").read_bytes())
        changed = replace(request, **{member: name})
        changed = replace(changed, signature=site.identity().sign(changed.core()).hex()).with_token(
            site.enrolment.token
        )
        file = tmp_path / "request.json"
        file.write_bytes(changed.to_bytes())
        refused(tmp_path, MessageError, enrolling.enrol, folder.path, [file])


@pytest.mark.parametrize("where", ["entry", "revoked", "project", "addresses"])
def test_a_roster(parties: Parties, tmp_path: Path, where: str) -> None:
    for name in PATHS:
        roster = parties.coordinator.roster()
        if where == "entry":
            changes: dict[str, Any] = {"entries": (*roster.entries[:-1], replace(roster.entries[-1], name=name))}
        elif where == "revoked":
            changes = {"revoked": {"SHA256:" + "A" * 43: name}}
        else:
            changes = {where: name if where == "project" else (name,)}
        if where == "addresses" and name in ("nul", "con", "a" * 65):
            continue  # hosts may be called so, but for the last, which is refused below
        made = replace(roster, serial=roster.serial + 1, **changes).sealed(parties.coordinator.identity())
        file = tmp_path / "roster.json"
        file.write_bytes(made.to_bytes())
        with pytest.raises(MessageError):
            Roster.from_bytes(made.to_bytes())
        refused(tmp_path, MessageError, enrolling.join, parties.sites["zurich"].path, file, made.code)


def test_a_project(tmp_path: Path) -> None:
    for name in PATHS:
        for changes in ({"sites": [*SITES, name]}, {"submitters": [name]}, {"project": name}):
            file = write_project(tmp_path / "project.yaml", **changes)
            refused(tmp_path, ConfigError, enrolling.provision, file, tmp_path / "out")
            given = {"coordinator": {"addresses": ["x"]}, "project": "p", "sites": ["a"]}
            assert strict_from(given, Project, "project.yaml")
            with pytest.raises(ConfigError):
                strict_from({**given, **changes}, Project, "project.yaml")


def job_of(parties: Parties, **changes: Any) -> SignedJob:
    return sign_job(parties.submitter.identity(), from_mapping({**JOB, **changes}), parties.fingerprints())


def test_the_name_of_a_job_is_no_path_in_its_id(parties: Parties) -> None:
    for name in PATHS:
        tree = {**JOB, "name": name}
        signed = replace(job_of(parties), job_yaml=canonical.encode(tree))
        assert within(Path("x"), signed.id, "run").parent == Path("x")


def test_a_signed_job_in_the_inbox(parties: Parties, coordinator: Coordinator, tmp_path: Path) -> None:
    for name in PATHS:
        inbox = parties.coordinator.path / INBOX
        whole = json.loads(job_of(parties).to_bytes())
        for changes in (
            {"submitter": name},
            {"sites": {name: whole["sites"]["zurich"]}},
            {"plugins": {name: "0" * 64}},
        ):
            (inbox / "job.json").write_bytes(canonical.encode({**whole, **changes}))
            before = set(tree(tmp_path)) - {os.path.join("inner", "project", "coordinator", INBOX, "job.json")}
            assert coordinator._next() is None
            moved = {path for path in set(tree(tmp_path)) - before if INBOX not in path}
            assert moved == set()
            assert (inbox / "refused" / "job.json").is_file()
        assert not list((parties.coordinator.path / RUNS).iterdir())


def test_what_is_no_file_in_the_inbox_is_not_read(parties: Parties, coordinator: Coordinator, tmp_path: Path) -> None:
    inbox, outside = parties.coordinator.path / INBOX, tmp_path / "outside.json"
    outside.write_bytes(job_of(parties).to_bytes())
    (inbox / "link.json").symlink_to(outside)
    (inbox / "folder.json").mkdir()
    os.mkfifo(inbox / "pipe.json")  # whose reader would wait for ever
    assert coordinator._next() is None
    assert sorted(path.name for path in (inbox / "refused").iterdir()) == ["folder.json", "link.json", "pipe.json"]
    assert outside.is_file()
    assert not list((parties.coordinator.path / RUNS).iterdir())


def test_a_run_is_not_written_through_a_link(parties: Parties, coordinator: Coordinator, tmp_path: Path) -> None:
    signed, outside = job_of(parties), tmp_path / "outside"
    outside.mkdir()
    (parties.coordinator.path / RUNS / signed.id).symlink_to(outside)
    (parties.coordinator.path / INBOX / "job.json").write_bytes(signed.to_bytes())
    assert coordinator._next() is None
    assert not list(outside.iterdir())
    assert (parties.coordinator.path / INBOX / "refused" / "job.json").is_file()


def test_a_job_is_not_kept_through_a_link(parties: Parties, tmp_path: Path) -> None:
    site, signed, outside = parties.sites["zurich"], job_of(parties), tmp_path / "outside"
    outside.mkdir()
    (site.path / "jobs" / signed.id).symlink_to(outside)
    approvals, verdict = site.approvals(), site.judge(signed, Facts(rows=200, classes={}))
    for act in (
        lambda: approvals.receive(signed, verdict),
        lambda: approvals.check(signed, replace(verdict, allowed=True)),
    ):
        with pytest.raises(ConfigError, match="is a link"):
            act()
    assert not list(outside.iterdir())


def test_a_datagram_or_a_frame(
    parties: Parties, coordinator: Coordinator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "HOLD", 0.01)
    for name in PATHS:
        before = tree(tmp_path)
        inbox = Inbox(2**20)
        for head in (
            {"op": "put", "x": name, "k": 0, "n": 1, "size": 3}, {"op": "get", "x": name, "k": 0}, {"op": name, "x": "0" * 32},
        ):  # fmt: skip
            inbox.handle(datagram(head, b"abc"))
        coordinator._taken(({"op": "online", "sites": [name]}, b""))
        assert set(coordinator._now.sites) == set(SITES)
        coordinator._taken(({"op": "guard", "what": name, "key": name, "path": name}, b""))
        assert tree(tmp_path) == before


@pytest.mark.parametrize(
    "options",
    [{"path": "../x"}, {"path": ["/etc/passwd"]}, {"path": {"a": 1}}, {"root": "/"}, {"schema": "../../schema.yaml"},
     {"schema": ["x"]}, {"file": "../x"}],
)  # fmt: skip
def test_a_job_that_names_a_file(
    parties: Parties, coordinator: Coordinator, tmp_path: Path, options: dict[str, Any]
) -> None:
    signed = job_of(parties, data={"dataset": "heart", "options": options})
    assert dict(named_files(signed.job)) == options
    # the coordinator's own option of that name is not what a site would have read, and it has no records
    (parties.coordinator.path / INBOX / "job.json").write_bytes(signed.to_bytes())
    assert coordinator._next() is None
    assert (parties.coordinator.path / INBOX / "refused" / "job.json").is_file()
    # nor does a site that lets the job set the option take a path for it
    policy = strict_from(
        {
            "data": {"heart": {"dataset": "custom", "options": {"path": "/data"}, "from_job": list(options)}},
            "allow": {"submitters": [SUBMITTER], "models": ["logistic"], "algorithms": ["fedavg"]},
        },
        SitePolicy, "site.yaml",
    )  # fmt: skip
    verdict = policy.judge(signed.job, Facts(rows=200, classes={}), Asked(submitter=SUBMITTER, sites=SITES, plugins={}))
    assert not verdict.allowed
    assert any("a job names no file" in reason for reason in verdict.reasons)
    # and whoever submits it is told at once
    file = tmp_path / "job.json.yaml"
    file.write_text(json.dumps({**JOB, "data": {"dataset": "custom", "options": options}}))
    refused(tmp_path, ConfigError, submit, file, parties.submitter.path)


def test_a_name_within_a_folder(tmp_path: Path) -> None:
    for name in PATHS:
        with pytest.raises(ConfigError, match="expected 1 to 64"):
            within(tmp_path, name, "name")


def test_a_link_within_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="is a link"):
        within(tmp_path, "a", "name")
    assert within(tmp_path, "b", "name") == tmp_path / "b"

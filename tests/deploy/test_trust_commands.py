"""`wardround deploy` from a project's file to an approved job and a verified log, as an administrator types it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.parties import SITES, SUBMITTER, Parties, enrolled, write_project
from wardround.cli.app import app
from wardround.cli.exit import guarded
from wardround.config.load import from_mapping
from wardround.deploy.jobs import SignedJob, sign_job
from wardround.deploy.policy import Facts

JOB = {
    "data": {"dataset": "heart"}, "participation": {"quorum": 3}, "privacy": {"channel": {"kind": "secagg"}},
    "evaluation": {"baselines": []},
}  # fmt: skip
POLICY: dict[str, Any] = {
    "data": {"heart": {"dataset": "heart"}},
    "allow": {"submitters": [SUBMITTER], "models": ["logistic"], "algorithms": ["fedavg"]},
}


@pytest.fixture
def deploy(capsys: pytest.CaptureFixture[str]) -> Any:
    """Run `wardround deploy ...` in this process: exit code, and what it says."""

    def command(*arguments: object) -> tuple[int, str]:
        capsys.readouterr()
        code = guarded(app, ["deploy", *(str(one) for one in arguments)])
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return command


@pytest.fixture(scope="module")
def parties(tmp_path_factory: pytest.TempPathFactory) -> Parties:
    return enrolled(tmp_path_factory.mktemp("commands"))


def received(parties: Parties, site: str, **changes: Any) -> SignedJob:
    """A signed job, as the site's process takes it."""
    folder = parties.sites[site]
    folder.policy_path.write_text(yaml.safe_dump(POLICY))
    job = from_mapping({**JOB, **changes})
    signed = sign_job(parties.submitter.identity(), job, parties.fingerprints())
    facts = Facts(rows=200, classes={})
    folder.approvals().receive(signed, folder.judge(signed, facts))
    return signed


def test_from_nothing_to_a_joined_project_and_through_rotation_and_revocation(deploy: Any, tmp_path: Path) -> None:
    coordinator = tmp_path / "coordinator"
    assert deploy("provision", write_project(tmp_path / "project.yaml"), "--out", coordinator)[0] == 0
    for name in (*SITES, SUBMITTER):
        code, said = deploy("site", "init", coordinator / "enrolments" / f"{name}.json", "--out", tmp_path / name)
        assert (code, "SHA256:" in said) == (0, True)
    requests = [tmp_path / name / "request.json" for name in (*SITES, SUBMITTER)]
    code, said = deploy("enrol", coordinator, *requests, "--json")
    told = json.loads(said)
    assert (code, sorted(told["parties"])) == (0, sorted(["coordinator", *SITES, SUBMITTER]))
    roster = coordinator / "roster.json"
    assert deploy("site", "join", tmp_path / "zurich", roster)[0] == 5
    assert deploy("site", "join", tmp_path / "zurich", roster, "--code", "AAAA")[0] == 7
    for name in (*SITES, SUBMITTER):
        assert deploy("site", "join", tmp_path / name, roster, "--code", told["code"])[0] == 0
        assert deploy("check", tmp_path / name)[0] == 0
    code, said = deploy("rotate", tmp_path / "zurich", "--json")
    assert code == 0
    assert deploy("enrol", coordinator, json.loads(said)["request"])[0] == 0
    assert deploy("site", "join", tmp_path / "zurich", roster)[0] == 0
    for what in ("--server", "--identity", "--authority"):
        assert deploy("rotate", coordinator, what)[0] == 0
    assert deploy("site", "join", tmp_path / "zurich", roster)[0] == 0
    assert deploy("revoke", coordinator, "budapest")[0] == 0
    code, said = deploy("site", "join", tmp_path / "budapest", roster)
    assert (code, "has no budapest" in said) == (7, True)
    code, said = deploy("revoke", tmp_path / "zurich", "cleveland")
    assert (code, "not trusted here any more" in said) == (0, True)
    assert deploy("check", coordinator)[0] == 0
    assert deploy("log", "verify", coordinator)[0] == 0


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["provision", "absent.yaml", "--out", "x"], 2, "there is no file absent.yaml"),
        (["site", "init", "absent.json", "--out", "x"], 2, "absent.json cannot be read"),
        (["enrol", "absent"], 2, "neither a coordinator's folder"),
        (["rotate", "COORDINATOR"], 2, "give one of --server"),
        (["rotate", "COORDINATOR", "--server", "--identity"], 2, "give one of --server"),
        (["rotate", "zurich", "--server"], 2, "belongs to the coordinator's folder"),
        (["revoke", "COORDINATOR", "../x"], 2, "expected 1 to 64"),
        (["check", "zurich", "--clear", "../x"], 2, "expected 1 to 64"),
        (["site", "review", "zurich", "../../x"], 2, "expected 1 to 64"),
        (["site", "approve", "zurich", "absent"], 2, "there is no job absent"),
        (["site", "deny", "zurich", "absent"], 2, "there is no job absent"),
        (["site", "review", "COORDINATOR"], 2, "is the coordinator's folder"),
        (["log", "verify", "absent.jsonl"], 6, "there is no audit log"),
        (["log", "verify", "LOG", "--witness", "LOG"], 2, "needs the owner's folder"),
    ],
)
def test_what_cannot_be_done_is_said(
    parties: Parties, deploy: Any, arguments: list[str], code: int, words: str
) -> None:
    named = {
        "COORDINATOR": parties.coordinator.path, "zurich": parties.sites["zurich"].path,
        "LOG": parties.sites["zurich"].audit_path,
    }  # fmt: skip
    found, said = deploy(*(named.get(one, one) for one in arguments))
    assert found == code
    assert words in said


def test_a_job_is_reviewed_and_approved_or_denied(parties: Parties, deploy: Any) -> None:
    signed, folder = received(parties, "zurich"), parties.sites["zurich"].path
    code, said = deploy("site", "review", folder)
    assert (code, signed.id in said, "pending" in said) == (0, True, True)
    code, said = deploy("site", "review", folder, signed.id)
    assert (code, "site.yaml allows it." in said) == (0, True)
    assert deploy("site", "approve", folder, signed.id, "--note", "fine")[0] == 0
    site = parties.sites["zurich"]
    facts = site.approvals().facts(signed.id)
    site.approvals().check(signed, site.judge(signed, facts))
    other = received(parties, "zurich", training={"rounds": 3})
    code, said = deploy("site", "review", folder, other.id, "--json")
    assert "+  rounds: 3" in json.loads(said)["text"]
    assert deploy("site", "deny", folder, other.id)[0] == 0
    code, said = deploy("site", "review", folder, "--json")
    assert {row["job"]: row["status"] for row in json.loads(said)["jobs"]} == {
        signed.id: "approved",
        other.id: "denied",
    }


def test_a_job_that_the_policy_forbids_is_not_approved(parties: Parties, deploy: Any) -> None:
    signed, folder = received(parties, "budapest", model={"name": "mlp"}), parties.sites["budapest"].path
    code, said = deploy("site", "approve", folder, signed.id)
    assert (code, "allow.models has logistic" in said) == (5, True)


def test_the_log_is_verified_with_what_others_noted(parties: Parties, deploy: Any) -> None:
    coordinator, site = parties.coordinator, parties.sites["cleveland"]
    coordinator.audit().append("run-started", run="heart-1", job="heart-1", digest="ab" * 32)
    head = coordinator.audit().head()
    assert head is not None
    site.audit().countersign(head, site.pins())
    code, said = deploy("log", "verify", coordinator.path, "--witness", site.audit_path)
    assert (code, "1 noted heads agree" in said) == (0, True)
    whole = coordinator.audit_path.read_bytes()
    try:
        coordinator.audit_path.write_bytes(b"".join(whole.splitlines(keepends=True)[:-1]))
        assert deploy("log", "verify", coordinator.path)[0] == 0
        code, said = deploy("log", "verify", coordinator.path, "--witness", site.audit_path, "--json")
        assert (code, [fault["kind"] for fault in json.loads(said)["faults"]]) == (6, ["truncated"])
        # written anew, as the coordinator itself could
        coordinator.audit().append("run-started", run="heart-2", job="heart-2", digest="cd" * 32)
        assert deploy("log", "verify", coordinator.path)[0] == 0
        code, said = deploy("log", "verify", coordinator.path, "--witness", site.audit_path)
        assert (code, "rewritten" in said) == (6, True)
    finally:
        coordinator.audit_path.write_bytes(whole)
    code, said = deploy("log", "show", coordinator.path, "--kind", "run-started")
    assert (code, said.count("run-started")) == (0, 1)


def test_help_needs_neither_cryptography_nor_anything_heavy() -> None:
    for arguments in (["deploy", "--help"], ["deploy", "site", "--help"], ["deploy", "check", "--help"]):
        code = (
            "import sys\nfrom wardround.cli.app import app\nfrom wardround.cli.exit import guarded\n"
            f"assert guarded(app, {arguments}) == 0\n"
            "print('\\n' + ' '.join(n for n in ('torch', 'numpy', 'cryptography', 'flwr') if n in sys.modules))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout.splitlines()[-1]) == (0, ""), done.stderr


def test_trust_needs_no_torch(parties: Parties) -> None:
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from wardround.deploy import approval, audit, checkup, enrolling, envelope, jobs, policy\n"
        f"checkup.check(Path({str(parties.sites['zurich'].path)!r}))\n"
        "print([n for n in ('torch', 'numpy', 'sklearn') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr

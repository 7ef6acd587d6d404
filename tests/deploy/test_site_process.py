"""What a site's process does with a message, whoever sent it: without Flower, in this process."""

from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from deploy.hospitals import POLICY
from deploy.parties import SUBMITTER, Parties, enrolled
from wardround import wire
from wardround.config import load
from wardround.content import Content
from wardround.deploy import operate
from wardround.deploy.identity import Identity
from wardround.deploy.jobs import sign_job
from wardround.deploy.sealing import Sealer
from wardround.deploy.site_process import JOB, REFUSED, VERDICT, SiteProcess
from wardround.errors import RunError
from wardround.federation import messages
from wardround.federation.engines.flower.engine import ASK, FACTS, SILENT, STACKED
from wardround.federation.engines.flower.transfer import Parcel, Taken, items_of
from wardround.types import Column, Description, Message, SiteData

SITES = ("cleveland", "hungarian", "va")
JOB_YAML = """
name: heart
data: {dataset: wards}
model: {name: logistic}
training: {rounds: 1, local_steps: 2, batch_size: 4}
evaluation: {bootstrap: 0, baselines: []}
"""


class Wards:
    """A small hospital, for `data.dataset`."""

    def describe(self) -> Description:
        return Description(
            name="wards", title="Wards", source="made up", licence="none", sites=SITES, columns=(Column(name="x"),),
            natural=True,
        )  # fmt: skip

    def load(self, site: str) -> SiteData:
        import numpy as np

        rng = np.random.default_rng(0)
        labels = np.arange(60) % 2
        return SiteData(features=rng.normal(size=(60, 1)) + labels[:, None], labels=labels, patients=np.arange(60))


@pytest.fixture
def parties(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Parties:
    from wardround.data import registry

    monkeypatch.setitem(registry.DATASETS, "wards", "deploy.test_site_process:Wards")
    monkeypatch.setenv("WARDROUND_FLOWER_PYTHON", sys.executable)
    made = enrolled(tmp_path, SITES)
    allow = {**POLICY["allow"], "submitters": [SUBMITTER]}
    auto = [{"name": "test", "submitters": [SUBMITTER], "like_last": False}]
    for site in made.sites.values():
        policy = {**POLICY, "data": {"wards": {"dataset": "wards"}}, "allow": allow, "approval": {"auto": auto}}
        site.policy_path.write_text(yaml.safe_dump(policy))
    return made


@pytest.fixture
def site(parties: Parties) -> Iterator[SiteProcess]:
    made = SiteProcess(parties.sites["va"].path)
    yield made
    made._lock.release()


@pytest.fixture
def sealer(parties: Parties) -> Sealer:
    own = parties.coordinator
    return Sealer(own.identity(), own.pins, own.seen(), own.audit())


def job_file(tmp_path: Path, text: str = JOB_YAML) -> Path:
    path = tmp_path / "job.yaml"
    path.write_text(text)
    return path


def signed_job(parties: Parties, tmp_path: Path, **changes: Any) -> Any:
    overrides = [f"{key}={value}" for key, value in changes.items()]
    job = operate.between(load(job_file(tmp_path), overrides))
    return sign_job(parties.submitter.identity(), job, parties.fingerprints())


def parcel_of(items: list[bytes]) -> Content:
    parcel = Parcel([[item] for item in items])
    return Content(b"".join(parcel.part(k) for k in range(parcel.parts)))


def worked(site: SiteProcess, items: list[bytes]) -> list[tuple[str, Any]]:
    """Kind and content of what the site answers to a parcel."""
    answer = site._worked(Taken("x", parcel_of(items)))
    raw = b"".join(answer.part(k) for k in range(answer.parts))
    found = []
    for item in items_of(Content(raw)):
        envelope = bytes(item)
        header = json.loads(envelope[8 : 8 + int.from_bytes(envelope[4:8], "big")])
        body = envelope[8 + int.from_bytes(envelope[4:8], "big") + 64 :]
        found.append((header["kind"], wire.decode(body) if header["kind"].startswith("reply") else json.loads(body)))
    return found


def message(sealer: Sealer, run: str, kind: str, body: bytes, to: str = "va") -> bytes:
    return sealer.head(to, run, kind, body) + body


def request(sealer: Sealer, run: str, body: bytes, facts: dict[str, Any] | None = None, to: str = "va") -> list[bytes]:
    """A site's facts, and what all are asked."""
    text = json.dumps({**(facts or {}), ASK: Content(body).digest}).encode()
    return [message(sealer, run, FACTS, text, to), message(sealer, run, ASK, body, to)]


def enrol_request(sealer: Sealer, run: str) -> list[bytes]:
    body = wire.encode(Message(stage=messages.ENROL))
    return request(sealer, run, body)


def entries(parties: Parties, kind: str) -> list[dict[str, Any]]:
    lines = parties.sites["va"].audit_path.read_text().splitlines()
    return [entry for entry in map(json.loads, lines) if entry["kind"] == kind]


def test_an_approved_job_is_answered_and_its_repetition_refused(
    parties: Parties, site: SiteProcess, sealer: Sealer, tmp_path: Path
) -> None:
    signed = signed_job(parties, tmp_path)
    assert worked(site, [message(sealer, signed.id, JOB, signed.to_bytes())])[0][1]["status"] == "approved"
    items = enrol_request(sealer, signed.id)
    ((kind, reply),) = worked(site, items)
    assert kind == STACKED
    assert int(reply.arrays["rows"]) > 0
    ((kind, said),) = worked(site, items)
    assert kind == REFUSED
    assert "replay" in said["cause"]
    assert entries(parties, "message-refused")[-1]["reason"] == "replayed"


def test_a_coordinator_that_knows_less_than_it_told_is_refused(
    parties: Parties, site: SiteProcess, sealer: Sealer, tmp_path: Path
) -> None:
    signed = signed_job(parties, tmp_path)
    worked(site, [message(sealer, signed.id, JOB, signed.to_bytes())])
    worked(site, enrol_request(sealer, signed.id))
    assert site._active is not None
    states = site._active.host.states
    states.stage(3, ("va",), {})
    states.settle(("va",), {"va": 3}, 4)

    def train(facts: dict[str, int]) -> tuple[str, Any]:
        body = wire.encode(Message(stage=messages.CONTRIBUTE, meta={"task": messages.TRAIN, "round": {"index": 4}}))
        ((kind, said),) = worked(site, request(sealer, signed.id, body, facts))
        return kind, said

    for facts in ({"counted": 2}, {}):
        kind, said = train(facts)
        assert kind == REFUSED
        assert "va was counted in round 3" in said["cause"]
        assert entries(parties, "message-refused")[-1]["reason"] == "behind"
    assert train({"counted": 3})[0] == SILENT
    assert entries(parties, "message-refused")[-1]["reason"] == "round"  # the job has one round: this is looked at next


def test_a_coordinator_in_two_places_is_told_so_in_its_own_run(
    parties: Parties, site: SiteProcess, sealer: Sealer, tmp_path: Path
) -> None:
    own = parties.coordinator
    copy = Sealer(own.identity(), own.pins, own.seen(), own.audit())
    signed = signed_job(parties, tmp_path)
    worked(site, [message(sealer, signed.id, JOB, signed.to_bytes())])
    worked(site, [message(copy, signed.id, JOB, signed.to_bytes())])
    items = enrol_request(sealer, signed.id)
    answer = site._worked(Taken("x", parcel_of(items)))
    (item,) = items_of(Content(b"".join(answer.part(k) for k in range(answer.parts))))
    found = sealer.open(item, sender="va", run=signed.id, limit=2**20)
    assert found.kind == REFUSED
    assert "in use in two places" in json.loads(found.body.read(0, 2**20))["cause"]
    noted = entries(parties, "message-refused")[-1]
    assert (noted["reason"], noted["run"]) == ("second-place", signed.id)


def test_a_job_below_the_policys_floor_is_refused_with_its_reason(
    parties: Parties, site: SiteProcess, sealer: Sealer, tmp_path: Path
) -> None:
    site.folder.policy_path.write_text(
        site.folder.policy_path.read_text().replace("hiding_channel: false", "hiding_channel: true")
    )
    signed = signed_job(parties, tmp_path)
    ((kind, verdict),) = worked(site, [message(sealer, signed.id, JOB, signed.to_bytes())])
    assert (kind, verdict["status"]) == (VERDICT, "refused")
    assert "privacy.channel.kind" in verdict["reasons"][0]
    ((kind, said),) = worked(site, enrol_request(sealer, signed.id))
    assert kind == SILENT
    assert "not allowed" in said["cause"]
    assert not entries(parties, "job-judged")[-1]["allowed"]


def test_a_job_signed_by_a_stranger_is_refused(
    parties: Parties, site: SiteProcess, sealer: Sealer, tmp_path: Path
) -> None:
    job = operate.between(load(job_file(tmp_path), []))
    signed = sign_job(Identity.generate("mallory"), job, parties.fingerprints())
    ((_, verdict),) = worked(site, [message(sealer, signed.id, JOB, signed.to_bytes())])
    assert verdict["status"] == "refused"
    assert "mallory" in verdict["reasons"][0]
    assert entries(parties, "job-refused")[-1]["reason"] == "unknown"


def test_a_stolen_name_is_no_key(parties: Parties, site: SiteProcess, tmp_path: Path) -> None:
    own = parties.coordinator
    false = Sealer(Identity.generate(own.name), own.pins, own.seen(), own.audit())
    signed = signed_job(parties, tmp_path)
    ((kind, _),) = worked(site, [message(false, signed.id, JOB, signed.to_bytes())])
    assert kind == REFUSED
    assert entries(parties, "message-refused")[-1]["reason"] == "unknown"


def test_another_site_cannot_ask(parties: Parties, site: SiteProcess, tmp_path: Path) -> None:
    other = parties.sites["cleveland"]
    neighbour = Sealer(other.identity(), other.pins, other.seen(), other.audit())
    signed = signed_job(parties, tmp_path)
    ((kind, _),) = worked(site, [message(neighbour, signed.id, JOB, signed.to_bytes())])
    assert kind == REFUSED
    assert entries(parties, "message-refused")[-1]["reason"] == "sender"


@pytest.mark.parametrize("where", [10, -1])
def test_an_altered_message_is_refused(
    parties: Parties, site: SiteProcess, sealer: Sealer, tmp_path: Path, where: int
) -> None:
    signed = signed_job(parties, tmp_path)
    data = bytearray(message(sealer, signed.id, JOB, signed.to_bytes()))
    data[where] ^= 1
    ((kind, _),) = worked(site, [bytes(data)])
    assert kind == REFUSED
    assert entries(parties, "message-refused")


class Payload:
    """Writes a marker where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.write_text, (self.path, "ran")


def test_a_pickle_is_never_opened(
    parties: Parties, site: SiteProcess, sealer: Sealer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wardround.deploy import envelope

    marker = tmp_path / "marker"
    with monkeypatch.context() as patch:  # a coordinator that seals anything
        patch.setattr(envelope, "check_body", lambda body: None)
        data = message(sealer, "run-1", JOB, pickle.dumps(Payload(marker)))
    ((kind, _),) = worked(site, [data])
    assert kind == REFUSED
    assert entries(parties, "message-refused")[-1]["reason"] == "pickle"
    assert not marker.exists()


def test_bytes_that_are_nothing_are_refused(site: SiteProcess) -> None:
    for items in ([], [b""], [b"x" * 500], [b"WRE1" + b"\xff" * 100]):
        assert worked(site, items)[0][0] == REFUSED


def test_a_run_that_was_never_offered_is_refused(site: SiteProcess, sealer: Sealer) -> None:
    ((kind, said),) = worked(site, enrol_request(sealer, "never-seen"))
    assert kind == SILENT
    assert said["cause"] == "ConfigError"


def test_a_changed_policy_takes_an_approval_back_at_once(
    parties: Parties, site: SiteProcess, sealer: Sealer, tmp_path: Path
) -> None:
    signed = signed_job(parties, tmp_path)
    worked(site, [message(sealer, signed.id, JOB, signed.to_bytes())])
    assert worked(site, enrol_request(sealer, signed.id))[0][0] == STACKED
    tree = yaml.safe_load(site.folder.policy_path.read_text())
    tree["allow"]["models"] = []
    site.folder.policy_path.write_text(yaml.safe_dump(tree))
    ((kind, said),) = worked(site, enrol_request(sealer, signed.id))
    assert kind == SILENT
    assert "model.name" in said["cause"]


def test_a_site_that_begins_again_goes_on_from_its_disk(parties: Parties, sealer: Sealer, tmp_path: Path) -> None:
    signed = signed_job(parties, tmp_path)
    first = SiteProcess(parties.sites["va"].path)
    worked(first, [message(sealer, signed.id, JOB, signed.to_bytes())])
    first._lock.release()
    second = SiteProcess(parties.sites["va"].path)
    ((kind, reply),) = worked(second, enrol_request(sealer, signed.id))
    second._lock.release()
    assert kind == STACKED
    assert torch.is_tensor(reply.arrays["rows"])


def test_two_processes_of_one_site_are_not_begun(parties: Parties, site: SiteProcess) -> None:
    with pytest.raises(RunError, match="running already"):
        SiteProcess(parties.sites["va"].path)


def test_a_full_disk_is_an_answer_and_not_the_end(
    parties: Parties, site: SiteProcess, sealer: Sealer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wardround.errors import StorageError

    signed = signed_job(parties, tmp_path)
    worked(site, [message(sealer, signed.id, JOB, signed.to_bytes())])
    with monkeypatch.context() as patch:
        patch.setattr(type(site), "_run", lambda *_: (_ for _ in ()).throw(StorageError("no space")))
        ((kind, said),) = worked(site, enrol_request(sealer, signed.id))
    assert (kind, said["cause"]) == (SILENT, "StorageError")
    assert worked(site, enrol_request(sealer, signed.id))[0][0] == STACKED


PATHS = ["../evil", "../../evil", "/tmp/evil", "..", "a/b", "runs\\evil", "evil\0", "%2e%2e%2fevil", "a" * 65, ""]


def tree(folder: Path) -> set[str]:
    """Names of all files, but for those in which the refusal is noted."""
    return {str(path) for path in folder.rglob("*") if path.is_file() and "seen.db" not in path.name}


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("where", ["run", "sender", "recipient"])
def test_a_path_in_place_of_a_name_is_refused(
    parties: Parties, site: SiteProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, name: str
) -> None:
    from wardround.deploy import envelope

    identity = parties.coordinator.identity()
    names = {"run": "run-1", "recipient": "va"} | ({} if where == "sender" else {where: name})
    if where == "sender":
        object.__setattr__(identity, "name", name)
    with monkeypatch.context() as patch:  # a coordinator that signs anything
        patch.setattr(envelope, "check_name", lambda name, what: None)
        data = envelope.seal(identity, **names, number=1, kind=FACTS, body=b"{}")
    before = tree(tmp_path)
    ((kind, _),) = worked(site, [data, data])
    assert kind == REFUSED
    assert entries(parties, "message-refused")[-1]["reason"] == "malformed"
    assert tree(tmp_path) == before


@pytest.mark.parametrize("name", PATHS)
def test_a_path_as_the_name_of_a_job_or_a_site_is_refused(
    parties: Parties, site: SiteProcess, sealer: Sealer, tmp_path: Path, name: str
) -> None:
    signed = signed_job(parties, tmp_path)
    whole = json.loads(signed.to_bytes())
    before = tree(tmp_path)
    for changed in ({"submitter": name}, {"sites": {**whole["sites"], name: whole["sites"]["va"]}}):
        body = json.dumps({**whole, **changed}, sort_keys=True, separators=(",", ":")).encode()
        ((kind, _),) = worked(site, [message(sealer, signed.id, JOB, body)])
        assert kind in (REFUSED, VERDICT)
        assert not entries(parties, "job-approved")
    assert tree(tmp_path) == before


def test_a_clock_that_is_off_is_in_the_audit_log(
    parties: Parties, site: SiteProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datetime import timedelta

    from wardround.deploy import canonical, envelope

    yesterday = canonical.now() - timedelta(days=1)
    data = envelope.seal(
        parties.coordinator.identity(), recipient="va", run="run-1", number=1, kind=FACTS, body=b"{}", now=yesterday
    )
    ((kind, said),) = worked(site, [data])
    assert kind == REFUSED
    assert "clock" in said["cause"]
    found = entries(parties, "message-refused")[-1]
    assert (found["reason"], found["claimed"]) == ("clock", parties.coordinator.name)

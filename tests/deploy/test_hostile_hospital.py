"""One hospital with good keys and a program of its own, against the coordinator's process and engine: no Flower, no network."""

from __future__ import annotations

import contextlib
import json
import queue
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from deploy.wards import JOB_YAML, World
from wardround import wire
from wardround.deploy import coordinator as coordinators
from wardround.deploy import operate, site_process
from wardround.deploy.coordinator import INBOX, OUTCOME, RUNS, Coordinator
from wardround.deploy.kit import PartyFolder
from wardround.deploy.sealing import Sealer
from wardround.deploy.site_process import JOB, NOTED, VERDICT, SiteProcess
from wardround.federation.engines.flower.engine import FACTS, REPLY, SILENT, STACKED, Event
from wardround.federation.engines.flower.transfer import Inbox, Parcel, items_of
from wardround.store import atomic
from wardround.types import Message

SITES = ("aachen", "basel", "cork", "delft")
EVIL = "delft"
MARKUP = "</td><script>alert(1)</script>\x1b[31m\n| a | b |"
Say = Callable[[str, Message | None], tuple[str, bytes]]


class Behind:
    """A thread that works on what comes to an inbox."""

    def __init__(self, work: Callable[[Any], Parcel]) -> None:
        self.inbox, self._work, self._closed = Inbox(2**31), work, False
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while not self._closed:
            taken = self.inbox.take(0.1)
            if taken is not None:
                self.inbox.answer(taken.number, self._work(taken))

    def close(self) -> None:
        self._closed = True
        self._thread.join()


def evil(party: PartyFolder, say: Say) -> Behind:
    """Answers as `say` tells, under its own keys."""
    sealer = Sealer(party.identity(), party.pins, party.seen(), party.audit())

    def work(taken: Any) -> Parcel:
        items = items_of(taken.data)
        first = sealer.open(items[0], sender="coordinator", run=None, limit=2**31)
        asked = None
        if first.kind == FACTS:
            asked = wire.decode(bytes(sealer.open(items[1], sender="coordinator", run=first.run, limit=2**31).body))
        kind, body = say(first.kind, asked)
        return Parcel([[sealer.head("coordinator", first.run, kind, body), body]])

    return Behind(work)


class Post:
    """Carries datagrams to inboxes of this process."""

    def __init__(self, sites: dict[str, Behind]) -> None:
        self._sites, self._events = sites, queue.Queue[Event]()

    def send(self, site: str, key: str, data: bytes) -> None:
        def deliver() -> None:
            self._events.put(Event(op="answer", site=site, key=key, data=self._sites[site].inbox.handle(data)))

        threading.Thread(target=deliver, daemon=True).start()

    def wait(self, timeout: float) -> Event | None:
        try:
            return self._events.get(timeout=max(timeout, 0.0))
        except queue.Empty:
            return None


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    from wardround.data import registry

    monkeypatch.setitem(registry.DATASETS, "wards", "deploy.wards:Wards")
    monkeypatch.setenv("WARDROUND_FLOWER_PYTHON", sys.executable)
    # a timer of the process is for the main thread, and sites are threads here
    monkeypatch.setattr(site_process.SiteProcess, "_timed", lambda self, seconds: contextlib.nullcontext())
    monkeypatch.setattr(site_process.SiteProcess, "_print", lambda self, text: None)
    monkeypatch.setattr(coordinators, "_ASKING", 5.0)
    made = World(tmp_path, SITES, JOB_YAML.replace(", options: {active: true}", ""))
    yield made
    made.close()


def run(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], sites: dict[str, Behind]
) -> tuple[dict[str, Any], str]:
    """The outcome of the world's job, and what the coordinator said."""
    lock = threading.Lock()

    def honest(process: SiteProcess) -> Behind:
        def work(taken: Any) -> Parcel:
            with lock:
                return process._worked(taken)

        return Behind(work)

    every = sites | {name: honest(world.processes[name]) for name in SITES if name not in sites}
    monkeypatch.setattr(coordinators, "RelayPost", lambda *_: Post(every))
    coordinator = Coordinator(world.parties.coordinator.path)
    try:
        path = world.folder / "handed.json"
        path.write_bytes(world.signed.to_bytes())
        operate.submit(path, world.parties.coordinator.path)
        signed = coordinator._next()
        assert signed is not None
        coordinator._job(signed)
    finally:
        coordinator._lock.release()
        for one in every.values():
            one.close()
    outcome = json.loads((world.parties.coordinator.path / RUNS / f"{signed.id}.{OUTCOME}").read_text())
    return outcome, capsys.readouterr().out


def answers(enrol: Message, prepare: Message, other: bytes) -> Say:
    def say(kind: str, asked: Message | None) -> tuple[str, bytes]:
        if kind == JOB:
            return VERDICT, b'{"status": "approved", "reasons": 7, "by": "me"}'
        if asked is None:
            return NOTED, other
        if asked.stage == "enrol":
            return STACKED, wire.encode(enrol)
        if asked.stage == "prepare":
            return REPLY, wire.encode(prepare)
        return SILENT, b'{"cause": "x"}'

    return say


def rows(value: Any, dtype: torch.dtype = torch.int64) -> Message:
    return Message(stage="enrol", arrays={"rows": torch.tensor(value, dtype=dtype)})


@pytest.mark.parametrize(
    ("enrol", "prepare", "other"),
    [
        (Message(stage="enrol"), Message(stage="prepare"), b"{}"),
        (rows(2**62), Message(stage="prepare", meta={"executor": MARKUP, "reason": MARKUP}), b"{}"),
        pytest.param(
            rows(10**8),
            Message(stage="prepare", meta={"executor": "stacked", "reason": MARKUP}),
            b'{"signature": 3, "head": {"n": 1}}',
            marks=pytest.mark.long,
        ),
    ],
)
def test_one_hospital_above_the_quorum_neither_ends_nor_empties_a_run(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], enrol: Message, prepare: Message,
    other: bytes,
) -> None:  # fmt: skip
    say = answers(enrol, prepare, other)
    outcome, said = run(world, monkeypatch, capsys, {EVIL: evil(world.parties.sites[EVIL], say)})
    assert outcome["status"] == "done", outcome
    assert outcome["rounds"] == 2
    assert f"site {EVIL}: dropped" in said
    folder = world.parties.coordinator.path / RUNS / world.signed.id
    journal = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
    assert '"max_weight": 64.0' in json.dumps(journal)
    for name in ("report.html", "MODEL_CARD.md", "result.json"):
        text = (folder / name).read_text()
        assert "<script>alert" not in text or name == "result.json"
        assert "\x1b" not in text
    assert "\\u001b" not in (folder / "result.json").read_text()
    assert "\x1b" not in said


def test_a_heads_time_in_another_spelling_is_an_error_of_that_hospital_alone(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    party = world.parties.sites[EVIL]
    process = world.processes[EVIL]
    identity = party.identity()
    honest = SiteProcess._witnessed

    def witnessed(self: SiteProcess, body: bytes) -> dict[str, Any]:
        found = honest(self, body)
        if self is process and found["head"]:
            from wardround.deploy.audit import Head

            odd = {**found["head"], "time": found["head"]["time"].replace("T", " ")}
            odd["signature"] = identity.sign(Head(**odd).signed()).hex()
            found["head"] = odd
        return found

    monkeypatch.setattr(SiteProcess, "_witnessed", witnessed)
    monkeypatch.setattr(coordinators, "_ROUNDS_A_WITNESS", 1)
    outcome, said = run(world, monkeypatch, capsys, {})
    assert outcome["status"] == "done", outcome
    assert f"site {EVIL}: witness: a log's head" in said
    noted = [entry["log"] for entry in map(json.loads, world.parties.coordinator.audit_path.read_text().splitlines())
             if entry["kind"] == "witnessed"]  # fmt: skip
    assert set(noted) == set(SITES) - {EVIL}


def test_an_inbox_that_is_written_past_submit_runs_no_code_either(world: World, tmp_path: Path) -> None:
    """A submitter's job names `os:system` as its dataset; it lies in the inbox without `submit`."""
    from wardround.deploy import canonical
    from wardround.deploy.jobs import SignedJob

    marker = tmp_path / "code-ran"
    tree = world.job.model_dump(mode="json")
    tree["data"] = {"dataset": "os:system", "options": {"command": f"id > {marker}"}}
    unsigned = SignedJob(**{**vars(world.signed), "job_yaml": canonical.encode(tree), "signature": b""})
    signed = SignedJob(**{**vars(unsigned), "signature": world.parties.submitter.identity().sign(unsigned.signed())})
    coordinator = Coordinator(world.parties.coordinator.path)
    try:
        inbox = world.parties.coordinator.path / INBOX
        (inbox / "job.json").write_bytes(signed.to_bytes())
        assert coordinator._next() is None
        assert (inbox / "refused" / "job.json").is_file()
        # one that was taken by an earlier version, and is begun again
        atomic.make_folder(world.parties.coordinator.path / RUNS / signed.id)
        coordinator._job(signed)
    finally:
        coordinator._lock.release()
    outcome = json.loads((world.parties.coordinator.path / RUNS / f"{signed.id}.{OUTCOME}").read_text())
    assert outcome["status"] == "failed"
    assert "code that is not approved here" in outcome["cause"]
    assert not marker.exists()

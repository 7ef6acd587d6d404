"""The audit log: what was changed, dropped, moved, cut off or written anew is found; records cannot get in."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wardround.deploy import audit, canonical
from wardround.deploy.audit import AuditLog, Head, entry_hash, verify, witnessed
from wardround.deploy.identity import Identity, IdentityRefused, Pins
from wardround.errors import IdentityError, MessageError, RunError, StorageError, WardroundError

COORDINATOR, SITE = Identity.generate("coordinator"), Identity.generate("zurich")
PINS = Pins(keys={"coordinator": COORDINATOR.public, "zurich": SITE.public})
DIGEST = "ab" * 32


def filled(path: Path, entries: int = 10, identity: Identity = COORDINATOR) -> AuditLog:
    log = AuditLog(path, identity)
    for number in range(entries):
        log.append(
            "message-sent", run="heart-1", recipient="zurich", number=number, what="train", bytes=1000, digest=DIGEST
        )
    return log


@pytest.fixture
def log(tmp_path: Path) -> AuditLog:
    return filled(tmp_path / "audit.jsonl")


def kinds(path: Path, *heads: Head) -> set[str]:
    return {fault.kind for fault in verify(path, heads, PINS)}


def edited(path: Path, change: Callable[[list[dict[str, Any]]], None], *, rehash: bool = False) -> None:
    """Change the entries of a log; with `rehash`, as its owner could: numbers and the whole chain made anew."""
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    change(entries)
    if rehash:
        before = ""
        for n, entry in enumerate(entries):
            entry |= {"n": n, "before": before}
            before = entry["hash"] = entry_hash(entry)
    path.write_bytes(b"".join(canonical.encode(entry) + b"\n" for entry in entries))


def test_entries_are_chained_and_whole(log: AuditLog, tmp_path: Path) -> None:
    entries = list(log.entries())
    assert [entry["n"] for entry in entries] == list(range(10))
    assert entries[0]["before"] == ""
    assert all(later["before"] == earlier["hash"] for earlier, later in itertools.pairwise(entries))
    assert all(entry["hash"] == entry_hash(entry) for entry in entries)
    assert verify(tmp_path / "audit.jsonl") == []


def test_another_process_goes_on_where_the_last_one_ended(log: AuditLog, tmp_path: Path) -> None:
    other = AuditLog(tmp_path / "audit.jsonl", COORDINATOR)
    assert other.append("stopped", what="coordinator", status="done")["n"] == 10
    assert log.append("started", what="coordinator", version="0.1.0")["n"] == 11
    assert kinds(tmp_path / "audit.jsonl") == set()


def test_many_processes_append_to_one_log(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=filled, args=(tmp_path / "audit.jsonl", 20)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert verify(tmp_path / "audit.jsonl") == []
    assert len(list(AuditLog(tmp_path / "audit.jsonl", None).entries())) == 60


def test_a_changed_entry_is_found(log: AuditLog, tmp_path: Path) -> None:
    edited(tmp_path / "audit.jsonl", lambda entries: entries[4].update(bytes=2))
    assert [(fault.kind, fault.n) for fault in verify(tmp_path / "audit.jsonl")] == [("changed", 4)]


def test_a_changed_entry_with_a_hash_of_its_own_is_found(log: AuditLog, tmp_path: Path) -> None:
    def change(entries: list[dict[str, Any]]) -> None:
        entries[4]["bytes"] = 2
        entries[4]["hash"] = entry_hash(entries[4])

    edited(tmp_path / "audit.jsonl", change)
    assert [(fault.kind, fault.n) for fault in verify(tmp_path / "audit.jsonl")] == [("changed", 4)]


@pytest.mark.parametrize("at", [0, 4, 8])
def test_a_dropped_entry_is_found(log: AuditLog, tmp_path: Path, at: int) -> None:
    edited(tmp_path / "audit.jsonl", lambda entries: entries.pop(at) and None)
    assert [(fault.kind, fault.n) for fault in verify(tmp_path / "audit.jsonl")] == [("dropped", at)]


def test_a_gap_of_any_length_is_one_fault(log: AuditLog, tmp_path: Path) -> None:
    edited(tmp_path / "audit.jsonl", lambda entries: [entries.pop(2) for _ in range(3)] and None)
    (fault,) = verify(tmp_path / "audit.jsonl")
    assert (fault.kind, fault.text) == ("dropped", "entries 2 to 4 are not there")
    edited(tmp_path / "audit.jsonl", lambda entries: entries[-1].update(n=10**18))
    assert {fault.kind for fault in verify(tmp_path / "audit.jsonl")} == {"changed", "dropped"}


def test_an_unreadable_line_is_told_once(log: AuditLog, tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    lines = path.read_bytes().splitlines()
    lines[3] = b"\x80\x04junk"
    path.write_bytes(b"\n".join(lines) + b"\n")
    assert [(fault.kind, fault.n) for fault in verify(path)] == [("unreadable", 3)]


def test_reordered_and_repeated_entries_are_found(log: AuditLog, tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    edited(path, lambda entries: entries.insert(6, entries.pop(3)))
    assert [(fault.kind, fault.n) for fault in verify(path)] == [("reordered", 3)]
    edited(path, lambda entries: entries.append(entries[5]))
    assert ("repeated", entries_n(path)[-1]) in [(fault.kind, fault.n) for fault in verify(path)]


def entries_n(path: Path) -> list[int]:
    return [json.loads(line)["n"] for line in path.read_text().splitlines()]


def test_entries_cut_off_at_the_end_are_found_by_who_saw_them(log: AuditLog, tmp_path: Path) -> None:
    path, head = tmp_path / "audit.jsonl", log.head()
    assert head is not None
    edited(path, lambda entries: entries.pop() and None)
    assert kinds(path) == set()  # nothing in the log itself tells
    assert kinds(path, head) == {"truncated"}


def test_a_log_that_its_owner_wrote_anew_is_found_by_who_saw_it(log: AuditLog, tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    heads = [log.head()]
    log.append("run-ended", run="heart-1", status="done")
    edited(path, lambda entries: entries.pop(2) and None, rehash=True)
    assert kinds(path) == set()
    assert kinds(path, *[head for head in heads if head]) == {"rewritten"}


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_any_change_of_any_line_is_found(seed: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    draw = random.Random(seed)
    path = tmp_path_factory.mktemp("log") / "audit.jsonl"
    head = filled(path, 6).head()
    assert head is not None
    data = bytearray(path.read_bytes())
    at = draw.randrange(len(data))
    data[at] ^= draw.randrange(1, 256)
    path.write_bytes(bytes(data))
    assert kinds(path, head) != set()


def test_heads_are_noted_signed_and_countersigned(tmp_path: Path) -> None:
    theirs, ours = filled(tmp_path / "coordinator.jsonl"), filled(tmp_path / "zurich.jsonl", 2, SITE)
    head = theirs.head()
    assert head is not None
    again = Head.from_json(json.loads(json.dumps(head.to_json())))
    signature = ours.countersign(again, PINS)
    theirs.countersigned(head, "zurich", signature, PINS)
    assert witnessed(tmp_path / "zurich.jsonl", "coordinator") == [head]
    assert witnessed(tmp_path / "zurich.jsonl", "budapest") == []
    assert kinds(tmp_path / "coordinator.jsonl", head) == set()
    with pytest.raises(IdentityRefused):
        theirs.countersigned(head, "coordinator", signature, PINS)
    with pytest.raises(IdentityRefused, match="128 hexadecimal"):
        theirs.countersigned(head, "zurich", "x", PINS)


def test_a_head_that_its_owner_did_not_sign_is_neither_noted_nor_believed(tmp_path: Path) -> None:
    path = tmp_path / "coordinator.jsonl"
    head = filled(path).head()
    assert head is not None
    forged = replace(head, hash="0" * 64)
    with pytest.raises(IdentityRefused):
        filled(tmp_path / "zurich.jsonl", 1, SITE).countersign(forged, PINS)
    # a witness cannot frame the owner
    assert kinds(path, forged) == {"witness"}
    rotated = Pins(keys={"coordinator": SITE.public}, earlier={"coordinator": (COORDINATOR.public,)})
    assert verify(path, [head], rotated) == []


@pytest.mark.parametrize(
    "tree",
    [
        None, [], {}, {"n": True}, {"n": -1}, {"n": 1.5}, {"log": "../x"}, {"hash": "x"}, {"signature": "x"}, {"time": "today"},
        {"time": "2026-03-01 12:00:00+00:00"}, {"time": "2026-03-01T12:00:00+00:00"}, {"time": "2026-03-01T13:00:00.000+01:00"},
        {"time": "0001-01-01T00:00:00.000+23:59"}, {"n": 2**60},
    ],
)  # fmt: skip
def test_a_head_of_another_form_is_refused(tree: Any) -> None:
    sound = {"log": "zurich", "n": 1, "hash": DIGEST, "time": "2026-03-01T12:00:00.000+00:00", "signature": "0" * 128}
    assert Head.from_json(sound).n == 1
    with pytest.raises(MessageError):
        Head.from_json({**sound, **tree} if tree else tree)


def test_an_empty_log_has_no_head_and_a_reader_cannot_sign(tmp_path: Path) -> None:
    assert AuditLog(tmp_path / "audit.jsonl", COORDINATOR).head() is None
    reader = AuditLog(tmp_path / "audit.jsonl", None)
    with pytest.raises(IdentityError, match="signed by the log's owner"):
        reader.head()
    head = filled(tmp_path / "other.jsonl", 1).head()
    assert head is not None
    with pytest.raises(IdentityError, match="needs the log owner's identity"):
        reader.countersign(head, PINS)
    with pytest.raises(RunError, match="there is no audit log"):
        verify(tmp_path / "audit.jsonl")


# ------------------------------------------------------------------------------------------------------- privacy


@pytest.mark.parametrize(
    ("kind", "facts"),
    [
        ("diagnosis", {}),
        ("message-sent", {"text": "x"}),
        ("message-sent", {"what": "Anna Huber, born 1951"}),
        ("message-sent", {"digest": "Huber"}),
        ("message-refused", {"cause": "line 3: 'Huber' is no number"}),
        ("message-refused", {"cause": "line-3-Huber-is-no-number"}),
        ("job-refused", {"reason": "a b"}),
        ("round", {"asked": ["zurich", "Anna Huber"]}),
        ("round", {"seconds": "12"}),
        ("round", {"seconds": -1}),
        ("round", {"round": True}),
        ("job-judged", {"allowed": "yes"}),
        ("job-judged", {"keys": ["data.options", "Anna Huber"]}),
        ("enrolled", {"party": "../x"}),
        ("enrolled", {"fingerprint": "SHA256:Huber"}),
    ],
)
def test_what_has_no_place_in_the_log_is_refused_and_not_told_again(
    log: AuditLog, tmp_path: Path, kind: str, facts: dict[str, Any]
) -> None:
    before = (tmp_path / "audit.jsonl").read_bytes()
    with pytest.raises(WardroundError) as caught:
        log.append(kind, **facts)
    assert "Huber" not in str(caught.value)
    assert (tmp_path / "audit.jsonl").read_bytes() == before


def test_every_fact_of_every_kind_has_a_form() -> None:
    assert {fact for facts in audit.KINDS.values() for fact in facts} <= audit._FORMS.keys()


# ------------------------------------------------------------------------------------------------------ accidents


def test_a_line_that_was_cut_short_is_found_and_the_next_one_replaces_it(log: AuditLog, tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    with open(path, "ab") as file:
        file.write(b'{"before":"')
    assert kinds(path) == {"unfinished"}
    assert log.append("stopped", what="coordinator")["n"] == 10
    assert kinds(path) == set()
    path.write_bytes(b'{"n":')
    assert log.append("stopped", what="coordinator")["n"] == 0
    assert kinds(path) == set()


def test_nothing_is_appended_to_a_damaged_last_line(log: AuditLog, tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    edited(path, lambda entries: entries[-1].update(bytes=2))
    with pytest.raises(RunError, match="its last line is damaged"):
        log.append("stopped", what="coordinator")
    assert kinds(path) == {"changed"}


def test_long_lines_are_read_to_their_beginning(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit.jsonl", COORDINATOR)
    names = [f"hospital-{number}" for number in range(900)]
    log.append("round", run="r", asked=names)
    assert log.append("round", run="r", asked=names)["n"] == 1
    assert verify(tmp_path / "audit.jsonl") == []


def test_where_the_disk_is_full_the_log_stays_whole(
    log: AuditLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wardround.store import atomic

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(atomic, "_write", full)
        with pytest.raises(StorageError, match="free space"):
            log.append("stopped", what="coordinator")
    assert log.append("stopped", what="coordinator")["n"] == 10
    assert kinds(tmp_path / "audit.jsonl") == set()


def test_an_entry_that_this_version_does_not_write_is_told(log: AuditLog, tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    assert kinds(path) == set()
    last = list(log.entries())[-1]
    for odd in (
        {"kind": "round", "run": "x\x1b[2J"},
        {"kind": "gossip"},
        {"kind": 3},
        {"kind": "stopped", "time": "today"},
    ):
        entry = {"n": last["n"] + 1, "time": last["time"], "before": last["hash"], **odd}
        entry["hash"] = entry_hash(entry)
        other = tmp_path / "other.jsonl"
        other.write_bytes(path.read_bytes() + canonical.encode(entry) + b"\n")
        assert kinds(other) == {"form"}

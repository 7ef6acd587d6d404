"""What was asked, what left and who decided: an append-only log, chained by hashes, whose heads the others sign.

One entry a line, canonical JSON: `n` counts from 0, `time` (UTC), `kind`, the kind's facts, `before` (the `hash` of the line
before, "" for the first) and `hash`, the SHA-256 of the entry without it. A changed, dropped or moved line breaks the chain.
Whoever holds the log could write all of it anew; so parties exchange heads, the newest hash with its owner's signature, and
note them in their own logs. A log written anew no longer goes through the heads that others noted.

Facts are of fixed forms, by kind: numbers, names, hashes, single words. There is no field for a text that records could get
into, and an error's message is not logged, only its class.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from wardround.deploy import canonical
from wardround.deploy.identity import Identity, IdentityRefused, Pins
from wardround.deploy.names import is_name
from wardround.errors import IdentityError, MessageError, RunError, StorageError, WardroundError
from wardround.store import atomic
from wardround.types import Json

_HEAD, _WITNESS = b"wardround/audit-head/1\x00", b"wardround/audit-witness/1\x00"
_OWN = {"n", "time", "kind", "before", "hash"}
_LOCK_SECONDS = 30.0

_WORD = re.compile(r"[A-Za-z0-9_.:/+-]{1,80}")
_CLASS = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_MARK = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")
_SIGNATURE = re.compile(r"[0-9a-f]{128}")
_KEY = re.compile(r"[a-z_]+(\.[a-z_0-9]+)*")

Check = Callable[[Any], bool]


def _matches(form: re.Pattern[str]) -> Check:
    return lambda value: isinstance(value, str) and form.fullmatch(value) is not None


def _number(value: Any) -> bool:
    return type(value) in (int, float) and value >= 0


def _named(value: Any) -> bool:
    return is_name(value) or value == "?"


def _list_of(check: Check) -> Check:
    return lambda value: isinstance(value, (list, tuple)) and len(value) <= 1000 and all(check(one) for one in value)


_FORMS: Mapping[str, Check] = {
    **dict.fromkeys(("party", "sender", "recipient", "submitter", "run", "job", "log", "claimed", "by"), _named),
    **dict.fromkeys(("asked", "counted", "missing"), _list_of(_named)),
    **dict.fromkeys(("digest", "policy", "head", "plugin"), _matches(_DIGEST)),
    **dict.fromkeys(("fingerprint", "earlier"), _matches(_MARK)),
    **dict.fromkeys(("number", "bytes", "round", "attempt", "serial", "at", "seconds", "parts"), _number),
    **dict.fromkeys(("what", "reason", "rule", "role", "status", "version", "user", "stage", "task"), _matches(_WORD)),
    "cause": _matches(_CLASS),
    "keys": _list_of(_matches(_KEY)),
    "allowed": lambda value: isinstance(value, bool),
    "signature": _matches(_SIGNATURE),
    "moment": _matches(_WORD),
}
"""Fact -> what its value must look like."""

KINDS: Mapping[str, frozenset[str]] = {
    kind: frozenset(facts.split())
    for kind, facts in {
        "started": "what version",
        "stopped": "what status cause",
        "enrolled": "party role fingerprint earlier",
        "revoked": "party fingerprint",
        "roster": "serial digest",
        "job-submitted": "job submitter digest",
        "job-judged": "job submitter digest allowed policy keys",
        "job-approved": "job digest policy rule user",
        "job-denied": "job digest user",
        "decision-refused": "job digest reason",
        "job-refused": "job submitter reason cause digest keys",
        "bundle-refused": "digest bytes reason",
        "connection-refused": "claimed reason cause fingerprint",
        "message-sent": "run recipient number what bytes digest stage task round parts",
        "message-received": "run sender number what bytes digest stage task round parts",
        "message-refused": "run claimed reason cause bytes digest stage task round",
        "run-started": "run job digest",
        "run-ended": "run status cause round seconds",
        "round": "run what round attempt asked counted missing seconds",
        "limit": "run what cause",
        "figures-released": "run what digest bytes",
        "witnessed": "log at head moment signature",
        "countersigned": "by at head signature",
    }.items()
}
"""Kind of entry -> the facts that it may have."""


@dataclass(frozen=True, kw_only=True)
class Head:
    """The newest entry of a log, as its owner says.

    Attributes:
        log: the owner's name.
        n: number of the entry.
        hash: of the entry, hexadecimal.
        time: of the signature.
        signature: the owner's, hexadecimal.
    """

    log: str
    n: int
    hash: str
    time: str
    signature: str

    def to_json(self) -> dict[str, Json]:
        """As it travels."""
        return asdict(self)

    @classmethod
    def from_json(cls, tree: Json) -> Head:
        """The head that travelled.

        Raises:
            MessageError: not of this form.
        """
        if not isinstance(tree, Mapping):
            raise MessageError(f"a log's head is a {type(tree).__name__}, expected an object")
        head = cls(
            n=canonical.member(tree, "n", int, "a log's head"),
            **{
                name: canonical.member(tree, name, str, "a log's head") for name in ("log", "hash", "time", "signature")
            },
        )
        if not (
            is_name(head.log) and _DIGEST.fullmatch(head.hash) and _SIGNATURE.fullmatch(head.signature)
            and 0 <= head.n < 2**53
        ):  # fmt: skip
            raise MessageError("a log's head has members of another form")
        canonical.exact_time(head.time, "a log's head")
        return head

    def signed(self) -> bytes:
        """What the owner's signature is over."""
        return _HEAD + canonical.encode({"log": self.log, "n": self.n, "hash": self.hash, "time": self.time})

    def check(self, pins: Pins) -> None:
        """Whether the log's owner signed it. Raises IdentityError."""
        pins.verify(self.log, self.signed(), bytes.fromhex(self.signature))


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What is wrong with a log.

    Attributes:
        kind: `changed`, `dropped`, `repeated`, `reordered`, `unreadable`, `unfinished`, `truncated`, `rewritten`, `witness`,
            `form` (an entry that this version does not write).
        n: number of the entry, or of the line where the entry has none.
        text: in words.
    """

    kind: str
    n: int
    text: str


class AuditLog:
    """A log that this process appends to, as may other processes of the same machine.

    Args:
        path: of the file; its folder must exist.
        identity: of the log's owner, who signs heads; None: a reader of entries only, who may append but not sign.
    """

    def __init__(self, path: Path, identity: Identity | None) -> None:
        self._path, self._identity = path, identity
        self._lock = FileLock(str(path) + ".lock", timeout=_LOCK_SECONDS)

    def append(self, kind: str, *, now: datetime | None = None, **facts: Json) -> dict[str, Json]:
        """Write one entry durably, and return it.

        Raises:
            WardroundError: an unknown kind, or a fact that the kind does not have or of another form. Nothing was written.
            RunError: the last line of the log is damaged.
            StorageError: the disk cannot be written. The earlier lines are intact.
        """
        _check(kind, facts)
        try:
            with self._lock:
                last = self._last()
                entry: dict[str, Json] = {
                    **facts,
                    "n": 0 if last is None else last["n"] + 1,
                    "time": canonical.time_text(now or canonical.now()),
                    "kind": kind,
                    "before": "" if last is None else last["hash"],
                }
                entry["hash"] = entry_hash(entry)
                atomic.append_line(self._path, canonical.encode(entry).decode())
        except Timeout as error:
            raise StorageError(
                f"{self._path} is held by another process for {_LOCK_SECONDS:g} s: end it, then try again"
            ) from error
        return entry

    def head(self, *, now: datetime | None = None) -> Head | None:
        """The newest entry, signed; None where the log is empty.

        Raises:
            IdentityError: this process has no key to sign with.
        """
        if self._identity is None:
            raise IdentityError(f"{self._path}: a head is signed by the log's owner, and no identity was given")
        with self._lock:
            last = self._last()
        if last is None:
            return None
        head = Head(
            log=self._identity.name, n=last["n"], hash=last["hash"], time=canonical.time_text(now or canonical.now()),
            signature="0" * 128,
        )  # fmt: skip
        signature = self._identity.sign(head.signed()).hex()
        return Head(log=head.log, n=head.n, hash=head.hash, time=head.time, signature=signature)

    def countersign(self, head: Head, pins: Pins) -> str:
        """Note another party's head in this log, and return this party's signature over it, hexadecimal.

        Raises:
            IdentityError: the head is not signed by its log's owner.
        """
        if self._identity is None:
            raise IdentityError(f"{self._path}: a countersignature needs the log owner's identity")
        head.check(pins)
        self.append("witnessed", log=head.log, at=head.n, head=head.hash, moment=head.time, signature=head.signature)
        return self._identity.sign(_WITNESS + head.signed()).hex()

    def countersigned(self, head: Head, by: str, signature: str, pins: Pins) -> None:
        """Keep another party's countersignature over one of this log's heads.

        Raises:
            IdentityError: it is not by them.
        """
        if _SIGNATURE.fullmatch(signature) is None:
            raise IdentityRefused("signature", f"a countersignature by {by!r:.80} is not 128 hexadecimal digits")
        pins.verify(by, _WITNESS + head.signed(), bytes.fromhex(signature))
        self.append("countersigned", by=by, at=head.n, head=head.hash, signature=signature)

    def entries(self) -> Iterator[dict[str, Json]]:
        """All entries as they stand, unchecked, without an unfinished last line."""
        for line in _lines(self._path)[0]:
            yield json.loads(line)

    def since(self, at: int, kinds: Collection[str], run: str = "") -> tuple[list[dict[str, Any]] | None, int]:
        """Entries of some kinds, of a run, from byte `at` on, unchecked, and where to go on; (None, 0): no line begins there."""
        marks = [b'"kind":"%s"' % kind.encode() for kind in kinds]
        about = b'"run":"%s"' % run.encode() if run else b""
        found = []
        try:
            with open(self._path, "rb") as file:
                if at:
                    file.seek(at - 1)
                    if file.read(1) != b"\n":
                        return None, 0
                for line in file:
                    if not line.endswith(b"\n"):
                        break
                    at += len(line)
                    if about in line and any(mark in line for mark in marks):
                        found.append(json.loads(line))
        except FileNotFoundError:
            return (None, 0) if at else ([], 0)
        except OSError as error:
            raise StorageError(f"{self._path} could not be read: {error.strerror or error}") from error
        except ValueError as error:
            raise RunError(
                f"{self._path} has a line that is no entry: {error}; see `wardround deploy log verify`"
            ) from error
        return found, at

    def _last(self) -> dict[str, Any] | None:
        """The last whole line, parsed; what an interrupted write left after it is cut off. Called under the lock."""
        content = _tail(self._path)
        if content is None:
            return None
        data, end = content
        if not data:
            atomic.cut(self._path, 0)
            return None
        if end is not None:
            atomic.cut(self._path, end)
        try:
            entry = canonical.parse(data, "the last entry")
            if entry["hash"] != entry_hash(entry) or type(entry["n"]) is not int:
                raise MessageError("its hash is not its own")
        except (MessageError, KeyError) as error:
            raise RunError(
                f"{self._path}: its last line is damaged ({error}), so nothing can be appended: keep the file as evidence, find "
                "out who changed it, and let a copy from a backup go on"
            ) from error
        return entry


def entry_hash(entry: Mapping[str, Json]) -> str:
    """SHA-256 of an entry without its own `hash`."""
    return hashlib.sha256(canonical.encode({k: v for k, v in entry.items() if k != "hash"})).hexdigest()


def witnessed(path: Path, log: str) -> list[Head]:
    """The heads of the log of `log` that another party noted in its own log at `path`, which should be verified itself.

    Raises:
        MessageError: a noted head is none.
    """
    heads = []
    for entry in AuditLog(path, None).entries():
        if entry.get("kind") == "witnessed" and entry.get("log") == log:
            given = {"n": "at", "hash": "head", "time": "moment", "signature": "signature"}
            heads.append(Head.from_json({"log": log, **{name: entry.get(fact) for name, fact in given.items()}}))
    return heads


def verify(path: Path, witnesses: Sequence[Head] = (), pins: Pins | None = None) -> list[Fault]:
    """What is wrong with a log: [] where nothing is.

    Args:
        path: of the log.
        witnesses: heads of this log that others noted.
        pins: to check that the log's owner had signed these heads, so that no witness can invent one; None: as they are.

    Raises:
        RunError: no such file.
    """
    lines, unfinished = _lines(path)
    faults: list[Fault] = []
    entries: list[dict[str, Any]] = []
    for number, line in enumerate(lines):
        try:
            entry = canonical.parse(line, "the line")
            sound = type(entry["n"]) is int and isinstance(entry["hash"], str) and isinstance(entry["before"], str)
        except (MessageError, KeyError):
            sound = False
        if not sound:
            faults.append(Fault(kind="unreadable", n=number, text=f"line {number + 1} is not an entry"))
            continue
        if entry["hash"] != entry_hash(entry):
            faults.append(
                Fault(kind="changed", n=entry["n"], text=f"entry {entry['n']} was changed after it was written")
            )
        text = _odd(entry)
        if text:
            faults.append(
                Fault(kind="form", n=entry["n"], text=f"entry {entry['n']} is none that this version writes: {text}")
            )
        entries.append(entry)
    faults += _chain_faults(entries, {fault.n for fault in faults if fault.kind == "unreadable"})
    if unfinished:
        faults.append(
            Fault(
                kind="unfinished",
                n=len(lines),
                text="the last line has no end: a write was interrupted, or the file was cut",
            )
        )
    return [*faults, *_witness_faults(entries, witnesses, pins)]


def _chain_faults(entries: Sequence[Mapping[str, Any]], unreadable: set[int]) -> Iterator[Fault]:
    hashes: dict[int, str] = {}
    highest = -1
    for entry in entries:
        n = entry["n"]
        if n in hashes:
            yield Fault(kind="repeated", n=n, text=f"there are two entries {n}")
        elif n < highest:
            yield Fault(kind="reordered", n=n, text=f"entry {n} stands after entry {highest}")
        hashes.setdefault(n, entry["hash"])
        highest = max(highest, n)
    expected = 0
    for n in sorted(hashes):
        first, expected = expected, n + 1
        if n > first and not (n - first <= len(unreadable) and set(range(first, n)) <= unreadable):
            which = f"entry {first} is" if n == first + 1 else f"entries {first} to {n - 1} are"
            yield Fault(kind="dropped", n=first, text=f"{which} not there")
    for entry in entries:
        before = hashes.get(entry["n"] - 1, "" if entry["n"] == 0 else None)
        if before is not None and entry["before"] != before:
            n = entry["n"]
            yield Fault(
                kind="changed", n=max(n - 1, 0), text=f"entry {n} was written after another entry {n - 1} than is there"
            )


def _witness_faults(
    entries: Sequence[Mapping[str, Any]], witnesses: Sequence[Head], pins: Pins | None
) -> Iterator[Fault]:
    hashes = {entry["n"]: entry["hash"] for entry in entries}
    last = max(hashes, default=-1)
    for head in witnesses:
        if pins is not None and not pins.signed_once(head.log, head.signed(), bytes.fromhex(head.signature)):
            text = f"a noted head of entry {head.n} proves nothing: {head.log} did not sign it"
            yield Fault(kind="witness", n=head.n, text=text)
            continue
        if head.n > last:
            yield Fault(
                kind="truncated",
                n=head.n,
                text=f"others saw entry {head.n} on {head.time}, and the log ends with {last}",
            )
        elif hashes.get(head.n) not in (None, head.hash):
            yield Fault(
                kind="rewritten", n=head.n,
                text=f"others saw another entry {head.n} on {head.time}: the log was written anew up to there, or a part of it",
            )  # fmt: skip


def _odd(entry: Mapping[str, Any]) -> str:
    """What of an entry has a form that `append` does not write; an empty text where nothing has. Its hash may be sound."""
    kind = entry.get("kind")
    if not isinstance(kind, str):
        return "it has no kind"
    try:
        canonical.exact_time(canonical.member(entry, "time", str, "its time"), "its time")
        _check(kind, {name: value for name, value in entry.items() if name not in _OWN})
    except WardroundError as error:
        return str(error)
    return ""


def _check(kind: str, facts: Mapping[str, Json]) -> None:
    allowed = KINDS.get(kind)
    if allowed is None:
        raise WardroundError(f"an audit entry of kind {kind!r}: expected one of {', '.join(KINDS)}")
    for name, value in facts.items():
        if name not in allowed:
            raise WardroundError(f"an audit entry {kind} has no fact {name!r}: expected {', '.join(sorted(allowed))}")
        if not _FORMS[name](value):
            raise WardroundError(
                f"an audit entry {kind}: {name} is not of its form (a {type(value).__name__}); free texts are not logged"
            )


def _lines(path: Path) -> tuple[list[bytes], bool]:
    """The whole lines, and whether there is an unfinished one."""
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise RunError(f"there is no audit log at {path}: give the folder of a coordinator or a site") from error
    except OSError as error:
        raise StorageError(f"{path} could not be read: {error.strerror or error}") from error
    *lines, rest = content.split(b"\n")
    return lines, bool(rest)


def _tail(path: Path) -> tuple[bytes, int | None] | None:
    """The last whole line and where it ends if something unfinished follows; None where the file is absent or empty."""
    try:
        with open(path, "rb") as file:
            size = file.seek(0, 2)
            if size == 0:
                return None
            block = 4096
            while True:
                start = max(0, size - block)
                file.seek(start)
                data = file.read(size - start)
                end = data.rfind(b"\n")
                before = data.rfind(b"\n", 0, end) if end >= 0 else -1
                if start == 0 or (end >= 0 and before >= 0):
                    break
                block *= 4
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(f"{path} could not be read: {error.strerror or error}") from error
    return data[before + 1 : max(end, 0)], None if end == len(data) - 1 else start + end + 1

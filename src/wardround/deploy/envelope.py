"""Every message between coordinator and site: signed by its sender, for one recipient, in one run, once.

Layout: `WRE1`; the header's length N, 4 bytes, big-endian; N bytes of canonical JSON; a signature of 64 bytes; the body.
The signature is over a fixed label and the header, which holds the body's length and SHA-256. So a changed byte anywhere is
found, and nothing of a message is believed before its signature is checked.

A body is a message in wire form, a JSON object, or nothing. The envelope looks at its first bytes, and never unpickles.
"""

from __future__ import annotations

import json
import re
import sqlite3
import threading
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from wardround import wire
from wardround.content import Buffer, Content
from wardround.deploy import canonical
from wardround.deploy.identity import SIGNATURE_BYTES, Identity, IdentityRefused, Pins, fingerprint
from wardround.deploy.names import check_name, is_name
from wardround.errors import MessageError, StorageError

MAGIC = b"WRE1"
LABEL = b"wardround/envelope/1\x00"
LIMIT = 2 * 2**30
"""Longest message in bytes where no other limit is given."""
SKEW = timedelta(minutes=15)
"""How far the clocks of two machines may be apart."""
_HEADER_LIMIT = 4096
_JSON_LIMIT = 16 * 2**20
_PREFIX = len(MAGIC) + 4
_KIND = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_SESSION = re.compile(r"[0-9a-f]{16}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")
_MEMBERS = {"body", "key", "kind", "number", "recipient", "run", "sender", "sent", "session", "size"}
_PICKLE = re.compile(rb"\x80[\x02-\x05]|[(c}\]]")
"""How a pickle begins: protocols 2 to 5 by their mark, 0 and 1 by an opcode that no other body begins with."""
_ARCHIVE = b"PK\x03\x04"
_KEPT = timedelta(days=30)


class EnvelopeRefused(MessageError):
    """A message was refused.

    Attributes:
        reason: one word for the audit log: `oversized`, `malformed`, `recipient`, `altered`, `clock`, `pickle`, `body`,
            `replayed`, `run`.
    """

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


@dataclass(frozen=True, kw_only=True)
class Envelope:
    """A message that was checked.

    Attributes:
        sender, recipient: names.
        run: the run's id.
        number: of the sender's message in this run, each taken once.
        kind: what the body is for, in the words of whoever sends.
        body: a message in wire form, a JSON object, or nothing.
        sent: when, by the sender's clock.
        session: which process of the sender.
    """

    sender: str
    recipient: str
    run: str
    number: int
    kind: str
    body: Content
    sent: str
    session: str

    @property
    def digest(self) -> str:
        """SHA-256 of the body, hexadecimal."""
        return self.body.digest


def seal(
    identity: Identity, *, recipient: str, run: str, number: int, kind: str, body: bytes, now: datetime | None = None
) -> bytes:
    """A signed message. A number is used once by an `Identity` object in a run.

    Raises:
        MessageError: a body that no recipient would take, or a malformed kind or number.
        ConfigError: a malformed name.
    """
    first = head(identity, recipient=recipient, run=run, number=number, kind=kind, body=Content(body), now=now)
    return first + body


def head(
    identity: Identity, *, recipient: str, run: str, number: int, kind: str, body: Content, now: datetime | None = None
) -> bytes:
    """All of `seal` that goes before the body, for a sender that does not want a second copy of it."""
    check_name(recipient, "recipient")
    check_name(run, "run")
    if _KIND.fullmatch(kind) is None or not 0 <= number < 2**63:
        raise EnvelopeRefused(
            "malformed", f"kind = {kind!r:.80}, number = {number}: expected a-z, 0-9 and -, and 0 or more"
        )
    check_body(body)
    header = canonical.encode(
        {
            "sender": identity.name,
            "key": identity.fingerprint,
            "session": identity.session,
            "recipient": recipient,
            "run": run,
            "number": number,
            "kind": kind,
            "sent": canonical.time_text(now or canonical.now()),
            "size": body.size,
            "body": body.digest,
        }
    )
    return b"".join([MAGIC, len(header).to_bytes(4, "big"), header, identity.sign(LABEL + header)])


def open_(
    pins: Pins, data: Buffer | Content, *, me: str, sender: str | None, seen: Seen,
    run: str | None = None, limit: int = LIMIT, skew: timedelta = SKEW, now: datetime | None = None,
) -> Envelope:  # fmt: skip
    """Check a message and take it; the same one is never taken twice.

    Args:
        pins: who is trusted.
        data: the message, of which the body is no copy.
        me: this party's name.
        sender: who must have sent it, or None for anybody pinned.
        seen: what was taken before.
        run: which run it must belong to, or None for any.
        limit: longest message in bytes.
        skew: most that the clocks may be apart.
        now: the time here; default this machine's clock.

    Raises:
        EnvelopeRefused: oversized, malformed, altered, for somebody else or another run, too old or from the future, a body
            that is not a message, or taken before.
        IdentityRefused: the sender is unknown, not the one expected, revoked, expired, or active in a second place, or did
            not sign this.
    """
    here = now or canonical.now()
    content = data if isinstance(data, Content) else Content(data)
    header, raw, signature, start = _split(content, limit)
    name, key = header["sender"], header["key"]
    if header["recipient"] != me:
        raise EnvelopeRefused(
            "recipient", f"a message for {header['recipient']} came to {me}: it was sent the wrong way"
        )
    if sender is not None and name != sender:
        raise IdentityRefused("sender", f"a message by {name} came where one by {sender} was expected")
    if key in pins.revoked:
        raise IdentityRefused("revoked", f"a message by {name} is signed with a key that was revoked ({key})")
    public = pins.key(name, now=here)
    if fingerprint(public) != key:
        raise IdentityRefused(
            "unknown",
            f"a message by {name} is signed with an unknown key ({key}); the pinned one is {fingerprint(public)}",
        )
    pins.verify(name, LABEL + raw, signature, now=here)
    if run is not None and header["run"] != run:
        raise EnvelopeRefused("run", f"a message of run {header['run']} by {name} came to run {run}")
    body = content.cut(start)
    if body.size != header["size"] or body.digest != header["body"]:
        raise EnvelopeRefused(
            "altered", f"message {header['number']} by {name} has {body.size} bytes of another content than the "
            f"{header['size']} that were signed: it was altered or cut on its way; it will be asked for again"
        )  # fmt: skip
    sent = canonical.time_from(header["sent"], "the message's time")
    if abs(here - sent) > skew:
        raise EnvelopeRefused(
            "clock", f"message {header['number']} by {name} was sent at {header['sent']} by its clock, and it is "
            f"{canonical.time_text(here)} here, more than {skew.total_seconds() / 60:g} min apart: it was held back, or a clock "
            "is wrong; set both by NTP"
        )  # fmt: skip
    check_body(body)
    seen.take(name, header["run"], header["session"], header["number"], sent, here)
    return Envelope(
        sender=name, recipient=me, run=header["run"], number=header["number"], kind=header["kind"], body=body,
        sent=header["sent"], session=header["session"],
    )  # fmt: skip


def claimed_sender(data: Content) -> str:
    """Whom an unchecked message says it is by, for a log of refusals; `?` where that is no name."""
    try:
        return str(_split(data, LIMIT)[0]["sender"])
    except MessageError:
        return "?"


def check_body(body: Content) -> None:
    """Whether the body is of a form that a message can have, by its frame alone.

    Raises:
        EnvelopeRefused: a pickle, an archive (which holds one, where PyTorch made it), or neither wire form nor JSON.
    """
    if not body.size:
        return
    begin = bytes(body.read(0, 9))
    if begin[:1] == b"{":
        _check_json(body)
        return
    length = int.from_bytes(begin[:8], "little") if body.size >= 8 else -1
    if 0 < length <= min(wire.HEADER_LIMIT, body.size - 8) and begin[8:9] == b"{":
        return
    if _PICKLE.match(begin) is not None:
        raise EnvelopeRefused("pickle", "the body is a pickle, which runs code where it is read: it was not opened")
    if begin[: len(_ARCHIVE)] == _ARCHIVE:
        raise EnvelopeRefused("pickle", "the body is a ZIP archive, in which PyTorch keeps pickles: it was not opened")
    raise EnvelopeRefused("body", f"the body of {body.size} bytes is neither a message in wire form nor a JSON object")


def _check_json(body: Content) -> None:
    if body.size > _JSON_LIMIT:
        raise EnvelopeRefused("body", f"the body is {body.size} bytes of JSON, expected at most {_JSON_LIMIT}")
    try:
        json.loads(bytes(body))
    except (ValueError, RecursionError) as error:
        raise EnvelopeRefused("body", f"the body begins like JSON and is none: {error}") from error


def _split(data: Content, limit: int) -> tuple[dict[str, Any], bytes, bytes, int]:
    """Header, its bytes, the signature, and where the body begins; every member is of its form."""
    if data.size > limit:
        raise EnvelopeRefused(
            "oversized", f"a message of {data.size} bytes, and at most {limit} are taken: raise the limit"
        )
    prefix = data.read(0, _PREFIX)
    if prefix[: len(MAGIC)] != MAGIC or len(prefix) < _PREFIX:
        raise EnvelopeRefused("malformed", f"{data.size} bytes that do not begin like a message of this protocol")
    length = int.from_bytes(prefix[len(MAGIC) :], "big")
    start = _PREFIX + length + SIGNATURE_BYTES
    if length > _HEADER_LIMIT or start > data.size:
        raise EnvelopeRefused(
            "malformed", f"its header claims {length} bytes, of {data.size} in all and at most {_HEADER_LIMIT}"
        )
    raw = bytes(data.read(_PREFIX, _PREFIX + length))
    try:
        header = canonical.parse(raw, "the header of a message")
        canonical.time_from(canonical.member(header, "sent", str, "the header"), "the header")
    except EnvelopeRefused:
        raise
    except MessageError as error:
        raise EnvelopeRefused("malformed", str(error)) from error
    sound = header.keys() == _MEMBERS and (
        all(is_name(header[member]) for member in ("sender", "recipient", "run"))
        and all(type(header[member]) is int and 0 <= header[member] < 2**63 for member in ("number", "size"))
        and all(
            isinstance(header[member], str) and form.fullmatch(header[member])
            for member, form in (("kind", _KIND), ("session", _SESSION), ("body", _SHA256), ("key", _FINGERPRINT))
        )
    )
    if not sound:
        raise EnvelopeRefused("malformed", f"the header of a message has members of another form: {raw[:200]!r}")
    return header, raw, bytes(data.read(start - SIGNATURE_BYTES, start)), start


class Seen:
    """The numbers that were taken, on the disk, for any number of processes.

    A sender's process says its `session` in each message. Once a newer process of the same sender spoke in a run, the older one
    must be dead: if it speaks again later, the identity is in use in two places, and nothing by it is taken in this run until an
    administrator has looked (`clear`). What the dead process had sent before may still arrive.

    Args:
        path: of the database; its folder must exist.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, threading.Lock()
        try:
            self._base = sqlite3.connect(path, timeout=30.0, isolation_level=None, check_same_thread=False)
            self._base.execute("PRAGMA synchronous = FULL")
            for table in _TABLES:
                self._base.execute(table)
        except sqlite3.Error as error:
            raise self._unusable(error) from error

    def take(self, sender: str, run: str, session: str, number: int, sent: datetime, here: datetime) -> None:
        """Note a number.

        Raises:
            EnvelopeRefused: it was taken before.
            IdentityRefused: the sender is active in two places.
            StorageError: the disk cannot be written; the number is not taken.
        """
        with self._lock:
            try:
                self._base.execute("BEGIN IMMEDIATE")
                try:
                    refusal = self._noted(sender, run, session, number, sent.timestamp(), here.timestamp())
                    self._base.execute("COMMIT")
                except BaseException:
                    self._base.execute("ROLLBACK")
                    raise
            except sqlite3.Error as error:
                raise self._unusable(error) from error
        if refusal is not None:
            raise refusal

    def contested(self) -> list[tuple[str, str]]:
        """(sender, run) of those that were active in two places."""
        with self._lock:
            return [(a, b) for a, b in self._base.execute("SELECT sender, run FROM contested ORDER BY sender, run")]

    def clear(self, sender: str) -> int:
        """Take messages by a sender again, once it is certain that it is in one place; how many runs it was held in."""
        with self._lock:
            try:
                held = self._base.execute("DELETE FROM contested WHERE sender = ?", (sender,)).rowcount
                # whoever speaks next is the one process
                self._base.execute("DELETE FROM sessions WHERE sender = ?", (sender,))
            except sqlite3.Error as error:
                raise self._unusable(error) from error
        return held

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._base.close()

    def _noted(
        self, sender: str, run: str, session: str, number: int, sent: float, here: float
    ) -> EnvelopeRefused | IdentityRefused | None:
        base = self._base
        if base.execute("SELECT 1 FROM contested WHERE sender = ? AND run = ?", (sender, run)).fetchone():
            return _second_place(sender, run)
        key = (sender, run, session, number)
        found = base.execute(
            "SELECT 1 FROM taken WHERE sender = ? AND run = ? AND session = ? AND number = ?", key
        ).fetchone()
        if found:
            return EnvelopeRefused(
                "replayed", f"message {number} by {sender} in run {run} was taken before: it is a replay"
            )
        newest = base.execute(
            "SELECT session, began FROM sessions WHERE sender = ? AND run = ? ORDER BY began DESC LIMIT 1",
            (sender, run),
        ).fetchone()
        if newest and newest[0] != session and sent > newest[1]:
            known = base.execute(
                "SELECT 1 FROM sessions WHERE sender = ? AND run = ? AND session = ?", (sender, run, session)
            ).fetchone()
            if known:
                base.execute("INSERT INTO contested VALUES (?, ?)", (sender, run))
                return _second_place(sender, run)
        base.execute("DELETE FROM taken WHERE at < ?", (here - _KEPT.total_seconds(),))
        base.execute("INSERT INTO taken VALUES (?, ?, ?, ?, ?)", (*key, here))
        base.execute(
            "INSERT INTO sessions VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET began = min(began, excluded.began)",
            (sender, run, session, sent),
        )
        return None

    def _unusable(self, error: sqlite3.Error) -> StorageError:
        return StorageError(
            f"{self._path}, where taken messages are noted, cannot be used: {error}; no message is taken until it can; see to "
            "the disk"
        )


_TABLES = (
    "CREATE TABLE IF NOT EXISTS taken (sender, run, session, number INTEGER, at REAL, "
    "PRIMARY KEY (sender, run, session, number)) WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS taken_at ON taken (at)",
    "CREATE TABLE IF NOT EXISTS sessions (sender, run, session, began REAL, "
    "PRIMARY KEY (sender, run, session)) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS contested (sender, run, PRIMARY KEY (sender, run)) WITHOUT ROWID",
)


def _second_place(sender: str, run: str) -> IdentityRefused:
    return IdentityRefused(
        "second-place", f"the identity of {sender} is in use in two places in run {run}: end one of them, or revoke the key if "
        f"one is not theirs; then `wardround deploy check DIR --clear {sender}`", run=run,
    )  # fmt: skip

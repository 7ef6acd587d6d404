"""Sealing and opening the messages of one process: the numbers that it gives, and what it notes of each."""

from __future__ import annotations

import itertools
import re
import threading
from collections.abc import Callable, Mapping
from typing import Any

from wardround.content import Buffer, Content
from wardround.deploy import envelope
from wardround.deploy.audit import AuditLog
from wardround.deploy.envelope import Envelope, EnvelopeRefused, Seen
from wardround.deploy.identity import Identity, IdentityRefused, Pins
from wardround.deploy.names import is_name
from wardround.errors import IdentityError, MessageError

BESIDE = frozenset({"facts"})
"""Kinds of messages that only go with another one, which is noted."""
_WORD = re.compile(r"[^A-Za-z0-9_.:/+-]+")


def word(text: str) -> str:
    """A text as the audit log takes words: nothing that records could get into."""
    return _WORD.sub("-", text)[:80] or "none"


class Sealer:
    """What a process signs and takes.

    Args:
        identity: its own.
        pins: reads the keys that are trusted now; called for each message, so that a revocation counts at once.
        seen: what was taken before.
        log: the audit log.
    """

    def __init__(self, identity: Identity, pins: Callable[[], Pins], seen: Seen, log: AuditLog) -> None:
        self.identity, self._pins, self._seen, self.log = identity, pins, seen, log
        self._numbers, self._lock = itertools.count(1), threading.Lock()

    def head(
        self, recipient: str, run: str, kind: str, body: Buffer | Content, *, round: int | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> bytes:  # fmt: skip
        """What goes before a body; the message is noted as sent, but for what merely goes with another one.

        Args:
            recipient, run, kind, body: of the message.
            round: in which it is sent.
            about: further facts for the log.
        """
        with self._lock:
            number = next(self._numbers)
        content = body if isinstance(body, Content) else Content(body)
        found = envelope.head(self.identity, recipient=recipient, run=run, number=number, kind=kind, body=content)
        if kind not in BESIDE:
            facts: dict[str, Any] = ({} if round is None else {"round": round}) | dict(about or {})
            self.log.append(
                "message-sent", run=run, recipient=recipient, number=number, what=kind, bytes=content.size,
                digest=content.digest, **facts,
            )  # fmt: skip
        return found

    def open(
        self, data: Buffer | Content, *, sender: str | None, run: str | None, limit: int,
        about: Callable[[Envelope], Mapping[str, Any]] = lambda envelope: {},
    ) -> Envelope:  # fmt: skip
        """The checked message.

        Args:
            data: what came.
            sender, run: expected; None: any.
            limit: most bytes.
            about: further facts of it for the log; it may raise MessageError.

        Raises:
            MessageError, IdentityError: it is refused, and the refusal is noted.
        """
        content = data if isinstance(data, Content) else Content(data)
        try:
            found = envelope.open_(
                self._pins(), content, me=self.identity.name, sender=sender, seen=self._seen, run=run, limit=limit
            )
            facts = about(found)
        except (MessageError, IdentityError) as error:
            self._refused(content, error, run)
            raise
        if found.kind not in BESIDE:
            self.log.append(
                "message-received", run=found.run, sender=found.sender, number=found.number, what=found.kind,
                bytes=found.body.size, digest=found.digest, **facts,
            )  # fmt: skip
        return found

    def _refused(self, content: Content, error: MessageError | IdentityError, run: str | None) -> None:
        reason = error.reason if isinstance(error, (EnvelopeRefused, IdentityRefused)) else "malformed"
        run = run or getattr(error, "run", None)
        claimed = envelope.claimed_sender(content.cut(0, 8192))
        self.log.append(
            "message-refused", run=run if run is not None and is_name(run) else "?", claimed=claimed, reason=word(reason),
            cause=type(error).__name__, bytes=content.size, digest=content.digest,
        )  # fmt: skip

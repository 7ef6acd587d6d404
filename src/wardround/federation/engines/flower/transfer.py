"""Whole messages in parts, over datagrams that may be lost, late or doubled: the coordinator asks, a site answers.

A parcel is a few items of bytes, each a sealed message, under a random number. The coordinator puts its parts one after the
other, then gets the answer's parts; each datagram has one answer within seconds, also while the site trains. Every step may be
repeated without harm. A site that knows nothing of a parcel says `unknown` (its process was restarted), and gets it anew.

    put  x k n size | part      ->  next k | working | ready n size | part 0 | unknown | refused
    get  x k                    ->  working | ready n size | part k | unknown

A datagram is a length (4 bytes, little-endian), a JSON head and a payload. Nothing here is trusted for more than sizes: who
sent what is in the sealed items.
"""

from __future__ import annotations

import json
import secrets
import struct
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wardround.content import Buffer, Content, Spool
from wardround.errors import MessageError, StorageError
from wardround.federation.engines.flower.relay import PART

HOLD = 1.0
"""Seconds that a site may hold an answer back, waiting for what is asked for."""
MOST_ITEMS = 64
IN_MEMORY = 8 * 2**20
"""Longest parcel in bytes that is gathered in memory; a longer one is gathered in a file."""
_PAST = 256
"""Numbers of earlier parcels that a site knows again."""
_LENGTH = struct.Struct("<I")
_HEAD_LIMIT = 4096


def datagram(head: dict[str, Any], payload: Buffer = b"") -> bytes:
    """A head and a payload as bytes."""
    text = json.dumps(head, separators=(",", ":")).encode()
    return b"".join([_LENGTH.pack(len(text)), text, payload])


def undatagram(data: bytes) -> tuple[dict[str, Any], memoryview]:
    """The head and the payload of a datagram.

    Raises:
        MessageError: not one.
    """
    length = _LENGTH.unpack_from(data)[0] if len(data) >= _LENGTH.size else -1
    if not 0 <= length <= min(_HEAD_LIMIT, len(data) - _LENGTH.size):
        raise MessageError(f"{len(data)} bytes that are no datagram: the other side runs another version")
    try:
        head = json.loads(data[_LENGTH.size : _LENGTH.size + length])
    except (ValueError, RecursionError) as error:
        raise MessageError(f"a datagram whose head is not JSON: {error}") from error
    if not isinstance(head, dict):
        raise MessageError("a datagram whose head is not an object")
    return head, memoryview(data)[_LENGTH.size + length :]


class Parcel:
    """Items that are sent as one, without being copied together.

    Args:
        items: each item as the pieces of bytes that it is made of.
    """

    def __init__(self, items: Sequence[Sequence[Buffer | Content]]) -> None:
        contents = [Content(*pieces) for pieces in items]
        head = json.dumps([content.size for content in contents]).encode()
        self._content = Content(_LENGTH.pack(len(head)) + head, *contents)
        self.size = self._content.size
        self.parts = max(-(-self.size // PART), 1)

    def part(self, k: int) -> bytearray:
        """Part k of `parts`."""
        return self._content.read(k * PART, (k + 1) * PART)


def items_of(data: Content) -> list[Content]:
    """The items of a parcel that came whole.

    Raises:
        MessageError: its sizes do not fit.
    """
    length = _LENGTH.unpack(data.read(0, _LENGTH.size))[0] if data.size >= _LENGTH.size else -1
    start = _LENGTH.size + length
    try:
        sizes = json.loads(data.read(_LENGTH.size, start)) if 0 <= length <= _HEAD_LIMIT else None
    except (ValueError, RecursionError):
        sizes = None
    sound = isinstance(sizes, list) and len(sizes) <= MOST_ITEMS and all(type(n) is int and n >= 0 for n in sizes)
    if not sound or sizes is None or start + sum(sizes) != data.size:
        raise MessageError(f"a parcel of {data.size} bytes whose sizes do not fit: it was altered on its way")
    found = []
    for size in sizes:
        found.append(data.cut(start, start + size))
        start += size
    return found


class Gathering:
    """A parcel that comes in parts, of which a long one takes no memory. It is as long as what came, whatever was announced.

    Args:
        parts, size: what was announced.
        folder: where a long one is gathered, in a file without a name; None: where the system keeps temporary files.
    """

    def __init__(self, parts: int, size: int, folder: Path | None = None) -> None:
        self.parts, self.size, self.next = parts, size, 0
        self._place: Spool | bytearray = Spool(folder) if size > IN_MEMORY else bytearray()

    def add(self, k: int, part: Buffer) -> None:
        """Take part k, where it is the next; an earlier one came before.

        Raises:
            MessageError: it has another length than its place.
            StorageError: the disk is full.
        """
        if k != self.next:
            return
        if len(part) != min(PART, self.size - k * PART):
            raise MessageError(f"part {k} of a parcel has {len(part)} bytes, which is not its length")
        if isinstance(self._place, Spool):
            self._place.write(part)
        else:
            self._place += part
        self.next += 1

    @property
    def whole(self) -> bool:
        """Whether all parts are there."""
        return self.next == self.parts

    @property
    def content(self) -> Content:
        """What came."""
        return Content(self._place)


def sound_sizes(parts: Any, size: Any, limit: int) -> bool:
    """Whether a parcel may have these."""
    return type(parts) is int and type(size) is int and 0 < size <= limit and parts == -(-size // PART)


# ------------------------------------------------------------------------------------------------ the site's end


@dataclass
class Taken:
    """A request that came whole.

    Attributes:
        number: of the parcel.
        data: its bytes.
    """

    number: str
    data: Content


class Inbox:
    """The site's end: answers datagrams from a thread of its own, while another works on what came.

    Args:
        limit: most bytes of a parcel.
        folder: where long ones are gathered; None: where the system keeps temporary files.

    Attributes:
        refusals: one word, and a size, of each datagram that was refused.
    """

    def __init__(self, limit: int, folder: Path | None = None) -> None:
        self._limit, self._folder = limit, folder
        self._change = threading.Condition()
        self._coming: tuple[str, Gathering] | None = None
        self._waiting: Taken | None = None
        self._working: str | None = None
        self._ready: tuple[str, Parcel] | None = None
        self._past: deque[str] = deque(maxlen=_PAST)
        self._closed = False
        self.refusals: list[tuple[str, int]] = []

    def handle(self, data: bytes) -> bytes:
        """The answer to a datagram, within HOLD seconds."""
        try:
            head, payload = undatagram(data)
            if head.get("op") == "put":
                return self._put(head, payload)
            if head.get("op") == "get":
                return self._get(str(head.get("x")), head.get("k"))
        except StorageError:
            self.refusals.append(("storage", len(data)))
            return datagram({"s": "refused", "why": "storage"})
        except MessageError:
            self.refusals.append(("malformed", len(data)))
        return datagram({"s": "refused", "why": "malformed"})

    def take(self, timeout: float) -> Taken | None:
        """The next request that is whole; None after `timeout` seconds, or once the inbox was closed."""
        with self._change:
            self._change.wait_for(lambda: self._waiting is not None or self._closed, timeout)
            found, self._waiting = self._waiting, None
            if found is not None:
                # whoever asks for more has the answer before, or gave it up: it would be a model beside the next one
                if self._ready is not None:
                    self._past.append(self._ready[0])
                self._working, self._ready = found.number, None
            return found

    def answer(self, number: str, parcel: Parcel) -> None:
        """What to give whoever gets the answer to request `number`; it replaces an earlier answer."""
        with self._change:
            self._ready, self._working = (number, parcel), None
            self._change.notify_all()

    def forget(self, number: str) -> None:
        """There is no answer to request `number`, and there was no request: whoever asks sends it anew."""
        with self._change:
            if self._working == number:
                self._working = None
            self._change.notify_all()

    def close(self) -> None:
        """Wake whoever takes."""
        with self._change:
            self._closed = True
            self._change.notify_all()

    def _put(self, head: dict[str, Any], payload: memoryview) -> bytes:
        x, k, parts, size = str(head.get("x")), head.get("k"), head.get("n"), head.get("size")
        if type(parts) is not int or type(size) is not int or not sound_sizes(parts, size, self._limit):
            self.refusals.append(("oversized", size if type(size) is int else 0))
            return datagram({"s": "refused", "why": "oversized"})
        if type(k) is not int or not 0 <= k < parts:
            return datagram({"s": "refused", "why": "malformed"})
        with self._change:
            if self._known(x):
                return self._state(x, 0)
            if self._coming is None or self._coming[0] != x:
                if k or x in self._past:  # begun elsewhere, or late
                    return datagram({"s": "unknown"})
                self._coming = (x, Gathering(parts, size, self._folder))
            gathering = self._coming[1]
            gathering.add(k, payload)
            if not gathering.whole:
                return datagram({"s": "next", "k": gathering.next})
            self._waiting, self._coming = Taken(x, gathering.content), None
            del gathering  # this thread goes on waiting while the other one lets go of the bytes
            self._change.notify_all()
            return self._state(x, 0)

    def _get(self, x: str, k: Any) -> bytes:
        with self._change:
            if not self._known(x) or type(k) is not int:
                return datagram({"s": "unknown"})
            return self._state(x, k)

    def _known(self, x: str) -> bool:
        waiting = self._waiting.number if self._waiting else None
        return x in (waiting, self._working, self._ready[0] if self._ready else None)

    def _state(self, x: str, k: int) -> bytes:
        self._change.wait_for(lambda: self._ready is not None and self._ready[0] == x, HOLD)
        if self._ready is None or self._ready[0] != x:
            return datagram({"s": "working" if self._known(x) else "unknown"})
        parcel = self._ready[1]
        if not 0 <= k < parcel.parts:
            return datagram({"s": "unknown"})
        return datagram({"s": "ready", "n": parcel.parts, "size": parcel.size, "k": k}, parcel.part(k))


# ------------------------------------------------------------------------------------------------ the coordinator's end


@dataclass
class Conversation:
    """One request to one site, and how far it is.

    Attributes:
        site: its name.
        limit: most bytes of an answer.
        folder: where a long answer is gathered; None: where the system keeps temporary files.
        number: of the parcel, anew whenever it is sent anew.
        parcel: what is asked.
        begun: how often it was sent from its start.
        key, posted: of the last datagram, and when it was sent; heard: when the site last gave a sign, by the monotonic clock.
    """

    site: str
    parcel: Parcel | None
    limit: int
    folder: Path | None = None
    number: str = field(default_factory=lambda: secrets.token_hex(8))
    begun: int = 1
    key: str = ""
    posted: float = 0.0
    heard: float = field(default_factory=time.monotonic)
    _put: int = 0
    _gathering: Gathering | None = None

    def next(self) -> bytes:
        """The datagram to send now."""
        self.key, self.posted = secrets.token_hex(8), time.monotonic()
        if self.parcel is not None:
            parcel = self.parcel
            head = {"op": "put", "x": self.number, "k": self._put, "n": parcel.parts, "size": parcel.size}
            return datagram(head, parcel.part(self._put))
        return datagram({"op": "get", "x": self.number, "k": self._gathering.next if self._gathering else 0})

    def again(self, parcel: Parcel) -> None:
        """Send the request from its start, sealed anew."""
        self.number, self.parcel, self._put, self._gathering = secrets.token_hex(8), parcel, 0, None
        self.begun += 1

    def hear(self, data: bytes) -> str:
        """Take the answer to the last datagram: `more`, `whole` or `unknown`.

        Raises:
            MessageError: refused, or an answer that means nothing.
        """
        head, payload = undatagram(data)
        self.heard = time.monotonic()
        state = head.get("s")
        if state == "next" and self.parcel is not None:
            k = head.get("k")
            if type(k) is not int or not 0 <= k < self.parcel.parts:
                raise MessageError(f"site {self.site} asks for part {k!r:.20} of {self.parcel.parts}")
            self._put = k
            return "more"
        if state == "working":
            self.parcel = None
            return "more"
        if state == "ready":
            self.parcel = None
            return self._take(head, payload)
        if state == "unknown":
            return "unknown"
        raise MessageError(f"site {self.site} refused a message: {str(head.get('why') or head.get('refused'))[:80]}")

    def _take(self, head: dict[str, Any], payload: memoryview) -> str:
        if self._gathering is None:
            if not sound_sizes(head.get("n"), head.get("size"), self.limit):
                raise MessageError(
                    f"site {self.site} answers with {head.get('size')!r:.20} bytes, and {self.limit} are taken"
                )
            self._gathering = Gathering(head["n"], head["size"], self.folder)
        self._gathering.add(head.get("k", 0), payload)
        return "whole" if self._gathering.whole else "more"

    @property
    def answer(self) -> Content:
        """The answer that came whole."""
        if self._gathering is None or not self._gathering.whole:
            raise MessageError(f"site {self.site}: its answer is not whole yet")
        return self._gathering.content

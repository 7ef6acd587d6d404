"""The engine between hospitals: the same `ask`, with sites behind sealed messages in parts.

The engine knows neither keys nor sockets: a `Post` carries datagrams, and a `Seals` seals what is asked and opens what comes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from wardround import wire
from wardround.errors import IdentityError, MessageError
from wardround.federation.engines.flower.transfer import Buffer, Conversation, Parcel, items_of
from wardround.types import Arrays, Json, Message, Reply, Request

FACTS, ASK, REPLY, STACKED, SILENT = "facts", "ask", "reply", "reply-stacked", "silent"
"""Kinds of sealed messages: a site's own facts, the message for all; an answer, one with a site axis, and none."""

LIMIT = 2 * 2**30
RESEND = 20.0
"""Seconds after which a datagram without an answer is sent again."""
SILENCE = 120.0
"""Seconds without any sign after which a site is given up where the job sets no deadline."""
_AGAIN, _PAUSE, _QUIET = 50, 2.0, 5.0


@dataclass(frozen=True, kw_only=True)
class Event:
    """What the post brings.

    Attributes:
        op: `answer`, `lost`, or anything about the connection.
        site, key: of the datagram.
        data: of the answer.
    """

    op: str
    site: str = ""
    key: str = ""
    data: bytes = b""


class Post(Protocol):
    """Carries datagrams to sites."""

    def send(self, site: str, key: str, data: bytes) -> None:
        """Send; an answer or a loss is told under `key`, or nothing ever."""
        ...

    def wait(self, timeout: float) -> Event | None:
        """What came, oldest first; None after `timeout` seconds."""
        ...


class Seals(Protocol):
    """Seals and opens messages of one run."""

    def head(self, site: str, kind: str, body: Buffer) -> bytes:
        """What goes in front of a body for `site`: its signature and header, with a fresh number."""
        ...

    def open(self, site: str, data: Buffer) -> tuple[str, bytes | memoryview]:
        """Kind and body of what `site` sent. Raises MessageError or IdentityError, and logs it, where it is refused."""
        ...


class FlowerEngine:
    """Sites that are elsewhere.

    Args:
        sites: their names.
        post: carries datagrams.
        seals: of this run.
        notice: told of what goes wrong with a site, in words.
        limit: most bytes of an answer.

    Attributes:
        merges: False: no process holds the records of all sites.
        remote: True: there is no host in this process.
    """

    merges = False
    remote = True

    def __init__(
        self, sites: Sequence[str], post: Post, seals: Seals, *,
        notice: Callable[[str, str, str], None] = lambda site, what, text: None, limit: int = LIMIT,
    ) -> None:  # fmt: skip
        self._sites = tuple(sorted(sites))
        self._post, self._seals, self._notice, self._limit = post, seals, notice, limit
        self.waiting: tuple[str, ...] = ()
        self._fetched = ""

    @property
    def sites(self) -> tuple[str, ...]:
        """The roster of the job, in canonical order."""
        return self._sites

    def ask(self, request: Request, sites: Sequence[str], deadline: float | None) -> Iterator[Reply]:
        """Replies as they come, until every site has answered or `deadline` seconds have passed.

        Without a deadline a site is waited for as long as it gives a sign of life. Whatever does not answer this request, or
        comes twice, is dropped.
        """
        shared = [wire.encode(request.message)]

        def parcel(site: str) -> Parcel:
            # the first parcels share the bytes, which are gone once every site has them; who needs them again makes them anew
            body = shared[0] if shared else wire.encode(request.message)
            facts = json.dumps(request.for_site(site), sort_keys=True).encode()
            return Parcel([[self._seals.head(site, FACTS, facts), facts], [self._seals.head(site, ASK, body), body]])

        for site, items in self.exchange(parcel, sites, deadline, sent=shared.clear):
            while items:  # nothing of an answer is held on to while the next one comes: each may be a model
                kind, content = items.pop(0)
                if kind not in (REPLY, STACKED):
                    self._notice(site, kind, bytes(content[:500]).decode(errors="replace"))
                    continue
                try:
                    message = wire.decode(content)
                except MessageError as error:
                    self._notice(site, "malformed", str(error))
                    break
                del content
                reply = _reply(site, message, stacked=kind == STACKED)
                del message
                yield reply
                del reply

    def tell(
        self, kind: str, bodies: Mapping[str, bytes], deadline: float | None
    ) -> Iterator[tuple[str, str, dict[str, Json]]]:
        """Ask something else than the loop does: a JSON body a site, and (site, kind, JSON) of each answer."""

        def parcel(site: str) -> Parcel:
            return Parcel([[self._seals.head(site, kind, bodies[site]), bodies[site]]])

        for site, items in self.exchange(parcel, tuple(bodies), deadline):
            for answer, content in items:
                try:
                    found = json.loads(bytes(content))
                except ValueError as error:
                    self._notice(site, "malformed", str(error))
                    continue
                yield site, answer, found

    def exchange(
        self,
        parcel: Callable[[str], Parcel],
        sites: Sequence[str],
        deadline: float | None,
        sent: Callable[[], None] = lambda: None,
    ) -> Iterator[tuple[str, list[tuple[str, bytes | memoryview]]]]:
        """Send a parcel to each site, and yield (site, the opened items of its answer) as they come whole.

        `sent` is called once all parcels were made.
        """
        end = None if deadline is None else time.monotonic() + deadline
        talks = {site: Conversation(site, parcel(site), self._limit) for site in sites}
        sent()
        for talk in talks.values():
            self._send(talk)
        try:
            while talks and (end is None or time.monotonic() < end):
                self.waiting = tuple(talks)
                event = self._post.wait(0.25 if end is None else min(0.25, max(end - time.monotonic(), 0.0)))
                if event is not None and event.op == "answer" and event.site in talks:
                    found = self._heard(talks[event.site], event, parcel)
                    if found is not None:
                        del talks[event.site]  # and with it the bytes that came, but for what the items look at
                    if found:
                        yield event.site, found
                    del found
                elif event is not None:
                    _hurry(talks, event)
                self._release(talks)
                self._overdue(talks, patient=end is not None)
        finally:
            self.waiting = ()

    def _send(self, talk: Conversation) -> None:
        data = talk.next()
        self._post.send(talk.site, talk.key, data)

    def _heard(
        self, talk: Conversation, event: Event, parcel: Callable[[str], Parcel]
    ) -> list[tuple[str, bytes | memoryview]] | None:
        """The opened answer once it is whole, [] where it is refused for good, None while it goes on."""
        if event.key != talk.key:
            return None  # late, or a second time
        try:
            state = talk.hear(event.data)
            if state == "whole":
                return [self._seals.open(talk.site, item) for item in items_of(talk.answer)]
        except (MessageError, IdentityError) as error:
            self._notice(talk.site, "refused", str(error))
            return []
        if state == "unknown":
            if talk.begun >= _AGAIN:
                self._notice(talk.site, "lost", f"it forgot the request {talk.begun} times")
                return []
            self._notice(talk.site, "again", "it does not know the request (its process was restarted): sent anew")
            talk.again(parcel(talk.site))
        if talk.gathers:
            talk.held = True  # one long answer at a time is in memory
        else:
            self._send(talk)
        return None

    def _release(self, talks: Mapping[str, Conversation]) -> None:
        """Fetch on: the answer that is being fetched, or the next in order where it is here or its site has gone quiet."""
        now, present = time.monotonic(), talks.get(self._fetched)
        if present is not None and present.gathers and (present.held or now - present.heard < _QUIET):
            chosen: Conversation | None = present
        else:
            chosen = next((talk for talk in talks.values() if talk.held), None)
        if chosen is not None and chosen.held:
            self._fetched, chosen.held = chosen.site, False
            self._send(chosen)

    def _overdue(self, talks: dict[str, Conversation], *, patient: bool) -> None:
        now = time.monotonic()
        for site, talk in list(talks.items()):
            if now - talk.posted > RESEND and not talk.held:
                if not patient and now - talk.heard > SILENCE:
                    self._notice(site, "silent", f"no sign for {now - talk.heard:.0f} s: this round goes on without it")
                    del talks[site]
                else:
                    self._send(talk)

    def journal(self, index: int, sites: Sequence[str]) -> tuple[tuple[str, ...], Arrays]:
        """Sites keep their own."""
        return (), {}

    def restore(self, sites: Sequence[str], states: Arrays) -> None:
        """Sites keep their own."""

    def close(self) -> None:
        """The post outlives a run."""


def _hurry(talks: Mapping[str, Conversation], event: Event) -> None:
    """Do not wait for what is known to be lost, and begin at once where the connection is back."""
    for talk in talks.values():
        if event.op == "up":
            talk.posted = 0.0
        elif event.op == "lost" and event.key == talk.key:
            talk.posted = time.monotonic() - RESEND + _PAUSE


def _reply(site: str, message: Message, *, stacked: bool) -> Reply:
    """One site has no axis to stack: it is added where the site took it away."""
    if stacked:
        arrays = {name: value.unsqueeze(0) for name, value in message.arrays.items()}
        message = Message(stage=message.stage, meta=message.meta, arrays=arrays)
    return Reply(sites=(site,), message=message, stacked=stacked)


def request_of(message: Message, site: str, facts: Mapping[str, Json]) -> Request:
    """The request that crossed, with this site's own facts."""
    return Request(message=message, facts={name: {site: own} for name, own in facts.items()})


def unstacked(reply: Reply) -> Message:
    """A reply as it crosses: one site has no axis to stack."""
    if not reply.stacked:
        return reply.message
    arrays: dict[str, torch.Tensor] = {name: value[0] for name, value in reply.message.arrays.items()}
    return Message(stage=reply.message.stage, meta=reply.message.meta, arrays=arrays)

"""The engine between hospitals: the same `ask`, with sites behind sealed messages in parts.

The engine knows neither keys nor sockets: a `Post` carries datagrams, and a `Seals` seals what is asked and opens what comes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from wardround import wire
from wardround.content import Buffer, Content
from wardround.errors import IdentityError, MessageError
from wardround.federation.engines.flower.transfer import Conversation, Parcel, items_of
from wardround.federation.messages import ENROL, FIGURES, PREPARE
from wardround.training import memory
from wardround.types import Arrays, Json, Message, Reply, Request

FACTS, ASK, REPLY, STACKED, SILENT = "facts", "ask", "reply", "reply-stacked", "silent"
"""Kinds of sealed messages: a site's own facts, the message for all; an answer, one with a site axis, and none."""

LIMIT = 2 * 2**30
"""Most bytes of any answer."""
SMALL = 2**20
"""Most bytes of an answer that has no model in it: to a direct question, a job, a head, a run's end."""
LEAST, TIMES = 256 * 2**20, 8
"""Most bytes of any other answer: this many, and this often the longest request of the run so far."""
RESEND = 20.0
"""Seconds after which a datagram without an answer is sent again."""
SILENCE = 120.0
"""Seconds without any sign after which a site is given up where the job sets no deadline."""
_AGAIN, _PAUSE = 50, 2.0


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

    def head(self, site: str, kind: str, body: Buffer | Content) -> bytes:
        """What goes in front of a body for `site`: its signature and header, with a fresh number."""
        ...

    def open(self, site: str, data: Content) -> tuple[str, Content]:
        """Kind and body of what `site` sent. Raises MessageError or IdentityError, and logs it, where it is refused."""
        ...


class FlowerEngine:
    """Sites that are elsewhere.

    Args:
        sites: their names.
        post: carries datagrams.
        seals: of this run.
        notice: told of what goes wrong with a site, in words.
        limit: most bytes of an answer, whatever was asked.
        times: how often the longest request so far an answer may be.
        folder: where long answers are gathered; None: where the system keeps temporary files.

    Attributes:
        merges: False: no process holds the records of all sites.
        remote: True: there is no host in this process.
    """

    merges = False
    remote = True

    def __init__(
        self, sites: Sequence[str], post: Post, seals: Seals, *,
        notice: Callable[[str, str, str], None] = lambda site, what, text: None, limit: int = LIMIT,
        folder: Path | None = None, times: int = TIMES,
    ) -> None:  # fmt: skip
        self._sites = tuple(sorted(sites))
        self._times, self._longest = times, 0
        self._post, self._seals, self._notice, self._limit, self._folder = post, seals, notice, limit, folder
        self.waiting: tuple[str, ...] = ()

    @property
    def sites(self) -> tuple[str, ...]:
        """The roster of the job, in canonical order."""
        return self._sites

    def ask(self, request: Request, sites: Sequence[str], deadline: float | None) -> Iterator[Reply]:
        """Replies as they come, until every site has answered or `deadline` seconds have passed.

        Without a deadline a site is waited for as long as it gives a sign of life. Whatever does not answer this request, or
        comes twice, is dropped.
        """
        body = Content(*wire.pieces(request.message))  # views of the arrays: nothing is copied

        def parcel(site: str) -> Parcel:
            # neither can be sent with another one of its kind
            facts = json.dumps({**request.for_site(site), ASK: body.digest}, sort_keys=True).encode()
            return Parcel([[self._seals.head(site, FACTS, facts), facts], [self._seals.head(site, ASK, body), body]])

        self._longest = max(self._longest, body.size)
        small = request.message.stage in (ENROL, PREPARE, FIGURES)
        limit = SMALL if small else min(self._limit, LEAST + self._times * self._longest)
        for site, items in self.exchange(parcel, sites, deadline, limit):
            for kind, content in items:
                if kind not in (REPLY, STACKED):
                    self._notice(site, kind, content.read(0, 500).decode(errors="replace"))
                    continue
                try:
                    message = wire.decode(content)
                except MessageError as error:
                    self._notice(site, "malformed", str(error))
                    break
                yield _reply(site, message, stacked=kind == STACKED)

    def tell(
        self, kind: str, bodies: Mapping[str, bytes], deadline: float | None
    ) -> Iterator[tuple[str, str, dict[str, Json]]]:
        """Ask something else than the loop does: a JSON body a site, and (site, kind, JSON) of each answer."""

        def parcel(site: str) -> Parcel:
            return Parcel([[self._seals.head(site, kind, bodies[site]), bodies[site]]])

        for site, items in self.exchange(parcel, tuple(bodies), deadline, SMALL):
            for answer, content in items:
                try:
                    found = json.loads(bytes(content))
                except (ValueError, RecursionError) as error:
                    self._notice(site, "malformed", str(error))
                    continue
                if not isinstance(found, dict):
                    self._notice(
                        site, "malformed", f"it answers {kind} with a {type(found).__name__}, expected an object"
                    )
                    continue
                yield site, answer, found

    def exchange(
        self, parcel: Callable[[str], Parcel], sites: Sequence[str], deadline: float | None, limit: int | None = None
    ) -> Iterator[tuple[str, list[tuple[str, Content]]]]:
        """Send a parcel to each site, and yield (site, the opened items of its answer) as they come whole.

        Args:
            parcel: for a site.
            sites: whom.
            deadline: seconds to wait; None: as long as there is a sign.
            limit: most bytes of an answer; None: of any.
        """
        most = self._limit if limit is None else min(limit, self._limit)
        end = None if deadline is None else time.monotonic() + deadline
        talks = {site: Conversation(site, parcel(site), most, self._folder) for site in sites}
        memory.give_back()  # what the last round needed is not what this one does
        for talk in talks.values():
            self._send(talk)
        try:
            while talks and (end is None or time.monotonic() < end):
                self.waiting = tuple(talks)
                event = self._post.wait(0.25 if end is None else min(0.25, max(end - time.monotonic(), 0.0)))
                if event is not None and event.op == "answer" and event.site in talks:
                    found = self._heard(talks[event.site], event, parcel)
                    if found is not None:
                        del talks[event.site]
                    if found:
                        yield event.site, found
                elif event is not None:
                    _hurry(talks, event)
                self._overdue(talks, patient=end is not None)
        finally:
            self.waiting = ()
            memory.give_back()

    def _send(self, talk: Conversation) -> None:
        data = talk.next()
        self._post.send(talk.site, talk.key, data)

    def _heard(
        self, talk: Conversation, event: Event, parcel: Callable[[str], Parcel]
    ) -> list[tuple[str, Content]] | None:
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
        self._send(talk)
        return None

    def _overdue(self, talks: dict[str, Conversation], *, patient: bool) -> None:
        now = time.monotonic()
        for site, talk in list(talks.items()):
            if now - talk.posted > RESEND:
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

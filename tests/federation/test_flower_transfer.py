"""Messages in parts over a post that loses, doubles and delays: the site's end and the engine, without Flower."""

from __future__ import annotations

import json
import random
import threading
from collections import deque
from collections.abc import Callable, Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wardround import wire
from wardround.content import Buffer, Content
from wardround.errors import MessageError
from wardround.federation.engines.flower import engine as engines
from wardround.federation.engines.flower import transfer
from wardround.federation.engines.flower.engine import ASK, FACTS, REPLY, SILENT, Event, FlowerEngine
from wardround.federation.engines.flower.relay import BUNDLE, bundle
from wardround.federation.engines.flower.transfer import (
    Conversation,
    Gathering,
    Inbox,
    Parcel,
    datagram,
    items_of,
    undatagram,
)
from wardround.types import Message, Request

PART = 1000


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "PART", PART)
    monkeypatch.setattr(transfer, "HOLD", 0.02)
    monkeypatch.setattr(transfer, "IN_MEMORY", 5000)
    monkeypatch.setattr(engines, "RESEND", 0.1)
    monkeypatch.setattr(engines, "_PAUSE", 0.01)


class Plain:
    """Seals that sign nothing."""

    def head(self, site: str, kind: str, body: Buffer | Content) -> bytes:
        return kind.ljust(16).encode()

    def open(self, site: str, data: Content) -> tuple[str, Content]:
        return data.read(0, 16).decode().strip(), data.cut(16)


def answered(items: list[tuple[str, bytes]]) -> Parcel:
    return Parcel([[kind.ljust(16).encode(), body] for kind, body in items])


class Site:
    """An inbox with somebody behind it who works on what comes."""

    def __init__(self, work: Callable[[list[tuple[str, bytes]]], list[tuple[str, bytes]]], limit: int = 10**6) -> None:
        self.limit, self._work, self.worked = limit, work, 0
        self.inbox = Inbox(limit)
        self._closed = False
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while not self._closed:
            inbox = self.inbox
            taken = inbox.take(0.05)
            if taken is not None:
                self.worked += 1
                seals = Plain()
                items = [(kind, bytes(body)) for kind, body in (seals.open("", one) for one in items_of(taken.data))]
                inbox.answer(taken.number, answered(self._work(items)))

    def crash(self) -> None:
        """Nothing of what was in memory is left."""
        self.inbox.close()
        self.inbox = Inbox(self.limit)

    def close(self) -> None:
        self._closed = True
        self._thread.join()


class Unreliable:
    """A post that loses, doubles and delays datagrams and answers."""

    def __init__(self, sites: dict[str, Site], seed: int, lost: float = 0.0, doubled: float = 0.0) -> None:
        self._sites, self._random = sites, random.Random(seed)
        self._lost, self._doubled = lost, doubled
        self._events: deque[Event] = deque()
        self.sent = 0
        self.before: Callable[[int], None] = lambda number: None

    def send(self, site: str, key: str, data: bytes) -> None:
        self.sent += 1
        self.before(self.sent)
        for _ in range(2 if self._random.random() < self._doubled else 1):
            if self._random.random() < self._lost:
                continue
            answer = self._sites[site].inbox.handle(data)
            if self._random.random() >= self._lost:
                place = self._random.randrange(len(self._events) + 1)
                self._events.insert(place, Event(op="answer", site=site, key=key, data=answer))

    def wait(self, timeout: float) -> Event | None:
        if self._events:
            return self._events.popleft()
        threading.Event().wait(min(timeout, 0.02))
        return None


def echo(items: list[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
    (facts, mine), (ask, body) = items
    assert (facts, ask) == (FACTS, ASK)
    message = wire.decode(body)
    arrays = {name: value + json.loads(mine).get("add", 0) for name, value in message.arrays.items()}
    return [(REPLY, wire.encode(Message(stage=message.stage, meta=message.meta, arrays=arrays)))]


@pytest.fixture
def pair() -> Iterator[dict[str, Site]]:
    made = {"a": Site(echo), "b": Site(echo)}
    yield made
    for site in made.values():
        site.close()


def request(size: int = 2000) -> Request:
    arrays = {"x": torch.arange(size, dtype=torch.float64)}
    return Request(message=Message(stage="s", meta={}, arrays=arrays), facts={"add": {"a": 1, "b": 2}})


@given(st.lists(st.binary(max_size=3000), max_size=5), st.integers(1, 3), st.booleans())
def test_a_parcel_comes_whole_whatever_its_pieces(items: list[bytes], cut: int, long: bool) -> None:
    transfer.IN_MEMORY = 1 if long else 2**20
    parcel = Parcel([[item[:cut], item[cut:]] for item in items])
    gathering = Gathering(parcel.parts, parcel.size)
    for k in range(parcel.parts):
        gathering.add(k, parcel.part(k))
        gathering.add(k, parcel.part(k))
    assert gathering.whole
    assert [bytes(item) for item in items_of(gathering.content)] == items
    assert gathering.content.stored == long


@given(st.binary(max_size=200))
def test_bytes_that_are_no_parcel_or_datagram_are_refused_by_name(data: bytes) -> None:
    for read in (lambda some: items_of(Content(some)), undatagram):
        try:
            read(data)
        except MessageError:
            continue
    answer, _ = undatagram(Inbox(1000).handle(data))
    assert answer["s"] in ("refused", "unknown")


@pytest.mark.parametrize(
    ("lost", "doubled"), [(0.0, 0.0), pytest.param(0.2, 0.0, marks=pytest.mark.long), (0.0, 0.5), (0.2, 0.3)]
)
def test_every_reply_comes_once_and_whole(pair: dict[str, Site], lost: float, doubled: float) -> None:
    post = Unreliable(pair, 7, lost, doubled)
    engine = FlowerEngine(("b", "a"), post, Plain())
    assert engine.sites == ("a", "b")
    for _ in range(3):
        replies = {reply.sites[0]: reply.message for reply in engine.ask(request(), engine.sites, 30.0)}
        assert replies.keys() == {"a", "b"}
        for site, more in (("a", 1), ("b", 2)):
            assert torch.equal(replies[site].arrays["x"], torch.arange(2000, dtype=torch.float64) + more)


@pytest.mark.parametrize("at", [3, 12, 24, 40])
def test_a_site_that_forgets_gets_the_request_anew(pair: dict[str, Site], at: int) -> None:
    post, told = Unreliable(pair, 1), []
    post.before = lambda number: pair["a"].crash() if number == at else None
    engine = FlowerEngine(("a", "b"), post, Plain(), notice=lambda site, what, text: told.append((site, what)))
    replies = list(engine.ask(request(), engine.sites, 30.0))
    assert sorted(reply.sites[0] for reply in replies) == ["a", "b"]
    assert set(told) <= {("a", "again")}


def test_who_does_not_answer_in_time_is_left_out_and_its_late_answer_dropped(pair: dict[str, Site]) -> None:
    gate = threading.Event()

    def slow(items: list[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
        gate.wait(10)
        return echo(items)

    sites = {**pair, "slow": Site(slow)}
    engine = FlowerEngine(tuple(sites), Unreliable(sites, 2), Plain())
    first = [reply.sites[0] for reply in engine.ask(request(10), engine.sites, 0.5)]
    assert sorted(first) == ["a", "b"]
    gate.set()
    later = list(engine.ask(request(20), engine.sites, 10.0))
    assert sorted(reply.sites[0] for reply in later) == ["a", "b", "slow"]
    assert all(len(reply.message.arrays["x"]) == 20 for reply in later)
    sites["slow"].close()


def test_without_a_deadline_a_silent_site_is_given_up(pair: dict[str, Site], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "SILENCE", 0.5)

    class Dead(Site):
        def __init__(self) -> None:
            super().__init__(echo)
            self.inbox = self  # type: ignore[assignment]

        def handle(self, data: bytes) -> bytes:
            return b""

    post = Unreliable({**pair}, 3)
    original = post.send
    post.send = lambda site, key, data: original(site, key, data) if site != "dead" else None  # type: ignore[method-assign]
    told: list[tuple[str, str]] = []
    engine = FlowerEngine(("a", "b", "dead"), post, Plain(), notice=lambda site, what, text: told.append((site, what)))
    assert sorted(reply.sites[0] for reply in engine.ask(request(5), engine.sites, None)) == ["a", "b"]
    assert ("dead", "silent") in told


def test_an_oversized_request_or_answer_is_refused() -> None:
    site, told = Site(echo, limit=2000), []
    engine = FlowerEngine(("a",), Unreliable({"a": site}, 4), Plain(), notice=lambda *what: told.append(what[1]))
    assert list(engine.ask(request(500), ("a",), 5.0)) == []
    assert told == ["refused"]
    assert site.inbox.refusals[0][0] == "oversized"
    small = FlowerEngine(("a",), Unreliable({"a": site}, 4), Plain(), limit=100)
    assert list(small.ask(request(5), ("a",), 5.0)) == []
    site.close()


def test_a_site_may_stay_silent_and_say_why() -> None:
    site, told = Site(lambda items: [(SILENT, b'{"cause": "DataError"}')]), []
    engine = FlowerEngine(("a",), Unreliable({"a": site}, 5), Plain(), notice=lambda *what: told.append(what))
    assert list(engine.ask(request(5), ("a",), 5.0)) == []
    assert told == [("a", SILENT, '{"cause": "DataError"}')]
    site.close()


def test_an_answer_that_lies_about_its_size_is_refused() -> None:
    talk = Conversation("a", Parcel([[b"x"]]), 1000)
    talk.next()
    with pytest.raises(MessageError, match="bytes"):
        talk.hear(datagram({"s": "ready", "n": 3, "size": 10**9, "k": 0}, b"x"))
    with pytest.raises(MessageError, match="length"):
        talk.hear(datagram({"s": "ready", "n": 1, "size": 10, "k": 0}, b"x"))


def test_the_bundle_is_always_the_same() -> None:
    import hashlib

    assert hashlib.sha256(bundle()).hexdigest() == BUNDLE
    assert bundle() == bundle()


def test_four_long_answers_are_never_in_memory_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """At most: the request, one answer as it comes, and what is made of it; 4 sites answer at once."""
    import tracemalloc

    size = 8 * 2**20
    monkeypatch.setattr(transfer, "PART", 2**18)
    answer = answered([(REPLY, wire.encode(Message(stage="s", meta={}, arrays={"x": torch.zeros(size // 8)})))])

    class Far:
        """Sites whose memory is elsewhere: they count parts, and give parts of one answer."""

        def __init__(self) -> None:
            self.events: deque[Event] = deque()

        def send(self, site: str, key: str, data: bytes) -> None:
            head, _ = undatagram(data)
            state: dict[str, object] = {"s": "next", "k": head["k"] + 1}
            part = b""
            if head["op"] == "get" or head["k"] + 1 == head["n"]:
                k = head["k"] if head["op"] == "get" else 0
                state, part = {"s": "ready", "n": answer.parts, "size": answer.size, "k": k}, answer.part(k)
            self.events.append(Event(op="answer", site=site, key=key, data=datagram(state, part)))

        def wait(self, timeout: float) -> Event | None:
            return self.events.popleft() if self.events else None

    sites = ("a", "b", "c", "d")
    engine = FlowerEngine(sites, Far(), Plain())
    asked = Request(message=Message(stage="s", meta={}, arrays={"x": torch.zeros(size // 8)}))
    tracemalloc.start()
    heard = 0
    for reply in engine.ask(asked, sites, 60.0):
        heard += len(reply.sites)
        del reply
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert heard == 4
    assert peak <= 3 * len(wire.encode(asked.message)) * 1.1


def test_an_answer_is_let_go_when_the_next_request_is_taken_and_late_parts_begin_nothing() -> None:
    def put(number: str) -> bytes:
        parcel = Parcel([[number.encode()]])
        return datagram({"op": "put", "x": number, "k": 0, "n": 1, "size": parcel.size}, parcel.part(0))

    inbox = Inbox(10**6)
    for number in ("first", "second"):
        inbox.handle(put(number))
        taken = inbox.take(1.0)
        assert taken is not None
        assert taken.number == number
        if number == "first":
            inbox.answer(number, answered([(REPLY, b"x")]))
            assert undatagram(inbox.handle(put(number)))[0]["s"] == "ready"  # doubled: the answer once more
    assert undatagram(inbox.handle(datagram({"op": "get", "x": "first", "k": 0})))[0]["s"] == "unknown"
    assert undatagram(inbox.handle(put("first")))[0]["s"] == "unknown"
    assert inbox.take(0.0) is None


def test_an_answer_may_be_as_long_as_what_was_asked_lets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "SMALL", 2000)
    monkeypatch.setattr(engines, "LEAST", 4000)
    length = [1000]
    site = Site(lambda items: [(REPLY, wire.encode(Message(stage="x", meta={"x": "y" * length[0]})))])
    said: list[str] = []
    engine = FlowerEngine(
        ("a",),
        Unreliable({"a": site}, 0),
        Plain(),
        notice=lambda _, what, text: said.append(f"{what}: {text}"),
        times=2,
    )

    def heard(stage: str, floats: int, answer: int) -> int:
        length[0] = answer
        asked = Message(stage=stage, arrays={"x": torch.zeros(floats)})
        return len(list(engine.ask(Request(message=asked), ("a",), 5.0)))

    try:
        assert heard("enrol", 0, 1000) == 1
        assert heard("enrol", 0, 3000) == 0
        assert heard("contribute", 0, 3000) == 1
        assert heard("contribute", 0, 9000) == 0
        assert heard("contribute", 1000, 9000) == 1
        assert heard("unmask", 0, 9000) == 1  # the longest request so far counts
        assert heard("figures", 1000, 9000) == 0
        length[0] = 9000
        assert list(engine.tell("witness", {"a": b"{}"}, 5.0)) == []
    finally:
        site.close()
    assert len([one for one in said if "are taken" in one]) == 4


@pytest.mark.parametrize("body", [b"[1]", b"3", b'"x"', b"null", b"[" * 100_000, b"{", b"\xff"])
def test_what_is_no_object_is_named_and_passed_over(body: bytes) -> None:
    site = Site(lambda items: [("noted", body)])
    said: list[str] = []
    engine = FlowerEngine(("a",), Unreliable({"a": site}, 0), Plain(), notice=lambda _, what, text: said.append(what))
    try:
        assert list(engine.tell("witness", {"a": b"{}"}, 5.0)) == []
    finally:
        site.close()
    assert said == ["malformed"]


def test_a_datagram_whose_head_is_a_deep_tree_is_refused() -> None:
    for deep in (b"[" * 4000, b'{"s":' * 700):
        with pytest.raises(MessageError):
            undatagram(len(deep).to_bytes(4, "little") + deep)

"""The guard before the SuperLink, without Flower: who is slow, who knocks again and again, who holds connections."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from wardround.federation.engines.flower import relay
from wardround.federation.engines.flower.relay import Refusals, guarded, impatient

STRANGER = {"client": ("203.0.113.9", 1)}
Said = list[dict[str, Any]]


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Said:
    found: Said = []
    monkeypatch.setattr(relay, "_say", lambda event, **facts: found.append({"event": event, **facts}))
    return found


async def reading(scope: Any, receive: Any, send: Any) -> None:
    """An application that takes the whole body."""
    while (event := await receive())["type"] == "http.request" and event.get("more_body", False):
        pass
    await send(
        {"type": "http.response.start", "status": 200 if event["type"] == "http.request" else 400, "headers": []}
    )


async def refusing(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 401, "headers": []})


def called(guard: Any, receive: Callable[[], Any], *headers: tuple[bytes, bytes]) -> list[int]:
    """Statuses that a caller gets."""
    got: list[int] = []

    async def send(event: Any) -> None:
        if event["type"] == "http.response.start":
            got.append(event["status"])

    scope = {"type": "http", "path": "/v1/fleet/pull-messages", "headers": list(headers), **STRANGER}
    asyncio.run(guard(scope, receive, send))
    return got


async def nothing() -> Any:
    await asyncio.sleep(3600)


async def empty() -> Any:
    return {"type": "http.request", "body": b""}


def test_a_body_that_does_not_come_is_not_waited_for(said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "_PART_SECONDS", 0.05)
    assert called(guarded(reading, "s"), nothing) == [400]
    assert [one["what"] for one in said] == ["slow"]


def test_a_body_that_drips_has_an_end(said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "_BODY_SECONDS", 0.2)

    async def dripping() -> Any:
        await asyncio.sleep(0.02)
        return {"type": "http.request", "body": b"x", "more_body": True}

    assert called(guarded(reading, "s"), dripping) == [400]
    assert [one["what"] for one in said] == ["slow"]


@pytest.mark.parametrize("length", [b"x", b"-1", b"9" * 400, str(relay.BODY_LIMIT + 1).encode()])
def test_a_length_that_is_none_is_refused(said: Said, length: bytes) -> None:
    assert called(guarded(reading, "s"), empty, (b"content-length", length)) == [413]


def test_of_many_refusals_a_few_are_told(said: Said) -> None:
    guard = guarded(refusing, "s")
    for _ in range(1000):
        assert called(guard, empty, (b"flwr-public-key", b"AAAA")) == [401]
    assert len(said) == relay._TOLD
    assert said[0]["what"] == "key"
    assert said[0]["peer"] == "203.0.113.9"


def test_those_that_were_not_told_are_counted_a_minute_later(monkeypatch: pytest.MonkeyPatch) -> None:
    found: Said = []
    now = [100.0]
    monkeypatch.setattr(relay.time, "monotonic", lambda: now[0])
    refusals = Refusals(lambda event, **facts: found.append({"event": event, **facts}))
    for _ in range(relay._TOLD + 5):
        refusals.tell("path", "/x", STRANGER)
    assert len(found) == relay._TOLD
    now[0] += 61
    refusals.tell("path", "/x", STRANGER)
    assert found[relay._TOLD] == {"event": "refusals", "what": "path", "count": 5}
    assert len(found) == relay._TOLD + 2


# ------------------------------------------------------------------------------------------------ connections


class Transport:
    def __init__(self, connection: Any) -> None:
        self.connection, self.open = connection, True

    def abort(self) -> None:
        if self.open:
            self.open = False
            self.connection.connection_lost(None)


class Cycle:
    response_complete = False


class Base:
    """What `impatient` needs of uvicorn's protocol."""

    connections: ClassVar[set[Any]] = set()

    def __init__(self, peer: str) -> None:
        self.client, self.cycle, self.loop = (peer, 1), None, asyncio.get_running_loop()
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.connections.add(self)

    def data_received(self, data: bytes) -> None:
        if data.endswith(b"\r\n\r\n"):
            self.cycle = Cycle()

    def connection_lost(self, exc: Exception | None) -> None:
        self.connections.discard(self)


def dial(kind: Any, peer: str = "127.0.0.1", data: bytes = b"") -> Any:
    made = kind(peer)
    made.connection_made(Transport(made))
    if data and made.transport.open:
        made.data_received(data)
    return made


def test_who_holds_connections_keeps_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene() -> None:
        monkeypatch.setattr(relay, "_HEAD_SECONDS", 0.1)
        monkeypatch.setattr(Base, "connections", set())
        kind = impatient(Base, 4)
        asking = dial(kind, data=b"POST / HTTP/1.1\r\n\r\n")
        held = [dial(kind, data=b"POST / HTTP/1.1\r\nX-a: ") for _ in range(10)]
        assert [one.transport.open for one in held] == [False] * 7 + [True] * 3
        assert asking.transport.open
        late = dial(kind, data=b"POST / HTTP/1.1\r\n\r\n")
        await asyncio.sleep(0.2)
        assert [one.transport.open for one in held] == [False] * 10
        assert asking.transport.open
        assert late.transport.open
        # the head of a second request has as long
        late.cycle.response_complete = True
        late.data_received(b"POST")
        await asyncio.sleep(0.2)
        assert not late.transport.open

    asyncio.run(scene())


def test_one_address_has_a_share(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene() -> None:
        monkeypatch.setattr(relay, "_A_PEER", 3)
        monkeypatch.setattr(Base, "connections", set())
        kind = impatient(Base, 100)
        held = [dial(kind, "203.0.113.9") for _ in range(5)]
        assert [one.transport.open for one in held] == [True] * 3 + [False] * 2
        assert dial(kind, "203.0.113.8").transport.open
        assert all(dial(kind).transport.open for _ in range(5))  # nginx on this machine
        for one in list(Base.connections):
            one.transport.abort()

    asyncio.run(scene())

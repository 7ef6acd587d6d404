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


# ------------------------------------------------------------------------------------------------ questions held back

ASK, PUSH, ANSWER = "/v1/fleet/pull-messages", "/v1/runtime/push-messages", "/v1/fleet/push-messages"
COLLECT = "/v1/runtime/pull-messages"
SECRET = (b"x-wardround-guard", b"s")


class Post:
    """Flower, as far as the bell knows it: messages by recipient, and who was let in."""

    def __init__(self) -> None:
        self.bell = relay.Bell(bytes.decode, lambda body: body.decode().split())
        self.guard = guarded(self, "s", self.bell)
        self.messages: dict[str, int] = {}
        self.asked: list[str] = []
        self.strangers: set[str] = set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = (await receive())["body"].decode()
        status, found = 200, b""
        if scope["path"] == PUSH:
            for name in body.split():
                self.messages[name] = self.messages.get(name, 0) + 1
        elif scope["path"] == ANSWER:
            self.messages["ids"] = self.messages.get("ids", 0) + 1
        elif body in self.strangers:
            status = 401
        else:
            self.asked.append(body)
            if self.messages.get(body, 0):
                self.messages[body] -= 1
                found = b"a message"
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": found})

    async def call(self, path: str, body: str, gone: asyncio.Event | None = None) -> bytes | None:
        """What a caller gets; None: nothing at all."""
        got: list[bytes] = []
        coming = [{"type": "http.request", "body": body.encode()[:1], "more_body": True},
                  {"type": "http.request", "body": body.encode()[1:]}]  # fmt: skip

        async def receive() -> Any:
            if coming:
                return coming.pop(0)
            await (gone or asyncio.Event()).wait()
            return {"type": "http.disconnect"}

        async def send(event: Any) -> None:
            if event["type"] == "http.response.body":
                got.append(event["body"])

        headers = [SECRET] if "runtime" in path else []
        await self.guard({"type": "http", "path": path, "headers": headers, **STRANGER}, receive, send)
        return got[0] if got else None


async def settled(post: Post, name: str) -> None:
    """Two questions: the first is of somebody unknown, and passed on whatever there is."""
    assert await post.call(ASK, name) == b""
    assert await post.call(ASK, name) == b""


async def held(post: Post, *question: str, gone: asyncio.Event | None = None) -> asyncio.Task[bytes | None]:
    """A question that is held back."""
    before = len(post.asked)
    task = asyncio.create_task(post.call(*question, gone=gone))
    await asyncio.sleep(0.02)
    assert not task.done()
    assert len(post.asked) == before
    return task


def timed(what: Callable[[Post], Any]) -> None:
    """Run, and not for long: a question that is not answered ends after an hour."""

    async def run() -> None:
        await asyncio.wait_for(what(Post()), 20)

    asyncio.run(run())


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "_HOLD", 3600.0)


@pytest.mark.usefixtures("patient")
def test_a_question_waits_for_a_message_and_gets_it() -> None:
    async def scene(post: Post) -> None:
        await settled(post, "7")
        waits = await held(post, ASK, "7")
        assert await post.call(PUSH, "8 9") == b""
        await asyncio.sleep(0.02)
        assert not waits.done()
        assert await post.call(PUSH, "8 7") == b""
        assert await waits == b"a message"

    timed(scene)


@pytest.mark.usefixtures("patient")
def test_a_message_that_came_between_two_questions_is_not_missed() -> None:
    async def scene(post: Post) -> None:
        await settled(post, "7")
        await post.call(PUSH, "7")
        assert await post.call(ASK, "7") == b"a message"

    timed(scene)


@pytest.mark.usefixtures("patient")
def test_after_a_message_there_may_be_another_one() -> None:
    async def scene(post: Post) -> None:
        await settled(post, "7")
        await post.call(PUSH, "7 7")
        assert await post.call(ASK, "7") == b"a message"
        assert await post.call(ASK, "7") == b"a message"
        assert await post.call(ASK, "7") == b""
        await held(post, ASK, "7")

    timed(scene)


def test_a_question_is_passed_on_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "_HOLD", 0.05)

    async def scene(post: Post) -> None:
        await settled(post, "7")
        assert await (await held(post, ASK, "7")) == b""

    timed(scene)


@pytest.mark.usefixtures("patient")
def test_over_a_dead_connection_no_message_is_taken() -> None:
    async def scene(post: Post) -> None:
        await settled(post, "7")
        gone = asyncio.Event()
        lost = await held(post, ASK, "7", gone=gone)
        gone.set()
        assert await lost is None
        await post.call(PUSH, "7")
        assert await post.call(ASK, "7") == b"a message"
        # and where nobody noticed that it is dead, the newer question is the one that waits
        assert await post.call(ASK, "7") == b""
        silent = await held(post, ASK, "7")
        newer = asyncio.create_task(post.call(ASK, "7"))
        assert await silent == b""
        assert not newer.done()
        await post.call(PUSH, "7")
        assert await newer == b"a message"

    timed(scene)


@pytest.mark.usefixtures("patient")
def test_who_is_not_let_in_is_told_at_once_and_takes_no_room() -> None:
    async def scene(post: Post) -> None:
        for number in range(50):
            post.strangers.add(f"{number}")
            for _ in range(3):
                assert await post.call(ASK, f"{number}") == b""
        assert not post.bell._asked

    timed(scene)


@pytest.mark.usefixtures("patient")
def test_a_stranger_in_somebodys_name_keeps_no_message_from_him() -> None:
    async def scene(post: Post) -> None:
        await settled(post, "7")
        await post.call(PUSH, "7")
        post.strangers.add("7")
        assert await post.call(ASK, "7") == b""
        post.strangers.clear()
        assert await post.call(ASK, "7") == b"a message"

    timed(scene)


@pytest.mark.usefixtures("patient")
def test_the_coordinator_waits_for_an_answer_to_what_it_asks_for() -> None:
    async def scene(post: Post) -> None:
        for _ in range(2):
            assert await post.call(COLLECT, "ids") == b""
        waits = await held(post, COLLECT, "ids")
        await post.call(ANSWER, "of a site")
        assert await waits == b"a message"
        assert await post.call(COLLECT, "ids") == b""
        await held(post, COLLECT, "ids")
        # another list may have been answered while the first was waited for
        assert await post.call(COLLECT, "more ids") == b""

    timed(scene)


@pytest.mark.usefixtures("patient")
def test_nothing_is_held_back_at_the_end() -> None:
    async def scene(post: Post) -> None:
        await settled(post, "7")
        waits = await held(post, ASK, "7")
        post.bell.close()
        assert await waits == b""
        assert await post.call(ASK, "7") == b""

    timed(scene)


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

    def shutdown(self) -> None:
        self.transport.abort()


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


def test_the_end_of_the_server_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene() -> None:
        monkeypatch.setattr(Base, "connections", set())
        told: list[str] = []
        one = dial(impatient(Base, 4, lambda: told.append("end")))
        one.shutdown()
        assert told == ["end"]
        assert not one.transport.open

    asyncio.run(scene())

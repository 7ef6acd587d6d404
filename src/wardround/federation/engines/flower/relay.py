"""The processes that speak Flower, and nothing else: `superlink`, `coordinator` and `site`.

This file is run as a script, by an interpreter that has flwr and needs neither torch nor wardround: Flower's dependencies may
be older than ours. It holds no record, no model and no signing key. Bytes come from and go to the process that started it,
over its standard input and output, and are opaque here; when that process dies, the relay ends.

- `superlink` is Flower's SuperLink behind a guard: without the coordinator's secret only the Fleet paths exist.
- `coordinator` registers the sites' keys, begins one Flower run with a bundle that does nothing, and carries datagrams.
- `site` speaks the Fleet protocol with the site's node key. It never fetches an app bundle: what a message asks for is not
  code. A run whose bundle is not the constant one is refused.

A datagram and its answer are one Flower message and its reply, each a single record of bytes.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import hashlib
import hmac
import io
import json
import os
import queue
import random
import signal
import struct
import sys
import threading
import time
import zipfile
from collections.abc import Callable
from typing import Any, BinaryIO

PART = 4 * 2**20
"""Most bytes of a part of a message; a datagram has a short head beside it."""
BODY_LIMIT = 2 * PART
"""Most bytes of a request that the guard lets through."""
GUARD = "x-wardround-guard"
_NODE_KEY = b"flwr-public-key"
_ACTIVATE = "/v1/fleet/activate-node"
_FRAME = struct.Struct("<IQ")
_HEAD_LIMIT = 2**20
_HEARTBEAT = 10.0
"""Seconds; Flower calls a node offline after two of them without a sign."""
_TTL = 600.0
_FAST, _SLOW = 0.05, 0.5
"""Seconds between looks for a message: just after one, and after a while without."""
_LINGER = 20.0
_SHORT = 2**15
"""Most bytes of a datagram that travels as the label of a message."""
_HOLD = 4.0
"""Seconds that a question for messages waits at the SuperLink until there is one; a heartbeat may be later than that."""
_HELD = 1.0
"""Seconds after which a question that found nothing was held back: the next one needs no pause."""
_ASKS = ("/v1/fleet/pull-messages", "/v1/runtime/pull-messages")
_TO_SITES = "/v1/runtime/push-messages"
_BY_SITES = ("/v1/fleet/push-messages", "/v1/fleet/activate-node", "/v1/fleet/deactivate-node")
_PATIENCE, _CONNECTING = 30.0, 5.0
"""Seconds that a site's call may take, and those of them in which a connection must be made."""

_HEAD_SECONDS, _PART_SECONDS, _BODY_SECONDS, _TLS_SECONDS = 10.0, 30.0, 300.0, 10.0
"""Seconds that a caller has for the head of a request, between two pieces of its body, for all of it, and for TLS."""
_CONNECTIONS, _A_PEER = 512, 64
"""Most connections, and those of one address that is not this machine's own."""
_TOLD = 60
"""Refusals that are told one by one in a minute; of the others, how many there were."""

Frame = tuple[dict[str, Any], bytes]


class Pipe:
    """Frames over two byte streams: a JSON head and a payload, each with its length before it."""

    def __init__(self, source: BinaryIO, sink: BinaryIO) -> None:
        self._source, self._sink, self._lock = source, sink, threading.Lock()

    def send(self, head: dict[str, Any], payload: bytes | memoryview = b"") -> None:
        """Write one frame. Raises OSError where the other side is gone."""
        text = json.dumps(head).encode()
        with self._lock:
            self._sink.write(_FRAME.pack(len(text), len(payload)) + text)
            if len(payload):
                self._sink.write(payload)
            self._sink.flush()

    def receive(self) -> Frame | None:
        """The next frame, or None at the end. Raises ValueError where a length is absurd."""
        start = self._source.read(_FRAME.size)
        if len(start) < _FRAME.size:
            return None
        length, size = _FRAME.unpack(start)
        if length > _HEAD_LIMIT or size > 2 * BODY_LIMIT:
            raise ValueError(f"a frame of {length} + {size} bytes: expected at most {_HEAD_LIMIT} + {2 * BODY_LIMIT}")
        head, payload = self._source.read(length), self._source.read(size)
        if len(head) < length or len(payload) < size:
            return None
        return json.loads(head), payload


def bundle() -> bytes:
    """The constant app bundle: Flower wants one to begin a run, and nobody ever runs it."""
    project = (
        '[project]\nname = "wardround-relay"\nversion = "1.0.0"\ndescription = "nothing"\nlicense = "MIT"\n'
        'dependencies = ["flwr>=1.41"]\n'
        '[tool.flwr.app]\npublisher = "wardround"\n'
        '[tool.flwr.app.components]\nserverapp = "nothing:app"\nclientapp = "nothing:app"\n[tool.flwr.app.config]\n'
    )
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in (("pyproject.toml", project), ("nothing.py", "app = None\n")):
            archive.writestr(zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0)), text)
    return buffer.getvalue()


BUNDLE = hashlib.sha256(bundle()).hexdigest()
"""SHA-256 of the constant bundle: a site serves runs of no other."""


_PARENT: list[Any] = []
"""Where the guard tells its parent whom it refused."""


class Refusal(Exception):
    """What makes no sense to try again at once."""


# ------------------------------------------------------------------------------------------------ SuperLink


def superlink(options: dict[str, Any]) -> None:
    """Flower's SuperLink behind the guard, until it is told to stop.

    Args:
        options: `host`, `port`, `certificate`, `key`, `authority` (paths), `secret`.
    """
    import asyncio.constants
    import importlib

    import uvicorn
    from flwr.superlink.main import create_app

    # the package names a function like the module
    flower: Any = importlib.import_module("flwr.superlink.cli.flower_superlink")

    sys.argv = [
        "flower-superlink", "--isolation", "process", "--enable-supernode-auth", "--disable-runtime-dependency-installation",
        "--host", options["host"], "--port", str(options["port"]), "--ssl-certfile", options["certificate"],
        "--ssl-keyfile", options["key"], "--ssl-ca-certfile", options["authority"],
    ]  # fmt: skip
    config = flower._parse_superlink_lifespan_config()
    app = create_app(config, flower.SuperLinkLifespan)
    bell = Bell(_node_of, _nodes_of)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    from uvicorn.protocols.http.auto import AutoHTTPProtocol

    asyncio.constants.SSL_HANDSHAKE_TIMEOUT = _TLS_SECONDS  # of asyncio's own loop, which is asked for below
    uvicorn.run(
        guarded(app, options["secret"], bell), host=options["host"], port=int(options["port"]), workers=1, access_log=False,
        log_level="warning", ssl_keyfile=options["key"], ssl_certfile=options["certificate"], timeout_graceful_shutdown=2,
        lifespan="on", loop="asyncio", ws="none", http=impatient(AutoHTTPProtocol, _most_connections(), bell.close),
    )  # fmt: skip


def _most_connections() -> int:
    """As many as half of the files that this process may open, of which it is given as many as it may have."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4 * _CONNECTIONS if hard == resource.RLIM_INFINITY else min(4 * _CONNECTIONS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
    return _CONNECTIONS if soft == resource.RLIM_INFINITY else max(min(_CONNECTIONS, soft // 2), 8)


def impatient(base: Any, most: int, ending: Callable[[], None] = lambda: None) -> Any:
    """Uvicorn's protocol with an end to connections that ask for nothing.

    A connection has _HEAD_SECONDS for the head of each request. Where there are too many, the one goes that has waited for the
    longest without having asked: who holds connections open keeps nobody out.

    Args:
        base: uvicorn's class.
        most: connections.
        ending: called when the server ends.
    """
    waiting: dict[Any, Any] = {}  # connection -> what ends it; the one that has waited the longest first

    class Impatient(base):  # type: ignore[misc]
        """One connection."""

        def connection_made(self, transport: Any) -> None:
            """A caller."""
            super().connection_made(transport)
            self._wait()
            peer = self.client[0] if self.client else ""
            here = peer.startswith("127.") or peer == "::1"  # nginx, say
            if not here and sum(1 for one in self.connections if one.client and one.client[0] == peer) > _A_PEER:
                transport.abort()
            elif len(self.connections) > most:
                next(iter(waiting)).transport.abort()  # at worst this one

        def data_received(self, data: bytes) -> None:
            """Some of a request, or the end of its head."""
            super().data_received(data)
            if self.cycle is not None and not self.cycle.response_complete:
                self._ready()
            elif self not in waiting:
                self._wait()

        def shutdown(self) -> None:
            """The server ends: what is held back is answered now."""
            ending()
            super().shutdown()

        def connection_lost(self, exc: Exception | None) -> None:
            """The end."""
            self._ready()
            super().connection_lost(exc)

        def _wait(self) -> None:
            waiting[self] = self.loop.call_later(_HEAD_SECONDS, self.transport.abort)

        def _ready(self) -> None:
            timer = waiting.pop(self, None)
            if timer is not None:
                timer.cancel()

    return Impatient


def _end_with_parent() -> None:
    while sys.stdin.buffer.read(1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(5)
    os._exit(0)


def guarded(app: Any, secret: str, bell: Bell | None = None) -> Any:
    """The ASGI application without its Control and Runtime paths for callers who do not know the secret.

    Args:
        app: Flower's.
        secret: of the coordinator's own process.
        bell: holds questions for messages back until there is one; None: they are passed on at once.
    """
    refusals = Refusals(_say)
    bell = bell or Bell(lambda body: "", lambda body: [])

    async def guard(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await app(scope, receive, send)
            return
        path, headers = scope.get("path", ""), dict(scope.get("headers", ()))
        given = headers.pop(GUARD.encode(), b"")
        ours = hmac.compare_digest(given, secret.encode())
        if scope["type"] != "http" or not (
            ours or (path.startswith("/v1/fleet/") and ".." not in path) or path == "/health"
        ):
            refusals.tell("path", path, scope)
            await _answer(send, 404)
            return
        length = headers.get(b"content-length", b"0") or b"0"
        if not (length.isdigit() and len(length) < 16 and int(length) <= BODY_LIMIT):
            refusals.tell("oversized", path, scope)
            await _answer(send, 413)
            return
        seen, whole, end = 0, False, time.monotonic() + _BODY_SECONDS

        async def limited() -> Any:
            nonlocal seen, whole
            if whole:  # what is waited for now is the end of the connection
                return await receive()
            try:
                event = await asyncio.wait_for(receive(), max(min(_PART_SECONDS, end - time.monotonic()), 0.0))
            except TimeoutError:
                refusals.tell("slow", path, scope)
                return {"type": "http.disconnect"}
            whole = not event.get("more_body", False)
            seen += len(event.get("body", b""))
            if seen > BODY_LIMIT:
                refusals.tell("oversized", path, scope)
                return {"type": "http.disconnect"}
            return event

        async def watched(event: Any) -> None:
            status = event["status"] if event["type"] == "http.response.start" else 200
            # Flower has one answer for a node key that nobody enrolled and for one that is in use elsewhere
            what = "key" if status in (401, 403) else "activation" if path == _ACTIVATE and 400 <= status < 500 else ""
            if what and not ours:
                refusals.tell(what, path, scope, key=_fingerprint(headers.get(_NODE_KEY, b"")))
            await send(event)

        await bell.passed(app, scope, limited, watched)

    return guard


@dataclasses.dataclass
class _Asked:
    """The last question of one caller: whether there may be an answer since, and who of it waits."""

    question: bytes
    rung: bool = True
    held: asyncio.Future[None] | None = None

    def release(self) -> None:
        if self.held is not None and not self.held.done():
            self.held.set_result(None)


class Bell:
    """Callers who ask for messages wait here until there may be one for them, instead of asking again and again.

    A question is passed on at once where its caller's last one found something, was another one, or a message was pushed since
    that one was passed on: nobody misses any. Else it is, after _HOLD seconds; and where the same caller asks anew, since the
    earlier connection may be dead, and a message that is taken over it would be lost.

    Args:
        node_of: the node that a site's question names; an empty text: none.
        nodes_of: the nodes that messages are for, from the body with which they are pushed.
    """

    def __init__(self, node_of: Callable[[bytes], str], nodes_of: Callable[[bytes], list[str]]) -> None:
        self._node_of, self._nodes_of = node_of, nodes_of
        self._asked: dict[str, _Asked] = {}
        self._closed = False

    def ring(self, caller: str) -> None:
        """There may be a message for a node, or for the coordinator: an empty name."""
        if caller in self._asked:
            self._asked[caller].rung = True
            self._asked[caller].release()

    def close(self) -> None:
        """Hold nothing back any more."""
        self._closed = True
        for asked in self._asked.values():
            asked.release()

    async def passed(self, app: Any, scope: Any, receive: Any, send: Any) -> None:
        """Call the application, at once or when the bell rings."""
        path = scope["path"]
        if path not in (*_ASKS, _TO_SITES, *_BY_SITES):
            await app(scope, receive, send)
            return
        body = b""
        while (event := await receive())["type"] == "http.request":
            body += event.get("body", b"")
            if not event.get("more_body", False):
                break
        ends = [event if event["type"] != "http.request" else {"type": "http.request", "body": body}]

        async def again() -> Any:
            return ends.pop() if ends else await receive()

        if path in _ASKS:
            caller = self._node_of(body) if path == _ASKS[0] else ""
            if await self._waited(caller, body, receive):
                await app(scope, again, self._watching(send, caller, body))
            return
        status = 0

        async def noting(event: Any) -> None:
            nonlocal status
            status = event.get("status", status)
            await send(event)

        await app(scope, again, noting)
        if status == 200:
            for caller in self._nodes_of(body) if path == _TO_SITES else [""]:
                self.ring(caller)

    async def _waited(self, caller: str, question: bytes, receive: Any) -> bool:
        """Hold a question back where nobody rang. False: the caller is gone."""
        asked = self._asked.get(caller)
        if asked is None:
            return True
        asked.release()
        there = True
        if asked.question == question and not asked.rung and not self._closed:
            asked.held = asyncio.get_running_loop().create_future()
            gone = asyncio.ensure_future(receive())
            done, _ = await asyncio.wait((asked.held, gone), timeout=_HOLD, return_when=asyncio.FIRST_COMPLETED)
            gone.cancel()
            there = gone not in done
        asked.question, asked.rung = question, not there
        return there

    def _watching(self, send: Any, caller: str, question: bytes) -> Any:
        """Remember who asks, once it is one whom the application lets in, and whether there was something."""
        welcome = False

        async def watching(event: Any) -> None:
            nonlocal welcome
            if event["type"] == "http.response.start":
                welcome = event["status"] == 200
                if not welcome:  # somebody in this caller's name, perhaps: its own next question is not held back
                    self.ring(caller)
            elif welcome:
                asked = self._asked.setdefault(caller, _Asked(question))
                asked.rung = asked.rung or bool(event.get("body"))
            await send(event)

        return watching


def _node_of(body: bytes) -> str:
    from flwr.proto.fleet_pb2 import PullMessagesRequest
    from google.protobuf.message import DecodeError

    try:
        return str(PullMessagesRequest.FromString(body).node.node_id)
    except DecodeError:
        return "?"


def _nodes_of(body: bytes) -> list[str]:
    from flwr.proto.runtime_pb2 import PushAppMessagesRequest

    # the application has read it before
    return [str(one.metadata.dst_node_id) for one in PushAppMessagesRequest.FromString(body).messages_list]


class Refusals:
    """Tells of refused calls: each of a few a minute, and of the others their number, with the first one of a later minute.

    Args:
        say: writes a line.
    """

    def __init__(self, say: Callable[..., None]) -> None:
        self._say, self._began, self._told = say, 0.0, 0
        self._more: dict[str, int] = {}

    def tell(self, what: str, path: str, scope: Any, **facts: Any) -> None:
        """One more."""
        now = time.monotonic()
        if now - self._began > 60.0:
            more, self._more = self._more, {}
            self._began, self._told = now, 0
            for word, count in more.items():
                self._say("refusals", what=word, count=count)
        if self._told < _TOLD:
            self._told += 1
            peer = str((scope.get("client") or ["?"])[0])
            self._say("refused", what=what, path=path[:200], peer=peer, **facts)
        else:
            self._more[what] = self._more.get(what, 0) + 1


def _fingerprint(key: bytes) -> str:
    """Of a public key in a header, or an empty text."""
    try:
        raw = base64.b64decode(key, validate=True)
    except ValueError:
        return ""
    return "SHA256:" + base64.b64encode(hashlib.sha256(raw).digest()).decode().rstrip("=") if raw else ""


async def _answer(send: Any, status: int) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


def _say(event: str, **facts: Any) -> None:
    """One line of JSON for the parent, and for its log."""
    line = json.dumps({"event": event, **facts}) + "\n"
    for place in (sys.stderr, _PARENT[0] if _PARENT else None):
        if place is not None:
            place.write(line)
            place.flush()


# ------------------------------------------------------------------------------------------------ datagrams in Flower


def _label(data: bytes) -> str:
    """A short datagram as the label of its message; empty for a long one, which is a record.

    Flower gives a message's label (`group_id`) with the message itself. A record is an object in an object in an object, and each
    of them takes a call to send and one to fetch.
    """
    return base64.b64encode(data).decode() if len(data) <= _SHORT else ""


def _message(metadata: Any, data: bytes) -> Any:
    from flwr.app import ConfigRecord, Message, RecordDict

    records = {} if metadata.group_id else {"datagram": ConfigRecord({"data": data})}
    return Message(content=RecordDict(records), metadata=metadata)


def _contents(message: Any) -> tuple[str, Any, dict[str, bytes]]:
    """A message's id, its object tree, and its objects as bytes, the message last."""
    from flwr.supercore.inflatable.inflatable_object import (
        get_all_nested_objects,
        get_object_tree,
        no_object_id_recompute,
    )

    with no_object_id_recompute():
        identity = message.object_id
        message.metadata.__dict__["_message_id"] = identity
        tree = get_object_tree(message)
        return identity, tree, {key: value.deflate() for key, value in get_all_nested_objects(message).items()}


def _datagram(proto: Any, tree: Any, pull: Callable[[str], Any]) -> bytes:
    """The bytes in a message that crossed. Raises Refusal where it is of another form."""
    from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

    if proto.HasField("error"):  # of the SuperLink, with the label of the message that it could not bring
        raise Refusal(f"an error message: {proto.error.reason}")
    label = proto.metadata.group_id
    if label:
        try:
            return base64.b64decode(label[: 2 * _SHORT], validate=True)
        except ValueError as error:
            raise Refusal("a message whose label is no datagram") from error
    identity, objects = proto.metadata.message_id, _fetched(tree, pull)
    for key, content in objects.items():
        if hashlib.sha256(content).hexdigest() != key:
            raise Refusal("an object does not hash to its name")
    found: Any = inflate_object_from_contents(identity, objects)
    if found.has_error():
        raise Refusal(f"an error message: {found.error.reason}")
    try:
        data = found.content["datagram"]["data"]
    except (KeyError, TypeError) as error:
        raise Refusal(f"a message without a datagram: {error!r}") from error
    if not isinstance(data, bytes) or len(data) > BODY_LIMIT:
        raise Refusal("a datagram of another type or size")
    return data


def _fetched(tree: Any, pull: Callable[[str], Any], patience: float = 20.0) -> dict[str, bytes]:
    from flwr.supercore.inflatable.inflatable_object import iterate_object_tree

    found: dict[str, bytes] = {}
    end, total = time.monotonic() + patience, 0
    for node in iterate_object_tree(tree):
        if len(found) > 8:
            raise Refusal("a message of more objects than a datagram has")
        while True:
            response = pull(node.object_id)
            if response.object_found and response.object_available:
                break
            if not response.object_found or time.monotonic() > end:
                raise Refusal("an object of a message is not there")
            time.sleep(0.02)
        found[node.object_id] = response.object_content
        total += len(response.object_content)
        if total > BODY_LIMIT:
            raise Refusal("an oversized message")
    return found


def _reason(error: Exception) -> str:
    """Why a call failed, in words, with the code that Flower gives."""
    response = getattr(error, "response", None)
    if response is None:
        return f"{type(error).__name__}: {error}"
    hint = " (the key is not enrolled or was revoked, or a clock is wrong)" if response.status_code == 401 else ""
    return f"HTTP {response.status_code}: {response.text[:300]}{hint}"


def _interceptors(component: str) -> list[Any]:
    from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor

    return [RuntimeVersionHttpInterceptor(component_name=component)]


class _Secret:
    """Adds the guard's secret to each request, and expects the certificate of a name other than the address."""

    def __init__(self, secret: str, name: str) -> None:
        self._secret, self._name = secret, name

    def intercept(self, context: Any, call_next: Callable[[Any], Any]) -> Any:
        """Add the header and the name."""
        context.request.headers[GUARD] = self._secret
        context.request.extensions = {**context.request.extensions, "sni_hostname": self._name}
        return call_next(context)


# ------------------------------------------------------------------------------------------------ coordinator


class Coordinator:
    """The coordinator's end: one Flower run that carries datagrams to sites and their answers back.

    Args:
        options: `address` (of the SuperLink on this machine), `name` (in its certificate), `authority` (path), `secret`,
            `sites` (name -> public node key, OpenSSH text).
        pipe: to the process that started this one.
    """

    def __init__(self, options: dict[str, Any], pipe: Pipe) -> None:
        self._options, self._pipe = options, pipe
        self._orders: queue.Queue[Frame | None] = queue.Queue()
        self._nodes: dict[str, int] = {}
        self._open: dict[str, tuple[str, str, float]] = {}  # message id -> (key, site, when it is given up)
        self._change = threading.Condition()  # of what is open
        self._online: list[str] | None = None

    def run(self) -> None:
        """Carry until the parent is gone; begin again whenever the SuperLink fails."""
        threading.Thread(target=self._read, daemon=True).start()
        wait = 0.2
        while True:
            try:
                self._begin()
                wait = 0.2
                self._carry()
                return
            except Exception as error:  # noqa: BLE001 - whatever broke, the answer is to begin again
                self._pipe.send({"op": "down", "cause": _reason(error)})
                with self._change:
                    lost = list(self._open.values())
                    self._open.clear()
                for key, site, _ in lost:
                    self._pipe.send({"op": "lost", "key": key, "site": site})
                self._online = None
                time.sleep(wait)
                wait = min(2 * wait, 5.0)

    def _read(self) -> None:
        while (frame := self._pipe.receive()) is not None:
            self._orders.put(frame)
        self._orders.put(None)
        time.sleep(3)
        os._exit(0)

    def _client(self, kind: Any, *more: Any) -> Any:
        options = self._options
        with open(options["authority"], "rb") as file:
            authority = file.read()
        return kind.from_server_address(
            options["address"],
            False,
            authority,
            [*_interceptors("flwr-serverapp"), _Secret(options["secret"], options["name"]), *more],
        )

    def _begin(self) -> None:
        from flwr.proto.control_pb2 import ListNodesRequest, RegisterNodeRequest, StartRunRequest, UnregisterNodeRequest
        from flwr.proto.fab_pb2 import Fab
        from flwr.proto.node_pb2 import Node
        from flwr.proto.runtime_pb2 import AcquireTaskRequest, PullTaskInputRequest
        from flwr.supercore.constant import TaskType
        from flwr.supercore.control.control_http_client import ControlHttpClient
        from flwr.supercore.heartbeat import HeartbeatSender
        from flwr.supercore.interceptors import RuntimeTokenHttpInterceptor
        from flwr.supercore.runtime import RuntimeHttpClient

        wanted = {_public(text): name for name, text in self._options["sites"].items()}
        with self._client(ControlHttpClient) as control:
            there = {bytes(node.public_key): node.node_id for node in control.ListNodes(ListNodesRequest()).nodes_info}
            for key, node in there.items():
                if key not in wanted:  # revoked
                    control.UnregisterNode(UnregisterNodeRequest(node_id=node))
            self._nodes = {}
            for key, name in wanted.items():
                node = there.get(key)
                if node is None:
                    node = control.RegisterNode(RegisterNodeRequest(public_key=key)).node_id
                self._nodes[name] = node
            content = bundle()
            control.StartRun(StartRunRequest(fab=Fab(hash_str=BUNDLE, content=content)))
        with self._client(RuntimeHttpClient) as runtime:
            token, end = "", time.monotonic() + 10
            while not token:  # an earlier process may have left tasks: the newest is ours, and a claim of any will do
                token = runtime.AcquireTask(AcquireTaskRequest(supported_task_types=[TaskType.SERVER_APP])).token
                if not token and time.monotonic() > end:
                    raise Refusal("the SuperLink gives no task for the run that was begun")
        self._runtime = self._client(RuntimeHttpClient, RuntimeTokenHttpInterceptor(token=token))
        self._run_id = self._runtime.PullTaskInput(PullTaskInputRequest()).run.run_id
        self._self = Node(node_id=1)
        self._beat = HeartbeatSender(self._alive)
        self._beat.start()
        self._pipe.send({"op": "up", "run": self._run_id, "nodes": {n: str(i) for n, i in self._nodes.items()}})

    def _alive(self) -> bool:
        import httpx
        from flwr.proto.runtime_pb2 import SendTaskHeartbeatRequest

        with contextlib.suppress(
            httpx.HTTPError, OSError
        ):  # the carrying loop meets the same failure, and begins again
            self._runtime.SendTaskHeartbeat(SendTaskHeartbeatRequest())
        return True

    def _carry(self) -> None:
        ended, broken, looked = threading.Event(), list[Exception](), 0.0
        threading.Thread(target=self._gather, args=(self._runtime, ended, broken), daemon=True).start()
        try:
            while not broken:
                try:
                    order = self._orders.get(timeout=0.25)
                except queue.Empty:
                    if time.monotonic() - looked > 2.0:
                        looked = time.monotonic()
                        self._tell_online()
                else:
                    if order is None:
                        return
                    try:
                        self._push(*order)
                    except Exception:
                        self._pipe.send({"op": "lost", "key": order[0]["key"], "site": order[0]["site"]})
                        raise
            raise broken[0]
        finally:
            ended.set()
            self._beat._stop_event.set()
            self._finish()
            self._runtime.close()

    def _gather(self, runtime: Any, ended: threading.Event, broken: list[Exception]) -> None:
        """Fetch answers while there are requests without one, beside the thread that sends."""
        try:
            while not ended.is_set():
                with self._change:
                    if not self._open:
                        self._change.wait(0.25)
                        continue
                asked = time.monotonic()
                if not self._collect(runtime, ended) and time.monotonic() - asked < _HELD:
                    ended.wait(_FAST)
        except Exception as error:  # noqa: BLE001 - the thread that carries raises it
            broken.append(error)

    def _finish(self) -> None:
        import httpx
        from flwr.common.constant import SubStatus
        from flwr.proto.runtime_pb2 import PushTaskOutputRequest

        with contextlib.suppress(httpx.HTTPError):  # the SuperLink is gone, and its record of the run with it
            self._runtime.PushTaskOutput(PushTaskOutputRequest(sub_status=SubStatus.COMPLETED, details=""))

    def _tell_online(self) -> None:
        from flwr.proto.runtime_pb2 import GetNodesRequest

        there = {node.node_id for node in self._runtime.GetNodes(GetNodesRequest()).nodes}
        online = sorted(name for name, node in self._nodes.items() if node in there)
        if online != self._online:
            self._online = online
            self._pipe.send({"op": "online", "sites": online})

    def _push(self, head: dict[str, Any], data: bytes) -> None:
        from flwr.app import Metadata
        from flwr.app.message import remove_content_from_message
        from flwr.common.serde import message_to_proto
        from flwr.proto.message_pb2 import PushObjectRequest
        from flwr.proto.runtime_pb2 import PushAppMessagesRequest

        key, site = head["key"], head["site"]
        if site not in self._nodes:
            self._pipe.send({"op": "lost", "key": key, "site": site})
            return
        metadata = Metadata(
            run_id=self._run_id, message_id="", src_node_id=1, dst_node_id=self._nodes[site], reply_to_message_id="",
            group_id=_label(data), created_at=time.time(), ttl=_TTL, message_type="query",
        )  # fmt: skip
        message = _message(metadata, data)
        identity, tree, objects = _contents(message)
        response = self._runtime.PushMessages(
            PushAppMessagesRequest(
                messages_list=[message_to_proto(remove_content_from_message(message))], message_object_trees=[tree]
            )
        )
        for name in () if metadata.group_id else response.objects_to_push:
            self._runtime.PushObject(
                PushObjectRequest(
                    node=self._self, run_id=self._run_id, object_id=name, object_content=objects.pop(name),
                    session_id=response.session_id,
                )
            )  # fmt: skip
        with self._change:  # the SuperLink has an error for whoever asks before it knows the message
            self._open[identity] = (key, site, time.monotonic() + _TTL)
            self._change.notify()

    def _collect(self, runtime: Any, ended: threading.Event) -> bool:
        """Tell of the answers that are there; whether there was any."""
        from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, PullObjectRequest
        from flwr.proto.runtime_pb2 import PullAppMessagesRequest

        with self._change:
            ids = list(self._open)
        response = runtime.PullMessages(PullAppMessagesRequest(message_ids=ids))
        if ended.is_set():
            return False
        for proto, tree in zip(response.messages_list, response.message_object_trees, strict=True):
            with self._change:
                key, site, _ = self._open.pop(proto.metadata.reply_to_message_id, ("", "", 0.0))
            if not key:
                continue
            identity = proto.metadata.message_id
            try:
                data = _datagram(
                    proto, tree,
                    lambda name: runtime.PullObject(
                        PullObjectRequest(node=self._self, run_id=self._run_id, object_id=name)
                    ),
                )  # fmt: skip
            except Refusal as refusal:
                self._pipe.send({"op": "lost", "key": key, "site": site, "cause": str(refusal)})
                continue
            finally:
                runtime.ConfirmMessageReceived(
                    ConfirmMessageReceivedRequest(node=self._self, run_id=self._run_id, message_object_id=identity)
                )
            self._pipe.send({"op": "answer", "key": key, "site": site}, data)
        with self._change:
            late = [self._open.pop(i) for i, (_, _, end) in list(self._open.items()) if time.monotonic() > end]
        for key, site, _ in late:
            self._pipe.send({"op": "lost", "key": key, "site": site})
        return bool(response.messages_list)


def _public(text: str) -> bytes:
    """The public key in the form that Flower registers, from its OpenSSH text."""
    from cryptography.hazmat.primitives.serialization import load_ssh_public_key
    from flwr.supercore.primitives.asymmetric import public_key_to_bytes

    key: Any = load_ssh_public_key(text.encode())
    return bytes(public_key_to_bytes(key))


# ------------------------------------------------------------------------------------------------ site


class Site:
    """A site's end: outbound calls only. It asks the coordinator for datagrams and sends the answers of its parent.

    Args:
        options: `address`, `authority` (path), `key` (path of the node key, OpenSSH).
        pipe: to the site process, which answers every datagram.
    """

    def __init__(self, options: dict[str, Any], pipe: Pipe) -> None:
        self._options, self._pipe = options, pipe
        self._answers: queue.Queue[Frame | None] = queue.Queue()
        self._stop = threading.Event()
        self._runs: dict[int, str] = {}
        self._node: Any = None
        self._asking: Any = None  # the client, while it asks for messages

    def run(self) -> None:
        """Serve until the parent is gone; connect again, with longer and longer waits, whenever it fails."""
        threading.Thread(target=self._read, daemon=True).start()
        wait = 0.5
        while not self._stop.is_set():
            try:
                with self._client() as client:
                    self._activate(client)
                    wait = 0.5
                    try:
                        self._serve(client)
                    finally:
                        self._leave(client)
            except Exception as error:  # noqa: BLE001 - whatever broke, the answer is to connect again
                self._pipe.send({"op": "down", "cause": _reason(error)})
            self._stop.wait(wait * random.uniform(0.75, 1.25))
            wait = min(2 * wait, 5.0)

    def _read(self) -> None:
        while (frame := self._pipe.receive()) is not None:
            self._answers.put(frame)
        self._stop.set()
        self._answers.put(None)
        client = self._asking
        if client is None:
            time.sleep(3)
        else:  # the question is held back for longer than anybody wants to wait
            self._leave(client)
        os._exit(0)

    def _client(self) -> Any:
        import httpx
        from cryptography.hazmat.primitives.serialization import load_ssh_private_key
        from flwr.supernode.fleet_http_client import FleetHttpClient
        from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

        with open(self._options["key"], "rb") as file:
            private: Any = load_ssh_private_key(file.read(), None)
        self._public_key = private.public_key()
        client = FleetHttpClient.from_server_address(
            self._options["address"], False, self._options["authority"],
            [*_interceptors("SuperNode"), NodeAuthHttpInterceptor(private, self._public_key)],
        )  # fmt: skip
        # where packets vanish, TCP asks again after longer and longer pauses: a new connection is back sooner
        client._client.timeout = httpx.Timeout(_PATIENCE, connect=_CONNECTING)
        return client

    def _activate(self, client: Any) -> None:
        from flwr.proto.fleet_pb2 import ActivateNodeRequest
        from flwr.proto.node_pb2 import Node
        from flwr.supercore.primitives.asymmetric import public_key_to_bytes

        response = client.ActivateNode(
            ActivateNodeRequest(public_key=public_key_to_bytes(self._public_key), heartbeat_interval=_HEARTBEAT)
        )
        self._node = Node(node_id=response.node_id)
        self._runs = {}
        self._pipe.send({"op": "up", "node": str(response.node_id)})

    def _leave(self, client: Any) -> None:
        import httpx
        from flwr.proto.fleet_pb2 import DeactivateNodeRequest

        with contextlib.suppress(httpx.HTTPError, RuntimeError):  # the SuperLink forgets us by itself
            client.DeactivateNode(DeactivateNodeRequest(node_id=self._node.node_id))

    def _beat(self, client: Any) -> None:
        from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest

        if not client.SendNodeHeartbeat(
            SendNodeHeartbeatRequest(node=self._node, heartbeat_interval=_HEARTBEAT)
        ).success:
            raise Refusal("the SuperLink does not know this node any more")

    def _serve(self, client: Any) -> None:
        from flwr.proto.fleet_pb2 import PullMessagesRequest

        active = beaten = time.monotonic()
        while not self._stop.is_set():
            asked, self._asking = time.monotonic(), client
            response = client.PullMessages(PullMessagesRequest(node=self._node))
            now, self._asking = time.monotonic(), None
            if response.messages_list:
                self._take(client, response.messages_list[0], response.message_object_trees[0])
                active = time.monotonic()
            elif now - asked < _HELD:
                self._stop.wait(_FAST if now - active < _LINGER else _SLOW)
            if now - beaten > _HEARTBEAT * 0.4:
                self._beat(client)
                beaten = now

    def _take(self, client: Any, proto: Any, tree: Any) -> None:
        from flwr.common.serde import message_from_proto
        from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, PullObjectRequest

        message, run = message_from_proto(proto), proto.metadata.run_id
        refused = self._refused(client, run)
        if refused:
            self._pipe.send({"op": "refused", "what": "bundle", "bundle": refused})
            self._reply(client, message, b'{"refused": "an app bundle that is not the constant relay"}')
            return
        try:
            data = _datagram(
                proto, tree,
                lambda name: client.PullObject(PullObjectRequest(node=self._node, run_id=run, object_id=name)),
            )  # fmt: skip
            client.ConfirmMessageReceived(
                ConfirmMessageReceivedRequest(
                    node=self._node, run_id=run, message_object_id=message.metadata.message_id
                )
            )
        except Refusal as refusal:
            self._pipe.send({"op": "refused", "what": "message", "cause": str(refusal)})
            return
        answer = self._asked(client, message.metadata.message_id, data)
        if answer is not None:
            self._reply(client, message, answer)

    def _refused(self, client: Any, run: int) -> str:
        """The hash of a bundle that is not the constant one, or an empty text. It is asked once a run."""
        from flwr.proto.run_pb2 import GetRunRequest

        if run not in self._runs:
            if len(self._runs) > 1000:
                self._runs.clear()
            self._runs[run] = client.GetRun(GetRunRequest(node=self._node, run_id=run)).run.fab_hash
        return "" if self._runs[run] == BUNDLE else (self._runs[run] or "none")

    def _asked(self, client: Any, key: str, data: bytes) -> bytes | None:
        """The parent's answer to a datagram; it gives one within seconds, also while it trains."""
        self._pipe.send({"op": "datagram", "key": key}, data)
        end = time.monotonic() + 60
        while time.monotonic() < end:
            try:
                frame = self._answers.get(timeout=_HEARTBEAT * 0.4)
            except queue.Empty:
                self._beat(client)
                continue
            if frame is None:
                return None
            if frame[0].get("key") == key:
                return frame[1]
        return None

    def _reply(self, client: Any, message: Any, data: bytes) -> None:
        from flwr.app import Metadata
        from flwr.app.message import remove_content_from_message
        from flwr.common.serde import message_to_proto
        from flwr.proto.fleet_pb2 import PushMessagesRequest
        from flwr.proto.message_pb2 import PushObjectRequest

        asked = message.metadata
        left = max(asked.created_at + asked.ttl - time.time(), 1.0)
        metadata = Metadata(
            run_id=asked.run_id, message_id="", src_node_id=asked.dst_node_id, dst_node_id=asked.src_node_id,
            reply_to_message_id=asked.message_id, group_id=_label(data), created_at=time.time(), ttl=left, message_type="query",
        )  # fmt: skip
        reply = _message(metadata, data)
        _, tree, objects = _contents(reply)
        response = client.PushMessages(
            PushMessagesRequest(
                node=self._node, messages_list=[message_to_proto(remove_content_from_message(reply))],
                message_object_trees=[tree], clientapp_runtime_list=[0.0],
            )
        )  # fmt: skip
        for name in () if metadata.group_id else response.objects_to_push:
            client.PushObject(
                PushObjectRequest(
                    node=self._node, run_id=asked.run_id, object_id=name, object_content=objects.pop(name),
                    session_id=response.session_id,
                )
            )  # fmt: skip


def main() -> None:
    """`relay.py KIND`, with its options as the first frame (superlink: as a line of JSON in the environment)."""
    kind = sys.argv[1]
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")
    if kind == "superlink":
        _PARENT.append(os.fdopen(os.dup(1), "w"))
        os.dup2(2, 1)
        superlink(json.loads(sys.stdin.buffer.readline()))
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides, by closing the pipe
    pipe = Pipe(sys.stdin.buffer, os.fdopen(os.dup(1), "wb"))
    os.dup2(2, 1)  # whatever a library prints goes to the log, not into the frames
    first = pipe.receive()
    if first is not None:
        (Coordinator if kind == "coordinator" else Site)(first[0], pipe).run()


if __name__ == "__main__":
    main()

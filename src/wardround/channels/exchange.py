"""One exchange of a channel with several stages: what its messages are bound to, and how its server half talks to sites."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from wardround import wire
from wardround.channels.order import canonical
from wardround.content import digest_of
from wardround.encoding.layout import Part
from wardround.errors import MessageError
from wardround.types import Arrays, Engine, Json, Message, Reply, Request

EXCHANGE = "exchange"
"""Key, in a message's meta, of the exchange that it belongs to."""
PART_VALUES: Part = "values"
PART_MEASURE: Part = "measure"
_LEAST_SERIAL = 10**14


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """What keys, masks and ciphertexts are bound to; no two exchanges of a run are equal.

    Attributes:
        run: the run's id.
        task: of `wardround.federation.messages`.
        index, attempt: of the round.
        part: `values`, or `measure` for the pass that finds the range of values before any was sent.
        serial: drawn at random by the server, so that whatever is repeated is another exchange.
    """

    run: str
    task: str
    index: int
    attempt: int
    part: Part
    serial: int

    @classmethod
    def fresh(cls, *, run: str, task: str, round: Mapping[str, Json], part: Part) -> Exchange:
        """An exchange that never was."""
        # all of one length, so that messages of equal content have equal sizes
        serial = _LEAST_SERIAL + secrets.randbelow(9 * _LEAST_SERIAL)
        return cls(run=run, task=task, index=round["index"], attempt=round["attempt"], part=part, serial=serial)

    def label(self) -> bytes:
        """Canonical bytes, for key derivation and signatures."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":")).encode()

    def bound(self, asked: bytes) -> bytes:
        """Canonical bytes of the exchange and of what was asked in it (`asked_of`): masks, tags and signatures are of both."""
        return self.label() + asked

    def to_meta(self) -> dict[str, Json]:
        """As JSON."""
        return asdict(self)


def asked_of(message: Message) -> bytes:
    """SHA-256 of all that a request says to all sites: stage, meta, names, dtypes, shapes and bytes of its arrays.

    Two sites that were asked different things give different answers here, and so have masks that do not cancel. What is said
    to one site alone (`Request.facts`) is not in it. Arrays in a file are read one after another.
    """
    return bytes.fromhex(digest_of(wire.stream(message)))


def exchange_of(message: Message) -> Exchange:
    """The exchange that a request belongs to.

    Raises:
        MessageError: the request names none, or one of another form.
    """
    given: Any = message.meta.get(EXCHANGE)
    kinds = {"run": str, "task": str, "index": int, "attempt": int, "part": str, "serial": int}
    whole = isinstance(given, dict) and {name: type(value) for name, value in given.items()} == kinds
    if not whole or given["part"] not in (PART_VALUES, PART_MEASURE):
        raise MessageError(
            f"stage {message.stage!r} names the exchange {given!r}, expected {sorted(kinds)}: server and site differ in "
            "their channel or version"
        )
    return Exchange(**given)


def answer(request: Request, arrays: Arrays | None = None, **meta: Json) -> Message:
    """A site's answer within an exchange."""
    exchange = exchange_of(request.message)
    return Message(
        stage=request.message.stage,
        meta={EXCHANGE: exchange.to_meta(), **meta},
        arrays={} if arrays is None else arrays,
    )


@dataclass(frozen=True, kw_only=True)
class Talk:
    """The server's end of one exchange.

    Attributes:
        engine: how sites are reached.
        exchange: what every message of it carries.
        deadline: seconds each stage may take.
        task: facts of the request that the exchange serves (`task`, `round`): engines and sites look at them.
        asked: `asked_of` the request to contribute, once it is made; b"" before.
    """

    engine: Engine
    exchange: Exchange
    deadline: float | None
    task: Mapping[str, Json] = field(default_factory=dict)
    asked: bytes = b""

    def bound(self) -> bytes:
        """See `Exchange.bound`."""
        return self.exchange.bound(self.asked)

    def ask(
        self, stage: str, sites: Sequence[str], *,
        meta: Mapping[str, Json] | None = None, arrays: Arrays | None = None,
        facts: Mapping[str, Mapping[str, Json]] | None = None,
    ) -> Iterator[Reply]:  # fmt: skip
        """Ask `sites`, and give the answers of this exchange and stage in canonical order, each site's once."""
        whole = {**self.task, EXCHANGE: self.exchange.to_meta(), **(meta or {})}
        request = Request(message=Message(stage=stage, meta=whole, arrays=arrays or {}), facts=facts or {})
        replies = self.engine.ask(request, sites, self.deadline)
        return canonical((reply for reply in replies if self.mine(reply, stage)), sites)

    def mine(self, reply: Reply, stage: str) -> bool:
        """Whether a reply belongs to this exchange and stage."""
        return reply.message.stage == stage and reply.message.meta.get(EXCHANGE) == self.exchange.to_meta()

"""A federation in one process whose parties exchange nothing but messages, and a server that may misbehave."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from wardround import wire
from wardround.channels.exchange import Exchange, Talk
from wardround.channels.he.server import BfvCarrier, CipherSum
from wardround.channels.he.site import SiteBfv
from wardround.channels.home import Home
from wardround.types import Arrays, Message, Reply, Request

BITS = 16


def names(count: int) -> tuple[str, ...]:
    return tuple(f"site-{k:03d}" for k in range(count))


class Post:
    """An engine of `SiteBfv`s: whatever crosses it is bytes; `tamper` may change a reply, or drop it."""

    def __init__(self, halves: dict[str, SiteBfv]) -> None:
        self.halves = halves
        self.away: set[str] = set()
        self.silent: set[tuple[str, str]] = set()
        self.asked: list[tuple[str, str]] = []
        self.down: list[bytes] = []
        self.up: list[bytes] = []
        self.before: Callable[[Request, str], Request] = lambda request, site: request
        self.tamper: Callable[[str, Message], Message] = lambda site, message: message

    @property
    def sites(self) -> tuple[str, ...]:
        return tuple(self.halves)

    def ask(self, request: Request, sites: Sequence[str], deadline: float | None) -> Iterator[Reply]:
        stage = request.message.stage
        for site in sites:
            self.asked.append((stage, site))
            if site in self.away or (stage, site) in self.silent:
                continue
            mine = self.before(request, site)
            encoded = wire.encode(mine.message)
            self.down.append(encoded)
            received = Request(
                message=wire.decode(encoded), facts={n: {site: v} for n, v in mine.for_site(site).items()}
            )
            for reply in self.halves[site].stages()[stage]((site,), received):
                message = self.tamper(site, reply.message)
                self.up.append(wire.encode(message))
                yield replace(reply, message=wire.decode(self.up[-1]))

    def journal(self, index: int, sites: Sequence[str]) -> tuple[tuple[str, ...], Arrays]:
        return (), {}

    def restore(self, sites: Sequence[str], states: Arrays) -> None: ...

    def close(self) -> None: ...


class Group:
    """Server and sites, each in a home of its own."""

    def __init__(self, count: int, *, bits: int = BITS, most: int | None = None, home: Home | None = None) -> None:
        self.names = names(count)
        self.bits, self.most = bits, most or count
        self.home = home or Home.simulated(self.names)
        self.carrier = BfvCarrier(bits=bits, sites=self.most)
        self.post = Post({site: self.half(site) for site in self.names})
        self.run = "run-1"

    def half(self, site: str) -> SiteBfv:
        return SiteBfv(self.home_of(site), bits=self.bits, sites=self.most)

    def home_of(self, site: str) -> Home:
        folder = None if self.home.folder is None else self.home.folder / site
        return Home(identities={site: self.home.identities[site]}, pins=self.home.pins, folder=folder)

    def restart(self, site: str) -> None:
        self.post.halves[site] = self.half(site)

    def talk(self, index: int = 0, attempt: int = 0) -> Talk:
        exchange = Exchange.fresh(run=self.run, task="train", round={"index": index, "attempt": attempt}, part="values")
        return Talk(engine=self.post, exchange=exchange, deadline=None, asked=bytes(32))

    def ready(self, talk: Talk) -> None:
        self.carrier.setup(talk, self.names)

    def sealed(self, talk: Talk, site: str, elements: np.ndarray) -> Arrays:
        request = Request(message=Message(stage="contribute", meta={"exchange": talk.exchange.to_meta()}))
        return self.post.halves[site].seal(site, elements, request, talk.asked)

    def summed(self, talk: Talk, uploads: dict[str, np.ndarray]) -> CipherSum:
        total = self.carrier.accumulator(len(next(iter(uploads.values()))))
        for site, elements in uploads.items():
            total.add(self.sealed(talk, site, elements))
        return total

    def opened(self, talk: Talk, total: CipherSum, members: Sequence[str]) -> np.ndarray:
        return self.carrier.open(talk, {0: total}, {0: members})[0]


def elements(modulus: int, count: int, length: int, seed: int = 0) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    return [random.integers(0, modulus, length, dtype=np.uint64) for _ in range(count)]


def plain_sum(uploads: Sequence[np.ndarray], modulus: int) -> np.ndarray:
    return np.array([sum(map(int, column)) % modulus for column in zip(*uploads, strict=True)], dtype=np.uint64)

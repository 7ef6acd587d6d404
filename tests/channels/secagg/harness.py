"""A tiny engine and driver: sites that mask plain vectors, and that leave at any stage."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from wardround.channels.exchange import EXCHANGE, Exchange, Talk, answer, asked_of
from wardround.channels.home import Home
from wardround.channels.secagg.server import MaskServer, MaskSpec, Roster
from wardround.channels.secagg.site import MaskSite
from wardround.errors import MessageError
from wardround.types import Arrays, Message, Reply, Request

RING = 2**64
PRIME = 140737486520321
"""Of 47 bits, 1 modulo 8192: the plain modulus of a BFV batch."""
CONTRIBUTE = "contribute"
STAGES = ("mask-keys", "mask-shares", CONTRIBUTE, "mask-check", "mask-reveal")
RUN = "run-1"

Alter = Callable[[Request, str], Request]
Spoil = Callable[[Reply], Reply]


@dataclass
class Ward:
    """All sites of a run, and the engine that reaches them.

    `deaf` sites never hear a stage; `mute` ones hear it, and their answer is lost. `alter` changes a request on its way to one
    site and `spoil` an answer on its way back: the lying server and the lying site.
    """

    home: Home
    spec: MaskSpec
    modulus: int = RING
    values: dict[str, np.ndarray] = field(default_factory=dict)
    deaf: set[tuple[str, str]] = field(default_factory=set)
    mute: set[tuple[str, str]] = field(default_factory=set)
    alter: Alter | None = None
    spoil: Spoil | None = None
    uses: list[tuple[str, bytes, int]] = field(default_factory=list)
    received: list[Reply] = field(default_factory=list)
    lost: list[Reply] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    stages: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    between: Callable[[str], None] | None = None
    """Called after each stage, with its name."""
    kind: type[MaskSite] = MaskSite
    idle: set[str] = field(default_factory=set)
    """Sites whose part is nothing."""

    def __post_init__(self) -> None:
        self.site = self.fresh()

    def fresh(self) -> MaskSite:
        """A process that begins anew."""
        return self.kind(self.home, self.spec, lambda *use: self.uses.append(use))

    def restart(self) -> None:
        self.site = self.fresh()

    @property
    def sites(self) -> tuple[str, ...]:
        return tuple(self.home.identities)

    def ask(self, request: Request, sites: Sequence[str], deadline: float | None) -> Iterator[Reply]:
        stage = request.message.stage
        self.stages.append(stage)
        self.requests.append(request)
        there = [site for site in sites if (stage, site) not in self.deaf]
        if self.alter is None:
            replies = list(self._answers(stage, tuple(there), request))
        else:
            replies = [r for site in there for r in self._answers(stage, (site,), self.alter(request, site))]
        self.lost += [reply for reply in replies if (stage, reply.sites[0]) in self.mute]
        replies = [reply for reply in replies if (stage, reply.sites[0]) not in self.mute]
        if self.spoil is not None:
            replies = [self.spoil(reply) for reply in replies]
        if self.between is not None:
            self.between(stage)
        self.received += [copy.deepcopy(reply) for reply in replies]
        yield from reversed(replies)  # arrival is in any order

    def _answers(self, stage: str, sites: tuple[str, ...], request: Request) -> Iterator[Reply]:
        if stage == CONTRIBUTE:
            for site in sites:
                yield from self._contribute(site, request)
            return
        for reply in self.site.stages()[stage](sites, request):
            said = reply.message.meta.get("masks", {})
            if "refused" in said:
                self.refused[reply.sites[0]] = said["refused"]
            yield reply

    def _contribute(self, site: str, request: Request) -> Iterator[Reply]:
        elements = self.values[site].copy()
        try:
            asked, nothing = asked_of(request.message), site in self.idle
            arrays, meta = self.site.mask(site, elements, self.modulus, request, asked, abstained=nothing)
        except MessageError as error:
            self.refused[site] = str(error)
            return
        body: Arrays = {**arrays, "words": torch.from_numpy(elements.view(np.int64))}
        yield Reply(sites=(site,), message=answer(request, body, **meta))

    def journal(self, index: int, sites: Sequence[str]) -> tuple[tuple[str, ...], Arrays]:
        return (), {}

    def restore(self, sites: Sequence[str], states: Arrays) -> None:
        raise NotImplementedError

    def close(self) -> None:
        pass


def names(count: int) -> list[str]:
    return [f"hospital-{i:03}" for i in range(count)]


def ward(count: int, spec: MaskSpec | None = None, **given: object) -> Ward:
    return Ward(home=Home.simulated(names(count)), spec=spec or MaskSpec(), **given)  # type: ignore[arg-type]


def draw(ward: Ward, length: int, seed: int = 0, bound: int = 2**20) -> None:
    """Small values for every site, as packed digits are: far from random elements of the ring."""
    generator = np.random.default_rng(seed)
    ward.values = {site: generator.integers(0, bound, length).astype(np.uint64) for site in ward.sites}


def exchange(index: int = 0, attempt: int = 0, run: str = RUN) -> Exchange:
    return Exchange.fresh(run=run, task="train", round={"index": index, "attempt": attempt}, part="values")


@dataclass
class Outcome:
    sums: dict[int, np.ndarray]
    counted: dict[int, list[str]]
    roster: Roster


def collect(
    ward: Ward,
    server: MaskServer,
    sites: Sequence[str] | None = None,
    *,
    quorum: int = 1,
    index: int = 0,
    attempt: int = 0,
    run: str = RUN,
) -> Outcome:
    """One exchange: agree, contribute, sum, take the masks off."""
    sites = ward.sites if sites is None else sites
    talk = Talk(engine=ward, exchange=exchange(index, attempt, run), deadline=None)
    roster = server.begin(talk, sites, quorum)
    meta = {**roster.meta, EXCHANGE: talk.exchange.to_meta()}
    request = Request(message=Message(stage=CONTRIBUTE, meta=meta, arrays=roster.arrays), facts=roster.facts)
    talk = replace(talk, asked=asked_of(request.message))
    length = len(next(iter(ward.values.values())))
    sums = {group: np.zeros(length, dtype=object) for group in roster.groups}
    group_of = {site: group for group, members in roster.groups.items() for site in members}
    came = []
    for reply in ward.ask(request, roster.members, None):
        site = reply.sites[0]
        server.heard(talk, site, reply.message)
        sums[group_of[site]] += reply.message.arrays["words"].numpy().view(np.uint64).astype(object)
        came.append(site)
    net = server.net(talk, roster, came, length, ward.modulus)
    opened = {group: (sums[group] - left.astype(object)) % ward.modulus for group, left in net.items()}
    counted = {group: [site for site in roster.groups[group] if site in came] for group in net}
    return Outcome(sums=opened, counted=counted, roster=roster)


def plain(ward: Ward, sites: Sequence[str]) -> np.ndarray:
    """The sum without masks."""
    return sum((ward.values[site].astype(object) for site in sites), np.zeros(1, dtype=object)) % ward.modulus


def exact(ward: Ward, outcome: Outcome) -> bool:
    """Whether each group's sum is the plain one, bit for bit."""
    return bool(outcome.sums) and all(
        (outcome.sums[group] == plain(ward, names)).all() for group, names in outcome.counted.items()
    )


def with_masks(request: Request, **said: object) -> Request:
    """The request with another value in what its masks say."""
    masks = {**request.message.meta.get("masks", {}), **said}
    return replace(request, message=replace(request.message, meta={**request.message.meta, "masks": masks}))


def once_each(uses: Sequence[tuple[str, bytes, int]]) -> bool:
    """Whether no site drew a stream twice, and no stream was drawn by more than the two ends of a pair."""
    seen: Mapping[bytes, list[str]] = {}
    for site, key, _ in uses:
        seen.setdefault(key, []).append(site)  # type: ignore[attr-defined]
    return all(len(set(sites)) == len(sites) <= 2 for sites in seen.values())

"""A toy with no security at all, of the shape that secure aggregation has (Bonawitz et al. 2017): three stages, no partial sums.

Keys are pseudorandom numbers that everyone can derive, and the server could take every mask off. What it proves is that
such a channel fits: it advertises keys, sends fixed-point numbers plus pairwise masks in the ring of 64-bit integers, where
masks cancel in the sum, and takes the masks of sites that dropped out off with what the survivors reveal.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from wardround import streams
from wardround.aggregation.weighting import weighed
from wardround.channels.order import canonical
from wardround.channels.plain import answers_to, quorum_lost, reply_to, total
from wardround.errors import MessageError, QuorumLost
from wardround.types import Arrays, Contribution, Engine, Json, Message, Reply, Request, StageMethod, Total

ADVERTISE, CONTRIBUTE, UNMASK = "advertise", "contribute", "unmask"
KEYS = "channel/keys"
BITS = 30
"""Fractional bits: a number is off by at most 2^-31, and a sum must stay below 2^33 to fit the ring."""

Exchange = tuple[str, int, int]
"""Task, round, attempt."""


class ToyMasks:
    """The server's half."""

    name = "toy-masks"
    hides = False

    def bind(self, run: str, memory: Json) -> None:
        """Nothing is bound to a run."""

    def memory(self) -> Json:
        """Nothing to know again."""
        return None

    def collect(
        self, engine: Engine, request: Request, sites: Sequence[str], deadline: float | None, quorum: int
    ) -> Iterator[Total]:
        """Advertise, contribute, unmask; one Total. QuorumLost also where a survivor of `contribute` is gone in `unmask`."""
        about = {name: request.message.meta[name] for name in ("task", "round")}

        def ask(asked: Request, of: Sequence[str]) -> Iterator[Reply]:
            attempt = _exchange(asked)[2]
            replies = engine.ask(asked, of, deadline)
            return canonical(
                (r for r in replies if answers_to(r, asked) and r.message.meta.get("attempt") == attempt), of
            )

        keys: dict[str, int] = {}
        for reply in ask(Request(message=Message(stage=ADVERTISE, meta=about)), sites):
            keys |= dict(zip(reply.sites, reply.message.arrays["keys"].tolist(), strict=True))
        roster = [site for site in sites if site in keys]
        if len(roster) < quorum:
            raise quorum_lost(roster, sites, quorum, {})

        message = replace(
            request.message,
            stage=CONTRIBUTE,
            meta={**request.message.meta, "roster": roster},
            arrays={**request.message.arrays, KEYS: torch.tensor([keys[site] for site in roster])},
        )
        sums: Arrays = {}
        dtypes: Mapping[str, str] = {}
        came: list[str] = []
        abstained: dict[str, str] = {}
        for reply in ask(replace(request, message=message), roster):
            for name, value in reply.message.arrays.items():
                sums[name] = sums[name] + value if name in sums else value
            dtypes = reply.message.meta["dtypes"]
            came += reply.sites
            abstained |= reply.message.meta["abstained"]
        survivors = tuple(site for site in came if site not in abstained)
        if len(survivors) < quorum:
            raise quorum_lost(survivors, sites, quorum, abstained)

        dropped = [site for site in roster if site not in came]
        unmask = Request(message=Message(stage=UNMASK, meta={**about, "dropped": dropped}))
        revealed = {reply.sites[0]: reply.message.arrays["seeds"].tolist() for reply in ask(unmask, came)}
        silent = [site for site in came if site not in revealed]
        if dropped and silent:
            raise QuorumLost(
                f"masks with {', '.join(dropped)} stay on: {', '.join(silent)} left before taking them off"
            )
        for site in came if dropped else ():
            for other, seed in zip(dropped, revealed[site], strict=True):
                for name, value in sums.items():
                    sums[name] = value - _mask(seed, name, value.shape, positive=site < other)
        yield total({n: _decoded(value, dtypes[n]) for n, value in sums.items()}, survivors, abstained)

    def site_half(self, sites: Sequence[str]) -> ToyMasksSite:
        """The site's side, which remembers the keys of an exchange."""
        return ToyMasksSite()


class ToyMasksSite:
    """The sites' half."""

    def __init__(self) -> None:
        self._own: dict[Exchange, dict[str, int]] = {}
        self._roster: dict[Exchange, dict[str, int]] = {}

    def stages(self) -> Mapping[str, StageMethod]:
        """What comes before and after the work."""
        return {ADVERTISE: self.advertise, UNMASK: self.unmask}

    def advertise(self, sites: tuple[str, ...], request: Request) -> Iterator[Reply]:
        """A key a site, stacked."""
        exchange = _exchange(request)
        drawn = {site: streams.key("toy", site, *exchange) >> 1 for site in sites}
        self._own.setdefault(exchange, {}).update(drawn)
        yield Reply(
            sites=sites,
            message=_reply(request, ADVERTISE, {"keys": torch.tensor([drawn[site] for site in sites])}),
            stacked=True,
        )

    def contribute(self, contribution: Contribution, request: Request) -> Iterator[Reply]:
        """Weighed, in fixed point, masked: one message a site. A site that forgot its keys cannot."""
        exchange, meta = _exchange(request), request.message.meta
        roster = dict(zip(meta["roster"], request.message.arrays[KEYS].tolist(), strict=True))
        self._roster[exchange] = roster
        arrays = {f"{t}/{n}": v for t, term in contribution.terms.items() for n, v in weighed(term).items()}
        dtypes = {name: str(value.dtype).removeprefix("torch.") for name, value in arrays.items()}
        for k, site in enumerate(contribution.sites):
            self._remembered(exchange, site)
            masked = {name: _encoded(value[k]) for name, value in arrays.items()}
            for other, key in roster.items():
                if other != site:
                    seed = _pair(roster[site], key, exchange)
                    for name, value in masked.items():
                        masked[name] = value + _mask(seed, name, value.shape, positive=site < other)
            mine = {s: reason for s, reason in contribution.abstained.items() if s == site}
            yield Reply(sites=(site,), message=_reply(request, CONTRIBUTE, masked, dtypes=dtypes, abstained=mine))

    def unmask(self, sites: tuple[str, ...], request: Request) -> Iterator[Reply]:
        """The seeds that each site shares with those who dropped out."""
        exchange = _exchange(request)
        for site in sites:
            self._remembered(exchange, site)
            roster = self._roster[exchange]
            seeds = [_pair(roster[site], roster[other], exchange) for other in request.message.meta["dropped"]]
            arrays = {"seeds": torch.tensor(seeds, dtype=torch.int64)}
            yield Reply(sites=(site,), message=_reply(request, UNMASK, arrays))

    def _remembered(self, exchange: Exchange, site: str) -> None:
        if site not in self._own.get(exchange, {}):
            raise MessageError(f"site {site} advertised no key for {exchange}: its process began anew since")


def _exchange(request: Request) -> Exchange:
    meta = request.message.meta
    return meta["task"], meta["round"]["index"], meta["round"]["attempt"]


def _reply(request: Request, stage: str, arrays: Arrays, **meta: Json) -> Message:
    return reply_to(request, stage, arrays, attempt=_exchange(request)[2], **meta)


def _pair(one: int, other: int, exchange: Exchange) -> int:
    return streams.key("pair", min(one, other), max(one, other), exchange[0], exchange[1]) >> 1


def _mask(seed: int, name: str, shape: Sequence[int], *, positive: bool) -> Tensor:
    draw = streams.generator("mask", seed, name).integers(-(2**63), 2**63, size=tuple(shape), dtype=np.int64)
    mask = torch.from_numpy(np.asarray(draw))
    return mask if positive else -mask


def _encoded(value: Tensor) -> Tensor:
    return (value.double() * 2.0**BITS).round().long()


def _decoded(value: Tensor, dtype: str) -> Tensor:
    kind: torch.dtype = getattr(torch, dtype)
    return (value.double() / 2.0**BITS).to(kind)

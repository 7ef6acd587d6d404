"""Bytes up and down, as the wire form of every message has them, whichever engine carries it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from wardround import wire
from wardround.federation.messages import with_facts
from wardround.types import Arrays, Engine, Json, Reply, Request


class Metered:
    """An engine that counts.

    Attributes:
        up: bytes from sites to the server so far.
        down: bytes from the server to sites so far.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.up = 0
        self.down = 0

    @property
    def sites(self) -> tuple[str, ...]:
        """The roster."""
        return self._engine.sites

    def ask(self, request: Request, sites: Sequence[str], deadline: float | None) -> Iterator[Reply]:
        """As the engine does; a reply for K sites counts K times what one site would send."""
        simple = {name: column for name, column in request.facts.items() if not _rich(column)}
        columns = [map(column.get, sites) for column in simple.values()]
        if len(simple) == len(request.facts):
            for values, count in Counter(zip(*columns, strict=True) if columns else [()] * len(sites)).items():
                facts = {name: value for name, value in zip(simple, values, strict=True) if value is not None}
                self.down += wire.size(with_facts(request.message, facts)) * count
        else:
            self.down += sum(wire.size(with_facts(request.message, request.for_site(site))) for site in sites)
        for reply in self._engine.ask(request, sites, deadline):
            one = wire.size_without_axis(reply.message) if reply.stacked else wire.size(reply.message)
            self.up += one * len(reply.sites)
            yield reply

    def journal(self, index: int, sites: Sequence[str]) -> tuple[tuple[str, ...], Arrays]:
        """As the engine does."""
        return self._engine.journal(index, sites)

    def restore(self, sites: Sequence[str], states: Arrays) -> None:
        """As the engine does."""
        self._engine.restore(sites, states)

    def close(self) -> None:
        """As the engine does."""
        self._engine.close()


def _rich(column: Mapping[str, Json]) -> bool:
    """Whether a fact is more than a number or a text, so that sites with equal ones cannot be counted together."""
    return any(isinstance(value, dict | list) for value in column.values())

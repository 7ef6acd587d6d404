"""Bytes up and down, as the wire form of every message has them, whichever engine carries it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from wardround import wire
from wardround.federation.messages import with_facts
from wardround.types import Arrays, Engine, Reply, Request


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
        columns = [map(column.get, sites) for column in request.facts.values()]
        for values, count in Counter(zip(*columns, strict=True) if columns else [()] * len(sites)).items():
            facts = {name: value for name, value in zip(request.facts, values, strict=True) if value is not None}
            self.down += wire.size(with_facts(request.message, facts)) * count
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

"""A further model of a run at the same sites: each message says which one it is for, and sites keep the models apart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from wardround.federation.messages import ARM, for_arm
from wardround.types import Arrays, Engine, Reply, Request


class FurtherModel:
    """An engine whose messages are for one further model.

    Args:
        engine: how the sites are reached.
        name: of the model.
    """

    def __init__(self, engine: Engine, name: str) -> None:
        self._engine, self._name = engine, name

    @property
    def sites(self) -> tuple[str, ...]:
        """The roster."""
        return self._engine.sites

    def ask(self, request: Request, sites: Sequence[str], deadline: float | None) -> Iterator[Reply]:
        """As the engine does; a late answer about another model is passed over."""
        for reply in self._engine.ask(for_arm(request, self._name), sites, deadline):
            meta = dict(reply.message.meta)
            if meta.pop(ARM, None) == self._name:
                yield replace(reply, message=replace(reply.message, meta=meta))

    def journal(self, index: int, sites: Sequence[str]) -> tuple[tuple[str, ...], Arrays]:
        """As the engine does."""
        return self._engine.journal(index, sites)

    def restore(self, sites: Sequence[str], states: Arrays) -> None:
        """As the engine does."""
        self._engine.restore(sites, states)

    def close(self) -> None:
        """The engine outlives this model."""

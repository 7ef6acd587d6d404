"""The local engine: every site in this process, asked a chunk at a time, so that memory is bounded by the chunk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from wardround.federation import messages
from wardround.federation.site import Host
from wardround.types import Arrays, Reply, Request

_BUDGET = 256 * 2**20
"""Bytes that the working tensors of a chunk may take where `engine.chunk` is auto."""
_LARGEST = 1024


class LocalEngine:
    """Sites simulated by one host.

    Args:
        host: the sites.
        chunk: sites trained together, or None to choose by memory once the model is known.

    Attributes:
        merges: whether the records of all sites lie in one place, so that they can be merged into a centralised baseline.
        volatile: whether the sites' states end with this process, so that rounds may wait to be committed together.
    """

    merges = True
    volatile = True

    def __init__(self, host: Host, chunk: int | None = None) -> None:
        self.host = host
        self._chunk = chunk

    @property
    def sites(self) -> tuple[str, ...]:
        """The roster."""
        return self.host.records.sites

    @property
    def chunk(self) -> int:
        """Sites trained together; call it after `prepare` where it is chosen automatically."""
        if self._chunk is None:
            network, work = self.host.network, self.host.job.training
            width = max(network.parameters * 8 + 1, 1)
            features = 1
            for side in self.host.records.row_shape:
                features *= side
            rows = int(self.host.records.count(self.sites, "train").max(initial=1))
            steps = work.most_steps(rows)
            # parameters with their copies; one batch with its activations; the plan of all batches and its working arrays
            each = 8 * (width + 4 * work.batch_size * features + 6 * steps * work.batch_size)
            self._chunk = max(self.host.workers, min(_LARGEST, _BUDGET // each))
        return self._chunk

    def ask(self, request: Request, sites: Sequence[str], deadline: float | None) -> Iterator[Reply]:
        """Replies in canonical order, a chunk at a time. There is nobody to wait for, so no deadline."""
        early = request.message.stage in (messages.ENROL, messages.PREPARE) or (
            request.message.meta.get("task") in (messages.STATISTICS, messages.CLASSES)
        )
        chunk = _LARGEST if early else self.chunk
        for start in range(0, len(sites), chunk):
            yield from self.host.answer(request, tuple(sites[start : start + chunk]))

    def journal(self, index: int, sites: Sequence[str]) -> tuple[tuple[str, ...], Arrays]:
        """States staged in a round, for the run folder."""
        return self.host.states.journal(index, tuple(sites))

    def restore(self, sites: Sequence[str], states: Arrays) -> None:
        """Give the sites the states of a checkpoint."""
        self.host.states.restore(tuple(sites), states)

    def close(self) -> None:
        """Let the sites release what they share between processes."""
        self.host.close()

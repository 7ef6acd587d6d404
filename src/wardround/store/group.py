"""Group commit: rounds that take less time than a flush to the disk are committed together.

A commit costs a few milliseconds, whatever it holds; a simulated round of a small model costs as little. So rounds wait in
memory, and are written once some time has passed. A crash loses the rounds that were waiting, which are repeated with the
same random numbers. Where sites outlive the process of the server, a round must be on the disk before anybody is told of
it: that is `seconds = 0`.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from wardround.store.run import Run
from wardround.types import Arrays, Json, Server


@dataclass(frozen=True, kw_only=True)
class _Waiting:
    """A commit to be: what `Run.commit` takes."""

    completed: int
    records: tuple[Mapping[str, Json], ...]
    server: Server
    sites: tuple[str, ...]
    states: Arrays


class GroupCommit:
    """Commits of one run, written at once or together.

    Args:
        run: the folder, open for writing.
        seconds: how long rounds may wait; 0 writes each as it comes.
    """

    def __init__(self, run: Run, seconds: float) -> None:
        self._run, self._seconds = run, seconds
        self._waiting: list[_Waiting] = []
        self._keep: tuple[int, ...] = ()
        self._written = time.monotonic()

    def add(
        self,
        completed: int,
        record: Mapping[str, Json],
        server: Server,
        sites: tuple[str, ...],
        states: Arrays,
        *,
        keep: Collection[int] = (),
    ) -> None:
        """One more round; see `Run.commit`. Of the rounds that wait, those not in `keep` are not restorable on their own."""
        newest = _Waiting(completed=completed, records=(record,), server=server, sites=sites, states=states)
        waiting = [*self._waiting, newest]
        for at in range(len(waiting) - 2, -1, -1):
            if waiting[at].completed not in keep:
                waiting[at : at + 2] = [_merged(waiting[at], waiting[at + 1])]
        self._waiting = waiting
        self._keep = tuple(keep)
        if time.monotonic() - self._written >= self._seconds:
            self.flush()

    def flush(self) -> None:
        """Write what waits.

        Raises:
            StorageError: the disk cannot be written; what was not written still waits.
        """
        while self._waiting:
            first = self._waiting[0]
            self._run.commit(
                first.completed, first.records, first.server, first.sites, first.states, keep=self._keep_now()
            )
            del self._waiting[0]
        self._written = time.monotonic()

    def _keep_now(self) -> Collection[int]:
        """Only the last of a group may drop an earlier commit: until it is written, a crash goes back behind it."""
        return self._keep if len(self._waiting) == 1 else {*self._run.kept, *self._keep}


def _merged(older: _Waiting, newer: _Waiting) -> _Waiting:
    """One commit of both: all records, the newer server, and each site's newest state."""
    replaced = set(newer.sites) if newer.states else set()
    rows = [row for row, site in enumerate(older.sites) if site not in replaced] if older.states else []
    records = (*older.records, *newer.records)
    if not rows:
        return replace(newer, records=records)
    sites = tuple(older.sites[row] for row in rows)
    states = {name: value[rows] for name, value in older.states.items()}
    if newer.states:
        sites += newer.sites
        import torch

        states = {name: torch.cat([value, newer.states[name]]) for name, value in states.items()}
    return replace(newer, records=records, sites=sites, states=states)

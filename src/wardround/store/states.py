"""What a site keeps between rounds, and what is pending until it knows that it was counted.

A site that crashed after sending does not know whether the server counted it. So a round's new state (control
variates, local layers) is only *staged*; the next request says `counted`, the last round that included the site, and
*settles* it: the pending state becomes the committed one, stays pending (the same round is tried again), or is dropped.

The server keeps the model of the best round so far, and may go back to it at the end. So a request also says `best`, the
rounds completed when that model was made, and a site on its own disk keeps its state as of then beside its present one. The
state as of c completed rounds is the one that its last counted round r <= c - 1 left. Which round is best can change between
two requests only in favour of a newer one, so no third state is ever needed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from wardround import wire
from wardround.errors import MessageError, RunError, StorageError, WardroundError
from wardround.store import atomic
from wardround.types import Arrays, Message

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Rows = NDArray[np.int64]
Sites = Sequence[str] | Rows
"""Names of K sites without repetition, or their row numbers, int64 [K], as `StateTable.rows` gives them."""

_NONE = -1
_REPLY = "reply/"
_COMMITTED = re.compile(r"state-(\d{5,})\.safetensors")


class SiteStates(Protocol):
    """The states of one or many sites. An empty state ({}: a rule without memory) is legal everywhere.

    Attributes:
        keeps_replies: whether `stage` keeps the reply that it is given.
    """

    keeps_replies: bool

    def read(self, sites: Sites, initial: Arrays) -> Arrays:
        """The committed states, [K, ...]; a fresh copy that the caller may change.

        Args:
            sites: K sites.
            initial: the state of a site that never committed one, without site axis.

        Raises:
            WardroundError: an unknown site, or committed states that differ from `initial` in names, shapes or dtypes.
        """
        ...

    def stage(self, index: int, sites: Sites, states: Arrays, reply: Message | None = None) -> None:
        """Keep new states pending beside the committed ones, replacing what was pending.

        Args:
            index: the round, 0 or more.
            sites: K sites.
            states: [K, ...], copied.
            reply: what is about to be sent, kept by a site on its own disk so that a retried attempt sends the same.

        Raises:
            WardroundError: an unknown site, or a leading axis that is not K.
            StorageError: the disk cannot be written; what was pending before is intact.
        """
        ...

    def staged_reply(self, index: int) -> Message | None:
        """The reply kept with round `index`, where that round is pending and a reply was kept."""
        ...

    def settle(self, sites: Sites, counted: Mapping[str, int], current: int, best: int | None = None) -> None:
        """Learn which rounds counted, and which of the earlier states may be asked for again.

        A site's pending round p is committed where p == counted[site], else kept where p == current, else dropped.

        Args:
            sites: K sites.
            counted: site -> the last round that included it; absent where none did.
            current: the round that is now asked for.
            best: rounds completed when the best model so far was made: the states as of then are kept for `rewind`; None
                where there is none yet.

        Raises:
            StorageError: the disk cannot be changed; the same call does the rest.
        """
        ...

    def rewind(self, sites: Sites, completed: int) -> None:
        """Go back to the states as of `completed` rounds, the `best` of the last `settle` or later; others are dropped.

        Where an engine holds the states of all sites, its `restore` has done so, and nothing happens.

        Raises:
            StorageError: the disk cannot be changed; the same call does the rest.
        """
        ...

    def earliest_round(self, sites: Sites) -> int:
        """The first round that any of `sites` may still be asked for: a request for one before it came late."""
        ...

    def journal(self, index: int, sites: Sites) -> tuple[tuple[str, ...], Arrays]:
        """Those of `sites` for whom round `index` is pending, in canonical order, and their pending states, [K, ...].

        ((), {}) where there are none.
        """
        ...

    def restore(self, sites: Sites, states: Arrays) -> None:
        """Drop everything, then take `states` [K, ...] as the committed ones of `sites`."""
        ...


class StateTable:
    """Many simulated sites in memory: one tensor [N, ...] a name, allocated at the first `stage` or `restore`."""

    keeps_replies = False

    def __init__(self, sites: Sequence[str]) -> None:
        self.sites = tuple(sites)
        self._row = {site: row for row, site in enumerate(self.sites)}
        if len(self._row) != len(self.sites):
            raise WardroundError(
                f"{len(self.sites) - len(self._row)} of {len(self.sites)} site names are repeated: name each once"
            )
        order = sorted(range(len(self.sites)), key=self.sites.__getitem__)
        self._rank = np.empty(len(self.sites), dtype=np.int64)
        self._rank[order] = np.arange(len(self.sites))
        self._clear()

    def _clear(self) -> None:
        self._names: frozenset[str] | None = None
        self._committed: Arrays = {}
        self._pending: Arrays = {}
        self._has_state = np.zeros(len(self.sites), dtype=np.bool_)
        self._round = np.full(len(self.sites), _NONE, dtype=np.int64)

    def rows(self, sites: Sites) -> Rows:
        """Row numbers of the sites, int64 [K]: computed once, they serve instead of names.

        Raises:
            WardroundError: an unknown site, or a row out of range.
        """
        if isinstance(sites, np.ndarray):
            if sites.size and not (sites.min() >= 0 and sites.max() < len(self.sites)):
                raise WardroundError(f"a row is outside 0..{len(self.sites) - 1}: use `rows(names)` of this table")
            return sites
        try:
            return np.fromiter(map(self._row.__getitem__, sites), dtype=np.int64, count=len(sites))
        except KeyError as error:
            raise _unknown(error.args[0], self.sites) from error

    def read(self, sites: Sites, initial: Arrays) -> Arrays:
        """See `SiteStates.read`."""
        rows = self.rows(sites)
        known = self._has_state[rows]
        if not known.any():
            return _broadcast(initial, len(rows))
        _same_layout(self._committed, initial)
        index = _index(rows)
        fresh = None if known.all() else _index(np.flatnonzero(~known))
        result = {}
        for name, value in initial.items():
            taken = self._committed[name].index_select(0, index.to(self._committed[name].device)).to(value.device)
            if fresh is not None:
                taken[fresh.to(value.device)] = value.detach()
            result[name] = taken
        return result

    def stage(self, index: int, sites: Sites, states: Arrays, reply: Message | None = None) -> None:
        """See `SiteStates.stage`; a simulated site needs no reply kept, since it draws the same numbers again."""
        rows = self.rows(sites)
        _check_stage(index, len(rows), states)
        if not len(rows):
            return
        self._take_names(states)
        self._pending = self._allocate(self._pending, states)
        self._put(self._pending, rows, states)
        self._round[rows] = index

    def staged_reply(self, index: int) -> Message | None:
        """None: a simulated site keeps no reply."""
        return None

    def settle(self, sites: Sites, counted: Mapping[str, int], current: int, best: int | None = None) -> None:
        """See `SiteStates.settle`; earlier states are in the run's folder, so `best` is of no use here."""
        rows = self.rows(sites)
        pending = self._round[rows]
        if not (pending != _NONE).any():
            return
        names = sites if not isinstance(sites, np.ndarray) else map(self.sites.__getitem__, rows.tolist())
        included = np.fromiter(map(counted.get, names, repeat(_NONE)), dtype=np.int64, count=len(rows))
        won = (pending != _NONE) & (pending == included)
        winners = rows[won]
        if len(winners):
            self._committed = self._allocate(self._committed, self._pending)
            index = _index(winners)
            for name, value in self._pending.items():
                place = index.to(value.device)
                self._committed[name].index_copy_(
                    0,
                    place.to(self._committed[name].device),
                    value.index_select(0, place).to(self._committed[name].device),
                )
            self._has_state[winners] = True
        self._round[rows[won | (pending != current)]] = _NONE

    def rewind(self, sites: Sites, completed: int) -> None:
        """See `SiteStates.rewind`: the engine restores the whole table from the run's folder."""
        self.rows(sites)

    def earliest_round(self, sites: Sites) -> int:
        """See `SiteStates.earliest_round`; in one process no request is late, and only what is pending is looked at."""
        return int(self._round[self.rows(sites)].max(initial=0))

    def journal(self, index: int, sites: Sites) -> tuple[tuple[str, ...], Arrays]:
        """See `SiteStates.journal`."""
        rows = self.rows(sites)
        rows = rows[self._round[rows] == index]
        if index == _NONE or not len(rows):
            return (), {}
        rows = rows[np.argsort(self._rank[rows])]
        chosen = _index(rows)
        states = {name: value.index_select(0, chosen.to(value.device)) for name, value in self._pending.items()}
        return tuple(map(self.sites.__getitem__, rows.tolist())), states

    def restore(self, sites: Sites, states: Arrays) -> None:
        """See `SiteStates.restore`."""
        rows = self.rows(sites)
        _check_axis(len(rows), states)
        self._clear()
        if len(rows):
            self._take_names(states)
            self._committed = self._allocate({}, states)
            self._put(self._committed, rows, states)
            self._has_state[rows] = True

    def _take_names(self, states: Arrays) -> None:
        """All sites keep the same names for good: a row that lacks one would be read as uninitialised memory."""
        if self._names is None:
            self._names = frozenset(states)
        elif self._names != states.keys():
            raise _other_names(self._names, states)

    def _allocate(self, table: Arrays, like: Arrays) -> Arrays:
        """`table`, or a new one of N uninitialised rows where it has none yet: no row is read before it is written."""
        if table:
            return table
        return {name: value.new_empty((len(self.sites), *value.shape[1:])) for name, value in like.items()}

    @staticmethod
    def _put(table: Arrays, rows: Rows, states: Arrays) -> None:
        _same_layout(table, {name: value[0] for name, value in states.items()})
        index = _index(rows)
        for name, value in states.items():
            target = table[name]
            target.index_copy_(0, index.to(target.device), value.detach().to(target.device))


class StateFile:
    """One site on its own disk: files in one folder, each made in one step; any crash leaves a whole state.

        pending.safetensors        the newest round with its states and the reply
        state-00005.safetensors    the committed states after 5 rounds, of which round 4 was the last to count here

    Being counted renames the pending file. The committed file with the highest number is the present one, and the newest
    with a number <= c is the state as of c rounds; where there is none it is the initial state. So a name is added first,
    and then those are deleted that nobody can ask for any more: two files are left, or one. A crash in between leaves a few
    more, which changes nothing.
    """

    keeps_replies = True

    def __init__(self, path: Path | str, site: str) -> None:
        """Take up what an earlier process left in the folder `path`, which is made where it is absent.

        Raises:
            RunError: a file there is damaged or belongs to another site.
            StorageError: the folder cannot be made or read.
        """
        self.path = Path(path)
        self.site = site
        self.sites = (site,)
        self._pending_file = self.path / "pending.safetensors"
        atomic.make_folder(self.path)
        atomic.sweep(self.path)
        pending = self._load(self._pending_file)
        self._round = _NONE if pending is None else int(pending.meta["round"])

    def read(self, sites: Sites, initial: Arrays) -> Arrays:
        """See `SiteStates.read`. Raises RunError where the file is damaged."""
        count = self._count(sites)
        committed = self._committed() if count else []
        stored = self._load(self._file(committed[-1])) if committed else None
        if stored is None:
            return _broadcast(initial, count)
        states = _states(stored)
        _same_layout(states, initial)
        return {name: states[name].to(value.device) for name, value in initial.items()}

    def stage(self, index: int, sites: Sites, states: Arrays, reply: Message | None = None) -> None:
        """See `SiteStates.stage`: on the disk when it returns, so call it before sending."""
        count = self._count(sites)
        _check_stage(index, count, states)
        if count:
            self._save(self._pending_file, index, states, reply)
            self._round = index

    def staged_reply(self, index: int) -> Message | None:
        """See `SiteStates.staged_reply`."""
        stored = self._load(self._pending_file) if self._round == index else None
        if stored is None or "reply" not in stored.meta:
            return None
        arrays = {n.removeprefix(_REPLY): v for n, v in stored.arrays.items() if n.startswith(_REPLY)}
        return Message(stage=stored.meta["reply"]["stage"], meta=stored.meta["reply"]["meta"], arrays=arrays)

    def settle(self, sites: Sites, counted: Mapping[str, int], current: int, best: int | None = None) -> None:
        """See `SiteStates.settle`."""
        if not self._count(sites):
            return
        if self._round != _NONE and self._round == counted.get(self.site, _NONE):
            atomic.move(self._pending_file, self._file(self._round + 1))
            self._round = _NONE
        elif self._round not in (_NONE, current):
            atomic.remove(self._pending_file)
            self._round = _NONE
        committed = self._committed()
        self._keep(committed, {*committed[-1:], _as_of(committed, best)})

    def rewind(self, sites: Sites, completed: int) -> None:
        """See `SiteStates.rewind`."""
        if not self._count(sites):
            return
        atomic.remove(self._pending_file)
        self._round = _NONE
        committed = self._committed()
        self._keep(committed, {_as_of(committed, completed)})

    def earliest_round(self, sites: Sites) -> int:
        """See `SiteStates.earliest_round`."""
        return max(self._round, *self._committed(), 0) if self._count(sites) else 0

    def counted_round(self, sites: Sites) -> int:
        """The last round that this site was told it was counted in; -1 where there was none, or it was not told."""
        return max(self._committed(), default=0) - 1 if self._count(sites) else _NONE

    def journal(self, index: int, sites: Sites) -> tuple[tuple[str, ...], Arrays]:
        """See `SiteStates.journal`."""
        stored = self._load(self._pending_file) if self._count(sites) and self._round == index else None
        return ((), {}) if stored is None else (self.sites, _states(stored))

    def restore(self, sites: Sites, states: Arrays) -> None:
        """See `SiteStates.restore`. After a crash in between, what was pending is gone: restore again."""
        count = self._count(sites)
        _check_axis(count, states)
        atomic.remove(self._pending_file)
        self._round = _NONE
        if count:
            self._save(self._file(0), _NONE, states, None)
        self._keep(self._committed(), {0} if count else set())

    def _file(self, completed: int) -> Path:
        return self.path / f"state-{completed:05d}.safetensors"

    def _committed(self) -> list[int]:
        """Rounds completed when each committed file was made, ascending."""
        found = map(_COMMITTED.fullmatch, atomic.names(self.path))
        return sorted(int(match[1]) for match in found if match)

    def _keep(self, committed: Sequence[int], needed: set[int | None]) -> None:
        for number in committed:
            if number not in needed:
                atomic.remove(self._file(number))

    def _count(self, sites: Sites) -> int:
        """1 for this site, 0 for none; anybody else is an error."""
        for site in sites:
            if site not in (self.site, 0):
                raise _unknown(site, self.sites)
        if len(sites) > 1:
            raise WardroundError(f"site '{self.site}' is named {len(sites)} times: name it once")
        return len(sites)

    def _save(self, path: Path, index: int, states: Arrays, reply: Message | None) -> None:
        arrays = {f"states/{name}": value for name, value in states.items()}
        meta: dict[str, Any] = {"site": self.site, "round": index}
        if reply is not None:
            arrays |= {_REPLY + name: value for name, value in reply.arrays.items()}
            meta["reply"] = {"stage": reply.stage, "meta": dict(reply.meta)}
        atomic.write_pieces(path, wire.pieces(Message(stage="state", meta=meta, arrays=arrays)))

    def _load(self, path: Path) -> Message | None:
        try:
            message = wire.decode(path.read_bytes())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StorageError(
                f"{path} could not be read: {error.strerror or error}; see to the disk, then try again"
            ) from error
        except MessageError as error:
            raise RunError(
                f"{path} is damaged: {error}; restore it from a backup, or remove it to lose this state"
            ) from error
        if message.meta.get("site") != self.site or not isinstance(message.meta.get("round"), int):
            raise RunError(
                f"{path} holds the state of site {message.meta.get('site')!r}, expected '{self.site}': "
                "give each site a folder of its own"
            )
        return message


def _states(message: Message) -> Arrays:
    return {n.removeprefix("states/"): v for n, v in message.arrays.items() if not n.startswith(_REPLY)}


def _as_of(committed: Sequence[int], completed: int | None) -> int | None:
    """The newest of the ascending numbers that is not above `completed`; None where it is the initial state."""
    if completed is None:
        return None
    return max((number for number in committed if number <= completed), default=None)


def _index(rows: Rows) -> Tensor:
    import torch

    return torch.from_numpy(np.ascontiguousarray(rows, dtype=np.int64))


def _broadcast(initial: Arrays, count: int) -> Arrays:
    """[...] -> [count, ...], each row memory of its own."""
    return {name: value.detach().expand(count, *value.shape).clone() for name, value in initial.items()}


def _unknown(site: object, sites: Sequence[str]) -> WardroundError:
    return WardroundError(
        f"site {site!r} is not kept here: expected one of {len(sites)} sites, such as {list(sites[:3])}"
    )


def _check_stage(index: int, count: int, states: Arrays) -> None:
    if index < 0:
        raise WardroundError(f"round {index} cannot be staged: expected 0 or more")
    _check_axis(count, states)


def _check_axis(count: int, states: Arrays) -> None:
    for name, value in states.items():
        if value.ndim == 0 or value.shape[0] != count:
            raise WardroundError(
                f"state '{name}' has shape {list(value.shape)}, expected a leading axis of {count} sites"
            )


def _other_names(kept: Iterable[str], given: Iterable[str]) -> WardroundError:
    return WardroundError(
        f"the sites' states are named {sorted(kept)}, and {sorted(given)} came: they belong to another rule"
    )


def _same_layout(stored: Arrays, expected: Arrays) -> None:
    """Compare states [N, ...] with one state [...]; raises WardroundError."""
    if stored.keys() != expected.keys():
        raise _other_names(stored, expected)
    for name, value in expected.items():
        kept: tuple[torch.dtype, tuple[int, ...]] = (stored[name].dtype, tuple(stored[name].shape[1:]))
        if kept != (value.dtype, tuple(value.shape)):
            raise WardroundError(
                f"state '{name}' is kept as {kept[0]} {list(kept[1])}, and {value.dtype} {list(value.shape)} was "
                "expected: it belongs to another model"
            )

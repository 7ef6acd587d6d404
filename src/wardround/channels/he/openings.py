"""What a site has opened: no site's message is in two sums that it opens of one exchange, or their difference is its update."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wardround.channels.exchange import Exchange
from wardround.channels.he.keys import file_name
from wardround.channels.he.ring import CIPHERTEXTS, LENGTHS
from wardround.errors import IdentityError, Refused
from wardround.store import atomic
from wardround.types import Arrays

_Opened = tuple[frozenset[str], str]


class Openings:
    """The openings of the sites of one process.

    Args:
        folder: where they outlive a restart; None: in memory.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._done: dict[str, dict[str, list[_Opened]]] = {}

    def check(self, site: str, exchange: Exchange, members: Sequence[str], arrays: Arrays) -> None:
        """Whether `site` may open this sum: nothing of the exchange yet, the same again, or a sum of other sites.

        Raises:
            Refused: a member is in another sum that was opened.
        """
        mine = (frozenset(members), _digest(arrays))
        for earlier in self._of(site).get(_label(exchange), []):
            if earlier != mine and not earlier[0].isdisjoint(mine[0]):
                raise Refused(
                    f"site '{site}' has opened another sum of this exchange with {', '.join(sorted(earlier[0] & mine[0])[:5])} "
                    "in it: the difference of two would show what it hides"
                )

    def note(self, site: str, exchange: Exchange, members: Sequence[str], arrays: Arrays) -> None:
        """Remember an opening; it is on the disk before the answer leaves."""
        mine = (frozenset(members), _digest(arrays))
        earlier = self._of(site).setdefault(_label(exchange), [])
        if mine in earlier:
            return
        earlier.append(mine)
        path = self._path(site)
        if path is not None:
            atomic.make_folder(path.parent)
            line = {"exchange": _label(exchange), "members": sorted(mine[0]), "sum": mine[1]}
            atomic.append_line(path, json.dumps(line))

    def _of(self, site: str) -> dict[str, list[_Opened]]:
        if site not in self._done:
            self._done[site] = self._stored(site)
        return self._done[site]

    def _stored(self, site: str) -> dict[str, list[_Opened]]:
        path = self._path(site)
        found: dict[str, list[_Opened]] = {}
        if path is None or not path.exists():
            return found
        data = path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):  # cut short while it was written: its answer never left
            atomic.cut(path, whole)
        for line in data[:whole].splitlines():
            try:
                one: Any = json.loads(line)
                found.setdefault(one["exchange"], []).append((frozenset(one["members"]), one["sum"]))
            except (ValueError, KeyError, TypeError) as error:
                raise IdentityError(
                    f"{path}, what site '{site}' has opened, is damaged: put it back as it was, or start another run; without it "
                    "a sum could be opened twice"
                ) from error
        return found

    def _path(self, site: str) -> Path | None:
        return None if self._folder is None else self._folder / f"he-opened-{file_name(site)}.jsonl"


def _label(exchange: Exchange) -> str:
    return hashlib.sha256(exchange.label()).hexdigest()


def _digest(arrays: Arrays) -> str:
    whole = hashlib.sha256()
    for name in (LENGTHS, CIPHERTEXTS):
        value = arrays.get(name)
        if value is not None:
            whole.update(value.contiguous().numpy().data)
    return whole.hexdigest()

"""How far a run is, site by site, from what the coordinator's audit log says of it: so it is the same after a restart."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from wardround.deploy import canonical
from wardround.deploy.audit import AuditLog
from wardround.types import Json

_KINDS = ("run-started", "round", "message-sent", "message-received")
_RECENT = 10
"""Rounds whose time is what the next ones are thought to take."""


@dataclass(kw_only=True)
class Part:
    """One site's part in a run.

    Attributes:
        counted, missed: rounds that asked it, with and without its contribution.
        up, down: bytes from it and to it; each attempt counts.
        heard: when a message of it was taken last, or "".
    """

    counted: int = 0
    missed: int = 0
    up: int = 0
    down: int = 0
    heard: str = ""


class Progress:
    """The run that a coordinator works on.

    Args:
        log: the coordinator's.
    """

    def __init__(self, log: AuditLog) -> None:
        self._log = log
        self.begin(None)

    def begin(self, run: str | None) -> None:
        """Look at another run from now on; None: at none."""
        self._run, self._at = run, 0
        self._parts: dict[str, Part] = {}
        self._rounds: dict[tuple[str, int], dict[str, Any]] = {}
        self._ends: list[tuple[str, datetime]] = []

    def look(self) -> None:
        """Read what was logged since."""
        if self._run is None:
            return
        entries, at = self._log.since(self._at, _KINDS, run=self._run)
        if entries is None:  # another log lies there now
            self.begin(self._run)
            entries, at = self._log.since(0, _KINDS, run=self._run)
        self._at = at
        for entry in entries or ():
            self._take(entry)

    def _take(self, entry: dict[str, Any]) -> None:
        kind = entry["kind"]
        if kind == "run-started":
            self._ends.clear()  # no round took as long as the coordinator was away
        elif kind == "message-sent":
            self._part(entry["recipient"]).down += entry["bytes"]
        elif kind == "message-received":
            part = self._part(entry["sender"])
            part.up, part.heard = part.up + entry["bytes"], entry["time"]
        else:
            which = str(entry.get("what", ""))
            self._rounds[which, entry["round"]] = entry  # one that was lost in a crash comes again
            self._ends = [end for end in self._ends if end[0] == which][-_RECENT:]
            self._ends.append((which, canonical.time_from(entry["time"], "an entry")))

    def _part(self, site: str) -> Part:
        return self._parts.setdefault(site, Part())

    @property
    def seconds(self) -> float | None:
        """Mean time of the last rounds; None before there are two."""
        if len(self._ends) < 2:
            return None
        return (self._ends[-1][1] - self._ends[0][1]).total_seconds() / (len(self._ends) - 1)

    def parts(self) -> dict[str, dict[str, Json]]:
        """Site -> its `Part` as JSON."""
        for part in self._parts.values():
            part.counted = part.missed = 0
        for (which, _), entry in self._rounds.items():
            if which:  # a model beside the federation's
                continue
            for site in entry["asked"]:
                part = self._part(site)
                part.counted += site in entry["counted"]
                part.missed += site not in entry["counted"]
        return {site: asdict(part) for site, part in sorted(self._parts.items())}

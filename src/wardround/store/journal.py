"""The journal of a run: one line a commit, chained by hashes; the line is the commit.

A line is one JSON object. `previous` is the SHA-256 of the line before ("" for the first); the last member, `sha256`,
is that of the line's own text without this member: an altered line is found, also where it is the last one. This finds
accidents and careless edits; who rewrites the whole file is not stopped by it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from wardround.errors import RunError, StorageError
from wardround.store import atomic
from wardround.types import Json

_SEAL = ',"sha256":"'
_SEAL_LENGTH = len(_SEAL) + 64 + len('"}')


@dataclass(frozen=True, kw_only=True)
class Commit:
    """What one line says.

    Attributes:
        completed: rounds completed; 0 is the initial model.
        records: what the caller tells of each round since the commit before, in order.
        files: checkpoint file -> SHA-256, the files written for this commit.
        states: commits whose states files hold the latest state of some site, as of this commit; ascending.
        keep: earlier commits whose checkpoints are kept beside this one's; ascending.
    """

    completed: int
    records: tuple[Mapping[str, Json], ...]
    files: Mapping[str, str]
    states: tuple[int, ...]
    keep: tuple[int, ...]


class Journal:
    """A journal file and what it holds; `commits` in order."""

    def __init__(self, path: Path) -> None:
        """Read and check every line. A last line without its end is an interrupted write, and is ignored.

        Raises:
            RunError: the file is absent, a line is altered, or the chain is broken.
        """
        self.path = path
        self.commits: list[Commit] = []
        self._previous = ""
        try:
            content = path.read_bytes()
        except FileNotFoundError as error:
            raise RunError(f"{path} is absent: this run's folder is damaged; restore it from a backup") from error
        except OSError as error:
            raise StorageError(f"{path} could not be read: {error.strerror or error}") from error
        self._length = content.rfind(b"\n") + 1
        for number, line in enumerate(content[: self._length].split(b"\n")[:-1], start=1):
            self.commits.append(self._parse(line, number))
            self._previous = hashlib.sha256(line).hexdigest()

    def repair(self) -> None:
        """Cut off an unfinished last line; for the only writer.

        Raises:
            StorageError: the file cannot be changed.
        """
        if self._size() != self._length:
            atomic.cut(self.path, self._length)

    def append(self, commit: Commit) -> Commit:
        """Commit: once the line is on the disk it is done. Returns the commit as it will be read again.

        Raises:
            RunError: a record is not JSON (NaN, say), or somebody else changed the file.
            StorageError: the disk cannot be written; the earlier lines are intact.
        """
        if self._size() != self._length:
            raise RunError(
                f"{self.path} has {self._size()} bytes, expected {self._length}: somebody else changed it, or a write "
                "was interrupted; close this run and resume it"
            )
        members = {
            "completed": commit.completed,
            "files": dict(commit.files),
            "keep": commit.keep,
            "previous": self._previous,
            "records": [dict(record) for record in commit.records],
            "states": commit.states,
        }
        try:
            body = json.dumps(members, sort_keys=True, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
            content = body.encode()
        except (TypeError, ValueError) as error:
            raise RunError(
                f"the records of commit {commit.completed} are not JSON: {error}; write null for an undefined figure"
            ) from error
        line = f'{body[:-1]}{_SEAL}{hashlib.sha256(content).hexdigest()}"}}'
        written = line.encode()
        kept = self._parse(written, len(self.commits) + 1)
        atomic.append_line(self.path, line)
        self._length += len(written) + 1
        self._previous = hashlib.sha256(written).hexdigest()
        self.commits.append(kept)
        return kept

    def _size(self) -> int:
        try:
            return self.path.stat().st_size
        except OSError as error:
            raise StorageError(f"{self.path} could not be read: {error.strerror or error}") from error

    def _parse(self, line: bytes, number: int) -> Commit:
        """Check one line against its own hash and the line before."""
        body, seal = line[:-_SEAL_LENGTH] + b"}", line[-_SEAL_LENGTH:]
        if seal != f'{_SEAL}{hashlib.sha256(body).hexdigest()}"}}'.encode():
            self._damaged(number, "was altered after it was written")
        try:
            members = json.loads(body)
            commit = Commit(
                completed=members["completed"],
                records=tuple(members["records"]),
                files=members["files"],
                states=tuple(members["states"]),
                keep=tuple(members["keep"]),
            )
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise RunError(f"{self.path}, line {number} is not of this format: {error!r}") from error
        if members.get("previous") != self._previous:
            self._damaged(number, "does not follow from the line before it: a line was removed, added or moved")
        if self.commits and commit.completed <= self.commits[-1].completed:
            self._damaged(number, f"says completed = {commit.completed} after {self.commits[-1].completed}")
        return commit

    def _damaged(self, number: int, reason: str) -> NoReturn:
        raise RunError(f"{self.path}, line {number} {reason}; restore the run's folder from a backup")

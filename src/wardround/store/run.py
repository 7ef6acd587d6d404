"""A run's folder and its only writer.

    job.yaml                              the whole job
    run.json                              id, job, facts, status; written last: a folder with it is a run
    journal.jsonl                         one line a commit
    checkpoints/server-00012.safetensors  the server after 12 rounds
    checkpoints/states-00012.safetensors  the sites' states that commit 12 changed

The order of a commit: checkpoint files, then the journal's line, which is the commit, then the deletion of what is no
longer needed. A crash anywhere between leaves files that no line names, which the next writer removes or overwrites.
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import repeat
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

from wardround import config, wire
from wardround.config import Job
from wardround.content import Content, digest_of, of_file
from wardround.errors import ConfigError, MessageError, RunError, StorageError, WardroundError
from wardround.store import atomic
from wardround.store.journal import Commit, Journal
from wardround.types import Arrays, Json, Message, ModelState, Server

if TYPE_CHECKING:
    from filelock import FileLock

FORMAT = 2

_CHECKPOINTS = "checkpoints"
_CHECKPOINT = re.compile(r"(?:server|states)-(\d{5,})\.safetensors")
_LOCK = ".lock"
_OWN = {"job.yaml", "run.json", "journal.jsonl", _CHECKPOINTS, _LOCK}
_SERVER_PARTS = ("params", "buffers", "rule", "optimizer")


class Run:
    """One folder. Made by `Run.create` or `Run.open`; a context manager that releases the folder.

    Attributes:
        path: the folder.
        job: the job as recorded.
    """

    def __init__(self, path: Path, head: dict[str, Any], job: Job, journal: Journal, lock: FileLock | None) -> None:
        self.path = path
        self.job = job
        self._head = head
        self._journal = journal
        self._lock = lock
        self._by_completed = {commit.completed: commit for commit in journal.commits}
        # Which commit's states file holds a site's latest state, and how many sites each file holds it for; read from
        # the files at the first need.
        self._latest: dict[str, int] | None = None
        self._holders: Counter[int] = Counter()

    # ------------------------------------------------------------------------------------------------- life

    @classmethod
    def create(cls, path: Path | str, job: Job, facts: Mapping[str, Json]) -> Run:
        """Make a run's folder and become its only writer.

        Args:
            path: a folder that is absent or empty.
            job: what the run does.
            facts: what else its numbers depend on (threads, chunk, a digest of the data), as JSON.

        Raises:
            RunError: the folder holds a run or other files, is being written by somebody else, or `facts` are not JSON.
            StorageError: the folder cannot be written.
        """
        path = Path(path)
        tree = _as_json(_tree(job), "job")
        head = {
            "format": FORMAT,
            "id": str(uuid.uuid4()),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "status": "running",
            "cause": "",
            "job": tree,
            "job_sha256": _digest(tree),
            "facts": _as_json(facts, "facts"),
        }
        _check_free(path)
        atomic.make_folder(path)
        lock = _acquire(path)
        try:
            _check_free(path)
            atomic.sweep(path)
            atomic.write_bytes(path / "journal.jsonl", b"")
            atomic.write_text(path / "job.yaml", config.dump(job))
            atomic.write_json(path / "run.json", head)
            return cls(path, head, job, Journal(path / "journal.jsonl"), lock)
        except BaseException:
            lock.release()
            raise

    @classmethod
    def open(cls, path: Path | str, *, writer: bool = True) -> Run:
        """Open a run's folder, and as writer repair what a crash left.

        Args:
            path: the folder.
            writer: become its only writer; False reads beside a writer.

        Raises:
            RunError: no run there, damaged, its job.yaml was edited, or somebody else is writing it.
            StorageError: the folder cannot be read, or not be written as a writer must.
        """
        path = Path(path)
        _read_head(path)
        lock = _acquire(path) if writer else None
        try:
            head = _read_head(path)
            job = _read_job(path, head)
            run = cls(path, head, job, Journal(path / "journal.jsonl"), lock)
            if writer:
                run._repair()
            return run
        except BaseException:
            if lock is not None:
                lock.release()
            raise

    @staticmethod
    def discard(path: Path | str) -> None:
        """Delete the run that a folder holds, in whatever state it is; nothing happens where there is no run.

        Raises:
            RunError: somebody is writing it.
            StorageError: something in it cannot be deleted; what is left is still a run's folder.
        """
        path = Path(path)
        # the head goes last: a deletion that is cut short leaves a folder that can be discarded again
        names = [name for name in atomic.names(path) if name not in ("run.json", _LOCK)]
        if not (path / "run.json").exists():
            return
        lock = _acquire(path)
        try:
            for name in [*names, "run.json"]:
                atomic.remove_tree(path / name)
        finally:
            lock.release()
        atomic.remove(path / _LOCK)
        atomic.remove_folder(path)

    def close(self) -> None:
        """Let another writer in; nothing may be written afterwards. Closing twice is one closing."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ------------------------------------------------------------------------------------------------- facts

    @property
    def id(self) -> str:
        """The run's identity, a random UUID."""
        return str(self._head["id"])

    @property
    def created(self) -> str:
        """When it was made, ISO 8601 in UTC."""
        return str(self._head["created"])

    @property
    def facts(self) -> dict[str, Json]:
        """The facts given at creation."""
        return dict(self._head["facts"])

    @property
    def status(self) -> str:
        """`running` until `finish` says otherwise."""
        return str(self._head["status"])

    @property
    def cause(self) -> str:
        """Why it has this status; may be empty."""
        return str(self._head["cause"])

    @property
    def completed(self) -> int | None:
        """Rounds completed at the last commit, None before the first."""
        return self._journal.commits[-1].completed if self._journal.commits else None

    @property
    def records(self) -> list[dict[str, Json]]:
        """The records of all commits, in order."""
        return [dict(record) for commit in self._journal.commits for record in commit.records]

    @property
    def kept(self) -> tuple[int, ...]:
        """Commits that can be restored, ascending."""
        return tuple(sorted(self._retained()))

    def check(self, job: Job, facts: Mapping[str, Json]) -> None:
        """Refuse to go on with another job or under other facts; the fact `versions` is the caller's to compare.

        Raises:
            RunError: with a line `key: recorded -> given` for each difference.
        """
        recorded, given = self._head["facts"], _as_json(facts, "facts")
        lines = config.difference(self.job, job)
        for key in sorted((recorded.keys() | given.keys()) - {"versions"}):
            if key not in recorded or key not in given or recorded[key] != given[key]:
                before, after = (repr(side[key]) if key in side else "(absent)" for side in (recorded, given))
                lines.append(f"{key}: {before} -> {after}")
        if lines:
            raise RunError(
                f"{self.path} was begun otherwise, and its numbers would not be those of one run: give the recorded "
                "values, or begin a new run with another --out\n  " + "\n  ".join(lines)
            )

    def finish(self, status: str, cause: str = "") -> None:
        """Record how the run stands (`running`, `done`, `interrupted`, `failed`) and why.

        Raises:
            StorageError: run.json cannot be written; the earlier status is intact.
        """
        self._check_writer()
        head = self._head | {"status": status, "cause": cause}
        atomic.write_json(self.path / "run.json", head)
        self._head = head

    # ------------------------------------------------------------------------------------------------- commits

    def commit(
        self,
        completed: int,
        records: Sequence[Mapping[str, Json]],
        server: Server,
        sites: tuple[str, ...],
        states: Arrays,
        *,
        keep: Collection[int] = (),
    ) -> None:
        """Save the server and the changed states, all or nothing; then delete what no kept commit needs.

        Args:
            completed: rounds completed, above that of the last commit; 0 for the initial model.
            records: facts of each round since the last commit, as JSON without NaN.
            server: saved whole.
            sites: K sites whose state changed, without repetition.
            states: their states, [K, ...]; {} where the rule has no memory.
            keep: earlier commits that must stay restorable (the best round, say); a commit that an earlier call did
                not keep is gone, and naming it here is of no effect.

        Raises:
            RunError: `completed` does not increase, a record is not JSON, or the run is not open for writing.
            StorageError: the disk cannot be written; the last commit is intact, and this one may be tried again.
        """
        self._check_writer()
        if completed < 0 or (self.completed is not None and completed <= self.completed):
            raise RunError(
                f"completed = {completed}: expected more than {self.completed}, the last commit of {self.path}"
            )
        _check_states(sites, states)
        last = self._journal.commits[-1] if self._journal.commits else None
        retained = set() if last is None else {last.completed, *last.keep}
        latest = self._load_latest()
        changed = sites if states else ()
        replaced = Counter(number for number in map(latest.get, changed) if number is not None)
        holding = () if last is None else last.states
        holding = tuple(number for number in holding if self._holders[number] > replaced[number])

        atomic.make_folder(self.path / _CHECKPOINTS)
        files = {_server_name(completed): self._save_server(completed, server)}
        if changed:
            files[_states_name(completed)] = self._save_states(completed, sites, states)
            holding = (*holding, completed)
        commit = Commit(
            completed=completed,
            records=tuple(records),
            files=files,
            states=holding,
            keep=tuple(sorted(retained & set(keep))),
        )
        commit = self._journal.append(commit)

        self._by_completed[completed] = commit
        latest.update(zip(changed, repeat(completed)))
        self._holders -= replaced
        if changed:
            self._holders[completed] = len(changed)
        before = self._needed(retained)
        self._discard(before - self._needed({completed, *commit.keep}))

    def restore(self, completed: int | None = None) -> tuple[Server, tuple[str, ...], Arrays]:
        """The server, and the latest states of all sites that had one, after `completed` rounds.

        Args:
            completed: a commit that is kept; None for the last.

        Returns:
            The server, S site names in canonical order, and their states [S, ...]; ((), {}) where there are none. All
            tensors are on the CPU.

        Raises:
            RunError: no such commit, or a checkpoint is absent, truncated or altered: the error names the file.
        """
        commit = self._find(completed)
        message = self._load(_server_name(commit.completed))
        parts: dict[str, Arrays] = {part: {} for part in _SERVER_PARTS}
        for name, value in message.arrays.items():
            part, _, rest = name.partition("/")
            parts[part][rest] = value
        model = ModelState(params=parts["params"], buffers=parts["buffers"])
        server = Server(model=model, rule=parts["rule"], optimizer=parts["optimizer"])
        sites, states = self._gather(commit)
        return server, sites, states

    def verify(self) -> int:
        """Hash every file that the kept commits need.

        Returns:
            How many files there are.

        Raises:
            RunError: naming each file that is absent or differs from what the journal says.
        """
        bad = []
        names = sorted(self._needed(self._retained()))
        for name in names:
            try:
                self._check_bytes(name, atomic.sha256(self.path / _CHECKPOINTS / name))
            except OSError as error:
                bad.append(f"{_CHECKPOINTS}/{name}: {error.strerror or error}")
            except RunError as error:
                bad.append(str(error))
        if bad:
            raise RunError(f"{self.path} is damaged; restore it from a backup\n  " + "\n  ".join(bad))
        return len(names)

    # ------------------------------------------------------------------------------------------------- other files

    def write_json(self, name: str, value: Json) -> None:
        """Write a file of the run as JSON, atomically; folders in `name` are made.

        Raises:
            RunError: the name leaves the folder or is one of the run's own, or the value is not JSON.
            StorageError: the disk cannot be written; the file's earlier content is intact.
        """
        path = self._target(name)
        try:
            atomic.write_json(path, value)
        except (TypeError, ValueError) as error:
            raise RunError(f"{name} cannot be written as JSON: {error}") from error

    def read_json(self, name: str) -> Json:
        """The value of a JSON file of the run.

        Raises:
            RunError: it is absent or is not JSON.
        """
        try:
            return json.loads(self._read(name))
        except (ValueError, RecursionError) as error:
            raise RunError(f"{self.path / name} is not JSON: {error}; restore it from a backup") from error

    def write_tensors(self, name: str, arrays: Arrays, metadata: Mapping[str, str]) -> None:
        """Write a file of the run as safetensors, atomically; folders in `name` are made.

        Raises:
            RunError: the name leaves the folder or is one of the run's own.
            StorageError: the disk cannot be written; the file's earlier content is intact.
        """
        path = self._target(name)
        atomic.write_pieces(path, wire.packed(arrays, metadata))

    def read_tensors(self, name: str) -> tuple[Arrays, dict[str, str]]:
        """The tensors (on the CPU) and metadata of a safetensors file of the run.

        Raises:
            RunError: it is absent or damaged.
        """
        try:
            return wire.unpack(self._read(name))
        except MessageError as error:
            raise RunError(f"{self.path / name} is damaged: {error}; restore it from a backup") from error

    # ------------------------------------------------------------------------------------------------- inside

    def _check_writer(self) -> None:
        if self._lock is None:
            raise RunError(f"{self.path} is open for reading, or was closed: open it with writer=True to change it")

    def _repair(self) -> None:
        self._journal.repair()
        folder = self.path / _CHECKPOINTS
        for each in _own_folders(self.path):
            atomic.sweep(each)
        needed = self._needed(self._retained())
        for name in atomic.names(folder):
            if _CHECKPOINT.fullmatch(name) and name not in needed:
                atomic.remove(folder / name)

    def _retained(self) -> set[int]:
        if not self._journal.commits:
            return set()
        last = self._journal.commits[-1]
        return {last.completed, *last.keep}

    def _needed(self, commits: Collection[int]) -> set[str]:
        """Names of the checkpoint files from which these commits can be restored."""
        names = {_server_name(number) for number in commits}
        for number in commits:
            names.update(map(_states_name, self._by_completed[number].states))
        return names

    def _discard(self, names: Collection[str]) -> None:
        for name in names:
            try:
                atomic.remove(self.path / _CHECKPOINTS / name)
            except StorageError:
                # The commit is done, and a file too many harms nobody; the next writer's repair tries again.
                return

    def _find(self, completed: int | None) -> Commit:
        if not self._journal.commits:
            raise RunError(f"{self.path} holds no commit yet: nothing to restore; begin a new run with another --out")
        if completed is None:
            return self._journal.commits[-1]
        if completed not in self._retained():
            known = ", ".join(map(str, self.kept))
            raise RunError(f"{self.path} keeps no checkpoint of {completed} completed rounds, only of: {known}")
        return self._by_completed[completed]

    def _save_server(self, completed: int, server: Server) -> str:
        arrays = {
            f"{part}/{name}": value
            for part, values in zip(
                _SERVER_PARTS, (server.model.params, server.model.buffers, server.rule, server.optimizer), strict=True
            )
            for name, value in values.items()
        }
        return self._save(
            _server_name(completed), Message(stage="server", meta={"completed": completed}, arrays=arrays)
        )

    def _save_states(self, completed: int, sites: tuple[str, ...], states: Arrays) -> str:
        meta = {"completed": completed, "sites": list(sites)}
        return self._save(_states_name(completed), Message(stage="states", meta=meta, arrays=states))

    def _save(self, name: str, message: Message) -> str:
        pieces = wire.pieces(message)
        atomic.write_pieces(self.path / _CHECKPOINTS / name, pieces)
        return digest_of(pieces)

    def _load(self, name: str) -> Message:
        data = self._content(f"{_CHECKPOINTS}/{name}")
        self._check_bytes(name, data.digest)
        try:
            message = wire.decode(data)
            return replace(message, arrays=dict(message.arrays))
        except MessageError as error:
            raise RunError(f"{_CHECKPOINTS}/{name} in {self.path} is not a checkpoint: {error}") from error

    def _check_bytes(self, name: str, digest: str) -> None:
        match = _CHECKPOINT.fullmatch(name)
        commit = self._by_completed.get(int(match.group(1))) if match else None
        expected = commit.files.get(name) if commit else None
        if digest != expected:
            raise RunError(
                f"{_CHECKPOINTS}/{name} in {self.path} was truncated or altered: its SHA-256 is {digest}, and the "
                f"journal says {expected}; restore it from a backup"
            )

    def _gather(self, commit: Commit) -> tuple[tuple[str, ...], Arrays]:
        """Each site's latest state, from the files that hold one."""
        import torch

        latest: dict[str, int] = {}
        row: dict[str, int] = {}
        pieces: list[Arrays] = []
        total = 0
        for number in commit.states:
            message = self._load(_states_name(number))
            sites = message.meta["sites"]
            row.update(zip(sites, range(total, total + len(sites)), strict=True))
            latest.update(zip(sites, repeat(number)))
            total += len(sites)
            pieces.append(message.arrays)
        if commit is self._journal.commits[-1]:
            self._latest, self._holders = latest, Counter(latest.values())
        if not pieces:
            return (), {}
        if any(piece.keys() != pieces[0].keys() for piece in pieces):
            raise RunError(f"the states files of {self.path} hold different names: they are not of one rule")
        names = tuple(sorted(row))
        index = torch.tensor([row[site] for site in names], dtype=torch.int64)
        return names, {name: torch.cat([piece[name] for piece in pieces]).index_select(0, index) for name in pieces[0]}

    def _load_latest(self) -> dict[str, int]:
        if self._latest is None and self._journal.commits:
            self._gather(self._journal.commits[-1])
        if self._latest is None:
            self._latest = {}
        return self._latest

    def _target(self, name: str) -> Path:
        self._check_writer()
        path = self._inside(name)
        if PurePosixPath(name).parts[0].lower() in _OWN:
            raise RunError(f"{name} is one of the run's own files: choose another name")
        atomic.make_folder(path.parent)
        return path

    def _inside(self, name: str) -> Path:
        pure = PurePosixPath(name)
        if not pure.parts or pure.is_absolute() or ".." in pure.parts or "\\" in name or ":" in name:
            raise RunError(
                f"{name!r} is not a name inside the run's folder: give a relative one, such as 'report.json'"
            )
        return self.path / pure

    def _read(self, name: str) -> bytes:
        return bytes(self._content(name))

    def _content(self, name: str) -> Content:
        path = self._inside(name)
        try:
            return of_file(path)
        except FileNotFoundError as error:
            raise RunError(f"{name} is absent from {self.path}: restore it from a backup") from error
        except OSError as error:
            raise StorageError(f"{path} could not be read: {error.strerror or error}; see to the disk") from error


def _own_folders(path: Path) -> Iterator[Path]:
    """A run's folder and those inside it (overlays, figures), but not those of runs inside it (baselines)."""
    yield path
    for name in atomic.names(path):
        inner = path / name
        if inner.is_dir() and not inner.is_symlink() and not (inner / "run.json").exists():
            yield from _own_folders(inner)


def _server_name(completed: int) -> str:
    return f"server-{completed:05d}.safetensors"


def _states_name(completed: int) -> str:
    return f"states-{completed:05d}.safetensors"


def _check_states(sites: tuple[str, ...], states: Arrays) -> None:
    if len(set(sites)) != len(sites):
        raise WardroundError(f"{len(sites) - len(set(sites))} of {len(sites)} sites are named twice: name each once")
    for name, value in states.items():
        if value.ndim == 0 or value.shape[0] != len(sites):
            raise WardroundError(
                f"state '{name}' has shape {list(value.shape)}, expected a leading axis of {len(sites)} sites"
            )


def _check_free(path: Path) -> None:
    """Refuse a folder with anything in it but what an interrupted `create` leaves."""
    found = {name for name in atomic.names(path) if name != _LOCK and not atomic.is_temporary(name)}
    if "run.json" in found:
        raise RunError(f"{path} already holds a run: go on with `wardround resume {path}`, or choose another --out")
    begun = path / "journal.jsonl"
    interrupted = "journal.jsonl" in found and found <= {"journal.jsonl", "job.yaml"} and begun.stat().st_size == 0
    if found and not interrupted:
        some = ", ".join(sorted(found)[:3])
        raise RunError(f"{path} is not empty and holds no run ({some}): choose another --out, or an empty folder")


def _acquire(path: Path) -> FileLock:
    from filelock import FileLock, Timeout

    lock = FileLock(path / _LOCK, thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise RunError(f"{path} is being written by another process: wait for it to end, or stop it") from error
    except (OSError, NotImplementedError) as error:
        raise StorageError(
            f"{path / _LOCK} could not be locked: {error}; nothing was changed; choose a folder on a disk that this "
            "user may write and that knows file locks"
        ) from error
    return lock


def _read_head(path: Path) -> dict[str, Any]:
    file = path / "run.json"
    try:
        head = json.loads(file.read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise RunError(f"{path} holds no run (no run.json): give the folder of a run") from error
    except OSError as error:
        raise StorageError(f"{file} could not be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise RunError(f"{file} is damaged: not JSON: {error}; restore it from a backup") from error
    kinds = {
        "format": int,
        "id": str,
        "created": str,
        "status": str,
        "cause": str,
        "job": dict,
        "job_sha256": str,
        "facts": dict,
    }
    if not isinstance(head, dict):
        _damaged(file, f"it is a {type(head).__name__}, expected an object")
    for key, kind in kinds.items():
        if not isinstance(head.get(key), kind):
            _damaged(file, f"{key} = {head.get(key)!r}, expected a value of type {kind.__name__}")
    if head["format"] != FORMAT:
        raise RunError(
            f"{file} is of format {head['format']}, expected {FORMAT}: open it with the version that wrote it"
        )
    if head["job_sha256"] != _digest(head["job"]):
        _damaged(file, "its job was edited")
    return head


def _read_job(path: Path, head: Mapping[str, Any]) -> Job:
    try:
        recorded = config.from_mapping(head["job"], where=str(path / "run.json"))
        present = config.load(path / "job.yaml")
    except ConfigError as error:
        raise RunError(f"the job recorded in {path} can no longer be read: {error}") from error
    lines = config.difference(recorded, present)
    if lines:
        raise RunError(
            f"{path / 'job.yaml'} was edited since the run began: undo it, or begin a new run with another --out\n  "
            + "\n  ".join(lines)
        )
    return recorded


def _damaged(file: Path, reason: str) -> NoReturn:
    raise RunError(f"{file} is damaged: {reason}; restore it from a backup")


def _digest(tree: Json) -> str:
    return hashlib.sha256(json.dumps(tree, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _tree(job: Job) -> dict[str, Any]:
    """The job as plain values; a plug-in's options may hold what no file can."""
    try:
        return job.model_dump(mode="json")
    except ValueError as error:
        raise RunError(f"the job cannot be written to a file: {error}; give numbers, texts and lists only") from error


def _as_json(value: Mapping[str, Json], what: str) -> dict[str, Json]:
    """The value as it reads back, so that a tuple equals the list that it becomes."""
    try:
        plain = json.loads(json.dumps(dict(value), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise RunError(f"the run's {what} cannot be written as JSON: {error}; give numbers, texts and lists") from error
    return dict(plain)

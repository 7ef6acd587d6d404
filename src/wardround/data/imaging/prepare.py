"""From a hospital's folder to a site's folder: list, match labels, decode in parallel, judge, then write once.

Pictures are fitted in shards that lie in a private working folder beside the output, so that a run that was killed goes on
where it was. The output takes its name in one step at the end; until then nothing of it is there.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import shutil
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from wardround import __version__
from wardround.data.imaging import studies as sources
from wardround.data.imaging.fit import Fit
from wardround.data.imaging.labels import NO_FINDING, Labels, Row, read_labels
from wardround.data.imaging.limits import Limits
from wardround.data.imaging.picture import MODALITIES, Options
from wardround.data.imaging.preflight import (
    Checks,
    Finding,
    Verdict,
    examine,
    header_of,
    judge,
    read_study,
    tree_of,
    units_of,
    unlabelled,
)
from wardround.data.imaging.site_folder import Manifest, SiteFolder, is_prepared, write_folder
from wardround.data.imaging.studies import Source, Study
from wardround.errors import ConfigError, DataError, Refused, StorageError
from wardround.types import Json

T = TypeVar("T")
Made = TypeVar("Made")
Progress = Callable[[str, int, int], None]
"""Told of (what is done, how much of it, of how much)."""
_SHARD_BYTES, _SHARD_ROWS = 2**25, 128
_PROBED, _PROBED_HEADERS = 16, 512
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What to make of what.

    Attributes:
        source: a folder, a file, or an npz archive.
        out: the site's folder.
        site: the hospital's name in a federation.
        labels: the table of labels; None for an archive that brings them.
        label_by_folder: the folder of a file names its class, and there is no table.
        file, label, roles, classes, negative: as in `read_labels`.
        modality: what the pictures are: files whose header says another are passed over, and do not count as left out.
            None takes what a sample says of itself, and refuses a mixture.
        size: (height, width) or (depth, height, width); None takes the size that all of a sample have.
        channels: 1 or 3; None takes the sample's.
        dtype, how, window, spacing: as in `Fit`.
        options: how files are read; its modality is set here.
        smallest, looks, secondary: as in `Checks`.
        max_skipped: the share of studies that may be left out.
        deidentify: whether pixels are cleaned; headers are left behind in any case.
        rules: of de-identification, a YAML file; None for the defaults.
        held: where the hospital keeps pseudonyms; None for a folder beside `out`.
        title, licence: for the report and the model card.
    """

    source: Path
    out: Path
    site: str
    labels: Path | None = None
    label_by_folder: bool = False
    file: str | None = None
    label: tuple[str, ...] = ()
    roles: Mapping[str, str] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    negative: str = NO_FINDING
    modality: str | None = None
    size: tuple[int, ...] | None = None
    channels: int | None = None
    dtype: str = "uint8"
    how: str = "pad"
    window: tuple[float, float] | Literal["tags"] | None = None
    spacing: tuple[float, ...] | None = None
    options: Options = field(default_factory=Options)
    smallest: int = 16
    looks: bool = True
    secondary: bool = False
    max_skipped: float = 0.2
    deidentify: bool = True
    rules: Path | None = None
    held: Path | None = None
    title: str = ""
    licence: str = "not stated"

    @property
    def held_folder(self) -> Path:
        """Where pseudonyms are kept: never within what training reads."""
        return self.held or self.out.with_name(f"{self.out.name}.held")


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What a preparation came to.

    Attributes:
        tree: what the pre-flight found, as `preflight.tree_of`.
        verdict: the same, study by study.
        folder: the site's folder; None where it was only checked, or too much was left out.
        refusal: why there is no folder, "" where there is one or none was asked for.
        thumbnails: [H, W] or [H, W, 3] bytes of some studies, by number.
    """

    tree: dict[str, Json]
    verdict: Verdict
    folder: SiteFolder | None
    refusal: str
    thumbnails: Mapping[int, NDArray[np.uint8]]


def prepare(
    wanted: Wanted, *, check: bool = False, overwrite: bool = False, workers: int = 0,
    progress: Progress = lambda what, done, total: None,
) -> Prepared:  # fmt: skip
    """Check a source, and write a site's folder of it.

    Args:
        wanted: what to make of what.
        check: report only, and leave nothing behind.
        overwrite: replace a folder that is there.
        workers: processes that read and fit, of which one that crashes costs the study that it was at; 0 is this one,
            where nothing stands between a crash and the caller.
        progress: told of what is done.

    Raises:
        ConfigError: an option that makes no sense.
        DataError: no picture, no label, or nothing that can be used.
        Refused: `out` is there and is not to be replaced.
        StorageError: the disk is full, or not ours.
    """
    _check(wanted, check=check, overwrite=overwrite)
    with _working(wanted.out, keep=not check) as work:
        source = sources.open_source(
            wanted.source, work, volumes=wanted.size is not None and len(wanted.size) == 3, classes=wanted.classes,
            limits=wanted.options.limits, progress=lambda count: progress("listing", count, 0),
        )  # fmt: skip
        labels = _labels(wanted, source)
        beside = ("localiser",) if wanted.modality is None else ("localiser", "modality")
        wanted, fit = _settled(wanted, source, labels, workers)
        shards = Shards(work, wanted, fit, source, labels, beside)
        findings = shards.run(workers, progress)
        verdict = judge(source.studies, labels, findings)
        facts = {
            "site": wanted.site, "source": str(wanted.source), "modality": wanted.modality, "version": __version__,
            "ignored": dict(source.ignored), "deidentified": wanted.deidentify, "max_skipped": wanted.max_skipped,
        }  # fmt: skip
        tree = tree_of(verdict, labels, fit, facts, beside=beside)
        thumbnails = {number: shards.thumbnail(number) for number in _shown(verdict)}
        refusal = _refusal(wanted, verdict, tree, chosen="modality" in beside)
        folder = None
        if not check and not refusal:
            folder = _write(wanted, fit, labels, verdict, shards, tree, progress)
            shards.done = True
        return Prepared(tree=tree, verdict=verdict, folder=folder, refusal=refusal, thumbnails=thumbnails)


def _check(wanted: Wanted, *, check: bool, overwrite: bool) -> None:
    if wanted.modality is not None and wanted.modality not in MODALITIES:
        raise ConfigError(f"modality = {wanted.modality!r}: expected one of {', '.join(MODALITIES)}")
    if not 0 <= wanted.max_skipped <= 1:
        raise ConfigError(f"max_skipped = {wanted.max_skipped}: expected a share from 0 to 1")
    if wanted.size is not None and (len(wanted.size) not in (2, 3) or min(wanted.size) < 1):
        raise ConfigError(f"size = {wanted.size}: expected height x width, or depth x height x width")
    if wanted.site.strip() in ("", ".", "..") or any(letter in wanted.site for letter in "/\\\0\r\n"):
        raise ConfigError(f"site = {wanted.site!r}: expected a name without slashes")
    if wanted.labels is not None and wanted.label_by_folder:
        raise ConfigError("labels come from a table or from folders: give one of the two")
    if check:
        return
    if wanted.out.exists() and not overwrite and (not wanted.out.is_dir() or any(wanted.out.iterdir())):
        raise Refused(f"{wanted.out} is there: give another folder, or allow that it is replaced (--overwrite)")
    if wanted.out.exists() and overwrite and not is_prepared(wanted.out) and any(wanted.out.iterdir()):
        raise Refused(
            f"{wanted.out} holds something else than a prepared site, and is not replaced: give another folder"
        )
    held, out = wanted.held_folder.absolute(), wanted.out.absolute()
    if held == out or out in held.parents:
        raise Refused(f"{held} lies within the folder that training reads: keep pseudonyms elsewhere")


@contextlib.contextmanager
def _working(out: Path, *, keep: bool) -> Iterator[Path]:
    """A private folder; one that is kept is found again by the next run, until the output is whole."""
    if not keep:
        with tempfile.TemporaryDirectory(prefix="wardround-") as name:
            yield Path(name)
        return
    from filelock import FileLock, Timeout

    folder = out.with_name(f".{out.name}.work")
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with FileLock(folder / ".lock", timeout=0):
            try:
                yield folder
            finally:
                if not (folder / _PLAN).exists():  # nothing to go on from
                    shutil.rmtree(folder, ignore_errors=True)
    except Timeout as error:
        raise Refused(f"{out} is being prepared by another process: wait for it, or give another folder") from error
    except OSError as error:
        raise StorageError(
            f"{folder}: {error.strerror or error}: free space or choose another folder, then run again: it goes on"
        ) from error
    if is_prepared(out) and (folder / _DONE).exists():
        shutil.rmtree(folder, ignore_errors=True)


_DONE, _PLAN = "done", "plan"


def _labels(wanted: Wanted, source: Source) -> Labels:
    if wanted.labels is not None:
        names = [name for study in source.studies for name in (study.name, *study.aliases)]
        found = read_labels(
            wanted.labels, source.root, list(dict.fromkeys(names)), file=wanted.file, label=wanted.label,
            roles=wanted.roles, classes=wanted.classes, negative=wanted.negative,
        )  # fmt: skip
        return replace(found, rows={**found.rows, **_of_series(source, found)})
    if wanted.label_by_folder:
        found = sources.by_folder(source)
        if not wanted.classes:
            return found
        known = set(wanted.classes)
        rows = {
            name: row if set(row.labels) <= known else replace(row, problem=f"its folder {row.labels[0]} is no class")
            for name, row in found.rows.items()
        }
        return replace(found, rows=rows, classes=wanted.classes)
    if source.labels is not None:
        return source.labels
    raise ConfigError(
        "there are no labels: give a table (--labels), or let the folder of a file name its class (--labels-by-folder)"
    )


def _of_series(source: Source, labels: Labels) -> dict[str, Row]:
    """What the table says of series under any of their names."""
    rows = {}
    for study in source.studies:
        told = (
            {labels.rows[name] for name in (study.name, *study.aliases) if name in labels.rows}
            if study.aliases
            else set()
        )
        if len(told) == 1:
            rows[study.name] = told.pop()
        elif told:
            rows[study.name] = Row(problem="rows of the label table name it and differ")
    return rows


def _settled(wanted: Wanted, source: Source, labels: Labels, workers: int) -> tuple[Wanted, Fit]:
    """Modality, size and channels, of a sample where they are not given."""
    able = [study for study in source.studies if unlabelled(labels, study) is None]
    if not able:
        example = next(iter(labels.without_file), "")
        raise DataError(
            f"no picture of {wanted.source} has a usable label, and {len(labels.without_file)} rows of the table name none"
            + (f", such as {example!r}" if example else "")
            + ": name the column of files (--file), or the right source"
        )
    modality, size, channels = wanted.modality, wanted.size, wanted.channels
    if None in (modality, size, channels):
        told = _told(able, wanted.options.limits)
        if modality is None:
            modality = _usual(wanted, Counter(told.values()))
        options = replace(wanted.options, modality=modality)
        able = [able[number] for number, found in told.items() if found in (modality, None)] or able
        pictures = _sample(_spread(able, _PROBED), options, workers)
        if not pictures:
            raise DataError(
                f"none of {min(len(able), _PROBED)} files tried in {wanted.source} can be read as a picture"
            )
        modality = modality or Counter(picture.modality for picture in pictures).most_common(1)[0][0]
        own = [picture for picture in pictures if picture.modality == modality] or pictures
        sizes = Counter(picture.shape[1:] for picture in own)
        if size is None and len(sizes) > 1:
            raise ConfigError(_sizes(wanted, sizes))
        size = size or next(iter(sizes))
        channels = channels or (3 if any(picture.shape[0] >= 3 for picture in own) else 1)
    if wanted.spacing is not None and len(wanted.spacing) != len(size or ()):
        raise ConfigError(f"spacing = {wanted.spacing}: expected {len(size or ())} numbers, one an axis of the size")
    made = Fit(
        size=tuple(size or ()), channels=channels or 1, dtype=wanted.dtype, how=wanted.how,  # type: ignore[arg-type]
        window=wanted.window, spacing=wanted.spacing,
    )  # fmt: skip
    return replace(wanted, modality=modality, options=replace(wanted.options, modality=modality)), made


def _spread(studies: Sequence[Study], most: int) -> Sequence[Study]:
    """At most so many, from all parts of a list."""
    return studies[:: max(len(studies) // most, 1)][:most]


@dataclass(frozen=True)
class _Probe:
    """What a picture of a sample is: its modality, and [C, *spatial]."""

    modality: str
    shape: tuple[int, ...]


def _sample(studies: Sequence[Study], options: Options, workers: int) -> list[_Probe]:
    """What can be read of a sample; with workers in a process of its own, where one that ends it is passed over."""
    asked = {number: (study, options) for number, study in enumerate(studies)}
    if not workers:
        return [probe for one in asked.values() if (probe := _probe(one))]
    from loky.process_executor import TerminatedWorkerError

    found: list[_Probe | None] = []
    while asked:
        try:
            for number, probe in _in_processes(_probe, asked, 1):
                del asked[number]
                found.append(probe)
        except TerminatedWorkerError:
            del asked[min(asked)]  # one process takes them in order
    return [probe for probe in found if probe]


def _probe(asked: tuple[Study, Options]) -> _Probe | None:
    try:
        picture = read_study(*asked)
    except DataError:
        return None
    return _Probe(picture.modality, picture.pixels.shape)


def _told(studies: Sequence[Study], limits: Limits) -> dict[int, str | None]:
    """Number -> modality by the header, of a sample; None for files of formats that do not say."""
    told: dict[int, str | None] = {}
    for number in range(len(studies))[:: max(len(studies) // _PROBED_HEADERS, 1)][:_PROBED_HEADERS]:
        try:
            header = header_of(studies[number], limits)
        except DataError:
            continue
        if header is None or header.pixels:
            told[number] = None if header is None else header.modality
    return told


def _usual(wanted: Wanted, told: Counter[str | None]) -> str | None:
    """The modality of a sample; None where headers do not say.

    Raises:
        ConfigError: so many are of others that what is left would be too little.
    """
    if not told:
        return None
    usual, count = told.most_common(1)[0]
    if told.total() - count > wanted.max_skipped * told.total():
        each = ", ".join(f"{count:,} {name or 'files that do not say'}" for name, count in told.most_common())
        raise ConfigError(
            f"{wanted.source} mixes modalities ({each}), and a site holds one: choose it (--modality "
            f"{usual or 'PHOTO'}); the others are passed over, and can be sites of their own"
        )
    return usual


def _sizes(wanted: Wanted, sizes: Counter[tuple[int, ...]]) -> str:
    told = ", ".join(" x ".join(map(str, found)) for found, _ in sizes.most_common(5))
    if len({len(found) for found in sizes}) > 1:
        return (
            f"{wanted.source} holds volumes and flat pictures ({told}): give the size of those wanted, such as --size 224 "
            "or --size 32x128x128"
        )
    example = "224" if len(next(iter(sizes))) == 2 else "32x128x128"
    return f"pictures of {wanted.source} have different sizes ({told}): give the one wanted, such as --size {example}"


# ------------------------------------------------------------------------------------------------------------- shards


@dataclass(frozen=True)
class _Task:
    """What one call of a worker does."""

    file: str
    studies: tuple[Study, ...]
    options: Options
    checks: Checks
    fit: Fit
    rules: str | None
    held: str
    deidentify: bool
    beside: tuple[str, ...] = ()
    crashed: tuple[int, ...] = ()


class Shards:
    """The fitted pictures of a source in files of the working folder, made once."""

    def __init__(
        self, work: Path, wanted: Wanted, fit: Fit, source: Source, labels: Labels, beside: tuple[str, ...] = ()
    ) -> None:  # fmt: skip
        self._folder, self._fit, self._source = work, fit, source
        self._given: dict[int, Finding] = {}
        for number, study in enumerate(source.studies):
            if (finding := unlabelled(labels, study)) is not None:
                self._given[number] = finding
        self._numbers = [number for number in range(len(source.studies)) if number not in self._given]
        self._where = {number: place for place, number in enumerate(self._numbers)}
        row = math.prod(fit.shape) * np.dtype(fit.dtype).itemsize
        self._each = max(1, min(_SHARD_ROWS, _SHARD_BYTES // max(row, 1)))
        checks = Checks(
            modality=wanted.modality or "OT", smallest=wanted.smallest, looks=wanted.looks, secondary=wanted.secondary
        )
        rules = None if wanted.rules is None else str(wanted.rules.absolute())
        self._base = _Task(
            file="", studies=(), options=wanted.options, checks=checks, fit=fit, rules=rules,
            held=str(wanted.held_folder.absolute()), deidentify=wanted.deidentify, beside=beside,
        )  # fmt: skip
        self._most = wanted.max_skipped
        self._begin()

    @property
    def done(self) -> bool:
        """Whether the output was written."""
        return (self._folder / _DONE).exists()

    @done.setter
    def done(self, value: bool) -> None:
        (self._folder / _DONE).touch()

    def _begin(self) -> None:
        """Shards of another source or recipe are of no use."""
        rules = Path(self._base.rules).read_text(encoding="utf-8") if self._base.rules else ""
        digest = hashlib.sha256(repr((__version__, replace(self._base, held=""), rules, self._each)).encode())
        for number in self._numbers:
            study = self._source.studies[number]
            for file in study.files if study.index is None else (str(self._source.root),):
                digest.update(os.fsencode(f"{study.name}\0{file}\0{_stamp(file)}\n"))
        plan = self._folder / _PLAN
        key = digest.hexdigest()
        if plan.exists() and plan.read_text(encoding="ascii") == key:
            return
        for old in self._folder.glob("shard-*"):
            old.unlink()
        plan.write_text(key, encoding="ascii")

    def _path(self, shard: int) -> Path:
        return self._folder / f"shard-{shard:06d}"

    def _tasks(self) -> list[_Task]:
        tasks = []
        for shard, start in enumerate(range(0, len(self._numbers), self._each)):
            chosen = tuple(self._source.studies[n] for n in self._numbers[start : start + self._each])
            tasks.append(replace(self._base, file=str(self._path(shard)), studies=chosen))
        return tasks

    def run(self, workers: int, progress: Progress) -> list[Finding]:
        """Make what is not there yet; the findings of all studies.

        It stops early once so much is left out that the cap cannot be kept any more.
        """
        tasks = self._tasks()
        made = {i for i, task in enumerate(tasks) if Path(f"{task.file}.json").exists()}
        done, total = sum(len(tasks[i].studies) for i in made), len(self._numbers)
        left_out = len(self._given) + sum(
            _left_out(_findings(Path(f"{tasks[i].file}.json")), self._base.beside) for i in made
        )
        progress("reading", done, total)
        for index, missed in self._made({i: task for i, task in enumerate(tasks) if i not in made}, workers):
            made.add(index)
            done += len(tasks[index].studies)
            left_out += missed
            progress("reading", done, total)
            if left_out > self._most * len(self._source.studies) + 1e-9 and len(made) < len(tasks):
                break  # what is left cannot mend it
        findings: list[Finding] = [
            Finding(reason="unreadable", detail="not looked at: too much else was left out")
        ] * len(self._source.studies)
        for number, given in self._given.items():
            findings[number] = given
        for index in sorted(made):
            start = index * self._each
            for number, found in zip(
                self._numbers[start : start + self._each], _findings(Path(f"{tasks[index].file}.json")), strict=True
            ):
                findings[number] = found
        return findings

    def _made(self, tasks: Mapping[int, _Task], workers: int) -> Iterator[tuple[int, int]]:
        """Each task's number and how many of its studies are left out, as they are done.

        Where a process dies, the shards that were being made are made again one at a time: the study at which it dies then is
        the one, and is passed over.
        """
        if not workers:
            for index, task in tasks.items():
                yield index, _fit_shard(task)
            return
        from loky.process_executor import TerminatedWorkerError

        left = dict(tasks)
        for task in left.values():
            _mark(task).unlink(missing_ok=True)  # of a run that was killed
        while left:
            begun, suspects = len(left), [index for index, task in left.items() if _mark(task).exists()]
            chosen = {index: left[index] for index in suspects[:1] or left}
            try:
                for index, missed in _in_processes(_fit_shard, chosen, 1 if suspects else workers):
                    del left[index]
                    yield index, missed
            except TerminatedWorkerError as error:
                marked = [index for index in chosen if index in left and _mark(left[index]).exists()]
                if suspects and marked:
                    task = left[marked[0]]
                    crashed = int(_mark(task).read_text(encoding="ascii"))
                    left[marked[0]] = replace(task, crashed=(*task.crashed, crashed))
                elif not marked and len(left) == begun:
                    raise StorageError(
                        "a process died before it read anything: free memory, or start fewer of them (--workers 1), then run "
                        "again: it goes on"
                    ) from error

    def rows(self, numbers: Sequence[int], findings: Sequence[Finding]) -> Iterator[NDArray[Any]]:
        """The arrays of some studies, in ascending order, a shard at a time."""
        opened, array = -1, np.empty(0)
        for number in numbers:
            shard = self._where[number] // self._each
            if shard != opened:
                opened, array = shard, np.load(f"{self._path(shard)}.npy", mmap_mode="r", allow_pickle=False)
            yield array[findings[number].row]

    def thumbnail(self, number: int) -> NDArray[np.uint8]:
        """A picture or the middle slice of a volume, as bytes [H, W] or [H, W, 3]."""
        place = self._where[number]
        file = self._path(place // self._each)
        row = _findings(Path(f"{file}.json"))[place % self._each].row
        array = np.load(f"{file}.npy", mmap_mode="r", allow_pickle=False)[row]
        flat = array[:, array.shape[1] // 2] if array.ndim == 4 else array
        values = np.asarray(flat, dtype=np.float32) * (255.0 / self._fit.scale[1])
        made = np.clip(np.rint(values), 0, 255).astype(np.uint8)
        return made[0] if len(made) == 1 else np.ascontiguousarray(np.moveaxis(made, 0, -1))


def _stamp(file: str) -> str:
    """Size and time of a file; nothing for a link that leads nowhere."""
    try:
        found = os.stat(file)
    except OSError:
        return ""
    return f"{found.st_size}\0{found.st_mtime_ns}"


def _mark(task: _Task) -> Path:
    """The file that says at which of its studies a task is."""
    return Path(f"{task.file}.at")


def _in_processes(do: Callable[[T], Made], tasks: Mapping[int, T], workers: int) -> Iterator[tuple[int, Made]]:
    """Tasks done by other processes, in the order in which they end.

    Raises:
        TerminatedWorkerError: a process died.
    """
    from concurrent.futures import FIRST_COMPLETED, wait

    from loky import ProcessPoolExecutor

    pool = ProcessPoolExecutor(
        max_workers=min(workers, len(tasks)), env=_ENVIRONMENT, initializer=_begin_worker, initargs=(os.getpid(),)
    )
    try:
        queue = iter(list(tasks.items()))
        waiting = {pool.submit(do, task): index for index, task in islice(queue, 2 * workers)}
        while waiting:
            finished, _ = wait(waiting, return_when=FIRST_COMPLETED)
            for future in finished:
                index, missed = waiting.pop(future), future.result()
                yield index, missed
                waiting |= {pool.submit(do, task): index for index, task in islice(queue, 1)}
    except BaseException:
        pool.shutdown(kill_workers=True)
        raise
    pool.shutdown()


def _begin_worker(parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """End this process soon after its parent was killed: nothing goes on in a folder that another run may take over."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _fit_shard(task: _Task) -> int:
    """Fit the studies of a task into its file, and then write the findings, which vouch for it. Returns how many failed."""
    policy = _policy(task)
    arrays: list[NDArray[Any]] = []
    findings = []
    for at, study in enumerate(task.studies):
        if at in task.crashed:
            findings.append(Finding(reason="crashed", detail="the process that read it died"))
            continue
        _mark(task).write_text(str(at), encoding="ascii")
        array, finding = examine(study, task.options, task.checks, task.fit, policy)
        if array is not None:
            finding = replace(finding, row=len(arrays))
            arrays.append(array)
        findings.append(finding)
    whole = np.stack(arrays) if arrays else np.empty((0, *task.fit.shape), dtype=task.fit.dtype)
    np.save(f"{task.file}.part.npy", whole)
    os.replace(f"{task.file}.part.npy", f"{task.file}.npy")
    temporary = Path(f"{task.file}.part")
    temporary.write_text(json.dumps([asdict(finding) for finding in findings]), encoding="utf-8")
    os.replace(temporary, f"{task.file}.json")
    _mark(task).unlink(missing_ok=True)
    return _left_out(findings, task.beside)


def _policy(task: _Task) -> Any | None:
    if not task.deidentify:
        return None
    from wardround.data.imaging.deid.held import Held
    from wardround.data.imaging.deid.policy import Policy, Rules, read_rules

    rules = Rules() if task.rules is None else read_rules(Path(task.rules))
    # pixels need no secret: pseudonyms are given at the end, by one process
    return Policy(rules=rules, held=Held(folder=Path(task.held), secret=b""))


def _findings(file: Path) -> list[Finding]:
    found = []
    for tree in json.loads(file.read_text(encoding="utf-8")):
        for name in ("size", "histogram", "warnings"):
            tree[name] = tuple(tree[name])
        found.append(Finding(**tree))
    return found


def _left_out(findings: Sequence[Finding], beside: Sequence[str]) -> int:
    return sum(finding.reason not in ("", *beside) for finding in findings)


# ------------------------------------------------------------------------------------------------------------ the end


def _refusal(wanted: Wanted, verdict: Verdict, tree: Mapping[str, Json], *, chosen: bool) -> str:
    if not verdict.used:
        return f"nothing of {wanted.source} can be used: see the reasons"
    share = float(tree["skipped_share"])
    others = verdict.skipped.get("modality", 0)
    if share > wanted.max_skipped + 1e-9 and not chosen and others > wanted.max_skipped * tree["studies"]:
        each = ", ".join(f"{count:,} {name}" for name, count in tree["modalities"].items())
        return (
            f"{share:.0%} of the studies would be left out, most for their modality ({each}): a site holds one: choose it "
            f"(--modality {wanted.modality}); the others are passed over, and can be sites of their own"
        )
    if share > wanted.max_skipped + 1e-9:
        return (
            f"{share:.0%} of the studies would be left out, and max_skipped is {wanted.max_skipped:.0%}: is it the right "
            "folder, table and modality? See the reasons, or raise it (--max-skipped)"
        )
    return ""


def _shown(verdict: Verdict, most: int = 32, left_out: int = 12) -> list[int]:
    """Numbers of studies to show: some of each class, and some of what looks wrong."""
    by_class: dict[tuple[str, ...], list[int]] = {}
    for number in verdict.used:
        row = verdict.rows[number]
        by_class.setdefault(row.labels if row else (), []).append(number)
    each = max(most // max(len(by_class), 1), 1)
    chosen = [n for own in by_class.values() for n in own[:: max(len(own) // each, 1)][:each]]
    odd = [n for n, found in enumerate(verdict.findings) if found.reason and found.row >= 0]
    blanked = [n for n in verdict.used if verdict.findings[n].blanked]
    return list(dict.fromkeys(blanked[:left_out] + chosen[:most])) + odd[:left_out]


def _write(
    wanted: Wanted, fit: Fit, labels: Labels, verdict: Verdict, shards: Shards, tree: Mapping[str, Json], progress: Progress
) -> SiteFolder:  # fmt: skip
    from wardround.data.imaging.deid.held import Held

    used = verdict.used
    held = Held.open(wanted.held_folder)
    own = {"patient": [verdict.patient(n) for n in used], "group": [verdict.group(n) for n in used]}
    known = {kind: held.pseudonyms((one for one in found if one), kind) for kind, found in own.items()}
    units = units_of(**own)
    # whose record number nobody told goes by the pixels of a picture, so that a second run gives the same pseudonym
    digests = [verdict.findings[used[unit]].digest for unit in units]
    nameless = held.pseudonyms(
        (d for d, patient in zip(digests, own["patient"], strict=True) if not patient), "picture"
    )
    records = []
    for number, digest, patient, group in zip(used, digests, own["patient"], own["group"], strict=True):
        row, found = verdict.rows[number], verdict.findings[number]
        records.append(
            {
                "patient": known["patient"][patient.strip()] if patient else nameless[digest],
                "group": known["group"][group.strip()] if group else "",
                "label": "|".join(row.labels) if row else "",
                "split": row.split if row else "",
                "age": (row.age if row else "") or found.age,
                "sex": (row.sex if row else "") or found.sex,
            }
        )

    def rows() -> Iterator[NDArray[Any]]:
        for done, array in enumerate(shards.rows(used, verdict.findings)):
            if done % 256 == 0:
                progress("writing", done, len(used))
            yield array
        progress("writing", len(used), len(used))

    manifest = Manifest(
        site=wanted.site, modality=wanted.modality or "OT", shape=fit.shape, dtype=fit.dtype, scale=fit.scale,
        classes=labels.classes, multilabel=labels.multilabel, rows=len(used), skipped=verdict.skipped,
        recipe={
            "version": __version__, **asdict(fit), "orientation": wanted.options.orientation,
            "frames": wanted.options.frames, "volume": wanted.options.volume,
            "crop_ultrasound": wanted.options.crop_ultrasound,
        },
        deidentification={
            "pixels": wanted.deidentify, "blanked": tree["blanked"], "done": tree["cleaned"], "warnings": tree["warnings"],
        },
        title=wanted.title, source=f"prepared at {wanted.site}", licence=wanted.licence,
    )  # fmt: skip
    return write_folder(wanted.out, manifest, rows(), records)

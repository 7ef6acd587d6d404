"""What lies in a source, as things that become one row each: files, series of DICOM files, rows of an npz archive."""

from __future__ import annotations

import os
import shutil
import zipfile
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wardround.data.imaging.labels import Labels, Row
from wardround.data.imaging.limits import Limits
from wardround.errors import DataError

IGNORED = frozenset(
    f".{name}"
    for name in (
        *("csv", "tsv", "txt", "md", "json", "yaml", "yml", "xml", "html", "htm", "pdf", "xls", "xlsx", "doc", "docx"),
        *("parquet", "log", "py", "sh", "ini", "db", "bval", "bvec", "sha256", "md5", "exe", "dll", "inf", "lnk"),
    )
)
"""Suffixes of what lies beside pictures and is none."""
_PARTS = {"train": "train", "val": "validation", "test": "test"}
_MOST_UNPACKED = 2**38


@dataclass(frozen=True, kw_only=True)
class Study:
    """What becomes one row.

    Attributes:
        name: its path below the source, with forward slashes; of a series, that of its first file.
        files: absolute paths: one, or all slices of a series.
        index: the row within an array file; None for any other file.
        aliases: what else a label table may call it: the other files of a series, its UID and that of its study.
    """

    name: str
    files: tuple[str, ...]
    index: int | None = None
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Source:
    """What was found.

    Attributes:
        root: the folder that names start at.
        studies: sorted by name.
        ignored: suffix -> files that are no pictures.
        labels: of an archive that brings its own.
    """

    root: Path
    studies: tuple[Study, ...]
    ignored: Counter[str] = field(default_factory=Counter)
    labels: Labels | None = None


def open_source(
    path: Path, work: Path, *, volumes: bool, classes: Sequence[str] = (), limits: Limits | None = None,
    progress: Callable[[int], None] = lambda n: None,
) -> Source:  # fmt: skip
    """List what a source holds, without decoding anything.

    A DICOMDIR is not followed: the files that it names lie below it, and it might name others.

    Args:
        path: a folder, one file, or an npz archive of `images` (`train_images`, ...) and perhaps `labels`.
        work: where arrays of an archive are unpacked to.
        volumes: whether DICOM files of one series are slices of one volume.
        classes: names of an archive's numbers.
        limits: what is refused unread; the defaults where None.
        progress: told of the number of files listed.

    Raises:
        DataError: nothing there, or an archive that is damaged.
    """
    if not path.exists():
        raise DataError(f"there is no {path}: give a folder of pictures, or an npz archive")
    if path.is_file() and path.suffix.lower() == ".npz":
        return _archive(path, work, classes)
    if path.is_file():
        path = path.parent if path.name.upper() == "DICOMDIR" else path
    if path.is_file():
        return Source(root=path.parent, studies=(Study(name=path.name, files=(str(path.absolute()),)),))
    files, ignored = _walk(path, progress)
    if not files:
        raise DataError(
            f"{path} holds no picture: give the folder of DICOM, NIfTI, PNG, JPEG or TIFF files, or an npz archive"
        )
    if volumes:
        return Source(root=path, studies=tuple(_series(path, files, limits or Limits())), ignored=ignored)
    studies = [Study(name=_printable(name), files=(str((path / name).absolute()),)) for name in files]
    return Source(root=path, studies=tuple(studies), ignored=ignored)


def by_folder(source: Source) -> Labels:
    """Labels by the folder that a file lies in: `glioma/1.jpg` is a glioma.

    Raises:
        DataError: files lie in the source itself.
    """
    rows = {}
    for study in source.studies:
        folder = study.name.rsplit("/", 2)[-2] if "/" in study.name else ""
        problem = "" if folder else "it lies in no folder that would name its class"
        rows[study.name] = Row(labels=(folder,) if folder else (), problem=problem)
    classes = tuple(sorted({name for row in rows.values() for name in row.labels}))
    if len(classes) < 2:
        raise DataError(f"{source.root}: labels by folder need two folders or more, and there are {len(classes)}")
    return Labels(rows=rows, classes=classes, multilabel=False, columns={"label": "the folder's name"})


def _walk(root: Path, progress: Callable[[int], None]) -> tuple[list[str], Counter[str]]:
    files: list[str] = []
    ignored: Counter[str] = Counter()
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
        for name in sorted(names):
            suffix = Path(name).suffix.lower()
            if (
                name.startswith(".")
                or suffix in IGNORED
                or name.upper() in ("DICOMDIR", "README", "LICENSE", "THUMBS.DB")
            ):
                ignored[suffix or name] += 1
                continue
            files.append(Path(folder, name).relative_to(root).as_posix())
        progress(len(files))
    return sorted(files), ignored


def _series(root: Path, files: Sequence[str], limits: Limits) -> list[Study]:
    """DICOM files by series, each patient's and localisers apart; any other file is a study of its own.

    So is one that cannot be read: who reads it later finds out why.
    """
    series: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for name in files:
        try:
            key = _series_of(root / name, limits)
        except DataError:
            key = ()
        series[key or ("", name)].append(name)
    studies = [
        Study(
            name=_printable(min(names)), files=tuple(str((root / name).absolute()) for name in names),
            aliases=tuple(one for one in (*map(_printable, sorted(names)[1:]), *(key[:2] if key[0] else ())) if one),
        )
        for key, names in series.items()
    ]  # fmt: skip
    return sorted(studies, key=lambda study: study.name)


def _series_of(path: Path, limits: Limits) -> tuple[str, ...]:
    """SeriesInstanceUID, StudyInstanceUID, patient, whether a localiser; () for what is no DICOM file or of no series."""
    from wardround.data.imaging.boundary import parsing
    from wardround.data.imaging.decode import format_of
    from wardround.data.imaging.dicom import is_localiser
    from wardround.data.imaging.dicom_file import open_dicom

    if format_of(path, limits) != "dicom":
        return ()
    keys = ("SeriesInstanceUID", "StudyInstanceUID", "PatientID")
    head = open_dicom(path, limits, pixels=False, tags=(*keys, "ImageType"))
    with parsing(path, "DICOM", quote=False):
        found = tuple(str(head.get(key) or "") for key in keys)
        return (*found, str(is_localiser(head))) if found[0] else ()


def _printable(name: str) -> str:
    """A file's name as text: bytes that are no UTF-8 are read as Latin-1, as old archives wrote them."""
    raw = os.fsencode(name)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def _archive(path: Path, work: Path, classes: Sequence[str]) -> Source:
    """The layout of MedMNIST: `train_images` [n, H, W(, 3)] or [n, D, H, W], `train_labels` [n, 1] or [n, L], and so on."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            prefixes = [p for p in ("train_", "val_", "test_", "") if f"{p}images" in names]
            if not prefixes:
                raise DataError(
                    f"{path} holds the arrays {', '.join(sorted(names)) or 'none'}: expected images, or train_images, "
                    "val_images and test_images"
                )
            parts = []
            for prefix in prefixes:
                labels = names.get(f"{prefix}labels")
                parts.append((
                    prefix.removesuffix("_"), _unpacked(path, archive, names[f"{prefix}images"], work),
                    None if labels is None else np.load(_unpacked(path, archive, labels, work), allow_pickle=False),
                ))  # fmt: skip
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} cannot be read: {error}: is it whole?") from error
    return _from_parts(path, parts, classes)


def _from_parts(
    path: Path, parts: Sequence[tuple[str, Path, NDArray[Any] | None]], classes: Sequence[str]
) -> Source:  # fmt: skip
    studies, rows = [], {}
    labelled = all(labels is not None for _, _, labels in parts)
    wide = labelled and any(labels is not None and labels.ndim == 2 and labels.shape[1] > 1 for _, _, labels in parts)
    highest = max((int(labels.max(initial=0)) for _, _, labels in parts if labels is not None), default=0)
    width = next((labels.shape[1] for _, _, labels in parts if labels is not None and wide), highest + 1)
    names = tuple(classes) or tuple(str(number) for number in range(width))
    for prefix, file, labels in parts:
        count = len(np.load(file, mmap_mode="r", allow_pickle=False))
        if labels is not None and (len(labels) != count or labels.dtype.kind not in "bui"):
            raise DataError(
                f"{path}: {len(labels)} labels of {labels.dtype} for {count} images: expected a whole number each"
            )
        if labels is not None and labels.size and (labels.min() < 0 or labels.max() >= (2 if wide else len(names))):
            raise DataError(f"{path}: labels lie in {labels.min()}..{labels.max()}, and there are {len(names)} classes")
        digits = len(str(count))
        for index in range(count):
            name = f"{prefix or 'images'}/{index:0{digits}d}"
            studies.append(Study(name=name, files=(str(file.absolute()),), index=index))
            if labels is not None:
                own = np.flatnonzero(labels[index]) if wide else labels[index].reshape(-1)[:1]
                rows[name] = Row(labels=tuple(names[int(i)] for i in own), split=_PARTS.get(prefix, ""))
    found = Labels(rows=rows, classes=names, multilabel=bool(wide), columns={"label": "labels"}) if labelled else None
    return Source(root=path, studies=tuple(studies), labels=found)


def _unpacked(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo, work: Path) -> Path:
    """One array as a file of its own, which can be mapped; streamed, so that its size in memory does not matter."""
    from numpy.lib import format as npy

    if member.file_size > _MOST_UNPACKED or member.file_size > shutil.disk_usage(work).free:
        raise DataError(
            f"{path}: its array {member.filename} is {member.file_size:,} bytes, more than there is room for"
        )
    file = work / f"{Path(member.filename).stem}.npy"
    with archive.open(member) as packed:
        version = npy.read_magic(packed)
        shape, fortran, dtype = (npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0)(packed)
    if dtype.hasobject or (fortran and len(shape) > 1) or dtype.kind not in "buif":
        raise DataError(f"{path}: its array {member.filename} is {dtype} {shape}: expected numbers in C order")
    with archive.open(member) as packed, file.open("wb") as plain:
        shutil.copyfileobj(packed, plain, 2**20)
    return file

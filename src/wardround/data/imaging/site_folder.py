"""A prepared site: one array of pictures, their records, and a manifest that vouches for both.

    images.npy      [n, C, *spatial], C-contiguous, uint8, float16 or float32; it is mapped, not read
    records.csv     a line a picture: row, patient, group, label, split, age, sex
    manifest.json   what was done, classes, value range, counts, and the SHA-256 of the other two

Patients and groups are random pseudonyms. Labels are names; several that hold at once are written `A|B`.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wardround.errors import DataError, StorageError
from wardround.types import Json

IMAGES, RECORDS, MANIFEST = "images.npy", "records.csv", "manifest.json"
FORMAT = 1
COLUMNS = ("row", "patient", "group", "label", "split", "age", "sex")
DTYPES = ("uint8", "float16", "float32")


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a prepared folder says of itself.

    Attributes:
        site: the hospital's name in a federation.
        modality: of all its pictures.
        shape: of one picture, [C, *spatial].
        dtype: of `images.npy`.
        scale: the stored numbers that mean black and white: training sees 0 and 1.
        classes: names in label order.
        multilabel: whether several may hold at once.
        rows: pictures.
        skipped: reason -> pictures left out.
        recipe: how pixels were made, and by which version.
        deidentification: what was done, in counts.
        hashes: file -> SHA-256.
        title, source, licence: for the report and the model card.
    """

    site: str
    modality: str
    shape: tuple[int, ...]
    dtype: str
    scale: tuple[float, float]
    classes: tuple[str, ...]
    multilabel: bool
    rows: int
    skipped: Mapping[str, int] = field(default_factory=dict)
    recipe: Mapping[str, Json] = field(default_factory=dict)
    deidentification: Mapping[str, Json] = field(default_factory=dict)
    hashes: Mapping[str, str] = field(default_factory=dict)
    title: str = ""
    source: str = ""
    licence: str = "not stated"


@dataclass(frozen=True, kw_only=True)
class SiteFolder:
    """A prepared folder that was opened and whose parts fit together."""

    path: Path
    manifest: Manifest

    def images(self) -> NDArray[Any]:
        """The pictures [n, C, *spatial], a read-only memory map.

        Raises:
            DataError: the file is absent, or is not what the manifest says.
        """
        file, said = self.path / IMAGES, self.manifest
        try:
            found: NDArray[Any] = np.load(file, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise DataError(f"{file} cannot be read: {error}: prepare the site again") from error
        if found.shape != (said.rows, *said.shape) or found.dtype.name != said.dtype or not found.flags.c_contiguous:
            raise DataError(
                f"{file} holds {found.dtype.name} {found.shape}, and its manifest says {said.dtype} "
                f"{(said.rows, *said.shape)}: prepare the site again"
            )
        return found

    @cached_property
    def records(self) -> dict[str, list[str]]:
        """Column -> cells, in the order of the pictures.

        Raises:
            DataError: the file is absent, or is not what the manifest says.
        """
        file = self.path / RECORDS
        try:
            with file.open(encoding="utf-8", newline="") as lines:
                rows = list(csv.DictReader(lines))
        except (OSError, ValueError, csv.Error) as error:
            raise DataError(f"{file} cannot be read: {error}: prepare the site again") from error
        columns = {name: [row.get(name) or "" for row in rows] for name in COLUMNS}
        if len(rows) != self.manifest.rows or columns["row"] != [str(i) for i in range(len(rows))]:
            raise DataError(
                f"{file} has {len(rows)} rows, and there are {self.manifest.rows} pictures: prepare the site again"
            )
        return columns

    def verify(self) -> None:
        """Compare both files with their hashes.

        Raises:
            DataError: one was changed since it was made.
        """
        for name, said in self.manifest.hashes.items():
            try:
                with (self.path / name).open("rb") as file:
                    found = hashlib.file_digest(file, "sha256").hexdigest()
            except OSError as error:
                raise DataError(f"{self.path / name} cannot be read: {error}: prepare the site again") from error
            if found != said:
                raise DataError(f"{self.path / name} was changed since it was made: prepare the site again")


def is_prepared(path: Path) -> bool:
    """Whether a folder is a prepared site."""
    return (path / MANIFEST).is_file()


def open_folder(path: Path) -> SiteFolder:
    """A prepared folder; its pictures are not read.

    Raises:
        DataError: it is none, or of another version.
    """
    file = path / MANIFEST
    try:
        tree = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(
            f"{path} is no prepared site, it has no {MANIFEST}: make it with `wardround data prepare`"
        ) from error
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read: {error}: prepare the site again") from error
    if not isinstance(tree, dict) or tree.get("format") != FORMAT:
        raise DataError(f"{file} is not of format {FORMAT}, the one this version reads: prepare the site again")
    try:
        values = {one.name: tree[one.name] for one in fields(Manifest)}
        for name in ("shape", "scale", "classes"):
            values[name] = tuple(values[name])
        manifest = Manifest(**values)
        sound = manifest.dtype in DTYPES and len(manifest.scale) == 2 and manifest.scale[0] < manifest.scale[1]
    except (KeyError, TypeError) as error:
        raise DataError(f"{file} is damaged ({error}): prepare the site again") from error
    if not sound:
        raise DataError(
            f"{file}: dtype {manifest.dtype!r} or scale {manifest.scale} makes no sense: prepare the site again"
        )
    return SiteFolder(path=path, manifest=manifest)


def write_folder(
    path: Path, manifest: Manifest, rows: Iterable[NDArray[Any]], records: Sequence[Mapping[str, str]],
) -> SiteFolder:  # fmt: skip
    """Write a folder whole: it takes its name in one step, when everything is on the disk.

    Args:
        path: the folder; one that is there is replaced.
        manifest: without hashes, which are made here.
        rows: the pictures in order, one at a time or in blocks [m, C, *spatial].
        records: cells of `COLUMNS` but `row`, a mapping a picture.

    Raises:
        StorageError: the disk is full, or not ours.
        ValueError: other pictures than the manifest says.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        if partial.exists():
            shutil.rmtree(partial)
        partial.mkdir(parents=True)
        hashes = {
            IMAGES: _write_images(partial / IMAGES, manifest, rows),
            RECORDS: _write(partial / RECORDS, _as_csv(records).encode()),
        }
        tree = {"format": FORMAT, **asdict(manifest), "hashes": hashes}
        _write(partial / MANIFEST, (json.dumps(tree, indent=2, allow_nan=False, ensure_ascii=False) + "\n").encode())
        old = path.with_name(f".{path.name}.old")
        if path.exists():
            if old.exists():
                shutil.rmtree(old)
            os.replace(path, old)
        os.replace(partial, path)
        if old.exists():
            shutil.rmtree(old)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise StorageError(
            f"{path} could not be written: {error.strerror or error}; nothing half-written is left; free space or choose "
            "another folder, then try again"
        ) from error
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return open_folder(path)


def _write_images(file: Path, manifest: Manifest, rows: Iterable[NDArray[Any]]) -> str:
    header = io.BytesIO()
    whole = (manifest.rows, *manifest.shape)
    np.lib.format.write_array_header_1_0(
        header, {"descr": np.dtype(manifest.dtype).str, "fortran_order": False, "shape": whole}
    )
    digest, written = hashlib.sha256(header.getvalue()), 0
    with file.open("wb") as stream:
        stream.write(header.getvalue())
        for row in rows:
            block = row[None] if row.ndim == len(manifest.shape) else row
            if block.shape[1:] != manifest.shape or block.dtype.name != manifest.dtype:
                raise ValueError(
                    f"a picture is {block.dtype} {block.shape[1:]}, expected {manifest.dtype} {manifest.shape}"
                )
            data = np.ascontiguousarray(block).data.cast("B") if block.size else b""
            digest.update(data)
            stream.write(data)
            written += len(block)
        if written != manifest.rows:
            raise ValueError(f"{written} pictures, and the manifest says {manifest.rows}")
        stream.flush()
        os.fsync(stream.fileno())
    return digest.hexdigest()


def _as_csv(records: Sequence[Mapping[str, str]]) -> str:
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    table.writeheader()
    for number, record in enumerate(records):
        table.writerow({**record, "row": number})
    return text.getvalue()


def _write(file: Path, data: bytes) -> str:
    with file.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    return hashlib.sha256(data).hexdigest()

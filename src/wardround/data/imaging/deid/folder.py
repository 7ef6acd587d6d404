"""A folder of DICOM files, photographs and tables made clean, with a report a file.

Files are named anew, for their names may tell who is on them. Which source became what lies with the hospital's secrets.
"""

from __future__ import annotations

import csv
import io
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wardround.data.imaging.deid import burned_in, face
from wardround.data.imaging.deid.dataset import clean
from wardround.data.imaging.deid.identifiers import harvest
from wardround.data.imaging.deid.policy import Policy
from wardround.data.imaging.deid.report import Action, Report
from wardround.data.imaging.deid.tables import clean_table
from wardround.data.imaging.dicom_file import check_pixels, open_dicom
from wardround.data.imaging.limits import Limits
from wardround.errors import ConfigError, DataError, Refused, StorageError, WardroundError
from wardround.store import atomic
from wardround.types import Json

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_TABLES = (".csv", ".tsv", ".arff", ".parquet", ".pq")
_PHOTOS = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
SUMMARY, REPORTS = "summary.json", "reports"
SOURCES = "sources.csv"


@dataclass(kw_only=True)
class Result:
    """What became of a folder.

    Attributes:
        written: source, target and report of each file, paths relative to their folders.
        left: source and reason of each file that was not written.
        identifiers: values of the sources that name persons, places and records, with their UIDs.
    """

    written: list[tuple[str, str, Report]] = field(default_factory=list)
    left: list[tuple[str, str]] = field(default_factory=list)
    identifiers: set[str] = field(default_factory=set)

    def summary(self) -> dict[str, Json]:
        """Numbers, without names of sources."""
        counts: Counter[str] = Counter()
        for _, _, report in self.written:
            counts.update(report.counts())
        return {
            "written": len(self.written),
            "left out": len(self.left),
            "actions": dict(sorted(counts.items())),
            "warnings": dict(Counter(text for _, _, report in self.written for text in report.warnings)),
        }


def clean_folder(
    source: Path,
    out: Path,
    policy: Policy,
    *,
    limits: Limits | None = None,
    progress: Callable[[str], None] = lambda name: None,
) -> Result:
    """Write clean copies of what lies in `source` (a folder or one file) into `out`, which must be new or empty.

    DICOM images become `patient/series/instance.dcm`, photographs PNG, tables CSV. A file that cannot be cleaned is left
    out with its reason, and the others go on. Head series of CT and MR are defaced together.

    Raises:
        DataError: there is no such source.
        ConfigError: `out` is not empty, or the secrets lie in it.
        StorageError: `out` cannot be written.
    """
    if not source.exists():
        raise DataError(f"{source}: there is no such file or folder")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} is not an empty folder: give a new one, so that nothing uncleaned lies in it")
    if policy.held.folder.resolve().is_relative_to(out.resolve()):
        raise ConfigError(f"the secrets {policy.held.folder} lie in {out}: keep them where cleaned files do not go")
    atomic.make_folder(out)
    atomic.make_folder(out / REPORTS)
    names = [source] if source.is_file() else sorted(p for p in source.rglob("*") if p.is_file() and not p.is_symlink())
    result = Result()
    heads: dict[str, list[str]] = {}
    for path in names:
        name = path.name if source.is_file() else str(path.relative_to(source))
        progress(name)
        try:
            target, report = _one(path, out, policy, limits or Limits(), result, heads)
        except StorageError:
            raise
        except (WardroundError, OSError) as error:
            result.left.append((name, str(error).removeprefix(f"{path} ").removeprefix(f"{path}: ")))
            continue
        result.written.append((name, target, report))
    _deface(out, heads, result)
    for _, target, report in result.written:
        atomic.write_json(out / REPORTS / f"{target.replace('/', '-')}.json", {"file": target, **report.to_json()})
    atomic.write_json(out / SUMMARY, result.summary())
    _remember(policy, result)
    return result


def _one(
    path: Path, out: Path, policy: Policy, limits: Limits, result: Result, heads: dict[str, list[str]]
) -> tuple[str, Report]:
    suffix = next((s for s in reversed([s.lower() for s in path.suffixes]) if s != ".gz"), "")
    if suffix in _TABLES:
        target = f"table-{policy.held.uid(str(path.resolve()))[-12:]}.csv"
        return target, clean_table(path, out / target, policy)
    if suffix in _PHOTOS:
        return _photo(path, out, policy, limits)
    return _dicom(path, out, policy, limits, result, heads)


def _dicom(
    path: Path, out: Path, policy: Policy, limits: Limits, result: Result, heads: dict[str, list[str]]
) -> tuple[str, Report]:
    with warnings.catch_warnings():
        # values that break a rule of their type are common, and are judged by what they are
        warnings.simplefilter("ignore")
        dataset = open_dicom(path, limits)
        if "PixelData" not in dataset:
            raise Refused("no pixel data: reports, waveforms and indexes are text or name patients, and are not copied")
        check_pixels(path, dataset, limits)
        result.identifiers |= harvest(dataset, uids=True, device=not policy.rules.device)
        copy, report = clean(dataset, policy)
        head = face.shows_head(dataset)
        series = copy.get("SeriesInstanceUID") or "no-series"
        target = f"{copy.get('PatientID') or 'patient'}/{series}/{copy.file_meta.MediaStorageSOPInstanceUID}.dcm"
        if (out / target).exists():
            raise DataError("an image of the same UID is there already: a duplicate")
        _save(copy, out / target)
    if policy.rules.face != "keep" and str(dataset.get("Modality")) in ("CT", "MR"):
        if head and policy.rules.face == "remove":
            heads.setdefault(str(series), []).append(target)
        elif head:
            report += Report(warnings=(face.LEFT.format(why="the policy says face: warn"),))
        elif head is None:
            report += Report(warnings=(face.UNKNOWN,))
    return target, report


def _save(dataset: Dataset, path: Path) -> None:
    buffer = io.BytesIO()
    try:
        dataset.save_as(buffer, enforce_file_format=True)
    except (ValueError, TypeError, AttributeError, OverflowError, NotImplementedError) as error:
        raise DataError(f"a clean copy cannot be written: {error}") from error
    atomic.make_folder(path.parent)
    atomic.write_bytes(path, buffer.getvalue())


def _photo(path: Path, out: Path, policy: Policy, limits: Limits) -> tuple[str, Report]:
    from PIL import Image

    from wardround.data.imaging.deid.picture import clean_picture
    from wardround.data.imaging.photo import read_photo
    from wardround.data.imaging.picture import Options

    picture, report = clean_picture(read_photo(path, Options(modality="PHOTO", limits=limits)), policy)
    pixels: Any = np.moveaxis(picture.pixels, 0, -1)
    if pixels.dtype not in (np.uint8, np.uint16):
        raise DataError(f"pixels of type {pixels.dtype} have no place in a PNG")
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(buffer, "PNG")
    target = f"picture-{policy.held.uid(str(path.resolve()))[-12:]}.png"
    atomic.write_bytes(out / target, buffer.getvalue())
    return target, report + Report(actions=(Action(what="removed", where="metadata", why="EXIF, comments, file name"),))


def _deface(out: Path, heads: dict[str, list[str]], result: Result) -> None:
    """Blank the faces of head series in the files just written."""
    import pydicom

    told: dict[str, Report] = {}
    for targets in heads.values():
        slices = {target: pydicom.dcmread(out / target) for target in targets}
        removed, why = _faces(slices)
        for target, dataset in slices.items():
            if why is not None or target not in removed:
                told[target] = Report(warnings=(face.LEFT.format(why=why or "the slice has no place in the volume"),))
                continue
            if removed[target].any():
                stored = dataset.pixel_array
                stored = np.where(removed[target], burned_in.background(dataset), stored).astype(stored.dtype)
                dataset.PixelData = stored.tobytes() + b"\0" * (stored.nbytes % 2)
                _save(dataset, out / target)
            told[target] = Report(
                actions=(Action(what="defaced", where="PixelData", why="front of the head below the brow"),),
                warnings=(face.CAUTION,),
            )
    result.written = [(name, target, report + told.get(target, Report())) for name, target, report in result.written]


def _faces(slices: Mapping[str, Dataset]) -> tuple[dict[str, Any], str | None]:
    """Target -> bool [H, W] of what to blank; or why nothing is."""
    try:
        placed = [
            (
                target,
                d,
                np.array(d.ImageOrientationPatient, float).reshape(2, 3),
                np.array(d.ImagePositionPatient, float),
            )
            for target, d in slices.items()
            if int(d.get("NumberOfFrames") or 1) == 1
        ]
        if len(placed) < 8:
            return {}, "it is a slice or a thin slab, not a volume"
        first = placed[0][2]
        normal = np.cross(*first)
        placed.sort(key=lambda one: float(one[3] @ normal))
        steps = np.diff([float(one[3] @ normal) for one in placed])
        gap = float(np.median(steps))
        pixel = [float(value) for value in placed[0][1].PixelSpacing]
    except (AttributeError, TypeError, ValueError):
        return {}, "its orientation or spacing is not known"
    if (
        any(not np.allclose(one[2], first, atol=1e-3) for one in placed)
        or not np.allclose(steps, gap, rtol=0.1)
        or gap <= 0
    ):
        return {}, "its slices are not evenly spaced in one orientation"
    axes = (normal, first[1], first[0])
    letters = "".join(("LR", "PA", "SI")[int(np.abs(a).argmax())][int(a[np.abs(a).argmax()] < 0)] for a in axes)
    spacing = (gap, pixel[0], pixel[1])
    slope = np.array([float(one[1].get("RescaleSlope") or 1) for one in placed], np.float32)
    start = np.array([float(one[1].get("RescaleIntercept") or 0) for one in placed], np.float32)
    try:
        volume = np.stack([one[1].pixel_array.astype(np.float32) for one in placed])
    except ValueError:
        return {}, "its slices differ in size"
    mask, why = face.region(volume * slope[:, None, None] + start[:, None, None], letters, spacing)
    return ({}, why) if mask is None else ({one[0]: mask[i] for i, one in enumerate(placed)}, None)


def _remember(policy: Policy, result: Result) -> None:
    path = policy.held.folder / SOURCES
    new = not path.exists()
    rows: Iterable[tuple[str, str, str]] = [
        *((name, target, "") for name, target, _ in result.written),
        *((name, "", why) for name, why in result.left),
    ]
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerows([("source", "clean", "left out because")] if new else [])
    lines.writerows(rows)
    try:
        with path.open("a", encoding="utf-8", newline="") as file:
            file.write(text.getvalue())
        path.chmod(0o600)
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error}") from error

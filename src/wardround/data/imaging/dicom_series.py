"""DICOM series: which files belong together, and how slices become a volume.

Headers are read first, all of them; then the volume is allocated once, in its final orientation, and each file's pixels are
decoded into their place. No second copy of the volume exists at any time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from wardround.data.imaging.boundary import parsing
from wardround.data.imaging.dicom import (
    chosen_volumes,
    facts_of,
    finished,
    frame_planes,
    frames,
    is_localiser,
    modality_of,
    read_dicom,
    turned,
    unit_dtype,
    voi_of,
)
from wardround.data.imaging.dicom_file import check_pixels, open_dicom
from wardround.data.imaging.geometry import Plane, codes, spacing_of, stack
from wardround.data.imaging.limits import Limits, check_shape
from wardround.data.imaging.picture import Options, Picture
from wardround.errors import DataError

if TYPE_CHECKING:
    from pydicom import Dataset

# what distinguishes images at one position, in the order in which it is tried
_SPLITS = (
    "EchoTime",
    "DiffusionBValue",
    "TemporalPositionIdentifier",
    "TriggerTime",
    "AcquisitionNumber",
    "EchoNumbers",
)


@dataclass(frozen=True, kw_only=True)
class Member:
    """One file of a series. Patient, study, series and instance identify somebody: they stay in memory.

    Attributes:
        path: the file.
        patient: PatientID, or "".
        study: StudyInstanceUID, or "".
        series: SeriesInstanceUID, or "".
        instance: SOPInstanceUID, or "".
        modality: one of `MODALITIES`.
        localizer: whether ImageType calls it a localiser.
        frames: NumberOfFrames.
        placed: whether its position in the patient is known.
    """

    path: Path
    patient: str
    study: str
    series: str
    instance: str
    modality: str
    localizer: bool
    frames: int
    placed: bool


@dataclass(frozen=True, kw_only=True)
class Series:
    """Files that share a SeriesInstanceUID; localisers form a series of their own.

    Attributes:
        members: in the order of their paths.
        is_volume: several single frames with positions: `read_series` makes one volume of them. Otherwise each file is
            a picture of its own.
    """

    members: tuple[Member, ...]

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files."""
        return tuple(member.path for member in self.members)

    @property
    def is_volume(self) -> bool:
        """Whether the files are slices of a volume."""
        return (
            len(self.members) > 1
            and all(member.placed and member.frames == 1 for member in self.members)
            and not any(member.localizer for member in self.members)
        )


def member_of(path: Path, limits: Limits) -> Member:
    """Read what places a file in a series.

    Raises:
        DataError: not DICOM, or damaged.
    """
    dataset = open_dicom(path, limits, pixels=False)
    with parsing(path, "DICOM", quote=False):
        count = int(dataset.get("NumberOfFrames") or 1)
        return Member(
            path=path,
            patient=str(dataset.get("PatientID") or ""),
            study=str(dataset.get("StudyInstanceUID") or ""),
            series=str(dataset.get("SeriesInstanceUID") or ""),
            instance=str(dataset.get("SOPInstanceUID") or ""),
            modality=modality_of(dataset),
            localizer=is_localiser(dataset),
            frames=count,
            placed=count == 1 and frame_planes(dataset, 1) is not None,
        )


def group(paths: Iterable[Path], limits: Limits | None = None) -> tuple[list[Series], dict[Path, str]]:
    """Sort DICOM files into series.

    Args:
        paths: files, in any order.
        limits: what is refused unread.

    Returns:
        The series in the order of their first paths, and for each file that could not be read the reason. Files without
        a SeriesInstanceUID are a series each.
    """
    limits = limits or Limits()
    members: dict[tuple[str, str, bool], list[Member]] = {}
    failed: dict[Path, str] = {}
    for path in sorted(paths):
        try:
            member = member_of(path, limits)
        except DataError as error:
            failed[path] = str(error)
            continue
        key = member.series or f"file {path}"
        members.setdefault((member.patient, key, member.localizer), []).append(member)
    return [Series(members=tuple(found)) for found in members.values()], failed


def read_series(paths: Sequence[Path], options: Options) -> Picture:
    """Assemble the files of one series, in any order, to a volume [C, D, H, W]; one file alone is read as it is.

    Positions along the slices' common normal decide the order, not file names or instance numbers.

    Raises:
        DataError: no files; files of several series, modalities or sizes; a position that is not given; and what
            `geometry.stack` refuses: duplicates, missing slices, varying distances, slices that are not parallel.
    """
    if not paths:
        raise DataError("A series of no files: expected at least one")
    if len(paths) == 1:
        return read_dicom(paths[0], options)
    where = paths[0].parent
    if len(paths) > options.limits.frames:
        raise DataError(f"{where}: the series has {len(paths)} files, and the limit is {options.limits.frames}")
    headers = [open_dicom(path, options.limits, pixels=False) for path in paths]
    _one_series(where, paths, headers)
    planes = [_plane(path, header) for path, header in zip(paths, headers, strict=True)]
    stacked = stack(where, planes, tolerance=options.spacing_tolerance)
    order = _separated(where, stacked.order, headers)
    wanted = chosen_volumes(where, len(order[0]), options)
    rows, columns = int(headers[0].get("Rows") or 0), int(headers[0].get("Columns") or 0)
    dtype = np.result_type(*{unit_dtype(header) for header in headers})
    check_shape(
        where, (rows, columns), frames=len(order), channels=len(wanted), itemsize=dtype.itemsize, limits=options.limits
    )
    volume, views, affine = turned(where, (len(order), rows, columns), stacked.affine, len(wanted), dtype, options)
    middle = headers[order[len(order) // 2][wanted[0]]]
    voi = voi_of(where, middle, 0)
    facts = facts_of(middle) | {"slices": len(order), "volumes": len(order[0]), "tilt": stacked.tilt}
    headers.clear()
    for depth, place in enumerate(order):
        for channel, number in enumerate(wanted):
            path = paths[place[number]]
            dataset = open_dicom(path, options.limits)
            check_pixels(path, dataset, options.limits)
            views[channel][depth] = next(frames(path, dataset, [0]))[0]
    picture = Picture(
        pixels=volume,
        modality=modality_of(middle),
        spacing=spacing_of(affine),
        orientation=codes(affine),
        affine=affine,
        voi=voi,
        facts=facts,
    )
    return finished(picture, middle)


def _one_series(where: Path, paths: Sequence[Path], headers: Sequence[Dataset]) -> None:
    series = {str(header.get("SeriesInstanceUID") or "") for header in headers}
    if len(series) > 1:
        raise DataError(
            f"{where}: the {len(paths)} files belong to {len(series)} series: expected one, so read them apart"
        )
    kinds = sorted({modality_of(header) for header in headers})
    if len(kinds) > 1:
        raise DataError(f"{where}: the series mixes the modalities {', '.join(kinds)}: expected one")
    sizes = sorted({(int(header.get("Rows") or 0), int(header.get("Columns") or 0)) for header in headers})
    if len(sizes) > 1:
        told = ", ".join(f"{rows} x {columns}" for rows, columns in sizes)
        raise DataError(f"{where}: the series mixes slices of {told} pixels: expected one size")
    samples = {
        (int(header.get("SamplesPerPixel") or 1), str(header.get("PhotometricInterpretation", "")))
        for header in headers
    }
    if len(samples) > 1 or max(count for count, _ in samples) > 1 or any("PALETTE" in kind for _, kind in samples):
        raise DataError(f"{where}: the series holds colour or mixes kinds of pixels: expected grey slices")
    instances: dict[str, Path] = {}
    for path, header in zip(paths, headers, strict=True):
        if int(header.get("NumberOfFrames") or 1) > 1:
            raise DataError(f"{path} has several frames: read it alone, not as a slice of a series")
        instance = str(header.get("SOPInstanceUID") or path)
        if instance in instances:
            raise DataError(
                f"{where}: {path.name} and {instances[instance].name} are duplicates: they share a SOPInstanceUID"
            )
        instances[instance] = path


def _plane(path: Path, header: Dataset) -> Plane:
    with parsing(path, "DICOM", quote=False):
        planes = frame_planes(header, 1)
    if not planes:
        raise DataError(
            f"{path} does not say where it lies: ImagePositionPatient, ImageOrientationPatient or PixelSpacing is absent, "
            "so that its series makes no volume"
        )
    return planes[0]


def _separated(
    where: Path, order: tuple[tuple[int, ...], ...], headers: Sequence[Dataset]
) -> tuple[tuple[int, ...], ...]:
    """Places with several slices, sorted so that each volume has one echo, b-value, time point or acquisition."""
    count = len(order[0])
    if count == 1:
        return order
    for keyword in _SPLITS:
        values = [header.get(keyword) for header in headers]
        if any(value is None or isinstance(value, str) for value in values):
            continue
        numbers = [float(value) for value in values]
        sets = {tuple(sorted(numbers[index] for index in place)) for place in order}
        if len(sets) == 1 and len(set(next(iter(sets)))) == count:
            return tuple(tuple(sorted(place, key=lambda index: numbers[index])) for place in order)
    raise DataError(
        f"{where}: {count} slices lie at every position, and none of {', '.join(_SPLITS)} tells them apart: "
        "expected one slice at each; are there duplicates?"
    )

"""One DICOM file to one picture: frames, units, colours, geometry."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wardround.data.imaging.boundary import parsing
from wardround.data.imaging.dicom_file import check_pixels, kind_of, open_dicom
from wardround.data.imaging.geometry import (
    Plane,
    codes,
    file_view,
    plane_orientation,
    reorient,
    spacing_of,
    stack,
)
from wardround.data.imaging.picture import Fact, Options, Picture, Table, Window, chosen_frames
from wardround.data.imaging.pixels import invert, rescale
from wardround.errors import DataError

if TYPE_CHECKING:
    from pydicom import Dataset

# Modality (PS3.3 C.7.3.1.1.1) to the few kinds that are trained on
_MODALITIES = {
    "CT": "CT",
    "MR": "MR",
    **dict.fromkeys(("CR", "DX", "MG", "RF", "XA", "PX", "IO", "RG"), "XR"),
    **dict.fromkeys(("US", "IVUS"), "US"),
    "DMS": "DERM",
    **dict.fromkeys(("XC", "GM", "ES", "OP", "SM"), "PHOTO"),
}

# values without a unit of their own below this are padding outside the field of view
_AIR = -1024


@dataclass(frozen=True, kw_only=True)
class Units:
    """How the stored values of a frame become units: a table first, or else slope and intercept."""

    slope: float
    intercept: float
    table: bool


def read_dicom(path: Path, options: Options) -> Picture:
    """Read one DICOM file.

    A multi-frame file whose frames have positions in the patient becomes a volume; one without (a cine loop) gives the
    frame that `options.frames` asks for. Colour comes as RGB, uint8.

    Raises:
        DataError: not DICOM, damaged, no pixels, above the limits, or frames that make no volume.
    """
    dataset = open_dicom(path, options.limits)
    count = check_pixels(path, dataset, options.limits)
    with parsing(path, "DICOM", quote=False):
        planes = frame_planes(dataset, count)
    if count > 1 and planes is not None:
        return _volume(path, dataset, planes, options)
    wanted = chosen_frames(path, count, options)
    arrays = list(frames(path, dataset, wanted))
    pixels = arrays[0] if len(arrays) == 1 else np.stack(arrays, axis=1)
    plane = planes[wanted[0]] if planes else None
    picture = Picture(
        pixels=np.ascontiguousarray(pixels),
        modality=modality_of(dataset),
        spacing=_spacing(dataset, plane) if len(wanted) == 1 else None,
        orientation=plane_orientation(plane) if plane and len(wanted) == 1 else None,
        voi=voi_of(path, dataset, wanted[0]),
        facts=facts_of(dataset),
    )
    return _cropped(finished(picture, dataset), dataset, options)


def frames(path: Path, dataset: Dataset, wanted: Sequence[int]) -> Iterator[NDArray[Any]]:
    """Decode frames one after the other, in the order given (which must ascend).

    Yields:
        [C, H, W] in units: colour uint8 RGB, CT int16 where its rescaling allows, else an exact integer type or float32.

    Raises:
        DataError: the pixels cannot be decoded.
    """
    dtype = unit_dtype(dataset)
    with parsing(path, "DICOM pixels"):
        from pydicom.pixels.processing import apply_color_lut, apply_modality_lut
        from pydicom.pixels.utils import iter_pixels

        photometric = str(dataset.get("PhotometricInterpretation", ""))
        for index, decoded in zip(wanted, iter_pixels(dataset, indices=list(wanted)), strict=True):
            palette = photometric == "PALETTE COLOR"
            stored = _bytes(apply_color_lut(decoded, dataset)) if palette else decoded
            if stored.ndim == 3:
                yield np.moveaxis(_bytes(stored), -1, 0)
                continue
            units = units_of(dataset, index)
            values = apply_modality_lut(stored, dataset) if units.table else stored
            values = (
                rescale(values, 1.0, 0.0, dtype=dtype)
                if units.table
                else rescale(values, units.slope, units.intercept, dtype=dtype)
            )
            yield _unpadded(values, stored, dataset)[None]


def unit_dtype(dataset: Dataset) -> np.dtype[Any]:
    """The type that holds all frames of a dataset in units: integers where rescaling keeps them, else float32.

    CT is int16 (Hounsfield units beyond it are cut); others take what their stored bits need.
    """
    if int(dataset.get("SamplesPerPixel") or 1) > 1 or dataset.get("PhotometricInterpretation") == "PALETTE COLOR":
        return np.dtype(np.uint8)
    count = int(dataset.get("NumberOfFrames") or 1)
    units = [units_of(dataset, index) for index in range(count if "PerFrameFunctionalGroupsSequence" in dataset else 1)]
    if any(unit.table for unit in units):
        return np.dtype(np.int32)
    floating = "FloatPixelData" in dataset or "DoubleFloatPixelData" in dataset
    if floating or any(unit.slope != 1 or unit.intercept != round(unit.intercept) for unit in units):
        return np.dtype(np.float32)
    if modality_of(dataset) == "CT":
        return np.dtype(np.int16)
    low, high = stored_range(dataset)
    low, high = low + min(int(unit.intercept) for unit in units), high + max(int(unit.intercept) for unit in units)
    for kind in (np.uint8, np.int16, np.uint16, np.int32):
        if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
            return np.dtype(kind)
    return np.dtype(np.float32)


def stored_range(dataset: Dataset) -> tuple[int, int]:
    """The lowest and the highest value that BitsStored and PixelRepresentation allow."""
    bits = int(dataset.get("BitsStored") or dataset.get("BitsAllocated") or 16)
    signed = int(dataset.get("PixelRepresentation") or 0) == 1
    return (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)


def units_of(dataset: Dataset, index: int) -> Units:
    """How frame `index` becomes units: its functional group's transformation, or the dataset's own."""
    group = _group(dataset, index, "PixelValueTransformationSequence")
    source = dataset if group is None else group
    if group is None and "ModalityLUTSequence" in dataset and len(dataset.ModalityLUTSequence):
        return Units(slope=1.0, intercept=0.0, table=True)
    slope = source.get("RescaleSlope", dataset.get("DoseGridScaling"))
    intercept = source.get("RescaleIntercept")
    return Units(
        slope=1.0 if slope is None else float(slope),
        intercept=0.0 if intercept is None else float(intercept),
        table=False,
    )


def modality_of(dataset: Dataset) -> str:
    """One of `MODALITIES` from the tag Modality; `OT` for all that is not trained on."""
    return _MODALITIES.get(str(dataset.get("Modality", "")).strip().upper(), "OT")


def frame_planes(dataset: Dataset, count: int) -> list[Plane] | None:
    """Where each frame lies in the patient, or None where a frame's position, directions or spacing are not given."""
    offsets = dataset.get("GridFrameOffsetVector")
    planes = []
    for index in range(count):
        position = _value(dataset, index, "PlanePositionSequence", "ImagePositionPatient")
        cosines = _value(dataset, index, "PlaneOrientationSequence", "ImageOrientationPatient")
        spacing = _value(dataset, index, "PixelMeasuresSequence", "PixelSpacing")
        if position is None or cosines is None or spacing is None:
            return None
        if len(position) != 3 or len(cosines) != 6 or len(spacing) != 2:
            return None
        corner = np.array([float(value) for value in position])
        directions = [float(value) for value in cosines]
        if offsets is not None and count > 1 and len(offsets) == count:
            corner = corner + np.cross(directions[:3], directions[3:]) * (float(offsets[index]) - float(offsets[0]))
        elif count > 1 and _group(dataset, index, "PlanePositionSequence") is None:
            return None
        if not np.isfinite([*corner, *directions]).all() or min(float(value) for value in spacing) <= 0:
            return None
        planes.append(
            Plane(
                position=(float(corner[0]), float(corner[1]), float(corner[2])),
                cosines=tuple(directions),  # type: ignore[arg-type]  # six, as checked above
                spacing=(float(spacing[0]), float(spacing[1])),
            )
        )
    return planes


def voi_of(path: Path, dataset: Dataset, index: int) -> Window | Table | None:
    """The first VOI table, or else the first window, that a frame proposes; None where there is none of use."""
    source = _group(dataset, index, "FrameVOILUTSequence") or dataset
    with parsing(path, "DICOM", quote=False):
        tables = source.get("VOILUTSequence")
        if tables:
            count, first, bits = (int(value) for value in tables[0].LUTDescriptor)
            values = (
                np.frombuffer(tables[0].LUTData, "<u2") if isinstance(tables[0].LUTData, bytes) else tables[0].LUTData
            )
            values = np.asarray(values, dtype=np.float32)[: count or 1 << 16] / np.float32((1 << bits) - 1)
            return Table(first=float(first), values=np.clip(values, 0, 1))
        centre, width = _first(source.get("WindowCenter")), _first(source.get("WindowWidth"))
        function = str(source.get("VOILUTFunction") or "LINEAR").strip().upper()
    if centre is None or width is None or not width > 0:
        return None
    if function == "SIGMOID":
        return Window(centre=centre, width=width, function="SIGMOID")
    if function == "LINEAR_EXACT" or width < 1:
        return Window(centre=centre, width=width, function="LINEAR_EXACT")
    return Window(centre=centre, width=width)


def is_localiser(dataset: Dataset) -> bool:
    """Whether ImageType calls it a localiser or scout."""
    return bool({"LOCALIZER", "LOCALISER", "SCOUT"} & {word.upper() for word in _words(dataset.get("ImageType"))})


def facts_of(dataset: Dataset) -> dict[str, Fact]:
    """What of the header is no identifier: sizes, bits, kind."""
    facts: dict[str, Fact] = {
        "format": "DICOM",
        "kind": kind_of(dataset),
        "rows": int(dataset.get("Rows") or 0),
        "columns": int(dataset.get("Columns") or 0),
        "frames": int(dataset.get("NumberOfFrames") or 1),
        "bits": int(dataset.get("BitsStored") or 0),
        "signed": int(dataset.get("PixelRepresentation") or 0) == 1,
        "photometric": str(dataset.get("PhotometricInterpretation", "")),
        "image_type": _words(dataset.get("ImageType")),
        "burned_in": str(dataset.get("BurnedInAnnotation", "")),
    }
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    if syntax is not None:
        facts["transfer_syntax"] = str(syntax.name)
    for name, keyword in (("body_part", "BodyPartExamined"), ("view", "ViewPosition"), ("laterality", "Laterality")):
        word = str(dataset.get(keyword) or "").strip().upper()
        # coded terms are capitals; anything else was typed by somebody
        if word and len(word) <= 16 and word.replace(" ", "").replace("_", "").isalpha():
            facts[name] = word
    if "ImagerPixelSpacing" in dataset and "PixelSpacing" not in dataset:
        facts["spacing_at"] = "detector"
    return facts


def ultrasound_boxes(dataset: Dataset) -> tuple[tuple[int, int, int, int], ...]:
    """Regions of two-dimensional tissue or colour flow as (top, left, bottom, right), ends excluded, inside the picture."""
    boxes = []
    rows, columns = int(dataset.get("Rows") or 0), int(dataset.get("Columns") or 0)
    for region in dataset.get("SequenceOfUltrasoundRegions") or ():
        if int(region.get("RegionSpatialFormat") or 0) != 1 or int(region.get("RegionDataType") or 0) not in (1, 2):
            continue
        edges = [region.get(f"RegionLocation{name}") for name in ("MinY0", "MinX0", "MaxY1", "MaxX1")]
        if None in edges:
            continue
        top, left, bottom, right = (int(edge) for edge in edges)
        top, left, bottom, right = max(top, 0), max(left, 0), min(bottom + 1, rows), min(right + 1, columns)
        if bottom - top > 1 and right - left > 1:
            boxes.append((top, left, bottom, right))
    return tuple(boxes)


def regions_fit(dataset: Dataset) -> bool:
    """Whether all ultrasound regions of the header lie within the picture; those of a picture that was scaled may not."""
    ends = {
        "RegionLocationMaxY1": int(dataset.get("Rows") or 0),
        "RegionLocationMaxX1": int(dataset.get("Columns") or 0),
    }
    regions = dataset.get("SequenceOfUltrasoundRegions") or ()
    return all(int(region.get(name) or 0) <= end for region in regions for name, end in ends.items())


def finished(picture: Picture, dataset: Dataset) -> Picture:
    """Bright made bright: MONOCHROME1 is mirrored, except for CT."""
    if dataset.get("PhotometricInterpretation") != "MONOCHROME1" or picture.modality == "CT":
        return picture
    units = units_of(dataset, 0)
    if units.table or "BitsStored" not in dataset:
        low, high = float(picture.pixels.min()), float(picture.pixels.max())
    else:
        low, high = (units.slope * value + units.intercept for value in stored_range(dataset))
    return invert(picture, low + high)


def turned(
    path: Path,
    shape: tuple[int, int, int],
    affine: NDArray[np.float64],
    channels: int,
    dtype: np.dtype[Any],
    options: Options,
) -> tuple[NDArray[Any], list[NDArray[Any]], NDArray[np.float64]]:
    """An empty volume in the orientation asked for, and for each channel a view of it in the axes of the file.

    Returns:
        [C, D, H, W], C views, the affine of the volume.
    """
    transform, sides, final = reorient(shape, affine, options.orientation)
    try:
        volume = np.empty((channels, *sides), dtype=dtype)
    except MemoryError as error:
        raise DataError(f"{path} does not fit into memory: {channels} x {sides} of {dtype}") from error
    return volume, [file_view(volume[channel], transform) for channel in range(channels)], final


def chosen_volumes(path: Path, count: int, options: Options) -> list[int]:
    """The numbers of the volumes that `options.volume` asks for, of `count`.

    Raises:
        DataError: there is none of that number.
    """
    if options.volume == "channels":
        return list(range(count))
    if not 0 <= options.volume < count:
        raise DataError(f"{path} holds {count} volumes, and volume {options.volume} was asked for: they count from 0")
    return [options.volume]


def _volume(path: Path, dataset: Dataset, planes: list[Plane], options: Options) -> Picture:
    stacked = stack(path, planes, tolerance=options.spacing_tolerance)
    wanted = chosen_volumes(path, len(stacked.order[0]), options)
    if int(dataset.get("SamplesPerPixel") or 1) > 1:
        raise DataError(f"{path} is a volume in colour, which is not read: expected one sample a pixel")
    shape = (len(stacked.order), int(dataset.Rows), int(dataset.Columns))
    volume, views, affine = turned(path, shape, stacked.affine, len(wanted), unit_dtype(dataset), options)
    homes = {
        place[number]: (channel, depth)
        for depth, place in enumerate(stacked.order)
        for channel, number in enumerate(wanted)
    }
    order = sorted(homes)
    for index, frame in zip(order, frames(path, dataset, order), strict=True):
        channel, depth = homes[index]
        views[channel][depth] = frame[0]
    facts = facts_of(dataset) | {"slices": shape[0], "volumes": len(stacked.order[0]), "tilt": stacked.tilt}
    return finished(
        Picture(
            pixels=volume,
            modality=modality_of(dataset),
            spacing=spacing_of(affine),
            orientation=codes(affine),
            affine=affine,
            voi=voi_of(path, dataset, order[len(order) // 2]),
            facts=facts,
        ),
        dataset,
    )


def _cropped(picture: Picture, dataset: Dataset, options: Options) -> Picture:
    boxes = ultrasound_boxes(dataset)
    if not boxes:
        return picture
    facts = dict(picture.facts) | {"regions": len(boxes), "regions_fit": regions_fit(dataset)}
    if not options.crop_ultrasound:
        return replace(picture, facts=facts)
    top, left = min(box[0] for box in boxes), min(box[1] for box in boxes)
    bottom, right = max(box[2] for box in boxes), max(box[3] for box in boxes)
    pixels = np.zeros((*picture.pixels.shape[:-2], bottom - top, right - left), dtype=picture.pixels.dtype)
    for box in boxes:
        inside = (..., slice(box[0] - top, box[2] - top), slice(box[1] - left, box[3] - left))
        pixels[inside] = picture.pixels[..., box[0] : box[2], box[1] : box[3]]
    return replace(picture, pixels=pixels, facts=facts | {"cropped": (top, left, bottom, right)})


def _spacing(dataset: Dataset, plane: Plane | None) -> tuple[float, ...] | None:
    if plane is not None:
        return plane.spacing
    for keyword in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"):
        pair = dataset.get(keyword)
        if pair is not None and len(pair) == 2 and min(float(value) for value in pair) > 0:
            return float(pair[0]), float(pair[1])
    for region in dataset.get("SequenceOfUltrasoundRegions") or ():
        down, across = region.get("PhysicalDeltaY"), region.get("PhysicalDeltaX")
        # unit 3 is centimetres
        if int(region.get("PhysicalUnitsXDirection") or 0) == 3 and down and across:
            return abs(float(down)) * 10, abs(float(across)) * 10
    return None


def _unpadded(values: NDArray[Any], stored: NDArray[Any], dataset: Dataset) -> NDArray[Any]:
    padding = dataset.get("PixelPaddingValue")
    if padding is None or isinstance(padding, bytes):
        return values
    ends = sorted((int(padding), int(dataset.get("PixelPaddingRangeLimit", padding))))
    outside = (stored >= ends[0]) & (stored <= ends[1])
    if not outside.any() or outside.all():
        return values
    if modality_of(dataset) == "CT":
        fill = values.dtype.type(_AIR)
    else:
        inside = values[~outside]
        fill = inside.max() if dataset.get("PhotometricInterpretation") == "MONOCHROME1" else inside.min()
    return np.where(outside, fill, values)


def _group(dataset: Dataset, index: int, keyword: str) -> Dataset | None:
    frames_ = dataset.get("PerFrameFunctionalGroupsSequence") or ()
    for source in (
        frames_[index] if index < len(frames_) else None,
        *(dataset.get("SharedFunctionalGroupsSequence") or ()),
    ):
        if source is not None and source.get(keyword):
            found: Dataset = source[keyword][0]
            return found
    return None


def _value(dataset: Dataset, index: int, sequence: str, keyword: str) -> Any:
    group = _group(dataset, index, sequence)
    return dataset.get(keyword) if group is None else group.get(keyword)


def _bytes(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Colour as 8 bits: 16 bits are divided by 257, which maps white to white."""
    if values.dtype == np.uint8:
        return values
    if values.dtype != np.uint16:
        raise ValueError(f"colour of type {values.dtype}: expected 8 or 16 unsigned bits")
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _first(value: Any) -> float | None:
    if value is None or value == "":
        return None
    return float(value[0] if hasattr(value, "__len__") and not isinstance(value, str) else value)


def _words(value: Any) -> tuple[str, ...]:
    parts = (value,) if isinstance(value, str) else tuple(value or ())
    return tuple(str(part).strip() for part in parts[:4])

"""DICOM files made up for the tests of reading: small, valid, and easy to break."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import ExplicitVRLittleEndian

CT = "1.2.840.10008.5.1.4.1.1.2"
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def dataset(pixels: NDArray[Any] | None, *, syntax: str = ExplicitVRLittleEndian, **tags: Any) -> Dataset:
    """A CT slice of the given stored values [H, W], [H, W, 3] or [frames, H, W], and whatever tags are given."""
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = syntax
    made.file_meta.MediaStorageSOPClassUID = CT
    made.file_meta.MediaStorageSOPInstanceUID = tags.get("SOPInstanceUID", "1.2.3.4")
    made.SOPClassUID = CT
    made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID
    made.Modality = "CT"
    made.SeriesInstanceUID = "1.2.3"
    made.StudyInstanceUID = "1.2"
    if pixels is not None:
        colour = pixels.ndim == 3 and pixels.shape[-1] == 3
        made.Rows, made.Columns = pixels.shape[:2] if colour else pixels.shape[-2:]
        made.SamplesPerPixel = 3 if colour else 1
        made.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
        if colour:
            made.PlanarConfiguration = 0
        elif pixels.ndim == 3:
            made.NumberOfFrames = len(pixels)
        made.BitsAllocated = made.BitsStored = pixels.dtype.itemsize * 8
        made.HighBit = made.BitsStored - 1
        made.PixelRepresentation = int(pixels.dtype.kind == "i")
        made.add_new("PixelData", "OB" if pixels.dtype.itemsize == 1 else "OW", pixels.tobytes())
    for name, value in tags.items():
        setattr(made, name, value)
    return made


def save(path: Path, made: Dataset) -> Path:
    """Write a data set with its preamble."""
    made.save_as(path, enforce_file_format=True)
    return path


def series(
    folder: Path,
    volume: NDArray[Any],
    *,
    gaps: Sequence[float] | None = None,
    cosines: Sequence[float] = AXIAL,
    shift: Sequence[float] = (0.0, 0.0, 0.0),
    names: Sequence[int] | None = None,
    **tags: Any,
) -> list[Path]:
    """One file a slice of stored values [D, H, W], the first at the lowest position, pixels 0.5 x 0.7 mm."""
    folder.mkdir(exist_ok=True)
    normal = np.cross(cosines[:3], cosines[3:])
    depths = np.cumsum([0.0, *(gaps or [2.0] * (len(volume) - 1))])
    paths = []
    for index, (plane, depth) in enumerate(zip(volume, depths, strict=True)):
        position = np.array([-10.0, -20.0, 30.0]) + normal * depth + np.array(shift) * index
        made = dataset(
            plane,
            **{
                "SOPInstanceUID": f"1.2.3.4.{index + 1}",
                "ImagePositionPatient": [f"{value:.6f}" for value in position],
                "InstanceNumber": index + 1,
                "ImageOrientationPatient": list(cosines),
                "PixelSpacing": [0.5, 0.7],
                "RescaleSlope": 1,
                "RescaleIntercept": -1024,
                **tags,
            },
        )
        paths.append(save(folder / f"{names[index] if names else index}.dcm", made))
    return paths


def items(*tags: dict[str, Any]) -> Items:
    """A sequence of items with the given tags."""
    made = []
    for one in tags:
        item = Dataset()
        for name, value in one.items():
            setattr(item, name, value)
        made.append(item)
    return Items(made)

"""Pixels of a DICOM data set as an array and back, with nothing hidden beside them.

Writing them anew takes away what a file may carry between the pixels: comments and application segments of compressed
streams, bytes behind the last frame, overlays in the unused high bits, an icon of the picture before it was blanked.
"""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wardround.data.imaging.limits import Limits
from wardround.errors import DataError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

KEYWORDS = frozenset(
    {"PixelData", "ExtendedOffsetTable", "ExtendedOffsetTableLengths", "EncapsulatedPixelDataValueTotalLength"}
)
"""Elements that are written anew with the pixels, or not at all."""


def read(dataset: Dataset, limits: Limits | None = None) -> NDArray[Any]:
    """Stored values [frames, H, W, samples], before any rescaling; YBR of compressed pictures comes as RGB.

    Raises:
        DataError: pixels are too large, too few, or cannot be decoded.
    """
    from pydicom.pixels.utils import pixel_array

    limits = limits or Limits()
    try:
        frames = int(dataset.get("NumberOfFrames") or 1)
        samples = int(dataset.SamplesPerPixel)
        rows, columns, bits = int(dataset.Rows), int(dataset.Columns), int(dataset.BitsAllocated)
    except (AttributeError, TypeError, ValueError) as error:
        raise DataError(f"the sizes of the pixels are missing or no numbers: {error}") from error
    total = rows * columns * frames * samples * math.ceil(bits / 8)
    sides = max(rows, columns)
    if min(rows, columns, frames, samples) < 1 or sides > limits.side or frames > limits.frames or total > limits.bytes:
        raise DataError(f"{frames} frames of {rows} x {columns} pixels are none, or beyond the limits")
    try:
        with warnings.catch_warnings():
            # bytes behind the last frame are left behind without a word
            warnings.simplefilter("ignore")
            array = pixel_array(dataset, raw=not _compressed(dataset))
    except Exception as error:  # decoders raise what they like
        raise DataError(f"the pixels cannot be decoded: {error}") from error
    array = np.array(array).reshape(frames, rows, columns, samples)
    stored = int(dataset.get("BitsStored") or bits)
    if array.dtype.kind in "iu" and 1 < stored < array.dtype.itemsize * 8:
        spare = array.dtype.itemsize * 8 - stored
        array = (array << spare) >> spare
    return array


def write(copy: Dataset, dataset: Dataset, frames: NDArray[Any]) -> None:
    """Put values of `read` into a copy of the data set, uncompressed and little endian."""
    from pydicom.pixels.utils import pack_bits

    rows, columns, samples = frames.shape[1:]
    if int(dataset.BitsAllocated) == 1:
        data = pack_bits(frames.reshape(-1).astype(np.uint8))
    else:
        data = np.ascontiguousarray(frames, frames.dtype.newbyteorder("<")).tobytes()
        copy.BitsAllocated = frames.dtype.itemsize * 8
        copy.BitsStored = min(int(dataset.get("BitsStored") or 8), copy.BitsAllocated)
        copy.HighBit = copy.BitsStored - 1
    if samples > 1:
        copy.PlanarConfiguration = 0
        if _compressed(dataset) or str(dataset.PhotometricInterpretation) == "YBR_FULL_422":
            copy.PhotometricInterpretation = "RGB" if _compressed(dataset) else "YBR_FULL"
    copy.Rows, copy.Columns = rows, columns
    copy.add_new(0x7FE00010, "OB" if frames.dtype.itemsize == 1 else "OW", data + b"\0" * (len(data) % 2))


def _compressed(dataset: Dataset) -> bool:
    syntax = getattr(getattr(dataset, "file_meta", None), "TransferSyntaxUID", None)
    return bool(syntax is not None and syntax.is_compressed and syntax != "1.2.840.10008.1.2.1.99")

"""Opening a DICOM file safely: limits first, then tags, and pixels only of what can be decoded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from wardround.data.imaging.boundary import parsing
from wardround.data.imaging.limits import DEFLATE_RATIO, Limits, check_deflate, check_file, check_shape
from wardround.errors import DataError

if TYPE_CHECKING:
    from pydicom import Dataset

_DEFLATED = "1.2.840.10008.1.2.1.99"
_IMPLICIT = "1.2.840.10008.1.2"
_DICOMDIR = "1.2.840.10008.1.3.10"
_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")


def open_dicom(path: Path, limits: Limits, *, pixels: bool = True, tags: Sequence[str] = ()) -> Dataset:
    """Read a DICOM file, also one that lacks the preamble or its meta group.

    Args:
        path: the file.
        limits: a deflated file is inflated piece by piece first, and refused when it grows beyond them.
        pixels: whether to read the pixel data, undecoded, as well.
        tags: keywords of the elements to read; () reads all.

    Raises:
        DataError: not DICOM, damaged, above the limits, or without a SOP class. The message repeats no value of the file.
    """
    check_file(path, limits)
    with parsing(path, "DICOM", quote=False):
        import pydicom
        from pydicom.filereader import read_file_meta_info, read_preamble

        with path.open("rb") as stream:
            begun = read_preamble(stream, force=True) is not None
        if begun and str(read_file_meta_info(str(path)).get("TransferSyntaxUID", "")) == _DEFLATED:
            _check_deflated(path, limits)
        chosen: list[str] | None = [*tags, "SOPClassUID"] if tags else None
        dataset = pydicom.dcmread(path, force=True, stop_before_pixels=not pixels, specific_tags=chosen)
        known = "SOPClassUID" in dataset or "MediaStorageSOPClassUID" in dataset.file_meta
        if known and "TransferSyntaxUID" not in dataset.file_meta and dataset.original_encoding[0]:
            dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID(_IMPLICIT)
    if not known:
        raise DataError(f"{path} is not DICOM: it names no SOP class")
    return dataset


def kind_of(dataset: Dataset) -> str:
    """The name of the SOP class, such as `CT Image Storage`."""
    from pydicom.uid import UID

    found = dataset.get("SOPClassUID") or dataset.file_meta.get("MediaStorageSOPClassUID")
    return str(UID(str(found)).name)


def check_pixels(path: Path, dataset: Dataset, limits: Limits) -> int:
    """Check that a dataset holds pixels of a size within the limits, and return the number of its frames.

    Codestreams have a size of their own, which must be the header's, so that a small header cannot hide a large picture.

    Raises:
        DataError: no pixel data, a size that is absent or above the limits, or more than the file can hold.
    """
    keyword = next((name for name in _PIXELS if name in dataset), None)
    if keyword is None:
        what = (
            "it is a DICOMDIR: name the folder that holds it" if _is_directory(dataset) else f"it is {kind_of(dataset)}"
        )
        raise DataError(f"{path} holds no pixel data: {what}")
    with parsing(path, "DICOM", quote=False):
        frames = int(dataset.get("NumberOfFrames") or 1)
        rows, columns = int(dataset.get("Rows") or 0), int(dataset.get("Columns") or 0)
        samples, allocated = int(dataset.get("SamplesPerPixel") or 1), int(dataset.get("BitsAllocated") or 8)
        payload = dataset[keyword].value or b""
    if not 1 <= samples <= 4:
        raise DataError(f"{path} says that it has {samples} samples a pixel: expected 1 to 4")
    size = check_shape(
        path, (rows, columns), frames=frames, channels=samples, itemsize=max(1, allocated // 8), limits=limits
    )
    if not payload:
        raise DataError(f"{path} holds no pixel data: its {keyword} is empty")
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    if syntax is None:
        raise DataError(f"{path} does not say how its pixels are stored: it has no TransferSyntaxUID")
    if syntax.is_compressed and not syntax.is_deflated:
        _check_codestreams(path, payload, frames, (rows, columns), str(syntax))
    else:
        expected = size if allocated > 1 else -(-rows * columns * frames * samples // 8)
        # the chroma of 4:2:2 is stored for every second pixel only
        least = expected * 2 // 3 if str(dataset.get("PhotometricInterpretation")) == "YBR_FULL_422" else expected
        if len(payload) < least:
            raise DataError(f"{path} is truncated: {len(payload)} of {least} bytes of pixel data are there")
    return frames


def _is_directory(dataset: Dataset) -> bool:
    return str(dataset.file_meta.get("MediaStorageSOPClassUID", "")) == _DICOMDIR


def _check_deflated(path: Path, limits: Limits) -> None:
    from pydicom.filereader import _read_file_meta_info, read_preamble

    with path.open("rb") as stream:
        read_preamble(stream, force=True)
        _read_file_meta_info(stream)
        check_deflate(path, stream, limits)


def _check_codestreams(path: Path, payload: bytes, frames: int, sides: tuple[int, int], syntax: str) -> None:
    from pydicom.uid import JPEG2000TransferSyntaxes, JPEGLSTransferSyntaxes, JPEGTransferSyntaxes

    with parsing(path, "compressed pixels"):
        from pydicom.encaps import generate_frames

        jpeg2000 = syntax in (str(uid) for uid in JPEG2000TransferSyntaxes)
        jpeg = syntax in (str(uid) for uid in (*JPEGTransferSyntaxes, *JPEGLSTransferSyntaxes))
        for index, frame in enumerate(generate_frames(payload, number_of_frames=frames)):
            if not (jpeg or jpeg2000):
                if sides[0] * sides[1] > len(frame) * DEFLATE_RATIO:
                    raise DataError(
                        f"{path}: frame {index} has {len(frame)} bytes, too few for {sides[0]} x {sides[1]} pixels"
                    )
                continue
            found = _jpeg2000_sides(frame) if jpeg2000 else _jpeg_sides(frame)
            if found != sides:
                raise DataError(
                    f"{path}: the codestream of frame {index} is {found[0]} x {found[1]} pixels, and the header says "
                    f"{sides[0]} x {sides[1]}"
                )


def _jpeg2000_sides(frame: bytes) -> tuple[int, int]:
    from openjpeg.utils import get_parameters

    found = get_parameters(frame)
    return int(found["rows"]), int(found["columns"])


def _jpeg_sides(frame: bytes) -> tuple[int, int]:
    from libjpeg.utils import get_parameters

    found = get_parameters(frame)
    return int(found["rows"]), int(found["columns"])

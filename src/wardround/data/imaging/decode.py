"""One call for every format: `read` looks at what a file is and gives its picture.

magic bytes                       read by
DICM at 128, or a bare data set   pydicom with pylibjpeg       dicom.py, dicom_series.py
n+1, n+2, ni1, ni2, gzip          nibabel                      nifti.py
PNG, JPEG, TIFF, BMP              Pillow                       photo.py
zip, .npy                         NumPy, never pickles         array.py
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from wardround.data.imaging.array import read_array
from wardround.data.imaging.dicom import read_dicom
from wardround.data.imaging.dicom_series import read_series
from wardround.data.imaging.limits import Limits, check_file
from wardround.data.imaging.looks import looks_like
from wardround.data.imaging.nifti import read_nifti
from wardround.data.imaging.photo import read_photo
from wardround.data.imaging.picture import CANONICAL, MODALITIES, Options, Picture, Table, Window
from wardround.errors import DataError

__all__ = [
    "CANONICAL",
    "MODALITIES",
    "Limits",
    "Options",
    "Picture",
    "Table",
    "Window",
    "format_of",
    "looks_like",
    "read",
]

_PHOTOS = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+", b"BM")
_HEAD = 352


def read(path: Path | Sequence[Path], *, options: Options | None = None) -> Picture:
    """Read a picture or a volume.

    Args:
        path: a file; or the files of one DICOM series, in any order, which make one volume.
        options: which frame or volume, what orientation, what limits; the defaults where None.

    Returns:
        The picture in the units of its modality; see `Picture`.

    Raises:
        DataError: the file cannot be read, and why: absent, of no known format, damaged, truncated, without pixels,
            above the limits, or slices that make no volume.
        ConfigError: the extra `imaging` is not installed.
    """
    options = options or Options()
    if not isinstance(path, Path):
        return read_series([Path(one) for one in path], options)
    readers = {"dicom": read_dicom, "nifti": read_nifti, "photo": read_photo, "array": read_array}
    return readers[format_of(path, options.limits)](path, options)


def format_of(path: Path, limits: Limits | None = None) -> Literal["dicom", "nifti", "photo", "array"]:
    """What a file is by its first bytes, whatever its name.

    A file without any magic counts as `dicom`, since old archives leave out the preamble; `read` finds out.

    Raises:
        DataError: no such file, not a regular file, empty, or larger than the limit.
    """
    check_file(path, limits or Limits())
    try:
        with path.open("rb") as stream:
            head = stream.read(_HEAD)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    if head[128:132] == b"DICM":
        return "dicom"
    if head.startswith(_PHOTOS):
        return "photo"
    if head.startswith((b"PK\x03\x04", b"\x93NUMPY")):
        return "array"
    if head.startswith(b"\x1f\x8b") or head[344:347] in (b"n+1", b"ni1") or head[4:7] in (b"n+2", b"ni2"):
        return "nifti"
    return "dicom"

"""Pictures as NumPy files: `.npy`, or one array of an `.npz`."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from wardround.data.imaging.boundary import parsing
from wardround.data.imaging.limits import check_file, check_shape
from wardround.data.imaging.picture import Fact, Options, Picture
from wardround.errors import DataError


def read_array(path: Path, options: Options) -> Picture:
    """Read [H, W], [H, W, 3], [3, H, W] or [1, H, W], or with one axis more a volume, of numbers or truth values.

    Three axes of which neither the first nor the last has length 1 or 3 are a volume [D, H, W]; four are [C, D, H, W] or,
    where the last has length 1 or 3, [D, H, W, C].

    Raises:
        DataError: not such a file, several arrays and none named, pickled objects, or above the limits. Its header is
            checked before anything is allocated.
    """
    check_file(path, options.limits)
    with parsing(path, "a NumPy file"), path.open("rb") as stream:
        if stream.read(2) == b"PK":
            with zipfile.ZipFile(path) as archive, archive.open(_member(path, archive, options)) as member:
                values = _checked(path, member, options)
        else:
            stream.seek(0)
            values = _checked(path, stream, options)
    pixels = _channels_first(values)
    facts: dict[str, Fact] = {
        "format": "NumPy",
        "rows": int(pixels.shape[-2]),
        "columns": int(pixels.shape[-1]),
        "bits": values.dtype.itemsize * 8,
        "frames": 1,
    }
    return Picture(pixels=np.ascontiguousarray(pixels), modality=options.modality or "OT", facts=facts)


def _member(path: Path, archive: zipfile.ZipFile, options: Options) -> zipfile.ZipInfo:
    members = {
        info.filename.removesuffix(".npy"): info for info in archive.infolist() if info.filename.endswith(".npy")
    }
    names = ", ".join(sorted(members)) or "none"
    if options.array is not None and options.array not in members:
        raise DataError(f"{path} holds no array {options.array!r}: it holds {names}")
    if options.array is None and len(members) != 1:
        raise DataError(f"{path} holds the arrays {names}: name one of them, as the option array")
    info = members[options.array] if options.array is not None else next(iter(members.values()))
    if info.file_size > options.limits.bytes:
        raise DataError(
            f"{path}: its array {info.filename} is {info.file_size} bytes, and the limit is {options.limits.bytes}"
        )
    return info


def _checked(path: Path, stream: IO[bytes], options: Options) -> NDArray[Any]:
    version = npy.read_magic(stream)
    header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, fortran, dtype = header(stream)
    if dtype.kind not in "bui" and dtype not in (np.float16, np.float32, np.float64):
        raise DataError(f"{path} holds {dtype}: expected numbers")
    if len(shape) not in (2, 3, 4):
        raise DataError(f"{path} holds an array of shape {shape}: expected 2 to 4 axes")
    size = check_shape(path, shape, itemsize=dtype.itemsize, limits=options.limits)
    data = bytearray()
    # what the header claims is allocated only as far as the file delivers it
    while len(data) < size and (piece := stream.read(min(size - len(data), 1 << 22))):
        data += piece
    if len(data) < size:
        raise DataError(f"{path} is truncated: {len(data)} of {size} bytes are there")
    values = np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")
    if dtype.kind == "b":
        return values.astype(np.uint8)
    if dtype.kind == "f":
        return values.astype(np.float32, copy=False)
    return values.astype(dtype.newbyteorder("="), copy=False)


def _channels_first(values: NDArray[Any]) -> NDArray[Any]:
    if values.ndim == 2:
        return values[None]
    if values.shape[-1] in (1, 3) and values.shape[0] not in (1, 3):
        return np.moveaxis(values, -1, 0)
    if values.ndim == 3:
        return values if values.shape[0] in (1, 3) else values[None]
    return values

"""Limits on what a file may ask for, checked before its pixels are touched.

A header can claim any size, and a few kilobytes of deflate can become gigabytes. Nothing here trusts a claim: a size is
compared with the limit, and with what a file of its length could hold at all.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from wardround.errors import DataError

# deflate cannot shrink more than this, whatever the data (zlib's technical notes: 1032:1)
DEFLATE_RATIO = 1032

_CHUNK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The most that one picture may be.

    Attributes:
        side: length of any axis in pixels.
        frames: frames of one file, or slices of one series.
        bytes: decoded size of one picture as it lies in memory, and of a deflated file once inflated.
        file_bytes: size of one file on disk.
    """

    side: int = 16_384
    frames: int = 8_192
    bytes: int = 4 << 30
    file_bytes: int = 4 << 30


def check_file(path: Path, limits: Limits) -> int:
    """The size of a regular file in bytes.

    Raises:
        DataError: there is no such file, it is not a regular file, it is empty, or it is larger than the limit.
    """
    try:
        regular, size = path.is_file(), path.stat().st_size
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    if not regular:
        raise DataError(f"{path} is not a file")
    if size == 0:
        raise DataError(f"{path} is empty")
    if size > limits.file_bytes:
        raise DataError(f"{path} has {_size(size)}, and the limit for a file is {_size(limits.file_bytes)}")
    return size


def check_shape(
    path: Path, sides: Sequence[int], *, frames: int = 1, channels: int = 1, itemsize: int, limits: Limits
) -> int:
    """The decoded size in bytes of `frames` pictures of the given sides.

    Raises:
        DataError: a side or the number of frames is not positive or above its limit, or the whole is above the limit of
            bytes.
    """
    for side in sides:
        if side < 1:
            raise DataError(f"{path} says that it is {_times(sides)} pixels, and every side must be at least 1")
        if side > limits.side:
            raise DataError(f"{path} says that it is {_times(sides)} pixels, and the limit for a side is {limits.side}")
    if frames < 1:
        raise DataError(f"{path} says that it has {frames} frames: expected at least 1")
    if frames > limits.frames:
        raise DataError(f"{path} says that it has {frames} frames, and the limit is {limits.frames}")
    total = math.prod(sides) * frames * channels * itemsize
    if total > limits.bytes:
        raise DataError(
            f"{path} says that it is {_times(sides)} pixels, {frames} frames and {channels} channels: "
            f"{_size(total)} when decoded, and the limit is {_size(limits.bytes)}"
        )
    return total


def check_deflate(path: Path, stream: BinaryIO, limits: Limits) -> int:
    """Inflate a raw deflate stream piece by piece, keeping nothing, and return its size.

    Raises:
        DataError: it grows beyond the limit of bytes, ends early, or is not deflate.
    """
    inflater, total = zlib.decompressobj(-zlib.MAX_WBITS), 0
    data = stream.read(_CHUNK)
    try:
        while data and not inflater.eof:
            total += len(inflater.decompress(data, _CHUNK))
            if total > limits.bytes:
                raise DataError(
                    f"{path} is deflated and grows beyond {_size(limits.bytes)}, the limit: it may be a decompression bomb"
                )
            data = inflater.unconsumed_tail or stream.read(_CHUNK)
    except zlib.error as error:
        raise DataError(f"{path} says that it is deflated, and is not: {error}") from error
    if not inflater.eof:
        raise DataError(f"{path} is deflated and ends early, after {_size(total)}")
    return total


def _times(sides: Sequence[int]) -> str:
    return " x ".join(str(side) for side in sides)


def _size(count: int) -> str:
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if count >= unit:
            return f"{count / unit:.4g} {name}"
    return f"{count} bytes"

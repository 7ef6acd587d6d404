"""Photographs and pictures in everyday formats: PNG, JPEG, TIFF."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wardround.data.imaging.boundary import parsing
from wardround.data.imaging.limits import check_file, check_shape
from wardround.data.imaging.picture import Fact, Options, Picture, chosen_frames
from wardround.errors import DataError

# how Pillow calls what is stored: channels, bytes a value, and the mode to decode to (None: as it is)
_MODES: dict[str, tuple[int, int, str | None]] = {
    "1": (1, 1, "L"),
    "L": (1, 1, None),
    "LA": (1, 1, "L"),
    "I": (1, 4, None),
    "I;16": (1, 2, None),
    "I;16L": (1, 2, None),
    "I;16B": (1, 2, None),
    "F": (1, 4, None),
    "P": (3, 1, "RGB"),
    "RGB": (3, 1, None),
    "RGBA": (3, 1, "RGB"),
    "RGBX": (3, 1, "RGB"),
    "CMYK": (3, 1, "RGB"),
    "YCbCr": (3, 1, "RGB"),
    "LAB": (3, 1, "RGB"),
}


def read_photo(path: Path, options: Options) -> Picture:
    """Read a PNG, JPEG or TIFF, turned as its EXIF tag says.

    Returns:
        Grey as uint8, uint16, int32 or float32 [1, H, W]; colour as uint8 [3, H, W]. Palettes are looked up and
        transparency is dropped. A TIFF of several pages gives the page that `options.frames` asks for, or all along D.
        The modality is `options.modality`, or `PHOTO`.

    Raises:
        DataError: not such a file, damaged, truncated, above the limits, or its pages differ.
    """
    check_file(path, options.limits)
    with parsing(path, "a picture"):
        from PIL import Image, ImageOps

        with Image.open(path, formats=("PNG", "JPEG", "TIFF", "BMP", "MPO")) as image:
            pages = getattr(image, "n_frames", 1) if image.format == "TIFF" else 1
            wanted = chosen_frames(path, pages, options)
            first, mode = image.size, image.mode
            channels, itemsize, decoded = _mode(path, mode)
            check_shape(
                path, first[::-1], frames=len(wanted), channels=channels, itemsize=itemsize, limits=options.limits
            )
            check_shape(path, first[::-1], frames=pages, itemsize=0, limits=options.limits)
            planes = []
            for index in wanted:
                image.seek(index)
                if (image.size, image.mode) != (first, mode):
                    raise DataError(f"{path}: page {index} differs from page 0 in size or kind")
                upright = ImageOps.exif_transpose(image)
                planes.append(_array(upright.convert(decoded) if decoded else upright))
            bits = itemsize * 8 if mode != "1" else 1
            pixels = planes[0] if len(planes) == 1 else np.stack(planes, axis=1)
            facts: dict[str, Fact] = {
                "format": str(image.format),
                "rows": int(pixels.shape[-2]),
                "columns": int(pixels.shape[-1]),
                "bits": bits,
                "photometric": mode,
                "frames": pages,
                "camera": _by_camera(image),
            }
    return Picture(pixels=np.ascontiguousarray(pixels), modality=options.modality or "PHOTO", facts=facts)


def _by_camera(image: Any) -> bool:
    """Whether EXIF tells of an exposure through a lens: exposure time, aperture, sensitivity or focal length."""
    return bool({0x829A, 0x829D, 0x8827, 0x920A} & set(image.getexif().get_ifd(0x8769)))


def _mode(path: Path, mode: str) -> tuple[int, int, str | None]:
    try:
        return _MODES[mode]
    except KeyError:
        raise DataError(f"{path} has pixels of the kind {mode!r}: expected one of {', '.join(_MODES)}") from None


def _array(image: Any) -> NDArray[Any]:
    values = np.asarray(image)
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    return values[None] if values.ndim == 2 else np.moveaxis(values, -1, 0)

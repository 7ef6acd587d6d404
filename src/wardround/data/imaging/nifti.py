"""NIfTI 1 and 2, plain or gzipped, through nibabel."""

from __future__ import annotations

import gzip
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from wardround.data.imaging.boundary import parsing
from wardround.data.imaging.dicom import chosen_volumes, turned
from wardround.data.imaging.geometry import codes, spacing_of
from wardround.data.imaging.limits import DEFLATE_RATIO, check_file, check_shape
from wardround.data.imaging.picture import Fact, Options, Picture
from wardround.errors import DataError

# extensions lie between the header and the voxels; larger ones than this are no use to a picture
_MAX_OFFSET = 64 << 20


def read_nifti(path: Path, options: Options) -> Picture:
    """Read a volume [C, D, H, W] with axes turned to `options.orientation`.

    Where the orientation is None, D, H, W are the file's k, j, i. Of a 4D file one volume is taken, or all as channels.
    The rescaling of the header is applied (float32, else the file's integers). The modality is `options.modality`, or
    `OT`: the format does not say.

    Raises:
        DataError: not NIfTI, above the limits, truncated, of complex numbers, or a volume that is not there.
    """
    size = check_file(path, options.limits)
    with parsing(path, "NIfTI"), path.open("rb") as file:
        from nibabel.fileholders import FileHolder

        zipped = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        stream: Any = gzip.GzipFile(fileobj=file) if zipped else file
        kind = _class(path, stream.read(8))
        stream.seek(0)
        header = kind.header_class(binaryblock=stream.read(kind.header_class.template_dtype.itemsize))
        shape, dtype, offset = header.get_data_shape(), header.get_data_dtype(), int(header.get_data_offset())
        if not bytes(header["magic"]).startswith(b"n+"):
            raise DataError(f"{path} is half of a pair of files, .hdr and .img: join them to one .nii first")
        if len(shape) < 2 or not 0 <= offset <= _MAX_OFFSET:
            raise DataError(
                f"{path} has {len(shape)} axes, and its voxels begin at byte {offset}: "
                f"expected 2 axes or more, and at most {_MAX_OFFSET}"
            )
        sides, rest = (*shape, 1)[:3], shape[3:]
        count = math.prod(rest)
        if dtype.kind == "c":
            raise DataError(f"{path} holds complex numbers: expected magnitudes")
        check_shape(path, sides, frames=count, itemsize=0, limits=options.limits)
        wanted = chosen_volumes(path, count, options)
        colours = len(dtype.names) if dtype.names else 1
        check_shape(path, sides, channels=len(wanted) * colours, itemsize=4, limits=options.limits)
        claimed = math.prod(sides) * count * dtype.itemsize
        if claimed > (size * DEFLATE_RATIO if zipped else size - offset):
            raise DataError(
                f"{path} is truncated: it claims {claimed} bytes of voxels, and a file of {size} cannot hold them"
            )
        stream.seek(0)
        image = kind.from_file_map({"image": FileHolder(fileobj=stream)})
        known = int(header["sform_code"]) > 0 or int(header["qform_code"]) > 0
        scale = {"meter": 1e3, "micron": 1e-3}.get(header.get_xyzt_units()[0], 1.0)
        affine = np.diag([scale, scale, scale, 1.0]) @ np.asarray(image.affine, dtype=np.float64)[:, [2, 1, 0, 3]]
        if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
            raise DataError(f"{path}: its affine is singular, so its voxels have no place in the patient")
        proxy = image.dataobj
        slope, intercept = float(proxy.slope), float(proxy.inter)
        plain = (slope, intercept) == (1.0, 0.0)
        stored = np.dtype(np.uint8) if dtype.names else dtype.newbyteorder("=")
        target = stored if plain and stored.kind in "iu" and stored.itemsize <= 4 else np.dtype(np.float32)
        asked = options if known else replace(options, orientation=None)
        volume, views, final = turned(
            path, (sides[2], sides[1], sides[0]), affine, len(wanted) * colours, target, asked
        )
        flat = tuple(0 for _ in range(max(0, 3 - len(shape))))
        for place, number in enumerate(wanted):
            at = np.unravel_index(number, rest, order="F") if rest else ()
            values = np.asarray(proxy[(..., *(int(index) for index in at))] if rest else proxy)
            values = values.reshape(sides) if flat else values
            for colour in range(colours):
                part = values[values.dtype.names[colour]] if values.dtype.names else values
                views[place * colours + colour][:] = part.T
    spacing, orientation = spacing_of(final), codes(final) if known else None
    facts: dict[str, Fact] = {
        "format": "NIfTI",
        "rows": int(volume.shape[-2]),
        "columns": int(volume.shape[-1]),
        "slices": int(volume.shape[-3]),
        "bits": stored.itemsize * 8,
        "volumes": count,
        "orientation_known": known,
    }
    picture = Picture(
        pixels=volume,
        modality=options.modality or "OT",
        spacing=spacing,
        orientation=orientation,
        affine=final if known else None,
        facts=facts,
    )
    return _flat(picture) if sides[2] == 1 else picture


def _class(path: Path, head: bytes) -> Any:
    import nibabel

    for kind, size in ((nibabel.Nifti1Image, 348), (nibabel.Nifti2Image, 540)):
        if size in (int.from_bytes(head[:4], "little"), int.from_bytes(head[:4], "big")):
            return kind
    raise DataError(f"{path} is not NIfTI: its header has neither 348 nor 540 bytes")


def _flat(picture: Picture) -> Picture:
    """A volume of one slice as a flat picture."""
    axis = picture.spatial.index(1)
    keep = [index for index in range(3) if index != axis]
    return replace(
        picture,
        pixels=np.ascontiguousarray(picture.pixels.squeeze(axis + 1)),
        spacing=None if picture.spacing is None else tuple(picture.spacing[index] for index in keep),
        orientation=None if picture.orientation is None else "".join(picture.orientation[index] for index in keep),
        affine=None,
    )

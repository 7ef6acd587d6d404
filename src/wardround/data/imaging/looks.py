"""Cheap checks that a picture is not what it is declared to be: no proof of anything when they pass.

They look at colour, grey levels, background, units and EXIF, and err on the side of silence: a real image with a rare look
should pass, so a grey photograph with a dark edge passes for an MR slice as well once its EXIF is gone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from wardround.data.imaging.picture import Picture

_GREY = ("CT", "MR", "XR")
# a pixel is in colour when its channels differ by more than JPEG's chroma makes of grey
_COLOUR = 24
_MAX_COLOUR = {"CT": 0.05, "MR": 0.05, "XR": 0.05, "US": 0.5}
_FEWEST_LEVELS = 8
_SMALLEST = 64
_PAPER = 0.6
# skin under a dermatoscope is red to brown; of 4,611 images of HAM10000 none comes near these mean differences
_SKIN = {"blue": 40.0, "green": 25.0}
_SAMPLE = 1 << 18


def looks_like(picture: Picture, modality: str) -> str | None:
    """Why a picture does not look like the modality it is declared to be, or None where nothing speaks against it.

    Args:
        picture: as read.
        modality: one of `MODALITIES`; `PHOTO` and `OT` may look like anything.
    """
    told = picture.facts.get("format") == "DICOM"
    if told and picture.modality not in (modality, "OT") and modality not in ("PHOTO", "OT"):
        return f"its header says {picture.modality}, not {modality}"
    if modality in ("PHOTO", "OT"):
        return None
    values = _flat(picture.pixels)
    for reason in (_colours(values, modality), _levels(picture, values), _units(picture, values, modality)):
        if reason:
            return f"does not look like {modality}: {reason}"
    if modality in ("CT", "MR") and not told and (reason := _camera(picture) or _background(picture)):
        return f"does not look like {modality}: {reason}"
    return None


def numbers_of(picture: Picture, modality: str) -> str:
    """A warning where the numbers of a CT cannot be Hounsfield units, "" for all else.

    Air is at -1000, so numbers without a sign are grey values that somebody made of them, by a window nobody wrote down.
    """
    if modality != "CT" or picture.pixels.dtype.kind != "u":
        return ""
    return "its numbers have no sign, so they are grey values of some window and no Hounsfield units"


def _flat(pixels: NDArray[Any]) -> NDArray[np.float32]:
    """[C, n], evenly spaced over all pixels."""
    flat = pixels.reshape(len(pixels), -1)
    step = -(-flat.shape[1] // _SAMPLE)
    # a step that shares no factor with the width visits every column
    while step > 1 and pixels.shape[-1] % step == 0:
        step += 1
    return flat[:, ::step].astype(np.float32)


def _colours(values: NDArray[np.float32], modality: str) -> str | None:
    coloured = float((np.ptp(values, axis=0) > _COLOUR).mean()) if len(values) == 3 else 0.0
    if modality == "DERM":
        if len(values) != 3 or float(np.ptp(values, axis=0).max()) <= _COLOUR / 4:
            return "it is grey, and dermoscopy is in colour"
        red, green, blue = values.mean(axis=1)
        if blue - red > _SKIN["blue"] or green - red > _SKIN["green"]:
            return f"it is {'blue' if blue > green else 'green'} on the whole, and skin is not"
    if coloured > _MAX_COLOUR.get(modality, 1.0):
        return f"{coloured:.0%} of its pixels are in colour"
    return None


def _levels(picture: Picture, values: NDArray[np.float32]) -> str | None:
    levels = len(np.unique(values[0]))
    if min(picture.spatial[-2:]) >= 16 and 1 < levels < _FEWEST_LEVELS:
        return f"it has {levels} levels, like a mask or a drawing"
    white = float((values.min(axis=0) >= 250).mean()) if picture.pixels.dtype == np.uint8 else 0.0
    return f"{white:.0%} of it is white, like a page" if white > _PAPER else None


def _units(picture: Picture, values: NDArray[np.float32], modality: str) -> str | None:
    if modality != "CT" or picture.facts.get("format") != "DICOM" or min(picture.spatial[-2:]) < _SMALLEST:
        return None
    low, high = float(values.min()), float(values.max())
    return f"no value is that of air ({low:.0f} to {high:.0f}): are they Hounsfield units?" if low > -100 else None


def _camera(picture: Picture) -> str | None:
    return "its EXIF tells of an exposure by a camera" if picture.facts.get("camera") else None


def _background(picture: Picture) -> str | None:
    """Slices exported to pictures of 8 bits have dark surroundings; photographs go on to their edge."""
    if picture.pixels.dtype != np.uint8 or picture.pixels.ndim != 3 or min(picture.spatial) < 16:
        return None
    grey = picture.pixels.mean(axis=0, dtype=np.float32)
    low, high = np.percentile(grey, [0.5, 99])
    dark = grey <= low + 0.15 * (high - low)
    band = max(1, min(grey.shape) // 16)
    edge = np.ones_like(dark)
    edge[band:-band, band:-band] = False
    around = float(dark[edge].mean())
    return (
        f"it has no dark background ({around:.0%} of its edge is dark)"
        if around < 0.05 and dark.mean() < 0.15
        else None
    )

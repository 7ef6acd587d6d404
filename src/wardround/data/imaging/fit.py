"""From a picture in the units of its modality to an array as every other of its site: range, channels, size.

Grey values between `low` and `high` become 0 to 1: a window in Hounsfield units for CT, percentiles of the picture itself
for MR and radiographs with more than 8 bits, the range of the bytes for all else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from wardround.data.imaging.picture import Picture
from wardround.data.imaging.pixels import apply_window
from wardround.data.imaging.resample import resample
from wardround.errors import ConfigError, DataError

WINDOWS = {
    "brain": (0.0, 80.0),
    "subdural": (-20.0, 180.0),
    "stroke": (8.0, 72.0),
    "bone": (-800.0, 2000.0),
    "soft-tissue": (-160.0, 240.0),
    "abdomen": (-160.0, 240.0),
    "liver": (-45.0, 105.0),
    "mediastinum": (-125.0, 225.0),
    "lung": (-1350.0, 150.0),
    "wide": (-1024.0, 1024.0),
}
"""Windows of CT in Hounsfield units, (low, high)."""
_PERCENTILES = {"MR": (1.0, 99.0)}
_OTHERWISE = (0.5, 99.5)
_LUMINANCE = (0.299, 0.587, 0.114)
"""Of red, green and blue: ITU-R BT.601."""
_SAMPLE = 2**20


@dataclass(frozen=True, kw_only=True)
class Fit:
    """What all pictures of a site become.

    Attributes:
        size: (height, width), or (depth, height, width) of volumes.
        channels: 1 or 3.
        dtype: uint8 (0 to 255), float16 or float32 (0 to 1).
        how: `pad` keeps the whole picture and its proportions, `crop` fills the frame and cuts what stands out, `stretch`
            changes proportions.
        window: grey values that become black and white, in the units of the modality; `tags` what the file itself proposes
            (`Picture.voi`), where it proposes something; None takes the modality's way.
        spacing: mm between neighbours along each axis, to which pictures are resampled before they are padded or cut; None
            scales them to the size.
    """

    size: tuple[int, ...]
    channels: int
    dtype: Literal["uint8", "float16", "float32"] = "uint8"
    how: Literal["pad", "crop", "stretch"] = "pad"
    window: tuple[float, float] | Literal["tags"] | None = None
    spacing: tuple[float, ...] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """[C, *size]."""
        return (self.channels, *self.size)

    @property
    def scale(self) -> tuple[float, float]:
        """The stored numbers that are black and white."""
        return (0.0, 255.0) if self.dtype == "uint8" else (0.0, 1.0)


def parse_window(text: str) -> tuple[float, float] | Literal["tags"]:
    """A window by name, or as `LOW,HIGH`; or `tags`.

    Raises:
        ConfigError: it is neither.
    """
    if text == "tags":
        return "tags"
    if text in WINDOWS:
        return WINDOWS[text]
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        low, high = 0.0, 0.0
    if not low < high:
        raise ConfigError(
            f"window = {text!r}: expected LOW,HIGH in the units of the pixels, or one of {', '.join(WINDOWS)}"
        )
    return low, high


def fitted(picture: Picture, fit: Fit) -> NDArray[Any]:
    """The picture as an array [C, *size] of `fit.dtype`.

    Raises:
        DataError: a volume where flat pictures are wanted or the reverse, no spacing where one is asked for, or a window in
            Hounsfield units of a CT whose numbers are none.
    """
    if picture.facts.get("tilt") and len(fit.size) == 3:
        picture = resample(picture)
    pixels = picture.pixels
    if pixels.ndim - 1 > len(fit.size) and pixels.shape[1] == 1:
        pixels = pixels[:, 0]
    if pixels.ndim - 1 < len(fit.size):
        raise DataError(f"it is flat, and volumes of {_times(fit.size)} are wanted")
    if pixels.ndim - 1 > len(fit.size):
        raise DataError(f"it is a volume of {_times(pixels.shape[1:])}, and pictures of {_times(fit.size)} are wanted")
    if (
        picture.modality == "CT"
        and pixels.dtype.kind == "u"
        and (pixels.dtype != np.uint8 or isinstance(fit.window, tuple))
    ):
        raise DataError(
            "its numbers have no sign, so they are no Hounsfield units, and a window of those means nothing: give the "
            "original, or a picture of 8 bits without a window"
        )
    target = _target(picture, pixels.shape[1:], fit)
    pixels = _channels(_shown(picture, pixels, fit), fit.channels)
    resized = _resized(pixels, target)
    framed = _framed(resized, fit.size)
    if fit.dtype == "uint8":
        return framed if framed.dtype == np.uint8 else np.rint(np.clip(framed, 0, 1) * 255).astype(np.uint8)
    return (framed / np.float32(255) if framed.dtype == np.uint8 else framed).astype(fit.dtype)


def _shown(picture: Picture, pixels: NDArray[Any], fit: Fit) -> NDArray[Any]:
    if fit.window != "tags":
        return _ranged(pixels, picture.modality, fit.window)
    if picture.voi is None:
        return _ranged(pixels, picture.modality, None)
    return apply_window(pixels, picture.voi)


def _ranged(pixels: NDArray[Any], modality: str, window: tuple[float, float] | None) -> NDArray[Any]:
    """float32 in 0 to 1, or uint8 as it is."""
    if window is None and pixels.dtype == np.uint8:
        return pixels
    if window is None and modality == "CT":
        window = WINDOWS["wide"]
    if window is None:
        sample = pixels.ravel()[:: max(pixels.size // _SAMPLE, 1)]
        low, high = (float(x) for x in np.percentile(sample, _PERCENTILES.get(modality, _OTHERWISE)))
        if high <= low:
            low, high = float(sample.min()), float(sample.max())
    else:
        low, high = window
    values = pixels.astype(np.float32)
    np.subtract(values, low, out=values)
    np.multiply(values, 1.0 / (high - low) if high > low else 0.0, out=values)
    return np.clip(values, 0.0, 1.0, out=values)


def _channels(pixels: NDArray[Any], wanted: int) -> NDArray[Any]:
    if len(pixels) == wanted:
        return pixels
    if len(pixels) == 1:
        return np.repeat(pixels, wanted, axis=0)
    if len(pixels) == 2:
        return _channels(pixels[:1], wanted)
    if wanted == 3:
        return pixels[:3]
    grey = np.tensordot(np.array(_LUMINANCE, dtype=np.float32), pixels[:3].astype(np.float32), axes=1)[None]
    return np.rint(grey).astype(np.uint8) if pixels.dtype == np.uint8 else grey


def _target(picture: Picture, sides: Sequence[int], fit: Fit) -> tuple[int, ...]:
    """The size to scale to, before padding or cutting."""
    if fit.spacing is not None:
        if picture.spacing is None or len(picture.spacing) != len(fit.spacing):
            raise DataError("its spacing is not known, and a spacing is asked for")
        return tuple(
            max(round(side * own / new), 1) for side, own, new in zip(sides, picture.spacing, fit.spacing, strict=True)
        )
    if fit.how == "stretch":
        return fit.size
    ratios = [new / side for side, new in zip(sides, fit.size, strict=True)]
    if len(fit.size) == 3:  # slices are apart as they are: only the plane keeps its proportions
        ratio = min(ratios[1:]) if fit.how == "pad" else max(ratios[1:])
        return (fit.size[0], *(max(round(side * ratio), 1) for side in sides[1:]))
    ratio = min(ratios) if fit.how == "pad" else max(ratios)
    return tuple(max(round(side * ratio), 1) for side in sides)


def _resized(pixels: NDArray[Any], size: tuple[int, ...]) -> NDArray[Any]:
    if pixels.shape[1:] == size:
        return pixels
    if len(size) == 2:
        return _resized_flat(pixels, size)
    import torch
    from monai.transforms.spatial.array import Resize

    smooth = any(new < old for new, old in zip(size, pixels.shape[1:], strict=True))
    values = pixels.astype(np.float32) / (255 if pixels.dtype == np.uint8 else 1)
    made = Resize(spatial_size=size, mode="trilinear", anti_aliasing=smooth)(torch.from_numpy(values))
    return np.asarray(made, dtype=np.float32)


def _resized_flat(pixels: NDArray[Any], size: tuple[int, ...]) -> NDArray[Any]:
    """Bilinear with a support that grows with the reduction, so that nothing aliases."""
    from PIL import Image

    height, width = size
    if pixels.dtype == np.uint8 and len(pixels) in (1, 3):
        image = Image.fromarray(pixels[0] if len(pixels) == 1 else np.ascontiguousarray(np.moveaxis(pixels, 0, -1)))
        made = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
        return made[None] if made.ndim == 2 else np.ascontiguousarray(np.moveaxis(made, -1, 0))
    planes = (Image.fromarray(plane.astype(np.float32)) for plane in pixels)
    return np.stack([np.asarray(plane.resize((width, height), Image.Resampling.BILINEAR)) for plane in planes])


def _framed(pixels: NDArray[Any], size: tuple[int, ...]) -> NDArray[Any]:
    """Padded with black, or cut, about the centre."""
    if pixels.shape[1:] == size:
        return np.ascontiguousarray(pixels)
    framed = np.zeros((len(pixels), *size), dtype=pixels.dtype)
    here, there = [slice(None)], [slice(None)]
    for own, wanted in zip(pixels.shape[1:], size, strict=True):
        common = min(own, wanted)
        here.append(slice((own - common) // 2, (own - common) // 2 + common))
        there.append(slice((wanted - common) // 2, (wanted - common) // 2 + common))
    framed[tuple(there)] = pixels[tuple(here)]
    return framed


def _times(sides: Sequence[int]) -> str:
    return " x ".join(str(side) for side in sides)

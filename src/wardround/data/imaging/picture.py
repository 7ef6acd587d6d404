"""What reading an image gives, and what one may ask of the reader."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from wardround.data.imaging.limits import Limits
from wardround.errors import ConfigError, DataError

Fact = str | int | float | bool | tuple[str, ...] | tuple[int, ...]

MODALITIES = ("CT", "MR", "XR", "US", "DERM", "PHOTO", "OT")

# standing axial slices as a radiologist hangs them: first slice at the feet, first row at the front, first column at
# the patient's right
CANONICAL = "SPL"


@dataclass(frozen=True, kw_only=True)
class Window:
    """A grey-scale window in the units of the pixels (DICOM PS3.3 C.11.2.1.2).

    Attributes:
        centre: WindowCenter.
        width: WindowWidth, at least 1 for `LINEAR`, above 0 otherwise.
        function: VOILUTFunction.
    """

    centre: float
    width: float
    function: Literal["LINEAR", "LINEAR_EXACT", "SIGMOID"] = "LINEAR"


@dataclass(frozen=True, kw_only=True)
class Table:
    """A VOI look-up table (PS3.3 C.11.2.1.1): value `first` maps to `values[0]`, values outside to the nearest entry.

    Attributes:
        first: the first value that is mapped.
        values: float32 [n] in [0, 1].
    """

    first: float
    values: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to read of a file that holds more than one picture, and how.

    Attributes:
        modality: what the file is declared to be, one of `MODALITIES`; for files that do not say so themselves.
        frames: of frames that are no volume (a cine loop, a multi-page TIFF): `middle`, `first`, `all` (along D), or a
            frame's number from 0.
        volume: of several volumes in one file or series (4D NIfTI, echoes, time points): which, from 0, or `channels`
            to take all of them as channels.
        orientation: the anatomical directions in which a volume's axes D, H, W grow, of the letters L R, A P, S I;
            None keeps the order of the file. Flat pictures are never turned.
        crop_ultrasound: cut to the regions that the header calls tissue, which leaves out the margin and its texts.
        array: the name of the array in an npz file; needed where there are several.
        spacing_tolerance: how far the distance between slices may vary within a volume, relative.
        limits: what is refused before pixels are touched.
    """

    modality: str | None = None
    frames: Literal["middle", "first", "all"] | int = "middle"
    volume: int | Literal["channels"] = 0
    orientation: str | None = CANONICAL
    crop_ultrasound: bool = True
    array: str | None = None
    spacing_tolerance: float = 0.05
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        """Refuse what means nothing."""
        if self.modality is not None and self.modality not in MODALITIES:
            raise ConfigError(f"modality is {self.modality!r}: expected one of {', '.join(MODALITIES)}")
        if isinstance(self.frames, str) and self.frames not in ("middle", "first", "all"):
            raise ConfigError(
                f"frames is {self.frames!r}: expected middle, first, all, or the number of a frame from 0"
            )
        if isinstance(self.volume, str) and self.volume != "channels":
            raise ConfigError(f"volume is {self.volume!r}: expected channels, or the number of a volume from 0")
        if self.orientation is not None:
            check_orientation(self.orientation)
        if not self.spacing_tolerance >= 0:
            raise ConfigError(f"spacing_tolerance is {self.spacing_tolerance}: expected 0 or more")


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One image or volume in the units of its modality, before any window.

    Attributes:
        pixels: [C, H, W] or [C, D, H, W], C-contiguous; float32, or an integer type where that is exact. Hounsfield
            units for CT; what the modality LUT or rescaling gives for others; 0 to 255 for colour. MONOCHROME1 is
            inverted, so that bright is bright, except for CT, whose units say it all.
        modality: one of `MODALITIES`.
        spacing: mm between neighbours along each spatial axis, or None where it is not known.
        orientation: for each spatial axis the direction (L R A P S I) in which its index grows, or None.
        affine: float64 [4, 4] from voxel indices in the order D, H, W to mm in RAS+ (right, anterior and superior
            positive) for volumes, or None.
        voi: the window or table that the file proposes for display, or None.
        facts: what is safe to write down: sizes, bits, photometric interpretation, kind of image. No identifiers.
    """

    pixels: NDArray[Any]
    modality: str
    spacing: tuple[float, ...] | None = None
    orientation: str | None = None
    affine: NDArray[np.float64] | None = None
    voi: Window | Table | None = None
    facts: Mapping[str, Fact] = field(default_factory=dict)

    @property
    def spatial(self) -> tuple[int, ...]:
        """Sizes of the axes H, W or D, H, W."""
        return self.pixels.shape[1:]


def check_orientation(orientation: str) -> None:
    """Raise ConfigError unless the three letters name each anatomical axis once."""
    axes = ["LR", "AP", "SI"]
    found = [next((axis for axis in axes if letter in axis), None) for letter in orientation]
    if len(orientation) != 3 or None in found or len(set(found)) != 3:
        raise ConfigError(
            f"orientation is {orientation!r}: expected three letters, one each of L or R, A or P, S or I, such as {CANONICAL}"
        )


def chosen_frames(path: Path, count: int, options: Options) -> list[int]:
    """The numbers of the frames that `options.frames` asks for, of `count`.

    Raises:
        DataError: there is no frame of that number.
    """
    if options.frames == "all":
        return list(range(count))
    index = (
        {"middle": count // 2, "first": 0}.get(options.frames, -1)
        if isinstance(options.frames, str)
        else options.frames
    )
    if not 0 <= index < count:
        raise DataError(f"{path} has {count} frames, and frame {index} was asked for: they count from 0")
    return [index]

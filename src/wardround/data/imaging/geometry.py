"""Where slices lie in the patient, and how they make a volume.

The position of pixel (row i, column j) of a DICOM plane is, in LPS mm (PS3.3 C.7.6.2.1.1, equation C.7.6.2.1-1),

    position + column_cosine * row_spacing * i + row_cosine * column_spacing * j .

Affines here are in RAS+ mm like those of NIfTI, so the first two coordinates change their sign.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wardround.errors import DataError

_LPS_TO_RAS = np.array([-1.0, -1.0, 1.0])
# cosines in headers are often rounded to three or four digits
_ANGLE = 5e-3


@dataclass(frozen=True, kw_only=True)
class Plane:
    """One slice: its corner, its directions, its grid.

    Attributes:
        position: ImagePositionPatient, LPS mm.
        cosines: ImageOrientationPatient: direction of a row, then of a column.
        spacing: PixelSpacing: between rows, then between columns, mm.
    """

    position: tuple[float, float, float]
    cosines: tuple[float, float, float, float, float, float]
    spacing: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Stack:
    """Slices in order.

    Attributes:
        order: for each place along D the indices of the planes there, one a volume.
        affine: float64 [4, 4], voxel indices D, H, W to RAS+ mm.
        tilt: angle between the direction of the stack and the normal of its slices, degrees (a tilted gantry).
    """

    order: tuple[tuple[int, ...], ...]
    affine: NDArray[np.float64]
    tilt: float


def stack(path: Path, planes: Sequence[Plane], *, tolerance: float) -> Stack:
    """Order planes along their common normal.

    Args:
        path: for messages.
        planes: at least two.
        tolerance: how far a distance between neighbours may be from the median distance, relative.

    Raises:
        DataError: the planes are not parallel or differ in pixel spacing, some places hold more planes than others,
            slices are missing, their distances vary, or they do not lie on one line.
    """
    cosines = np.array([plane.cosines for plane in planes])
    if np.abs(cosines - cosines[0]).max() > _ANGLE:
        raise DataError(
            f"{path}: the slices are not parallel: expected one ImageOrientationPatient; is a localiser among them?"
        )
    spacings = np.array([plane.spacing for plane in planes])
    if not np.allclose(spacings, spacings[0], rtol=1e-3):
        raise DataError(f"{path}: PixelSpacing differs between slices ({_pair(spacings[0])} and others)")
    row, column = cosines[0][:3], cosines[0][3:]
    normal = np.cross(row, column)
    if not np.isclose(np.linalg.norm(normal), 1.0, atol=2e-2):
        raise DataError(f"{path}: ImageOrientationPatient is not two perpendicular unit vectors")
    positions = np.array([plane.position for plane in planes])
    places = _places(path, positions @ normal)
    firsts = positions[[place[0] for place in places]]
    depths = firsts @ normal
    _regular(path, depths, tolerance)
    step = (firsts[-1] - firsts[0]) / max(len(places) - 1, 1) if len(places) > 1 else normal
    straight = firsts[0] + np.arange(len(places))[:, None] * step
    length = float(np.linalg.norm(step))
    if np.abs(firsts - straight).max() > max(tolerance * length, 0.02):
        raise DataError(f"{path}: the slices do not lie on one line: their corners shift from slice to slice")
    tilt = float(np.degrees(np.arccos(np.clip(step @ normal / length, -1.0, 1.0))))
    affine = np.eye(4)
    affine[:3, 0] = step * _LPS_TO_RAS
    affine[:3, 1] = column * spacings[0][0] * _LPS_TO_RAS
    affine[:3, 2] = row * spacings[0][1] * _LPS_TO_RAS
    affine[:3, 3] = firsts[0] * _LPS_TO_RAS
    return Stack(order=places, affine=affine, tilt=0.0 if tilt < 0.5 else tilt)


def plane_orientation(plane: Plane) -> str:
    """The anatomical directions in which rows follow each other (H) and columns do (W), such as `PL`."""
    return _letter(np.array(plane.cosines[3:])) + _letter(np.array(plane.cosines[:3]))


def codes(affine: NDArray[np.float64]) -> str:
    """The anatomical direction in which the index of each axis grows, three letters."""
    return "".join(_orientations().aff2axcodes(affine))


def spacing_of(affine: NDArray[np.float64]) -> tuple[float, ...]:
    """Length of a step along each axis, mm."""
    return tuple(float(length) for length in np.linalg.norm(affine[:3, :3], axis=0))


def reorient(
    shape: Sequence[int], affine: NDArray[np.float64], orientation: str | None
) -> tuple[NDArray[Any], tuple[int, ...], NDArray[np.float64]]:
    """How axes must be swapped and flipped.

    Args:
        shape: D, H, W of the file.
        affine: its affine.
        orientation: three letters, or None for the axes as they are.

    Returns:
        nibabel's transform of orientations [3, 2], the new shape, the new affine.
    """
    orientations = _orientations()
    start = orientations.io_orientation(affine)
    end = start if orientation is None else orientations.axcodes2ornt(tuple(orientation))
    transform = orientations.ornt_transform(start, end)
    turned = tuple(int(shape[int(np.flatnonzero(transform[:, 0] == axis)[0])]) for axis in range(3))
    return transform, turned, affine @ orientations.inv_ornt_aff(transform, tuple(shape))


def file_view(volume: NDArray[Any], transform: NDArray[Any]) -> NDArray[Any]:
    """A view of a turned volume [D, H, W] in the axes of the file, so that slices can be written without a copy."""
    back = volume.transpose([int(axis) for axis in transform[:, 0]])
    return back[tuple(slice(None, None, int(flip)) for flip in transform[:, 1])]


def _orientations() -> Any:
    # untyped in nibabel
    from nibabel import orientations

    return orientations


def _places(path: Path, depths: NDArray[np.float64]) -> tuple[tuple[int, ...], ...]:
    order = np.argsort(depths, kind="stable")
    gaps = np.diff(depths[order])
    wide = gaps[gaps > 1e-3]
    same = 0.01 * float(np.median(wide)) if wide.size else np.inf
    places: list[list[int]] = [[int(order[0])]]
    for index, gap in zip(order[1:], gaps, strict=True):
        if gap <= max(same, 1e-3):
            places[-1].append(int(index))
        else:
            places.append([int(index)])
    counts = {len(place) for place in places}
    if len(counts) > 1:
        twice = next(place for place in places if len(place) > min(counts))
        raise DataError(
            f"{path}: {len(twice)} slices lie at {depths[twice[0]]:.2f} mm and {min(counts)} elsewhere: "
            "expected as many at every position; are there duplicates?"
        )
    return tuple(tuple(place) for place in places)


def _regular(path: Path, depths: NDArray[np.float64], tolerance: float) -> None:
    gaps = np.diff(depths)
    if gaps.size == 0:
        return
    usual = float(np.median(gaps))
    off = np.abs(gaps - usual) > np.maximum(tolerance * usual, 0.01)
    if not off.any():
        return
    first = int(np.flatnonzero(off)[0])
    ratio = gaps[off] / usual
    whole = np.rint(ratio)
    if ((whole >= 2) & (np.abs(ratio - whole) <= np.maximum(tolerance * whole, 0.02))).all():
        raise DataError(
            f"{path}: {int((whole - 1).sum())} of {int((whole - 1).sum()) + len(depths)} slices are missing, the first "
            f"after {depths[first]:.2f} mm (slices lie {usual:.3g} mm apart)"
        )
    raise DataError(
        f"{path}: the distance between slices varies from {gaps.min():.3g} to {gaps.max():.3g} mm: "
        f"expected one distance, within {tolerance:.0%}"
    )


def _letter(direction: NDArray[np.float64]) -> str:
    axis = int(np.abs(direction).argmax())
    return ("RL", "AP", "IS")[axis][int(direction[axis] > 0)]


def _pair(values: NDArray[np.float64]) -> str:
    return " x ".join(f"{value:.4g}" for value in values)

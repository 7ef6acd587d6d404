"""Pictures on another grid: to a spacing in mm or to a size, anti-aliased along the axes that get coarser.

Voxels are areas with their centres half a step inside the picture's border, so that the border stays where it is:
index i of the new grid reads the old one at (i + 1/2) f - 1/2, with f the ratio of the spacings. Before an axis is made coarser
it is smoothed by a Gaussian of sigma (f - 1)/2, as scikit-image and MONAI do. Axes are treated one by one, so a volume of
thick slices keeps what detail it has in their plane.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from wardround.data.imaging.geometry import spacing_of
from wardround.data.imaging.picture import Picture
from wardround.errors import ConfigError, DataError


def resample(picture: Picture, *, spacing: Sequence[float] | None = None, size: Sequence[int] | None = None) -> Picture:
    """Interpolate linearly to a new spacing, or a new size over the same extent.

    A volume from a tilted gantry is set upright on the way: its grid becomes rectangular about the same centre, and what
    lies outside of what was scanned takes the lowest value. With neither spacing nor size only that is done.

    Args:
        picture: [C, H, W] or [C, D, H, W].
        spacing: mm along each spatial axis; sizes are rounded to whole voxels.
        size: voxels along each spatial axis.

    Returns:
        The picture with float32 pixels, or itself where nothing changes.

    Raises:
        ConfigError: both are given, or not one positive number for each axis.
        DataError: a spacing is asked of a picture that does not know its own.
    """
    sides = picture.spatial
    if spacing is not None and size is not None:
        raise ConfigError("resample was given a spacing and a size: expected one of them")
    wanted = spacing if spacing is not None else size
    if wanted is not None and (len(wanted) != len(sides) or not all(value > 0 for value in wanted)):
        name = "spacing" if spacing is not None else "size"
        raise ConfigError(f"{name} is {tuple(wanted)}: expected a positive number for each of {len(sides)} axes")
    own = picture.spacing
    if spacing is not None and own is None:
        raise DataError(
            "The picture's spacing is not known, so that it cannot be resampled to one: give a size instead"
        )
    tilted = picture.affine is not None and _tilted(picture.affine)
    if spacing is not None and own is not None:
        goal = tuple(max(1, round(side * old / new)) for side, old, new in zip(sides, own, spacing, strict=True))
        factors = np.array([new / old for old, new in zip(own, spacing, strict=True)])
    else:
        goal = sides if size is None else tuple(int(side) for side in size)
        factors = np.array([side / new for side, new in zip(sides, goal, strict=True)])
    if goal == sides and np.allclose(factors, 1) and not tilted:
        return picture
    matrix = np.diag(factors)
    upright = None if picture.affine is None else picture.affine[:3, :3]
    if tilted and picture.affine is not None:
        upright = _upright(picture.affine[:3, :3])
        matrix = np.linalg.solve(picture.affine[:3, :3], upright) @ matrix
    # the centres of both grids coincide
    offset = (np.array(sides) - 1) / 2 - matrix @ ((np.array(goal) - 1) / 2)
    pixels = np.stack(
        [_interpolated(channel, matrix, offset, goal, factors, tilted=tilted) for channel in picture.pixels]
    )
    affine = None
    if picture.affine is not None and upright is not None:
        affine = np.eye(4)
        affine[:3, :3] = upright * factors
        affine[:3, 3] = (picture.affine @ [*offset, 1.0])[:3]
    steps = spacing_of(affine) if affine is not None else _scaled(own, factors)
    facts = {name: fact for name, fact in picture.facts.items() if name != "tilt"}
    return replace(picture, pixels=pixels, spacing=steps, affine=affine, facts=facts)


def _interpolated(
    channel: NDArray[np.generic],
    matrix: NDArray[np.float64],
    offset: NDArray[np.float64],
    goal: tuple[int, ...],
    factors: NDArray[np.float64],
    *,
    tilted: bool,
) -> NDArray[np.float32]:
    from scipy import ndimage

    values = channel.astype(np.float32)
    lowest = float(values.min())
    for axis, factor in enumerate(factors):
        if factor > 1:
            ndimage.gaussian_filter1d(values, (factor - 1) / 2, axis=axis, mode="nearest", output=values)
    diagonal = not tilted
    out = np.empty(goal, dtype=np.float32)
    ndimage.affine_transform(
        values,
        np.diag(matrix) if diagonal else matrix,
        offset,
        output_shape=goal,
        output=out,
        order=1,
        mode="nearest" if diagonal else "constant",
        cval=lowest,
    )
    return out


def _tilted(affine: NDArray[np.float64]) -> bool:
    unit = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return bool(np.abs(unit.T @ unit - np.eye(3)).max() > 8e-3)


def _upright(axes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of the axes that are oblique the one with the longest steps, the slices', is made perpendicular to the others."""
    lengths = np.linalg.norm(axes, axis=0)
    unit = axes / lengths
    oblique = np.abs(unit.T @ unit - np.eye(3)).sum(axis=0)
    slices = int(np.where(oblique >= oblique.max() / 2, lengths, 0.0).argmax())
    first, second = (axis for axis in range(3) if axis != slices)
    normal = np.cross(unit[:, first], unit[:, second])
    normal /= np.linalg.norm(normal)
    upright = axes.copy()
    upright[:, slices] = normal * (axes[:, slices] @ normal)
    return upright


def _scaled(spacing: tuple[float, ...] | None, factors: NDArray[np.float64]) -> tuple[float, ...] | None:
    return None if spacing is None else tuple(float(old * factor) for old, factor in zip(spacing, factors, strict=True))

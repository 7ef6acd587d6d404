"""Small rotations, zooms, shears and shifts about the centre of the picture or volume."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from wardround.training.augment.draws import Draws, Floats


def matrices(draws: Draws, *, rotation: float, tilt: float, zoom: float, shear: float, dimensions: int) -> Floats:
    """Linear maps of output coordinates to input coordinates, in pixels, float64 [n, d, d].

    Args:
        draws: the rows' streams.
        rotation: most degrees in the plane of the last two axes.
        tilt: most degrees in the two other planes of a volume.
        zoom: greatest change of size; the factor is between 1 / (1 + zoom) and 1 + zoom, evenly on a logarithmic scale.
        shear: most degrees that an axis leans, in the plane of the last two.
        dimensions: d, 2 or 3.
    """
    drawn = draws.symmetric("affine")
    planes = list(combinations(range(dimensions), 2))[::-1]
    found = _rotations(rotation * drawn[:, 0], planes[0], dimensions)
    for number, plane in enumerate(planes[1:], start=1):
        found = found @ _rotations(tilt * drawn[:, number], plane, dimensions)
    # times a matrix of ones with the tangent at [-1, -2]
    found[:, :, -2] += np.tan(np.radians(shear * drawn[:, 3, None])) * found[:, :, -1]
    found *= np.exp(np.log1p(zoom) * drawn[:, 4])[:, None, None]
    return found


def shifts(draws: Draws, shift: float, dimensions: int) -> Floats:
    """Shifts as fractions of each side, float64 [n, d], none above `shift`."""
    return np.asarray(shift * draws.symmetric("shift")[:, :dimensions])


def _rotations(degrees: Floats, plane: tuple[int, int], dimensions: int) -> Floats:
    first, second = plane
    found = np.zeros((len(degrees), dimensions, dimensions))
    found[:, range(dimensions), range(dimensions)] = 1.0
    angle = np.radians(degrees)
    found[:, first, first] = found[:, second, second] = np.cos(angle)
    found[:, second, first] = np.sin(angle)
    found[:, first, second] = -found[:, second, first]
    return found

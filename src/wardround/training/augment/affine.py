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
    drawn = draws.symmetric(6)
    found = np.tile(np.eye(dimensions), (len(drawn), 1, 1))
    for number, (first, second) in enumerate(reversed(list(combinations(range(dimensions), 2)))):
        angle = np.radians((rotation if number == 0 else tilt) * drawn[:, number])
        turn = np.tile(np.eye(dimensions), (len(drawn), 1, 1))
        turn[:, first, first] = turn[:, second, second] = np.cos(angle)
        turn[:, second, first] = np.sin(angle)
        turn[:, first, second] = -turn[:, second, first]
        found = found @ turn
    lean = np.tile(np.eye(dimensions), (len(drawn), 1, 1))
    lean[:, -1, -2] = np.tan(np.radians(shear * drawn[:, 3]))
    return np.asarray(found @ lean * np.exp(np.log1p(zoom) * drawn[:, 4])[:, None, None])


def shifts(draws: Draws, shift: float, dimensions: int) -> Floats:
    """Shifts as fractions of each side, float64 [n, d], none above `shift`."""
    return np.asarray(shift * draws.named("shift").symmetric(dimensions))

"""From stored values to units, and from units to what a window shows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wardround.data.imaging.picture import Picture, Table, Window
from wardround.errors import ConfigError


def apply_window(values: NDArray[Any], window: Window | Table) -> NDArray[np.float32]:
    """Map values to [0, 1], float32 of the same shape.

    `LINEAR` (PS3.3 C.11.2.1.2.1): 0 up to c - 0.5 - (w - 1)/2, 1 above c - 0.5 + (w - 1)/2, straight between.
    `LINEAR_EXACT` (C.11.2.1.3.2): (v - c)/w + 0.5. `SIGMOID` (C.11.2.1.3.1): 1 / (1 + exp(-4 (v - c)/w)).

    Raises:
        ConfigError: the width is not positive.
    """
    if isinstance(window, Table):
        steps = np.clip(values.astype(np.float32) - window.first, 0, len(window.values) - 1)
        shown: NDArray[np.float32] = window.values[steps.astype(np.intp)]
        return shown
    if not window.width > 0:
        raise ConfigError(f"a window's width is {window.width}: expected more than 0")
    scaled = values.astype(np.float32)
    if window.function == "SIGMOID":
        scaled -= np.float32(window.centre)
        scaled *= np.float32(-4.0 / window.width)
        np.clip(scaled, -80, 80, out=scaled)
        np.exp(scaled, out=scaled)
        scaled += 1
        return np.reciprocal(scaled)
    width, middle = window.width, window.centre
    if window.function == "LINEAR":
        # a window of width 1 is a step
        width, middle = max(window.width - 1, 1e-6), window.centre - 0.5
    scaled -= np.float32(middle - width / 2)
    scaled *= np.float32(1 / width)
    np.clip(scaled, 0, 1, out=scaled)
    return scaled


def rescale(values: NDArray[Any], slope: float, intercept: float, *, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Values times slope plus intercept, in the given dtype; integers are cut to its range.

    Raises:
        ValueError: a slope other than 1 or a broken intercept with an integer dtype.
    """
    if dtype.kind == "f":
        scaled = values.astype(dtype)
        scaled *= dtype.type(slope)
        scaled += dtype.type(intercept)
        return scaled
    if slope != 1 or intercept != int(intercept):
        raise ValueError(f"slope {slope} and intercept {intercept} do not keep integers: expected a floating dtype")
    if intercept == 0 and values.dtype == dtype:
        return values
    limits = np.iinfo(dtype)
    return np.clip(values.astype(np.int64) + int(intercept), limits.min, limits.max).astype(dtype)


def invert(picture: Picture, total: float) -> Picture:
    """Mirror the values: v becomes total - v, and the window with them.

    For `LINEAR`, whose centre lies half a unit beside the middle, the mirrored centre is total - c + 1.
    """
    pixels = (picture.pixels.dtype.type(total) - picture.pixels).astype(picture.pixels.dtype, copy=False)
    voi = picture.voi
    if isinstance(voi, Window):
        voi = replace(voi, centre=total - voi.centre + (1.0 if voi.function == "LINEAR" else 0.0))
    elif voi is not None:
        voi = Table(first=total - (voi.first + len(voi.values) - 1), values=np.ascontiguousarray(1 - voi.values[::-1]))
    return replace(picture, pixels=pixels, voi=voi)

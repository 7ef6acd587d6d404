"""Scanners: what makes the images of two hospitals differ though their patients do not.

Site k has one scanner, drawn from its own stream, and every image of the site, whatever its split, is seen through it. With
u in [0, 1] of low..high, the range of the values:

    resolution   u is smoothed, read at 1 / r of the points, and interpolated back     r in 1 .. 1 + resolution
    blur         u is smoothed with a Gaussian of s pixels                              s in 0 .. blur
    bias field   u exp(b f), f a smooth field of the site with values in -1 .. 1        b in 0 .. bias_field
    contrast     1/2 + c (u - 1/2)                                                      log c normal, deviation contrast
    gamma        u^g                                                                    log g normal, deviation gamma
    noise        u + n e, e standard normal at each pixel                               n in 0 .. noise

in this order, and then back to low..high. A bias field is the coil's in MRI (Sled, Zijdenbos and Evans 1998), and uneven
exposure elsewhere. Nothing leaves low..high; integers are rounded and stay
in the range of their type.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wardround.errors import ConfigError, DataError

Floats = NDArray[np.float32]
_BLOCK = 1 << 22
"""Numbers worked on at once."""
_KNOTS = 3
"""Points of a bias field along a side."""


@dataclass(frozen=True, kw_only=True)
class Scanner:
    """The effect `scanner` of `partition.features`; 0 leaves a part out.

    Attributes:
        strength: multiplies all that follow; 0 changes nothing.
        noise: most noise, as a fraction of the range.
        gamma: standard deviation, over sites, of the logarithm of the exponent.
        contrast: standard deviation, over sites, of the logarithm of the factor.
        blur: most blur, in pixels.
        resolution: most that is lost: 1 leaves half the points along a side.
        bias_field: most of the logarithm of the field.
        range: (low, high) of the values; None takes the type's for integers of 8 bits, else the site's own least and greatest.
        intact: sites, in canonical order, that keep the images as they are, counted from the first.
    """

    strength: float = 1.0
    noise: float = 0.08
    gamma: float = 0.4
    contrast: float = 0.25
    blur: float = 0.8
    resolution: float = 0.6
    bias_field: float = 0.4
    range: tuple[float, float] | None = None
    intact: int = 0

    def __post_init__(self) -> None:
        """Refuse what no scanner does."""
        for name in ("strength", "noise", "gamma", "contrast", "blur", "resolution", "bias_field", "intact"):
            value = getattr(self, name)
            if not 0 <= value < float("inf"):
                raise ConfigError(f"partition.features.options.{name} = {value}: expected 0 or more")
        if self.range is not None and not (len(self.range) == 2 and self.range[0] < self.range[1]):
            raise ConfigError(f"partition.features.options.range = {self.range}: expected [low, high], low below high")

    def apply(
        self, features: NDArray[Any], *, site: str, place: int, sites: int, rng: np.random.Generator
    ) -> NDArray[Any]:
        """A site's images through its scanner: a copy of the same shape and type; see `SiteEffect`.

        Raises:
            DataError: rows that are neither images [C, height, width] nor volumes [C, depth, height, width].
        """
        if features.ndim not in (4, 5):
            raise DataError(
                f"partition.features.effect = scanner is for images, and a row of site {site} has the shape "
                f"{features.shape[1:]}: expected [C, height, width] or [C, depth, height, width]; remove the effect"
            )
        settings = self.settings(rng)
        if place < self.intact or not len(features) or not any(settings.values()):
            return features
        field = self._field(settings["bias_field"], features.shape[2:], rng)
        low, high = self._range(features)
        out = np.empty(features.shape, dtype=features.dtype)
        step = max(1, _BLOCK // max(features[0].size, 1))
        for start in range(0, len(features), step):
            unit = np.asarray(features[start : start + step], dtype=np.float32)
            seen = low + (high - low) * self._seen((unit - low) / (high - low), settings, field, rng)
            if np.issubdtype(out.dtype, np.integer):
                limits = np.iinfo(out.dtype)
                seen = np.clip(np.rint(seen), limits.min, limits.max)
            out[start : start + step] = seen
        return out

    def settings(self, rng: np.random.Generator) -> dict[str, float]:
        """What a site's scanner does: part -> how much; all parts are drawn, so that leaving one out changes no other."""
        even, normal = rng.random(4), rng.standard_normal(2)
        return {
            "resolution": self.strength * self.resolution * even[0],
            "blur": self.strength * self.blur * even[1],
            "bias_field": self.strength * self.bias_field * even[2],
            "noise": self.strength * self.noise * even[3],
            "contrast": self.strength * self.contrast * normal[0],
            "gamma": self.strength * self.gamma * normal[1],
        }

    def _seen(self, unit: Floats, settings: dict[str, float], field: Floats, rng: np.random.Generator) -> Floats:
        from scipy import ndimage

        axes = tuple(range(2, unit.ndim))
        if settings["resolution"]:
            unit = _coarser(unit, 1.0 + settings["resolution"])
        if settings["blur"]:
            unit = ndimage.gaussian_filter(unit, settings["blur"], axes=axes, mode="nearest")
        unit = unit * field
        unit = 0.5 + np.float32(np.exp(settings["contrast"])) * (unit - 0.5)
        unit = np.clip(unit, 0.0, 1.0) ** np.float32(np.exp(settings["gamma"]))
        if settings["noise"]:
            unit = unit + np.float32(settings["noise"]) * rng.standard_normal(unit.shape, dtype=np.float32)
        return np.asarray(np.clip(unit, 0.0, 1.0), dtype=np.float32)

    def _range(self, features: NDArray[Any]) -> tuple[float, float]:
        if self.range is not None:
            return self.range
        if np.issubdtype(features.dtype, np.integer) and features.dtype.itemsize == 1:
            limits = np.iinfo(features.dtype)
            return float(limits.min), float(limits.max)
        low, high = float(features.min()), float(features.max())
        return low, high if high > low else low + 1.0

    def _field(self, amount: float, sizes: tuple[int, ...], rng: np.random.Generator) -> Floats:
        """Factors of the pixels, [*sizes], the same for all images of the site."""
        from scipy import ndimage

        knots = rng.uniform(-1.0, 1.0, (_KNOTS,) * len(sizes))
        at = np.meshgrid(*(np.linspace(0, _KNOTS - 1, size) for size in sizes), indexing="ij")
        smooth = np.clip(ndimage.map_coordinates(knots, at, order=2, mode="nearest"), -1.0, 1.0)
        return np.asarray(np.exp(amount * smooth), dtype=np.float32)


def _coarser(unit: Floats, factor: float) -> Floats:
    """Images [n, C, *sizes] smoothed, read at fewer points and interpolated back, linearly."""
    from scipy import ndimage

    axes = tuple(range(2, unit.ndim))
    smooth: Floats = ndimage.gaussian_filter(unit, 0.5 * np.sqrt(factor**2 - 1.0), axes=axes, mode="nearest")
    for axis in axes:
        size = unit.shape[axis]
        fewer = max(2, round(size / factor)) if size > 1 else 1
        smooth = _along(smooth, axis, np.linspace(0, size - 1, fewer))
        smooth = _along(smooth, axis, np.linspace(0, fewer - 1, size))
    return smooth


def _along(unit: Floats, axis: int, at: NDArray[np.float64]) -> Floats:
    """Linear interpolation along an axis at the given places."""
    below = np.minimum(at.astype(np.int64), max(unit.shape[axis] - 2, 0))
    above = np.minimum(below + 1, unit.shape[axis] - 1)
    share = (at - below).astype(np.float32).reshape(-1, *[1] * (unit.ndim - 1 - axis))
    return np.asarray(np.take(unit, below, axis) * (1 - share) + np.take(unit, above, axis) * share)

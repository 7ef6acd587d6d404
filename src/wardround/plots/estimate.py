"""A figure with its 95 % interval, read from a result's `metric`, `metric_low` and `metric_high`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from wardround.types import Json


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A figure, and the ends of its interval where one was computed.

    Attributes:
        value: the figure.
        low: lower end of the 95 % interval, or None.
        high: upper end of the 95 % interval, or None; both ends are None or neither is.
    """

    value: float
    low: float | None = None
    high: float | None = None

    @property
    def direction(self) -> int | None:
        """Of a difference: 1 where the interval lies above 0, -1 below it, 0 where it holds 0; None without one."""
        if self.low is None or self.high is None:
            return None
        return int(self.low > 0.0) - int(self.high < 0.0)


def number(value: Json) -> float | None:
    """The value as a finite float; None for anything else (an absent, null or NaN figure is undefined)."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def estimate(figures: Mapping[str, Json], metric: str) -> Estimate | None:
    """The metric with its interval; None where it is undefined."""
    value, low, high = (number(figures.get(metric + end)) for end in ("", "_low", "_high"))
    if value is None:
        return None
    if low is None or high is None:
        return Estimate(value=value)
    return Estimate(value=value, low=low, high=high)


def pooled(result: Mapping[str, Json], model: str, metric: str) -> Estimate | None:
    """A model's figure over the rows of all sites; None where the model or the metric is absent."""
    return estimate((result.get(model) or {}).get("pooled") or {}, metric)


def of_site(result: Mapping[str, Json], model: str, site: str, metric: str) -> Estimate | None:
    """A model's figure over one site's rows; None where the model, the site or the metric is absent."""
    return estimate(((result.get(model) or {}).get("sites") or {}).get(site) or {}, metric)

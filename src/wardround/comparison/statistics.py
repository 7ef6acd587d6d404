"""Intervals and tests over seeds.

Seeds share patients: what is a test row under one seed trains the model of another, so their figures are not independent
and the plain standard error is too small. The variance of a mean over n random splits is taken as s^2 (1/n + n_test/n_train)
(C. Nadeau and Y. Bengio, Inference for the Generalization Error, Machine Learning 52, 2003, section 3), with Student's t
of n - 1 degrees of freedom.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

LEVEL = 0.95


@dataclass(frozen=True, kw_only=True)
class Mean:
    """A mean over seeds with its 95 % interval.

    Attributes:
        value: the mean; None without a seed.
        low, high: ends of the interval; None with fewer than two seeds.
        p: two-sided p-value of 'the mean is 0'; None with fewer than two seeds.
        seeds: how many.
    """

    value: float | None
    low: float | None
    high: float | None
    p: float | None
    seeds: int


def mean(values: Sequence[float], ratio: float, within: tuple[float, float] = (-math.inf, math.inf)) -> Mean:
    """The corrected interval of a mean over random splits.

    Args:
        values: one a seed.
        ratio: test rows / training rows.
        within: what the quantity can be; the interval is cut there.
    """
    n = len(values)
    if n < 2:
        return Mean(value=values[0] if n else None, low=None, high=None, p=None, seeds=n)
    middle = sum(values) / n
    from scipy import stats

    variance = sum((v - middle) ** 2 for v in values) / (n - 1)
    error = math.sqrt(variance * (1.0 / n + ratio))
    width = float(stats.t.ppf(0.5 + LEVEL / 2, n - 1)) * error
    p = 1.0 if middle == 0.0 else 0.0 if error == 0.0 else float(2 * stats.t.sf(abs(middle) / error, n - 1))
    low, high = max(middle - width, within[0]), min(middle + width, within[1])
    return Mean(value=middle, low=low, high=high, p=p, seeds=n)


def holm(p: Mapping[str, float | None]) -> dict[str, float | None]:
    """Holm's step-down adjustment of p-values over all comparisons made (S. Holm, Scandinavian J. of Statistics 6, 1979).

    None stays None and counts for no comparison.
    """
    known = sorted((value, name) for name, value in p.items() if value is not None)
    adjusted: dict[str, float | None] = dict.fromkeys(p)
    largest = 0.0
    for rank, (value, name) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - rank) * value))
        adjusted[name] = largest
    return adjusted

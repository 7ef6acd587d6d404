"""Whether a column mixes units: sites whose values differ by a factor, or two crowds of values far apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wardround.data.profile import names

_FACTORS = (
    (("glucose", "plas", "sugar"), 18.02, "mg/dL and mmol/L"),
    (("creatinine", "crea"), 88.4, "mg/dL and µmol/L"),
    (("chol", "cholesterol", "ldl", "hdl"), 38.67, "mg/dL and mmol/L"),
    (("triglycerides",), 88.57, "mg/dL and mmol/L"),
    (("bilirubin",), 17.1, "mg/dL and µmol/L"),
    (("hemoglobin", "haemoglobin", "hb", "hgb"), 10.0, "g/dL and g/L"),
    (("calcium",), 4.008, "mg/dL and mmol/L"),
    (("urea", "bun"), 2.8, "mg/dL and mmol/L"),
    (("weight",), 2.2046, "kg and lb"),
    (("weight",), 1000.0, "kg and g"),
    (("height", "length"), 2.54, "cm and inches"),
    (("height", "length"), 100.0, "m and cm"),
    (("height", "length"), 39.37, "m and inches"),
)
_ANY = 5.0
_FEWEST = 20


@dataclass(frozen=True, kw_only=True)
class MixedUnits:
    """One suspicion.

    Attributes:
        ratio: of the medians.
        units: the two units that would explain it, or ''.
        sites: whose values are apart; empty where the crowds are not those of sites.
    """

    ratio: float
    units: str
    sites: tuple[str, ...] = ()


def by_site(name: str, values: NDArray[np.float64], sites: NDArray[np.object_]) -> MixedUnits | None:
    """Sites whose middle half lies apart from that of the others, by a known factor or by five.

    Args:
        name: the column's.
        values: float64 [n], NaN for gaps.
        sites: site a row [n].
    """
    fences = {}
    for site in dict.fromkeys(sites.tolist()):
        here = values[(sites == site) & np.isfinite(values)]
        if len(here) >= _FEWEST and (here > 0).mean() > 0.95:
            fences[site] = np.quantile(here, [0.25, 0.5, 0.75])
    if len(fences) < 2:
        return None
    middle = float(np.median([fence[1] for fence in fences.values()]))
    if len(fences) == 2:
        middle = min(float(fence[1]) for fence in fences.values())
    near = {s: f for s, f in fences.items() if max(f[1] / middle, middle / f[1]) < 1.5}
    if not near or len(near) == len(fences):
        return None
    low, high = min(f[0] for f in near.values()), max(f[2] for f in near.values())
    far = {s: f for s, f in fences.items() if s not in near and (f[0] > high or f[2] < low)}
    if not far:
        return None
    ratio = float(np.median([max(f[1] / middle, middle / f[1]) for f in far.values()]))
    units = _known(name, ratio)
    return MixedUnits(ratio=ratio, units=units, sites=tuple(far)) if units or ratio >= _ANY else None


def two_crowds(name: str, values: NDArray[np.float64]) -> MixedUnits | None:
    """Positive values with an empty stretch between two crowds, each of 2 % of the rows and 10 rows or more.

    The medians differ by a factor of five or more, and nothing lies in a stretch of a factor of two and a half.
    """
    known = np.sort(values[np.isfinite(values) & (values > 0)])
    if len(known) < 50 or len(np.unique(known)) < 20 or len(known) < 0.9 * np.isfinite(values).sum():
        return None
    steps = np.diff(np.log(known))
    least = max(10, round(0.02 * len(known)))
    inside = steps[least - 1 : len(steps) - least + 1]
    if not inside.size:
        return None
    cut = int(inside.argmax()) + least
    ratio = float(np.median(known[cut:]) / np.median(known[:cut]))
    if inside.max() < np.log(2.5) or ratio < _ANY:
        return None
    return MixedUnits(ratio=ratio, units=_known(name, ratio))


def _known(name: str, ratio: float) -> str:
    there = frozenset(names.words(name))
    for words, factor, units in _FACTORS:
        if there & frozenset(words) and abs(np.log(ratio / factor)) < np.log(1.15):
            return units
    return ""

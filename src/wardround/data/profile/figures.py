"""What the pictures of a column show: bars, fences, correlations. From the sampled rows; small counts withheld."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wardround.data.profile.facts import Facts
from wardround.types import Json

_BARS = 24
_BOXES = 20
_CORRELATED = 30
_CORRELATION_ROWS = 5_000


def number_summary(values: NDArray[np.float64], below: int) -> dict[str, Json] | None:
    """Quantiles, mean and standard deviation of the finite values; None where there are fewer than `below`."""
    known = values[np.isfinite(values)]
    if len(known) < max(below, 1):
        return None
    quantiles = np.quantile(known, [0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0])
    names = ("min", "q05", "q25", "median", "q75", "q95", "max")
    summary: dict[str, Json] = {name: float(value) for name, value in zip(names, quantiles, strict=True)}
    return summary | {"mean": float(known.mean()), "deviation": float(known.std()), "rows": len(known)}


def histogram(values: NDArray[np.float64], below: int) -> dict[str, Json] | None:
    """Edges and rows of equal bins; a bin of 1 to `below` - 1 rows has None. None where there are too few values.

    Far tails beyond three interquartile ranges are put into the outermost bins where they hold less than 2 % of the
    rows; `clipped` says so.
    """
    known = values[np.isfinite(values)]
    if len(known) < max(below, 2) or known.min() == known.max():
        return None
    low, high = float(known.min()), float(known.max())
    q25, q75 = np.quantile(known, [0.25, 0.75])
    fence = 3 * (q75 - q25)
    inner = known[(known >= q25 - fence) & (known <= q75 + fence)]
    clipped = fence > 0 and len(inner) >= 0.98 * len(known) and (low < q25 - fence or high > q75 + fence)
    if clipped:
        low, high = float(inner.min()), float(inner.max())
    different = np.unique(inner if clipped else known)
    if len(different) <= _BARS and np.all(different == np.floor(different)) and high - low < 2 * _BARS:
        edges = np.arange(low - 0.5, high + 1.0)
    else:
        edges = np.linspace(low, high, _BARS + 1)
    rows, _ = np.histogram(np.clip(known, edges[0], edges[-1]), bins=edges)
    return {
        "edges": [float(edge) for edge in edges],
        "rows": [None if 0 < count < below else int(count) for count in rows.tolist()],
        "clipped": bool(clipped),
    }


def boxes(
    values: NDArray[np.float64], sites: NDArray[np.object_] | None, names: Sequence[str], below: int
) -> list[dict[str, Json]]:
    """Five numbers for all rows and for each site (at most 20) with `below` values or more: 5, 25, 50, 75, 95 %."""
    parts = [("all", np.ones(len(values), dtype=bool))]
    if sites is not None:
        parts += [(name, sites == name) for name in names[:_BOXES]]
    found = []
    for name, rows in parts:
        known = values[rows & np.isfinite(values)]
        if len(known) >= below:
            five = np.quantile(known, [0.05, 0.25, 0.5, 0.75, 0.95])
            found.append({"name": name, "five": [float(value) for value in five]})
    return found


def correlation(columns: Mapping[str, Facts]) -> dict[str, Json] | None:
    """Spearman's rank correlations of the numeric columns, the 30 most correlated; None with fewer than two."""
    import pandas

    frame = pandas.DataFrame({name: facts.numbers for name, facts in columns.items()})
    if len(frame) > _CORRELATION_ROWS:
        frame = frame.sample(_CORRELATION_ROWS, random_state=0)
    frame = frame.loc[:, (frame.notna().sum() >= 20) & (frame.nunique() > 1)]
    if frame.shape[1] < 2:
        return None
    # ranks once: gaps then move a pair's coefficient a little, and many columns stay quick
    matrix = frame.rank().corr(min_periods=20)
    if len(matrix) > _CORRELATED:
        strongest = (matrix.abs() - np.eye(len(matrix))).max().nlargest(_CORRELATED).index
        kept = [name for name in matrix.columns if name in set(strongest)]
        matrix = matrix.loc[kept, kept]
    values = [[None if math.isnan(v) else round(float(v), 3) for v in row] for row in matrix.to_numpy()]
    return {"names": [str(name) for name in matrix.columns], "values": values}


def levels(counts: Mapping[str, int], order: Sequence[str], below: int, most: int) -> dict[str, Any]:
    """The levels with rows (None: fewer than `below`), at most `most`; the rest summed up.

    Rare levels of a column with more than `most` levels are not named.
    """
    few = len(counts) <= most
    named = [name for name in order if few or counts.get(name, 0) >= below]
    if not few:
        named = sorted(named, key=lambda name: -counts.get(name, 0))[:most]
    shown = [{"name": name, "rows": None if 0 < counts.get(name, 0) < below else counts.get(name, 0)} for name in named]
    rest = [rows for name, rows in counts.items() if name not in set(named)]
    return {"shown": shown, "others": len(rest), "other_rows": sum(rest)}

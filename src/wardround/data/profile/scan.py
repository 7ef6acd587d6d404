"""One pass over a table in bounded memory: exact counts a column, a uniform sample of rows, repeated rows."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wardround.data.profile.distinct import CAPACITY, DistinctSample, mixed
from wardround.data.profile.gaps import is_gap

if TYPE_CHECKING:
    import pandas

_CELLS = 4_000_000
_VALUES = 1_000_000
_ROWS = (5_000, 100_000)
_LONGEST = 256
_DIFFERENT_ROWS = 200_000


@dataclass(kw_only=True)
class ColumnScan:
    """What one pass counts of a column; exact.

    Attributes:
        gaps: a gap as it is written -> rows.
        values: the other cells, stripped, at most 256 letters each.
        numbers: rows whose cell is a finite number.
        whole: of these, the whole numbers.
        padded: cells of digits alone that begin with a 0 and have more than one: codes, not numbers.
        least, greatest: the smallest and largest number; infinite without one.
    """

    gaps: Counter[str] = field(default_factory=Counter)
    values: DistinctSample
    numbers: int = 0
    whole: int = 0
    padded: int = 0
    least: float = math.inf
    greatest: float = -math.inf

    @property
    def missing(self) -> int:
        """Rows with a gap."""
        return self.gaps.total()


@dataclass(frozen=True, kw_only=True)
class Scan:
    """What one pass gives.

    Attributes:
        rows: rows of the table.
        columns: name -> counts, in the file's order.
        sample: a uniform sample of rows in the file's order, cells as stripped text; every row where `whole`.
        whole: whether the sample is the table.
        repeated: rows that are equal to an earlier one; an estimate where `repeated_exact` is false.
    """

    rows: int
    columns: dict[str, ColumnScan]
    sample: pandas.DataFrame
    whole: bool
    repeated: int
    repeated_exact: bool


def scan(
    names: Sequence[str],
    chunks: Iterable[pandas.DataFrame],
    *,
    decimal: str = ".",
    progress: Callable[[int], None] = lambda rows: None,
) -> Scan:
    """Read a table once.

    Args:
        names: the columns.
        chunks: rows in order, cells as text; None is a gap.
        decimal: the decimal mark of numbers, `.` or `,`.
        progress: told the number of rows read so far, after each chunk.

    Returns:
        Counts and a sample; a table without rows gives 0 rows and an empty sample.
    """
    capacity = min(max(_VALUES // max(len(names), 1), CAPACITY), _ROWS[1])
    columns = {name: ColumnScan(values=DistinctSample(capacity)) for name in names}
    different = DistinctSample(_DIFFERENT_ROWS)
    sample = _Reservoir(names, min(max(_CELLS // max(len(names), 1), _ROWS[0]), _ROWS[1]))
    rows = 0
    for chunk in chunks:
        combined = np.zeros(len(chunk), dtype=np.uint64)
        stripped: dict[str, NDArray[np.object_]] = {}
        for name in names:
            cells, hashes = _count(columns[name], chunk[name].to_numpy(dtype=object), decimal)
            stripped[name] = cells
            with np.errstate(over="ignore"):
                combined = mixed(combined * np.uint64(3) + hashes)
        keys, counts = np.unique(combined, return_counts=True)
        different.add(keys.tolist(), counts, keys)
        sample.add(stripped, len(chunk))
        rows += len(chunk)
        progress(rows)
    return Scan(
        rows=rows,
        columns=columns,
        sample=sample.frame(),
        whole=sample.whole,
        repeated=different.repeated,
        repeated_exact=different.exact,
    )


def _count(
    column: ColumnScan, cells: NDArray[np.object_], decimal: str
) -> tuple[NDArray[np.object_], NDArray[np.uint64]]:
    """Count a chunk's cells; gives them stripped and cut, with a hash each."""
    import pandas

    codes, uniques = pandas.factorize(cells)
    codes = np.where(codes < 0, len(uniques), codes)  # a null is the last
    texts = np.array([*(str(value).strip()[:_LONGEST] for value in uniques), ""], dtype=object)
    rows = np.bincount(codes, minlength=len(texts)).astype(np.int64)
    hashes = mixed(pandas.util.hash_array(texts, categorize=False))
    gap = np.fromiter((is_gap(text) for text in texts), dtype=bool, count=len(texts))
    for text, number in zip(texts[gap], rows[gap].tolist(), strict=True):
        if number:
            column.gaps[text] += number
    kept, weights = texts[~gap], rows[~gap]
    column.values.add(kept, weights, hashes[~gap])
    numbers = as_numbers(kept, decimal)
    finite = np.isfinite(numbers)
    column.numbers += int(weights[finite].sum())
    column.whole += int(weights[finite & (numbers == np.floor(numbers))].sum())
    column.padded += sum(
        number
        for text, number in zip(kept, weights.tolist(), strict=True)
        if len(text) > 1 and text[0] == "0" and text.isdecimal()
    )
    if finite.any():
        column.least = min(column.least, float(numbers[finite].min()))
        column.greatest = max(column.greatest, float(numbers[finite].max()))
    return texts[codes], hashes[codes]


def as_numbers(texts: NDArray[np.object_], decimal: str = ".", unit: str = "") -> NDArray[np.float64]:
    """The numbers that n cells write, with or without `unit` behind them, float64 [n]; NaN where a cell writes none."""
    import pandas

    series = pandas.Series(texts, dtype=object)
    if unit:
        series = series.str.removesuffix(unit)
    if decimal == ",":
        series = series.str.replace(".", "", regex=False).str.replace(",", ".", regex=False)
    values = pandas.to_numeric(series, errors="coerce").to_numpy(dtype=np.float64)
    return np.where(np.isfinite(values), values, np.nan)


class _Reservoir:
    """A uniform sample of rows without replacement: those with the smallest of random keys."""

    def __init__(self, names: Sequence[str], size: int) -> None:
        self.whole = True
        self._names = names
        self._size = size
        self._draw = np.random.default_rng(0)
        self._parts: list[dict[str, NDArray[Any]]] = []
        self._held = 0
        self._seen = 0
        self._bound = math.inf

    def add(self, cells: dict[str, NDArray[np.object_]], rows: int) -> None:
        keys = self._draw.random(rows)
        take = np.flatnonzero(keys < self._bound)
        self._parts.append(
            {name: cells[name][take] for name in self._names}
            | {"\0key": keys[take], "\0row": take.astype(np.int64) + self._seen}
        )
        self._seen += rows
        self._held += len(take)
        if self._held > 2 * self._size:
            self._shrink()

    def _shrink(self) -> None:
        merged = self._merged()
        if self._held > self._size:
            self.whole = False
            keep = np.argpartition(merged["\0key"], self._size)[: self._size]
            merged = {name: values[keep] for name, values in merged.items()}
            self._bound = float(merged["\0key"].max())
        self._parts = [merged]
        self._held = len(merged["\0key"])

    def _merged(self) -> dict[str, NDArray[Any]]:
        return {name: np.concatenate([part[name] for part in self._parts]) for name in self._parts[0]}

    def frame(self) -> pandas.DataFrame:
        import pandas

        if not self._parts:
            return pandas.DataFrame({name: np.empty(0, dtype=object) for name in self._names})
        self._shrink()
        part = self._parts[0]
        order = np.argsort(part["\0row"])
        return pandas.DataFrame({name: pandas.Series(part[name][order], dtype=object) for name in self._names})

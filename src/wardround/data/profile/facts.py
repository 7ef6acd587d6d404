"""What is known of a column once the table has been read: counts, and the cells of the sample."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from wardround.data.profile.gaps import NOTHING, UNKNOWN, is_gap
from wardround.data.profile.order import written
from wardround.data.profile.scan import ColumnScan, Scan, as_numbers
from wardround.types import Column


@dataclass(frozen=True, kw_only=True)
class Facts:
    """One column.

    Attributes:
        name: of the column.
        scan: exact counts.
        rows: rows of the table.
        sample: stripped cells of the sampled rows, object [n].
        declared: what the file's format declares, None where it declares nothing.
        decimal: the decimal mark.
        unit: what stands behind every number, or ''.
        codes: values, as schemas write them, that mean 'not measured' in this column; they are gaps everywhere below.
    """

    name: str
    scan: ColumnScan
    rows: int
    sample: NDArray[np.object_]
    declared: Column | None = None
    decimal: str = "."
    unit: str = ""
    codes: frozenset[str] = frozenset()

    @property
    def missing(self) -> int:
        """Rows with a gap, those with one of `codes` not among them."""
        return self.scan.missing

    @property
    def present(self) -> int:
        """Rows without a gap."""
        return self.rows - self.missing

    @cached_property
    def counts(self) -> dict[str, int]:
        """Value -> rows, the most frequent first: of all rows, or, where there are too many values, of the sample."""
        if self.scan.values.exact:
            found = {str(value): rows for value, rows in self.scan.values.counts.items() if rows}
        else:
            texts, rows = np.unique(self.sample[~self.gap].astype(str), return_counts=True)
            found = dict(zip(texts.tolist(), rows.tolist(), strict=True))
        return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))

    @property
    def distinct(self) -> int:
        """Different values, gaps aside; an estimate where there are very many."""
        return sum(rows > 0 for rows in self.scan.values.counts.values()) << self.scan.values.level

    @property
    def different(self) -> str:
        """The number of different values as text, `about` before an estimate."""
        return f"{self.distinct:,}" if self.scan.values.exact else f"about {self.distinct:,}"

    @cached_property
    def texts(self) -> list[str]:
        """Different values, the most frequent first."""
        return list(self.counts)

    @cached_property
    def gap(self) -> NDArray[np.bool_]:
        """Sampled rows with a gap, bool [n]."""
        return np.fromiter(
            (is_gap(cell) or written(cell) in self.codes for cell in self.sample), dtype=bool, count=len(self.sample)
        )

    @cached_property
    def numbers(self) -> NDArray[np.float64]:
        """Numbers of the sampled rows, float64 [n]; NaN for a gap and for text."""
        return np.where(self.gap, np.nan, as_numbers(self.sample, self.decimal, self.unit))

    @cached_property
    def amounts(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Different numbers in ascending order, and their rows as in `counts`."""
        values = as_numbers(np.array(self.texts, dtype=object), self.decimal, self.unit)
        rows = np.fromiter(self.counts.values(), dtype=np.int64, count=len(self.texts))
        finite = np.isfinite(values)
        numbers, place = np.unique(values[finite], return_inverse=True)
        return numbers, np.bincount(place, weights=rows[finite], minlength=len(numbers)).astype(np.int64)

    @cached_property
    def unknown(self) -> dict[str, int]:
        """Values that say 'not known', with their rows as in `counts`."""
        return {text: rows for text, rows in self.counts.items() if text.lower() in UNKNOWN}

    @cached_property
    def nothing(self) -> dict[str, int]:
        """Values such as 'None', with their rows as in `counts`."""
        return {text: rows for text, rows in self.counts.items() if text.lower() in NOTHING}

    @property
    def numeric_share(self) -> float:
        """The share of numbers among cells that are neither gaps nor say 'not known'; 0 of nothing."""
        known = sum(rows for text, rows in self.counts.items() if text not in self.unknown)
        total = sum(self.counts.values())
        said = self.present * known / total if total else 0
        return min(self.scan.numbers / said, 1.0) if said else 0.0

    @property
    def wholly_whole(self) -> bool:
        """Whether there are numbers and every one is whole."""
        return 0 < self.scan.numbers == self.scan.whole


def facts(scan: Scan, declared: Mapping[str, Column], decimal: str = ".") -> dict[str, Facts]:
    """The facts of every column, by name."""
    return {
        name: Facts(
            name=name,
            scan=column,
            rows=scan.rows,
            sample=scan.sample[name].to_numpy(dtype=object),
            declared=declared.get(name),
            decimal=decimal,
        )
        for name, column in scan.columns.items()
    }

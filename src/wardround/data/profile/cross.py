"""What the sites hold: rows by class, gaps by column, patients that come at several of them. Exact, in bounded memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wardround.data.profile.distinct import CAPACITY, mixed
from wardround.data.profile.gaps import is_gap
from wardround.data.profile.order import written

if TYPE_CHECKING:
    import pandas

_MOST_SITES = 2000
REST = "\0rest"
"""Stands for all sites beyond the first 2000."""


@dataclass(kw_only=True)
class Cross:
    """Counts by site.

    Attributes:
        rows: site -> rows.
        classes: site -> label -> rows; labels as text, gaps left out.
        gaps: site -> column -> rows with a gap.
        shared: patients with rows at two sites or more, of those looked at.
        patients: patients looked at: all, or a sample of some 20,000 of them.
    """

    rows: Counter[str] = field(default_factory=Counter)
    classes: dict[str, Counter[str]] = field(default_factory=dict)
    gaps: dict[str, Counter[str]] = field(default_factory=dict)
    shared: int = 0
    patients: int = 0


def cross(
    chunks: Iterable[pandas.DataFrame],
    columns: Sequence[str],
    *,
    site: str | None,
    label: str | None,
    patient: str | None,
    codes: Mapping[str, frozenset[str]] = MappingProxyType({}),
) -> Cross:
    """Count by site; without a site column there is one, ''.

    Args:
        chunks: rows, cells as text; None is a gap.
        columns: those whose gaps are counted.
        site, label, patient: columns; None for none.
        codes: column -> values, as schemas write them, that are gaps as well.
    """
    import pandas

    found = Cross()
    homes = _Homes()
    for chunk in chunks:
        sites = _texts(chunk, site)
        numbers, names = pandas.factorize(sites)
        places = [_place(found, str(name)) for name in names]
        for place, rows in zip(places, np.bincount(numbers, minlength=len(names)).tolist(), strict=True):
            found.rows[place] += rows
        for column in columns:
            places_of, cells = pandas.factorize(chunk[column].to_numpy(dtype=object))
            texts = [str(cell).strip() for cell in cells]
            own = codes.get(column, frozenset())
            gap = np.array([*(is_gap(text) or written(text) in own for text in texts), True])[places_of]
            for place, rows in zip(places, np.bincount(numbers[gap], minlength=len(names)).tolist(), strict=True):
                if rows:
                    found.gaps.setdefault(place, Counter())[column] += rows
        if label is not None:
            pairs = pandas.Series(_texts(chunk, label)).groupby(numbers).value_counts()
            for (number, text), rows in pairs.items():
                if not is_gap(str(text)):
                    found.classes.setdefault(places[int(number)], Counter())[str(text)] += int(rows)
        if patient is not None and site is not None:
            homes.add(_texts(chunk, patient), sites)
    found.shared, found.patients = homes.counted()
    return found


def _texts(chunk: pandas.DataFrame, column: str | None) -> NDArray[np.object_]:
    if column is None:
        return np.full(len(chunk), "", dtype=object)
    return np.array(["" if cell is None else str(cell).strip() for cell in chunk[column].to_numpy(dtype=object)])


def _place(found: Cross, name: str) -> str:
    return name if name in found.rows or len(found.rows) < _MOST_SITES else REST


class _Homes:
    """The sites of patients: of all, or, when there are too many, of those whose hash ends in some zero bits."""

    def __init__(self) -> None:
        self._sites: dict[str, set[str]] = {}
        self._hashes: dict[str, int] = {}
        self._level = 0

    def add(self, patients: NDArray[np.object_], sites: NDArray[np.object_]) -> None:
        import pandas

        pairs = pandas.DataFrame({"patient": patients, "site": sites}).drop_duplicates()
        hashes = mixed(pandas.util.hash_array(pairs["patient"].to_numpy(dtype=object), categorize=False))
        for patient, site, code in zip(pairs["patient"], pairs["site"], hashes.tolist(), strict=True):
            if code & ((1 << self._level) - 1) or is_gap(patient):
                continue
            self._sites.setdefault(patient, set()).add(site)
            self._hashes[patient] = code
            while len(self._sites) > CAPACITY:
                self._level += 1
                mask = (1 << self._level) - 1
                self._hashes = {p: c for p, c in self._hashes.items() if not c & mask}
                self._sites = {p: self._sites[p] for p in self._hashes}

    def counted(self) -> tuple[int, int]:
        return sum(len(sites) > 1 for sites in self._sites.values()), len(self._sites)

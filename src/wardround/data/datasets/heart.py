"""UCI Heart Disease: coronary disease on angiography at four real hospitals.

A. Janosi, W. Steinbrunn, M. Pfisterer, R. Detrano: Heart Disease, UCI Machine Learning Repository, 1989,
doi:10.24432/C52P4X. Strong shift: 36 % of the patients have the disease in Budapest, 93 % in Zurich and Basel, where
cholesterol was never measured and is recorded as 0.

The split `flamby` is that of Fed-Heart-Disease in J. Ogier du Terrail et al.: FLamby, NeurIPS 2022.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wardround.data.root import data_root
from wardround.data.table import cell_reader, read_cell, read_lines
from wardround.data.tables.sites import first_equal_row
from wardround.errors import ConfigError, DataError
from wardround.types import SPLITS, Column, Description, SiteData

_SITES = ("cleveland", "hungarian", "switzerland", "va")
_LAYOUT = "uci_heart/processed.{cleveland,hungarian,switzerland,va}.data"
_SOURCE = "https://archive.ics.uci.edu/dataset/45/heart+disease"

_COLUMNS = (
    Column(name="age"),
    Column(name="sex", kind="categorical", levels=("0", "1")),
    Column(name="cp", kind="categorical", levels=("1", "2", "3", "4")),
    Column(name="trestbps"),
    Column(name="chol"),
    Column(name="fbs", kind="categorical", levels=("0", "1")),
    Column(name="restecg", kind="categorical", levels=("0", "1", "2")),
    Column(name="thalach"),
    Column(name="exang", kind="categorical", levels=("0", "1")),
    Column(name="oldpeak"),
    Column(name="slope", kind="categorical", levels=("1", "2", "3")),
    Column(name="ca"),
    Column(name="thal", kind="categorical", levels=("3", "6", "7")),
)
_LABEL = Column(name="num", kind="categorical", levels=("0", "1", "2", "3", "4"))
_ZERO_MEANS_MISSING = ("trestbps", "chol")
_OFTEN_MISSING = ("slope", "ca", "thal")


_CLASSES = {
    "binary": ("no disease", "heart disease"),
    "severity": ("no disease", "severity 1", "severity 2", "severity 3", "severity 4"),
}


class Heart:
    """920 patients of four hospitals, 13 columns; label 1 is any narrowing of more than 50 % (num > 0).

    Args:
        split: `patients` leaves the split to be drawn. `flamby` is FLamby's protocol: rows with a gap outside slope, ca
            and thal leave (a recorded 0 is no gap there), and 66 % of each hospital's rows train (seed 43).
        zero_is_missing: take a resting blood pressure or cholesterol of 0 as 'not measured'; False keeps the number,
            as FLamby does.
        label: `binary`, or `severity`, the five grades of num as recorded; Budapest records every narrowing as 1.

    Raises:
        ConfigError: a value that none of these takes.
    """

    def __init__(self, split: str = "patients", zero_is_missing: bool = True, label: str = "binary") -> None:
        if label not in _CLASSES:
            raise ConfigError(f"data.options.label = {label!r}: expected 'binary' or 'severity'")
        if split not in ("patients", "flamby"):
            raise ConfigError(f"data.options.split = {split!r}: expected 'patients' or 'flamby'")
        if not isinstance(zero_is_missing, bool):
            raise ConfigError(f"data.options.zero_is_missing = {zero_is_missing!r}: expected true or false")
        self.split = split
        self.zero_is_missing = zero_is_missing
        self.label = label

    def describe(self) -> Description:
        """Four hospitals, 13 columns of which 7 are categorical."""
        coded = _ZERO_MEANS_MISSING if self.zero_is_missing else ()
        return Description(
            name="heart",
            title="Heart Disease (Cleveland, Hungarian, Switzerland, VA Long Beach)",
            source=_SOURCE,
            licence="CC BY 4.0",
            sites=_SITES,
            columns=tuple(
                Column(name=c.name, kind=c.kind, levels=c.levels, missing_codes=(0.0,)) if c.name in coded else c
                for c in _COLUMNS
            ),
            classes=_CLASSES[self.label],
            natural=True,
        )

    def load(self, site: str) -> SiteData:
        """One hospital's rows: features float64 [n, 13], labels int64 [n] in {0, 1}, or 0 to 4 with `severity`.

        One row is one patient; with the drawn split, rows that are equal in every cell count as one patient, so that
        they fall into the same split. FLamby's fixed split takes rows for patients (one pair of equal rows at `va`
        straddles it), and so does `flamby` here.

        Raises:
            DataError: the site is unknown, WARDROUND_DATA or the file is absent, or a line is malformed.
        """
        if site not in _SITES:
            raise DataError(f"site {site!r}: the dataset 'heart' has {', '.join(_SITES)}")
        path = data_root("heart", layout=_LAYOUT, source=_SOURCE) / "uci_heart" / f"processed.{site}.data"
        if not path.is_file():
            raise DataError(f"there is no file {path}: the dataset 'heart' expects {_LAYOUT} (from {_SOURCE})")
        values = _read(path)
        if not len(values):
            raise DataError(f"{path} has no rows: fetch it again from {_SOURCE}")
        if self.split == "flamby":
            values = values[_complete(values)]
        features, grades = values[:, :-1].copy(), values[:, -1].astype(np.int64)
        ill = (grades > 0).astype(np.int64)
        patients = np.arange(len(values)) if self.split == "flamby" else first_equal_row(values)
        if self.zero_is_missing:
            for column, name in enumerate(c.name for c in _COLUMNS):
                if name in _ZERO_MEANS_MISSING:
                    features[features[:, column] == 0.0, column] = math.nan
        split = _flamby_split(ill, site) if self.split == "flamby" else None
        labels = grades if self.label == "severity" else ill
        return SiteData(features=features, labels=labels, patients=patients, split=split)


def _read(path: Path) -> NDArray[np.float64]:
    """A hospital's file as float64 [n, 14], NaN for '?'; recorded zeros stay, the label is num (0-4)."""
    columns = (*_COLUMNS, _LABEL)
    readers = [cell_reader(column) for column in columns]
    rows: list[list[float]] = []
    for line, cells in read_lines(path):
        if len(cells) != len(columns):
            names = ", ".join(column.name for column in columns)
            raise DataError(f"{path}, line {line}: {len(cells)} columns, expected {len(columns)}: {names}")
        row = [
            read_cell(path, line, column, reader, text)
            for column, reader, text in zip(columns, readers, cells, strict=True)
        ]
        if math.isnan(row[-1]):
            raise DataError(f"{path}, line {line}: the label 'num' is missing: expected 0 to 4; remove the row")
        rows.append(row)
    return np.array(rows, dtype=np.float64).reshape(len(rows), len(columns))


def _complete(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    counted = [column.name not in _OFTEN_MISSING for column in _COLUMNS]
    return np.asarray(~np.isnan(values[:, :-1][:, counted]).any(axis=1))


def _flamby_split(labels: NDArray[np.int64], site: str) -> NDArray[np.int8]:
    from sklearn.model_selection import train_test_split

    counts = np.bincount(labels, minlength=2)
    stratified = bool((counts > 2).all())
    try:
        _, test = train_test_split(
            np.arange(len(labels)),
            test_size=1.0 - 0.66,
            train_size=0.66,
            random_state=43,
            shuffle=True,
            stratify=labels if stratified else None,
        )
    except ValueError as error:
        raise DataError(
            f"site {site!r}: {len(labels)} complete rows are too few for split 'flamby': {error}"
        ) from error
    split = np.full(len(labels), SPLITS.index("train"), dtype=np.int8)
    split[test] = SPLITS.index("test")
    return split

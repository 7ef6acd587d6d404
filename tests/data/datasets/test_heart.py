import csv
import os
from pathlib import Path

import numpy as np
import pytest
from sklearn.model_selection import train_test_split

from wardround.config.job import SplitSpec
from wardround.data.datasets.heart import Heart
from wardround.data.split import split_patients
from wardround.errors import ConfigError, DataError
from wardround.types import SPLITS

SITES = ("cleveland", "hungarian", "switzerland", "va")
LINES = (
    "63.0,1.0,1.0,145.0,233.0,1.0,2.0,150.0,0.0,2.3,3.0,0.0,6.0,0",
    "40,0,4,0,0,0,0,120,1,-.5,?,?,?,3",  # gaps only where FLamby tolerates them, and disguised ones
    "41,1,2,130,?,0,1,110,0,0,2,?,7,1",
    "63.0,1.0,1.0,145.0,233.0,1.0,2.0,150.0,0.0,2.3,3.0,0.0,6.0,0",
    "41,1,2,130,?,0,1,110,0,0,2,?,7,1",
    "55,1,3,120,200,0,0,140,0,1,1,2,3,0",
)


def _write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: tuple[str, ...], site: str = "va") -> None:
    folder = tmp_path / "uci_heart"
    folder.mkdir(exist_ok=True)
    (folder / f"processed.{site}.data").write_text("\n".join(lines) + "\n", encoding="utf-8")
    monkeypatch.setenv("WARDROUND_DATA", str(tmp_path))


def test_reads_the_official_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(tmp_path, monkeypatch, LINES)
    data = Heart().load("va")
    nan = np.nan
    np.testing.assert_array_equal(
        data.features[:3],
        [
            [63, 1, 0, 145, 233, 1, 2, 150, 0, 2.3, 2, 0, 1],
            [40, 0, 3, nan, nan, 0, 0, 120, 1, -0.5, nan, nan, nan],
            [41, 1, 1, 130, nan, 0, 1, 110, 0, 0, 1, nan, 2],
        ],
    )
    assert data.labels.tolist() == [0, 1, 1, 0, 1, 0]
    assert data.split is None


def test_equal_rows_are_one_patient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(tmp_path, monkeypatch, LINES)
    assert Heart().load("va").patients.tolist() == [0, 1, 2, 0, 2, 5]


def test_zeros_may_stay_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(tmp_path, monkeypatch, LINES)
    heart = Heart(zero_is_missing=False)
    assert heart.load("va").features[1, 3:5].tolist() == [0.0, 0.0]
    assert all(not column.missing_codes for column in heart.describe().columns)
    coded = [column.name for column in Heart().describe().columns if column.missing_codes]
    assert coded == ["trestbps", "chol"]


@pytest.mark.parametrize("zero_is_missing", [True, False])
def test_flamby_keeps_rows_with_zeros_and_gaps_in_three_columns(
    zero_is_missing: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write(tmp_path, monkeypatch, LINES)
    data = Heart(split="flamby", zero_is_missing=zero_is_missing).load("va")
    # rows 3 and 5 miss chol; of 4 rows int(0.66 x 4) = 2 train, ceil(0.34 x 4) = 2 test
    assert data.features[:, 0].tolist() == [63, 40, 63, 55]
    assert np.isnan(data.features[1, 4]) == zero_is_missing
    assert data.split is not None
    assert data.split.dtype == np.int8
    assert np.bincount(data.split, minlength=3).tolist() == [2, 0, 2]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("63,1,1,145,233,1,2,150,0,2.3,3,0,6", r"line 2: 13 columns, expected 14: age, sex"),
        ("63,1,5,145,233,1,2,150,0,2.3,3,0,6,0", r"line 2, column 'cp': '5' is not one of the codes 1, 2, 3, 4"),
        ("63,1,1,145,233,1,2,150,0,2.3,3,0,6,?", r"line 2: the label 'num' is missing"),
        ("63,1,1,145,233,1,2,150,0,2.3,3,0,6,5", r"line 2, column 'num': '5'"),
        ("63,1,1,high,233,1,2,150,0,2.3,3,0,6,0", r"line 2, column 'trestbps': 'high'"),
    ],
)
def test_malformed_lines(line: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(tmp_path, monkeypatch, (LINES[0], line))
    with pytest.raises(DataError, match=message) as caught:
        Heart().load("va")
    assert "processed.va.data" in str(caught.value)


def test_absent_or_empty_file_and_unknown_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(tmp_path, monkeypatch, ())
    with pytest.raises(DataError, match="no rows"):
        Heart().load("va")
    with pytest.raises(DataError, match=r"no file .*processed\.cleveland\.data.*archive\.ics\.uci\.edu"):
        Heart().load("cleveland")
    with pytest.raises(DataError, match="'budapest'"):
        Heart().load("budapest")


def test_too_few_rows_for_flamby(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(tmp_path, monkeypatch, LINES[:1])
    with pytest.raises(DataError, match="1 complete rows are too few"):
        Heart(split="flamby").load("va")


# ------------------------------------------------------------------------------------------------ the real files

_REAL = Path(os.environ.get("WARDROUND_DATA", ""), "uci_heart", "processed.va.data")
real = pytest.mark.skipif(
    not os.environ.get("WARDROUND_DATA") or not _REAL.is_file(),
    reason="WARDROUND_DATA names no folder with uci_heart/processed.*.data",
)


@real
def test_real_rows_and_positives() -> None:
    # the counts of the UCI documentation: 303, 294, 123 and 200 patients; 139, 106, 115 and 149 with the disease
    sites = [Heart().load(site) for site in SITES]
    assert [len(data.labels) for data in sites] == [303, 294, 123, 200]
    assert [int(data.labels.sum()) for data in sites] == [139, 106, 115, 149]
    assert [len(data.labels) - len(np.unique(data.patients)) for data in sites] == [0, 1, 0, 1]
    assert np.isnan(sites[2].features[:, 4]).all()


@real
@pytest.mark.parametrize(
    ("site", "train", "test"),
    # the table in FLamby's description of Fed-Heart-Disease
    [("cleveland", 199, 104), ("hungarian", 172, 89), ("switzerland", 30, 16), ("va", 85, 45)],
)
def test_real_flamby_split_is_flambys(site: str, train: int, test: int) -> None:
    data = Heart(split="flamby", zero_is_missing=False).load(site)
    assert data.split is not None
    assert np.bincount(data.split, minlength=3).tolist() == [train, 0, test]

    with _REAL.with_name(f"processed.{site}.data").open(newline="") as file:
        rows = [row for row in csv.reader(file) if "?" not in row[:10] and row[13] != "?"]
    disease = np.array([row[13] != "0" for row in rows]).astype(int)
    strata = disease if (np.bincount(disease, minlength=2) > 2).all() else None
    _, expected = train_test_split(
        np.arange(len(rows)), test_size=1.0 - 0.66, train_size=0.66, random_state=43, shuffle=True, stratify=strata
    )
    assert np.flatnonzero(data.split == SPLITS.index("test")).tolist() == sorted(expected)
    assert data.features[:, 0].tolist() == [float(row[0]) for row in rows]
    assert data.labels.tolist() == disease.tolist()


@real
@pytest.mark.parametrize("site", SITES)
def test_real_flamby_test_rows_survive_the_carving_of_validation(site: str) -> None:
    data = Heart(split="flamby").load(site)
    carved = split_patients(data, SplitSpec(), seed=0, site=site)
    assert data.split is not None
    assert carved.split is not None
    np.testing.assert_array_equal(carved.split == SPLITS.index("test"), data.split == SPLITS.index("test"))
    assert (carved.split == SPLITS.index("validation")).any()


def test_five_grades_are_the_labels_as_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(tmp_path, monkeypatch, LINES)
    graded = Heart(label="severity")
    assert graded.load("va").labels.tolist() == [0, 3, 1, 0, 1, 0]
    assert len(graded.describe().classes) == 5
    # the label changes neither who is a patient nor who is in which split
    for split in ("patients", "flamby"):
        one, two = (Heart(split=split, label=label).load("va") for label in ("binary", "severity"))
        np.testing.assert_array_equal(one.patients, two.patients)
        np.testing.assert_array_equal(one.split, two.split)
        np.testing.assert_array_equal(one.labels, two.labels > 0)
    with pytest.raises(ConfigError, match="'grades'"):
        Heart(label="grades")

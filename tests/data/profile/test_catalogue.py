"""The published tables: kinds as a person would choose them, traps found, no false alarm."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from wardround.data.profile.describe import Profile, describe
from wardround.data.tables.encode import encode, open_as
from wardround.data.tables.reader import open_table

DATA = os.environ.get("WARDROUND_DATA", "")
HEART = [
    "age",
    "sex",
    "cp",
    "trestbps",
    "chol",
    "fbs",
    "restecg",
    "thalach",
    "exang",
    "oldpeak",
    "slope",
    "ca",
    "thal",
    "num",
]


def look(file: str, **given: str) -> Profile:
    path = Path(DATA) / file
    if not DATA or not path.is_file():
        pytest.skip(f"WARDROUND_DATA has no {file}")
    return describe(open_table(path), **given)


def kinds(found: Profile) -> dict[str, list[str]]:
    by_kind: dict[str, list[str]] = {}
    for name, column in found.schema.columns.items():
        by_kind.setdefault(column.kind, []).append(name)
    return by_kind


def warned(found: Profile) -> dict[str, list[str]]:
    by_kind: dict[str, list[str]] = {}
    for caution in found.tree["cautions"]:
        by_kind.setdefault(caution["kind"], []).extend(caution["columns"] or ["*"])
    return by_kind


def test_heart_of_all_sites() -> None:
    found = look("uci_heart/heart_all_sites.csv")
    assert kinds(found) == {
        "numeric": ["age", "trestbps", "chol", "thalach", "oldpeak", "ca"],
        "boolean": ["sex", "fbs", "exang"],
        "categorical": ["cp", "restecg", "slope", "thal"],
        "ignore": ["num"],
        "site": ["site"],
        "label": ["target"],
    }
    assert warned(found) == {
        "leak": ["num"],
        "disguised missing": ["trestbps", "chol"],
        "duplicate rows": ["*"],
        "mostly missing": ["ca", "thal"],
    }
    (chol,) = (c for c in found.tree["cautions"] if c["columns"] == ["chol"])
    assert "172 of 920 rows" in chol["evidence"]
    assert "100 % of switzerland" in chol["evidence"]
    # 172 zeros and 30 gaps of 920 rows
    assert found.tree["missing"]["columns"]["chol"] == pytest.approx(202 / 920)


@pytest.mark.parametrize(("site", "zeros"), [("cleveland", []), ("va", ["column-5"])])
def test_heart_without_a_header(site: str, zeros: list[str]) -> None:
    found = look(f"uci_heart/processed.{site}.data")
    assert kinds(found)["label"] == ["column-14"]
    assert kinds(found)["boolean"] == ["column-2", "column-6", "column-9"]
    assert warned(found).get("disguised missing", []) == zeros
    assert found.schema.file.header is False


def test_names_tell_of_zeros_that_are_all_there_is() -> None:
    path = Path(DATA) / "uci_heart/processed.switzerland.data"
    if not DATA or not path.is_file():
        pytest.skip("WARDROUND_DATA has no uci_heart")
    found = describe(open_table(path, names=HEART))
    assert warned(found)["disguised missing"] == ["chol"]


def test_pima_zeros_without_a_header() -> None:
    found = look("pima_diabetes/pima-indians-diabetes.csv")
    # glucose, pressure, skin, insulin, mass; pregnancies may be 0
    assert warned(found) == {"disguised missing": ["column-2", "column-3", "column-4", "column-5", "column-6"]}
    assert kinds(found) == {"numeric": [f"column-{n}" for n in range(1, 9)], "label": ["column-9"]}


def test_wdbc_raises_no_alarm() -> None:
    found = look("wdbc/wdbc.csv")
    assert found.tree["cautions"] == []
    assert len(kinds(found)["numeric"]) == 30


def test_hypothyroid() -> None:
    found = look("hypothyroid/hypothyroid.arff")
    assert {kind: len(names) for kind, names in kinds(found).items()} == {
        "numeric": 6,
        "boolean": 19,
        "categorical": 2,
        "ignore": 2,
        "label": 1,
    }
    told = warned(found)
    assert told["constant"] == ["TBG measured", "TBG"]
    assert told["impossible value"] == ["age"]
    assert told["rare class"] == ["Class"]
    # the diagnosis is made from them
    assert told["leak"] == ["TSH", "FTI"]


def test_tcga_brca() -> None:
    found = look("tcga_brca/brca.csv")
    assert (kinds(found)["patient"], kinds(found)["label"], kinds(found)["ignore"]) == (["pid"], ["E"], ["T"])
    assert len(kinds(found)["boolean"]) == 38
    assert warned(found)["leak"] == ["T"]


def test_readmission() -> None:
    found = look("diabetes130/diabetic_data_first5k.csv")
    by_kind = kinds(found)
    assert (by_kind["identifier"], by_kind["patient"], by_kind["label"]) == (
        ["encounter_id"],
        ["patient_nbr"],
        ["readmitted"],
    )
    assert by_kind["ordinal"] == ["age", "weight"]
    assert by_kind["numeric"][0] == "time_in_hospital"
    assert len(by_kind["numeric"]) == 8
    told = warned(found)
    assert told["telling level"] == ["discharge_disposition_id"]
    assert "leak" not in told
    assert {"examide", "citoglipton"} <= set(told["constant"])


def test_mimic() -> None:
    found = look("mimic3_demo/ADMISSIONS.csv.gz")
    assert warned(found)["leak"] == ["deathtime", "discharge_location"]
    assert kinds(found)["date"] == ["admittime", "dischtime", "edregtime", "edouttime"]
    patients = look("mimic3_demo/PATIENTS.csv.gz")
    assert kinds(patients)["identifier"] == ["row_id", "dob"]
    codes = look("mimic3_demo/DIAGNOSES_ICD.csv.gz")
    assert kinds(codes)["categorical"] == ["icd9_code"]
    drugs = look("mimic3_demo/PRESCRIPTIONS.csv.gz")
    assert warned(drugs)["mixed types"] == ["dose_val_rx", "form_val_disp"]


def test_pictures() -> None:
    xray = look("chestxray14_labels/sample_labels.csv")
    assert warned(xray)["several values"] == ["Finding Labels"]
    assert kinds(xray)["identifier"] == ["Image Index"]
    assert xray.schema.columns["Patient Age"].model_dump()["unit"] == "Y"
    isic = look("isic_sites/isic2019_sites.csv")
    assert warned(isic)["leak"] == ["MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC"]
    ham = look("ham10000_sites/labels.csv")
    assert kinds(ham)["label"] == ["dx"]
    assert warned(ham)["telling level"] == ["dx_type"]


@pytest.mark.parametrize(
    "file",
    [
        "uci_heart/heart_all_sites.csv",
        "uci_heart/processed.va.data",
        "pima_diabetes/pima-indians-diabetes.csv",
        "wdbc/wdbc.csv",
        "hypothyroid/hypothyroid.arff",
        "tcga_brca/brca.csv",
        "diabetes130/diabetic_data_first5k.csv",
        "isic_sites/isic2019_sites.csv",
        "ham10000_sites/labels.csv",
        "mimic3_demo/ADMISSIONS.csv.gz",
    ],
)
def test_the_table_reads_with_its_draft_as_it_stands(file: str) -> None:
    found = look(file)
    table = open_as(Path(DATA) / file, found.schema)
    parts = list(encode(table, found.schema))
    assert sum(len(part.features) for part in parts) == found.tree["rows"]
    assert all(part.labels is not None for part in parts)

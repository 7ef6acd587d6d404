import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wardround.data.datasets.readmission import Readmission
from wardround.errors import ConfigError, DataError
from wardround.prediction import predict
from wardround.types import SiteData

HEADER = (
    "encounter_id,patient_nbr,race,gender,age,weight,admission_type_id,discharge_disposition_id,admission_source_id,"
    "time_in_hospital,payer_code,medical_specialty,num_lab_procedures,num_procedures,num_medications,number_outpatient,"
    "number_emergency,number_inpatient,diag_1,diag_2,diag_3,number_diagnoses,max_glu_serum,A1Cresult,metformin,repaglinide,"
    "nateglinide,chlorpropamide,glimepiride,acetohexamide,glipizide,glyburide,tolbutamide,pioglitazone,rosiglitazone,"
    "acarbose,miglitol,troglitazone,tolazamide,examide,citoglipton,insulin,glyburide-metformin,glipizide-metformin,"
    "glimepiride-pioglitazone,metformin-rosiglitazone,metformin-pioglitazone,change,diabetesMed,readmitted"
)
NAMES = HEADER.split(",")
MEDICINES = NAMES[NAMES.index("metformin") : NAMES.index("change")]
PLAIN = {
    "race": "Caucasian", "gender": "Female", "age": "[70-80)", "weight": "?", "admission_type_id": "1",
    "discharge_disposition_id": "1", "admission_source_id": "7", "time_in_hospital": "3", "payer_code": "?",
    "medical_specialty": "Cardiology", "num_lab_procedures": "41", "num_procedures": "0", "num_medications": "8",
    "number_outpatient": "0", "number_emergency": "0", "number_inpatient": "1", "diag_1": "250.83", "diag_2": "?",
    "diag_3": "V27", "number_diagnoses": "9", "max_glu_serum": "None", "A1Cresult": ">8",
    **dict.fromkeys(MEDICINES, "No"), "insulin": "Up", "change": "Ch", "diabetesMed": "Yes", "readmitted": "NO",
}  # fmt: skip


def write(folder: Path, *rows: dict[str, Any], file: str = "diabetic_data.csv") -> Path:
    """A file in UCI's layout: row k has the encounter number 100 + k and a patient of its own, unless it says otherwise."""
    (folder / "diabetes130").mkdir(exist_ok=True)
    path = folder / "diabetes130" / file
    lines = [HEADER]
    for k, row in enumerate(rows):
        cells = {"encounter_id": 100 + k, "patient_nbr": k, **PLAIN, **row}
        lines.append(",".join(str(cells[name]) for name in NAMES))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WARDROUND_DATA", str(tmp_path))
    return tmp_path


def sizes(dataset: Readmission) -> dict[str, int]:
    return {site: len(dataset.load(site).labels) for site in dataset.describe().sites}


def cells(dataset: Readmission, data: SiteData, row: int = 0) -> dict[str, Any]:
    """One row by name: numbers, names of levels, None for gaps."""
    found: dict[str, Any] = {}
    for column, value in zip(dataset.describe().columns, data.features[row].tolist(), strict=True):
        found[column.name] = None if np.isnan(value) else column.levels[int(value)] if column.levels else value
    return found


def test_reads_the_official_layout(root: Path) -> None:
    write(
        root, {"race": "?", "gender": "Unknown/Invalid", "admission_source_id": "17", "discharge_disposition_id": "22"}
    )
    dataset = Readmission(min_rows=1)
    row = cells(dataset, dataset.load("Cardiology"))
    assert row == {
        "race": None, "gender": None, "age": 7.0, "admission_type_id": "emergency", "admission_source_id": None,
        "number_outpatient": 0.0, "number_emergency": 0.0, "number_inpatient": 1.0,
        "discharge_disposition_id": "nursing or rehabilitation", "time_in_hospital": 3.0, "num_lab_procedures": 41.0,
        "num_procedures": 0.0, "num_medications": 8.0, "number_diagnoses": 9.0, "diag_1": "diabetes", "diag_2": None,
        "diag_3": "other", "max_glu_serum": "None", "A1Cresult": ">8", **dict.fromkeys(MEDICINES, "No"), "insulin": "Up",
        "change": "yes", "diabetesMed": "yes",
    }  # fmt: skip


def test_the_label_is_a_readmission_within_thirty_days(root: Path) -> None:
    write(root, {"readmitted": "<30"}, {"readmitted": ">30"}, {"readmitted": "NO"})
    assert Readmission(min_rows=1).load("Cardiology").labels.tolist() == [1, 0, 0]


def test_identifiers_and_the_site_are_no_features(root: Path) -> None:
    write(root, {})
    for site in ("medical_specialty", "race", None):
        names = {column.name for column in Readmission(site=site, sparse=True).describe().columns}
        assert not {"encounter_id", "patient_nbr", "readmitted", site} & names
    assert "medical_specialty" in {column.name for column in Readmission(site=None).describe().columns}


def test_who_died_or_went_to_a_hospice_is_left_out(root: Path) -> None:
    write(root, *({"discharge_disposition_id": code} for code in (1, 11, 13, 14, 19, 20, 21, 18, 6)))
    dataset = Readmission(min_rows=1)
    assert dataset.load("Cardiology").patients.tolist() == ["0", "7", "8"]
    assert "3 of 9 encounters in diabetic_data.csv" in dataset.describe().title


def test_first_encounters_are_those_of_the_lowest_number(root: Path) -> None:
    write(
        root,
        {"patient_nbr": 5, "encounter_id": 30, "time_in_hospital": 9},
        {"patient_nbr": 5, "encounter_id": 9, "time_in_hospital": 2},
        # as in the paper: the first encounter is found before deaths leave
        {"patient_nbr": 6, "encounter_id": 1, "discharge_disposition_id": 13},
        {"patient_nbr": 6, "encounter_id": 2, "time_in_hospital": 4},
    )
    stay = [column.name for column in Readmission().describe().columns].index("time_in_hospital")
    first, every = Readmission(min_rows=1), Readmission(min_rows=1, encounters="all")
    assert first.load("Cardiology").features[:, stay].tolist() == [2.0]
    assert every.load("Cardiology").features[:, stay].tolist() == [9.0, 2.0, 4.0]


def test_a_patient_has_one_site(root: Path) -> None:
    write(
        root,
        {"patient_nbr": 5, "encounter_id": 30, "medical_specialty": "Urology"},
        {"patient_nbr": 5, "encounter_id": 9, "medical_specialty": "Cardiology"},
        {"patient_nbr": 6, "encounter_id": 40, "medical_specialty": "Urology"},
    )
    dataset = Readmission(min_rows=1, encounters="all")
    assert sizes(dataset) == {"Cardiology": 2, "Urology": 1}
    assert dataset.load("Cardiology").patients.tolist() == ["5", "5"]


@pytest.mark.parametrize(
    ("min_rows", "expected"),
    [
        (1, {"Cardiology": 4, "Nephrology": 2, "Urology": 1, "unknown": 3}),
        (3, {"Cardiology": 4, "other": 3, "unknown": 3}),
        # 3 + 2 + 1 patients of small sites suffice for 4
        (4, {"Cardiology": 4, "other": 6}),
        # the small ones are 6 of 7 needed, so the next smallest joins them
        (7, {"other": 10}),
        (100, {"other": 10}),
    ],
)
def test_small_sites_join_until_they_have_enough(root: Path, min_rows: int, expected: dict[str, int]) -> None:
    names = ["Cardiology"] * 4 + ["?"] * 3 + ["Nephrology"] * 2 + ["Urology"]
    write(root, *({"medical_specialty": name} for name in names))
    assert sizes(Readmission(min_rows=min_rows)) == expected


def test_other_is_filled_up_with_the_next_smallest_site(root: Path) -> None:
    write(root, *({"medical_specialty": name} for name in ["Cardiology"] * 5 + ["Urology"] * 3 + ["Nephrology"]))
    assert sizes(Readmission(min_rows=3)) == {"Cardiology": 5, "other": 4}


def test_sites_by_another_column_or_none(root: Path) -> None:
    write(root, {"admission_source_id": "7"}, {"admission_source_id": "1"})
    assert sizes(Readmission(site="admission_source_id", min_rows=1)) == {"source 1": 1, "source 7": 1}
    pool = Readmission(site=None)
    assert sizes(pool) == {"readmission": 2}
    assert not pool.describe().natural


def test_facts_on_admission_say_nothing_of_the_stay(root: Path) -> None:
    write(root, {"weight": "[75-100)", "payer_code": "MC"})
    dataset = Readmission(facts="admission", sparse=True, min_rows=1)
    row = cells(dataset, dataset.load("Cardiology"))
    assert row["weight"] == 3.0
    assert row["payer_code"] == "MC"
    assert set(row) == {
        "weight", "payer_code", "race", "gender", "age", "admission_type_id", "admission_source_id", "number_outpatient",
        "number_emergency", "number_inpatient",
    }  # fmt: skip


def test_a_part_of_the_file_is_found_by_its_name(root: Path) -> None:
    write(root, {}, file="diabetic_data_first5k.csv")
    assert "diabetic_data_first5k.csv" in Readmission().describe().title
    write(root, {}, {}, file="diabetic_data_more.csv")
    with pytest.raises(DataError, match=r"choose one with data\.options\.file"):
        Readmission().describe()
    assert "2 of 2 encounters" in Readmission(file="diabetic_data_more.csv").describe().title
    whole = write(root, {}, {}, {})
    assert "3 of 3 encounters in diabetic_data.csv" in Readmission().describe().title
    assert "3 of 3 encounters" in Readmission(file=str(whole)).describe().title


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"diag_2": "I10"}, r"line 3, column 'diag_2': 'I10' is not one of the codes"),
        ({"time_in_hospital": "three"}, r"line 3, column 'time_in_hospital': 'three'"),
        ({"age": "75"}, r"line 3, column 'age': '75'"),
        ({"readmitted": "<60"}, r"line 3, column 'readmitted': '<60'"),
        ({"readmitted": "?"}, r"line 3, column 'readmitted': there is no label"),
        ({"patient_nbr": "?"}, r"line 3, column 'patient_nbr': there is no patient"),
        ({"encounter_id": "x7"}, r"column 'encounter_id'.*expected whole numbers"),
        ({"discharge_disposition_id": "31"}, r"line 3, column 'discharge_disposition_id': '31'"),
    ],
)
def test_malformed_cells(root: Path, row: dict[str, Any], message: str) -> None:
    write(root, {}, row)
    with pytest.raises(DataError, match=message):
        Readmission(min_rows=1).describe()


def test_absent_empty_and_foreign_files(root: Path) -> None:
    (root / "diabetes130").mkdir()
    with pytest.raises(DataError, match=r"no file .*diabetic_data\.csv.*archive\.ics\.uci\.edu"):
        Readmission().describe()
    path = write(root)
    with pytest.raises(DataError, match="no rows"):
        Readmission().describe()
    path.write_text("encounter_id,patient_nbr\n1,2\n", encoding="utf-8")
    with pytest.raises(DataError, match="the column 'race' is missing"):
        Readmission().describe()
    write(root, {"discharge_disposition_id": "11"})
    with pytest.raises(DataError, match="none of its 1 encounters is kept"):
        Readmission().describe()
    write(root, {})
    with pytest.raises(DataError, match="site 'Urology': the dataset 'readmission' has other"):
        Readmission().load("Urology")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"site": "hospital"}, "data.options.site = 'hospital': expected one of medical_specialty"),
        ({"min_rows": 0}, "expected a whole number of at least 1"),
        ({"encounters": "last"}, "expected one of first, all"),
        ({"facts": "discharge"}, "expected one of stay, admission"),
        ({"sparse": "yes"}, "expected true or false"),
        ({"file": ""}, "expected the name of a file"),
    ],
)
def test_options_that_mean_nothing(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Readmission(**options)


def test_a_trained_model_scores_a_raw_file(root: Path, tmp_path: Path) -> None:
    from wardround import Job, run

    rows = [
        {"number_inpatient": k % 4, "readmitted": "<30" if k % 4 == 3 else "NO", "medical_specialty": specialty}
        for specialty in ("Cardiology", "Urology")
        for k in range(24)
    ]
    path = write(root, *rows)
    tree = {
        "data": {"dataset": "readmission", "options": {"min_rows": 10}},
        "training": {"rounds": 8},
        "evaluation": {"baselines": [], "bootstrap": 0},
    }
    run(Job.model_validate(tree), tmp_path / "run", report=False)
    scored = predict(tmp_path / "run", path)
    assert len(scored) == 48
    assert scored[3]["probability"] > scored[0]["probability"]


# ------------------------------------------------------------------------------------------------- the real file

_REAL = Path(os.environ.get("WARDROUND_DATA", ""), "diabetes130")
_FIRST = next(iter(sorted(_REAL.glob("diabetic_data*first5k.csv"))), None) if os.environ.get("WARDROUND_DATA") else None


@pytest.mark.skipif(_FIRST is None, reason="WARDROUND_DATA names no folder with diabetes130/diabetic_data_first5k.csv")
def test_real_counts() -> None:
    every = Readmission(file=str(_FIRST), encounters="all", site=None)
    first = Readmission(file=str(_FIRST))
    # 4,999 encounters of 4,259 patients, 91 of which ended in death or a hospice; of 554 '<30' two did
    data = every.load("readmission")
    assert len(data.labels) == 4999 - 91
    assert int(data.labels.sum()) == 554 - 2
    assert len(np.unique(data.patients)) == 4190
    assert sizes(first)["InternalMedicine"] == 797
    assert sum(sizes(first).values()) == 4190
    assert min(sizes(first).values()) >= 100

"""Single checks: each finds what is planted, and is silent where nothing is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from wardround.data.profile import looks, names, units
from wardround.data.profile.describe import Profile, describe
from wardround.data.profile.draft import as_yaml, date_format
from wardround.data.tables.encode import encode, open_as
from wardround.data.tables.reader import open_table
from wardround.data.tables.schema import Schema
from wardround.errors import ConfigError, DataError

ROWS = 400


@pytest.fixture
def draw() -> np.random.Generator:
    return np.random.default_rng(1)


def look(tmp_path: Path, columns: Mapping[str, Sequence[object]], delimiter: str = ",", **given: object) -> Profile:
    lines = [delimiter.join(columns)]
    lines += [delimiter.join(map(str, row)) for row in zip(*columns.values(), strict=True)]
    path = tmp_path / "table.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return describe(open_table(path), **given)  # type: ignore[arg-type]


def found(profile: Profile) -> dict[str, list[str]]:
    kinds: dict[str, list[str]] = {}
    for caution in profile.tree["cautions"]:
        kinds.setdefault(caution["kind"], []).extend(caution["columns"] or ["*"])
    return kinds


def kinds(profile: Profile) -> dict[str, str]:
    return {name: column.kind for name, column in profile.schema.columns.items()}


def labels(draw: np.random.Generator, rows: int = ROWS) -> np.ndarray:
    return draw.integers(0, 2, rows)


@pytest.mark.parametrize(
    ("code", "share", "suspected"),
    [
        ("0", 0.3, True),
        ("-1", 0.05, True),
        ("-9", 0.05, True),
        ("999", 0.05, True),
        ("9999", 0.02, True),
        ("200", 0.3, False),
        ("199", 0.05, False),
    ],
)
def test_a_spike_apart_from_the_rest(
    code: str, share: float, suspected: bool, tmp_path: Path, draw: np.random.Generator
) -> None:
    values = np.where(draw.random(ROWS) < share, code, draw.normal(200, 30, ROWS).round().astype(int).astype(str))
    profile = look(tmp_path, {"amount": values, "other": draw.normal(size=ROWS), "label": labels(draw)})
    assert found(profile).get("disguised missing", []) == (["amount"] if suspected else [])
    assert profile.schema.columns["amount"].missing == ((code,) if suspected else ())


def test_zeros_of_counts_and_of_small_amounts_are_values(tmp_path: Path, draw: np.random.Generator) -> None:
    amounts = np.maximum(draw.exponential(1.0, ROWS) - 0.1, 0).round(3)
    profile = look(
        tmp_path,
        {
            "visits": draw.poisson(2.0, ROWS),
            "dose": draw.choice([0, 50, 100, 150, 200, 250], ROWS),
            "amount": amounts,
            "change": draw.integers(-20, 20, ROWS),
            "label": labels(draw),
        },
    )
    assert "disguised missing" not in found(profile)


def test_one_zero_pressure_is_enough(tmp_path: Path, draw: np.random.Generator) -> None:
    pressure = draw.normal(120, 15, ROWS).round().astype(int)
    pressure[7] = 0
    profile = look(tmp_path, {"systolic bp": pressure, "label": labels(draw)})
    assert found(profile)["disguised missing"] == ["systolic bp"]


def test_words_that_mean_unknown_become_gaps(tmp_path: Path, draw: np.random.Generator) -> None:
    smoker = draw.choice(["never", "former", "current", "Unknown"], ROWS)
    profile = look(tmp_path, {"smoker": smoker, "label": labels(draw)})
    assert profile.schema.columns["smoker"].model_dump()["levels"] == ("current", "former", "never")
    assert profile.schema.columns["smoker"].missing == ("Unknown",)


def test_a_leak_is_found_and_noise_of_many_values_is_none(tmp_path: Path, draw: np.random.Generator) -> None:
    label = labels(draw)
    profile = look(
        tmp_path,
        {
            "noise": [f"level {value}" for value in draw.integers(0, ROWS // 3, ROWS)],
            "good": draw.normal(2.2 * label, 1.0),
            "score": draw.normal(20 * label, 1.0),
            "given": np.where(label == 1, draw.choice(["a", "b"], ROWS), ""),
            "label": label,
        },
    )
    assert found(profile)["leak"] == ["score", "given"]
    auroc = {column["name"]: column["auroc"] for column in profile.tree["columns"]}
    assert 0.4 < auroc["noise"] < 0.6
    # two normals 2.2 standard deviations apart: Phi(2.2 / sqrt 2) = 0.940
    assert auroc["good"] == pytest.approx(0.940, abs=0.03)
    assert kinds(profile)["score"] == kinds(profile)["given"] == "ignore"
    assert kinds(profile)["good"] == "numeric"


def test_whole_patients_are_held_out(tmp_path: Path, draw: np.random.Generator) -> None:
    patients = 60
    label = np.repeat(labels(draw, patients), 10)
    bed = np.repeat(draw.permutation(patients), 10)
    profile = look(tmp_path, {"patient_id": np.repeat(np.arange(patients) + 1000, 10), "bed": bed, "label": label})
    # a patient's own number says nothing of another patient
    assert "leak" not in found(profile)


def test_levels_of_one_class_alone(tmp_path: Path, draw: np.random.Generator) -> None:
    label = labels(draw)
    left = np.where((label == 0) & (draw.random(ROWS) < 0.4), "died", draw.choice(["home", "clinic"], ROWS))
    profile = look(tmp_path, {"destination": left, "age": draw.normal(50, 9, ROWS), "label": label})
    assert found(profile) == {"telling level": ["destination"]}


def test_sites_tiny_of_one_class_and_with_common_patients(tmp_path: Path, draw: np.random.Generator) -> None:
    site = np.where(np.arange(ROWS) < 10, "small", np.where(np.arange(ROWS) < 60, "pure", "large"))
    label = np.where(site == "pure", 1, labels(draw))
    patient = np.arange(ROWS) + 500
    patient[0] = patient[-1]
    profile = look(tmp_path, {"patient": patient, "hospital": site, "age": draw.integers(20, 90, ROWS), "label": label})
    told = found(profile)
    assert told["tiny site"] == ["hospital"]
    assert told["one-class site"] == ["hospital"]
    assert told["patient at several sites"] == ["patient", "hospital"]
    evidence = " ".join(caution["evidence"] for caution in profile.tree["cautions"])
    assert "small: 10 rows" in evidence
    assert "pure: 50 rows, all 1" in evidence


def test_units_that_differ_by_site(tmp_path: Path, draw: np.random.Generator) -> None:
    site = draw.choice(["a", "b", "c"], ROWS)
    creatinine = draw.lognormal(0, 0.2, ROWS) * np.where(site == "c", 88.4, 1.0)
    profile = look(tmp_path, {"site": site, "creatinine": creatinine.round(3), "label": labels(draw)})
    assert found(profile)["units"] == ["creatinine"]
    (caution,) = (c for c in profile.tree["cautions"] if c["kind"] == "units")
    assert "at c differ" in caution["evidence"]
    assert "mg/dL and µmol/L" in caution["evidence"]


def test_two_crowds_and_one(draw: np.random.Generator) -> None:
    one = draw.lognormal(0, 0.5, 500)
    assert units.two_crowds("height", one) is None
    both = np.concatenate([draw.normal(1.7, 0.1, 300), draw.normal(170, 10, 100)])
    mixed = units.two_crowds("height", both)
    assert mixed is not None
    assert mixed.units == "m and cm"


def test_mixed_types_spelling_and_constants(tmp_path: Path, draw: np.random.Generator) -> None:
    value = draw.normal(50, 10, ROWS).round(1).astype(str)
    value[:20] = "hemolysed"
    profile = look(
        tmp_path,
        {
            "value": value,
            "route": draw.choice(["IV", "iv", "oral"], ROWS),
            "same": ["x"] * ROWS,
            "empty": [""] * ROWS,
            "nearly": ["no"] * (ROWS - 1) + ["yes"],
            "twin": value,
            "label": labels(draw),
        },
    )
    told = found(profile)
    assert told["mixed types"] == ["value", "twin"]
    assert told["spelling"] == ["route"]
    assert told["constant"] == ["same", "empty"]
    assert told["nearly constant"] == ["nearly"]
    assert told["same column"] == ["twin"]
    (mixed, _) = (c for c in profile.tree["cautions"] if c["kind"] == "mixed types")
    assert "'hemolysed'" in mixed["evidence"]


def test_decimal_commas_are_read(tmp_path: Path, draw: np.random.Generator) -> None:
    value = [f"{v:.2f}".replace(".", ",") for v in draw.normal(5, 1, ROWS)]
    profile = look(tmp_path, {"value": value, "label": labels(draw)}, delimiter=";")
    assert kinds(profile)["value"] == "numeric"
    assert profile.schema.file.decimal == ","
    assert profile.tree["columns"][0]["numbers"]["median"] == pytest.approx(5, abs=0.3)


def test_numbers_with_a_unit_are_read_by_the_draft(tmp_path: Path, draw: np.random.Generator) -> None:
    age = [f"{value:03d}Y" for value in draw.integers(20, 90, ROWS)]
    profile = look(tmp_path, {"Patient Age": age, "label": labels(draw)})
    assert found(profile)["number with text"] == ["Patient Age"]
    parts = list(encode(open_as(tmp_path / "table.csv", profile.schema), profile.schema))
    assert parts[0].features[:, 0].tolist() == [float(text[:3]) for text in age]


def test_a_draft_as_yaml_is_the_schema(tmp_path: Path, draw: np.random.Generator) -> None:
    columns = {"yes": ["a", "b"] * 200, "a: b #c": draw.normal(size=ROWS), "ratio": ["n/a", "1", "2", "3"] * 100}
    profile = look(tmp_path, columns | {"label": labels(draw)})
    text = as_yaml(profile.schema, profile.tree)
    path = tmp_path / "schema.yaml"
    path.write_text(text, encoding="utf-8")
    assert Schema.read(path) == profile.schema
    assert "  label:  # by its name" in text
    assert "n/a" in profile.schema.missing


def test_rare_levels_of_many_are_not_named(tmp_path: Path, draw: np.random.Generator) -> None:
    codes = [f"C{value:02d}" for value in draw.integers(0, 30, ROWS - 1)] + ["only-one"]
    profile = look(tmp_path, {"code": codes, "label": labels(draw)})
    column = profile.schema.columns["code"].model_dump()
    assert column["unseen"] == "other"
    assert "only-one" not in column["levels"]
    assert "only-one" not in str(profile.tree)


def test_columns_that_are_not_there(tmp_path: Path, draw: np.random.Generator) -> None:
    columns = {"age": draw.integers(1, 99, ROWS), "ill": labels(draw)}
    with pytest.raises(ConfigError, match=r"no column 'sick' to be the label: it has age, ill"):
        look(tmp_path, columns, label="sick")
    with pytest.raises(ConfigError, match="the same one"):
        look(tmp_path, columns, label="ill", site="ill")
    with pytest.raises(DataError, match="no row"):
        look(tmp_path, {"age": [], "ill": []})


def test_a_number_as_label_is_cut(tmp_path: Path, draw: np.random.Generator) -> None:
    profile = look(tmp_path, {"age": draw.integers(1, 99, ROWS), "days": draw.normal(50, 9, ROWS)}, label="days")
    assert kinds(profile)["days"] == "label"
    assert found(profile)["label"] == ["days"]
    label = profile.schema.label
    assert label is not None
    assert label[1].cut is not None
    assert label[1].cut.above == pytest.approx(50, abs=2)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("Patient Name", "personal name"),
        ("surname", "personal name"),
        ("dob", "date of birth"),
        ("BirthDate", "date of birth"),
        ("referring_physician", "name of a doctor"),
        ("e-mail", "e-mail address"),
        ("mobile_phone", "telephone number"),
        ("ZIP", "postcode"),
        ("SSN", "national number"),
        ("MRN", "record number"),
        *[
            (n, None)
            for n in ("drug_name", "birth_weight", "dod_ssn", "medical_specialty", "cell size", "hospital_name")
        ],
        *[(n, None) for n in ("physician_visits", "age", "admission_type_id", "n_doctor_visits", "treatment")],
    ],
)
def test_names_that_announce_identifiers(name: str, what: str | None) -> None:
    assert names.direct_identifier(name) == what


@pytest.mark.parametrize(
    ("texts", "what"),
    [
        (["a@b.org", "c.d@e.co.uk"], "e-mail address"),
        (["+49 170 1234567", "(030) 123 4567", "0171/555-1234"], "telephone number"),
        (["123-45-6789", "987-65-4321"], "national number"),
        (["Dr. Weiss", "Dr. med. Amann"], "name of a doctor"),
        (["Berger, Anna", "Novak, Peter", "Rossi, Maria"], "personal name"),
        (["Berger^Anna", "Novak^Peter", "Rossi^Maria"], "personal name"),
        (["12 Mill Street", "7a Oak Rd"], "address"),
        (["Hauptstrasse 12", "Am Marktplatz 3, Bern"], "address"),
        (["1.2.840.113619.2.1", "1.2.840.10008.5.1.4"], "DICOM UID"),
        (["St Mary Hospital", "Anna Seiler Clinic", "John Hopkins Center"], None),
        (["2020-01-31", "1999-12-01"], None),
        (["10-20", "20-30", "100-200"], None),
        (["Norepinephrine", "Insulin Glargine", "Potassium Chloride"], None),
        (["Infiltrating Duct", "Lobular Carcinoma"], None),
        (["250.83", "V27", "E909"], None),
        ([], None),
    ],
)
def test_values_that_are_identifiers(texts: list[str], what: str | None) -> None:
    seen = looks.identifier(texts)
    assert (seen[0] if seen else None) == what


def test_orders() -> None:
    assert looks.order(["[10-20)", "[0-10)", "[100-110)"]) == ["[0-10)", "[10-20)", "[100-110)"]
    assert looks.order([">=90", "<30", "30-59", "60-89"]) == ["<30", "30-59", "60-89", ">=90"]
    assert looks.order(["Severe", "mild", "moderate"]) == ["mild", "moderate", "Severe"]
    assert looks.order(["Stage II", "Stage I", "Stage IV"]) == ["Stage I", "Stage II", "Stage IV"]
    assert looks.order(["red", "green", "blue"]) is None
    assert looks.order(["low", "high"]) is None


@pytest.mark.parametrize(
    ("dates", "form"),
    [
        (["2020-01-31", "2020-02-01 10:00:00"], None),
        (["31/01/2020", "01/02/2020"], "%d/%m/%Y"),
        (["01/31/2020", "02/01/2020"], "%m/%d/%Y"),
        (["31.01.2020 08:30"], "%d.%m.%Y %H:%M"),
        (["31-Jan-2020"], "%d-%b-%Y"),
    ],
)
def test_forms_of_dates(dates: list[str], form: str | None) -> None:
    assert looks.dates(dates, dated=False)
    assert date_format(dates) == form

import os
from pathlib import Path

import numpy as np
import pytest

from wardround import Job, predict, run
from wardround.data.datasets.hypothyroid import Hypothyroid
from wardround.errors import ConfigError, DataError

HISTORY = 14
ROW = "{age},F,t,{flags},{tests},f,?,{source},{kind}"


def _row(age: str = "41", source: str = "SVHC", kind: str = "negative", tsh: str = "1.3") -> str:
    tests = f"t,{tsh},t,2.5,t,125,f,?,t,109"
    return ROW.format(age=age, flags=",".join("f" * (HISTORY - 1)), tests=tests, source=source, kind=kind)


ROWS = (
    _row(),
    _row(),
    _row(age="455", source="SVI", kind="compensated_hypothyroid"),
    _row(tsh="?", source="SVI", kind="primary_hypothyroid"),
    _row(tsh="?", source="SVI", kind="secondary_hypothyroid"),
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    names = [column for column in Hypothyroid()._whole.columns if column != "Class"]
    tests = names[2 + HISTORY : -1]
    header = [
        *(f"@attribute '{name}' {'real' if name == 'age' else '{F, M, f, t}'}" for name in names[: 2 + HISTORY]),
        *(
            line
            for name in (*tests, "TBG")
            for line in (f"@attribute '{name} measured' {{t, f}}", f"@attribute {name} real")
        ),
        "@attribute 'referral source' {SVHC, other, SVI, STMW, SVHD}",
        "@attribute Class {negative, compensated_hypothyroid, primary_hypothyroid, secondary_hypothyroid}",
        "@data",
    ]
    (tmp_path / "hypothyroid").mkdir()
    (tmp_path / "hypothyroid" / "hypothyroid.arff").write_text("\n".join([*header, *ROWS]) + "\n")
    monkeypatch.setenv("WARDROUND_DATA", str(tmp_path))
    return tmp_path


def test_classes(folder: Path) -> None:
    assert Hypothyroid().load("hypothyroid").labels.tolist() == [0, 0, 1, 1, 1]
    assert Hypothyroid(classes="three").load("hypothyroid").labels.tolist() == [0, 0, 1, 2]
    assert Hypothyroid(classes="four").load("hypothyroid").labels.tolist() == [0, 0, 1, 2, 3]
    assert Hypothyroid(classes="four").describe().classes == ("negative", "compensated", "primary", "secondary")


def test_equal_rows_are_one_patient_whatever_is_left_out(folder: Path) -> None:
    data = Hypothyroid(tests="none", classes="four").load("hypothyroid")
    # rows 1 and 2 are equal; 4 and 5 differ in the class alone, rows 1 and 4 in a test that is not loaded
    assert data.patients.tolist() == [0, 0, 2, 3, 4]
    assert data.features.shape == (5, 17)


def test_features(folder: Path) -> None:
    data = Hypothyroid().load("hypothyroid")
    names = [column.name for column in Hypothyroid().describe().columns]
    assert len(names) == 22
    assert not any("measured" in name or "TBG" in name for name in names)
    row = dict(zip(names, data.features[2], strict=True))
    assert np.isnan(row["age"])
    assert (row["sex"], row["on thyroxine"], row["sick"], row["TSH"], row["referral source"]) == (0, 1, 0, 1.3, 2)
    assert np.isnan(data.features[3, names.index("TSH")])


def test_referrals_as_sites(folder: Path) -> None:
    dataset = Hypothyroid(sites="referral")
    assert dataset.describe().natural
    assert "referral source" not in [column.name for column in dataset.describe().columns]
    assert dataset.load("SVI").labels.tolist() == [1, 1, 1]
    assert dataset.load("SVHC").patients.tolist() == [0, 0]
    with pytest.raises(DataError, match="site 'STMW' has no row"):
        dataset.load("STMW")
    with pytest.raises(DataError, match="site 'WEST': the dataset 'hypothyroid' has STMW, SVHC, SVHD, SVI, other"):
        dataset.load("WEST")


@pytest.mark.parametrize("option", ["classes", "tests", "sites"])
def test_options(option: str) -> None:
    with pytest.raises(ConfigError, match=rf"data\.options\.{option} = 'two': expected"):
        Hypothyroid(**{option: "two"})


real = pytest.mark.skipif(
    not Path(os.environ.get("WARDROUND_DATA", "/nowhere"), "hypothyroid").is_dir(),
    reason="WARDROUND_DATA names no folder with hypothyroid",
)


@real
def test_real_rows() -> None:
    data = Hypothyroid(classes="four").load("hypothyroid")
    assert np.bincount(data.labels).tolist() == [3481, 194, 95, 2]
    assert len(np.unique(data.patients)) == 3772 - 61
    # the file's own description counts 6064 gaps, of which TBG has 3772; the age of 455 is ours
    assert int(np.isnan(data.features).sum()) == 6064 - 3772 + 1
    sites = Hypothyroid(sites="referral")
    assert {s: len(sites.load(s).labels) for s in sites.describe().sites} == {
        "STMW": 112, "SVHC": 386, "SVHD": 39, "SVI": 1034, "other": 2201,
    }  # fmt: skip


@real
def test_a_run_on_the_real_file_and_its_rows_scored_again(tmp_path: Path) -> None:
    job = {
        "data": {"dataset": "hypothyroid", "options": {"sites": "referral"}},
        "evaluation": {"bootstrap": 0, "baselines": []},
        "engine": {"threads": 1},
    }
    run(Job.model_validate(job), tmp_path / "run", report=False)
    scored = predict(tmp_path / "run", Path(os.environ["WARDROUND_DATA"], "hypothyroid", "hypothyroid.arff"))
    ill = Hypothyroid().load("hypothyroid").labels == 1
    score = np.array([row["probability"] for row in scored])
    assert np.mean(score[ill][:, None] > score[~ill]) > 0.85

"""The custom dataset, from files to predictions."""

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from wardround import Job, predict, run
from wardround.config.job import DataSpec
from wardround.data.datasets.custom import Custom
from wardround.data.registry import build
from wardround.errors import ConfigError, DataError

SCHEMA: dict[str, Any] = {
    "columns": {
        "mrn": "identifier",
        "pid": "patient",
        "ward": "site",
        "age": {"kind": "numeric", "missing": [999]},
        "stage": {"kind": "ordinal", "levels": ["I", "II", "III"]},
        "code": {"kind": "categorical", "levels": ["a", "b"]},
        "died": {"kind": "label", "classes": {"alive": ["no"], "dead": ["yes"]}},
    }
}


def frame(rows: int = 90) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    age = rng.integers(30, 90, rows)
    return pd.DataFrame(
        {
            "mrn": [f"M{i}" for i in range(rows)],
            "pid": [f"P{i // 2}" for i in range(rows)],
            "ward": rng.choice(["north", "south", "west"], rows),
            "age": np.where(rng.random(rows) < 0.1, 999, age),
            "stage": rng.choice(["I", "II", "III", "?"], rows),
            "code": rng.choice(["a", "b"], rows),
            "died": np.where(age + rng.normal(0, 8, rows) > 60, "yes", "no"),
        }
    )


@pytest.fixture
def table(tmp_path: Path) -> Path:
    frame().to_csv(tmp_path / "records.csv", index=False)
    return tmp_path / "records.csv"


def test_one_table_with_a_site_column(table: Path) -> None:
    dataset = build(DataSpec(dataset="custom", options={"path": str(table), "schema": SCHEMA, "title": "Wards"}))
    description = dataset.describe()
    assert (description.sites, description.natural, description.title) == (("north", "south", "west"), True, "Wards")
    assert [column.name for column in description.columns] == ["age", "stage", "code"]
    assert description.classes == ("alive", "dead")
    raw = frame()
    north = dataset.load("north")
    assert north.patients.tolist() == raw.pid[raw.ward == "north"].tolist()
    assert north.labels.tolist() == (raw.died == "yes")[raw.ward == "north"].astype(int).tolist()
    with pytest.raises(DataError, match="site 'east': the dataset 'custom' has north, south, west"):
        dataset.load("east")


@pytest.mark.parametrize("given", ["folder", "pattern", "list"])
def test_one_file_a_hospital(given: str, tmp_path: Path) -> None:
    raw = frame()
    for ward, own in raw.groupby("ward"):
        own.drop(columns="ward").to_csv(tmp_path / f"{ward}.csv", index=False)
    (tmp_path / "west.csv.gz").write_bytes(gzip.compress((tmp_path / "west.csv").read_bytes()))
    (tmp_path / "west.csv").unlink()
    (tmp_path / "README.md").write_text("not a table")
    columns = {name: column for name, column in SCHEMA["columns"].items() if name != "ward"}
    path: Any = {
        "folder": str(tmp_path),
        "pattern": str(tmp_path / "*.csv*"),
        "list": [str(tmp_path / name) for name in ("west.csv.gz", "north.csv", "south.csv")],
    }[given]
    dataset = Custom(path, {"columns": columns})
    assert sorted(dataset.describe().sites) == ["north", "south", "west"]
    assert dataset.describe().natural
    assert len(dataset.load("west").labels) == int((raw.ward == "west").sum())


def test_one_table_without_sites_is_a_pool(table: Path) -> None:
    columns = {**SCHEMA["columns"], "ward": "ignore"}
    description = Custom(str(table), {"columns": columns}).describe()
    assert (description.sites, description.natural) == (("records",), False)


def test_faults_of_the_options(table: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no file"):
        Custom(str(tmp_path / "absent.csv"), SCHEMA).describe()
    with pytest.raises(DataError, match="no file fits"):
        Custom(str(tmp_path / "*.tsv"), SCHEMA).describe()
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no table"):
        Custom(str(tmp_path / "empty"), SCHEMA).describe()
    with pytest.raises(ConfigError, match=r"data\.options\.path = \[3\]"):
        Custom([3], SCHEMA)  # type: ignore[list-item]
    with pytest.raises(ConfigError, match="there is no schema"):
        Custom(str(table), "absent.yaml")
    with pytest.raises(ConfigError, match="names no label"):
        Custom(str(table), {"columns": {"age": "numeric"}})
    (tmp_path / "records.tsv").write_text("a\tb\n1\t2\n")
    with pytest.raises(DataError, match="would both be the site 'records'"):
        Custom([str(table), str(tmp_path / "records.tsv")], SCHEMA).describe()


def trained(table: Path, out: Path, schema: dict[str, Any]) -> Path:
    job = {
        "data": {"dataset": "custom", "options": {"path": str(table), "schema": schema}},
        "training": {"rounds": 3},
        "evaluation": {"bootstrap": 0, "baselines": []},
        "engine": {"threads": 1},
    }
    run(Job.model_validate(job), out, report=False)
    return out


def test_new_rows_are_read_by_the_schema_of_the_run(table: Path, tmp_path: Path) -> None:
    folder = trained(table, tmp_path / "run", SCHEMA)
    raw = frame().drop(columns=["died", "mrn", "pid", "ward"])
    raw.to_csv(tmp_path / "new.csv", index=False)
    raw.to_csv(tmp_path / "new.tsv.gz", index=False, sep="\t")
    scored = predict(folder, tmp_path / "new.csv")
    assert len(scored) == len(raw)
    assert predict(folder, tmp_path / "new.tsv.gz") == scored
    # 999 is a gap, and so is an empty cell
    raw.replace({"age": {999: ""}}).to_csv(tmp_path / "gaps.csv", index=False)
    assert predict(folder, tmp_path / "gaps.csv") == scored
    raw.loc[4, "code"] = "z"
    raw.to_csv(tmp_path / "unseen.csv", index=False)
    with pytest.raises(DataError, match=r"unseen\.csv, line 6, column 'code': 'z' is not one of the codes a, b"):
        predict(folder, tmp_path / "unseen.csv")
    assert predict(folder, _header_alone(tmp_path)) == []


def test_a_category_never_seen_may_be_other(table: Path, tmp_path: Path) -> None:
    code = {"kind": "categorical", "levels": ["a", "b"], "unseen": "other"}
    folder = trained(table, tmp_path / "run", {"columns": {**SCHEMA["columns"], "code": code}})
    (tmp_path / "new.csv").write_text("age,stage,code\n50,I,z\n50,I,brand new\n50,I,other\n")
    assert len({row["probability"] for row in predict(folder, tmp_path / "new.csv")}) == 1


def _header_alone(tmp_path: Path) -> Path:
    (tmp_path / "none.csv").write_text("age,stage,code\n")
    return tmp_path / "none.csv"


def test_without_a_path_it_is_described_and_has_no_records(table: Path) -> None:
    bare, whole = Custom(schema=SCHEMA), Custom(str(table), SCHEMA)
    assert bare.describe().sites == ()
    for name in ("columns", "classes", "schema", "name"):
        assert getattr(bare.describe(), name) == getattr(whole.describe(), name)
    with pytest.raises(DataError, match=r"data\.options\.path"):
        bare.load("anywhere")
    with pytest.raises(ConfigError, match=r"data\.options\.schema is missing"):
        Custom(str(table))

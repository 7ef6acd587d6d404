"""A model on new rows: the same numbers as in the run, whichever site's part is used."""

from __future__ import annotations

import csv
import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.torch import load_file

from wardround import Job, predict, run
from wardround.cli.app import app
from wardround.cli.exit import guarded
from wardround.errors import DataError, RunError
from wardround.experiment import records_of
from wardround.prediction import load_predictor
from wardround.training.metrics import ScoreTable, measure
from wardround.types import SPLITS, Description, SiteData

LEAN = {"evaluation": {"bootstrap": 0, "baselines": []}, "engine": {"threads": 1}}
WDBC = {
    "partition": {"kind": "dirichlet", "sites": 5},
    "training": {"rounds": 6},
    **LEAN,
}
PERSONAL = {
    "data": {"dataset": "sample_plugins:Clinics", "preprocessing": {"indicators": True}},
    "model": {"local": ["linear.bias"]},
    "training": {"rounds": 8, "local_steps": 10},
    **LEAN,
}


def trained(tree: dict[str, Any], out: Path) -> Path:
    run(Job.model_validate(tree), out, report=False)
    return out


@pytest.fixture(scope="module")
def wdbc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(WDBC, tmp_path_factory.mktemp("wdbc") / "run")


@pytest.fixture(scope="module")
def personal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(PERSONAL, tmp_path_factory.mktemp("personal") / "run")


def write(path: Path, description: Description, features: NDArray[Any], *, without: str = "") -> Path:
    """Raw rows as a hospital would export them: codes for categories, nothing where there is a gap."""
    columns = [(c, column) for c, column in enumerate(description.columns) if column.name != without]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([column.name for _, column in columns])
        for row in features:
            writer.writerow(
                ["" if math.isnan(row[c]) else column.levels[int(row[c])] if column.levels else repr(float(row[c]))
                 for c, column in columns]
            )  # fmt: skip
    return path


def test_rows(data: SiteData) -> NDArray[Any]:
    return np.asarray(data.features[data.split == SPLITS.index("test")])


def test_labels(data: SiteData) -> NDArray[Any]:
    return np.asarray(data.labels[data.split == SPLITS.index("test")])


test_rows.__test__ = test_labels.__test__ = False  # type: ignore[attr-defined]


def test_predictions_on_the_test_rows_are_the_runs_own(wdbc: Path, tmp_path: Path) -> None:
    description, data = records_of(Job.model_validate(WDBC))
    rows = np.concatenate([test_rows(data[site]) for site in sorted(data)])
    labels = np.concatenate([test_labels(data[site]) for site in sorted(data)])
    scored = predict(wdbc, write(tmp_path / "rows.csv", description, rows))
    result = json.loads((wdbc / "result.json").read_text())
    assert [row["row"] for row in scored] == list(range(1, len(rows) + 1))
    table = ScoreTable.from_rows(np.array([row["probability"] for row in scored]), labels)
    threshold = result["thresholds"]["federated"]
    figures = measure(table, threshold)
    for name, value in result["federated"]["pooled"].items():
        assert figures[name] == pytest.approx(value, abs=1e-6), name
    for row in scored:
        assert row["prediction"] == ("malignant" if row["probability"] >= threshold else "benign")
    assert len({row["prediction"] for row in scored}) == 2


@pytest.mark.parametrize("standardize", ["global", "site"])
def test_a_site_is_scored_with_its_own_part(standardize: str, personal: Path, tmp_path: Path) -> None:
    tree = {**PERSONAL, "data": {**PERSONAL["data"], "preprocessing": {"standardize": standardize}}}
    folder = personal
    if standardize == "site":
        folder = trained(tree, tmp_path / "run")
    description, data = records_of(Job.model_validate(tree))
    result = json.loads((folder / "result.json").read_text())
    assert result["personalized"] is True
    for site in data:
        scored = predict(folder, write(tmp_path / f"{site}.csv", description, test_rows(data[site])), site=site)
        table = ScoreTable.from_rows(np.array([row["probability"] for row in scored]), test_labels(data[site]))
        figures = measure(table, result["thresholds"]["federated"])
        for name, value in result["federated"]["sites"][site].items():
            assert figures[name] == pytest.approx(value, abs=1e-6), (site, name)


def test_sites_differ_and_a_stranger_gets_the_mean(personal: Path) -> None:
    own = {site: load_predictor(personal, site=site).arrays["linear.bias"] for site in ("north", "south", "west")}
    # the clinics see the disease in 30, 50 and 70 % of their patients
    assert own["north"] < own["west"]
    assert len({bias.item() for bias in own.values()}) == 3
    # 60 patients each, so each clinic trains on as many rows, and the mean is a plain one
    stranger = load_predictor(personal).arrays["linear.bias"]
    assert stranger.item() == pytest.approx(sum(b.item() for b in own.values()) / 3, abs=1e-6)
    shared = load_file(personal / "model.safetensors")
    assert set(shared) == {"linear.weight"}


def test_a_gap_is_filled_as_in_training(personal: Path, tmp_path: Path) -> None:
    (tmp_path / "gaps.csv").write_text("age,sex,marker\n60,m,\n60,m,NA\n60,m,?\n60,m,-1\n60,m,2.5\n")
    scored = [row["probability"] for row in predict(personal, tmp_path / "gaps.csv")]
    # -1 is the code for 'not measured'
    assert scored[0] == scored[1] == scored[2] == scored[3]
    assert scored[4] != scored[0]
    fitted = load_predictor(personal).preprocessing
    assert fitted is not None
    assert fitted.names == ("age", "sex=m", "marker", "marker missing")


def test_columns_come_in_any_order_and_others_are_passed_over(personal: Path, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("age,sex,marker\n60,m,2.5\n")
    (tmp_path / "b.csv").write_text("ward,marker,sex,age\n7,2.5,m,60\n")
    assert predict(personal, tmp_path / "a.csv") == predict(personal, tmp_path / "b.csv")


def test_no_rows_give_no_scores(personal: Path, tmp_path: Path) -> None:
    (tmp_path / "none.csv").write_text("age,sex,marker\n")
    assert predict(personal, tmp_path / "none.csv") == []


def test_a_missing_column_is_named(wdbc: Path, tmp_path: Path) -> None:
    description, data = records_of(Job.model_validate(WDBC))
    rows = write(tmp_path / "rows.csv", description, data["site-1"].features[:2], without="mean texture")
    with pytest.raises(DataError, match="'mean texture' is missing"):
        predict(wdbc, rows)


def test_a_site_that_the_run_does_not_have(personal: Path, wdbc: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("age,sex,marker\n60,m,2.5\n")
    with pytest.raises(DataError, match=r"'east'.*north, south, west"):
        predict(personal, tmp_path / "rows.csv", site="east")
    with pytest.raises(DataError, match="one model for all sites"):
        predict(wdbc, tmp_path / "rows.csv", site="site-1")


def test_there_is_no_model_yet(personal: Path, tmp_path: Path) -> None:
    unfinished = tmp_path / "run"
    shutil.copytree(personal, unfinished)
    (unfinished / "model.safetensors").unlink()
    with pytest.raises(RunError, match="is the run finished"):
        load_predictor(unfinished)


def test_a_file_that_is_no_model_of_a_run(personal: Path, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"not a model")
    with pytest.raises(RunError, match="cannot be read"):
        load_predictor(tmp_path)
    with pytest.raises(RunError, match="not a model that this version of wardround wrote"):
        load_predictor(personal / "overlays/north.safetensors")
    whole = (personal / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[:-4])
    with pytest.raises(RunError, match="cannot be read"):
        load_predictor(tmp_path)


def test_a_personal_model_without_its_overlays_says_so(personal: Path, tmp_path: Path) -> None:
    shutil.copy(personal / "model.safetensors", tmp_path)
    with pytest.raises(RunError, match=r"it has no linear\.bias"):
        load_predictor(tmp_path)


# ------------------------------------------------------------------------------------------------------- the command


def test_the_command_writes_csv(personal: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "rows.csv").write_text("age,sex,marker\n60,m,2.5\n40,f,\n")
    assert guarded(app, ["predict", str(personal), str(tmp_path / "rows.csv"), "--site", "west"]) == 0
    printed = capsys.readouterr().out
    rows = list(csv.DictReader(printed.splitlines()))
    assert [set(row) for row in rows] == [{"row", "probability", "prediction"}] * 2
    expected = predict(personal, tmp_path / "rows.csv", site="west")
    assert [float(row["probability"]) for row in rows] == [row["probability"] for row in expected]

    out = tmp_path / "scores.csv"
    assert (
        guarded(app, ["predict", str(personal), str(tmp_path / "rows.csv"), "--site", "west", "--out", str(out)]) == 0
    )
    captured = capsys.readouterr()
    assert (out.read_text(), captured.out) == (printed, "")
    assert "2 rows scored" in captured.err


def test_the_command_writes_json(personal: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "rows.csv").write_text("age,sex,marker\n60,m,2.5\n")
    assert guarded(app, ["predict", str(personal), str(tmp_path / "rows.csv"), "--json"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line) for line in lines] == predict(personal, tmp_path / "rows.csv")


@pytest.mark.parametrize(
    ("rows", "code", "word"),
    [
        ("age,sex\n60,m\n", 3, "'marker' is missing"),
        ("age,sex,marker\n60,x,1\n", 3, "column 'sex': 'x' is not one of the codes f, m"),
        ("age,sex,marker\nold,m,1\n", 3, "line 2, column 'age'"),
        ("", 3, "is empty"),
    ],
)
def test_the_command_names_what_is_wrong(
    rows: str, code: int, word: str, personal: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rows.csv").write_text(rows)
    assert guarded(app, ["predict", str(personal), str(tmp_path / "rows.csv")]) == code
    assert word in capsys.readouterr().err
    assert guarded(app, ["predict", str(tmp_path / "nothing"), str(tmp_path / "rows.csv")]) == 6
    assert "is the run finished" in capsys.readouterr().err


def test_the_rows_are_not_overwritten(personal: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text("age,sex,marker\n60,m,2.5\n")
    assert guarded(app, ["predict", str(personal), str(rows), "--out", str(rows)]) == 2
    assert "choose another file" in capsys.readouterr().err
    assert rows.read_text() == "age,sex,marker\n60,m,2.5\n"


def test_of_three_classes_each_has_a_probability_and_the_largest_is_taken(tmp_path: Path) -> None:
    data = {**PERSONAL["data"], "options": {"classes": 3}}
    folder = trained({**PERSONAL, "data": data, "model": {}}, tmp_path / "run")
    description, sites = records_of(Job.model_validate({**PERSONAL, "data": data}))
    rows = write(tmp_path / "rows.csv", description, np.concatenate([test_rows(sites[site]) for site in sorted(sites)]))
    scored = predict(folder, rows)
    matrix = np.array([[row[f"probability of class {c}"] for c in range(3)] for row in scored])
    assert matrix.sum(axis=1) == pytest.approx(np.ones(len(matrix)))
    assert [row["prediction"] for row in scored] == [f"class {c}" for c in matrix.argmax(axis=1)]
    assert [row["probability"] for row in scored] == matrix.max(axis=1).tolist()
    labels = np.concatenate([test_labels(sites[site]) for site in sorted(sites)])
    result = json.loads((folder / "result.json").read_text())
    right = (matrix.argmax(axis=1) == labels).mean()
    assert right == pytest.approx(result["federated"]["pooled"]["accuracy"])
    out = tmp_path / "scores.csv"
    guarded(app, ["predict", str(folder), str(rows), "--out", str(out)])
    with out.open() as file:
        header = next(csv.reader(file))
    assert header[:3] == ["row", "probability", "prediction"]
    assert header[3:] == [f"probability of class {c}" for c in range(3)]

import os
from pathlib import Path

import numpy as np
import pytest

from wardround import Job, predict, run
from wardround.data.datasets.pima import Pima
from wardround.errors import ConfigError, DataError


def _write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    (tmp_path / "pima_diabetes").mkdir()
    (tmp_path / "pima_diabetes" / "pima-indians-diabetes.csv").write_text(text)
    monkeypatch.setenv("WARDROUND_DATA", str(tmp_path))


def test_zeros_that_mean_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(tmp_path, monkeypatch, "0,0,0,0,0,0,0.627,50,1\n1,85,66,29,0,26.6,0.351,31,0\n")
    data = Pima().load("pima")
    nan = np.nan
    # no pregnancy and a pedigree of 0 are measurements
    np.testing.assert_array_equal(
        data.features, [[0, nan, nan, nan, nan, nan, 0.627, 50], [1, 85, 66, 29, nan, 26.6, 0.351, 31]]
    )
    assert data.labels.tolist() == [1, 0]
    assert Pima(zero_is_missing=False).load("pima").features[0, :6].tolist() == [0] * 6
    assert not any(column.missing_codes for column in Pima(zero_is_missing=False).describe().columns)


def test_faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(tmp_path, monkeypatch, "6,148,72,35,0,33.6,0.627,50,1\n6,148,72,35,0,33.6,0.627,50,2\n")
    with pytest.raises(DataError, match="line 2, column 'outcome': '2' is not one of the values 0, 1"):
        Pima().load("pima")
    with pytest.raises(DataError, match="has one site, 'pima'"):
        Pima().load("phoenix")
    with pytest.raises(ConfigError, match="zero_is_missing = 0: expected true or false"):
        Pima(zero_is_missing=0)  # type: ignore[arg-type]
    monkeypatch.setenv("WARDROUND_DATA", str(tmp_path / "pima_diabetes"))
    with pytest.raises(DataError, match=r"there is no file .*pima-indians-diabetes\.csv"):
        Pima().load("pima")


real = pytest.mark.skipif(
    not Path(os.environ.get("WARDROUND_DATA", "/nowhere"), "pima_diabetes").is_dir(),
    reason="WARDROUND_DATA names no folder with pima_diabetes",
)


@real
def test_real_rows_and_gaps() -> None:
    data = Pima().load("pima")
    assert data.features.shape == (768, 8)
    assert np.bincount(data.labels).tolist() == [500, 268]
    gaps = dict(zip((c.name for c in Pima().describe().columns), np.isnan(data.features).sum(axis=0), strict=True))
    assert gaps == {"preg": 0, "glucose": 5, "dbp": 35, "skin": 227, "insulin": 374, "bmi": 11, "dpf": 0, "age": 0}


@real
def test_a_run_on_the_real_file_and_its_rows_scored_again(tmp_path: Path) -> None:
    job = {
        "data": {"dataset": "pima"},
        "partition": {"kind": "iid", "sites": 4},
        "evaluation": {"bootstrap": 0, "baselines": []},
        "engine": {"threads": 1},
    }
    run(Job.model_validate(job), tmp_path / "run", report=False)
    file = Path(os.environ["WARDROUND_DATA"], "pima_diabetes", "pima-indians-diabetes.csv")
    scored = predict(tmp_path / "run", file)
    ill = Pima().load("pima").labels == 1
    score = np.array([row["probability"] for row in scored])
    assert np.mean(score[ill][:, None] > score[~ill]) > 0.8
    # without the label, as a hospital would have them
    bare = tmp_path / "bare.csv"
    bare.write_text("\n".join(line.rpartition(",")[0] for line in file.read_text().split()))
    assert predict(tmp_path / "run", bare) == scored

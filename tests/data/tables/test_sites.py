from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wardround.data.tables.schema import Schema
from wardround.data.tables.sites import first_equal_row, read_sites
from wardround.errors import ConfigError, DataError
from wardround.types import SiteData

COLUMNS: dict[str, Any] = {
    "pid": "patient",
    "x": "numeric",
    "y": {"kind": "label", "classes": {"well": [0], "ill": [1]}},
}
NORTH, SOUTH = "pid,x,y\n1,5,0\n2,6,1\n2,7,0\n", "pid,x,y\n1,8,1\n"


def read(tmp_path: Path, files: dict[str, str], tree: dict[str, Any], **other: Any) -> dict[str, SiteData]:
    for name, text in files.items():
        (tmp_path / f"{name}.csv").write_text(text)
    return read_sites({name: tmp_path / f"{name}.csv" for name in files}, Schema.parse(tree, "schema"), **other)


def test_a_file_is_a_site(tmp_path: Path) -> None:
    sites = read(tmp_path, {"south": SOUTH, "north": NORTH}, {"columns": COLUMNS})
    assert list(sites) == ["north", "south"]
    assert sites["north"].features.tolist() == [[5], [6], [7]]
    assert sites["north"].labels.tolist() == [0, 1, 0]
    assert sites["north"].patients.tolist() == ["1", "2", "2"]


def test_a_column_names_the_sites_across_files(tmp_path: Path) -> None:
    tree = {"columns": {"ward": "site", "x": "numeric", "y": COLUMNS["y"]}}
    sites = read(tmp_path, {"a": "ward,x,y\ns,1,0\nn,2,1\ns,3,0\n", "b": "ward,x,y\nn,4,1\n"}, tree)
    assert {site: data.features[:, 0].tolist() for site, data in sites.items()} == {"n": [2, 4], "s": [1, 3]}
    assert sites["s"].patients.tolist() == [0, 1]


def test_small_sites_join_another_or_leave(tmp_path: Path) -> None:
    files = {"north": NORTH, "south": SOUTH, "west": SOUTH, "east": "pid,x,y\n"}
    with pytest.raises(DataError, match=r"site 'east' \(.*east\.csv\) has no rows, and the schema's min_rows is 1"):
        read(tmp_path, files, {"columns": COLUMNS})
    with pytest.raises(DataError, match="has no rows, and the schema's min_rows is 2"):
        read(tmp_path, files, {"columns": COLUMNS, "min_rows": 2})
    assert list(read(tmp_path, files, {"columns": COLUMNS, "min_rows": 2, "small_sites": "drop"})) == ["north"]
    sites = read(tmp_path, files, {"columns": COLUMNS, "min_rows": 2, "small_sites": "other"})
    # both hospitals have a patient 1, and they are two people
    assert sites["other"].patients.tolist() == ["south/1", "west/1"]
    with pytest.raises(DataError, match="south, west together have 2 rows, fewer than min_rows = 3"):
        read(tmp_path, files, {"columns": COLUMNS, "min_rows": 3, "small_sites": "other"})
    with pytest.raises(DataError, match="no site has min_rows = 9 rows: the largest has 3"):
        read(tmp_path, files, {"columns": COLUMNS, "min_rows": 9, "small_sites": "drop"})


def test_a_schema_must_be_able_to_teach(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="names no label"):
        read(tmp_path, {"a": NORTH}, {"columns": {"x": "numeric"}})
    with pytest.raises(ConfigError, match="leaves no feature"):
        read(tmp_path, {"a": NORTH}, {"columns": {"x": "identifier", "y": COLUMNS["y"]}})


@pytest.mark.parametrize("copy", ["str(y)", "'ab'[y]", "str(y * (i % 3 + 1))"], ids=["copy", "recoded", "graded"])
def test_the_label_among_the_features_is_found(copy: str, tmp_path: Path) -> None:
    rows = [(i, i % 2, eval(copy, {"y": i % 2, "i": i, "str": str})) for i in range(60)]
    text = "x,y,z\n" + "".join(f"{x},{y},{z}\n" for x, y, z in rows)
    kind = {"kind": "categorical", "levels": ["a", "b"]} if "ab" in copy else "numeric"
    tree = {"columns": {"x": "numeric", "y": COLUMNS["y"], "z": kind}}
    with pytest.raises(DataError, match=r"the column 'z' is the label 'y' in another form.*in all 60 rows"):
        read(tmp_path, {"a": text}, tree)
    assert read(tmp_path, {"a": text}, tree, leaks=["z"])["a"].features.shape == (60, 2)
    with pytest.raises(ConfigError, match="leaks names 'y', which is no feature"):
        read(tmp_path, {"a": text}, tree, leaks=["y"])


def test_a_strong_feature_is_no_leak(tmp_path: Path) -> None:
    text = "x,y\n" + "".join(f"{int(i % 2 and i != 59)},{i % 2}\n" for i in range(60))
    assert len(read(tmp_path, {"a": text}, {"columns": {"x": "numeric", "y": COLUMNS["y"]}})["a"].labels) == 60


def test_gaps_are_equal_to_gaps() -> None:
    values = np.array([[1, np.nan], [1, 2], [1, np.nan], [1, 2], [np.nan, np.nan]])
    assert first_equal_row(values).tolist() == [0, 1, 0, 1, 4]

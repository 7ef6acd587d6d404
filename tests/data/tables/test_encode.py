from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wardround.data.tables.encode import Encoded, encode, open_as
from wardround.data.tables.schema import Schema
from wardround.errors import DataError

NAN = np.nan
OUTCOME = {"kind": "label", "classes": {"well": [0], "ill": [1]}}


def read(tmp_path: Path, text: str, columns: dict[str, Any], *, labelled: bool = True, **other: Any) -> Encoded:
    path = tmp_path / "t.csv"
    path.write_text(text, encoding="utf-8")
    schema = Schema.parse({"columns": columns, **other}, "schema")
    (part,) = encode(open_as(path, schema), schema, labelled=labelled)
    return part


def test_every_kind(tmp_path: Path) -> None:
    part = read(
        tmp_path,
        "pid,age,sex,stage,smoker,in,out,note,site,y\n"
        "p1, 63.5 ,M,II,Yes,2020-02-28,2020-03-01 12:00,a,north,1.0\n"
        "p2,999,X,?,0,2020-02-28,,b,south,0\n"
        "p1,-1e1,2.0,iv,,2020-01-01,2019-12-31,c,N,1\n",
        {
            "pid": "patient",
            "age": {"kind": "numeric", "missing": [999]},
            "sex": {"kind": "categorical", "levels": ["F", "M", "2"], "unseen": "other"},
            "stage": {"kind": "ordinal", "levels": ["I", "II", "III"], "recode": {"iv": "III"}},
            "smoker": "boolean",
            "in": "date",
            "out": {"kind": "date", "since": "in"},
            "note": "ignore",
            "site": {"kind": "site", "recode": {"N": "north"}},
            "y": OUTCOME,
        },
    )
    # 2020 is a leap year: 28 February to noon of 1 March is 2.5 days
    np.testing.assert_array_equal(part.features, [[63.5, 1, 1, 1, 2.5], [NAN, 3, NAN, 0, NAN], [-10, 2, 2, NAN, -1]])
    assert part.labels is not None
    assert part.labels.tolist() == [1, 0, 1]
    assert part.patients is not None
    assert part.patients.tolist() == ["p1", "p2", "p1"]
    assert part.sites is not None
    assert part.sites.tolist() == ["north", "south", "north"]


def test_a_zero_may_mean_missing_and_a_level_may_look_like_a_gap(tmp_path: Path) -> None:
    part = read(
        tmp_path,
        "chol,code\n0,NA\n0.0,b\n233,\n-0,?\n",
        {"chol": {"kind": "numeric", "missing": [0]}, "code": {"kind": "categorical", "levels": ["NA", "b"]}},
    )
    np.testing.assert_array_equal(part.features, [[NAN, 0], [NAN, 1], [233, NAN], [NAN, NAN]])


def test_dates_from_a_day_in_years_and_another_form(tmp_path: Path) -> None:
    part = read(
        tmp_path,
        "born,seen\n31/12/1999,2001-01-01\n",
        {
            "born": {"kind": "date", "since": "2000-01-01", "format": "%d/%m/%Y"},
            "seen": {"kind": "date", "since": "1900-01-01", "unit": "years"},
        },
    )
    # 1900 is no leap year: 101 years with 25 leap days
    np.testing.assert_allclose(part.features, [[-1, (101 * 365 + 25) / 365.25]])


def test_a_decimal_comma(tmp_path: Path) -> None:
    columns = {"a": "numeric", "b": {"kind": "numeric", "missing": ["0"]}}
    part = read(tmp_path, "a;b\n1,5;0,0\n", columns, file={"decimal": ","})
    np.testing.assert_array_equal(part.features, [[1.5, NAN]])
    with pytest.raises(DataError, match=r"'1\.5' is not a finite number: write a number with a decimal comma"):
        read(tmp_path, "a;b\n1.5;2\n", columns, file={"decimal": ","})


@pytest.mark.parametrize(
    ("cut", "labels"), [({"above": 1}, [0, 0, 1]), ({"at_least": 1}, [0, 1, 1])], ids=["above", "at least"]
)
def test_a_label_from_a_number(cut: dict[str, Any], labels: list[int], tmp_path: Path) -> None:
    part = read(tmp_path, "x,num\n5,0\n6,1\n7,4\n", {"x": "numeric", "num": {"kind": "label", "cut": cut}})
    assert part.labels is not None
    assert part.labels.tolist() == labels


def test_rows_that_leave(tmp_path: Path) -> None:
    columns = {
        "x": "numeric",
        "fate": {"kind": "ignore", "exclude": ["11", "dead"]},
        "y": {**OUTCOME, "unlabelled": "drop"},
    }
    text = "x,fate,y\n1,1,0\n2,11,1\n3,dead,0\n4,2,?\n5,3,1\n"
    assert read(tmp_path, text, columns).features[:, 0].tolist() == [1, 5]
    # to be scored, all rows stay, and neither label nor fate needs to be there
    assert read(tmp_path, "x\n1\n2\n", columns, labelled=False).features[:, 0].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("old,F,2020-01-01,0,p", r"line 3, column 'age': 'old' is not a finite number"),
        ("inf,F,2020-01-01,0,p", r"column 'age': 'inf' is not a finite number"),
        ("1,X,2020-01-01,0,p", r"line 3, column 'sex': 'X' is not one of the codes F, M"),
        ("1,F,01.02.2020,0,p", r"line 3, column 'day': '01\.02\.2020' is no date of ISO 8601"),
        ("1,F,2020-01-01,2,p", r"line 3, column 'y': '2' is not one of the values 0, 1"),
        ("1,F,2020-01-01,?,p", r"line 3, column 'y': there is no label"),
        ("1,F,2020-01-01,0,", r"line 3, column 'pid': there is no patient"),
    ],
)
def test_faults_name_file_line_column_and_value(row: str, message: str, tmp_path: Path) -> None:
    columns = {
        "age": "numeric",
        "sex": {"kind": "categorical", "levels": ["F", "M"]},
        "day": {"kind": "date", "since": "2020-01-01"},
        "y": OUTCOME,
        "pid": "patient",
    }
    with pytest.raises(DataError, match=message) as caught:
        read(tmp_path, f"age,sex,day,y,pid\n1,F,2020-01-02,0,p\n{row}\n", columns)
    assert str(tmp_path / "t.csv") in str(caught.value)


def test_a_value_never_seen_is_what_the_schema_says(tmp_path: Path) -> None:
    ordinal = {"kind": "ordinal", "levels": ["I", "II"]}
    code = {"kind": "categorical", "levels": ["a", "b"]}
    text = "s,c\nIII,z\n"
    part = read(tmp_path, text, {"s": {**ordinal, "unseen": "missing"}, "c": {**code, "unseen": "missing"}})
    np.testing.assert_array_equal(part.features, [[NAN, NAN]])
    part = read(tmp_path, text, {"c": {**code, "unseen": "other"}})
    np.testing.assert_array_equal(part.features, [[2]])
    with pytest.raises(DataError, match="'III' is not one of the levels I, II"):
        read(tmp_path, text, {"s": ordinal})


def test_missing_columns_and_files_without_header(tmp_path: Path) -> None:
    columns = {"age": "numeric", "y": OUTCOME}
    with pytest.raises(DataError, match="the column 'age' is missing: is 'Age' meant"):
        read(tmp_path, "Age,y\n1,0\n", columns)
    assert read(tmp_path, "63,1\n64,0\n", columns).features[:, 0].tolist() == [63, 64]
    assert read(tmp_path, "63\n64\n", columns, labelled=False).features[:, 0].tolist() == [63, 64]
    with pytest.raises(DataError, match=r"no header and 3 columns, and the schema has 2 \(age, y\)"):
        read(tmp_path, "63,1,2\n64,0,2\n", columns)

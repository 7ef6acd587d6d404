from pathlib import Path

import numpy as np
import pytest

from wardround.data.table import cell_reader, read_rows
from wardround.errors import DataError
from wardround.types import Column

COLUMNS = (
    Column(name="age"),
    Column(name="cp", kind="categorical", levels=("1", "2", "4")),
    Column(name="chol", missing_codes=(0.0,)),
)


def _write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "rows.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_reads_by_name_in_any_order_with_extra_columns(tmp_path: Path) -> None:
    path = _write(tmp_path, "\ufeffcp, chol ,id,age\n4,233,p1,63.5\n\n1.0,0,p2,?\n,NA,p3,-1e2\n2,nan,p4,NaN\n")
    features, texts = read_rows(path, COLUMNS)
    nan = np.nan
    np.testing.assert_array_equal(features, [[63.5, 2, 233], [nan, 0, nan], [-100, nan, nan], [nan, 1, nan]])
    assert features.dtype == np.float64
    assert texts[1] == {"cp": "1.0", "chol": "0", "id": "p2", "age": "?"}
    assert [text["id"] for text in texts] == ["p1", "p2", "p3", "p4"]


def test_header_alone_gives_no_rows(tmp_path: Path) -> None:
    features, texts = read_rows(_write(tmp_path, "age,cp,chol\n"), COLUMNS)
    assert features.shape == (0, 3)
    assert texts == []


def test_a_code_is_text_first_then_a_number() -> None:
    sex = cell_reader(Column(name="sex", kind="categorical", levels=("F", "M", "NA"), missing_codes=(9.0,)))
    assert [sex("F"), sex(" M "), sex("NA")] == [0.0, 1.0, 2.0]
    assert np.isnan([sex("9"), sex("9.0"), sex("")]).all()
    padded = cell_reader(Column(name="code", kind="categorical", levels=("01", "02")))
    assert [padded("01"), padded("2"), padded("2.0")] == [0.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty: expected a header with the columns age, cp, chol"),
        ("age,cp,cholesterol\n", "column 'chol' is missing: is 'cholesterol' meant"),
        ("AGE,cp,chol\n", "column 'age' is missing: is 'AGE' meant"),
        ("a;b;c\n", "column 'age' is missing: the header has a;b;c"),
        ("age,cp,chol,age\n", "'age' 2 times"),
        ("age,cp,chol\n1,1\n", "line 2: 2 cells, and the header has 3"),
        ("age,cp,chol\n1,1,5\n1,3,5\n", r"line 3, column 'cp': '3' is not one of the codes 1, 2, 4"),
        ("age,cp,chol\nold,1,5\n", "line 2, column 'age': 'old' is not a finite number"),
        ("age,cp,chol\ninf,1,5\n", "'inf' is not a finite number"),
        ("age,cp,chol\n1_0,1,5\n", "'1_0' is not a finite number"),
        ('age,cp,chol\n"1,1,5\n', "cannot be read as CSV"),
    ],
)
def test_errors_name_file_line_column_and_value(text: str, message: str, tmp_path: Path) -> None:
    path = _write(tmp_path, text)
    with pytest.raises(DataError, match=message) as caught:
        read_rows(path, COLUMNS)
    assert str(path) in str(caught.value)


def test_absent_and_binary_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no file"):
        read_rows(tmp_path / "absent.csv", COLUMNS)
    binary = tmp_path / "rows.csv"
    binary.write_bytes(b"age,cp,chol\n\xff\xfe,1,1\n")
    with pytest.raises(DataError, match="UTF-8"):
        read_rows(binary, COLUMNS)

import gzip
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from wardround.data.tables.reader import Table, open_table
from wardround.errors import DataError
from wardround.types import Column


def write(tmp_path: Path, name: str, text: str | bytes) -> Path:
    path = tmp_path / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def rows(table: Table) -> list[list[str | None]]:
    return [row for chunk in table.chunks(2) for row in chunk.to_numpy().tolist()]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.csv", "a,b\n1,x y\n2,?\n"),
        ("t.tsv", "a\tb\n1\tx y\n2\t?\n"),
        ("t.txt", "a;b\n1;x y\n2;?\n"),
        ("t.data", "a|b\r\n1|x y\r\n\r\n2|?\r\n"),
        ("t.CSV", '\ufeff"a",b\n1,"x y"\n2,?'),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_delimiter_and_header_are_sniffed(name: str, text: str, packed: bool, tmp_path: Path) -> None:
    data = text.encode()
    path = write(tmp_path, name + ".gz" * packed, gzip.compress(data) if packed else data)
    table = open_table(path)
    assert table.names == ("a", "b")
    assert rows(table) == [["1", "x y"], ["2", "?"]]


@pytest.mark.parametrize(
    ("text", "header"),
    [
        ("63.0,1.0,?\n67,1,2\n", False),
        ("M,yes,x\nF,no,y\nM,yes,z\n", False),  # a header does not come again as a value
        (",name,age\n0,Ann,31\n1,Bo,40\n", True),
        ("name,ward\nAnn,east\nBo,west\n", True),
        ("a,NA\n1,2\n", False),
    ],
)
def test_what_is_a_header(text: str, header: bool, tmp_path: Path) -> None:
    table = open_table(write(tmp_path, "t.csv", text))
    assert table.dialect is not None
    assert table.dialect.header is header
    assert len(rows(table)) == text.count("\n") - header
    if not header:
        assert table.names[:2] == ("column-1", "column-2")


def test_what_is_given_is_not_sniffed(tmp_path: Path) -> None:
    path = write(tmp_path, "t.csv", "1;2,5\n3;4,5\n")
    assert rows(open_table(path)) == [["1", "2,5"], ["3", "4,5"]]
    assert rows(open_table(path, delimiter=",")) == [["1;2", "5"], ["3;4", "5"]]
    assert open_table(path, header=True).names == ("1", "2,5")
    assert open_table(path, names=["x", "y"]).names == ("x", "y")
    with pytest.raises(DataError, match=r"2 columns and 1 names are given \(x\)"):
        open_table(path, names=["x"])


def test_runs_of_blanks_divide_where_nothing_else_does(tmp_path: Path) -> None:
    table = open_table(write(tmp_path, "t.data", '18.0   8 "a b"\t70\n 15.5   4 "c  d"\t71 \n'))
    assert rows(table) == [["18.0", "8", "a b", "70"], ["15.5", "4", "c d", "71"]]


def test_the_index_is_the_line(tmp_path: Path) -> None:
    table = open_table(write(tmp_path, "t.csv", 'a,b\n1,"x\ny"\n\n2,z\n'))
    chunk = next(table.chunks())
    assert chunk.index.tolist() == [3, 5]
    assert chunk.index.name == "line"


@pytest.mark.parametrize(("line", "cells"), [("1", 1), ("1,2,3", 3)])
def test_ragged_rows_are_refused(line: str, cells: int, tmp_path: Path) -> None:
    path = write(tmp_path, "t.csv", f"a,b\n1,2\n{line}\n")
    with pytest.raises(DataError, match=rf"t\.csv, line 3: {cells} cells?, expected 2 as in the header"):
        rows(open_table(path))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"a,b\n1,\xc3\xa9\n2,\xfc\n", r"line 3: byte 11 \(0xfc\) is not UTF-8, while byte 6 is.*mixes two encodings"),
        (b"a,b\n1,x\n2,\xfc\n", r"line 3: byte 10 \(0xfc\) is not UTF-8: .*for instance cp1252"),
        (b"a,b\n1,\0\n", "byte 6 is 0"),
        (b'a,b\n1,"x\n2,y\n', "line 3: cannot be read as CSV"),
        (b"", "is empty"),
        (b"PK\x03\x04", "spreadsheet"),
        (b"a,a\n1,2\n", "names the column 'a' 2 times"),
        (gzip.compress(b"a,b\n" + b"1,2\n" * 5000, mtime=0)[:-30], "cannot be read: .*is it whole"),
    ],
)
def test_faults_are_named(data: bytes, message: str, tmp_path: Path) -> None:
    path = write(tmp_path, "t.csv", data)
    with pytest.raises(DataError, match=message) as caught:
        rows(open_table(path))
    assert str(path) in str(caught.value)


def test_a_fault_far_behind_the_sample_has_its_place(tmp_path: Path) -> None:
    good = b"a,b\n" + b"12,34\n" * 400_000
    path = write(tmp_path, "t.csv", good + b"1,\xe9\n")
    with pytest.raises(DataError, match=rf"line 400002: byte {len(good) + 2} \(0xe9\)"):
        list(open_table(path).chunks())


def test_other_encodings(tmp_path: Path) -> None:
    path = write(tmp_path, "t.csv", "a,b\n1,Zürich\n".encode("cp1252"))
    assert rows(open_table(path, encoding="cp1252")) == [["1", "Zürich"]]
    assert rows(open_table(write(tmp_path, "u.csv", "a,b\n1,Zürich\n".encode("utf-16")))) == [["1", "Zürich"]]
    with pytest.raises(DataError, match="no encoding 'utf8000'"):
        open_table(path, encoding="utf8000")
    with pytest.raises(DataError, match=r"byte 6 \(0x81\) is not CP1252"):
        open_table(write(tmp_path, "v.csv", b"a,b\n1,\x81\n"), encoding="cp1252")


def test_absent_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no file"):
        open_table(tmp_path / "absent.csv")
    with pytest.raises(DataError, match="is a folder"):
        open_table(tmp_path)


def test_a_header_alone_has_no_chunk(tmp_path: Path) -> None:
    assert list(open_table(write(tmp_path, "t.csv", "a,b\n")).chunks()) == []


ARFF = r"""% a comment
@RELATION 'thy roid'
@attribute 'age, in years' REAL
@attribute sex { 'M', "F x",Z}
@attribute note string
@attribute seen date "yyyy-MM-dd"

@data
1.50, M, 'it\'s, ok', 2020-01-01
?,"F x",?,'2020-01-02' % why not
% nothing
{0 4, 2 'a b'}
"""


def test_arff(tmp_path: Path) -> None:
    table = open_table(write(tmp_path, "t.arff", ARFF))
    assert table.names == ("age, in years", "sex", "note", "seen")
    assert table.declared == {
        "age, in years": Column(name="age, in years"),
        "sex": Column(name="sex", kind="categorical", levels=("M", "F x", "Z")),
    }
    assert rows(table) == [
        ["1.50", "M", "it's, ok", "2020-01-01"],
        [None, "F x", None, "2020-01-02"],
        ["4", "M", "a b", "0"],
    ]
    assert [chunk.index.tolist() for chunk in table.chunks()] == [[9, 10, 12]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("@relation x\n@attribute a numeric\n", "is no ARFF table"),
        ("@attribute a relational\n@data\n", "'a' is 'relational'"),
        ("@attribute a {x,\n@data\n", "line 1: the levels of 'a'"),
        ("@attribute a numeric\n@data\n1,2\n", "line 3: 2 cells, expected 1"),
        ("@attribute a string\n@data\n'x\n", "line 3: cannot be read as ARFF"),
        ("@attribute a numeric\n@data\n{1 3}\n", "line 3: cannot be read as a sparse row"),
    ],
)
def test_malformed_arff(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        rows(open_table(write(tmp_path, "t.arff", text)))


@pytest.mark.parametrize("packed", [False, True])
def test_parquet(packed: bool, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    frame = pd.DataFrame({"n": [1.5, None, 3.0], "b": [True, None, False], "t": ["?", None, "é"], "k": [2**60, 2, 3]})
    path = tmp_path / "t.parquet"
    frame.to_parquet(path)
    if packed:
        path = write(tmp_path, "t.parquet.gz", gzip.compress(path.read_bytes()))
    table = open_table(path, names=["N", "B", "T", "K"])
    assert table.declared == {
        "N": Column(name="N"),
        "B": Column(name="B", kind="categorical", levels=("false", "true")),
        "K": Column(name="K"),
    }
    assert [chunk.index.tolist() for chunk in table.chunks(2)] == [[1, 2], [3]]
    assert rows(table)[:2] == [["1.5", "true", "?", str(2**60)], [None, None, None, "2"]]
    with pytest.raises(DataError, match="not Parquet"):
        open_table(write(tmp_path, "u.parquet", "a,b\n"))


def test_memory_is_bounded_by_the_chunk(tmp_path: Path) -> None:
    def peak(count: int) -> int:
        path = write(tmp_path, f"{count}.csv", "id,x\n" + "".join(f"p{i:07d},{i}\n" for i in range(count)))
        table = open_table(path)
        next(table.chunks(10))  # imports are paid here
        tracemalloc.start()
        for chunk in table.chunks(2000):
            assert len(chunk) == 2000
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    # ten times the rows in the same memory; the text of the larger file alone is six times this margin
    assert peak(80_000) < peak(8_000) + 250_000


# ------------------------------------------------------------------------------------------------ the real files

DATA = Path(os.environ.get("WARDROUND_DATA", "/nowhere"))


@pytest.mark.skipif(not (DATA / "hypothyroid").is_dir(), reason="WARDROUND_DATA names no folder with hypothyroid")
def test_real_arff_is_what_scipy_reads() -> None:
    from scipy.io import arff

    expected, meta = arff.loadarff(DATA / "hypothyroid" / "hypothyroid.arff")
    table = open_table(DATA / "hypothyroid" / "hypothyroid.arff")
    frame = pd.concat(table.chunks(1000))
    assert table.names == tuple(meta.names())
    assert int(frame.isna().sum().sum()) == 6064  # the file's own description
    for name in table.names:
        if table.declared[name].kind == "numeric":
            np.testing.assert_array_equal(frame[name].astype(float), expected[name])
        else:
            assert frame[name].fillna("?").tolist() == [value.decode() for value in expected[name]]

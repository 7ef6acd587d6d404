"""CSV files with known columns, for datasets of a few lines; `wardround.data.tables` reads everything else."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wardround.data.tables import cells, text
from wardround.data.tables.schema import Schema
from wardround.data.tables.text import GAPS, Dialect, absent_column
from wardround.errors import DataError
from wardround.types import Column

__all__ = ["GAPS", "cell_reader", "read_cell", "read_lines", "read_rows"]


def read_rows(path: Path, columns: tuple[Column, ...]) -> tuple[NDArray[np.float64], list[dict[str, str]]]:
    """Read a CSV file whose header has at least the given columns, in any order.

    Args:
        path: a comma-separated file in UTF-8, a header in its first row; empty lines are skipped.
        columns: what to read; other columns of the file are kept as text alone.

    Returns:
        Features, float64 [n, len(columns)] (NaN where a cell is empty, NA, NaN, ? or one of the column's missing codes;
        level indices for categorical columns), and every row as text, by header name. A file with a header alone
        gives n = 0.

    Raises:
        DataError: the file cannot be read, has no header, lacks a column or names one twice, a row has too many or
            too few cells, or a cell is not a number or not one of the column's codes.
    """
    lines = read_lines(path)
    try:
        _, header = next(lines)
    except StopIteration:
        names = ", ".join(column.name for column in columns)
        raise DataError(f"{path} is empty: expected a header with the columns {names}") from None
    header = [name.strip() for name in header]
    positions = [_position(path, header, column.name) for column in columns]
    readers = [cell_reader(column) for column in columns]
    values: list[list[float]] = []
    texts: list[dict[str, str]] = []
    for line, row in lines:
        if len(row) != len(header):
            raise DataError(f"{path}, line {line}: {len(row)} cells, and the header has {len(header)}")
        values.append(
            [
                read_cell(path, line, column, reader, row[position])
                for column, reader, position in zip(columns, readers, positions, strict=True)
            ]
        )
        texts.append(dict(zip(header, row, strict=True)))
    return np.array(values, dtype=np.float64).reshape(len(values), len(columns)), texts


def read_lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The rows of a CSV file in UTF-8 with their line numbers (from 1), without empty ones.

    Raises:
        DataError: the file is absent, is not UTF-8 text, or is not CSV.
    """
    return text.read_rows(path, Dialect(delimiter=",", header=False, encoding="utf-8-sig"))


def read_cell(path: Path, line: int, column: Column, reader: Callable[[str], float], cell: str) -> float:
    """One cell's value; a DataError of `reader` gains the file, the line and the column's name."""
    try:
        return reader(cell)
    except DataError as error:
        raise DataError(f"{path}, line {line}, column '{column.name}': {error}") from error


def cell_reader(column: Column) -> Callable[[str], float]:
    """A function from a cell's text to its value: a finite number or a level's index, NaN for a gap.

    A categorical code is compared as text and then as a number, so that '3' and '3.0' are the same code. The function
    raises DataError for anything else.
    """
    schema = Schema.of_columns((column,))
    return cells.cell_reader(schema.columns[column.name], schema)


def _position(path: Path, header: Sequence[str], name: str) -> int:
    count = header.count(name)
    if count == 1:
        return header.index(name)
    if count > 1:
        raise DataError(f"{path}: the header names the column '{name}' {count} times: keep one")
    raise absent_column(path, name, header, "header")

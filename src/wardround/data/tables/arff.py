"""ARFF, the format of Weka: a header that declares each column, then rows of comma-separated cells.

https://waikato.github.io/weka-wiki/formats_and_processing/arff_stable/. Sparse rows (`{3 1.5, 7 yes}`) are read, relational
attributes are not. Of the libraries that read it, scipy's has no texts and holds the whole file, and liac-arff has no dates.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from wardround.data.tables.text import read_lines
from wardround.errors import DataError
from wardround.types import Column

_VALUE = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[^\s,'"{}%](?:[^,'"{}\t%]*[^\s,'"{}%])?"""
_CELL = re.compile(rf"\s*({_VALUE})\s*(?:,|\t|$|(?=%))")
_LEVEL = re.compile(rf"\s*({_VALUE})\s*(?:,|$)")
_ATTRIBUTE = re.compile(r"""@attribute\s+('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[^\s{]+)\s*(.*)""", re.I | re.S)
_SPARSE = re.compile(rf"\s*(\d+)\s+({_VALUE})\s*(?:,|$)")
_ESCAPE = re.compile(r"\\(.)")
_NUMBERS = ("numeric", "real", "integer")
_TEXTS = ("string", "date")


def read_header(path: Path, encoding: str) -> tuple[tuple[str, ...], dict[str, Column]]:
    """Names of the columns, and those that are declared numeric or nominal, by name.

    Raises:
        DataError: there is no `@data`, an attribute cannot be read or is relational.
    """
    names: list[str] = []
    declared: dict[str, Column] = {}
    for line, text in enumerate(map(str.strip, read_lines(path, encoding)), start=1):
        keyword = text.split(None, 1)[0].lower() if text else ""
        if keyword == "@data":
            if names:
                return tuple(names), declared
            break
        if keyword != "@attribute":
            continue
        name, column = _attribute(path, line, text)
        names.append(name)
        if column is not None:
            declared[name] = column
    raise DataError(f"{path} is no ARFF table: expected lines '@attribute NAME TYPE', then '@data' and its rows")


def read_rows(
    path: Path, encoding: str, names: tuple[str, ...], declared: dict[str, Column]
) -> Iterator[tuple[int, list[str | None]]]:
    """The rows below `@data` with their line numbers; None for a bare `?`, the format's own gap.

    Raises:
        DataError: a row has a cell that is not closed, or one too many or too few.
    """
    began = False
    for line, text in enumerate(map(str.strip, read_lines(path, encoding)), start=1):
        if not began:
            began = text.lower().startswith("@data")
        elif text and not text.startswith("%"):
            yield line, _sparse(path, line, text, names, declared) if text.startswith("{") else _dense(path, line, text)


def _attribute(path: Path, line: int, text: str) -> tuple[str, Column | None]:
    found = _ATTRIBUTE.fullmatch(text)
    kind = found[2].strip() if found else ""
    if found is None or not kind:
        raise DataError(f"{path}, line {line}: {text!r} is no attribute: expected @attribute NAME TYPE")
    name = _bare(found[1])
    if kind.startswith("{"):
        inside, closed, _ = kind[1:].rpartition("}")
        levels = _split(_LEVEL, inside) if closed else None
        if not levels:
            raise DataError(f"{path}, line {line}: the levels of '{name}' cannot be read: expected {{a, b, 'c d'}}")
        return name, Column(name=name, kind="categorical", levels=tuple(_bare(level) for level in levels))
    word = kind.split()[0].lower()
    if word in _NUMBERS:
        return name, Column(name=name)
    if word in _TEXTS:
        return name, None
    raise DataError(f"{path}, line {line}: '{name}' is {word!r}: expected numeric, nominal levels, string or date")


def _dense(path: Path, line: int, text: str) -> list[str | None]:
    if "'" not in text and '"' not in text and "%" not in text and "\t" not in text:
        return [None if cell == "?" else cell for cell in map(str.strip, text.split(","))]
    cells = _split(_CELL, text)
    if cells is None:
        raise DataError(f"{path}, line {line}: cannot be read as ARFF: is a quote missing or a cell empty?")
    return [None if cell == "?" else _bare(cell) for cell in cells]


def _sparse(path: Path, line: int, text: str, names: tuple[str, ...], declared: dict[str, Column]) -> list[str | None]:
    pairs: list[tuple[int, str]] = []
    inside = text[1:].rpartition("}")[0]
    place = 0
    while place < len(inside.rstrip()):
        found = _SPARSE.match(inside, place)
        if found is None or int(found[1]) >= len(names):
            raise DataError(f"{path}, line {line}: cannot be read as a sparse row: expected {{INDEX VALUE, ...}}")
        pairs.append((int(found[1]), found[2]))
        place = found.end()
    # what a sparse row leaves out is 0, or the first level
    cells: list[str | None] = [
        declared[name].levels[0] if name in declared and declared[name].levels else "0" for name in names
    ]
    for index, value in pairs:
        cells[index] = None if value == "?" else _bare(value)
    return cells


def _split(pattern: re.Pattern[str], text: str) -> list[str] | None:
    """The values that `pattern` divides a text into, None where it does not fit."""
    values: list[str] = []
    text, place = text.rstrip(), 0
    while place < len(text):
        found = pattern.match(text, place)
        if found is None:
            rest = text[place:].lstrip()
            return values if rest.startswith("%") else None
        values.append(found[1])
        place = found.end()
    return values


def _bare(text: str) -> str:
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        return _ESCAPE.sub(r"\1", text[1:-1])
    return text

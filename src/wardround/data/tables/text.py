"""Delimited text: which encoding, delimiter and header a file has, and its rows with their line numbers."""

from __future__ import annotations

import codecs
import csv
import difflib
import gzip
import io
import itertools
import math
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from wardround.errors import DataError

GAP_CODES = ("", "?", "NA", "NaN")
"""What stands for 'not measured' where nothing else is said, in any case of letters."""
GAPS = frozenset(code.lower() for code in GAP_CODES)
"""The same in lower case."""

_DELIMITERS = ("\t", ";", "|", ",")
_BLANKS = re.compile(r"[ \t]+")
_SAMPLE_BYTES = 2**18
_SAMPLE_ROWS = 200
_BLOCK = 2**20
_BOMS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """How a delimited file is written.

    Attributes:
        delimiter: one character; a blank stands for runs of blanks and tabs.
        header: whether the first row holds names.
        encoding: a Python codec.
    """

    delimiter: str
    header: bool
    encoding: str


@contextmanager
def open_bytes(path: Path) -> Iterator[BinaryIO]:
    """A file's bytes, unpacked where it is gzip by its first two bytes.

    Raises:
        DataError: there is no such file, or it cannot be read or unpacked; also from within the block.
    """
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            if packed:
                with gzip.GzipFile(fileobj=file) as unpacked:
                    yield unpacked  # type: ignore[misc]  # a BinaryIO in all but name
            else:
                yield file
    except FileNotFoundError as error:
        raise DataError(f"there is no file {path}: give the path of a table") from error
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {error}: is it whole? Copy or fetch it again") from error


def find_encoding(path: Path, encoding: str | None) -> str:
    """The codec of a text file: the one that is given, that of its byte order mark, else UTF-8.

    Raises:
        DataError: no codec has the given name, or the file is not text.
    """
    with open_bytes(path) as file:
        head = file.read(4096)
    if encoding is not None:
        try:
            return codecs.lookup(encoding).name
        except LookupError as error:
            raise DataError(
                f"{path}: there is no encoding {encoding!r}: expected one such as utf-8, cp1252 or latin-1"
            ) from error
    for mark, name in _BOMS:
        if head.startswith(mark):
            return name
    if head.startswith(b"PK\x03\x04"):
        raise DataError(f"{path} is a spreadsheet or a zip archive, not a table: save its sheet as CSV in UTF-8")
    if b"\0" in head:
        raise DataError(f"{path} is not text, byte {head.index(0)} is 0: expected CSV, TSV, Parquet or ARFF")
    return "utf-8"


def find_dialect(path: Path, *, delimiter: str | None, header: bool | None, encoding: str | None) -> Dialect:
    """What is not given is sniffed from the first 200 rows, at most 256 KiB.

    The delimiter is the one of tab, semicolon, bar and comma that divides most rows into the same number of cells, more
    than one; blanks where none does, or where runs of them align the columns. The first row is a header unless it holds
    a number, a missing code or a value that comes again in its column.

    Raises:
        DataError: the file is absent, empty, not text or not in its encoding, or the delimiter is no single character.
    """
    if delimiter is not None and (len(delimiter) != 1 or delimiter in '"\r\n'):
        raise DataError(f"{path}: the delimiter {delimiter!r} is not one character: expected ',', ';', '|' or a tab")
    codec = find_encoding(path, encoding)
    lines = _sample(path, codec)
    if not lines:
        raise DataError(f"{path} is empty: expected a table with at least one row")
    if delimiter is None:
        delimiter = _sniff_delimiter(lines)
    if header is None:
        header = _sniff_header(_sample_rows(lines, delimiter))
    return Dialect(delimiter=delimiter, header=header, encoding=codec)


def read_lines(path: Path, encoding: str) -> Iterator[str]:
    """The lines of a text file with their ends.

    Raises:
        DataError: a byte is not in `encoding`; the message says where, and whether two encodings are mixed.
    """
    with open_bytes(path) as file, io.TextIOWrapper(file, encoding=encoding, newline="") as text:
        try:
            yield from text
        except UnicodeDecodeError as error:
            raise _undecodable(path, encoding) from error


def read_rows(path: Path, dialect: Dialect) -> Iterator[tuple[int, list[str]]]:
    """All rows, the header among them, each with the number of its (last) line from 1; empty lines are left out.

    Raises:
        DataError: the file is not in its encoding, or a quote is not closed.
    """
    lines = read_lines(path, dialect.encoding)
    reader = _reader(lines, dialect.delimiter)
    try:
        for cells in reader:
            if cells:
                yield reader.line_num, cells
    except csv.Error as error:
        raise DataError(
            f"{path}, line {reader.line_num}: cannot be read as CSV: {error}: is a quote missing or one too many?"
        ) from error


def is_number(text: str) -> bool:
    """Whether a cell writes a finite number."""
    return math.isfinite(number(text))


def number(text: str) -> float:
    """The number that a cell writes, NaN where it writes none."""
    try:
        # Python would read '1_0' as 10
        return math.nan if "_" in text else float(text)
    except ValueError:
        return math.nan


def _reader(lines: Iterator[str], delimiter: str) -> csv.Reader:  # type: ignore[name-defined]  # typeshed hides its name
    if delimiter == " ":
        lines = (_BLANKS.sub(" ", line.strip()) for line in lines)
    return csv.reader(lines, delimiter=delimiter, strict=True)


def _sample(path: Path, encoding: str) -> list[str]:
    lines: list[str] = []
    size = 0
    for line in read_lines(path, encoding):
        size += len(line)
        if lines and size > _SAMPLE_BYTES:
            break
        if line.strip():
            lines.append(line)
        if len(lines) == _SAMPLE_ROWS:
            break
    return lines


def _sample_rows(lines: Sequence[str], delimiter: str) -> list[list[str]]:
    rows: list[list[str]] = []
    # the sample may end within quotes; a real fault is named when the rows are read
    with suppress(csv.Error):
        rows.extend(_reader(iter(lines), delimiter))
    return rows


def _sniff_delimiter(lines: Sequence[str]) -> str:
    best, best_share = "", 0.0
    for delimiter in _DELIMITERS:
        cells, share = _width(lines, delimiter)
        if cells > 1 and share > best_share:
            best, best_share = delimiter, share
    if best and not (best == "\t" and any("  " in line for line in lines)):
        return best
    cells, share = _width(lines, " ")
    aligned = share == 1.0 and len(lines) > 1 and cells > (_width(lines, best)[0] if best else 1)
    return " " if aligned else best or ","


def _width(lines: Sequence[str], delimiter: str) -> tuple[int, float]:
    """The most frequent number of cells a row, and the share of rows that have it."""
    counts = Counter(map(len, _sample_rows(lines, delimiter)))
    if not counts:
        return 0, 0.0
    cells, rows = counts.most_common(1)[0]
    return cells, rows / counts.total()


def _sniff_header(rows: Sequence[Sequence[str]]) -> bool:
    first = [cell.strip() for cell in rows[0]] if rows else []
    if not any(first):
        return False
    if any(is_number(cell) or (cell and cell.lower() in GAPS) for cell in first):
        return False
    below = rows[1:]
    return not any(
        cell and any(len(row) > c and row[c].strip() == cell for row in below) for c, cell in enumerate(first)
    )


def _undecodable(path: Path, encoding: str) -> DataError:
    """The error for a file that is not in its encoding, from a second reading of its bytes."""
    offset, line, found = _first_fault(path, encoding)
    name = encoding.removesuffix("-sig").upper()
    where = f"{path}, line {line}: byte {offset} (0x{found:02x}) is not {name}"
    if encoding not in ("utf-8", "utf-8-sig"):
        return DataError(f"{where}: convert the file to UTF-8, or name its encoding")
    other = _first_multibyte(path)
    if other is not None:
        return DataError(
            f"{where}, while byte {other} is: the file mixes two encodings; mend the line, or convert the part that is "
            "in cp1252 or latin-1 to UTF-8"
        )
    return DataError(f"{where}: convert the file to UTF-8, or name its encoding, for instance cp1252 or latin-1")


def _first_fault(path: Path, encoding: str) -> tuple[int, int, int]:
    """Offset of the first byte that `encoding` cannot read, its line, and the byte."""
    decoder = codecs.getincrementaldecoder(encoding)()
    start, line = 0, 1
    with open_bytes(path) as file:
        for block in itertools.chain(iter(lambda: file.read(_BLOCK), b""), [b""]):
            pending = len(decoder.getstate()[0])
            try:
                decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                inside = error.start - pending
                line += block[: max(inside, 0)].count(b"\n")
                return start + inside, line, error.object[error.start]
            start += len(block)
            line += block.count(b"\n")
    raise DataError(f"{path} changed while it was read: read it again")


def _first_multibyte(path: Path) -> int | None:
    """Offset of the first character of more than one byte in UTF-8, None where there is none."""
    pattern = re.compile(
        rb"[\xc3-\xdf][\x80-\xbf]|\xe2[\x80-\x9f][\x80-\xbf]|[\xe1-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}"
    )
    start, tail = 0, b""
    with open_bytes(path) as file:
        for block in iter(lambda: file.read(_BLOCK), b""):
            found = pattern.search(tail + block)
            if found:
                return start - len(tail) + found.start()
            start += len(block)
            tail = block[-3:]
    return None


def absent_column(path: Path, name: str, known: Sequence[str], where: str) -> DataError:
    """The error for a column that a table lacks, with the nearest name that it has; `where` these names stand."""
    lower = {other.lower(): other for other in known}
    close = difflib.get_close_matches(name.lower(), lower, n=1, cutoff=0.5)
    hint = (
        f"is '{lower[close[0]]}' meant? Rename it, or add the column"
        if close
        else f"the {where} has {', '.join(known)}"
    )
    return DataError(f"{path}: the column '{name}' is missing: {hint}")

"""One way to open a table, whatever its format: CSV, TSV, Parquet or ARFF, each also packed with gzip."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from wardround.data.tables import arff, parquet, text
from wardround.data.tables.text import Dialect
from wardround.errors import DataError
from wardround.types import Column

if TYPE_CHECKING:
    import pandas

Format = Literal["text", "arff", "parquet"]


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table on disk; nothing but its head has been read.

    Attributes:
        path: the file.
        names: the columns, in the file's order; `column-1`, ... where nothing names them.
        declared: the columns whose type the format declares: ARFF's numeric and nominal ones, Parquet's numbers and
            booleans. Empty for delimited text.
        format: how the file is written.
        dialect: of delimited text; for ARFF only its encoding counts; None for Parquet.
    """

    path: Path
    names: tuple[str, ...]
    declared: Mapping[str, Column] = field(default_factory=dict)
    format: Format = "text"
    dialect: Dialect | None = None
    original: tuple[str, ...] = ()

    def chunks(self, rows: int = 65536) -> Iterator[pandas.DataFrame]:
        """The rows in order, at most `rows` at a time: memory is bounded by the chunk, not by the file.

        Cells are the file's text as it stands (dtype object), missing codes such as `?` included; None only where the
        format has a gap of its own: a null of Parquet, a bare `?` of ARFF. The index, named `line`, holds line numbers
        of the file from 1 (`row` and row numbers for Parquet). A table without rows gives no chunk.

        Raises:
            DataError: a row has too many or too few cells, a byte is not in the encoding, a quote is not closed, or the
                file is damaged.
        """
        if rows < 1:
            raise ValueError(f"rows = {rows}: expected at least 1")
        if self.format == "parquet":
            for chunk in parquet.read_chunks(self.path, rows):
                yield chunk.set_axis(list(self.names), axis=1)
            return
        import pandas

        source = self._rows()
        while True:
            lines: list[int] = []
            cells: list[Sequence[str | None]] = []
            for line, row in islice(source, rows):
                if len(row) != len(self.names):
                    raise DataError(
                        f"{self.path}, line {line}: {len(row)} cells, expected {len(self.names)} as in "
                        f"{self._norm()}: mend the line, or quote cells that contain the delimiter"
                    )
                lines.append(line)
                cells.append(row)
            if not cells:
                return
            yield pandas.DataFrame(
                cells, columns=list(self.names), index=pandas.Index(lines, name="line"), dtype=object
            )

    def _rows(self) -> Iterator[tuple[int, Sequence[str | None]]]:
        if self.dialect is None:
            raise DataError(f"{self.path}: a table of text needs a dialect: open it with open_table")
        if self.format == "arff":
            return arff.read_rows(self.path, self.dialect.encoding, self.original, dict(self.declared))
        rows = text.read_rows(self.path, self.dialect)
        return islice(rows, 1, None) if self.dialect.header else rows

    def _norm(self) -> str:
        if self.format == "arff":
            return "the header"
        return "the header" if self.dialect is not None and self.dialect.header else "the first line"


def open_table(
    path: Path | str,
    *,
    names: Sequence[str] | None = None,
    header: bool | None = None,
    delimiter: str | None = None,
    encoding: str | None = None,
) -> Table:
    """Open a table: Parquet (.parquet, .pq), ARFF (.arff), else delimited text (.csv, .tsv, .data, .txt), each also .gz.

    Args:
        path: the file.
        names: names of all columns, instead of those of the file.
        header: whether the first row of a delimited file holds names; sniffed where None.
        delimiter: sniffed where None among tab, semicolon, bar and comma, then blanks.
        encoding: a Python codec; where None that of a byte order mark, else UTF-8.

    Raises:
        DataError: the file is absent, empty, no table, or not in its encoding; a header names a column twice; `names`
            are not as many as the columns.
    """
    path = Path(path)
    if path.is_dir():
        raise DataError(f"{path} is a folder: give one table, a file")
    suffixes = [suffix.lower() for suffix in path.suffixes]
    suffix = next((s for s in reversed(suffixes) if s != ".gz"), "")
    dialect: Dialect | None
    kind: Format
    if suffix in (".parquet", ".pq"):
        found, declared = parquet.read_header(path)
        kind, dialect = "parquet", None
    elif suffix == ".arff":
        codec = text.find_encoding(path, encoding)
        found, declared = arff.read_header(path, codec)
        kind, dialect = "arff", Dialect(delimiter=",", header=True, encoding=codec)
    else:
        dialect = text.find_dialect(path, delimiter=delimiter, header=header, encoding=encoding)
        found, declared, kind = _text_names(path, dialect), {}, "text"
    chosen = _checked(path, found, names)
    return Table(
        path=path,
        names=chosen,
        declared={
            new: Column(name=new, kind=declared[old].kind, levels=declared[old].levels)
            for old, new in zip(found, chosen, strict=True)
            if old in declared
        },
        format=kind,
        dialect=dialect,
        original=found,
    )


def _text_names(path: Path, dialect: Dialect) -> tuple[str, ...]:
    _, first = next(text.read_rows(path, dialect))
    cells = [cell.strip() for cell in first] if dialect.header else [""] * len(first)
    return tuple(cell or f"column-{place}" for place, cell in enumerate(cells, start=1))


def _checked(path: Path, found: tuple[str, ...], names: Sequence[str] | None) -> tuple[str, ...]:
    if names is not None and len(names) != len(found):
        raise DataError(
            f"{path} has {len(found)} columns and {len(names)} names are given ({', '.join(names)}): give one a column"
        )
    chosen = tuple(names) if names is not None else found
    for name in chosen:
        if chosen.count(name) > 1:
            raise DataError(
                f"{path}: the header names the column '{name}' {chosen.count(name)} times: rename one, or give names"
            )
    return chosen

"""A table's text and its schema to arrays, a chunk at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wardround.data.tables.cells import Reader, cell_reader, gap_finder
from wardround.data.tables.reader import Table, open_table
from wardround.data.tables.schema import Date, Schema
from wardround.data.tables.text import absent_column
from wardround.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    import pandas

_DAYS = {"days": 1.0, "years": 365.25}


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """Rows of a table as arrays; rows that the schema excludes have left, unless they are to be scored.

    Attributes:
        features: float64 [n, C], NaN for gaps, level indices in categorical columns.
        labels: int64 [n], or None where labels were not asked for.
        patients: str [n], or None where the schema has no patient column.
        sites: str [n], or None where the schema has no site column.
    """

    features: NDArray[np.float64]
    labels: NDArray[np.int64] | None
    patients: NDArray[np.str_] | None
    sites: NDArray[np.str_] | None


def open_as(path: Path | str, schema: Schema) -> Table:
    """Open a table that `schema` describes.

    A file without a header has the schema's columns, in order; new rows to score may lack the label's.

    Raises:
        DataError: the file cannot be read, or has another number of columns than the schema.
    """
    file = schema.file
    table = open_table(path, header=file.header, delimiter=file.delimiter, encoding=file.encoding)
    if table.format != "text" or table.dialect is None or table.dialect.header:
        return table
    names = list(schema.columns)
    bare = [name for name in names if schema.label is None or name != schema.label[0]]
    for candidate in (names, bare):
        if len(candidate) == len(table.names):
            return open_table(
                path, names=candidate, header=False, delimiter=table.dialect.delimiter, encoding=table.dialect.encoding
            )
    raise DataError(
        f"{path} has no header and {len(table.names)} columns, and the schema has {len(names)} ({', '.join(names)}): a "
        "file without a header must have them all, in this order; or give it a header"
    )


def encode(table: Table, schema: Schema, *, labelled: bool = True, rows: int = 65536) -> Iterator[Encoded]:
    """The table's rows as arrays, at most `rows` of them at a time.

    Args:
        table: opened with `open_as`.
        schema: what its columns mean; those that it does not name are ignored.
        labelled: whether label, patient and site columns are read, and rows excluded; without, only the features'
            columns must be there, and every row is given.
        rows: the most rows held as text at once.

    Raises:
        DataError: a column is missing, or a cell is not what the schema says; the message names file, line, column,
            value and what was expected. Also where a row has no label, patient or site.
    """
    wanted = _wanted(schema, labelled)
    _check_columns(table, wanted)
    readers = {name: cell_reader(schema.columns[name], schema) for name in wanted}
    for chunk in table.chunks(rows):
        yield _encode(_Chunk(table, schema, readers, chunk, table.format == "parquet"), labelled)


@dataclass(frozen=True)
class _Chunk:
    table: Table
    schema: Schema
    readers: dict[str, Reader]
    cells: pandas.DataFrame
    numbered: bool

    def distinct(self, name: str) -> tuple[NDArray[np.intp], NDArray[Any]]:
        """For each row the place of its text among the distinct ones, -1 for the format's own gaps."""
        import pandas

        codes, texts = pandas.factorize(self.cells[name].to_numpy(dtype=object))
        return codes, texts

    def values(self, name: str) -> NDArray[np.float64]:
        """One column's values, float64 [n]."""
        codes, texts = self.distinct(name)
        return self.spread(name, codes, [self.read(name, codes, place, text) for place, text in enumerate(texts)])

    def read(self, name: str, codes: NDArray[np.intp], place: int, text: str) -> float:
        try:
            return self.readers[name](text)
        except DataError as error:
            raise self.fault(name, np.flatnonzero(codes == place)[0], str(error)) from error

    def spread(self, name: str, codes: NDArray[np.intp], values: Sequence[float]) -> NDArray[np.float64]:
        return np.array([*values, math.nan])[codes]

    def texts(self, name: str) -> NDArray[np.str_]:
        """One column's texts without blanks around them and recoded, str [n]; a gap is an error."""
        spec = self.schema.columns[name]
        gap = gap_finder((*self.schema.missing, *spec.missing))
        codes, texts = self.distinct(name)
        bare = [spec.recode.get(text.strip(), text.strip()) for text in texts]
        empty = np.array([*map(gap, bare), True])[codes]
        if empty.any():
            raise self.fault(name, np.flatnonzero(empty)[0], f"there is no {spec.kind}: name one, or remove the row")
        return np.array([*bare, ""], dtype=np.str_)[codes]

    def days(self, name: str) -> NDArray[np.float64]:
        """A date column as days since 1970, float64 [n], NaN for gaps."""
        import pandas

        spec = self.schema.columns[name]
        if not isinstance(spec, Date):
            raise TypeError(f"'{name}' is a {spec.kind} column")
        gap = gap_finder((*self.schema.missing, *spec.missing))
        codes, texts = self.distinct(name)
        bare = [spec.recode.get(text.strip(), text.strip()) for text in texts]
        stamps = pandas.to_datetime(
            pandas.Series([None if gap(text) else text for text in bare], dtype=object),
            format=spec.format or "ISO8601",
            errors="coerce",
            utc=True,
        )
        wrong = [place for place, text in enumerate(bare) if pandas.isna(stamps[place]) and not gap(text)]
        if wrong:
            form = f"the form {spec.format}" if spec.format else "ISO 8601, such as 2020-01-31"
            raise self.fault(name, np.flatnonzero(codes == wrong[0])[0], f"{bare[wrong[0]]!r} is no date of {form}")
        since = (stamps - pandas.Timestamp(0, tz="UTC")) / pandas.Timedelta(days=1)
        return self.spread(name, codes, since.to_numpy(dtype=np.float64).tolist())

    def interval(self, name: str, spec: Date) -> NDArray[np.float64]:
        """The time from `spec.since` to a date, in its unit."""
        if isinstance(spec.since, date):
            start: Any = float((spec.since - date(1970, 1, 1)).days)
        else:
            start = self.days(str(spec.since))
        return np.asarray((self.days(name) - start) / _DAYS[spec.unit], dtype=np.float64)

    def excluded(self) -> NDArray[np.bool_]:
        """Rows with a value that the schema excludes, bool [n]."""
        out = np.zeros(len(self.cells), dtype=np.bool_)
        for name, spec in self.schema.columns.items():
            if spec.exclude:
                among = gap_finder(spec.exclude)
                codes, texts = self.distinct(name)
                out |= np.array([*(among(text.strip()) for text in texts), "" in spec.exclude])[codes]
        return out

    def fault(self, name: str, row: np.intp, reason: str) -> DataError:
        where = "row" if self.numbered else "line"
        return DataError(f"{self.table.path}, {where} {self.cells.index[row]}, column '{name}': {reason}")


def _encode(chunk: _Chunk, labelled: bool) -> Encoded:
    schema = chunk.schema
    labels = patients = sites = None
    if labelled:
        chunk = _without(chunk, chunk.excluded())
    if labelled and schema.label is not None:
        name, spec = schema.label
        classes = chunk.values(name)
        absent = np.isnan(classes)
        if absent.any() and spec.unlabelled == "error":
            raise chunk.fault(
                name,
                np.flatnonzero(absent)[0],
                "there is no label: mend the row, or set `unlabelled: drop` in the schema",
            )
        chunk, labels = _without(chunk, absent), classes[~absent].astype(np.int64)
    if labelled and schema.patient is not None:
        patients = chunk.texts(schema.patient)
    if labelled and schema.site is not None:
        sites = chunk.texts(schema.site)
    columns = [_feature(chunk, column.name) for column in schema.features]
    return Encoded(
        features=np.stack(columns, axis=1) if columns else np.empty((len(chunk.cells), 0)),
        labels=labels,
        patients=patients,
        sites=sites,
    )


def _feature(chunk: _Chunk, name: str) -> NDArray[np.float64]:
    spec = chunk.schema.columns[name]
    return chunk.interval(name, spec) if isinstance(spec, Date) else chunk.values(name)


def _without(chunk: _Chunk, rows: NDArray[np.bool_]) -> _Chunk:
    return _Chunk(chunk.table, chunk.schema, chunk.readers, chunk.cells[~rows], chunk.numbered) if rows.any() else chunk


def _wanted(schema: Schema, labelled: bool) -> list[str]:
    """The columns that a file must have."""
    features = {column.name for column in schema.features}
    starts = {c.since for c in schema.columns.values() if isinstance(c, Date) and isinstance(c.since, str)}
    return [
        name
        for name, spec in schema.columns.items()
        if name in features | starts or (labelled and (spec.exclude or spec.kind in ("label", "patient", "site")))
    ]


def _check_columns(table: Table, wanted: Sequence[str]) -> None:
    for name in wanted:
        if name in table.names:
            continue
        raise absent_column(table.path, name, table.names, "file")

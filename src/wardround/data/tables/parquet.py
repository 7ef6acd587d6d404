"""Parquet, a batch of rows at a time, as text."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wardround.data.tables.text import open_bytes
from wardround.errors import DataError, missing_extra
from wardround.types import Column

if TYPE_CHECKING:
    import pandas


def read_header(path: Path) -> tuple[tuple[str, ...], dict[str, Column]]:
    """Names of the columns, and those that are numbers or booleans, by name.

    Raises:
        DataError: the file cannot be read as Parquet, or a column is a list, a struct or a map.
    """
    import pyarrow.types as kinds

    with _open(path) as file:
        schema = file.schema_arrow
    declared: dict[str, Column] = {}
    for field in schema:
        if kinds.is_nested(field.type):
            raise DataError(f"{path}: the column '{field.name}' is {field.type}: expected one value a cell; unfold it")
        if kinds.is_boolean(field.type):
            declared[field.name] = Column(name=field.name, kind="categorical", levels=("false", "true"))
        elif kinds.is_integer(field.type) or kinds.is_floating(field.type) or kinds.is_decimal(field.type):
            declared[field.name] = Column(name=field.name)
    return tuple(schema.names), declared


def read_chunks(path: Path, rows: int) -> Iterator[pandas.DataFrame]:
    """Batches of at most `rows` rows, cells as text or None, indexed by the number of the row from 1.

    Raises:
        DataError: the file is damaged.
    """
    import pandas
    import pyarrow

    first = 1
    with _open(path) as file:
        for batch in file.iter_batches(batch_size=rows):
            cells = {
                name: column.cast(pyarrow.large_string()).to_numpy(zero_copy_only=False)
                for name, column in zip(batch.schema.names, batch.columns, strict=True)
            }
            index = pandas.RangeIndex(first, first + batch.num_rows, name="row")
            first += batch.num_rows
            yield pandas.DataFrame(cells, index=index, dtype=object)


@contextmanager
def _open(path: Path) -> Iterator[Any]:
    try:
        import pyarrow
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise missing_extra("pyarrow", "parquet") from error
    with open_bytes(path) as source, tempfile.TemporaryFile() as unpacked:
        if source.read(4) != b"PAR1":
            raise DataError(f"{path} is not Parquet: its first bytes are not PAR1")
        source.seek(0)
        if path.suffix.lower() == ".gz":  # Parquet is read from its end
            shutil.copyfileobj(source, unpacked)
            unpacked.seek(0)
        try:
            with ParquetFile(unpacked if path.suffix.lower() == ".gz" else source) as file:
                yield file
        except pyarrow.ArrowException as error:
            raise DataError(f"{path} cannot be read as Parquet: {error}: is it whole?") from error

"""Your own table or tables, read by a schema that you declare."""

from __future__ import annotations

import glob
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from wardround.data.tables.schema import Schema
from wardround.data.tables.sites import check_learnable, read_sites
from wardround.errors import ConfigError, DataError
from wardround.types import Description, SiteData

_SUFFIXES = (".csv", ".tsv", ".txt", ".data", ".parquet", ".pq", ".arff")


class Custom:
    """One table, or one a hospital.

    Sites are those of the schema's site column; without one each file is a site, named after it; one file without a
    site column is a pool to be dealt out. Nothing is read before the description is asked for. Without a path there are no
    records, as at a coordinator, and the description is the schema's.

    Args:
        path: a file, a folder (every table in it), a pattern such as `hospitals/*.csv`, or a list of files; relative
            paths start at the working directory.
        schema: a YAML file, or its content as a mapping; needed.
        name, title, source, licence: for the report and the model card.
        leaks: columns that may determine the label.

    Raises:
        ConfigError: an option is of another kind, the schema is not valid, or it has no label or no feature.
    """

    def __init__(
        self,
        path: str | Sequence[str] = (),
        schema: str | Mapping[str, Any] | None = None,
        name: str = "custom",
        title: str = "",
        source: str = "",
        licence: str = "not stated",
        leaks: Sequence[str] = (),
    ) -> None:
        if schema is None:
            raise ConfigError("data.options.schema is missing: it declares what the columns of the tables mean")
        self.paths = _texts("path", [path] if isinstance(path, str) else path)
        self.leaks = _texts("leaks", leaks)
        self.schema = (
            Schema.parse(schema, "data.options.schema") if isinstance(schema, Mapping) else Schema.read(schema)
        )
        check_learnable(self.schema)
        self.name, self.title, self.source, self.licence = name, title or name, source or ", ".join(self.paths), licence

    def describe(self) -> Description:
        """The schema's features and classes, and the sites: finding these takes a pass over the records, where there are any."""
        label = self.schema.label
        return Description(
            name=self.name,
            title=self.title,
            source=self.source,
            licence=self.licence,
            sites=tuple(self._sites),
            columns=self.schema.features,
            classes=label[1].names if label else (),
            natural=self.schema.site is not None or len(self._files) > 1,
            schema=self.schema.model_dump_json(),
        )

    def load(self, site: str) -> SiteData:
        """One site's rows: features float64 [n, C], labels int64 [n]; each row is a patient if no column says who is.

        Raises:
            DataError: the site is unknown, a file is absent or malformed, or what `read_sites` refuses.
        """
        if not self.paths:
            raise DataError(
                "the dataset 'custom' has no data.options.path here, so it has no records: say where they are"
            )
        if site not in self._sites:
            raise DataError(f"site {site!r}: the dataset '{self.name}' has {', '.join(self._sites)}")
        return self._sites[site]

    @cached_property
    def _sites(self) -> dict[str, SiteData]:
        return read_sites(self._files, self.schema, leaks=self.leaks) if self.paths else {}

    @cached_property
    def _files(self) -> dict[str, Path]:
        files: dict[str, Path] = {}
        for path in (file for given in self.paths for file in _found(given)):
            site = _stem(path)
            if site in files:
                raise DataError(f"{files[site]} and {path} would both be the site '{site}': rename one")
            files[site] = path
        return files


def _found(given: str) -> list[Path]:
    path = Path(given).expanduser()
    if path.is_dir():
        found = sorted(file for file in path.iterdir() if file.is_file() and _suffix(file) in _SUFFIXES)
        if not found:
            raise DataError(
                f"the folder {path} holds no table: expected files such as {', '.join(_SUFFIXES)}, also .gz"
            )
        return found
    if path.exists() or not glob.has_magic(given):
        if not path.exists():
            raise DataError(
                f"there is no file {path} (from {Path.cwd()}): give the path of a table, or a folder of them"
            )
        return [path]
    found = sorted(Path(match) for match in glob.glob(str(path), recursive=True))
    if not found:
        raise DataError(f"no file fits {given!r} (from {Path.cwd()}): give a pattern such as hospitals/*.csv")
    return found


def _suffix(path: Path) -> str:
    return next((suffix.lower() for suffix in reversed(path.suffixes) if suffix.lower() != ".gz"), "")


def _stem(path: Path) -> str:
    name = path.name
    for suffix in reversed(path.suffixes):
        if suffix.lower() == ".gz" or suffix.lower() in _SUFFIXES:
            name = name.removesuffix(suffix)
        else:
            break
    return name


def _texts(option: str, given: Any) -> tuple[str, ...]:
    if isinstance(given, str) or not isinstance(given, Sequence) or not all(isinstance(text, str) for text in given):
        raise ConfigError(f"data.options.{option} = {given!r}: expected text, or a list of texts")
    return tuple(given)

"""The declared schema of a clinical table: what each column is, which codes mean what, and where the sites come from.

A schema is public and the same at every hospital. Nothing in it is learned from records, so levels that only one hospital
has must be declared too; what a draft from one file proposes is for a person to complete.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BeforeValidator, Field, ValidationError, model_serializer, model_validator
from pydantic_core import ErrorDetails

from wardround.config.job import Count, Name, Node
from wardround.config.load import parse_yaml
from wardround.data.tables.text import GAP_CODES, number
from wardround.errors import ConfigError, DataError
from wardround.types import Column, Json

OTHER = "other"
"""The level that takes every value that is not declared, and the site that takes sites that are too small."""


def _code(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError(f"{value} is what YAML makes of a bare word: write it in quotes, such as 'yes'")
    if value is None:
        return ""
    return str(value) if isinstance(value, int | float | date) else value


Code = Annotated[str, BeforeValidator(_code)]
"""The text of a cell without blanks around it; numbers are written as such and compared as numbers too."""
Codes = tuple[Code, ...]


def _day(value: Any) -> Any:
    """A text that is a day, as JSON has it."""
    with suppress(ValueError, TypeError):
        return date.fromisoformat(value)
    return value


class _Column(Node):
    """What every kind of column may say."""

    missing: Codes = ()
    """Codes that mean 'not measured' here, beside the table's: texts in any case of letters, or numbers."""
    recode: dict[Code, Code] = Field(default_factory=dict)
    """Texts to replace before anything else looks at them."""
    exclude: Codes = ()
    """A row with one of these values is not part of the data set."""


class Numeric(_Column):
    """A quantity."""

    kind: Literal["numeric"] = "numeric"
    unit: Name | None = None
    """Text that may stand behind each number: with `Y`, `060Y` is 60."""


class _Levels(_Column):
    levels: Annotated[Codes, Field(min_length=1)]
    """The codes, in order; public, and the same at every site."""

    @model_validator(mode="after")
    def _distinct(self) -> _Levels:
        twice = sorted({level for level in self.levels if self.levels.count(level) > 1})
        if twice:
            raise ValueError(f"levels names {', '.join(twice)} more than once: keep one")
        return self


class Categorical(_Levels):
    """A code without order; one 0/1 feature for each level but the first."""

    kind: Literal["categorical"] = "categorical"
    unseen: Literal["error", "missing", "other"] = "error"
    """A value that is no level is an error, a gap, or becomes the level `other`, which then comes last."""

    @property
    def all_levels(self) -> Codes:
        """The levels, with `other` where values are merged into it."""
        return (*self.levels, OTHER) if self.unseen == OTHER and OTHER not in self.levels else self.levels


class Ordinal(_Levels):
    """A code with an order."""

    kind: Literal["ordinal"] = "ordinal"
    encode: Literal["rank", "one-hot"] = "rank"
    """One numeric feature 0, 1, 2, ... (equal steps between levels), or 0/1 features as of a categorical column."""
    unseen: Literal["error", "missing"] = "error"
    """A value that is no level is an error or a gap."""


class Boolean(_Column):
    """Yes or no, one 0/1 feature."""

    kind: Literal["boolean"] = "boolean"
    positive: Annotated[Codes, Field(min_length=1)] = ("1", "true", "t", "yes", "y")
    """What means yes, in any case of letters."""
    negative: Annotated[Codes, Field(min_length=1)] = ("0", "false", "f", "no", "n")
    """What means no."""

    @model_validator(mode="after")
    def _apart(self) -> Boolean:
        both = {code.lower() for code in self.positive} & {code.lower() for code in self.negative}
        if both:
            raise ValueError(f"{', '.join(sorted(both))} is both positive and negative: keep one")
        return self


class Date(_Column):
    """A day; a feature only where `since` makes it an interval."""

    kind: Literal["date"] = "date"
    since: Annotated[Name | date | None, BeforeValidator(_day)] = None
    """Another date column, or a fixed day: the feature is the time from then to this date. None: no feature."""
    unit: Literal["days", "years"] = "days"
    """Of the interval; a year has 365.25 days."""
    format: Name | None = None
    """As of strptime (`%d/%m/%Y`); ISO 8601 where None."""


class Identifier(_Column):
    """A record number, a name, an address: never a feature."""

    kind: Literal["identifier"] = "identifier"


class Ignore(_Column):
    """Not used."""

    kind: Literal["ignore"] = "ignore"


class Patient(_Column):
    """Whose row it is: rows of one patient stay in one split. Never a feature."""

    kind: Literal["patient"] = "patient"


class Site(_Column):
    """Which hospital holds the row. Never a feature."""

    kind: Literal["site"] = "site"


class Cut(Node):
    """Two classes from a number."""

    above: float | None = None
    """The second class is every number above this one,"""
    at_least: float | None = None
    """or from this one on; set one of the two."""
    classes: tuple[Name, Name] = ("negative", "positive")
    """Names of the classes."""

    @model_validator(mode="after")
    def _one(self) -> Cut:
        if (self.above is None) == (self.at_least is None):
            raise ValueError(f"above = {self.above} and at_least = {self.at_least}: set one of them")
        return self


class Label(_Column):
    """What is predicted. Never a feature."""

    kind: Literal["label"] = "label"
    classes: dict[Name, Codes] | None = None
    """Class -> its values, in order; the second of two classes is the positive one."""
    cut: Cut | None = None
    """Or two classes from a number."""
    positive: Name | None = None
    """The positive one of two classes, if it is not the second."""
    unlabelled: Literal["error", "drop"] = "error"
    """A row without a label is an error, or leaves."""

    @model_validator(mode="after")
    def _complete(self) -> Label:
        if (self.classes is None) == (self.cut is None):
            raise ValueError("a label needs either classes (name -> values) or cut: give one of them")
        if self.classes is not None:
            if len(self.classes) < 2:
                raise ValueError(f"{len(self.classes)} class: expected at least two")
            values = [value for values in self.classes.values() for value in values]
            twice = sorted({value for value in values if values.count(value) > 1})
            if twice:
                raise ValueError(f"the value {', '.join(twice)} is given to more than one class: keep one")
            empty = [name for name, values in self.classes.items() if not values]
            if empty:
                raise ValueError(f"the class '{empty[0]}' has no value: list those that mean it")
        names = tuple(self.classes) if self.classes is not None else self.cut.classes if self.cut else ()
        if self.positive is not None and (self.positive not in names or len(names) != 2):
            raise ValueError(
                f"positive = {self.positive!r}: expected one of two classes, and these are {', '.join(names)}"
            )
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """Class names in label order."""
        names = tuple(self.classes) if self.classes is not None else self.cut.classes if self.cut else ()
        return names[::-1] if self.positive is not None and self.positive == names[0] else names


Kind = Numeric | Categorical | Ordinal | Boolean | Date | Identifier | Ignore | Patient | Site | Label


def _spelled(value: Any) -> Any:
    return {"kind": value} if isinstance(value, str) else value


ColumnSpec = Annotated[Kind, Field(discriminator="kind")]
Spelled = Annotated[ColumnSpec, BeforeValidator(_spelled)]
"""A column, where it needs no more than its kind also written as that word alone."""


class FileSpec(Node):
    """How the files are written; what is None is sniffed from each file."""

    header: bool | None = None
    """Whether the first row holds names. Without a header the schema's columns are all of the file's, in order."""
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    """Between cells."""
    encoding: Name | None = None
    """A Python codec."""
    decimal: Literal[".", ","] = "."
    """The decimal mark of numbers."""


T = TypeVar("T", bound=_Column)


class Schema(Node):
    """What a table means."""

    columns: Annotated[dict[Name, Spelled], Field(min_length=1)]
    """Name -> what it is. Columns of a file that are not named here are ignored; one that is named must be there."""
    missing: Codes = GAP_CODES
    """Codes that mean 'not measured' in every column, in any case of letters, unless they are a level."""
    file: FileSpec = FileSpec()
    """How the files are written."""
    min_rows: Count = 1
    """Fewest rows a site may have."""
    small_sites: Literal["error", "drop", "other"] = "error"
    """A site with fewer rows is an error, leaves, or joins a site `other`."""

    @model_validator(mode="after")
    def _consistent(self) -> Schema:
        for kind in (Label, Patient, Site):
            names = [name for name, column in self.columns.items() if isinstance(column, kind)]
            if len(names) > 1:
                raise ValueError(
                    f"columns {', '.join(names)} are all of kind {names and kind.__name__.lower()}: keep one"
                )
        for name, column in self.columns.items():
            if isinstance(column, Date) and isinstance(column.since, str):
                other = self.columns.get(column.since)
                if not isinstance(other, Date) or column.since == name:
                    dates = [n for n, c in self.columns.items() if isinstance(c, Date) and n != name]
                    raise ValueError(
                        f"columns.{name}.since = {column.since!r}: expected another date column "
                        f"({', '.join(dates) or 'there is none'}) or a day such as 2020-01-31"
                    )
        return self

    @model_serializer(mode="wrap")
    def _short(self, handler: Callable[[Schema], dict[str, Any]]) -> dict[str, Any]:
        """Without what is default; a column that only has a kind as that word."""
        tree = handler(self)
        tree["columns"] = {
            name: column.kind
            if not (rest := column.model_dump(mode="json", exclude_defaults=True, exclude={"kind"}))
            else {"kind": column.kind, **rest}
            for name, column in self.columns.items()
        }
        tree["file"] = self.file.model_dump(exclude_defaults=True)
        defaults = {"missing": list(GAP_CODES), "file": {}, "min_rows": 1, "small_sites": "error"}
        return {
            key: value
            for key, value in tree.items()
            if key not in defaults or (list(value) if isinstance(value, tuple) else value) != defaults[key]
        }

    @property
    def features(self) -> tuple[Column, ...]:
        """The raw columns that a model may see: neither labels nor identifiers, by construction."""
        return tuple(raw for raw in (_raw(name, spec) for name, spec in self.columns.items()) if raw is not None)

    @property
    def label(self) -> tuple[str, Label] | None:
        """Name and specification of the label, if there is one."""
        return self._only(Label)

    @property
    def patient(self) -> str | None:
        """The column that names patients, if there is one."""
        found = self._only(Patient)
        return found[0] if found else None

    @property
    def site(self) -> str | None:
        """The column that names sites, if there is one."""
        found = self._only(Site)
        return found[0] if found else None

    def _only(self, kind: type[T]) -> tuple[str, T] | None:
        return next(((name, column) for name, column in self.columns.items() if isinstance(column, kind)), None)

    @classmethod
    def of_columns(cls, columns: tuple[Column, ...]) -> Schema:
        """The schema of raw columns alone: what a table for them must have where nothing else is known."""
        return cls(
            columns={
                column.name: Categorical(levels=column.levels, missing=_numbers(column))
                if column.kind == "categorical"
                else Numeric(missing=_numbers(column))
                for column in columns
            }
        )

    @classmethod
    def parse(cls, tree: Json, where: str) -> Schema:
        """A schema from plain mappings. Raises ConfigError that names the key, its value and what was expected."""
        if not isinstance(tree, Mapping):
            raise ConfigError(
                f"{where}: a schema is a mapping with the key 'columns', and this is a {type(tree).__name__}"
            )
        try:
            return cls.model_validate(tree)
        except ValidationError as error:
            raise ConfigError(f"{where}: " + "; ".join(dict.fromkeys(map(_explain, error.errors())))) from error

    @classmethod
    def read(cls, path: Path | str) -> Schema:
        """A schema from a YAML file. Raises ConfigError."""
        try:
            text = Path(path).read_text(encoding="utf-8")
        except FileNotFoundError as error:
            raise ConfigError(f"there is no schema {path}: `wardround data describe TABLE` drafts one") from error
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"the schema {path} cannot be read: {error}") from error
        return cls.parse(parse_yaml(text, str(path)), str(path))

    def to_yaml(self) -> str:
        """The schema as YAML without what is default; `read` gives back an equal one."""
        return yaml.safe_dump(
            self.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120, default_flow_style=None
        )

    def merge_rare(self, column: str, counts: Mapping[str, int], minimum: int) -> Schema:
        """The schema with levels of fewer than `minimum` rows merged into `other`.

        `counts` must be public: the federation's totals, not one hospital's. Raises DataError where `column` is not
        categorical, or no level is left.
        """
        spec = self.columns.get(column)
        if not isinstance(spec, Categorical):
            raise DataError(f"'{column}' is not a categorical column of the schema: levels cannot be merged")
        kept = tuple(level for level in spec.levels if counts.get(level, 0) >= minimum)
        if kept == spec.levels:
            return self
        if not kept:
            raise DataError(f"no level of '{column}' has {minimum} rows: lower the minimum, or ignore the column")
        merged = spec.model_copy(update={"levels": kept, "unseen": OTHER})
        return self.model_copy(update={"columns": {**self.columns, column: merged}})


def _numbers(column: Column) -> Codes:
    return tuple(repr(code) for code in column.missing_codes)


def _raw(name: str, spec: Kind) -> Column | None:
    codes = tuple(value for value in map(number, spec.missing) if value == value)  # noqa: PLR0124  # not NaN
    match spec:
        case Categorical():
            return Column(name=name, kind="categorical", levels=spec.all_levels, missing_codes=codes)
        case Ordinal() if spec.encode == "one-hot":
            return Column(name=name, kind="categorical", levels=spec.levels, missing_codes=codes)
        case Boolean():
            return Column(name=name, kind="categorical", levels=("no", "yes"), missing_codes=codes)
        case Numeric() | Ordinal():
            return Column(name=name, missing_codes=codes)
        case Date() if spec.since is not None:
            return Column(name=name)
    return None


_KINDS: dict[str, type[_Column]] = {
    kind.model_fields["kind"].default: kind
    for kind in (Numeric, Categorical, Ordinal, Boolean, Date, Identifier, Ignore, Patient, Site, Label)
}


def _explain(item: ErrorDetails) -> str:
    """One fault in the words of the file: `columns.sex.levels = ...: why`."""
    place = [str(part) for part in item["loc"]]
    kind = place.pop(2) if len(place) > 2 and place[0] == "columns" and place[2] in _KINDS else ""
    where, reason = ".".join(place), str(item["msg"])
    if item["type"] == "extra_forbidden":
        fields: type[Node] = _KINDS[kind] if kind else FileSpec if place[0] == "file" else Schema
        known = [name for name in fields.model_fields if name != "kind"]
        close = difflib.get_close_matches(place[-1], known, n=1, cutoff=0.5)
        hint = f"did you mean '{close[0]}'?" if close else f"known here: {', '.join(known)}"
        return f"unknown key '{where}'{f' of a {kind} column' if kind else ''}: {hint}"
    if item["type"] in ("union_tag_invalid", "union_tag_not_found"):
        given = item["input"].get("kind") if isinstance(item["input"], Mapping) else item["input"]
        close = difflib.get_close_matches(str(given), _KINDS, n=1, cutoff=0.5)
        hint = f"did you mean '{close[0]}'? " if close else ""
        return f"{where}.kind = {given!r}: {hint}expected one of {', '.join(_KINDS)}"
    if item["type"] == "value_error":
        reason = reason.removeprefix("Value error, ")
        return f"{where}: {reason}" if where else reason
    if item["type"] == "missing":
        return f"{where} is missing{f': a {kind} column needs it' if kind else ''}"
    return f"{where} = {item['input']!r}: {reason[0].lower()}{reason[1:]}"

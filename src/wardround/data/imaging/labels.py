"""The table that says what each picture shows, and whose it is."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from wardround.errors import ConfigError, DataError

if TYPE_CHECKING:
    import pandas

ROLES = ("patient", "group", "split", "age", "sex")
NO_FINDING = "No Finding"
"""The label that stands for none of several."""
_GUESSES = {
    "label": (
        "label", "labels", "class", "target", "diagnosis", "dx", "finding labels", "findings", "finding", "category",
    ),
    "patient": ("patient", "patient_id", "patientid", "patient id", "subject", "subject_id", "pid"),
    "group": ("lesion_id", "lesion", "group", "group_id", "study_id", "study", "accession"),
    "split": ("split", "subset", "set", "partition"),
    "age": ("age", "patient age", "patient_age", "age_approx"),
    "sex": ("sex", "gender", "patient gender", "patient sex", "patient_sex"),
}  # fmt: skip
_SPLITS = {
    "train": "train", "training": "train", "val": "validation", "valid": "validation", "validation": "validation",
    "test": "test", "testing": "test",
}  # fmt: skip
_AGE = re.compile(r"0*(\d+(?:\.\d+)?)\s*([YMWD]?)", re.IGNORECASE)
_YEARS = {"": 1.0, "Y": 1.0, "M": 1 / 12, "W": 1 / 52.18, "D": 1 / 365.25}
_OLDEST = 90


@dataclass(frozen=True, kw_only=True)
class Row:
    """What the table says of one picture.

    Attributes:
        labels: names of its classes: one, or any number where several may hold at once.
        patient, group: identifiers as the table has them; "" where it has none.
        split: train, validation, test, or "".
        age: a bin of ten years, `90+` for all above; "".
        sex: F, M, other, or "".
        problem: why the row cannot be used, "" where it can.
    """

    labels: tuple[str, ...] = ()
    patient: str = ""
    group: str = ""
    split: str = ""
    age: str = ""
    sex: str = ""
    problem: str = ""


@dataclass(frozen=True, kw_only=True)
class Labels:
    """A whole table, matched to files.

    Attributes:
        rows: file -> its row; files that the table does not name are absent.
        classes: names in label order.
        multilabel: whether several may hold at once.
        columns: role -> column, of those the table has.
        guessed: the roles whose column was found by its name.
        without_file: keys of rows for which there is no file.
        by_name: files that were matched by name alone, since their folders differ.
    """

    rows: Mapping[str, Row]
    classes: tuple[str, ...]
    multilabel: bool
    columns: Mapping[str, str] = field(default_factory=dict)
    guessed: tuple[str, ...] = ()
    without_file: tuple[str, ...] = ()
    by_name: int = 0


def read_labels(
    path: Path, source: Path, files: Sequence[str], *, file: str | None = None, label: Sequence[str] = (),
    roles: Mapping[str, str] | None = None, classes: Sequence[str] = (), negative: str = NO_FINDING,
) -> Labels:  # fmt: skip
    """Read a table and match its rows to files.

    A row belongs to a file whose path, with or without its suffix, ends as the row's key does; or to all files below a
    folder that it names; or, where neither fits, to the only file of that name.

    Args:
        path: CSV, TSV, Parquet or ARFF.
        source: the folder of the files.
        files: their paths below it, with forward slashes.
        file: the column that names the file or study; None takes the one that names most of them.
        label: the column of classes, `A|B` where several hold; or a 0/1 column a class. () guesses.
        roles: any of `ROLES` -> column; what is absent is guessed by name, and "" means that there is none.
        classes: names in label order; () takes those of the table, sorted.
        negative: the label that stands for none of several.

    Raises:
        ConfigError: a column that the table has not.
        DataError: the table cannot be read, none of its columns names a file, or none can be the label.
    """
    from wardround.data.tables.reader import open_table

    table = open_table(path)
    names = {name.strip().lower(): name for name in table.names}
    given = dict(roles or {})
    for column in [*([file] if file else []), *label, *(c for c in given.values() if c)]:
        if column not in table.names:
            raise ConfigError(f"{path} has no column {column!r}: it has {', '.join(table.names)}")
    columns: dict[str, str] = {}
    guessed = []
    for role in ROLES:
        found = given.get(role)
        if found is None and (found := next((names[g] for g in _GUESSES[role] if g in names), None)):
            guessed.append(role)
        if found:
            columns[role] = found
    shown = tuple(label)
    if not shown:
        one = next((names[g] for g in _GUESSES["label"] if g in names), None)
        if one is None:
            raise DataError(f"{path}: which column is the label? Give --label; it has {', '.join(table.names)}")
        shown = (one,)
        guessed.append("label")
    columns["label"] = ", ".join(shown)
    cells = list(table.chunks())
    if not cells:
        raise DataError(f"{path} has no rows: expected one a file")
    import pandas

    frame = pandas.concat(cells).fillna("").map(lambda cell: str(cell).strip())
    matcher = _Files(source, files)
    if file is None:
        file = _file_column(path, frame, matcher)
        guessed.append("file")
    columns["file"] = file
    parsed = _parsed(frame, shown, columns, negative)
    multilabel = any(len(row.labels) != 1 for row in parsed if not row.problem)
    found_classes = tuple(classes) or _ordered({name for row in parsed for name in row.labels})
    return _matched(frame[file].tolist(), parsed, matcher, found_classes, multilabel, columns, guessed)


def age_bin(text: str) -> str:
    """A bin of ten years of an age such as `63`, `063Y` or `18M`; `90+` from 90 on; "" for what is no age."""
    match = _AGE.fullmatch(text.strip())
    if match is None:
        return ""
    years = float(match[1]) * _YEARS[match[2].upper()]
    if years >= _OLDEST:
        return f"{_OLDEST}+"
    low = int(years) // 10 * 10
    return f"{low}-{low + 9}"


def sex_of(text: str) -> str:
    """F, M, other, or "" for what is unknown."""
    first = text.strip().lower()
    if first in ("", "unknown", "u", "nan", "n/a", "na"):
        return ""
    return {"f": "F", "female": "F", "w": "F", "m": "M", "male": "M"}.get(first, "other")


def _parsed(frame: pandas.DataFrame, shown: tuple[str, ...], columns: Mapping[str, str], negative: str) -> list[Row]:
    def column(role: str) -> Sequence[str]:
        return frame[columns[role]].tolist() if role in columns else [""] * len(frame)

    rows = []
    cells = frame[list(shown)].to_numpy()
    for cell, patient, group, split, age, sex in zip(cells, *(column(role) for role in ROLES), strict=True):
        names, problem = _labels_of(cell, shown, negative)
        if split and split.lower() not in _SPLITS:
            problem = problem or f"its split is {split!r}, expected train, validation or test"
        rows.append(
            Row(
                labels=names, patient=patient, group=group, split=_SPLITS.get(split.lower(), ""), age=age_bin(age),
                sex=sex_of(sex), problem=problem,
            )
        )  # fmt: skip
    return rows


def _labels_of(cells: Sequence[str], columns: tuple[str, ...], negative: str) -> tuple[tuple[str, ...], str]:
    if len(columns) == 1:
        if not cells[0]:
            return (), "its label is empty"
        names = tuple(dict.fromkeys(name.strip() for name in cells[0].split("|") if name.strip()))
        if len(names) == 1 and "|" not in cells[0] and names[0] != negative:
            return names, ""
        return tuple(name for name in names if name != negative), ""
    held = []
    for column, cell in zip(columns, cells, strict=True):
        try:
            value = float(cell)
        except ValueError:
            return (), f"its {column} is {cell!r}, expected 0 or 1"
        if value not in (0.0, 1.0):
            return (), f"its {column} is {cell!r}, expected 0 or 1"
        if value:
            held.append(column)
    return tuple(held), ""


def _ordered(names: set[str]) -> tuple[str, ...]:
    def place(name: str) -> tuple[float, str]:
        try:
            return float(name), name
        except ValueError:
            return float("inf"), name

    return tuple(sorted(names, key=place))


def _matched(
    keys: Sequence[str], parsed: Sequence[Row], matcher: _Files, classes: tuple[str, ...], multilabel: bool,
    columns: Mapping[str, str], guessed: Sequence[str],
) -> Labels:  # fmt: skip
    known = set(classes)
    rows: dict[str, Row] = {}
    without: list[str] = []
    by_name = 0
    for key, told in zip(keys, parsed, strict=True):
        row = told
        files, alone = matcher.find(key)
        if not files:
            without.append(key)
        by_name += len(files) if alone else 0
        unknown = [name for name in row.labels if name not in known]
        if unknown and not row.problem:
            said = f"its class {', '.join(unknown)} is not among {', '.join(classes)}"
            row = replace(row, problem=said)
        for one in files:
            differ = one in rows and rows[one] != row
            rows[one] = replace(row, problem="two rows of the label table name it and differ") if differ else row
    return Labels(
        rows=rows, classes=classes, multilabel=multilabel, columns=columns, guessed=tuple(guessed),
        without_file=tuple(without), by_name=by_name,
    )  # fmt: skip


class _Files:
    """Files by the ends of their paths."""

    def __init__(self, source: Path, files: Iterable[str]) -> None:
        root = PurePosixPath(source.absolute().as_posix())
        self._by_end: dict[str, list[tuple[tuple[str, ...], str]]] = defaultdict(list)
        self._below: dict[str, list[tuple[tuple[str, ...], str]]] = defaultdict(list)
        for file in files:
            parts = (*root.parts, *PurePosixPath(file).parts)
            self._by_end[parts[-1]].append((parts, file))
            if (stem := _stem(parts[-1])) != parts[-1]:
                self._by_end[stem].append(((*parts[:-1], stem), file))
            for depth in range(len(root.parts), len(parts) - 1):
                self._below[parts[depth]].append((parts[: depth + 1], file))

    def find(self, key: str) -> tuple[list[str], bool]:
        """The files that a row's key names, and whether by their name alone."""
        wanted = PurePosixPath(key.replace("\\", "/")).parts
        wanted = tuple(part for part in wanted if part not in (".", "/"))
        if not wanted:
            return [], False
        for index in (self._by_end, self._below):
            found = [file for parts, file in index.get(wanted[-1], ()) if parts[-len(wanted) :] == wanted]
            if found:
                return list(dict.fromkeys(found)), False
        last = self._by_end.get(wanted[-1]) or self._by_end.get(_stem(wanted[-1])) or []
        alone = list(dict.fromkeys(file for _, file in last))
        return (alone, True) if len(alone) == 1 else ([], False)


def _stem(name: str) -> str:
    for suffix in (".nii.gz", ".gz"):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and stem and suffix.isalnum() and not suffix.isdigit() else name


def _file_column(path: Path, frame: pandas.DataFrame, matcher: _Files) -> str:
    sample = frame.iloc[:: max(len(frame) // 2000, 1)]
    hits = {name: sum(bool(matcher.find(key)[0]) for key in sample[name]) for name in frame.columns}
    best = max(hits, key=lambda name: hits[name])
    if not hits[best]:
        raise DataError(
            f"{path}: no column names a file of the source: give --file COLUMN, or another source; it has "
            f"{', '.join(frame.columns)}"
        )
    return str(best)

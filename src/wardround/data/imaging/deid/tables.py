"""A table made clean: record numbers to pseudonyms, dates to intervals, great ages to one bin, free text left out.

What a column holds is guessed from its name and values, as by `wardround data describe`, unless the policy says otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from wardround.data.imaging.deid.identifiers import SHORTEST
from wardround.data.imaging.deid.policy import Policy
from wardround.data.imaging.deid.report import Action, Report
from wardround.data.tables.reader import Table, open_table
from wardround.data.tables.text import GAP_CODES
from wardround.errors import ConfigError, DataError

if TYPE_CHECKING:
    import pandas

Treatment = Literal["keep", "drop", "map", "patient", "site", "age", "interval"]

OLDEST = 90
"""The age that stands for itself and all above it."""

_AGE = re.compile(r"0*(\d+)(\.\d+)?\s*(y|yrs?|years?)?", re.IGNORECASE)
_AGE_NAMES = frozenset({"age", "alter", "leeftijd", "edad", "eta"})
_DAYS = ("%Y-%m-%d", "%Y/%m/%d", "%Y%m%d", "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%d-%b-%Y", "%d %b %Y")
_GAPS = frozenset(code.lower() for code in GAP_CODES) | {""}


@dataclass(frozen=True, kw_only=True)
class Column:
    """What becomes of a column.

    Attributes:
        treatment: `keep`; `drop`; `map` to pseudonyms of the column's own; `patient`, to those that DICOM files have as
            well; `site`; `age`, binned above 89; `interval`, days since the patient's first date.
        why: in a few words.
        form: of dates, as of strptime.
    """

    treatment: Treatment
    why: str
    form: str = ""


def clean_table(source: Path, target: Path, policy: Policy) -> Report:
    """Write a clean CSV of a table (CSV, TSV, ARFF, Parquet, also .gz). Memory is bounded by a chunk of rows.

    A date becomes whole days since the earliest date of the same patient in this table, or of the row where no column
    names patients; a date of birth is left out. A cell that holds another identifier of its row (a name within a remark)
    is emptied. An age of 90 or more is written as 90.

    Raises:
        DataError: the table cannot be read, or nothing would be left of it.
        ConfigError: the policy names a column that is not there.
        StorageError: the target cannot be written.
    """
    table = open_table(source)
    plan = plan_table(table, policy)
    if all(column.treatment == "drop" for column in plan.values()):
        raise DataError(f"{source}: every column would be dropped; say in the policy which may stay (columns:)")
    patient = next((name for name, column in plan.items() if column.treatment == "patient"), None)
    dated = [name for name, column in plan.items() if column.treatment == "interval"]
    first = _first_dates(table, plan, patient, dated) if patient else {}
    kept = [name for name, column in plan.items() if column.treatment != "drop"]
    emptied: dict[str, int] = {}
    temporary = target.with_name(f".{target.name}.part")
    try:
        with temporary.open("w", encoding="utf-8", newline="") as file:
            file.write(_row(kept))
            for chunk in table.chunks():
                clean = _chunk(chunk, plan, policy, patient, first, emptied)
                clean[kept].to_csv(file, header=False, index=False, lineterminator="\n")
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    return _report(plan, emptied)


def plan_table(table: Table, policy: Policy) -> dict[str, Column]:
    """What becomes of each column. Raises ConfigError where the policy names one that is not there."""
    from wardround.data.profile.describe import describe
    from wardround.data.profile.draft import date_format

    unknown = [name for name in policy.rules.columns if name not in table.names]
    if unknown:
        raise ConfigError(
            f"the policy has columns.{unknown[0]}, and {table.path.name} has no such column: it has {', '.join(table.names)}"
        )
    described = describe(table)
    sample = next(iter(table.chunks(5000)))
    listed = described.tree["columns"]
    tree = {
        str(column["name"]): column
        for column in (listed if isinstance(listed, list) else [])
        if isinstance(column, dict)
    }
    plan = {}
    for name in table.names:
        kind = described.schema.columns[name].kind if name in described.schema.columns else "ignore"
        texts = [text.strip() for text in sample[name].dropna().astype(str) if text.strip().lower() not in _GAPS]
        column = _chosen(name, policy) or _guessed(name, kind, texts, str(tree.get(name, {}).get("why", "")), policy)
        if column.treatment == "interval":
            form = next((form for form in _DAYS if texts and all(_day(text, form) for text in texts)), None)
            form = form or date_format(texts) or ""
            column = Column(treatment="interval", why=column.why, form=form)
        plan[name] = column
    return plan


def _chosen(name: str, policy: Policy) -> Column | None:
    treatment = policy.rules.columns.get(name)
    return Column(treatment=treatment, why="the policy") if treatment else None


def _guessed(name: str, kind: str, texts: list[str], why: str, policy: Policy) -> Column:
    from wardround.data.profile import names

    announced = names.direct_identifier(name)
    words = frozenset(names.words(name))
    told: tuple[Treatment, str] = ("keep", kind)
    if kind == "patient" or (names.of_patient(name) == 2 and kind == "identifier") or announced == "record number":
        told = ("patient", "record number")
    elif announced:
        told = ("drop", announced)
    elif kind == "site":
        told = ("keep", "site") if policy.rules.sites == "keep" else ("site", "hospital")
    elif kind == "identifier":
        numbered = names.record(name) or names.key(name) or "number" in why
        told = ("map", "record number") if numbered else ("drop", why or "identifier")
    elif kind == "date" or _dates(texts):
        told = ("interval", "date")
    elif words & _AGE_NAMES and not names.dated(name):
        told = ("age", "age")
    elif kind == "ignore" and not _numbers(texts):
        told = ("drop", why or "not used")
    elif kind not in ("numeric", "label") and _prose(texts):
        told = ("drop", "free text")
    return Column(treatment=told[0], why=told[1])


def _dates(texts: list[str]) -> bool:
    return bool(texts) and any(all(_day(text, form) for text in texts[:200]) for form in _DAYS)


def _numbers(texts: list[str]) -> bool:
    try:
        return all(float(text) == float(text) for text in texts)  # not NaN
    except ValueError:
        return False


def _prose(texts: list[str]) -> bool:
    """Whether many values are sentences, and few come twice."""
    long = sum(len(text.split()) >= 4 for text in texts)
    return len(texts) > 0 and long > len(texts) / 4 and len(set(texts)) > max(20, len(texts) / 4)


def _day(text: str, form: str) -> date | None:
    try:
        return datetime.strptime(text[: 11 if "%b" in form else 8 if form == "%Y%m%d" else 10], form).date()
    except ValueError:
        return None


def _date_of(text: object, form: str) -> date | None:
    text = str(text or "").strip()
    if not form:
        try:
            return datetime.fromisoformat(text).date()
        except ValueError:
            return None
    try:
        return datetime.strptime(text, form).date()
    except ValueError:
        return _day(text, form)


def _first_dates(table: Table, plan: Mapping[str, Column], patient: str, dated: Iterable[str]) -> dict[str, date]:
    first: dict[str, date] = {}
    for chunk in table.chunks():
        owners = chunk[patient].fillna("").astype(str).str.strip()
        for name in dated:
            for owner, text in zip(owners, chunk[name], strict=True):
                day = _date_of(text, plan[name].form)
                if day is not None and (owner not in first or day < first[owner]):
                    first[owner] = day
    return first


def _chunk(
    chunk: pandas.DataFrame,
    plan: Mapping[str, Column],
    policy: Policy,
    patient: str | None,
    first: Mapping[str, date],
    emptied: dict[str, int],
) -> pandas.DataFrame:
    raw = {name: ["" if cell is None else str(cell).strip() for cell in chunk[name]] for name in plan}
    owners = raw[patient] if patient else None
    starts = [first.get(owner) for owner in owners] if owners else _row_starts(raw, plan)
    named = [
        name
        for name, column in plan.items()
        if column.treatment in ("drop", "map", "patient") and column.why != "free text"
    ]
    clean = {}
    for name, column in plan.items():
        cells = raw[name]
        match column.treatment:
            case "drop":
                continue
            case "map" | "patient" | "site":
                kind = column.treatment if column.treatment != "map" else re.sub(r"\W+", "_", name)
                table = policy.held.pseudonyms({cell for cell in cells if cell.lower() not in _GAPS}, kind)
                clean[name] = [table.get(cell, "") for cell in cells]
            case "age":
                clean[name] = [_binned(cell) for cell in cells]
            case "interval":
                clean[name] = [_interval(cell, column.form, start) for cell, start in zip(cells, starts, strict=True)]
            case "keep":
                clean[name] = _without_names(name, cells, [raw[other] for other in named], emptied)
    return chunk.iloc[:, :0].assign(**clean) if clean else chunk


def _row_starts(raw: Mapping[str, list[str]], plan: Mapping[str, Column]) -> list[date | None]:
    dated = [
        [_date_of(cell, column.form) for cell in raw[name]]
        for name, column in plan.items()
        if column.treatment == "interval"
    ]
    rows = len(next(iter(raw.values())))
    return (
        [min((day for day in row if day is not None), default=None) for row in zip(*dated, strict=True)]
        if dated
        else [None] * rows
    )


def _interval(cell: str, form: str, start: date | None) -> str:
    day = _date_of(cell, form)
    return str((day - start).days) if day is not None and start is not None else ""


def _binned(cell: str) -> str:
    """An age of at least 90 as 90; what holds no number, or a span above 89, as it may not stay, empty."""
    found = _AGE.fullmatch(cell)
    if found:
        return str(OLDEST) if int(found[1]) >= OLDEST else cell
    numbers = [int(number) for number in re.findall(r"\d+", cell)]
    # a span such as [80-90) stays, and so does one that is open above 89
    if numbers and min(numbers) >= OLDEST:
        return f"{OLDEST}+"
    return cell if not numbers or max(numbers) <= OLDEST else ""


def _without_names(name: str, cells: list[str], others: list[list[str]], emptied: dict[str, int]) -> list[str]:
    if not others:
        return cells
    clean = []
    for cell, *own in zip(cells, *others, strict=True):
        low = cell.lower()
        told = len(cell) >= SHORTEST and any(
            len(o) >= SHORTEST and o.lower() not in _GAPS and _word(o.lower(), low) for o in own
        )
        emptied[name] = emptied.get(name, 0) + told
        clean.append("" if told else cell)
    return clean


def _word(needle: str, text: str) -> bool:
    at = text.find(needle)
    while at != -1:
        before, after = text[at - 1 : at], text[at + len(needle) : at + len(needle) + 1]
        if not (before.isalnum() or after.isalnum()):
            return True
        at = text.find(needle, at + 1)
    return False


def _row(cells: Iterable[str]) -> str:
    import csv
    import io

    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()


def _report(plan: Mapping[str, Column], emptied: Mapping[str, int]) -> Report:
    verbs: dict[str, Literal["removed", "replaced", "shifted", "binned", "kept"]] = {
        "drop": "removed", "map": "replaced", "patient": "replaced", "site": "replaced", "age": "binned",
        "interval": "shifted", "keep": "kept",
    }  # fmt: skip
    actions = [Action(what=verbs[column.treatment], where=name, why=column.why) for name, column in plan.items()]
    actions += [
        Action(what="emptied", where=name, why=f"{count} cells held another identifier of the row")
        for name, count in emptied.items()
        if count
    ]
    kept = [
        name for name, column in plan.items() if column.treatment == "keep" and column.why not in ("numeric", "boolean")
    ]
    warnings = (f"kept as they are, look at their values: {', '.join(kept)}",) if kept else ()
    return Report(actions=tuple(actions), warnings=warnings)

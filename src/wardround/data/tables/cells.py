"""One cell's text to its value: a number, a level's index, a class, NaN for a gap."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from wardround.data.tables.schema import Boolean, Categorical, Kind, Label, Numeric, Ordinal, Schema
from wardround.data.tables.text import number
from wardround.errors import DataError

Reader = Callable[[str], float]

_LISTED = 20


def cell_reader(spec: Kind, schema: Schema) -> Reader:
    """A function from a cell's text to its value; it raises DataError that says what was expected.

    Levels and classes are compared as text and then as numbers, so that '3' and '3.0' are the same code; what is
    declared as a level is no gap, whatever `missing` says. Numeric columns give finite numbers, ordinal ones the rank of
    a level from 0, boolean ones 0 or 1, a label the index of its class. Dates are read by `encode`.
    """
    gap = gap_finder((*schema.missing, *spec.missing))
    match spec:
        case Categorical():
            levels = spec.all_levels
            other = float(levels.index("other")) if spec.unseen == "other" else math.nan
            read = _code_reader(dict(zip(levels, range(len(levels)), strict=True)), gap, "codes")
            return _recoded(spec, read if spec.unseen == "error" else _lenient(read, other))
        case Ordinal():
            read = _code_reader(dict(zip(spec.levels, range(len(spec.levels)), strict=True)), gap, "levels")
            return _recoded(spec, read if spec.unseen == "error" else _lenient(read, math.nan))
        case Boolean():
            known = {**{code.lower(): 0 for code in spec.negative}, **{code.lower(): 1 for code in spec.positive}}
            read = _code_reader(known, gap, "codes")
            return _recoded(spec, lambda text: read(text.lower()))
        case Label():
            return _recoded(spec, _label_reader(spec, gap, schema.file.decimal))
    unit = spec.unit if isinstance(spec, Numeric) else None
    return _recoded(spec, _number_reader(gap, schema.file.decimal, unit or ""))


def gap_finder(codes: Iterable[str]) -> Callable[[str], bool]:
    """Whether a text is one of the codes, in any case of letters or as a number."""
    codes = [code.strip().lower() for code in codes]
    texts = frozenset(codes)
    numbers = frozenset(value for value in map(number, codes) if math.isfinite(value))
    return lambda text: text.lower() in texts or (bool(numbers) and number(text) in numbers)


def _recoded(spec: Kind, read: Reader) -> Reader:
    table = {before.strip(): after for before, after in spec.recode.items()}
    if not table:
        return lambda text: read(text.strip())
    return lambda text: read(table.get(text.strip(), text.strip()))


def _number_reader(gap: Callable[[str], bool], decimal: str, unit: str = "") -> Reader:
    def read(text: str) -> float:
        if unit:
            text = text.removesuffix(unit).rstrip()
        # with a decimal comma a point would be anybody's guess
        plain = text if decimal == "." else "" if "." in text else text.replace(",", ".")
        if gap(text) or (plain and gap(plain)):
            return math.nan
        value = number(plain)
        if not math.isfinite(value):
            mark = "point" if decimal == "." else "comma"
            raise DataError(f"{text!r} is not a finite number: write a number with a decimal {mark}, or leave it empty")
        return value

    return read


def _code_reader(known: dict[str, int], gap: Callable[[str], bool], noun: str) -> Reader:
    by_text = {code: float(index) for code, index in known.items()}
    by_number = {number(code): index for code, index in by_text.items() if math.isfinite(number(code))}

    def read(text: str) -> float:
        if text in by_text:
            return by_text[text]
        if gap(text):
            return math.nan
        value = by_number.get(number(text)) if by_number else None
        if value is None:
            raise DataError(f"{text!r} is not one of the {noun} {_listed(known)}; leave it empty if unknown")
        return value

    return read


def _lenient(read: Reader, instead: float) -> Reader:
    def lenient(text: str) -> float:
        try:
            return read(text)
        except DataError:
            return instead

    return lenient


def _label_reader(spec: Label, gap: Callable[[str], bool], decimal: str) -> Reader:
    names = spec.names
    if spec.classes is not None:
        values = {value: names.index(name) for name, own in spec.classes.items() for value in own}
        return _code_reader(values, gap, "values")
    measure = _number_reader(gap, decimal)
    cut = spec.cut
    second = names.index(cut.classes[1]) if cut else 1

    def read(text: str) -> float:
        value = measure(text)
        if math.isnan(value) or cut is None:
            return value
        above = value > cut.above if cut.above is not None else cut.at_least is not None and value >= cut.at_least
        return float(second if above else 1 - second)

    return read


def _listed(known: Iterable[str]) -> str:
    known = list(known)
    shown = ", ".join(known[:_LISTED])
    return f"{shown}, ... ({len(known)} in all)" if len(known) > _LISTED else shown

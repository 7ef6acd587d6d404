"""Where each quantity of a contribution lies in the vector of digits, and how it is coded there.

A layout says nothing of any patient or site: it follows from the names, shapes and dtypes of the terms, so every site of a
sum finds the same one, and `digest` lets them say so in 32 bytes.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass
from itertools import groupby
from typing import Any, Literal, get_args

import torch

from wardround.encoding.field import Field
from wardround.encoding.wide import limbs
from wardround.errors import MessageError
from wardround.types import Contribution, Json

Coding = Literal["scaled", "fine", "wide", "count"]
Part = Literal["values", "measure"]

WEIGHT = ".weight"
"""Name of a term's sum of fractions, as `wardround.aggregation.weighting.WEIGHT` has it. No parameter begins with a dot."""
EXPONENT = ".exponent/"
"""Prefix of the histogram of exponents that belongs to a scaled array."""
CODEC, CLIPPED = ".codec", ".clipped"
"""Term and name of the number of entries that were clipped."""
FINE = 2
"""Digits of an element that is coded finely."""
RANGED = ("scaled", "fine")
"""Codings within a bound that is announced."""
BINS = 64
"""Bins of a histogram of exponents."""
MOST_DIGITS = 2**32
"""A longer layout is refused: it would not fit any machine that reads it."""

_MOST_ENTRIES = 2**20
_FLOATS = ("float16", "bfloat16", "float32", "float64")
_COUNTS = "int64"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One quantity.

    Attributes:
        term, name: whose it is.
        shape: of one site's array.
        dtype: of the decoded sum: the array's own, or float64 for integers.
        coding: `scaled` (one digit an element), `fine` (two), `wide` (128 bits an element) or `count` (a one-hot histogram).
        start: its first digit.
        digits: how many it takes.
    """

    term: str
    name: str
    shape: tuple[int, ...]
    dtype: str
    coding: Coding
    start: int
    digits: int

    @property
    def flat(self) -> str:
        """`term/name`."""
        return f"{self.term}/{self.name}"

    @property
    def size(self) -> int:
        """Elements."""
        return math.prod(self.shape)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A vector of digits.

    Attributes:
        entries: side by side, in order, without gaps.
        size: digits in all.
        part: `values`; or `measure`, histograms of exponents alone.
        rotated: whether scaled arrays are rotated before they are coded.
    """

    entries: tuple[Entry, ...]
    size: int
    part: Part
    rotated: bool

    def to_json(self) -> Json:
        """As JSON, each entry a list of its fields."""
        entries = [[list(field) if isinstance(field, tuple) else field for field in astuple(e)] for e in self.entries]
        return {"entries": entries, "size": self.size, "part": self.part, "rotated": self.rotated}

    @classmethod
    def from_json(cls, given: Json) -> Layout:
        """The layout that `to_json` wrote.

        Raises:
            MessageError: it is not one that `layout_of` makes; what is wrong is named.
        """
        if not isinstance(given, dict) or given.keys() != {"entries", "size", "part", "rotated"}:
            raise MessageError(f"a layout is {_short(given)}, expected an object with entries, size, part and rotated")
        part, rotated, entries = given["part"], given["rotated"], given["entries"]
        if part not in get_args(Part) or not isinstance(rotated, bool):
            raise MessageError(
                f"a layout of part {_short(part)}, rotated {_short(rotated)}: expected values or measure"
            )
        if not isinstance(entries, list) or len(entries) > _MOST_ENTRIES:
            raise MessageError(f"a layout's entries are not a list of at most {_MOST_ENTRIES}")
        found = tuple(_entry(one) for one in entries)
        widths = {entry.digits // entry.size for entry in found if entry.coding == "wide" and entry.size}
        rebuilt = _assembled(_quantities(found), widths.pop() if widths else 1, part, rotated)
        if len(rebuilt.entries) != len(found):
            raise MessageError(f"a layout has {len(found)} entries, and those of its terms are {len(rebuilt.entries)}")
        for entry, expected in zip(found, rebuilt.entries, strict=True):
            if entry != expected:
                raise MessageError(
                    f"a layout's entry is {_short(astuple(entry))}, expected {_short(astuple(expected))}"
                )
        if type(given["size"]) is not int or given["size"] != rebuilt.size:
            raise MessageError(
                f"a layout's size is {_short(given['size'])}, and its entries have {rebuilt.size} digits"
            )
        return rebuilt

    def digest(self) -> str:
        """SHA-256 of the canonical JSON, hexadecimal."""
        return digest_of(self.to_json())


def digest_of(described: Json) -> str:
    """The digest of a layout as JSON, which need not be valid: what has that of a valid one is the same."""
    text = json.dumps(described, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def layout_of(contribution: Contribution, field: Field, *, part: Part, rotated: bool = False) -> Layout:
    """The layout of a contribution: weights and arrays in the order of its terms, then exponents, then the count of clipped.

    Args:
        contribution: of any number of sites.
        field: its bits choose the limbs of wide entries.
        part: `values`, or `measure` for the exponents alone.
        rotated: whether scaled arrays are rotated.

    Raises:
        MessageError: an array of complex numbers, a name that a layout cannot hold, or more than `MOST_DIGITS` digits.
    """
    quantities = []
    for term, content in contribution.terms.items():
        if term == CODEC or WEIGHT in content.arrays:
            raise MessageError(
                f"term {_short(term)}: the names '{CODEC}' and '{WEIGHT}' are the layout's own, rename it"
            )
        quantities.append(_Quantity(term=term, name=WEIGHT, shape=(), dtype="float64", coding="wide"))
        for name, value in content.arrays.items():
            dtype = _dtype_of(value, f"{term}/{name}")
            shape = tuple(value.shape[1:])
            coding: Coding = "wide" if content.exact else "fine" if content.accumulates else "scaled"
            quantities.append(_Quantity(term=term, name=name, shape=shape, dtype=dtype, coding=coding))
    for quantity in quantities:
        _check_name(quantity.term, quantity.name)
    return _assembled(quantities, limbs(field.bits), part, rotated)


@dataclass(frozen=True, kw_only=True)
class _Quantity:
    term: str
    name: str
    shape: tuple[int, ...]
    dtype: str
    coding: Coding


def _assembled(quantities: Iterable[_Quantity], width: int, part: Part, rotated: bool) -> Layout:
    entries: list[Entry] = []
    start = 0
    for term, name, shape, dtype, coding in _kinds(list(quantities), part):
        digits = math.prod(shape) * {"wide": width, "fine": FINE}.get(coding, 1)
        entries.append(Entry(term=term, name=name, shape=shape, dtype=dtype, coding=coding, start=start, digits=digits))
        start += digits
    if start > MOST_DIGITS:
        raise MessageError(f"a layout has {start} digits, expected at most {MOST_DIGITS}")
    return Layout(entries=tuple(entries), size=start, part=part, rotated=rotated)


def _kinds(quantities: list[_Quantity], part: Part) -> Iterator[tuple[str, str, tuple[int, ...], str, Coding]]:
    scaled = [one for one in quantities if one.coding in RANGED]
    if part == "values":
        for one in quantities:
            yield one.term, one.name, one.shape, one.dtype, one.coding
    for one in scaled:
        yield one.term, EXPONENT + one.name, (BINS,), _COUNTS, "count"
    if part == "values" and scaled:
        yield CODEC, CLIPPED, (), "float64", "wide"


def _quantities(entries: tuple[Entry, ...]) -> list[_Quantity]:
    """What a layout's entries were made from; an exponent's array is only known by name where the part is `measure`."""
    kept = [entry for entry in entries if entry.coding != "count" and entry.term != CODEC]
    if not kept:
        owners = [(entry.term, entry.name.removeprefix(EXPONENT)) for entry in entries if entry.coding == "count"]
        return [_Quantity(term=term, name=name, shape=(), dtype="float32", coding="scaled") for term, name in owners]
    seen: set[str] = set()
    for term, group in groupby(kept, key=lambda entry: entry.term):
        members = list(group)
        codings = {entry.coding for entry in members[1:]}
        names = {entry.name for entry in members}
        first = members[0]
        if term in seen or len(names) < len(members) or len(codings) > 1:
            raise MessageError(
                f"a layout names the term {term!r}, or one of its arrays, twice, or codes it in two ways"
            )
        if (first.name, first.shape, first.dtype, first.coding) != (WEIGHT, (), "float64", "wide"):
            raise MessageError(f"a layout's term {term!r} does not begin with its weight")
        seen.add(term)
    return [_Quantity(term=e.term, name=e.name, shape=e.shape, dtype=e.dtype, coding=e.coding) for e in kept]


def _entry(given: Json) -> Entry:
    """One entry, its fields of the right types and within bounds."""
    if not isinstance(given, list) or len(given) != 7:
        raise MessageError(f"a layout's entry is {_short(given)}, expected a list of 7 fields")
    term, name, shape, dtype, coding, start, digits = given
    if not isinstance(term, str) or not isinstance(name, str) or not isinstance(dtype, str):
        raise MessageError(f"a layout's entry is {_short(given)}: its term, name and dtype must be texts")
    _check_name(term, name.removeprefix(EXPONENT))
    sizes = (start, digits, *shape) if isinstance(shape, list) and len(shape) <= 32 else (-1,)
    if any(type(size) is not int or not 0 <= size <= MOST_DIGITS for size in sizes):
        raise MessageError(f"a layout's entry is {_short(given)}: its sizes must be numbers from 0 to {MOST_DIGITS}")
    if not isinstance(coding, str) or coding not in get_args(Coding):
        raise MessageError(f"a layout's entry is coded as {_short(coding)}, expected one of {list(get_args(Coding))}")
    if dtype not in ((_COUNTS,) if coding == "count" else _FLOATS):
        raise MessageError(
            f"a layout's entry {_short(name)} has dtype {_short(dtype)}, expected one of {list(_FLOATS)}"
        )
    kind: Any = coding
    entry = Entry(term=term, name=name, shape=tuple(shape), dtype=dtype, coding=kind, start=start, digits=digits)
    if coding == "wide" and entry.digits not in (entry.size * 8, entry.size * 16):
        raise MessageError(f"a layout's wide entry {_short(name)} has {digits} digits for {entry.size} elements")
    return entry


def _check_name(term: str, name: str) -> None:
    if not 0 < len(term) <= 200 or "/" in term or not 0 < len(name) <= 1000 or name.startswith(EXPONENT):
        raise MessageError(f"a layout cannot hold {_short(name)} of term {_short(term)}: rename it")


def _dtype_of(value: torch.Tensor, flat: str) -> str:
    if value.is_complex():
        raise MessageError(f"array '{flat}' holds complex numbers, expected real ones")
    return str(value.dtype).removeprefix("torch.") if value.is_floating_point() else "float64"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 120 else text[:117] + "..."

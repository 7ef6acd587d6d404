"""The Basic Application Level Confidentiality Profile as a table: PS3.15 Annex E, Table E.1-1, edition 2024b.

`basic_profile.csv` has a line for each attribute of the standard's table, with its action codes: X remove, Z empty, D a
dummy, U a consistent new UID, and K keep or C clean under an option. Where the standard leaves a choice (X/Z/D), the last
one is taken, which leaves a file that other software still opens.

What the table does not name is kept only if it cannot hold text of a person's choosing: free text, names of persons,
dates, unknown attributes and binary data without a known meaning are removed as well.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from wardround.data.imaging.deid.policy import Rules

if TYPE_CHECKING:
    from pydicom.dataelem import DataElement

EDITION = "2024b"

_FREE = frozenset({"LT", "ST", "UT", "UC", "UR", "PN", "UN"})
_BINARY = frozenset({"OB", "OW", "OF", "OD", "OL", "OV"})
_WHEN = frozenset({"DA", "DT", "TM"})
_KNOWN_BINARY = frozenset(
    {
        "PixelData",
        "FloatPixelData",
        "DoubleFloatPixelData",
        "LUTData",
        "RedPaletteColorLookupTableData",
        "GreenPaletteColorLookupTableData",
        "BluePaletteColorLookupTableData",
        "AlphaPaletteColorLookupTableData",
        "SegmentedRedPaletteColorLookupTableData",
        "SegmentedGreenPaletteColorLookupTableData",
        "SegmentedBluePaletteColorLookupTableData",
        "SegmentedAlphaPaletteColorLookupTableData",
        "PixelPaddingValue",
        "SmallestImagePixelValue",
        "LargestImagePixelValue",
        "RedPaletteColorLookupTableDescriptor",
        "GreenPaletteColorLookupTableDescriptor",
        "BluePaletteColorLookupTableDescriptor",
        "LUTDescriptor",
        "VectorGridData",
        "PointCoordinatesData",
    }
)


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line of the standard's table.

    Attributes:
        keyword: of the attribute.
        basic: the action of the profile itself: X, Z, D, U or a choice.
        modified_dates: C where the option keeps a shifted date.
        device: K where the option keeps it.
        patient: K where the option keeps it.
    """

    keyword: str
    basic: str
    modified_dates: str
    device: str
    patient: str


@cache
def table() -> dict[int, Line]:
    """Tag -> its line; the repeating groups 50xx and 60xx, which are removed whole, are not among them."""
    text = files(__package__).joinpath("basic_profile.csv").read_text(encoding="ascii")
    return {
        int(row["tag"], 16): Line(**{key: value for key, value in row.items() if key != "tag"})
        for row in csv.DictReader(text.splitlines())
        if "x" not in row["tag"]
    }


@dataclass(frozen=True, kw_only=True)
class Ruling:
    """What becomes of one element.

    Attributes:
        code: X, Z, D, U, `shift`, `keep`, or `walk` for a sequence whose items are looked at.
        why: for the report.
    """

    code: str
    why: str


def rule(element: DataElement, rules: Rules) -> Ruling:
    """What the profile and its options say of one element."""
    tag = element.tag
    if tag.is_private:
        return Ruling(code="X", why="private")
    if 0x5000 <= tag.group <= 0x50FF:
        return Ruling(code="X", why="curve")
    if 0x6000 <= tag.group <= 0x60FF:
        return Ruling(code="X", why="overlay")
    line = table().get(tag)
    return _listed(element, line, rules) if line else _unlisted(element, rules)


def _listed(element: DataElement, line: Line, rules: Rules) -> Ruling:
    if rules.patient and line.patient == "K":
        return Ruling(code="keep", why="option patient")
    if rules.device and line.device == "K":
        return Ruling(code="U" if element.VR == "UI" else "walk" if element.VR == "SQ" else "keep", why="option device")
    if rules.dates == "shift" and line.modified_dates == "C" and element.VR in _WHEN:
        return Ruling(code="keep" if element.VR == "TM" else "shift", why="option dates")
    code = line.basic.rsplit("/", 1)[-1]
    if code == "U" and element.VR == "SQ":
        return Ruling(code="walk", why=line.basic)
    return Ruling(code=code, why=line.basic)


def _unlisted(element: DataElement, rules: Rules) -> Ruling:
    from pydicom.datadict import dictionary_has_tag

    if not dictionary_has_tag(element.tag) and element.tag.element != 0:
        return Ruling(code="X", why="unknown attribute")
    kept = Ruling(code="keep", why="not named")
    if element.VR in _WHEN:
        shifted = "keep" if element.VR == "TM" else "shift"
        return Ruling(code=shifted if rules.dates == "shift" else "X", why="date")
    if element.VR in _BINARY:
        return kept if element.keyword in _KNOWN_BINARY else Ruling(code="X", why="binary")
    by_type = {"SQ": Ruling(code="walk", why="sequence"), "UI": Ruling(code="U", why="UID")}
    by_type |= dict.fromkeys(_FREE, Ruling(code="X", why="free text"))
    return by_type.get(element.VR, kept)

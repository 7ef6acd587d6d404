"""One DICOM data set made clean: its attributes by the profile, its pixels by what is found in them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import TYPE_CHECKING

from wardround.data.imaging.deid import burned_in, pixels
from wardround.data.imaging.deid.identifiers import finder, harvest
from wardround.data.imaging.deid.policy import Policy
from wardround.data.imaging.deid.profile import EDITION, rule
from wardround.data.imaging.deid.report import Action, Report, Verb
from wardround.errors import DataError, Refused, missing_extra

if TYPE_CHECKING:
    from pydicom.dataelem import DataElement
    from pydicom.dataset import Dataset

_NUMERIC = frozenset({"US", "SS", "UL", "SL", "UV", "SV", "FL", "FD", "AT"})
_DATES = re.compile(r"(\d{4})\.?(\d{2})\.?(\d{2})(.*)", re.DOTALL)
_DUMMIES = {
    "AE": "REMOVED", "AS": "000Y", "CS": "REMOVED", "DA": "19000101", "DS": "0", "DT": "19000101000000", "IS": "0",
    "LO": "REMOVED", "LT": "REMOVED", "PN": "REMOVED", "SH": "REMOVED", "ST": "REMOVED", "TM": "000000", "UC": "REMOVED",
    "UR": "", "UT": "REMOVED", "OB": b"\0\0", "UN": b"",
}  # fmt: skip
_OLDEST = 90


def clean(dataset: Dataset, policy: Policy, *, look: bool = True) -> tuple[Dataset, Report]:
    """A copy of a DICOM data set without what identifies, as far as rules and detectors find it.

    The copy has uncompressed pixels (Explicit VR Little Endian), a new file meta group and an empty preamble; the
    patient's ID and name are a pseudonym. A head is not defaced here: that takes the whole volume (`face`).

    Args:
        dataset: as read by pydicom, with its file meta; it is not changed.
        policy: rules and secrets.
        look: whether pixels are read, and annotation in them looked for. Without it the copy has no pixel data: for a
            caller that passes decoded pixels to `clean_picture`.

    Returns:
        the copy, and what was done to it.

    Raises:
        DataError: pixels cannot be decoded, or an element cannot be read.
        Refused: text in the pixels, where the policy refuses it or it cannot be blanked; or a document rather than an
            image.
        ConfigError: pydicom is not installed.
    """
    try:
        from pydicom.dataset import Dataset as New
    except ImportError as error:
        raise missing_extra("pydicom", "imaging") from error

    if "EncapsulatedDocument" in dataset:
        raise Refused("an encapsulated document, such as a PDF: nothing here reads it, so nothing can vouch for it")
    patient = str(dataset.get("PatientID") or "") or str(dataset.get("PatientName") or "") or "unknown"
    try:
        walk = _Walk(
            policy=policy,
            shift=policy.held.shift(patient),
            words=finder(harvest(dataset, device=not policy.rules.device)),
        )
        copy = New()
        walk.into(copy, dataset, "")
    except (ValueError, TypeError, NotImplementedError, AttributeError, KeyError) as error:
        raise DataError(f"an element cannot be read: {error}") from error
    report = Report(actions=tuple(walk.actions))
    if patient != "unknown":
        copy.PatientID = copy.PatientName = policy.held.pseudonym(patient)
        report += Report(actions=(Action(what="replaced", where="PatientID", why="pseudonym"),))
    if look:
        report += _pixels(copy, dataset, policy)
    _declare(copy, policy)
    _meta(copy, dataset, policy)
    return copy, report


def _pixels(copy: Dataset, dataset: Dataset, policy: Policy) -> Report:
    if "PixelData" not in dataset:
        return Report()
    frames = pixels.read(dataset)
    found = Report()
    if policy.rules.burned_in != "keep":
        boxes, warnings = burned_in.find_in(dataset, frames)
        if boxes and policy.rules.burned_in == "refuse":
            raise Refused(
                f"text-like areas in the pixels ({len(boxes)}), and the policy says burned_in: refuse. Blank them "
                "(burned_in: blank), or leave the file out"
            )
        blanked = burned_in.blank(frames, boxes, burned_in.background(dataset))
        found = Report(
            actions=tuple(Action(what="blanked", where="PixelData", why=box.why) for box in boxes),
            warnings=warnings,
            boxes=tuple(box.corners for box in boxes),
        )
        frames = blanked
    pixels.write(copy, dataset, frames)
    return found


@dataclass(kw_only=True)
class _Walk:
    policy: Policy
    shift: int
    words: re.Pattern[str] | None
    actions: list[Action] = field(default_factory=list)

    def note(self, what: Verb, where: str, why: str) -> None:
        self.actions.append(Action(what=what, where=where, why=why))

    def into(self, copy: Dataset, dataset: Dataset, above: str) -> None:
        for element in dataset:
            if element.tag.group == 0x0002 or element.keyword in pixels.KEYWORDS:
                continue
            self._element(copy, element, above)

    def _element(self, copy: Dataset, element: DataElement, above: str) -> None:
        where = above + (element.keyword or ("private" if element.tag.is_private else str(element.tag)))
        ruling = rule(element, self.policy.rules)
        match ruling.code:
            case "X":
                self.note("removed", where, ruling.why)
            case "Z" if element.is_empty:
                copy.add_new(element.tag, element.VR, [] if element.VR == "SQ" else None)
            case "Z":
                self.note("emptied", where, ruling.why)
                copy.add_new(element.tag, element.VR, [] if element.VR == "SQ" else None)
            case "D":
                self.note("replaced", where, ruling.why)
                empty: object = [] if element.VR == "SQ" else _DUMMIES.get(element.VR, 0)
                copy.add_new(element.tag, element.VR, empty)
            case "U":
                self._uids(copy, element, where)
            case "shift":
                self._date(copy, element, where)
            case "walk":
                self._sequence(copy, element, where)
            case _:
                self._keep(copy, element, where)

    def _sequence(self, copy: Dataset, element: DataElement, where: str) -> None:
        from pydicom.dataset import Dataset as New

        items = []
        for item in element.value or ():
            new = New()
            self.into(new, item, f"{where}/")
            items.append(new)
        copy.add_new(element.tag, "SQ", items)

    def _uids(self, copy: Dataset, element: DataElement, where: str) -> None:
        from pydicom.uid import UID

        values = [str(value) for value in ([] if element.is_empty else _many(element.value))]
        new = [value if _standard(UID(value)) else self.policy.held.uid(value) for value in values if value]
        if new != values:
            self.note("remapped", where, "UID")
        copy.add_new(element.tag, "UI", new if len(new) != 1 else new[0])

    def _date(self, copy: Dataset, element: DataElement, where: str) -> None:
        moved = []
        for value in [] if element.is_empty else _many(element.value):
            new = _moved(str(value), self.shift)
            if new is None:
                self.note("removed", where, "not a date")
                return
            moved.append(new)
        if moved:
            self.note("shifted", where, "option dates")
        copy.add_new(element.tag, element.VR, moved if len(moved) != 1 else moved[0])

    def _keep(self, copy: Dataset, element: DataElement, where: str) -> None:
        if element.keyword == "PatientAge" and _age(str(element.value or "")) > _OLDEST - 1:
            self.note("binned", where, f"over {_OLDEST - 1}")
            copy.add_new(element.tag, "AS", f"{_OLDEST:03d}Y")
            return
        texts = () if element.VR in _NUMERIC or isinstance(element.value, bytes) else _many(element.value)
        if self.words and any(self.words.search(str(text)) for text in texts):
            self.note("removed", where, "names an identifier")
            return
        copy.add_new(element.tag, element.VR, element.value)


def _many(value: object) -> list[object]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) or type(value).__name__ == "MultiValue" else [value]  # type: ignore[call-overload]


def _standard(uid: str) -> bool:
    """Whether the standard itself assigned it: it names a kind of thing, not a thing."""
    from pydicom._uid_dict import UID_dictionary

    return uid in UID_dictionary


def _moved(text: str, days: int) -> str | None:
    """A date or date and time some days later; None where it is none, or before the year 1."""
    found = _DATES.fullmatch(text.strip())
    if not found:
        return None
    year, month, day, rest = found.groups()
    try:
        return (date(int(year), int(month), int(day)) + timedelta(days=days)).strftime("%Y%m%d").zfill(8) + rest
    except (ValueError, OverflowError):
        return None


def _age(text: str) -> int:
    """Whole years of an age string (`093Y`), 0 for months, weeks, days, and what is none."""
    digits = text.strip().upper().removesuffix("Y")
    return int(digits) if digits.isdigit() else 0


def _declare(copy: Dataset, policy: Policy) -> None:
    """What PS3.15 E.1.1 asks a de-identifier to write; codes of PS3.16 CID 7050."""
    from pydicom.dataset import Dataset as New

    rules = policy.rules
    methods = [("113100", "Basic Application Confidentiality Profile")]
    if rules.burned_in == "blank":
        methods.append(("113101", "Clean Pixel Data Option"))
    if rules.patient:
        methods.append(("113108", "Retain Patient Characteristics Option"))
    if rules.device:
        methods.append(("113109", "Retain Device Identity Option"))
    if rules.dates == "shift":
        methods.append(("113107", "Retain Longitudinal Temporal Information Modified Dates Option"))
    codes = []
    for value, meaning in methods:
        item = New()
        item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "DCM", meaning
        codes.append(item)
    copy.PatientIdentityRemoved = "YES"
    copy.DeidentificationMethod = f"wardround, PS3.15 Annex E {EDITION}"
    copy.DeidentificationMethodCodeSequence = codes
    copy.LongitudinalTemporalInformationModified = "MODIFIED" if rules.dates == "shift" else "REMOVED"


def _meta(copy: Dataset, dataset: Dataset, policy: Policy) -> None:
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import UID, ExplicitVRLittleEndian, SecondaryCaptureImageStorage

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    kind, instance = copy.get("SOPClassUID"), copy.get("SOPInstanceUID")
    old = getattr(dataset, "file_meta", None)
    if kind is None and old is not None:
        kind = old.get("MediaStorageSOPClassUID")
    meta.MediaStorageSOPClassUID = UID(str(kind or SecondaryCaptureImageStorage))
    meta.MediaStorageSOPInstanceUID = UID(str(instance or policy.held.uid("none")))
    copy.file_meta = meta
    copy.preamble = b"\0" * 128

"""Which values of a file name a person or a place: what must not be found anywhere afterwards."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_KEYWORDS = frozenset(
    {
        "AccessionNumber",
        "AdmissionID",
        "CountryOfResidence",
        "DeviceSerialNumber",
        "InstitutionAddress",
        "InstitutionCodeSequence",
        "InstitutionName",
        "InstitutionalDepartmentName",
        "InsurancePlanIdentification",
        "IssuerOfPatientID",
        "MedicalRecordLocator",
        "MilitaryRank",
        "OtherPatientIDs",
        "PatientAddress",
        "PatientBirthDate",
        "PatientID",
        "PatientTelephoneNumbers",
        "PersonTelephoneNumbers",
        "ReferringPhysicianAddress",
        "ReferringPhysicianTelephoneNumbers",
        "RegionOfResidence",
        "ServiceEpisodeID",
        "StationName",
    }
)
_DEVICE = frozenset({"DeviceSerialNumber", "StationName"})
SHORTEST = 4
"""Letters below which a value is not looked for: it would be found everywhere."""

_PARTS = re.compile(r"[\^=\s,;]+")


def harvest(dataset: Dataset, *, uids: bool = False, device: bool = True) -> frozenset[str]:
    """Values of at least 4 letters by which a data set names persons, places and records; of names also each part.

    Args:
        dataset: any; sequences and file meta are walked.
        device: also names and serial numbers of devices, where these are not kept.
        uids: also the UIDs of study, series, instance and frame of reference.
    """
    found: set[str] = set()
    for element in dataset.iterall():
        if element.VR == "PN":
            for text in _texts(element.value):
                found.update((text, *_PARTS.split(text)))
            continue
        named = element.keyword in _KEYWORDS and element.VR != "SQ" and (device or element.keyword not in _DEVICE)
        if named or (uids and element.VR == "UI" and element.keyword.endswith("InstanceUID")):
            found.update(_texts(element.value))
    return frozenset(text for text in map(str.strip, found) if _telling(text))


def _telling(text: str) -> bool:
    """Whether it is long enough to be looked for, and no filler such as 00000."""
    letters = re.sub(r"\W|_", "", text)
    return len(letters) >= SHORTEST and len(set(letters)) > 1


def _texts(value: object) -> Iterator[str]:
    values = value if isinstance(value, list | tuple) or type(value).__name__ == "MultiValue" else [value]
    if isinstance(values, Iterable):
        for one in values:
            if one is not None and str(one).strip():
                yield str(one).strip()


def finder(identifiers: Iterable[str]) -> re.Pattern[str] | None:
    """A pattern that matches any of them as a whole word, in any case of letters; None for none."""
    chosen = sorted({text for text in identifiers if len(text) >= SHORTEST}, key=len, reverse=True)
    if not chosen:
        return None
    return re.compile(r"(?<![^\W_])(?:" + "|".join(map(re.escape, chosen)) + r")(?![^\W_])", re.IGNORECASE)

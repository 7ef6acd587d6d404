"""ICD-9-CM codes to groups of diagnoses.

B. Strack et al.: Impact of HbA1c measurement on hospital readmission rates, BioMed Research International 2014, 781670,
table 2. A symptom code goes with the system that it points to: 785 circulatory, 786 respiratory, 787 digestive, 788
genitourinary.
"""

from __future__ import annotations

OTHER = "other"
_RANGES = {
    "circulatory": ((390, 459), (785, 785)),
    "respiratory": ((460, 519), (786, 786)),
    "digestive": ((520, 579), (787, 787)),
    "diabetes": ((250, 250),),
    "injury": ((800, 999),),
    "musculoskeletal": ((710, 739),),
    "genitourinary": ((580, 629), (788, 788)),
    "neoplasms": ((140, 239),),
}
GROUPS = (*_RANGES, OTHER)
"""Names of the groups, in the order of the table; V and E codes and what is in no range are `other`."""

_DIABETES = 250


def categories() -> dict[str, str]:
    """Each category of ICD-9-CM as text -> its group: 1 to 999 (`8` and `008`), V01 to V91, E000 to E999.

    Subcategories are listed where the file of that paper has them: those of diabetes (`250.83`, `250.8`), and 365.44.
    """
    found: dict[str, str] = {}
    for number in range(1, 1000):
        group = _group(number)
        found |= {f"{number}": group, f"{number:03}": group}
    found |= {f"{_DIABETES}.{tail}": "diabetes" for tail in (*map(str, range(10)), *(f"{n:02}" for n in range(100)))}
    found |= {f"V{number:02}": OTHER for number in range(1, 92)} | {f"V{number}": OTHER for number in range(1, 10)}
    found |= {f"E{number:03}": OTHER for number in range(1000)}
    return found | {"365.44": _group(365)}


def _group(number: int) -> str:
    for name, ranges in _RANGES.items():
        if any(first <= number <= last for first, last in ranges):
            return name
    return OTHER

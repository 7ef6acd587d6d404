"""What the name of a column says about what it holds, before a cell is read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|#")

_PERSON = _words("surname forename firstname lastname fullname maiden nachname vorname prenom apellido")
_WHOSE = _words("patient first last full family given middle mother father kin contact person user holder")
_DOCTOR = _words(
    "doctor physician surgeon clinician consultant radiologist pathologist operator nurse gp attending referrer "
    "practitioner anaesthetist anesthetist arzt medecin cardiologist oncologist dermatologist"
)
_PART_OF_DOCTOR = _words("specialty speciality type count grade fee visits number experience years decision")
_NATIONAL = _words("ssn nhs nino aadhaar passport cpr bsn ahv insee nss fiscal")
_RECORD = _words("mrn mpi accession barcode encounter admission hadm row icustay visit stay record case")
_KEY = _words("id ids no nr nbr num number key uid guid uuid identifier pid index ref reference serial")
_PATIENT = _words("patient patients subject person participant pid pnr proband")
_GROUP = _words("lesion eye specimen")
_SITE = _words("site sites hospital center centre centers institution clinic facility trust campus")
_DATE = _words("date datetime timestamp time dt dob dod datum admittime dischtime deathtime startdate enddate")
_COUNT = _words(
    "num number count counts n no times days years months weeks hours minutes age total sum nr # up duration "
    "dose width height length size rate score level ratio mean spacing time los"
)
_CODE = _words(
    "code codes icd icd9 icd10 type class category status kind group ndc gsn zip snomed atc cpt drg loinc source "
    "disposition stage"
)
_LABELS = MappingProxyType(
    {
        **dict.fromkeys(("label", "target"), 5),
        **dict.fromkeys(("class", "outcome", "y"), 4),
        **dict.fromkeys(("readmitted", "readmission", "mortality", "dx", "labels", "malignant"), 3),
        **dict.fromkeys(
            ("died", "dead", "death", "expire", "expired", "diagnosis", "event", "response", "survived"), 2
        ),
        **dict.fromkeys(("status", "disease", "result", "diseased", "relapse", "recurrence", "complication"), 1),
    }
)

_ZERO = _words(
    "chol cholesterol trestbps bp sbp dbp systolic diastolic map pressure glucose plas bmi weight height pulse hr "
    "thalach thalachh thalrest skin insulin temp temperature hemoglobin haemoglobin hb hgb hematocrit creatinine crea "
    "sodium potassium calcium platelets platelet albumin wbc rbc tsh t3 tt4 t4u fti spo2 respiration ldl hdl "
    "triglycerides urea bun heartrate"
)
_LIMITS: Mapping[str, tuple[float, float, str]] = MappingProxyType(
    {
        "age": (0.0, 120.0, "years"),
        "bmi": (5.0, 150.0, "kg/m²"),
        "spo2": (0.0, 100.0, "%"),
        "temperature": (20.0, 115.0, "°C or °F"),
        "systolic": (20.0, 350.0, "mmHg"),
        "sbp": (20.0, 350.0, "mmHg"),
        "trestbps": (20.0, 350.0, "mmHg"),
        "diastolic": (5.0, 250.0, "mmHg"),
        "dbp": (5.0, 250.0, "mmHg"),
        "hr": (5.0, 400.0, "a minute"),
        "pulse": (5.0, 400.0, "a minute"),
    }
)


def words(name: str) -> tuple[str, ...]:
    """The words of a name in lower case: `patientID` and `Patient ID` are `patient`, `id`."""
    return tuple(word.lower() for word in _WORD.findall(name))


def direct_identifier(name: str) -> str | None:
    """What identifier of a person the name announces (`personal name`, `telephone`), None for none."""
    parts = words(name)
    there = frozenset(parts)
    found = None
    if born(name):
        found = "date of birth"
    elif (there & _PERSON) or parts == ("name",) or ("name" in there and there & (_WHOSE | _DOCTOR)):
        found = "personal name"
    elif (there & _DOCTOR) and not there & _PART_OF_DOCTOR:
        found = "name of a doctor"
    elif "email" in there or parts in (("mail",), ("e", "mail")):
        found = "e-mail address"
    elif there & {"phone", "telephone", "tel", "mobile", "fax", "telefon"}:
        found = "telephone number"
    elif there & {"address", "street", "addr", "adresse", "strasse"}:
        found = "address"
    elif there & {"postcode", "zip", "zipcode", "postal", "plz"}:
        found = "postcode"
    elif ((there & _NATIONAL) or {"social", "security"} <= there) and not there & _DATE:
        found = "national number"
    elif there & {"mrn", "mpi"}:
        found = "record number"
    return found


def born(name: str) -> bool:
    """Whether the name announces a date of birth."""
    there = frozenset(words(name))
    return bool(there & {"dob", "birthdate", "birthday", "dateofbirth", "geburtsdatum"}) or (
        "birth" in there and not there & {"weight", "place", "order", "country", "type", "head", "length"}
    )


def key(name: str) -> bool:
    """Whether the name ends like that of a record number: `encounter_id`, `Case No`."""
    parts = words(name)
    return bool(parts) and (parts[-1] in _KEY or parts[0] in {"mrn", "uid"} or parts == ("image",))


def record(name: str) -> bool:
    """Whether the name is that of a record's own number: `row_id`, `hadm_id`, `encounter_id`."""
    parts = words(name)
    return key(name) and bool(frozenset(parts[:-1]) & _RECORD) and not frozenset(parts) & _CODE


def of_patient(name: str) -> int:
    """How surely the name is that of the patient's identifier: 0 for not at all, 2 for `patient_id`."""
    parts = words(name)
    if parts in (("patient",), ("patients",), ("subject",), ("pid",), ("pnr",), ("patientid",), ("subjectid",)):
        return 2
    if not key(name):
        return 0
    there = frozenset(parts)
    return 2 if there & _PATIENT else 1 if there & _GROUP else 0


def of_site(name: str) -> int:
    """How surely the name is that of the hospital: 0 for not at all, 3 for `site`."""
    parts = words(name)
    there = frozenset(parts)
    if not there & _SITE or there & {"code", "time", "days", "source", "stay", "in", "type"}:
        return 0
    return 3 if len(parts) == 1 else 2 if len(parts) == 2 else 1


def of_label(name: str) -> int:
    """How surely the name is that of the outcome: 0 for not at all, 5 for `label`."""
    parts = words(name)
    score = max((_LABELS.get(word, 0) for word in parts), default=0)
    if len(parts) > 1 and frozenset(parts) & (_DATE | _COUNT | _KEY | {"type", "location", "code"} | {"dod"}):
        return 0
    return score if len(parts) <= 2 or {"flag", "expire"} <= frozenset(parts) else max(score - 2, 0)


def event_and_time(names: tuple[str, ...]) -> tuple[str, str] | None:
    """The event and the time of a survival table (`E` and `T`, `event` and `time`), None where it is none."""
    lower = {name.lower(): name for name in names}
    for event in ("e", "event", "status", "dead", "died", "vital_status"):
        for time in ("t", "time", "duration", "os_time", "survival_time", "time_to_event", "futime", "days_to_event"):
            if event in lower and time in lower:
                return lower[event], lower[time]
    return None


def of_split(name: str) -> bool:
    """Whether the name is that of a division into training and test."""
    return bool(frozenset(words(name)) & {"fold", "folds", "split", "partition", "subset", "cv"})


def counts(name: str) -> bool:
    """Whether the name announces an amount: whole numbers below it are numbers, not codes."""
    return bool(frozenset(words(name)) & _COUNT)


def codes(name: str) -> bool:
    """Whether the name announces codes: numbers below it are names of categories."""
    parts = words(name)
    return bool(frozenset(parts) & _CODE) or (bool(parts) and parts[-1] == "id")


def dated(name: str) -> bool:
    """Whether the name announces a date."""
    return bool(frozenset(words(name)) & _DATE)


def zero_impossible(name: str) -> bool:
    """Whether the name is that of a quantity which no living patient has at 0."""
    there = frozenset(words(name)) | {name.lower()}
    return bool(there & _ZERO) and not there & {"measured", "change", "flag", "diff", "delta", "query", "binary"}


def limits(name: str) -> tuple[float, float, str] | None:
    """The smallest and largest value that a person can have, and their unit; None where the name does not tell."""
    parts = words(name)
    if frozenset(parts) & {"gestational", "onset", "group", "band", "change"}:
        return None
    return next((_LIMITS[word] for word in parts if word in _LIMITS), None)

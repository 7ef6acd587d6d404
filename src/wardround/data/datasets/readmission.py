"""Diabetes 130-US hospitals: is a diabetic inpatient back within 30 days of discharge?

B. Strack et al.: Impact of HbA1c measurement on hospital readmission rates: analysis of 70,000 clinical database patient
records, BioMed Research International 2014, 781670. J. Clore et al.: Diabetes 130-US hospitals for years 1999-2008, UCI
Machine Learning Repository, 2014, doi:10.24432/C5230J.

The file does not say which hospital a row is from. Sites are a column of it, by default the specialty of the admitting
physician.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wardround.data.datasets import icd9
from wardround.data.root import data_root
from wardround.data.tables.encode import Encoded, encode, open_as
from wardround.data.tables.schema import (
    OTHER,
    Boolean,
    Categorical,
    FileSpec,
    Kind,
    Label,
    Numeric,
    Ordinal,
    Patient,
    Schema,
    Site,
)
from wardround.data.tables.text import GAP_CODES
from wardround.errors import ConfigError, DataError
from wardround.types import Description, SiteData

_FILE = "diabetic_data.csv"
_LAYOUT = f"diabetes130/{_FILE}"
_SOURCE = "https://archive.ics.uci.edu/dataset/296/diabetes+130-us+hospitals+for+years+1999-2008"
_POOL, _UNKNOWN = "readmission", "unknown"

_DIED_OR_HOSPICE = ("11", "13", "14", "19", "20", "21")
_SITES = {  # column of the file -> what stands before its codes in the name of a site
    "medical_specialty": "",
    "admission_source_id": "source ",
    "admission_type_id": "type ",
    "discharge_disposition_id": "disposition ",
    "payer_code": "payer ",
    "race": "",
    "gender": "",
    "age": "age ",
}


def _grouped(groups: dict[str, str], unknown: str) -> Categorical:
    """Groups of numbered codes, each with its codes, and the codes that mean 'not known'."""
    recode = {code: group for group, codes in groups.items() for code in codes.split()}
    return Categorical(levels=tuple(groups), recode=recode, missing=tuple(unknown.split()))


def _plain(*levels: str, missing: tuple[str, ...] = ()) -> Categorical:
    return Categorical(levels=levels, missing=missing)


def _diagnosis() -> Categorical:
    return Categorical(levels=icd9.GROUPS, recode=icd9.categories())


def _bands(width: int, end: int, *more: str) -> Ordinal:
    return Ordinal(levels=(*(f"[{low}-{low + width})" for low in range(0, end, width)), *more))


_SURGERY = (
    "Surgeon SurgicalSpecialty Surgery-Cardiovascular Surgery-Cardiovascular/Thoracic Surgery-Colon&Rectal Surgery-General "
    "Surgery-Maxillofacial Surgery-Neuro Surgery-Pediatric Surgery-Plastic Surgery-PlasticwithinHeadandNeck "
    "Surgery-Thoracic Surgery-Vascular"
)
_SPECIALTIES = {
    "internal medicine": "InternalMedicine",
    "cardiology": "Cardiology Cardiology-Pediatric",
    "surgery": _SURGERY,
    "general practice": "Family/GeneralPractice",
}
_PAYERS = ("MC", "MD", "HM", "UN", "BC", "SP", "CP", "SI", "DM", "CM", "CH", "PO", "WC", "OT", "OG", "MP", "FR")
_MEDICINES = (
    "metformin", "repaglinide", "nateglinide", "chlorpropamide", "glimepiride", "acetohexamide", "glipizide", "glyburide",
    "tolbutamide", "pioglitazone", "rosiglitazone", "acarbose", "miglitol", "troglitazone", "tolazamide", "examide",
    "citoglipton", "insulin", "glyburide-metformin", "glipizide-metformin", "glimepiride-pioglitazone",
    "metformin-rosiglitazone", "metformin-pioglitazone",
)  # fmt: skip
_SPARSE: dict[str, Kind] = {
    "weight": _bands(25, 200, ">200"),
    "payer_code": _plain(*_PAYERS),
}
_ON_ADMISSION: dict[str, Kind] = {
    "race": _plain("Caucasian", "AfricanAmerican", "Hispanic", "Asian", "Other"),
    "gender": _plain("Female", "Male", missing=("Unknown/Invalid",)),
    "age": _bands(10, 100),
    "admission_type_id": _grouped(
        {"emergency": "1", "urgent": "2", "elective": "3", "newborn": "4", "trauma": "7"}, unknown="5 6 8"
    ),
    "admission_source_id": _grouped(
        {
            "emergency room": "7",
            "referral": "1 2 3",
            "transfer": "4 5 6 10 18 19 22 25 26",
            "birth or court": "8 11 12 13 14 23 24",
        },
        unknown="9 15 17 20 21",
    ),
    "medical_specialty": _grouped(_SPECIALTIES, unknown="").model_copy(update={"unseen": OTHER}),
    "number_outpatient": Numeric(),
    "number_emergency": Numeric(),
    "number_inpatient": Numeric(),
}
_LATER: dict[str, Kind] = {
    "discharge_disposition_id": _grouped(
        {
            "home": "1",
            "home with care": "6 8",
            "nursing or rehabilitation": "3 4 15 22 23 24",
            "another hospital": "2 5 9 10 27 28 29 30",
            "against advice": "7",
            "outpatient": "12 16 17",
        },
        unknown=" ".join(("18 25 26", *_DIED_OR_HOSPICE)),
    ),
    "time_in_hospital": Numeric(),
    "num_lab_procedures": Numeric(),
    "num_procedures": Numeric(),
    "num_medications": Numeric(),
    "number_diagnoses": Numeric(),
    "diag_1": _diagnosis(),
    "diag_2": _diagnosis(),
    "diag_3": _diagnosis(),
    "max_glu_serum": _plain("None", "Norm", ">200", ">300"),
    "A1Cresult": _plain("None", "Norm", ">7", ">8"),
    **{medicine: _plain("No", "Steady", "Up", "Down") for medicine in _MEDICINES},
    "change": Boolean(positive=("Ch",), negative=("No",)),
    "diabetesMed": Boolean(),
}
_LABEL = Label(classes={"not within 30 days": ("NO", ">30"), "readmitted": ("<30",)})
_FORM = FileSpec(header=True, delimiter=",")


@dataclass(frozen=True, kw_only=True)
class _Kept:
    """The encounters of a file that are kept.

    Attributes:
        sites: site -> its encounters.
        rows: how many rows the file has.
        file: its name.
    """

    sites: dict[str, SiteData]
    rows: int
    file: str


class Readmission:
    """Encounters of diabetic inpatients of 130 US hospitals; label 1 is a readmission within 30 days of discharge.

    Left out are encounters that ended in death or a hospice, after which nobody can be readmitted. Encounter and patient
    numbers are no features. A patient has one site, that of the first encounter kept.

    Args:
        site: the column of the file whose values are the sites: `medical_specialty`, `admission_source_id`,
            `admission_type_id`, `discharge_disposition_id`, `payer_code`, `race`, `gender` or `age`. It is no feature
            then; a gap is the site `unknown`. None gives one pool, to be dealt to simulated sites.
        min_rows: sites of fewer encounters join in the site `other`, and so do the next smallest ones until it has as
            many.
        encounters: `first`: each patient's first, which is the lowest encounter number (the cohort of Strack et al.);
            `all`.
        facts: `stay` keeps all that is known at discharge, `admission` only what is known on admission.
        sparse: keep weight and payer code, which most rows lack.
        file: the file's name in the folder `diabetes130`, or its whole path. None takes `diabetic_data.csv`, else the
            only `diabetic_data*.csv` there.

    Attributes:
        schema: how the file is read.

    Raises:
        ConfigError: an option has another value.
    """

    def __init__(
        self, *, site: str | None = "medical_specialty", min_rows: int = 100, encounters: str = "first",
        facts: str = "stay", sparse: bool = False, file: str | None = None,
    ) -> None:  # fmt: skip
        _one_of("site", site, (*_SITES, None))
        _one_of("encounters", encounters, ("first", "all"))
        _one_of("facts", facts, ("stay", "admission"))
        if not isinstance(sparse, bool):
            raise ConfigError(f"data.options.sparse = {sparse!r}: expected true or false")
        if not isinstance(min_rows, int) or isinstance(min_rows, bool) or min_rows < 1:
            raise ConfigError(f"data.options.min_rows = {min_rows!r}: expected a whole number of at least 1")
        if file is not None and not (isinstance(file, str) and file):
            raise ConfigError(f"data.options.file = {file!r}: expected the name of a file, or null")
        self.site = site
        self.min_rows = min_rows
        self.encounters = encounters
        self.file = file
        columns = (_SPARSE if sparse else {}) | _ON_ADMISSION | (_LATER if facts == "stay" else {})
        columns |= {"patient_nbr": Patient(), "readmitted": _LABEL}
        if site:
            columns[site] = Site(recode=dict.fromkeys(GAP_CODES, _UNKNOWN))
        self.schema = Schema(columns=columns, file=_FORM)

    def describe(self) -> Description:
        """The sites that the file has, and how many of its rows are kept. Reads the file, and raises as `load` does."""
        kept = self._kept
        count = sum(len(data.labels) for data in kept.sites.values())
        return Description(
            name="readmission",
            title=f"Diabetes 130-US hospitals, readmission within 30 days ({count:,} of {kept.rows:,} encounters in "
            f"{kept.file}" + (f"; sites by {self.site})" if self.site else ")"),
            source=_SOURCE,
            licence="CC BY 4.0",
            sites=tuple(kept.sites),
            columns=self.schema.features,
            classes=_LABEL.names,
            natural=self.site is not None,
            schema=self.schema.model_dump_json(),
        )

    def load(self, site: str) -> SiteData:
        """One site's encounters: features float64 [n, C], labels int64 [n] in {0, 1}, patients' numbers as text.

        Raises:
            DataError: the site is unknown, WARDROUND_DATA or the file is absent, or a line is malformed.
        """
        sites = self._kept.sites
        if site not in sites:
            raise DataError(f"site {site!r}: the dataset 'readmission' has {', '.join(sites)}")
        return sites[site]

    @cached_property
    def _kept(self) -> _Kept:
        path = self._path()
        rows = _whole(path, self.schema)
        # the same rows again: what a row may be kept by is no part of what a model is told
        facts = _whole(
            path,
            Schema(columns={"encounter_id": Patient(), "discharge_disposition_id": Site()}, missing=(), file=_FORM),
        )
        if rows.labels is None or rows.patients is None or facts.patients is None or facts.sites is None:
            raise DataError(f"{path} has no rows: fetch it again from {_SOURCE}")
        encounter = _numbers(path, "encounter_id", facts.patients)
        keep = ~np.isin(facts.sites, _DIED_OR_HOSPICE)
        if self.encounters == "first":
            keep &= _first(rows.patients, encounter)
        if not keep.any():
            raise DataError(f"{path}: none of its {len(keep)} encounters is kept: fetch it again from {_SOURCE}")
        patients = rows.patients[keep]
        sites = np.full(len(patients), _POOL)
        if self.site and rows.sites is not None:
            # a patient who comes back to another site would be trained on there and tested here
            first = _first(patients, encounter[keep])
            owner = dict(zip(patients[first].tolist(), rows.sites[keep][first].tolist(), strict=True))
            sites = _joined([self._named(owner[patient]) for patient in patients.tolist()], self.min_rows)
        return _Kept(
            sites={
                name: SiteData(
                    features=rows.features[keep][sites == name],
                    labels=rows.labels[keep][sites == name],
                    patients=patients[sites == name],
                )
                for name in sorted(set(sites.tolist()))
            },
            rows=len(keep),
            file=path.name,
        )

    def _named(self, code: str) -> str:
        return code if code == _UNKNOWN else f"{_SITES[self.site or '']}{code}"

    def _path(self) -> Path:
        if self.file is not None and Path(self.file).expanduser().is_absolute():
            return Path(self.file).expanduser()
        folder = data_root("readmission", layout=_LAYOUT, source=_SOURCE) / "diabetes130"
        if self.file is not None:
            return folder / self.file
        found = sorted(folder.glob("diabetic_data*.csv"))
        if folder / _FILE in found:
            return folder / _FILE
        if len(found) > 1:
            raise DataError(f"{folder} has {', '.join(path.name for path in found)}: choose one with data.options.file")
        if not found:
            raise DataError(f"there is no file {folder / _FILE}: the dataset 'readmission' expects it (from {_SOURCE})")
        return found[0]


def _one_of(name: str, value: object, expected: Sequence[str | None]) -> None:
    if value not in expected:
        names = ", ".join("null" if option is None else option for option in expected)
        raise ConfigError(f"data.options.{name} = {value!r}: expected one of {names}")


def _whole(path: Path, schema: Schema) -> Encoded:
    """All rows of a file at once; None for arrays that the schema does not ask for, or where there are no rows."""
    parts = list(encode(open_as(path, schema), schema))
    labels = [part.labels for part in parts if part.labels is not None]
    patients = [part.patients for part in parts if part.patients is not None]
    sites = [part.sites for part in parts if part.sites is not None]
    return Encoded(
        features=np.concatenate([np.empty((0, len(schema.features))), *(part.features for part in parts)]),
        labels=np.concatenate(labels) if labels else None,
        patients=np.concatenate(patients) if patients else None,
        sites=np.concatenate(sites) if sites else None,
    )


def _numbers(path: Path, name: str, texts: NDArray[np.str_]) -> NDArray[np.int64]:
    try:
        return texts.astype(np.int64)
    except (ValueError, OverflowError) as error:
        raise DataError(f"{path}, column '{name}': {error}: expected whole numbers") from error


def _first(patients: NDArray[np.str_], encounter: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which rows are a patient's first encounter, bool [n]."""
    order = np.argsort(encounter, kind="stable")
    _, place = np.unique(patients[order], return_index=True)
    first = np.zeros(len(patients), dtype=np.bool_)
    first[order[place]] = True
    return first


def _joined(sites: Sequence[str], min_rows: int) -> NDArray[np.str_]:
    """The sites [n], small ones renamed `other`, so that each has `min_rows` rows if there are as many."""
    counts = Counter(sites)
    small = {site for site, count in counts.items() if count < min_rows}
    for site, _ in sorted(counts.items(), key=lambda item: (item[1], item[0])):
        if not small or sum(counts[name] for name in small) >= min_rows:
            break
        small.add(site)
    return np.array([OTHER if site in small else site for site in sites])

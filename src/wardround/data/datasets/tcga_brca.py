"""Breast cancer of The Cancer Genome Atlas: death within five years, in six regions.

Files, regions and split are those of Fed-TCGA-BRCA in J. Ogier du Terrail et al.: FLamby, NeurIPS 2022, where the task is
survival. The clinical data are those of J. Liu et al.: An integrated TCGA pan-cancer clinical data resource, Cell 2018,
as prepared by M. Andreux et al.: Federated survival analysis with discrete-time Cox models, 2020.
"""

from __future__ import annotations

import math
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wardround.data.root import data_root
from wardround.data.tables.encode import encode, open_as
from wardround.data.tables.reader import open_table
from wardround.data.tables.schema import Boolean, FileSpec, Numeric, Patient, Schema
from wardround.errors import ConfigError, DataError
from wardround.types import SPLITS, Description, SiteData

_REGIONS = ("northeast", "south", "west", "midwest", "europe", "canada")  # in FLamby's order: centre 0 to 5
_LAYOUT = "tcga_brca/{brca,train_test_split,centers}.csv"
_SOURCE = "https://github.com/owkin/FLamby/tree/main/flamby/datasets/fed_tcga_brca"
_DAYS_A_YEAR = 365.25

_ONE_HOT = (
    "ethnicity_not hispanic or latino",
    "ethnicity_not reported",
    "race_asian",
    "race_black or african american",
    "race_not reported",
    "race_white",
    "ajcc_pathologic_m_MX",
    "ajcc_pathologic_n_N0 (i-)",
    "ajcc_pathologic_n_N1",
    "ajcc_pathologic_n_N1a",
    "ajcc_pathologic_n_N2",
    "ajcc_pathologic_n_N2a",
    "ajcc_pathologic_stage_Stage IA",
    "ajcc_pathologic_stage_Stage IIA",
    "ajcc_pathologic_stage_Stage IIB",
    "ajcc_pathologic_stage_Stage IIIA",
    "ajcc_pathologic_stage_Stage IIIC",
    "ajcc_pathologic_t_T1c",
    "ajcc_pathologic_t_T2",
    "ajcc_pathologic_t_T3",
    "ajcc_staging_system_edition_5th",
    "ajcc_staging_system_edition_6th",
    "ajcc_staging_system_edition_7th",
    "icd_10_code_C50.9",
    "morphology_8500/3",
    "morphology_8520/3",
    "primary_diagnosis_Infiltrating duct carcinoma, NOS",
    "primary_diagnosis_Lobular carcinoma, NOS",
    "prior_malignancy_yes",
    "synchronous_malignancy_Not Reported",
    "treatment_or_therapy_not reported",
    "treatment_or_therapy_yes",
    "tumor_stage_stage i",
    "tumor_stage_stage ia",
    "tumor_stage_stage iia",
    "tumor_stage_stage iib",
    "tumor_stage_stage iiia",
    "tumor_stage_stage iiic",
)
_FORM = FileSpec(header=True, delimiter=",")
_SCHEMA = Schema(
    columns={"pid": Patient(), "age_at_index": Numeric(), **{name: Boolean() for name in _ONE_HOT}}, file=_FORM
)
_FOLLOW_UP = Schema(columns={"E": Boolean(), "T": Numeric()}, file=_FORM)


class TCGABRCA:
    """Patients with breast cancer, 39 columns; label 1 is death within `years` of the diagnosis.

    Follow-up that ended earlier without death leaves the label unknown: those rows are left out, and so are patients whom
    FLamby's split does not name (their tissue came from none of the six regions). Of 1,088 patients 352 remain for five
    years, 99 of whom died. The fraction of deaths among rows that remain is higher than among all patients.

    Args:
        split: `patients` leaves the split to be drawn; `flamby` is the published one, without validation rows of its own.
        years: the horizon, above 0.

    Raises:
        ConfigError: an option has another value.
    """

    def __init__(self, split: str = "patients", years: float = 5.0) -> None:
        if split not in ("patients", "flamby"):
            raise ConfigError(f"data.options.split = {split!r}: expected 'patients' or 'flamby'")
        if isinstance(years, bool) or not isinstance(years, int | float) or not 0 < years < math.inf:
            raise ConfigError(f"data.options.years = {years!r}: expected a number of years above 0")
        self.split = split
        self.years = float(years)

    def describe(self) -> Description:
        """Six regions; age and 38 columns of 0 and 1."""
        return Description(
            name="tcga_brca",
            title=f"TCGA breast cancer, death within {self.years:g} years",
            source=_SOURCE,
            licence="GDC open access: no attempt to re-identify",
            sites=_REGIONS,
            columns=_SCHEMA.features,
            classes=("alive", "died"),
            natural=True,
            schema=_SCHEMA.model_dump_json(),
        )

    def load(self, site: str) -> SiteData:
        """One region's patients: features float64 [n, 39], labels int64 [n] in {0, 1}, patients as TCGA bar codes.

        Raises:
            DataError: the site is unknown, WARDROUND_DATA or a file is absent, a file is malformed, or the files
                contradict each other.
        """
        if site not in _REGIONS:
            raise DataError(f"site {site!r}: the dataset 'tcga_brca' has {', '.join(_REGIONS)}")
        return self._data[site]

    @cached_property
    def _data(self) -> dict[str, SiteData]:
        folder = data_root("tcga_brca", layout=_LAYOUT, source=_SOURCE) / "tcga_brca"
        for name in ("brca.csv", "train_test_split.csv", "centers.csv"):
            if not (folder / name).is_file():
                raise DataError(f"there is no file {folder / name}: 'tcga_brca' expects {_LAYOUT} (from {_SOURCE})")
        path = folder / "brca.csv"
        features, codes = _patients(path)
        dead, days = _follow_up(path)
        horizon = self.years * _DAYS_A_YEAR
        known = dead | (days >= horizon)
        labels = (dead & (days < horizon)).astype(np.int64)
        data = {}
        for region, folds in _folds(folder).items():
            absent = set(folds) - set(codes.tolist())
            if absent:
                raise DataError(
                    f"{path}: it lacks {len(absent)} patients of train_test_split.csv, such as {min(absent)}"
                )
            keep = known & np.isin(codes, list(folds))
            split = np.array([SPLITS.index(folds[code]) for code in codes[keep].tolist()], dtype=np.int8)
            data[region] = SiteData(
                features=features[keep],
                labels=labels[keep],
                patients=codes[keep],
                split=split if self.split == "flamby" else None,
            )
        return data


def _patients(path: Path) -> tuple[NDArray[np.float64], NDArray[np.str_]]:
    """Features [n, 39] and bar codes [n], one row a patient."""
    parts = list(encode(open_as(path, _SCHEMA), _SCHEMA))
    codes = np.concatenate([np.zeros(0, dtype="U1"), *(part.patients for part in parts if part.patients is not None)])
    if len(np.unique(codes)) < len(codes):
        raise DataError(f"{path}: a patient has two rows: fetch it again from {_SOURCE}")
    return np.concatenate([np.empty((0, len(_SCHEMA.features))), *(part.features for part in parts)]), codes


def _follow_up(path: Path) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Whether each patient died, and after how many days the follow-up ended, [n] each."""
    parts = [part.features for part in encode(open_as(path, _FOLLOW_UP), _FOLLOW_UP)]
    values = np.concatenate([np.empty((0, 2)), *parts])
    wrong = np.flatnonzero(np.isnan(values).any(axis=1) | (values[:, 1] < 0))
    if len(wrong):
        raise DataError(f"{path}, row {wrong[0] + 1}: expected an event E of 0 or 1 and days T of at least 0")
    return values[:, 0] == 1.0, values[:, 1]


def _folds(folder: Path) -> dict[str, dict[str, str]]:
    """Region -> bar code -> `train` or `test`; the region must be that of the source of the tissue."""
    sources = dict(zip(*_texts(folder / "centers.csv", "TSS Code", "Region"), strict=True))
    path = folder / "train_test_split.csv"
    folds: dict[str, dict[str, str]] = {region: {} for region in _REGIONS}
    for code, fold in zip(*_texts(path, "pid", "fold2"), strict=True):
        part, _, centre = fold.partition("_")
        if part not in ("train", "test") or centre not in map(str, range(len(_REGIONS))):
            raise DataError(f"{path}: fold2 = {fold!r}: expected train_0 to train_5 or test_0 to test_5")
        region = _REGIONS[int(centre)]
        source = code.split("-")[1] if code.count("-") >= 2 else ""
        if sources.get(source, "").lower() != region:
            raise DataError(
                f"{path}: {code} is in centre {centre} ({region}), and centers.csv has its source {source!r} in "
                f"{sources.get(source, 'no region')}: fetch both files again from {_SOURCE}"
            )
        folds[region][code] = part
    return folds


def _texts(path: Path, *names: str) -> list[list[str]]:
    """Columns of a table as texts."""
    table = open_table(path, header=True, delimiter=",")
    absent = [name for name in names if name not in table.names]
    if absent:
        raise DataError(f"{path}: the column '{absent[0]}' is missing: it has {', '.join(table.names)}")
    chunks = list(table.chunks())
    return [[text.strip() for chunk in chunks for text in chunk[name]] for name in names]

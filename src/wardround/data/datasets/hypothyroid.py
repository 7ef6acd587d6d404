"""Hypothyroidism at the Garvan Institute, Sydney: thyroid function tests of 3772 referrals, 8 % with the disease.

J. R. Quinlan, P. J. Compton, K. A. Horn, L. Lazarus: Inductive knowledge acquisition: a case study, Proceedings of the
Second Australian Conference on Applications of Expert Systems, 1986; as Weka's `hypothyroid.arff`.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from wardround.data.root import data_root
from wardround.data.tables.schema import Boolean, Categorical, Codes, Ignore, Kind, Label, Numeric, Schema, Site
from wardround.data.tables.sites import first_equal_row, read_sites
from wardround.errors import ConfigError, DataError
from wardround.types import Description, SiteData

_LAYOUT = "hypothyroid/hypothyroid.arff"
_SOURCE = "https://archive.ics.uci.edu/dataset/102/thyroid+disease (Weka's file: https://github.com/jbrownlee/Datasets)"
_HISTORY = (
    "on thyroxine",
    "query on thyroxine",
    "on antithyroid medication",
    "sick",
    "pregnant",
    "thyroid surgery",
    "I131 treatment",
    "query hypothyroid",
    "query hyperthyroid",
    "lithium",
    "goitre",
    "tumor",
    "hypopituitary",
    "psych",
)
_TESTS = ("TSH", "T3", "TT4", "T4U", "FTI")
_REFERRALS = ("SVHC", "other", "SVI", "STMW", "SVHD")
_CLASSES: dict[str, dict[str, Codes]] = {
    "binary": {
        "negative": ("negative",),
        "hypothyroid": ("compensated_hypothyroid", "primary_hypothyroid", "secondary_hypothyroid"),
    },
    "three": {
        "negative": ("negative",),
        "compensated": ("compensated_hypothyroid",),
        "primary": ("primary_hypothyroid",),
    },
    "four": {
        "negative": ("negative",),
        "compensated": ("compensated_hypothyroid",),
        "primary": ("primary_hypothyroid",),
        "secondary": ("secondary_hypothyroid",),
    },
}
_CHOICES = {"classes": tuple(_CLASSES), "tests": ("all", "none"), "sites": ("pool", "referral")}


class Hypothyroid:
    """3772 referrals; rows that are equal in every cell count as one patient. An age of 455 years is taken as missing.

    `TBG` was never measured and is left out. So are the six flags `... measured`, each of which says exactly whether its
    value is there: `data.preprocessing.indicators` gives them back.

    Args:
        classes: `binary` (negative, hypothyroid of any kind), `three` (negative, compensated, primary; the two rows of
            secondary hypothyroidism leave) or `four`, whose rarest class has two rows.
        tests: `all`, or `none` to leave out TSH, T3, TT4, T4U and FTI, from which the diagnosis was made.
        sites: `pool`, to be dealt out, or `referral`: the five sources of referral are sites and no feature.

    Raises:
        ConfigError: an option is none of these.
    """

    def __init__(self, classes: str = "binary", tests: str = "all", sites: str = "pool") -> None:
        for option, value in (("classes", classes), ("tests", tests), ("sites", sites)):
            if value not in _CHOICES[option]:
                raise ConfigError(f"data.options.{option} = {value!r}: expected {' or '.join(_CHOICES[option])}")
        self.natural = sites == "referral"
        self.classes = _CLASSES[classes]
        whole: dict[str, Kind] = {
            "age": Numeric(missing=("455",)),
            "sex": Categorical(levels=("F", "M")),
            **{name: Boolean(positive=("t",), negative=("f",)) for name in _HISTORY},
            **{name: Numeric() for name in _TESTS},
            "referral source": Categorical(levels=_REFERRALS),
            "Class": Label(classes=self.classes, exclude=("secondary_hypothyroid",) if classes == "three" else ()),
        }
        self._whole = Schema(columns=whole)
        hidden: dict[str, Kind] = {name: Ignore() for name in _TESTS} if tests == "none" else {}
        self.schema = Schema(columns={**whole, **hidden, **({"referral source": Site()} if self.natural else {})})

    def describe(self) -> Description:
        """One place or five, 22 columns or fewer."""
        return Description(
            name="hypothyroid",
            title="Hypothyroid (Garvan Institute)",
            source=_SOURCE,
            licence="CC BY 4.0",
            sites=tuple(sorted(_REFERRALS)) if self.natural else ("hypothyroid",),
            columns=self.schema.features,
            classes=tuple(self.classes),
            natural=self.natural,
            schema=self.schema.model_dump_json(),
        )

    def load(self, site: str) -> SiteData:
        """One site's rows: features float64 [n, C], labels int64 [n].

        Raises:
            DataError: the site is unknown, WARDROUND_DATA or the file is absent, or a line is malformed.
        """
        known = self.describe().sites
        if site not in known:
            raise DataError(f"site {site!r}: the dataset 'hypothyroid' has {', '.join(known)}")
        if site not in self._sites:
            raise DataError(f"site {site!r} has no row in {_LAYOUT}: fetch it again from {_SOURCE}")
        return self._sites[site]

    @cached_property
    def _sites(self) -> dict[str, SiteData]:
        path = data_root("hypothyroid", layout=_LAYOUT, source=_SOURCE) / _LAYOUT
        if not path.is_file():
            raise DataError(f"there is no file {path}: the dataset 'hypothyroid' expects {_LAYOUT} (from {_SOURCE})")
        data = read_sites({"hypothyroid": path}, self._whole)["hypothyroid"]
        names = [column.name for column in self._whole.features]
        patients = first_equal_row(np.column_stack([data.features, data.labels]))
        kept = [names.index(column.name) for column in self.schema.features]
        if not self.natural:
            return {"hypothyroid": SiteData(features=data.features[:, kept], labels=data.labels, patients=patients)}
        source = data.features[:, names.index("referral source")]
        rows = {site: source == place for place, site in enumerate(_REFERRALS)}
        return {
            site: SiteData(features=data.features[own][:, kept], labels=data.labels[own], patients=patients[own])
            for site, own in rows.items()
            if own.any()
        }

"""Pima Indians Diabetes: diabetes within five years, women of at least 21 near Phoenix.

J. W. Smith, J. E. Everhart, W. C. Dickson, W. C. Knowler, R. S. Johannes: Using the ADAP learning algorithm to forecast the
onset of diabetes mellitus, Proceedings of the Symposium on Computer Applications and Medical Care, 1988.
"""

from __future__ import annotations

from functools import cached_property

from wardround.data.root import data_root
from wardround.data.tables.schema import FileSpec, Label, Numeric, Schema
from wardround.data.tables.sites import read_sites
from wardround.errors import ConfigError, DataError
from wardround.types import Description, SiteData

_LAYOUT = "pima_diabetes/pima-indians-diabetes.csv"
_SOURCE = "https://github.com/jbrownlee/Datasets"
_COLUMNS = ("preg", "glucose", "dbp", "skin", "insulin", "bmi", "dpf", "age")
_ZERO_MEANS_MISSING = ("glucose", "dbp", "skin", "insulin", "bmi")


class Pima:
    """768 women, 8 numeric columns; label 1 is diabetes (268 rows). One row is one patient.

    Args:
        zero_is_missing: take a 0 in glucose, diastolic blood pressure, skin fold, insulin or body mass index as 'not
            measured' (652 cells of 376 women); False keeps the number.

    Raises:
        ConfigError: `zero_is_missing` is neither true nor false.
    """

    def __init__(self, zero_is_missing: bool = True) -> None:
        if not isinstance(zero_is_missing, bool):
            raise ConfigError(f"data.options.zero_is_missing = {zero_is_missing!r}: expected true or false")
        coded = _ZERO_MEANS_MISSING if zero_is_missing else ()
        self.schema = Schema(
            file=FileSpec(header=False, delimiter=","),
            columns={
                **{name: Numeric(missing=("0",) if name in coded else ()) for name in _COLUMNS},
                "outcome": Label(classes={"no diabetes": ("0",), "diabetes": ("1",)}),
            },
        )

    def describe(self) -> Description:
        """One place, 8 numeric columns."""
        return Description(
            name="pima",
            title="Pima Indians Diabetes",
            source=_SOURCE,
            licence="CC0 1.0",
            sites=("pima",),
            columns=self.schema.features,
            classes=("no diabetes", "diabetes"),
            schema=self.schema.model_dump_json(),
        )

    def load(self, site: str) -> SiteData:
        """All 768 rows: features float64 [768, 8].

        Raises:
            DataError: the site is not `pima`, WARDROUND_DATA or the file is absent, or a line is malformed.
        """
        if site != "pima":
            raise DataError(f"site {site!r}: the dataset 'pima' has one site, 'pima'")
        return self._data

    @cached_property
    def _data(self) -> SiteData:
        path = data_root("pima", layout=_LAYOUT, source=_SOURCE) / _LAYOUT
        if not path.is_file():
            raise DataError(f"there is no file {path}: the dataset 'pima' expects {_LAYOUT} (from {_SOURCE})")
        return read_sites({"pima": path}, self.schema)["pima"]

"""What a dataset must give, checked before anything is trained or written."""

from __future__ import annotations

import numpy as np

from wardround.errors import DataError
from wardround.types import SPLITS, Description, SiteData


def check_records(description: Description, sites: dict[str, SiteData]) -> None:
    """Refuse records that do not fit their description.

    Raises:
        DataError: no sites, an object that is no SiteData, arrays of unequal length or wrong shape, a label that is no
            class, a split that is none, or a class that no record of any site has.
    """
    name = description.name
    if not sites:
        raise DataError(f"dataset {name} has no sites: is its folder the right one?")
    for site, data in sites.items():
        _check_site(f"dataset {name}, site {site}", description, data)
    seen = np.unique(np.concatenate([data.labels for data in sites.values()]))
    absent = [c for k, c in enumerate(description.classes) if k not in seen]
    if absent:
        raise DataError(
            f"dataset {name} has no record of class {', '.join(absent)}: nothing could be learned or judged"
        )


def _check_site(where: str, description: Description, data: SiteData) -> None:
    if not isinstance(data, SiteData):
        raise DataError(f"{where}: load gave a {type(data).__name__}, expected SiteData")
    row = (len(description.columns),) if description.columns else description.shape
    rows = len(data.labels)
    if data.features.shape != (rows, *row):
        raise DataError(
            f"{where}: features have the shape {data.features.shape}, expected {(rows, *row)}: one row a label, and "
            f"{'one column for each described' if description.columns else 'the described shape'}"
        )
    for other, length in (("patients", len(data.patients)), ("split", rows if data.split is None else len(data.split))):
        if length != rows:
            raise DataError(f"{where}: {length} {other} for {rows} labels: give one for each row")
    classes = len(description.classes)
    wrong = np.flatnonzero((data.labels < 0) | (data.labels >= classes) | (data.labels != np.floor(data.labels)))
    if len(wrong):
        raise DataError(
            f"{where}: the label of row {wrong[0]} is {data.labels[wrong[0]]}, expected 0..{classes - 1} "
            f"({', '.join(description.classes)})"
        )
    if data.split is not None and not np.isin(data.split, np.arange(len(SPLITS))).all():
        raise DataError(f"{where}: its split has other codes than 0 (train), 1 (validation) and 2 (test)")

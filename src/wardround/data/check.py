"""What a dataset must give, checked before anything is trained or written."""

from __future__ import annotations

import numpy as np

from wardround.errors import DataError
from wardround.types import SPLITS, Description, SiteData


def check_records(description: Description, sites: dict[str, SiteData]) -> None:
    """Refuse records that do not fit their description.

    Raises:
        DataError: no sites, an object that is no SiteData, arrays of unequal length or wrong shape, a label that is no
            class, a split that is none, or a class that no record of any site has (of several labels a row: one that none has,
            or all).
    """
    name = description.name
    if not sites:
        raise DataError(f"dataset {name} has no sites: is its folder the right one?")
    for site, data in sites.items():
        _check_site(f"dataset {name}, site {site}", description, data)
    if description.multilabel:
        _check_learnable(description, sites)
        return
    seen = np.unique(np.concatenate([data.labels for data in sites.values()]))
    absent = [c for k, c in enumerate(description.classes) if k not in seen]
    if absent:
        raise DataError(
            f"dataset {name} has no record of class {', '.join(absent)}: nothing could be learned or judged"
        )


def check_groups(description: Description, sites: dict[str, SiteData]) -> None:
    """Refuse groups whose rows are of several classes: such a group has no one class to be judged by.

    Two classes are exempt, for a group is positive where any of its rows is; so are labels.

    Raises:
        DataError: a group with rows of several classes.
    """
    if description.multilabel or len(description.classes) == 2:
        return
    for site, data in sites.items():
        groups = data.patients if data.groups is None else data.groups
        names, place = np.unique(groups, return_inverse=True)
        low = np.full(len(names), len(description.classes))
        high = np.zeros(len(names), dtype=np.int64)
        np.minimum.at(low, place.reshape(-1), data.labels)
        np.maximum.at(high, place.reshape(-1), data.labels)
        mixed = int((low != high).sum())
        if mixed:
            raise DataError(
                f"dataset {description.name}, site {site}: {mixed} of {len(names)} groups have rows of several classes, and "
                "evaluation.aggregate needs one class a group: give SiteData finer groups (a lesion instead of a patient), "
                "or set aggregate: none"
            )


def _check_learnable(description: Description, sites: dict[str, SiteData]) -> None:
    rows = sum(len(data.labels) for data in sites.values())
    positives = np.sum([data.labels.sum(axis=0) for data in sites.values()], axis=0)
    for label, count in zip(description.classes, positives, strict=True):
        if count in (0, rows):
            raise DataError(
                f"dataset {description.name}: {'no' if not count else 'every'} record has the label {label}: nothing could be "
                "learned or judged; leave it out"
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
    if data.groups is not None and len(data.groups) != rows:
        raise DataError(f"{where}: {len(data.groups)} groups for {rows} labels: give one for each row, or None")
    if data.split is not None and not np.isin(data.split, np.arange(len(SPLITS))).all():
        raise DataError(f"{where}: its split has other codes than 0 (train), 1 (validation) and 2 (test)")
    classes = len(description.classes)
    if description.multilabel:
        _check_labels(where, description, data)
        return
    if data.labels.ndim != 1:
        raise DataError(
            f"{where}: labels have the shape {data.labels.shape}, expected ({rows},), one class a row; for several labels a "
            "row, describe the dataset with multilabel=True"
        )
    wrong = np.flatnonzero((data.labels < 0) | (data.labels >= classes) | (data.labels != np.floor(data.labels)))
    if len(wrong):
        raise DataError(
            f"{where}: the label of row {wrong[0]} is {data.labels[wrong[0]]}, expected 0..{classes - 1} "
            f"({', '.join(description.classes)})"
        )


def _check_labels(where: str, description: Description, data: SiteData) -> None:
    expected = (len(data.labels), len(description.classes))
    if data.labels.shape != expected:
        raise DataError(
            f"{where}: labels have the shape {data.labels.shape}, expected {expected}: a column of 0 and 1 for each of "
            f"{', '.join(description.classes)}"
        )
    wrong = np.argwhere((data.labels != 0) & (data.labels != 1))
    if len(wrong):
        row, label = (int(place) for place in wrong[0])
        raise DataError(
            f"{where}: row {row} has {data.labels[row, label]} for {description.classes[label]}, expected 0 or 1"
        )

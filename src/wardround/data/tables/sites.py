"""Tables to sites: rows by the site column or by file, the smallest sites dealt with, and no label in disguise."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wardround.data.tables.encode import Encoded, encode, open_as
from wardround.data.tables.schema import OTHER, Schema
from wardround.errors import ConfigError, DataError
from wardround.types import SiteData

_HEAD = 1000
_FEWEST = 5


def read_sites(files: Mapping[str, Path], schema: Schema, *, leaks: Collection[str] = ()) -> dict[str, SiteData]:
    """Every site's records, by name in canonical order.

    While a file is read, its text is in memory one chunk at a time; what stays are the arrays.

    Args:
        files: site -> its table. Where the schema has a site column that column names the sites instead, across files.
        schema: what the tables mean; it has a label.
        leaks: columns that may determine the label.

    Returns:
        Features float64 [n, C]; patients are the patient column's texts, or row numbers where the schema has none, so
        that each row is a patient of its own. Patients of the site `other` carry the name of the site they came from.

    Raises:
        ConfigError: the schema has no label or no feature.
        DataError: a file is malformed, a site is smaller than `schema.min_rows` and `small_sites` does not say what
            then, nothing is left, or a column that is not in `leaks` is the label in another form.
    """
    check_learnable(schema)
    parts: dict[str, list[Encoded]] = {} if schema.site else {site: [] for site in files}
    for site, path in files.items():
        for encoded in encode(open_as(path, schema), schema):
            if encoded.sites is None:
                parts[site].append(encoded)
            else:
                _deal(encoded, encoded.sites, parts)
    sites = {}
    for site in sorted(parts):
        sites[site] = _joined(parts.pop(site), len(schema.features))
    if not sites:
        raise DataError(f"{', '.join(map(str, files.values()))}: no rows: expected at least one below the header")
    sites = _of_enough_rows(sites, files, schema)
    _refuse_leaks(sites, schema, leaks)
    return sites


def check_learnable(schema: Schema) -> None:
    """Raises ConfigError where a schema has no label or no feature."""
    if schema.label is None:
        raise ConfigError(
            f"the schema names no label: give one of {', '.join(schema.columns)} the kind label, with its classes"
        )
    if not schema.features:
        raise ConfigError(
            "the schema leaves no feature: expected a numeric, categorical, ordinal or boolean column, or a date with since"
        )


def first_equal_row(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """For each row of [n, C] the index of the first row equal to it, int64 [n]; two gaps are equal."""
    # NaN differs from itself, and no cell is infinite
    comparable = np.nan_to_num(values, nan=-math.inf)
    _, first, inverse = np.unique(comparable, axis=0, return_index=True, return_inverse=True)
    return np.asarray(first[inverse.reshape(-1)], dtype=np.int64)


def _deal(rows: Encoded, sites: NDArray[np.str_], parts: dict[str, list[Encoded]]) -> None:
    names, owner = np.unique(sites, return_inverse=True)
    order = np.argsort(owner, kind="stable")
    ends = np.cumsum(np.bincount(owner, minlength=len(names)))
    for name, own in zip(names.tolist(), np.split(order, ends[:-1]), strict=True):
        parts.setdefault(name, []).append(
            Encoded(
                features=rows.features[own],
                labels=None if rows.labels is None else rows.labels[own],
                patients=None if rows.patients is None else rows.patients[own],
                sites=None,
            )
        )


def _joined(parts: list[Encoded], columns: int) -> SiteData:
    labels = np.concatenate([np.zeros(0, dtype=np.int64), *(p.labels for p in parts if p.labels is not None)])
    patients = [p.patients for p in parts if p.patients is not None]
    return SiteData(
        features=np.concatenate([np.zeros((0, columns)), *(p.features for p in parts)]),
        labels=labels,
        patients=np.concatenate(patients) if patients else np.arange(len(labels)),
    )


def _of_enough_rows(sites: dict[str, SiteData], files: Mapping[str, Path], schema: Schema) -> dict[str, SiteData]:
    small = [site for site, data in sites.items() if len(data.labels) < schema.min_rows]
    if not small:
        return sites
    if schema.small_sites == "error":
        site = small[0]
        where = f" ({files[site]})" if schema.site is None else f" (column '{schema.site}')"
        raise DataError(
            f"site '{site}'{where} has {_rows(len(sites[site].labels))}, and the schema's min_rows is {schema.min_rows}: "
            "remove it, or set small_sites to drop or other"
        )
    kept = {site: data for site, data in sites.items() if site not in small}
    if schema.small_sites == OTHER:
        joined = [_renamed(site, sites[site]) for site in small if len(sites[site].labels)]
        if OTHER in kept:
            joined.append(_renamed(OTHER, kept.pop(OTHER)))
        if joined:
            other = SiteData(
                features=np.concatenate([data.features for data in joined]),
                labels=np.concatenate([data.labels for data in joined]),
                patients=np.concatenate([data.patients for data in joined]),
            )
            if len(other.labels) < schema.min_rows:
                raise DataError(
                    f"sites {', '.join(small)} together have {_rows(len(other.labels))}, fewer than min_rows = "
                    f"{schema.min_rows}: lower min_rows, or set small_sites to drop"
                )
            kept[OTHER] = other
    if not kept:
        raise DataError(f"no site has min_rows = {schema.min_rows} rows: the largest has "
                        f"{max(len(data.labels) for data in sites.values())}; lower it")  # fmt: skip
    return dict(sorted(kept.items()))


def _renamed(site: str, data: SiteData) -> SiteData:
    return SiteData(
        features=data.features,
        labels=data.labels,
        # two hospitals may number their patients alike
        patients=np.char.add(f"{site}/", data.patients.astype(np.str_)),
    )


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count} rows" if count else "no rows"


def _refuse_leaks(sites: Mapping[str, SiteData], schema: Schema, allowed: Collection[str]) -> None:
    """A column each of whose few values belongs to one class alone is the label under another name."""
    unknown = sorted(set(allowed) - {column.name for column in schema.features})
    if unknown:
        raise ConfigError(f"leaks names '{unknown[0]}', which is no feature of the schema: remove it")
    labels = np.concatenate([data.labels for data in sites.values()])
    for c, column in enumerate(schema.features):
        if column.name in allowed:
            continue
        values = np.concatenate([data.features[:, c] for data in sites.values()])
        # most columns show within a few rows that they are none
        if _determines(values[:_HEAD], labels[:_HEAD], fewest=0) and _determines(values, labels, fewest=_FEWEST):
            name = schema.label[0] if schema.label else ""
            raise DataError(
                f"the column '{column.name}' is the label '{name}' in another form: each of its values belongs to one class "
                f"alone, in all {len(labels)} rows. Give it the kind ignore, or name it in leaks if it is known before the "
                "outcome"
            )


def _determines(values: NDArray[np.float64], labels: NDArray[np.int64], *, fewest: int) -> bool:
    present = ~np.isnan(values)
    values, labels = values[present], labels[present]
    distinct, place = np.unique(values, return_inverse=True)
    classes = np.bincount(labels) if len(labels) else np.zeros(1, dtype=np.int64)
    if fewest and (len(distinct) * 10 > len(values) or np.sort(classes)[-2:][0] < fewest or len(classes) < 2):
        return False
    low = np.full(len(distinct), np.iinfo(np.int64).max)
    high = np.full(len(distinct), -1)
    np.minimum.at(low, place, labels)
    np.maximum.at(high, place, labels)
    return bool((low == high).all())

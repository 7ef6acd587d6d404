"""Dealing a pool of records to simulated sites, by patient, and making their features differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wardround.config.job import PartitionSpec
from wardround.data.partitions.features import skewed
from wardround.data.partitions.patients import Dealing, Ints, Patients
from wardround.data.partitions.registry import NATURAL, build
from wardround.data.strata import strata, together
from wardround.errors import ConfigError, DataError
from wardround.streams import generator
from wardround.types import Column, SiteData

_DRAWS = 1000


def partition(
    data: Mapping[str, SiteData],
    spec: PartitionSpec,
    *,
    seed: int,
    classes: int,
    columns: Sequence[Column] = (),
) -> dict[str, SiteData]:
    """Sites by name, in canonical order; every row of `data` is in exactly one of them.

    `natural` keeps the sites as they are. Otherwise they are merged into one pool whose patients are dealt to
    `spec.sites` sites `site-1`, `site-2`, ... (padded with zeros to equal width); an official split stays with its
    rows. Then `spec.features` changes features, and nothing else.

    Args:
        data: site name -> records; patients of different sites are different patients.
        spec: what to do.
        seed: the run's seed.
        classes: number of classes; labels are 0..classes-1, or [n, classes] of 0 and 1.
        columns: the columns of a table, () for arrays.

    Raises:
        ConfigError: an unknown kind, or skewed features that these columns do not have.
        DataError: no rows, more sites than patients, a label out of range, pools that do not fit together, or no draw of
            1000 gives every site `spec.min_rows` rows.
    """
    sites = dict(sorted(data.items())) if spec.kind == NATURAL else _dealt(data, spec, seed, classes)
    return skewed(sites, spec.features, seed=seed, columns=tuple(columns))


def _dealt(data: Mapping[str, SiteData], spec: PartitionSpec, seed: int, classes: int) -> dict[str, SiteData]:
    dealing = build(spec)
    pool = _pool(data)
    identifiers, patient = np.unique(pool.patients, return_inverse=True)
    patient = patient.reshape(-1)
    if spec.sites > len(identifiers):
        raise DataError(
            f"partition.sites = {spec.sites} and there are {len(identifiers)} patients: a site needs at least "
            f"one, so set partition.sites to at most {len(identifiers)}"
        )
    if pool.labels.min() < 0 or pool.labels.max() >= (2 if pool.labels.ndim == 2 else classes):
        raise DataError(f"labels lie in {pool.labels.min()}..{pool.labels.max()}, expected 0..{classes - 1}")
    label = together(pool.labels, patient, len(identifiers))
    patients = Patients(labels=strata(label), rows=np.bincount(patient))
    owner = _owner(dealing, patients, spec, generator("partition", spec.kind, seed))
    return _deal(pool, owner[patient], spec.sites)


def _owner(dealing: Dealing, patients: Patients, spec: PartitionSpec, rng: np.random.Generator) -> Ints:
    """The site of each patient, int64 [patients]: the first draw in which every site has its rows."""
    total = int(patients.rows.sum())
    if spec.sites * spec.min_rows > total:
        raise DataError(
            f"partition.sites = {spec.sites} of partition.min_rows = {spec.min_rows} rows each need "
            f"{spec.sites * spec.min_rows} rows, and there are {total}: lower one of them"
        )
    most, draws = 0, 0
    for owner in islice(dealing.deal(patients, spec.sites, rng), _DRAWS):
        draws += 1
        _check(owner, patients, spec)
        smallest = int(np.bincount(owner, weights=patients.rows, minlength=spec.sites).min())
        if smallest >= spec.min_rows:
            return owner
        most = max(most, smallest)
    said = getattr(dealing, "advice", "use fewer sites")
    raise DataError(
        f"partition.kind = {spec.kind}: no draw of {draws} gave each of {spec.sites} sites "
        f"partition.min_rows = {spec.min_rows} rows (the best left one site with {most}): lower partition.min_rows, {said}"
    )


def _check(owner: Ints, patients: Patients, spec: PartitionSpec) -> None:
    if owner.shape != (len(patients),) or owner.dtype.kind not in "iu":
        raise ConfigError(
            f"partition.kind = {spec.kind!r}: deal gave {owner.dtype} {owner.shape}, expected a site for each of "
            f"{len(patients)} patients, int64 [{len(patients)}]"
        )
    if owner.min() < 0 or owner.max() >= spec.sites:
        raise ConfigError(
            f"partition.kind = {spec.kind!r}: deal gave sites {owner.min()}..{owner.max()}, expected 0..{spec.sites - 1}"
        )


def _pool(data: Mapping[str, SiteData]) -> SiteData:
    names = sorted(data)
    sites = [data[name] for name in names]
    if not sum(len(site.labels) for site in sites):
        raise DataError("there are no rows to deal to sites: give the dataset records")
    if len(sites) == 1:
        return sites[0]
    shapes = sorted({site.features.shape[1:] for site in sites})
    if len(shapes) > 1:
        raise DataError(f"sites {', '.join(names)} have rows of different shapes {shapes}: they cannot be one pool")
    with_split = [name for name in names if data[name].split is not None]
    if with_split and len(with_split) < len(names):
        raise DataError(
            f"only {', '.join(with_split)} of {', '.join(names)} bring an official split: give all or none one"
        )
    return SiteData(
        features=np.concatenate([site.features for site in sites]),
        labels=np.concatenate([site.labels for site in sites]),
        patients=np.concatenate([_named(name, data[name].patients) for name in names]),
        split=np.concatenate([site.split for site in sites if site.split is not None]) if with_split else None,
        groups=_groups(data) if any(site.groups is not None for site in sites) else None,
    )


def _groups(data: Mapping[str, SiteData]) -> NDArray[np.str_]:
    """The groups of the pool's rows; where a site names none, its patients."""
    return np.concatenate(
        [_named(name, site.patients if site.groups is None else site.groups) for name, site in sorted(data.items())]
    )


def _named(site: str, patients: NDArray[Any]) -> NDArray[np.str_]:
    # two hospitals may number their patients alike
    return np.char.add(f"{site}/", patients.astype(np.str_))


def _deal(pool: SiteData, owner: Ints, sites: int) -> dict[str, SiteData]:
    """The pool's rows by site, in the pool's order within each."""
    order = np.argsort(owner, kind="stable")
    # sorted once, a site's rows are a slice: work is rows + sites, not rows x sites
    features, labels, patients = pool.features[order], pool.labels[order], pool.patients[order]
    split = None if pool.split is None else pool.split[order]
    groups = None if pool.groups is None else pool.groups[order]
    ends = np.cumsum(np.bincount(owner, minlength=sites))
    width = len(str(sites))
    dealt: dict[str, SiteData] = {}
    start = 0
    for index, end in enumerate(ends.tolist()):
        dealt[f"site-{index + 1:0{width}d}"] = SiteData(
            features=features[start:end],
            labels=labels[start:end],
            patients=patients[start:end],
            split=None if split is None else split[start:end],
            groups=None if groups is None else groups[start:end],
        )
        start = end
    return dealt

"""Dealing a pool of records to simulated sites, by patient.

`dirichlet` is the label skew of Li et al.: Federated learning on non-IID data silos (NIID-Bench), ICDE 2022, after Hsu,
Qi, Brown: Measuring the effects of non-identical data distribution for federated visual classification, 2019: for each
class c, proportions p_c ~ Dirichlet(alpha) over the sites, and that many of the class's patients to each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wardround.config.job import PartitionSpec
from wardround.errors import DataError
from wardround.streams import generator
from wardround.types import SiteData

_DRAWS = 1000


def partition(data: Mapping[str, SiteData], spec: PartitionSpec, *, seed: int, classes: int) -> dict[str, SiteData]:
    """Sites by name, in canonical order; every row of `data` is in exactly one of them.

    `natural` returns the sites as they are. Otherwise they are merged into one pool whose patients are dealt to
    `spec.sites` sites `site-1`, `site-2`, ... (padded with zeros to equal width); an official split stays with its
    rows.

    Args:
        data: site name -> records; patients of different sites are different patients.
        spec: what to do.
        seed: the run's seed.
        classes: number of classes; labels are 0..classes-1.

    Raises:
        DataError: no rows, more sites than patients, a label out of range, pools that do not fit together, or no
            Dirichlet draw in 1000 gives every site `spec.min_rows` rows.
    """
    if spec.kind == "natural":
        return dict(sorted(data.items()))
    pool = _pool(data)
    identifiers, patient = np.unique(pool.patients, return_inverse=True)
    patient = patient.reshape(-1)
    if spec.sites > len(identifiers):
        raise DataError(
            f"partition.sites = {spec.sites} and there are {len(identifiers)} patients: a site needs at least "
            f"one, so set partition.sites to at most {len(identifiers)}"
        )
    if pool.labels.min() < 0 or pool.labels.max() >= classes:
        raise DataError(f"labels lie in {pool.labels.min()}..{pool.labels.max()}, expected 0..{classes - 1}")
    rng = generator("partition", spec.kind, seed)
    if spec.kind == "iid":
        owner = _iid(len(identifiers), spec.sites, rng)
    else:
        label = np.zeros(len(identifiers), dtype=np.int64)
        np.maximum.at(label, patient, pool.labels)
        owner = _dirichlet(label, np.bincount(patient), spec, rng)
    return _deal(pool, owner[patient], spec.sites)


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
    )


def _named(site: str, patients: NDArray[Any]) -> NDArray[np.str_]:
    # two hospitals may number their patients alike
    return np.char.add(f"{site}/", patients.astype(np.str_))


def _iid(patients: int, sites: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """The site of each patient, int64 [patients]; sites differ by one patient at most."""
    owner = np.empty(patients, dtype=np.int64)
    owner[rng.permutation(patients)] = np.arange(patients) * sites // patients
    return owner


def _dirichlet(
    label: NDArray[np.int64], rows: NDArray[np.int64], spec: PartitionSpec, rng: np.random.Generator
) -> NDArray[np.int64]:
    """The site of each patient, int64 [patients], from labels and numbers of rows a patient."""
    advice = "lower partition.min_rows, raise partition.alpha, or use fewer sites"
    total = int(rows.sum())
    if spec.sites * spec.min_rows > total:
        raise DataError(
            f"partition.sites = {spec.sites} of partition.min_rows = {spec.min_rows} rows each need "
            f"{spec.sites * spec.min_rows} rows, and there are {total}: lower one of them"
        )
    members = [rng.permutation(np.flatnonzero(label == c)) for c in np.unique(label)]
    owner = np.empty(len(label), dtype=np.int64)
    fewest = 0
    for _ in range(_DRAWS):
        _draw(members, spec, rng, owner)
        smallest = int(np.bincount(owner, weights=rows, minlength=spec.sites).min())
        if smallest >= spec.min_rows:
            return owner
        fewest = max(fewest, smallest)
    raise DataError(
        f"no Dirichlet draw in {_DRAWS} gave each of {spec.sites} sites partition.min_rows = {spec.min_rows} rows with "
        f"partition.alpha = {spec.alpha} (the best left one site with {fewest}): {advice}"
    )


def _draw(
    members: Sequence[NDArray[np.intp]], spec: PartitionSpec, rng: np.random.Generator, owner: NDArray[np.int64]
) -> None:
    """Deal each class's patients, already in random order, by proportions drawn anew."""
    for patients in members:
        proportions = rng.dirichlet(np.full(spec.sites, spec.alpha))
        cuts = (np.cumsum(proportions) * len(patients)).astype(np.int64)[:-1]
        owner[patients] = np.searchsorted(cuts, np.arange(len(patients)), side="right")


def _deal(pool: SiteData, owner: NDArray[np.int64], sites: int) -> dict[str, SiteData]:
    """The pool's rows by site, in the pool's order within each."""
    order = np.argsort(owner, kind="stable")
    # sorted once, a site's rows are a slice: work is rows + sites, not rows x sites
    features, labels, patients = pool.features[order], pool.labels[order], pool.patients[order]
    split = None if pool.split is None else pool.split[order]
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
        )
        start = end
    return dealt

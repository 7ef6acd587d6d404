"""Dividing sites' patients into train, validation and test: by patient, stratified by the patient's label.

A patient's place in the order is a hash of the seed, the site and the patient's identifier, so it does not depend on
who else is there. All sites are divided at once, without work a site where it can be helped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wardround.config.job import SplitSpec
from wardround.data.strata import strata, together
from wardround.errors import DataError
from wardround.streams import Keys, key, uniform_bits
from wardround.types import SPLITS, SiteData

_TRAIN, _VALIDATION, _TEST = (np.int8(SPLITS.index(name)) for name in SPLITS)


def split_patients(data: SiteData, spec: SplitSpec, *, seed: int, site: str) -> SiteData:
    """One site's records with `split` filled in: see `split_sites`."""
    return split_sites({site: data}, spec, seed=seed)[site]


def split_sites(data: Mapping[str, SiteData], spec: SplitSpec, *, seed: int) -> dict[str, SiteData]:
    """The same records with `split` filled in, int8 [n] a site; all rows of a patient are in one split.

    At each site `spec.test` of the patients, then `spec.validation` of those who remain, each rounded to the nearest
    number and dealt to the classes by largest remainder; at least one patient always trains. A patient's class is the
    highest label of the rows; where rows may have several labels, the one of the patient's that is rarest at the site.
    Where the data bring an official split, its test rows stay, and validation is carved out of its train rows unless it
    has validation rows of its own.

    Args:
        data: site -> records; the name is part of the streams' names.
        spec: the fractions.
        seed: the run's seed.

    Raises:
        DataError: a site has no rows, or its official split has no train row, a code that is none of train, validation
            and test, or rows of one patient in two splits.
    """
    for site, own in data.items():
        if not len(own.labels):
            raise DataError(f"site '{site}' has no rows: remove the site, or give it records")
    codes: dict[str, NDArray[np.int8]] = {}
    for group in _alike(data):
        codes |= _split(group, {site: data[site] for site in group}, spec, seed)
    return {site: replace(own, split=codes[site]) for site, own in data.items()}


def _alike(data: Mapping[str, SiteData]) -> list[list[str]]:
    """Sites whose identifiers are of one type, and which all bring an official split or none does."""
    groups: dict[tuple[str, bool], list[str]] = {}
    for site, own in data.items():
        kind = own.patients.dtype
        groups.setdefault((kind.kind if kind.kind in "US" else kind.str, own.split is None), []).append(site)
    return list(groups.values())


def _split(
    sites: Sequence[str], data: Mapping[str, SiteData], spec: SplitSpec, seed: int
) -> dict[str, NDArray[np.int8]]:
    counts = np.array([len(own.labels) for own in data.values()])
    owner = np.repeat(np.arange(len(sites)), counts)
    identifiers, code = np.unique(np.concatenate([own.patients for own in data.values()]), return_inverse=True)
    # sorted by site, then by identifier
    pairs, first, inverse = np.unique(
        owner * len(identifiers) + code.reshape(-1), return_index=True, return_inverse=True
    )
    site, identifier = np.divmod(pairs, len(identifiers))
    inverse = inverse.reshape(-1)
    label = strata(together(np.concatenate([own.labels for own in data.values()]), inverse, len(pairs)), site)
    keys = _keys(identifiers)[identifier]

    official = [own.split for own in data.values() if own.split is not None]
    if official:
        codes = _official(np.concatenate(official), first, inverse, owner, sites)
    else:
        codes = np.full(len(pairs), _TRAIN, dtype=np.int8)
        streams = np.array([key("split", "test", seed, name) for name in sites], dtype=np.uint64)
        codes[_draw(codes == _TRAIN, site, label, keys, spec.test, streams)] = _TEST
    without = ~np.bincount(site, weights=codes == _VALIDATION, minlength=len(sites)).astype(np.bool_)
    streams = np.array([key("split", "validation", seed, name) for name in sites], dtype=np.uint64)
    codes[_draw((codes == _TRAIN) & without[site], site, label, keys, spec.validation, streams)] = _VALIDATION
    parts = np.split(codes[inverse], np.cumsum(counts)[:-1])
    return dict(zip(sites, parts, strict=True))


def _keys(identifiers: NDArray[Any]) -> Keys:
    if identifiers.dtype.kind in "iu":
        return identifiers.astype(np.uint64)
    return np.array([key("patient", str(identifier)) for identifier in identifiers], dtype=np.uint64)


def _official(
    split: NDArray[np.int8],
    first: NDArray[np.intp],
    inverse: NDArray[np.intp],
    owner: NDArray[np.intp],
    sites: Sequence[str],
) -> NDArray[np.int8]:
    """The split of each patient, int8 [patients], of sites that bring one."""
    unknown = np.flatnonzero((split < 0) | (split >= len(SPLITS)))
    if len(unknown):
        raise DataError(
            f"site '{sites[owner[unknown[0]]]}': the official split holds the code {split[unknown[0]]}, expected 0 to 2 "
            f"({', '.join(SPLITS)})"
        )
    codes: NDArray[np.int8] = split[first].astype(np.int8)
    torn = np.flatnonzero(codes[inverse] != split)
    if len(torn):
        where = owner[torn[0]]
        straddling = len(np.unique(inverse[torn[owner[torn] == where]]))
        raise DataError(
            f"site '{sites[where]}': the official split puts rows of one patient into two splits, for {straddling} "
            "patients: mend the dataset's split or its patient identifiers, or leave the split to be drawn"
        )
    trains = np.bincount(owner, weights=split == _TRAIN, minlength=len(sites))
    if not trains.all():
        raise DataError(
            f"site '{sites[int(np.argmin(trains))]}': the official split leaves no row to train on: use fewer sites, or "
            "draw the split"
        )
    return codes


def _draw(
    among: NDArray[np.bool_],
    site: NDArray[np.intp],
    label: NDArray[np.int64],
    keys: Keys,
    fraction: float,
    streams: Keys,
) -> NDArray[np.intp]:
    """Indices of `fraction` of each site's patients `among`, the lowest ranks of each class; one at least is left over."""
    candidates = np.flatnonzero(among)
    if not len(candidates):
        return candidates
    site, label = site[candidates], label[candidates]
    rank = uniform_bits(keys[candidates], streams[site], 1)[:, 0]
    order = np.lexsort((rank, label, site))
    edge = np.ones(len(order), dtype=np.bool_)
    edge[1:] = (np.diff(site[order]) != 0) | (np.diff(label[order]) != 0)
    start = np.flatnonzero(edge)
    stratum = np.cumsum(edge) - 1
    quota = _quotas(site[order][start], np.diff(start, append=len(order)), fraction)
    drawn: NDArray[np.intp] = candidates[order[np.arange(len(order)) - start[stratum] < quota[stratum]]]
    return drawn


def _quotas(site: NDArray[np.intp], sizes: NDArray[np.intp], fraction: float) -> NDArray[np.intp]:
    """Patients of each stratum, dealt within its site in proportion to sizes (Hamilton); the earlier class wins a tie."""
    at_site = np.bincount(site, weights=sizes).astype(np.intp)
    totals = np.clip(np.floor(fraction * at_site + 0.5).astype(np.intp), 0, np.maximum(at_site - 1, 0))
    # in integers, so that a tie is a tie
    quota: NDArray[np.intp]
    quota, remainder = np.divmod(sizes * totals[site], at_site[site])
    left = totals - np.bincount(site, weights=quota, minlength=len(totals)).astype(np.intp)
    order = np.lexsort((-remainder, site))
    first = np.searchsorted(site, np.arange(len(totals)))
    quota[order[np.arange(len(order)) - first[site[order]] < left[site[order]]]] += 1
    return quota

"""Dividing a site's patients into train, validation and test: by patient, stratified by the patient's label.

A patient's place in the order is a hash of the seed, the site and the patient's identifier, so it does not depend on
who else is there.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wardround.config.job import SplitSpec
from wardround.errors import DataError
from wardround.streams import key, uniform_bits
from wardround.types import SPLITS, SiteData

_TRAIN, _VALIDATION, _TEST = (np.int8(SPLITS.index(name)) for name in SPLITS)


def split_patients(data: SiteData, spec: SplitSpec, *, seed: int, site: str) -> SiteData:
    """The same records with `split` filled in, int8 [n]; all rows of a patient are in one split.

    `spec.test` of the patients, then `spec.validation` of those who remain, each rounded to the nearest number and
    dealt to the classes by largest remainder; at least one patient always trains. A patient's class is the highest
    label of the rows. Where the data bring an official split, its test rows stay, and validation is carved out of its
    train rows unless it has validation rows of its own.

    Args:
        data: one site's records.
        spec: the fractions.
        seed: the run's seed.
        site: the site's name, part of the streams' names.

    Raises:
        DataError: the site has no rows, the official split has no train row, a code that is none of train, validation
            and test, or rows of one patient in two splits.
    """
    rows = len(data.labels)
    if not rows:
        raise DataError(f"site '{site}' has no rows: remove the site, or give it records")
    identifiers, first, inverse = np.unique(data.patients, return_index=True, return_inverse=True)
    inverse = inverse.reshape(-1)
    label = np.full(len(identifiers), np.iinfo(np.int64).min)
    np.maximum.at(label, inverse, data.labels)
    keys = _keys(identifiers)

    if data.split is None:
        codes = np.full(len(identifiers), _TRAIN, dtype=np.int8)
        codes[_draw(codes == _TRAIN, label, keys, spec.test, key("split", "test", seed, site))] = _TEST
    else:
        codes = _official(data.split, first, inverse, site)
    if not (codes == _VALIDATION).any():
        drawn = _draw(codes == _TRAIN, label, keys, spec.validation, key("split", "validation", seed, site))
        codes[drawn] = _VALIDATION
    return replace(data, split=codes[inverse])


def _keys(identifiers: NDArray[Any]) -> NDArray[np.uint64]:
    if identifiers.dtype.kind in "iu":
        return identifiers.astype(np.uint64)
    return np.array([key("patient", str(identifier)) for identifier in identifiers], dtype=np.uint64)


def _official(
    split: NDArray[np.int8], first: NDArray[np.intp], inverse: NDArray[np.intp], site: str
) -> NDArray[np.int8]:
    unknown = split[(split < 0) | (split >= len(SPLITS))]
    if len(unknown):
        raise DataError(
            f"site '{site}': the official split holds the code {unknown[0]}, expected 0 to 2 ({', '.join(SPLITS)})"
        )
    codes: NDArray[np.int8] = split[first].astype(np.int8)
    straddling = len(np.unique(inverse[codes[inverse] != split]))
    if straddling:
        raise DataError(
            f"site '{site}': the official split puts rows of one patient into two splits, for {straddling} patients: "
            "mend the dataset's split or its patient identifiers, or leave the split to be drawn"
        )
    if not (codes == _TRAIN).any():
        raise DataError(
            f"site '{site}': the official split leaves no row to train on: use fewer sites, or draw the split"
        )
    return codes


def _draw(
    among: NDArray[np.bool_], label: NDArray[np.int64], keys: NDArray[np.uint64], fraction: float, purpose: int
) -> NDArray[np.intp]:
    """Indices of `fraction` of the patients `among`, the lowest ranks of each class; one at least is left over."""
    candidates = np.flatnonzero(among)
    total = min(int(np.floor(fraction * len(candidates) + 0.5)), len(candidates) - 1)
    if total <= 0:
        return candidates[:0]
    _, of_class = np.unique(label[candidates], return_inverse=True)
    rank = uniform_bits(keys[candidates], purpose, 1)[:, 0]
    order = np.lexsort((rank, of_class))
    sizes = np.bincount(of_class)
    quota = _largest_remainder(sizes, total)
    place = np.arange(len(candidates)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return candidates[order[place < np.repeat(quota, sizes)]]


def _largest_remainder(sizes: NDArray[np.intp], total: int) -> NDArray[np.intp]:
    """`total` seats dealt in proportion to `sizes` (Hamilton's method); the earlier class wins a tie."""
    # in integers, so that a tie is a tie
    seats, remainder = np.divmod(sizes * total, sizes.sum())
    order = np.argsort(-remainder, kind="stable")
    seats[order[: total - seats.sum()]] += 1
    return seats

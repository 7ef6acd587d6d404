"""The records that the sites of one process hold: raw, then as tensors once the preprocessing is known."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from wardround import streams
from wardround.data.preprocess import Preprocessing
from wardround.data.standardize import Fitted, Standardization
from wardround.errors import DataError
from wardround.training.pictures import Pictures, Standard
from wardround.types import SPLITS, Description, Rows, SiteData, Split

Ints = NDArray[np.int64]
MERGED = "all"
"""Name of the one site of a centralised run."""
_BLOCK = 2**24
"""Bytes of stored pictures that are hashed at once."""


class Records:
    """Rows of many sites, flat and sorted by site and split. A copy of `data`, which may be dropped afterwards.

    Pictures that are mapped from files, or stored as whole numbers, are not copied: see `training.pictures`.

    Args:
        description: what the dataset is.
        data: site -> records, with `split` filled in.
        grouped: whether to know which rows are of one group.
    """

    def __init__(self, description: Description, data: Mapping[str, SiteData], *, grouped: bool = False) -> None:
        self.description = description
        self.origins = tuple(sorted(data))
        splits, kinds = [], set()
        for site in self.origins:  # one site at a time: `data` may read them as they are asked for
            own = data[site]
            splits.append(_split_of(site, own))
            kinds.add(own.features.dtype)
        counts = [len(split) for split in splits]
        self._origin = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
        split = np.concatenate(splits)
        order = np.lexsort((split, self._origin))
        self._split = split[order]
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        del splits, split
        stored = not description.columns and any(_stays(data[site].features) for site in self.origins)
        self._features: NDArray[Any] | Pictures
        if stored:
            parts = [data[site].features for site in self.origins]
            self._features = Pictures(parts, order=order.astype(np.int64), scale=description.scale)
        else:
            shape = data[self.origins[0]].features.shape[1:]
            self._features = np.empty((len(place), *shape), dtype=np.result_type(*kinds))
        several = (len(description.classes),) if description.multilabel else ()
        self._labels = np.empty((len(place), *several), dtype=np.int64)
        self._group = np.empty(len(place), dtype=np.int64) if grouped else None
        end = 0
        for site, count in zip(self.origins, counts, strict=True):
            own, rows = data[site], place[end : end + count]
            self._labels[rows] = own.labels
            if self._group is not None:
                # numbers of one site lie above those of the sites before it
                groups = np.unique(own.patients if own.groups is None else own.groups, return_inverse=True)[1]
                self._group[rows] = end + groups.reshape(-1)
            if isinstance(self._features, np.ndarray):
                self._features[rows] = own.features
            end += count
        del order
        self._arrange(self.origins, self._origin)

    def _arrange(self, sites: tuple[str, ...], owner: NDArray[np.int32]) -> None:
        """Which rows are whose; they are sorted by owner and split already."""
        self.sites = sites
        self._place = {site: i for i, site in enumerate(sites)}
        counts = np.bincount(owner * len(SPLITS) + self._split, minlength=len(sites) * len(SPLITS)).astype(np.int64)
        self._count: Ints = counts.reshape(len(sites), len(SPLITS))
        self._start: Ints = (np.cumsum(counts) - counts).reshape(self._count.shape)
        self._keys = streams.site_keys(sites)
        self._tensors: tuple[torch.Tensor | Pictures, torch.Tensor] | None = None
        self.standard: Standard | None = None

    def unprepared(self) -> Records:
        """The same rows for another run, which prepares them in its own way."""
        other = copy.copy(self)
        other._tensors, other.standard = None, None
        return other

    def merged(self) -> Records:
        """All rows as those of one site (the centralised baseline); preprocessing still knows whose rows are whose."""
        other = copy.copy(self)
        order = np.argsort(self._split, kind="stable")
        features = self._features
        other._features = features.taken(order) if isinstance(features, Pictures) else features[order]
        other._labels = self._labels[order]
        other._group = None if self._group is None else self._group[order]
        other._origin, other._split = self._origin[order], self._split[order]
        other._arrange((MERGED,), np.zeros(len(order), dtype=np.int32))
        return other

    def fingerprint(self) -> str:
        """SHA-256 of rows, labels, sites and splits: a resumed run must see the same records."""
        digest = hashlib.sha256("\x1f".join(self.origins).encode())
        for block in self._blocks():
            digest.update(np.ascontiguousarray(block).data)
        for array in (self._labels, self._origin, self._split, *(() if self._group is None else (self._group,))):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def _blocks(self) -> Iterator[NDArray[Any]]:
        if isinstance(self._features, np.ndarray):
            yield self._features
            return
        rows = len(self._features)
        each = max(_BLOCK * rows // max(self._features.nbytes, 1), 1)
        for start in range(0, rows, each):
            yield self._features.stored(np.arange(start, min(start + each, rows)))

    def index(self, sites: tuple[str, ...]) -> Ints:
        """Places of the named sites."""
        try:
            return np.fromiter(map(self._place.__getitem__, sites), dtype=np.int64, count=len(sites))
        except KeyError as error:
            raise DataError(
                f"no site {error.args[0]!r} here: this process holds {', '.join(self.sites[:10])}"
            ) from error

    def count(self, sites: tuple[str, ...], split: Split) -> Ints:
        """Rows of a split at each site, int64 [K]."""
        counts: Ints = self._count[self.index(sites), SPLITS.index(split)]
        return counts

    def class_counts(self, site: str) -> dict[str, list[int]]:
        """Split -> rows of each class, or with each label, at a site."""
        if self.description.multilabel:
            return {s: self._labels[self._span(site, s)].sum(axis=0).tolist() for s in SPLITS}
        classes = len(self.description.classes)
        return {s: np.bincount(self._labels[self._span(site, s)], minlength=classes).tolist() for s in SPLITS}

    def groups(self, sites: tuple[str, ...], split: Split) -> Ints | None:
        """The group of each row of a split of the named sites, int64 [R] in site order; None where rows are judged."""
        if self._group is None:
            return None
        return np.concatenate([np.zeros(0, dtype=np.int64), *(self._group[self._span(site, split)] for site in sites)])

    def raw_training(self, site: str) -> NDArray[Any]:
        """A site's raw training rows [n, columns]."""
        return self._raw(np.arange(len(self._labels))[self._span(site, "train")])

    def training_pictures(self, origin: str) -> Iterator[NDArray[np.float64]]:
        """Training rows that came from one hospital, scaled and in blocks [n, *shape], also where sites are merged."""
        yield from self._pictures().exact(self._training_of_origin(origin))

    def first_training_rows(self) -> dict[int, int]:
        """Stream key of a site -> number of its first training row."""
        return dict(zip(self._keys.tolist(), self._start[:, SPLITS.index("train")].tolist(), strict=True))

    def _pictures(self) -> Pictures:
        return self._features if isinstance(self._features, Pictures) else Pictures([self._features])

    def _span(self, site: str, split: Split) -> slice:
        place, part = self._place[site], SPLITS.index(split)
        start = int(self._start[place, part])
        return slice(start, start + int(self._count[place, part]))

    def prepare(
        self,
        shared: Fitted | None,
        own: Mapping[str, Fitted],
        *,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        """Turn raw rows into tensors on the device; pictures that are standardised stay as they are until a batch is made.

        Args:
            shared: the federation's preprocessing, or None for data that need none.
            own: origin site -> its own, where it standardises by itself.
            device, dtype: where and what the features become.
        """
        labels = torch.from_numpy(self._labels).to(device)
        if isinstance(shared, Standardization):
            each = [own.get(site, shared) for site in self.origins] if own else [shared]
            fitted = [one for one in each if isinstance(one, Standardization)]
            self.standard = Standard(
                mean=np.array([one.mean for one in fitted]), scale=np.array([one.scale for one in fitted]),
                owner=self._origin if own else None,
            )  # fmt: skip
            self._tensors = self._pictures().standardized(self.standard).on(device, dtype), labels
            return
        if isinstance(self._features, Pictures):
            self._tensors = self._features.on(device, dtype), labels
            return
        if shared is None:
            features = self._features
        elif own:
            features = np.empty((len(self._labels), len(shared.names)))
            for i, site in enumerate(self.origins):
                rows = self._origin == i
                fit = own.get(site)
                fit = fit if isinstance(fit, Preprocessing) else shared
                features[rows] = fit.transform(self._features[rows])
        else:
            features = shared.transform(self._features)
        self._tensors = (
            torch.from_numpy(np.ascontiguousarray(features)).to(device=device, dtype=dtype),
            labels,
        )

    def move(self, features: torch.Tensor | Pictures, labels: torch.Tensor) -> None:
        """Hold the prepared rows elsewhere: the same values, in memory that processes share."""
        self._tensors = features, labels

    def raw_training_of_origin(self, site: str) -> NDArray[Any]:
        """Raw training rows [n, columns] that came from one hospital, also where sites are merged."""
        return self._raw(self._training_of_origin(site))

    def _training_of_origin(self, site: str) -> Ints:
        own = (self._origin == self.origins.index(site)) & (self._split == SPLITS.index("train"))
        return np.flatnonzero(own)

    def _raw(self, rows: Ints) -> NDArray[Any]:
        found: NDArray[Any] = (
            self._features.stored(rows) if isinstance(self._features, Pictures) else self._features[rows]
        )
        return found

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Shape of one prepared row."""
        return tuple(self._prepared()[0].shape[1:])

    def rows(self, sites: tuple[str, ...], split: Split) -> Rows:
        """One split of the named sites."""
        features, labels = self._prepared()
        index, part = self.index(sites), SPLITS.index(split)
        return Rows(
            features=features,
            labels=labels,
            start=self._start[index, part],
            count=self._count[index, part],
            keys=self._keys[index],
        )

    def _prepared(self) -> tuple[torch.Tensor | Pictures, torch.Tensor]:
        if self._tensors is None:
            raise DataError("records are not prepared: the server's `prepare` message comes before any task")
        return self._tensors


def _stays(features: NDArray[Any]) -> bool:
    return isinstance(features, np.memmap) or features.dtype.kind in "uib"


def _split_of(site: str, data: SiteData) -> NDArray[np.int8]:
    if data.split is None:
        raise DataError(f"site {site}: its rows have no split yet: draw one with wardround.data.split.split_patients")
    return data.split

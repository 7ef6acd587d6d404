"""The records that the sites of one process hold: raw, then as tensors once the preprocessing is known."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from wardround import streams
from wardround.data.preprocess import Preprocessing
from wardround.errors import DataError
from wardround.types import SPLITS, Description, Rows, SiteData, Split

Ints = NDArray[np.int64]
MERGED = "all"
"""Name of the one site of a centralised run."""


class Records:
    """Rows of many sites, flat and sorted by site and split.

    Args:
        description: what the dataset is.
        data: site -> records, with `split` filled in.
        merged: present all sites as one (the centralised baseline); preprocessing still knows whose rows are whose.
    """

    def __init__(self, description: Description, data: Mapping[str, SiteData], *, merged: bool = False) -> None:
        self.description = description
        self.origins = tuple(sorted(data))
        self.sites = (MERGED,) if merged else self.origins
        self._place = {site: i for i, site in enumerate(self.sites)}
        origin = np.repeat(np.arange(len(self.origins)), [len(data[s].labels) for s in self.origins])
        features = np.concatenate([data[s].features for s in self.origins])
        labels = np.concatenate([data[s].labels for s in self.origins]).astype(np.int64)
        split = np.concatenate([_split_of(s, data[s]) for s in self.origins])
        owner = np.zeros_like(origin) if merged else origin
        order = np.lexsort((split, owner))
        self._features, self._labels, self._origin = features[order], labels[order], origin[order]
        cells = owner * len(SPLITS) + split
        counts = np.bincount(cells, minlength=len(self.sites) * len(SPLITS)).astype(np.int64)
        self._count: Ints = counts.reshape(len(self.sites), len(SPLITS))
        self._start: Ints = (np.cumsum(counts) - counts).reshape(self._count.shape)
        self._keys = streams.site_keys(self.sites)
        self._split = split[order]
        self._tensors: tuple[torch.Tensor, torch.Tensor] | None = None

    def fingerprint(self) -> str:
        """SHA-256 of rows, labels, sites and splits: a resumed run must see the same records."""
        digest = hashlib.sha256("\x1f".join(self.origins).encode())
        for array in (self._features, self._labels, self._origin, self._split):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def index(self, sites: tuple[str, ...]) -> Ints:
        """Places of the named sites."""
        try:
            return np.fromiter((self._place[s] for s in sites), dtype=np.int64, count=len(sites))
        except KeyError as error:
            raise DataError(
                f"no site {error.args[0]!r} here: this process holds {', '.join(self.sites[:10])}"
            ) from error

    def count(self, sites: tuple[str, ...], split: Split) -> Ints:
        """Rows of a split at each site, int64 [K]."""
        counts: Ints = self._count[self.index(sites), SPLITS.index(split)]
        return counts

    def class_counts(self, site: str) -> dict[str, list[int]]:
        """Split -> rows of each class at a site."""
        classes = len(self.description.classes)
        return {s: np.bincount(self._labels[self._span(site, s)], minlength=classes).tolist() for s in SPLITS}

    def raw_training(self, site: str) -> NDArray[Any]:
        """A site's raw training rows [n, columns]."""
        return self._features[self._span(site, "train")]

    def _span(self, site: str, split: Split) -> slice:
        place, part = self._place[site], SPLITS.index(split)
        start = int(self._start[place, part])
        return slice(start, start + int(self._count[place, part]))

    def prepare(
        self,
        shared: Preprocessing | None,
        own: Mapping[str, Preprocessing],
        *,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        """Turn raw rows into tensors on the device.

        Args:
            shared: the federation's preprocessing, or None for data that need none.
            own: origin site -> its own, where it standardises by itself.
            device, dtype: where and what the features become.
        """
        if shared is None:
            features = self._features
        elif own:
            features = np.empty((len(self._labels), len(shared.names)))
            for i, site in enumerate(self.origins):
                rows = self._origin == i
                features[rows] = own.get(site, shared).transform(self._features[rows])
        else:
            features = shared.transform(self._features)
        self._tensors = (
            torch.from_numpy(np.ascontiguousarray(features)).to(device=device, dtype=dtype),
            torch.from_numpy(self._labels).to(device),
        )

    def raw_training_of_origin(self, site: str) -> NDArray[Any]:
        """Raw training rows [n, columns] that came from one hospital, also where sites are merged."""
        own = (self._origin == self.origins.index(site)) & (self._split == SPLITS.index("train"))
        rows: NDArray[Any] = self._features[own]
        return rows

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

    def _prepared(self) -> tuple[torch.Tensor, torch.Tensor]:
        if self._tensors is None:
            raise DataError("records are not prepared: the server's `prepare` message comes before any task")
        return self._tensors


def _split_of(site: str, data: SiteData) -> NDArray[np.int8]:
    if data.split is None:
        raise DataError(f"site {site}: its rows have no split yet: draw one with wardround.data.split.split_patients")
    return data.split

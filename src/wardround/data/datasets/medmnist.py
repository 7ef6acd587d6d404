"""MedMNIST: eighteen small sets of pictures and volumes in their official splits.

J. Yang et al.: MedMNIST v2, a large-scale lightweight benchmark for 2D and 3D biomedical image classification, Scientific
Data 10, 2023. They tell no patients apart (the published splits of some are by patient), and some hold equal pictures in
two splits.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray

from wardround.data.datasets.medmnist_sets import CITATION, PAGE, SETS, file_name
from wardround.data.imaging import cache, twins
from wardround.data.root import data_root
from wardround.errors import ConfigError, DataError
from wardround.types import SPLITS, Description, Json, SiteData

_PARTS = ("train", "val", "test")
_BLOCK = 2**24


class MedMNIST:
    """One set, from its official file: uint8 pictures [C, H, W] or volumes [1, D, H, W], with the official split.

    A picture that is in two splits leaves the one that learns: test keeps it before validation, validation before train.
    Equal pictures of one split count as one patient, so that they go to the same simulated site.

    Args:
        name: of the set, such as `pneumoniamnist`.
        size: side in pixels: 28, 64, 128 or 224, of volumes 28 or 64.
        duplicates: `drop` as above; `keep` is the published split to the row.

    Raises:
        ConfigError: an option has another value.
    """

    def __init__(self, name: str = "pneumoniamnist", size: int = 28, duplicates: str = "drop") -> None:
        if name not in SETS:
            raise ConfigError(f"data.options.name = {name!r}: expected one of {', '.join(SETS)}")
        if isinstance(size, bool) or size not in SETS[name].md5:
            sizes = ", ".join(map(str, SETS[name].md5))
            raise ConfigError(f"data.options.size = {size!r}: {name} has pictures of {sizes} pixels")
        if duplicates not in ("drop", "keep"):
            raise ConfigError(f"data.options.duplicates = {duplicates!r}: expected 'drop' or 'keep'")
        self.name = name
        self.size = size
        self.duplicates: Literal["drop", "keep"] = "drop" if duplicates == "drop" else "keep"
        self._set = SETS[name]

    def describe(self) -> Description:
        """One pool, without columns."""
        return Description(
            name="medmnist",
            title=f"MedMNIST {self.name}: {self._set.title}",
            source=PAGE,
            licence=f"{self._set.licence}; cite {CITATION}",
            sites=(self.name,),
            shape=self._shape,
            classes=self._set.classes,
            multilabel=self._set.multilabel,
            scale=(0.0, 255.0),
        )

    @property
    def _shape(self) -> tuple[int, ...]:
        return (self._set.channels, *(self.size,) * self._set.spatial)

    @property
    def left_out(self) -> dict[str, int]:
        """Split -> pictures left out, since a split that judges has them too. Reads the file."""
        counts: dict[str, int] = self._prepared[1]["left_out"]
        return counts

    def load(self, site: str) -> SiteData:
        """All rows: features uint8 [n, *shape], memory-mapped; labels int64 [n], or [n, labels]; the official split.

        Raises:
            DataError: the site is unknown, WARDROUND_DATA or the file is absent, or the file is malformed.
            StorageError: the cache cannot be written.
        """
        if site != self.name:
            raise DataError(f"site {site!r}: this set has one site, {self.name!r}")
        folder = self._prepared[0]
        return SiteData(
            features=np.load(folder / "images.npy", mmap_mode="r"),
            labels=np.load(folder / "labels.npy").astype(np.int64),
            patients=np.load(folder / "groups.npy"),
            split=np.load(folder / "split.npy"),
        )

    @cached_property
    def _prepared(self) -> tuple[Path, dict[str, Any]]:
        path = self._path()
        settings = {"shape": self._shape, "classes": len(self._set.classes), "duplicates": self.duplicates}
        return cache.once(
            file_name(self.name, self.size)[:-4], settings, [path], lambda fresh: self._unpack(path, fresh)
        )

    def _path(self) -> Path:
        file = file_name(self.name, self.size)
        layout = f"medmnist/{file} or {self.name}/{file}"
        root = data_root("medmnist", layout=layout, source=PAGE)
        for folder in ("medmnist", self.name):
            if (root / folder / file).is_file():
                return root / folder / file
        raise DataError(
            f"there is neither {root / 'medmnist' / file} nor {root / self.name / file}: `wardround data fetch "
            f"medmnist --only {file}` gets it (from {PAGE})"
        )

    def _unpack(self, path: Path, folder: Path) -> Mapping[str, Json]:
        labels, split = [], []
        for code, part in enumerate(_PARTS):
            own = self._labels(path, part)
            labels.append(own)
            split.append(np.full(len(own), code, dtype=np.int8))
        codes = np.concatenate(split)
        same = twins.places(twins.fingerprints(self._pictures(path)))
        if len(same) != len(codes):
            raise DataError(f"{path}: {len(same)} pictures for {len(codes)} labels: fetch it again from {PAGE}")
        out = twins.straddling(same, codes) if self.duplicates == "drop" else np.zeros(len(codes), dtype=np.bool_)
        kept = np.lib.format.open_memmap(
            folder / "images.npy", mode="w+", dtype=np.uint8, shape=(int(np.sum(~out)), *self._shape)
        )
        for place, row in enumerate(row for row, gone in zip(self._pictures(path), out, strict=True) if not gone):
            kept[place] = row
        kept.flush()
        np.save(folder / "labels.npy", np.concatenate(labels)[~out])
        np.save(folder / "split.npy", codes[~out])
        # with `keep`, a picture in two splits must be two patients
        groups = same if self.duplicates == "drop" else twins.places(same * len(SPLITS) + codes)
        np.save(folder / "groups.npy", groups[~out])
        counts = twins.counted(codes, out)
        return {"rows": len(kept), "left_out": counts, "repeated": int(np.sum(same != np.arange(len(same))))}

    def _labels(self, path: Path, part: str) -> NDArray[np.int8]:
        with _array(path, f"{part}_labels") as (stream, shape, dtype):
            labels = np.frombuffer(stream.read(), dtype=dtype).reshape(shape)
        columns = len(self._set.classes) if self._set.multilabel else 1
        if labels.dtype.kind not in "iu" or labels.shape not in ((shape[0], columns), (shape[0],) * (columns == 1)):
            raise DataError(
                f"{path}, {part}_labels: {labels.dtype} {list(labels.shape)}, expected whole numbers [n, {columns}]: "
                f"is it {self.name}? Fetch it again from {PAGE}"
            )
        highest = 1 if self._set.multilabel else len(self._set.classes) - 1
        if labels.size and not 0 <= labels.min() <= labels.max() <= highest:
            raise DataError(f"{path}, {part}_labels: {labels.min()} to {labels.max()}, expected 0 to {highest}")
        return labels.astype(np.int8) if self._set.multilabel else labels.reshape(-1).astype(np.int8)

    def _pictures(self, path: Path) -> Iterator[NDArray[np.uint8]]:
        """Each picture uint8 [C, ...], train first, without holding more than a block of them."""
        side = (self.size,) * self._set.spatial
        row = (*side, self._set.channels) if self._set.channels > 1 else side
        size = int(np.prod(row))
        for part in _PARTS:
            with _array(path, f"{part}_images") as (stream, shape, dtype):
                if dtype != np.uint8 or shape[1:] != row:
                    raise DataError(
                        f"{path}, {part}_images: {dtype} {list(shape)}, expected uint8 {['n', *row]}: is it "
                        f"{file_name(self.name, self.size)}? Fetch it again from {PAGE}"
                    )
                left, most = shape[0], max(_BLOCK // size, 1)
                while left:
                    rows = min(left, most)
                    block = np.frombuffer(stream.read(rows * size), dtype=np.uint8)
                    if len(block) != rows * size:
                        raise DataError(f"{path}, {part}_images: it ends early: fetch it again from {PAGE}")
                    for picture in block.reshape(rows, *row):
                        yield np.moveaxis(picture, -1, 0) if self._set.channels > 1 else picture[None]
                    left -= rows


@contextmanager
def _array(path: Path, key: str) -> Iterator[tuple[IO[bytes], tuple[int, ...], np.dtype[Any]]]:
    """A stream of an array's bytes in an npz archive, its shape and dtype; never a pickled object."""
    try:
        with zipfile.ZipFile(path) as archive:
            if f"{key}.npy" not in archive.namelist():
                raise DataError(f"{path} has no array {key}: expected train, val and test, _images and _labels")
            with archive.open(f"{key}.npy") as stream:
                version = np.lib.format.read_magic(stream)
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                shape, fortran, dtype = read(stream)
                if fortran or dtype.hasobject or not shape:
                    raise DataError(f"{path}, {key}: expected a plain array in C order: fetch it again from {PAGE}")
                yield stream, shape, dtype
    except (zipfile.BadZipFile, ValueError, EOFError) as error:
        raise DataError(f"{path} is no npz archive that can be read: {error}: fetch it again from {PAGE}") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error

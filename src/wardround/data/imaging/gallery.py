"""A public collection of picture files: decoded once, to one size, into one memory-mapped array a site.

Colour and grey pictures of 8 bits (JPEG, PNG); what a hospital has in DICOM or NIfTI goes through a prepared folder.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from wardround.data.imaging import cache, twins
from wardround.errors import ConfigError, DataError
from wardround.types import Json, SiteData

Fit = Literal["crop", "stretch", "pad"]
_PIXELS = 2**28
_ROWS = 256


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The files of a collection, row by row.

    Attributes:
        paths: of n pictures.
        labels: int64 [n], or [n, labels] of 0 and 1.
        groups: [n], what must not be divided: the patient, the lesion.
        sites: [n], names.
        split: int8 [n], index into SPLITS, or None where it is still to be drawn.
    """

    paths: Sequence[Path]
    labels: NDArray[np.int64]
    groups: NDArray[Any]
    sites: NDArray[np.str_]
    split: NDArray[np.int8] | None = None

    def present(self) -> Listing:
        """The rows whose picture is there."""
        keep = np.array([path.is_file() for path in self.paths], dtype=np.bool_)
        return Listing(
            paths=[path for path, there in zip(self.paths, keep, strict=True) if there],
            labels=self.labels[keep],
            groups=self.groups[keep],
            sites=self.sites[keep],
            split=None if self.split is None else self.split[keep],
        )


@dataclass(frozen=True, kw_only=True)
class Look:
    """How each picture is made the same.

    Attributes:
        size: side in pixels.
        channels: 1 grey, 3 colour.
        fit: `crop` scales the shorter side and cuts the middle; `pad` scales the longer side and fills with black;
            `stretch` changes the proportions.
    """

    size: int
    channels: Literal[1, 3] = 3
    fit: Fit = "crop"

    def __post_init__(self) -> None:
        """Raise ConfigError for a size or fit that is none."""
        if isinstance(self.size, bool) or not isinstance(self.size, int) or not 8 <= self.size <= 2048:
            raise ConfigError(f"data.options.size = {self.size!r}: expected a side of 8 to 2048 pixels")
        if self.fit not in ("crop", "stretch", "pad"):
            raise ConfigError(f"data.options.fit = {self.fit!r}: expected 'crop', 'stretch' or 'pad'")

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, size, size)."""
        return self.channels, self.size, self.size


@dataclass(frozen=True, kw_only=True)
class Gathered:
    """What `gather` gives.

    Attributes:
        sites: name -> records, features uint8 [n, C, size, size] mapped from the cache.
        counts: `rows`; `repeated`: pictures that equal an earlier one; `left_out`: of a group that would have been on both
            sides of an official split, or at two sites.
    """

    sites: dict[str, SiteData] = field(default_factory=dict)
    counts: dict[str, Json] = field(default_factory=dict)


def gather(name: str, listing: Listing, look: Look) -> Gathered:
    """Decode a collection, or find it in the cache.

    Pictures equal in every pixel join their groups. With an official split, a group in two of its parts keeps the rows of
    the part that judges (test before validation before train). Without one, a group stays at the site of its first row.

    Args:
        name: of the dataset; begins the folder's name.
        listing: at least one row.
        look: size, channels and fit.

    Raises:
        DataError: there is no row, a file is absent or is no picture.
        StorageError: the cache cannot be written.
    """
    if not listing.paths:
        raise DataError(f"dataset {name}: there is no picture: is its folder the right one?")
    sites = sorted(set(listing.sites.tolist()))
    settings = {"look": [look.size, look.channels, look.fit], "rows": _digest(listing)}
    folder, manifest = cache.once(
        f"{name}-{look.size}", settings, listing.paths, lambda fresh: _build(listing, look, sites, fresh)
    )
    found = {}
    for number, site in enumerate(sites):
        with np.load(folder / f"records-{number}.npz") as records:
            split = records["split"]
            found[site] = SiteData(
                features=np.load(folder / f"images-{number}.npy", mmap_mode="r"),
                labels=records["labels"],
                patients=records["groups"],
                split=split if len(split) else None,
            )
    return Gathered(sites=found, counts=manifest)


def _digest(listing: Listing) -> str:
    digest = hashlib.sha256()
    split = np.zeros(0, dtype=np.int8) if listing.split is None else listing.split
    for array in (listing.labels, np.asarray(listing.groups, dtype=np.str_), listing.sites, split):
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _build(listing: Listing, look: Look, sites: Sequence[str], folder: Path) -> dict[str, Json]:
    rows = len(listing.paths)
    every = np.lib.format.open_memmap(folder / "all.npy", mode="w+", dtype=np.uint8, shape=(rows, *look.shape))
    for place, picture in enumerate(_decoded(listing.paths, look)):
        every[place] = picture
    same = twins.places(twins.fingerprints(every))
    groups = twins.joined(listing.groups, same)
    split = listing.split
    out = twins.elsewhere(groups, listing.sites) if split is None else twins.straddling(groups, split)
    for number, site in enumerate(sites):
        own = np.flatnonzero((listing.sites == site) & ~out)
        kept = np.lib.format.open_memmap(
            folder / f"images-{number}.npy", mode="w+", dtype=np.uint8, shape=(len(own), *look.shape)
        )
        for start in range(0, len(own), _ROWS):
            kept[start : start + _ROWS] = every[own[start : start + _ROWS]]
        kept.flush()
        np.savez(
            folder / f"records-{number}.npz",
            labels=listing.labels[own],
            groups=groups[own],
            split=np.zeros(0, dtype=np.int8) if listing.split is None else listing.split[own],
        )
    del every
    (folder / "all.npy").unlink()
    left_out: Json = int(np.sum(out)) if listing.split is None else twins.counted(listing.split, out)
    return {"rows": rows - int(np.sum(out)), "repeated": int(np.sum(same != np.arange(rows))), "left_out": left_out}


def _decoded(paths: Sequence[Path], look: Look) -> Iterator[NDArray[np.uint8]]:
    """Each picture uint8 [C, size, size], in order; a few at a time, on all cores."""
    waiting = iter(paths)
    workers = os.cpu_count() or 1
    with ThreadPoolExecutor(workers) as pool:
        ahead = [pool.submit(_decode, path, look) for path in islice(waiting, 4 * workers)]
        try:
            while ahead:
                yield ahead.pop(0).result()
                ahead += [pool.submit(_decode, path, look) for path in islice(waiting, 1)]
        finally:
            for one in ahead:
                one.cancel()


def _decode(path: Path, look: Look) -> NDArray[np.uint8]:
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise ConfigError('pictures need Pillow: pip install "wardround[imaging]"') from error

    mode = "RGB" if look.channels == 3 else "L"
    side = (look.size, look.size)
    try:
        with Image.open(path, formats=("JPEG", "PNG")) as opened:
            if opened.width * opened.height > _PIXELS:
                raise DataError(f"{path} claims {opened.width} x {opened.height} pixels, more than {_PIXELS}: refused")
            if opened.mode[0] in "IF":
                raise DataError(
                    f"{path} has more than 8 bits a pixel ({opened.mode}): `wardround data prepare` reads it"
                )
            if look.fit != "pad":
                opened.draft(mode, (2 * look.size, 2 * look.size))  # JPEG decodes at half the size for less
            picture = opened.convert(mode)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} is no JPEG or PNG that can be read: {error}: fetch it again") from error
    if picture.size != side:
        if look.fit == "crop":
            picture = ImageOps.fit(picture, side, Image.Resampling.BILINEAR)
        elif look.fit == "pad":
            picture = ImageOps.pad(picture, side, Image.Resampling.BILINEAR)
        else:
            picture = picture.resize(side, Image.Resampling.BILINEAR)
    pixels = np.asarray(picture, dtype=np.uint8)
    return np.ascontiguousarray(np.moveaxis(pixels, -1, 0)) if look.channels == 3 else pixels[None]

"""What the public collections of picture files have in common: listed once, decoded once, one site at a time."""

from __future__ import annotations

import csv
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

from wardround.data.imaging.gallery import Gathered, Listing, Look, gather
from wardround.data.root import data_root
from wardround.errors import ConfigError, DataError
from wardround.types import Description, Json, SiteData


class Collection(ABC):
    """A dataset of picture files.

    Attributes:
        look: size, channels and fit of its pictures.
        absent: `error`, or `skip` the rows whose picture is not there.
    """

    name: str
    """Registry name."""
    folder: str
    """Under WARDROUND_DATA."""
    layout: str
    """The files that are expected there, for errors."""
    page: str
    """Where they are handed out."""

    def __init__(self, look: Look, absent: str = "error") -> None:
        one_of("absent", absent, ("error", "skip"))
        self.look = look
        self.absent = absent

    @abstractmethod
    def describe(self) -> Description:
        """The description; where a table of the collection names the sites, it is read."""

    @abstractmethod
    def listed(self) -> Listing:
        """All rows, whether their pictures are there or not."""

    def load(self, site: str) -> SiteData:
        """One site's rows: features uint8 [n, C, size, size] mapped from the cache, labels, groups as patients.

        Raises:
            DataError: the site is unknown, WARDROUND_DATA or a file is absent, or something is malformed.
            StorageError: the cache cannot be written.
        """
        if site not in self._gathered.sites:
            raise DataError(f"site {site!r}: the dataset '{self.name}' has {', '.join(self._gathered.sites)}")
        return self._gathered.sites[site]

    @property
    def counts(self) -> Mapping[str, Json]:
        """Rows, repeated pictures, and what was left out since it would have been on both sides of a split."""
        return self._gathered.counts

    @property
    def home(self) -> Path:
        """The folder of the collection. Raises DataError where it is not there."""
        home = data_root(self.name, layout=f"{self.folder}/{self.layout}", source=self.page) / self.folder
        if not home.is_dir():
            raise DataError(f"there is no folder {home}: {self._advice}")
        return home

    def named(self, *names: str) -> Path:
        """The first of some names that is a file or folder of the collection. Raises DataError where none is."""
        for name in names:
            if (self.home / name).exists():
                return self.home / name
        raise DataError(f"{self.home} has no {' and no '.join(names)}: {self._advice}")

    @property
    def _advice(self) -> str:
        return f"'{self.name}' expects {self.layout}; `wardround data fetch {self.name}` gets it (from {self.page})"

    @cached_property
    def _listing(self) -> Listing:
        listing = self.listed()
        if self.absent == "skip":
            return listing.present()
        lost = [path for path in listing.paths if not path.is_file()]
        if lost:
            raise DataError(
                f"{len(lost)} of {len(listing.paths)} pictures are not there, such as {lost[0]}: {self._advice}; or leave "
                "their rows out with data.options.absent: skip"
            )
        return listing

    @cached_property
    def _gathered(self) -> Gathered:
        return gather(self.name, self._listing, self.look)


def one_of(option: str, value: object, expected: Sequence[str]) -> None:
    """Raise ConfigError unless an option has one of the expected values."""
    if value not in expected:
        names = " or ".join(repr(one) for one in expected)
        raise ConfigError(f"data.options.{option} = {value!r}: expected {names}")


def columns(path: Path, names: Sequence[str]) -> list[list[str]]:
    """Named columns of a comma-separated table with a header, as texts.

    Raises:
        DataError: it cannot be read, or lacks a column.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            lacking = [name for name in names if name not in (reader.fieldnames or ())]
            if lacking:
                raise DataError(
                    f"{path} has no column '{lacking[0]}': it has {', '.join(reader.fieldnames or ()) or 'none'}"
                )
            rows = [[(row[name] or "").strip() for name in names] for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    if not rows:
        raise DataError(f"{path} has no rows: fetch it again")
    return [list(column) for column in zip(*rows, strict=True)]


def lines(path: Path) -> list[str]:
    """Lines of a text file that are not empty. Raises DataError where it cannot be read."""
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def pictures_in(folder: Path) -> list[Path]:
    """JPEG and PNG files of a folder, sorted by name. Raises DataError where there are none."""
    found = sorted(path for path in folder.glob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if not found:
        raise DataError(f"{folder} has no JPEG or PNG file: fetch it again")
    return found


def whereabouts(folders: Iterable[Path], names: Sequence[str]) -> list[Path]:
    """The path of each file, in whichever folder has it; in the first where none has."""
    there: dict[str, Path] = {}
    places = [folder for folder in folders if folder.is_dir()]
    for folder in places:
        for path in folder.iterdir():
            there.setdefault(path.name, path)
    missing = places[0] if places else Path()
    return [there.get(Path(name).name, missing / Path(name).name) for name in names]

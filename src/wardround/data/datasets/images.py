"""Prepared folders as the sites of a federation: what `wardround data prepare` made, one a hospital."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from wardround.data.imaging.preflight import units_of
from wardround.data.imaging.site_folder import SiteFolder, is_prepared, open_folder
from wardround.errors import ConfigError, DataError
from wardround.types import SPLITS, Description, SiteData


class Images:
    """One prepared folder, or several; pictures stay on disk, mapped, until a batch is made of them.

    Rows of one patient or one group (a lesion, a study) are never divided.

    Args:
        path: a prepared folder, a folder of such folders, or a list of either; relative paths start at the working
            directory.
        classes: names in label order; () takes those of the folders, which must agree, or else all of them, sorted.
        official_split: whether to keep the split that the folders bring, where all of them bring one for every row.
        verify: whether to compare files with the hashes of their manifest, which reads them once.
        name, title, source, licence: for the report and the model card.

    Raises:
        ConfigError: an option is of another kind.
    """

    def __init__(
        self, path: str | Sequence[str], classes: Sequence[str] = (), official_split: bool = True, verify: bool = False,
        name: str = "images", title: str = "", source: str = "", licence: str = "",
    ) -> None:  # fmt: skip
        paths = [path] if isinstance(path, str) else path
        if not isinstance(paths, Sequence) or not paths or not all(isinstance(one, str) for one in paths):
            raise ConfigError(f"data.options.path = {path!r}: expected a folder, or a list of folders")
        if isinstance(classes, str) or not all(isinstance(one, str) for one in classes):
            raise ConfigError(f"data.options.classes = {classes!r}: expected a list of names")
        self.paths, self._given = tuple(paths), tuple(classes)
        self.official_split, self.verify = official_split, verify
        self.name, self.title, self.source, self.licence = name, title, source, licence

    def describe(self) -> Description:
        """What the manifests say; no picture is read."""
        manifests = [folder.manifest for folder in self._folders.values()]
        first = manifests[0]
        return Description(
            name=self.name,
            title=self.title or first.title or f"{first.modality} pictures",
            source=self.source or ", ".join(dict.fromkeys(one.source for one in manifests)),
            licence=self.licence or ", ".join(dict.fromkeys(one.licence for one in manifests)),
            sites=tuple(self._folders),
            shape=first.shape,
            classes=self._classes,
            multilabel=first.multilabel,
            natural=len(manifests) > 1,
            scale=first.scale,
        )

    def load(self, site: str) -> SiteData:
        """One site's pictures [n, C, *spatial] as they are stored, a memory map.

        Raises:
            DataError: the site is unknown, a file is absent, damaged or changed, or a label is no class.
        """
        if site not in self._folders:
            raise DataError(f"site {site!r}: the dataset '{self.name}' has {', '.join(self._folders)}")
        folder = self._folders[site]
        if self.verify:
            folder.verify()
        records = folder.records
        place = {name: number for number, name in enumerate(self._classes)}
        held = [[part for part in cell.split("|") if part] for cell in records["label"]]
        if unknown := sorted({name for names in held for name in names} - set(place)):
            raise DataError(
                f"{folder.path} has the class {', '.join(unknown)}, which is not among {', '.join(self._classes)}: add it to "
                "data.options.classes, or prepare the site with --classes"
            )
        if folder.manifest.multilabel:
            labels = np.zeros((len(held), len(place)), dtype=np.int64)
            for row, names in enumerate(held):
                labels[row, [place[name] for name in names]] = 1
        else:
            if wrong := next((row for row, names in enumerate(held) if len(names) != 1), None):
                raise DataError(f"{folder.path}: row {wrong} has {len(held[wrong])} labels, expected one")
            labels = np.array([place[names[0]] for names in held], dtype=np.int64)
        units = units_of(records["patient"], records["group"])
        groups = [group or f"row {row}" for row, group in enumerate(records["group"])]
        return SiteData(
            features=folder.images(),
            labels=labels,
            patients=np.array([records["patient"][unit] for unit in units], dtype=np.str_),
            split=self._split(records["split"]),
            groups=np.array(groups, dtype=np.str_) if any(records["group"]) else None,
        )

    def _split(self, cells: Sequence[str]) -> np.ndarray[tuple[int], np.dtype[np.int8]] | None:
        if not self.official_split or not self._all_split:
            return None
        return np.array([SPLITS.index(cell) for cell in cells], dtype=np.int8)

    @cached_property
    def _all_split(self) -> bool:
        return all(cell in SPLITS for folder in self._folders.values() for cell in folder.records["split"])

    @cached_property
    def _classes(self) -> tuple[str, ...]:
        if self._given:
            return self._given
        lists = list(dict.fromkeys(folder.manifest.classes for folder in self._folders.values()))
        return lists[0] if len(lists) == 1 else tuple(sorted({name for names in lists for name in names}))

    @cached_property
    def _folders(self) -> dict[str, SiteFolder]:
        folders: dict[str, SiteFolder] = {}
        for path in (found for given in self.paths for found in _found(Path(given).expanduser())):
            folder = open_folder(path)
            site = folder.manifest.site
            if site in folders:
                raise DataError(
                    f"{folders[site].path} and {path} are both the site '{site}': prepare one with another --site"
                )
            folders[site] = folder
        first = next(iter(folders.values()))
        for folder in folders.values():
            for what in ("shape", "scale", "multilabel", "modality"):
                mine, theirs = getattr(first.manifest, what), getattr(folder.manifest, what)
                if mine != theirs:
                    raise DataError(
                        f"{first.path} has {what} {mine}, and {folder.path} has {theirs}: prepare all sites with the same options"
                    )
        return dict(sorted(folders.items()))


def _found(path: Path) -> list[Path]:
    if is_prepared(path):
        return [path]
    if path.is_dir():
        found = sorted(child for child in path.iterdir() if not child.name.startswith(".") and is_prepared(child))
        if found:
            return found
    raise DataError(
        f"{path} (from {Path.cwd()}) is no prepared site and holds none: make one with `wardround data prepare`"
    )

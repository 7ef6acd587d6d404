"""A table as the checks see it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from wardround.data.profile.caution import Counted
from wardround.data.profile.cross import Cross
from wardround.data.profile.disguise import Disguise
from wardround.data.profile.facts import Facts
from wardround.data.profile.kinds import Guess, Kind, Roles
from wardround.data.profile.leaks import Association
from wardround.data.profile.order import in_order, written
from wardround.data.profile.scan import Scan

FEATURES: frozenset[Kind] = frozenset(("numeric", "categorical", "ordinal", "boolean"))
"""Kinds that may become features as they stand."""


@dataclass(frozen=True, kw_only=True)
class View:
    """Everything that was counted.

    Attributes:
        scan: of the whole table.
        columns: facts by name, suspected codes already taken as gaps.
        guesses: kinds by name.
        roles: label, site and patient column.
        disguises: suspected codes by name; columns without one are absent.
        cross: counts by site.
        associations: how well a column alone tells the label; columns for which it is undefined are absent.
        counted: which numbers of rows are told.
    """

    scan: Scan
    columns: Mapping[str, Facts]
    guesses: Mapping[str, Guess]
    roles: Roles
    disguises: Mapping[str, Sequence[Disguise]]
    cross: Cross
    counted: Counted
    associations: Mapping[str, Association] = field(default_factory=dict)

    def of_kind(self, kinds: Iterable[Kind]) -> list[Facts]:
        """The columns of some kinds, in the file's order."""
        wanted = frozenset(kinds)
        return [facts for name, facts in self.columns.items() if self.guesses[name].kind in wanted]

    @cached_property
    def classes(self) -> list[str]:
        """Values of the label, in order; [] without one."""
        if self.roles.label is None:
            return []
        return in_order(self.columns[self.roles.label].texts)

    @cached_property
    def class_rows(self) -> dict[str, int]:
        """Class -> rows of the table."""
        found = dict.fromkeys(self.classes, 0)
        for counts in self.cross.classes.values():
            for text, rows in counts.items():
                name = written(text)
                if name in found:
                    found[name] += rows
        return found

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """Class of each sampled row, int64 [n], -1 without one."""
        index = {name: place for place, name in enumerate(self.classes)}
        if self.roles.label is None:
            return np.full(len(self.scan.sample), -1, dtype=np.int64)
        cells = self.columns[self.roles.label].sample
        return np.fromiter((index.get(written(cell), -1) for cell in cells), dtype=np.int64, count=len(cells))

    @cached_property
    def sites(self) -> NDArray[np.object_] | None:
        """Site of each sampled row, or None without a site column."""
        return None if self.roles.site is None else self.columns[self.roles.site].sample

"""What describing a table warns of: one finding with its evidence and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["act", "check", "note"]


@dataclass(frozen=True, kw_only=True)
class Caution:
    """One finding.

    Attributes:
        kind: `identifier`, `leak`, `constant`, ...: what it is a case of.
        level: `act` before anything is trained or shared, `check`, or `note`.
        columns: the columns it is about; empty for the whole table.
        says: what was found, a clause.
        evidence: the figures behind it; no value of an identifier.
        do: what to do.
    """

    kind: str
    level: Level
    columns: tuple[str, ...]
    says: str
    evidence: str
    do: str


@dataclass(frozen=True, kw_only=True)
class Counted:
    """Numbers of rows as text; small ones are withheld.

    Attributes:
        below: numbers of rows from 1 to below this one are not told.
    """

    below: int = 5

    def rows(self, number: int) -> str:
        """`1 row`, `31 rows`, `fewer than 5 rows`."""
        if self.hides(number):
            return f"fewer than {self.below} rows"
        return f"{number:,} row{'' if number == 1 else 's'}"

    def of(self, part: int, total: int) -> str:
        """`31 of 920 rows (3.4 %)`."""
        if self.hides(part):
            return f"fewer than {self.below} of {total:,} rows"
        return f"{part:,} of {total:,} rows ({percent(part, total)})"

    def hides(self, number: int) -> bool:
        """Whether a number of rows is withheld."""
        return 0 < number < self.below


def percent(part: float, total: float) -> str:
    """A share in per cent, as exact as a reader needs: `3.4 %`, `0.02 %`, `100 %`; a dash of nothing."""
    if not total:
        return "-"
    share = 100 * part / total
    if share in (0, 100):
        return f"{share:.0f} %"
    if 1 <= share <= 99:
        return f"{share:.1f} %"
    return "<0.01 %" if share < 0.01 else ">99.99 %" if share > 99.99 else f"{share:.2f} %"


def named(columns: tuple[str, ...] | list[str], most: int = 6) -> str:
    """Names in a row: `a, b and 3 more`."""
    shown = ", ".join(columns[:most])
    return f"{shown} and {len(columns) - most} more" if len(columns) > most else shown

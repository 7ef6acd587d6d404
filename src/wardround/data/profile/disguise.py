"""Values that stand for 'not measured' without saying so: a cholesterol of 0, an age of 999, 'Unknown'.

A number is suspected where it is one that people use as a code, and where it lies apart from the other values: the gap
to the nearest is at least five times the usual distance of neighbours there, and a tenth of the median or more (a quarter
where fewer than a tenth of the rows have it). The zeros of a count are followed by ones, so they are not apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wardround.data.profile import names
from wardround.data.profile.facts import Facts
from wardround.data.profile.kinds import Guess
from wardround.data.profile.order import written

_ABOVE = frozenset(
    (9, 99, 999, 9999, 99999, 999999, 88, 888, 8888, 77, 777, 7777, 98, 998, 9998, 997, 66, 666, 99.9, 999.9, 9.99)
)
_BELOW = frozenset((-1, -9, -99, -999, -9999, -88, -77, -7, -8, -1.0, -999.9, -99.9, -99999))
_DAYS = ("1900-01-01", "1901-01-01", "1899-12-30", "1970-01-01", "1800-01-01", "0001-01-01", "9999-12-31", "2999-12-31",
         "2099-12-31", "2100-01-01", "01/01/1900", "01.01.1900", "31/12/9999", "31.12.9999", "12/31/9999")  # fmt: skip
_NEIGHBOURS = 10
_APART = 5.0
_FEWEST = 3


@dataclass(frozen=True, kw_only=True)
class Disguise:
    """One value that may mean 'not measured'.

    Attributes:
        code: as it is written.
        rows: rows that have it.
        why: the evidence besides.
        certain: whether the draft takes it as missing.
    """

    code: str
    rows: int
    why: str
    certain: bool = True


def disguised(facts: Facts, guess: Guess) -> list[Disguise]:
    """The suspected values of a column, the most frequent first."""
    found: list[Disguise] = []
    if guess.kind in ("numeric", "categorical", "ordinal"):
        found += _numbers(facts, coded=guess.kind != "numeric")
    if guess.kind == "date":
        found += _days(facts)
    if guess.kind in ("numeric", "categorical", "ordinal", "boolean"):
        found += [
            Disguise(code=text, rows=rows, why="the word says that it is not known")
            for text, rows in facts.unknown.items()
        ]
    if guess.kind in ("categorical", "ordinal"):
        found += [
            Disguise(
                code=text,
                rows=rows,
                why="it may say that nothing was measured, or that there was none",
                certain=False,
            )
            for text, rows in facts.nothing.items()
            if rows >= 0.2 * facts.rows
        ]
    return sorted(found, key=lambda one: -one.rows)


def _numbers(facts: Facts, *, coded: bool) -> list[Disguise]:
    numbers, rows = facts.amounts
    if len(numbers) < 2:
        return [_impossible(0.0, facts, int(rows.sum()))] if _all_zero(numbers, facts) else []
    suspects = {n for n in numbers.tolist() if n in _BELOW or n in _ABOVE}
    plain = ~np.isin(numbers, [n for n in suspects if n in _BELOW])
    found = []
    for place, number in enumerate(numbers.tolist()):
        here = int(rows[place])
        rest = plain.copy()
        rest[place] = False
        others, weights = numbers[rest], rows[rest]
        if number == 0 and not coded and others.size and others[0] > 0:
            if names.zero_impossible(facts.name):
                found.append(_impossible(number, facts, here))
            elif here >= _FEWEST and _apart(others, weights, here):
                why = f"the next value is {others[0]:g}, the median of the others {_median(others, weights):g}"
                found.append(Disguise(code=_text(number, facts), rows=here, why=why))
        elif number in _BELOW and others.size and others[0] >= 0 and not _signed(facts.name) and here >= _FEWEST:
            why = f"no other value is below {others[0]:g}"
            found.append(Disguise(code=_text(number, facts), rows=here, why=why))
        elif number in _ABOVE and here >= _FEWEST and _beyond(number, numbers, rows, suspects, coded=coded):
            rest_max = max(n for n in numbers.tolist() if n < number and not (n in suspects and n in _ABOVE and n > 9))
            found.append(
                Disguise(code=_text(number, facts), rows=here, why=f"the largest of the other values is {rest_max:g}")
            )
    return found


def _all_zero(numbers: NDArray[np.float64], facts: Facts) -> bool:
    return len(numbers) == 1 and numbers[0] == 0 and names.zero_impossible(facts.name)


def _impossible(number: float, facts: Facts, rows: int) -> Disguise:
    return Disguise(code=_text(number, facts), rows=rows, why="no living patient has 0 here")


def _apart(others: NDArray[np.float64], weights: NDArray[np.int64], zeros: int) -> bool:
    """Whether 0 lies apart from the smallest of the other values, all positive."""
    if len(others) < 5 or int(weights.sum()) < 20:
        return False
    usual = float(np.median(np.diff(others[: _NEIGHBOURS + 1])))
    # few zeros may be small amounts rounded down: they must lie farther away than many
    least = 0.1 if zeros >= 0.1 * (zeros + int(weights.sum())) else 0.25
    return bool(others[0] >= _APART * usual and others[0] >= least * _median(others, weights))


def _beyond(
    number: float, numbers: NDArray[np.float64], rows: NDArray[np.int64], suspects: set[float], *, coded: bool
) -> bool:
    """Whether a code of nines or the like lies far above all values that are no such code."""
    keep = np.array([n < number and not (n in suspects and n > 9 and number > n) for n in numbers.tolist()])
    others, weights = numbers[keep], rows[keep]
    larger = [n for n in numbers.tolist() if n > number and n not in suspects]
    if larger or len(others) < 2 or int(weights.sum()) < 20 or others[0] < 0:
        return False
    middle = _median(others, weights)
    reach = max(float(others[-1]) - middle, 1e-9)
    if coded:
        return number >= 2 * float(others[-1]) + 1 and number - float(others[-1]) > float(np.diff(others).max())
    usual = float(np.median(np.diff(others[-_NEIGHBOURS - 1 :])))
    return number - float(others[-1]) >= _APART * usual and number - middle >= 3 * reach


def _days(facts: Facts) -> list[Disguise]:
    usual = float(np.median(list(facts.counts.values()))) if facts.counts else 0.0
    return [
        Disguise(code=text, rows=rows, why="a day that programs put where there is none")
        for text, rows in facts.counts.items()
        if text.startswith(_DAYS) and rows >= max(_FEWEST, 5 * usual)
    ]


def _signed(name: str) -> bool:
    return bool(
        frozenset(names.words(name)) & {"change", "delta", "diff", "difference", "z", "log", "excess", "balance"}
    )


def _median(values: NDArray[np.float64], weights: NDArray[np.int64]) -> float:
    return float(values[np.searchsorted(np.cumsum(weights), weights.sum() / 2)])


def _text(number: float, facts: Facts) -> str:
    """How schemas write the number."""
    from wardround.data.profile.scan import as_numbers

    amounts = as_numbers(np.array(facts.texts, dtype=object), facts.decimal, facts.unit)
    return next(written(text) for text, value in zip(facts.texts, amounts, strict=True) if value == number)

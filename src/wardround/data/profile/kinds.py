"""What kind of column each is, and why: a draft that a person corrects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from wardround.data.profile import looks, names
from wardround.data.profile.facts import Facts

Kind = Literal[
    "numeric", "categorical", "ordinal", "boolean", "identifier", "date", "label", "patient", "site", "ignore"
]

_MANY_LEVELS = 1000
_FEW_CODES = 5
_NEARLY_ALL = 0.9
_MOSTLY_NUMBERS = 0.8


@dataclass(frozen=True, kw_only=True)
class Guess:
    """The kind of a column.

    Attributes:
        kind: as the schema names it.
        why: in a few words.
        identifies: what identifier of a person it is (`e-mail address`), or '' for none.
        levels: for ordinal columns, from the lowest to the highest.
        unit: what stands behind every number, or ''.
    """

    kind: Kind
    why: str
    identifies: str = ""
    levels: tuple[str, ...] = ()
    unit: str = ""


@dataclass(frozen=True, kw_only=True)
class Roles:
    """Columns of a part of their own; None for none.

    Attributes:
        label: the outcome.
        site: the hospital.
        patient: the patient's identifier.
        time: of a survival table, the time to the event.
        guessed: the roles that nobody named.
    """

    label: str | None = None
    site: str | None = None
    patient: str | None = None
    time: str | None = None
    guessed: frozenset[str] = frozenset()


def guess_roles(columns: Mapping[str, Facts], given: Roles, *, headed: bool) -> Roles:
    """Label, site and patient column, by name and by content; a headerless table's last column may be the label."""
    there = {name: facts for name, facts in columns.items() if facts.distinct > 1}
    found: dict[str, str] = {}
    survival = names.event_and_time(tuple(columns))
    if given.label is None:
        scores = {name: _label_score(name, facts) for name, facts in there.items()}
        best = max(scores, key=lambda name: (scores[name], list(there).index(name)), default=None)
        if best is not None and scores[best] > 0:
            found["label"] = best
        elif survival and _classes(columns[survival[0]]):
            found["label"] = survival[0]
        else:
            last = list(columns)[-1]
            if _classes(columns[last]) and (not headed or _outcome(columns[last])):
                found["label"] = last
    label = given.label or found.get("label")
    if given.patient is None:
        ranked = {
            name: names.of_patient(name)
            for name, facts in columns.items()
            if name != label and facts.distinct > max(1, facts.rows // 1000)
        }
        best = max(ranked, key=lambda name: ranked[name], default=None)
        if best is not None and ranked[best] > 0:
            found["patient"] = best
    if given.site is None:
        sited = {
            name: names.of_site(name)
            for name, facts in there.items()
            if name != label and facts.distinct <= min(500, max(facts.rows // 5, 1)) and not facts.missing
        }
        best = max(sited, key=lambda name: sited[name], default=None)
        if best is not None and sited[best] > 0:
            found["site"] = best
    return replace(
        given,
        **found,
        time=survival[1] if survival and survival[0] == label else None,
        guessed=frozenset(found),
    )


def _classes(facts: Facts) -> bool:
    return 2 <= facts.distinct <= 20 and (facts.wholly_whole or not facts.scan.numbers)


def _outcome(facts: Facts) -> bool:
    """Whether the last column of a table with names may be the outcome: yes or no, and nothing known by its name."""
    return _truth(facts) and not facts.missing and not names.of_split(facts.name)


def _label_score(name: str, facts: Facts) -> int:
    score = names.of_label(name)
    if not score or facts.missing > facts.rows // 2:
        return 0
    return score if _classes(facts) else 0


def guess_kind(facts: Facts, roles: Roles) -> Guess:
    """The kind of one column."""
    return _by_role(facts, roles) or _unusable(facts) or (_declared(facts) if facts.declared else _by_content(facts))


def _by_role(facts: Facts, roles: Roles) -> Guess | None:
    part: Kind
    for part in ("label", "site", "patient"):
        if getattr(roles, part) == facts.name:
            identifies = "patient's number" if part == "patient" else ""
            return Guess(kind=part, why=_reason(facts.name, part, roles), identifies=identifies)
    if facts.name == roles.time:
        return Guess(kind="ignore", why="time to the event, known only with the outcome")
    return None


def _unusable(facts: Facts) -> Guess | None:
    """Nothing in it, an identifier by its name, or a division into training and test."""
    announced = names.direct_identifier(facts.name)
    guess = None
    if not facts.present:
        guess = Guess(kind="ignore", why="empty")
    # a column of yes and no is none, whatever its name
    elif announced and not _truth(facts) and (facts.distinct > 2 or facts.rows < 20):
        guess = Guess(kind="identifier", why=f"{announced}, by its name", identifies=announced)
    elif facts.distinct == 1 and facts.scan.least == facts.scan.greatest == 0 and names.zero_impossible(facts.name):
        guess = Guess(kind="numeric", why="zeros alone, by its name a quantity")
    elif facts.distinct == 1:
        guess = Guess(kind="ignore", why="one value alone")
    elif names.of_split(facts.name) and facts.distinct <= 50:
        guess = Guess(kind="ignore", why="a division into training and test, by its name")
    return guess


def _reason(name: str, role: str, roles: Roles) -> str:
    if role not in roles.guessed:
        return "as given"
    scores = {"label": names.of_label, "site": names.of_site, "patient": names.of_patient}
    return "by its name" if scores[role](name) or roles.time else "the last column, of few values"


def _declared(facts: Facts) -> Guess:
    column = facts.declared
    if column is not None and column.kind == "categorical":
        if _truth(facts):
            return Guess(kind="boolean", why="declared, two values", levels=column.levels)
        ordered = looks.order(list(column.levels))
        if ordered:
            return Guess(kind="ordinal", why="declared, with an order", levels=tuple(ordered))
        return Guess(kind="categorical", why="declared", levels=column.levels)
    number = _serial(facts)
    if number:
        return number
    return _coded(facts) or Guess(kind="numeric", why="declared")


def _by_content(facts: Facts) -> Guess:
    if looks.dates(facts.texts[:5000], dated=names.dated(facts.name)):
        return Guess(kind="date", why="dates")
    if _truth(facts):
        return Guess(kind="boolean", why="two values")
    if facts.numeric_share >= _MOSTLY_NUMBERS and not _code_text(facts):
        return _serial(facts) or _coded(facts) or Guess(kind="numeric", why="numbers")
    looked = looks.identifier([text for text in facts.texts if text not in facts.unknown])
    if looked and facts.distinct > 2:
        what, share = looked
        identifies = "" if what == "file name" else what
        return Guess(
            kind="identifier", why=f"{100 * share:.0f} % of its values look like: {what}", identifies=identifies
        )
    unit = looks.unit(facts.texts)
    if unit and facts.distinct > 5:
        return Guess(kind="numeric", why=f"numbers with {unit!r} behind them", unit=unit)
    return _text(facts)


def _text(facts: Facts) -> Guess:
    spread = facts.distinct / facts.present
    numbered = names.key(facts.name) or names.of_patient(facts.name) or looks.numbered(facts.texts)
    record = Guess(kind="identifier", why="a value of its own nearly every row", identifies="record number")
    if looks.several(facts.texts):
        return Guess(kind="ignore", why="several values in a cell")
    if looks.free_text(facts.texts) and (facts.distinct > 50 or spread >= _NEARLY_ALL):
        return Guess(kind="ignore", why="free text")
    if spread >= _NEARLY_ALL and facts.present >= 20:
        return record if numbered else Guess(kind="ignore", why="text that differs nearly every row")
    if (names.record(facts.name) or names.of_patient(facts.name)) and facts.distinct > 50:
        return replace(record, why="a record's number, by its name")
    return _levels(facts, spread)


def _levels(facts: Facts, spread: float) -> Guess:
    ordered = looks.order([text for text in facts.texts if text not in facts.unknown]) if facts.distinct <= 50 else None
    if ordered:
        return Guess(kind="ordinal", why="values with an order", levels=tuple(ordered))
    if facts.distinct > _MANY_LEVELS or (facts.distinct > 50 and spread > 0.5):
        return Guess(kind="categorical" if looks.icd(facts.texts) else "ignore", why="text of very many values")
    return Guess(kind="categorical", why="few values" if facts.distinct <= 50 else "codes of many values")


def _truth(facts: Facts) -> bool:
    found = frozenset(text.lower() for text in facts.texts if text not in facts.unknown) if facts.distinct <= 4 else ()
    return len(found) == 2 and any(found <= pair for pair in looks.TRUTH)


def _code_text(facts: Facts) -> bool:
    """Digits that name something: with leading zeros, or below a name that says so and beside letters."""
    padded = facts.scan.padded > 0 and facts.wholly_whole
    lettered = facts.numeric_share < 1.0 and looks.icd(facts.texts)
    fixed = padded and len({len(text) for text in facts.texts[:1000]}) == 1
    return facts.distinct > 2 and (fixed or lettered or (padded and names.codes(facts.name)))


def _serial(facts: Facts) -> Guess | None:
    """Whole numbers that name a record rather than measure something."""
    if not facts.wholly_whole or facts.scan.numbers < 20:
        return None
    spread = facts.distinct / facts.present
    if names.record(facts.name) and (facts.distinct > 50 or spread > 0.5):
        return Guess(kind="identifier", why="a record's number, by its name", identifies="record number")
    if names.of_patient(facts.name):
        return Guess(kind="identifier", why="a patient's number, by its name", identifies="patient's number")
    digits = {len(text.split(".")[0]) for text in facts.texts[:5000]}
    run = facts.scan.greatest - facts.scan.least + 1 <= 1.05 * facts.distinct
    keyed = names.key(facts.name) and spread >= _NEARLY_ALL
    if keyed or (spread >= 0.999 and facts.present >= 100 and (run or (len(digits) == 1 and max(digits) >= 5))):
        return Guess(kind="identifier", why="a whole number of its own every row", identifies="record number")
    return None


def _coded(facts: Facts) -> Guess | None:
    """Whole numbers that name categories; None where they are amounts."""
    if not facts.wholly_whole or names.counts(facts.name):
        return None
    if names.codes(facts.name) and facts.distinct <= _MANY_LEVELS:
        return Guess(kind="categorical", why="codes, by its name")
    if facts.declared is not None:
        return None
    if facts.distinct == 2 and facts.scan.least >= 0:
        return Guess(kind="categorical", why="two codes")
    if facts.distinct <= _FEW_CODES and facts.present >= 20 and facts.scan.least >= 0 and facts.scan.greatest < 100:
        numbers, rows = facts.amounts
        falling = numbers[0] == 0 and len(numbers) >= 4 and bool((np.diff(rows) <= 0).all())
        if not falling:
            return Guess(kind="categorical", why="few whole numbers: codes, or an order?")
    return None

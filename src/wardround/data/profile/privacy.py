"""Columns that tell who a patient is."""

from __future__ import annotations

from wardround.data.profile import looks, names
from wardround.data.profile.caution import Caution, named, percent
from wardround.data.profile.facts import Facts
from wardround.data.profile.view import View

_OWN = 0.9


def cautions(view: View) -> list[Caution]:
    """Identifiers, dates of events, free text."""
    return [*_direct(view), *_records(view), *_dates(view), *_free(view), *_repeated(view)]


def _direct(view: View) -> list[Caution]:
    columns = [
        facts
        for facts in view.of_kind(("identifier",))
        if view.guesses[facts.name].identifies not in ("", "record number", "patient's number", "UUID")
    ]
    if not columns:
        return []
    told = [f"{facts.name}: {view.guesses[facts.name].why}, {facts.different} different" for facts in columns]
    return [
        Caution(
            kind="identifier",
            level="act",
            columns=tuple(facts.name for facts in columns),
            says="tell who a patient is" if len(columns) > 1 else "tells who a patient is",
            evidence="; ".join(told),
            do="Take them out of the file before it is shared; the draft makes them no features.",
        )
    ]


def _records(view: View) -> list[Caution]:
    columns = [
        facts
        for facts in view.of_kind(("identifier", "patient"))
        if view.guesses[facts.name].identifies in ("", "record number", "patient's number", "UUID")
    ]
    odd = [f for f in view.of_kind(("ignore",)) if view.guesses[f.name].why == "text that differs nearly every row"]
    if not columns and not odd:
        return []
    listed = tuple(facts.name for facts in (*columns, *odd))
    shares = ", ".join(
        f"{f.name}: {f.different} values in {f.present:,} rows" for f in (*columns, *odd)[:6] if f.present
    )
    return [
        Caution(
            kind="identifier",
            level="check",
            columns=listed,
            says="numbers or names of records" if len(listed) > 1 else "number or name of a record",
            evidence=shares,
            do="No feature. If they lead back to patients, replace them by random numbers before the file is shared.",
        )
    ]


def _dates(view: View) -> list[Caution]:
    dates = view.of_kind(("date",))
    if not dates:
        return []
    return [
        Caution(
            kind="dates",
            level="note",
            columns=tuple(facts.name for facts in dates),
            says="dates of events" if len(dates) > 1 else "date of an event",
            evidence=f"{named([facts.name for facts in dates])}: calendar dates",
            do="Dates help to find a patient (HIPAA Safe Harbor keeps the year alone). Use intervals: `since` in the "
            "schema; or shift each patient's dates.",
        )
    ]


def _free(view: View) -> list[Caution]:
    found = []
    for facts in view.of_kind(("ignore",)):
        if view.guesses[facts.name].why != "free text":
            continue
        inside = _people_inside(facts)
        found.append(
            Caution(
                kind="free text",
                level="act" if inside else "check",
                columns=(facts.name,),
                says="sentences" + (" that seem to name people" if inside else ""),
                evidence=f"{facts.different} different texts in {facts.present:,} rows"
                + (
                    f"; a title or a common given name in {percent(inside, len(facts.texts))} of them" if inside else ""
                ),
                do="Keep it out of the federation, or have it de-identified; the draft ignores it.",
            )
        )
    return found


def _people_inside(facts: Facts) -> int:
    return sum(looks.mentions_person(text) for text in facts.texts[:5000])


def _repeated(view: View) -> list[Caution]:
    found = []
    for facts in view.of_kind(("identifier",)):
        guess = view.guesses[facts.name]
        again = facts.present - facts.distinct
        if guess.identifies not in ("", "record number", "UUID") or not facts.scan.values.exact:
            again = 0
        if 0 < again < (1 - _OWN) * facts.present and not names.of_patient(facts.name):
            found.append(
                Caution(
                    kind="repeated record",
                    level="check",
                    columns=(facts.name,),
                    says="a record's number that comes again",
                    evidence=f"{view.counted.of(again, facts.rows)} repeat a value of an earlier one",
                    do="If a record was entered twice, keep one: in train and in test it would flatter the figures.",
                )
            )
    return found

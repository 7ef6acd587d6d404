"""From a table to what is known of it: a tree of plain values for terminal, page and JSON, and a draft of its schema."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice

import numpy as np

from wardround.data.profile import figures, outcome, places, privacy, quality
from wardround.data.profile.caution import Caution, Counted
from wardround.data.profile.cross import REST, Cross, cross
from wardround.data.profile.disguise import Disguise, disguised
from wardround.data.profile.draft import draft
from wardround.data.profile.facts import facts
from wardround.data.profile.kinds import Guess, Kind, Roles, guess_kind, guess_roles
from wardround.data.profile.leaks import Halves, association, halve
from wardround.data.profile.looks import year
from wardround.data.profile.order import in_order, written
from wardround.data.profile.scan import scan
from wardround.data.profile.view import FEATURES, View
from wardround.data.tables.reader import Table
from wardround.data.tables.schema import Schema
from wardround.errors import ConfigError, DataError
from wardround.types import Json

_SHOWN_LEVELS = 20
_SHOWN_SITES = 40
_TOLD = 0.6
"""Least AUROC of the mere presence of a date or a text that is told."""
_LEVELS = {"act": 0, "check": 1, "note": 2}


@dataclass(frozen=True, kw_only=True)
class Profile:
    """What is known of a table.

    Attributes:
        tree: plain values: `rows`, `columns`, `cautions`, `sites`, `label`, `correlation`, ...; no value of an
            identifier, and no number of rows below the threshold.
        schema: a draft.
    """

    tree: Mapping[str, Json]
    schema: Schema


def describe(
    table: Table,
    *,
    label: str | None = None,
    site: str | None = None,
    patient: str | None = None,
    below: int = 5,
    progress: Callable[[int], None] = lambda rows: None,
) -> Profile:
    """Read a table once, twice where it is larger than the sample, in bounded memory.

    Args:
        table: any table.
        label, site, patient: columns; guessed from names and values where None.
        below: numbers of rows from 1 to `below` - 1 are withheld.
        progress: told the number of rows read so far.

    Raises:
        ConfigError: a column that is named is not there, or two parts are given to one.
        DataError: the table cannot be read, or has no row.
    """
    given = Roles(label=label, site=site, patient=patient)
    _check(table, given)
    if below < 1:
        raise ConfigError(f"the threshold of small counts is {below}: expected 1 or more")
    decimal = _decimal(table)
    scanned = scan(table.names, table.chunks(), decimal=decimal, progress=progress)
    if not scanned.rows:
        raise DataError(f"{table.path} has names of columns and no row: there is nothing to describe")
    columns = facts(scanned, table.declared, decimal)
    roles = guess_roles(columns, given, headed=_headed(table))
    guesses = {name: guess_kind(column, roles) for name, column in columns.items()}
    columns = {name: replace(column, unit=guesses[name].unit) for name, column in columns.items()}
    disguises = {name: found for name, column in columns.items() if (found := disguised(column, guesses[name]))}
    guesses = {name: _mended(guesses[name], disguises.get(name, ())) for name in columns}
    columns = {
        name: replace(column, codes=frozenset(one.code for one in disguises.get(name, ()) if one.certain))
        for name, column in columns.items()
    }
    counted = cross(
        [scanned.sample] if scanned.whole else table.chunks(),
        table.names,
        site=roles.site,
        label=roles.label,
        patient=roles.patient,
        codes={name: column.codes for name, column in columns.items() if column.codes},
    )
    view = View(
        scan=scanned,
        columns=columns,
        guesses=guesses,
        roles=roles,
        disguises=disguises,
        cross=counted,
        counted=Counted(below=below),
    )
    view, halves = _associated(view)
    cautions = [
        *privacy.cautions(view),
        *outcome.cautions(view, halves),
        *quality.cautions(view),
        *places.cautions(view),
    ]
    cautions.sort(key=lambda caution: _LEVELS[caution.level])
    drafted = dict(guesses)
    for name in outcome.leaking(view):
        if view.associations[name].auroc >= outcome.DETERMINES:
            drafted[name] = Guess(kind="ignore", why="determines the label")
    schema = draft(table, columns, drafted, disguises, below=below)
    return Profile(tree=_tree(table, view, drafted, cautions), schema=schema)


def _check(table: Table, roles: Roles) -> None:
    given = {part: name for part in ("label", "site", "patient") if (name := getattr(roles, part)) is not None}
    for part, name in given.items():
        if name not in table.names:
            raise ConfigError(
                f"{table.path} has no column {name!r} to be the {part}: it has {', '.join(table.names[:40])}"
            )
    if len(set(given.values())) < len(given):
        raise ConfigError("label, site and patient are three columns, and two of them are given the same one")


def _headed(table: Table) -> bool:
    return table.format != "text" or (table.dialect is not None and table.dialect.header)


def _decimal(table: Table) -> str:
    """The decimal mark: a comma where numbers with one are frequent and numbers with a point are not."""
    import re

    comma = point = 0
    for chunk in islice(table.chunks(1000), 1):
        for cell in chunk.to_numpy().ravel().tolist():
            if cell and re.fullmatch(r"\s*-?\d+,\d{1,6}\s*", cell):
                comma += 1
            elif cell and re.fullmatch(r"\s*-?\d+\.\d{1,6}\s*", cell):
                point += 1
    return "," if comma >= 20 and comma > 4 * point else "."


def _mended(guess: Guess, suspects: Sequence[Disguise]) -> Guess:
    """What says 'not known' has no place in an order."""
    if guess.kind == "ordinal" and suspects:
        codes = {one.code for one in suspects if one.certain}
        return replace(guess, levels=tuple(level for level in guess.levels if level not in codes))
    return guess


def _associated(view: View) -> tuple[View, Halves | None]:
    if view.roles.label is None or not 2 <= len(view.classes) <= 50:
        return view, None
    whose = view.columns[view.roles.patient].sample if view.roles.patient else None
    halves = halve(view.labels, whose, len(view.classes))
    found = {}
    for column in view.of_kind((*FEATURES, "date", "ignore")):
        guess = view.guesses[column.name]
        if guess.kind == "ignore" and guess.why in ("empty", "one value alone"):
            continue
        whole = guess.kind in FEATURES or column.name == view.roles.time
        # of dates and texts only whether there is one can tell
        tried = column if whole else replace(column, sample=np.where(column.gap, "", "there").astype(object))
        one = association(tried, halves, numeric=guess.kind == "numeric" or column.name == view.roles.time)
        if one is not None and (whole or one.auroc >= _TOLD):
            found[column.name] = one
    return replace(view, associations=found), halves


def _tree(table: Table, view: View, guesses: Mapping[str, Guess], cautions: Sequence[Caution]) -> dict[str, Json]:
    sites = _site_names(view)
    return {
        "file": table.path.name,
        "rows": view.scan.rows,
        "sampled": len(view.scan.sample),
        "whole": view.scan.whole,
        "below": view.counted.below,
        "roles": {
            part: {"column": name, "guessed": part in view.roles.guessed}
            for part in ("label", "site", "patient")
            if (name := getattr(view.roles, part)) is not None
        },
        "patients": _patients(view),
        "columns": [_column(view, guesses[name], name, sites) for name in view.columns],
        "cautions": [asdict(caution) | {"columns": list(caution.columns)} for caution in cautions],
        "label": _label(view, sites),
        "sites": _sites(view, sites),
        "missing": _missing(view, sites),
        "correlation": figures.correlation(
            {column.name: column for column in view.of_kind(("numeric",)) if column.name != view.roles.time}
        ),
    }


def _patients(view: View) -> Json:
    if view.roles.patient is None:
        return None
    column = view.columns[view.roles.patient]
    return {"different": column.distinct, "exact": column.scan.values.exact}


def _site_names(view: View) -> list[str]:
    """Sites from the largest to the smallest, at most 40; [] without a site column."""
    if view.roles.site is None:
        return []
    return [site for site, _ in view.cross.rows.most_common(_SHOWN_SITES + 1) if site != REST][:_SHOWN_SITES]


_TELLING: frozenset[Kind] = frozenset((*FEATURES, "label", "site"))


def _column(view: View, guess: Guess, name: str, sites: Sequence[str]) -> dict[str, Json]:
    column = view.columns[name]
    below = view.counted.below
    first = view.guesses[name].kind
    tree: dict[str, Json] = {
        "name": name,
        "kind": guess.kind,
        "why": guess.why,
        "missing": column.missing,
        "disguised": sum(one.rows for one in view.disguises.get(name, ()) if one.certain),
        "distinct": column.distinct,
        "distinct_exact": column.scan.values.exact,
        "codes": [one.code for one in view.disguises.get(name, ()) if one.certain],
        "numbers": None,
        "histogram": None,
        "boxes": [],
        "levels": None,
        "years": None,
        "auroc": None,
    }
    if name in view.associations:
        tree["auroc"] = round(view.associations[name].auroc, 4)
    if first == "numeric":
        tree["numbers"] = figures.number_summary(column.numbers, below)
        tree["histogram"] = figures.histogram(column.numbers, below)
        tree["boxes"] = figures.boxes(column.numbers, view.sites, sites, below)
    elif first in _TELLING:
        counts: dict[str, int] = {}
        for text, rows in column.counts.items():
            if written(text) not in column.codes:
                counts[written(text)] = counts.get(written(text), 0) + rows
        order = [level for level in map(written, guess.levels) if level in counts] or in_order(list(counts))
        tree["levels"] = figures.levels(counts, order, below, _SHOWN_LEVELS)
    elif first == "date" and guess.why == "dates":
        years = sorted(y for text in column.texts if (y := year(text)) is not None)
        if len(years) >= below:
            tree["years"] = [years[0], years[-1]]
    return tree


def _label(view: View, sites: Sequence[str]) -> Json:
    if not 2 <= len(view.classes) <= 20:
        return None
    by_site = {}
    for site in sites:
        counts = dict.fromkeys(view.classes, 0)
        for text, rows in view.cross.classes.get(site, {}).items():
            if written(text) in counts:
                counts[written(text)] += rows
        hidden = view.counted.hides(view.cross.rows[site])
        by_site[site] = [None if hidden else _told(view, rows) for rows in counts.values()]
    return {
        "classes": view.classes,
        "rows": [_told(view, view.class_rows[name]) for name in view.classes],
        "by_site": by_site,
    }


def _told(view: View, rows: int) -> int | None:
    return None if view.counted.hides(rows) else rows


def _sites(view: View, sites: Sequence[str]) -> Json:
    if view.roles.site is None:
        return None
    smallest = min(view.cross.rows.values(), default=0)
    return {
        "count": len(view.cross.rows),
        "rows": {site: _told(view, view.cross.rows[site]) for site in sites},
        "smallest": _told(view, smallest),
    }


def _missing(view: View, sites: Sequence[str]) -> Json:
    """Shares of gaps, disguised ones among them: by column, and by column and site; only columns with one."""
    gaps = {name: sum(site.get(name, 0) for site in view.cross.gaps.values()) for name in view.columns}
    named = [name for name, rows in gaps.items() if rows]
    shares = {name: gaps[name] / view.scan.rows for name in named}
    return {
        "columns": shares,
        "by_site": {
            site: [_share(view.cross, site, name) for name in named]
            for site in sites
            if not view.counted.hides(view.cross.rows[site])
        },
    }


def _share(counted: Cross, site: str, column: str) -> float:
    rows = counted.rows[site]
    gaps = counted.gaps.get(site)
    return gaps[column] / rows if gaps and rows else 0.0

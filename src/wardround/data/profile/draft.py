"""The draft of a schema: what a person corrects with at most a few edits."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from wardround.data.profile.disguise import Disguise
from wardround.data.profile.facts import Facts
from wardround.data.profile.kinds import Guess
from wardround.data.profile.order import in_order, written
from wardround.data.tables.reader import Table
from wardround.data.tables.schema import OTHER, Schema
from wardround.data.tables.text import GAP_CODES
from wardround.types import Json

_NAMED_LEVELS = 20
_YES = frozenset(("1", "true", "t", "yes", "y"))
_NO = frozenset(("0", "false", "f", "no", "n"))
_POSITIVE = frozenset(("positive", "pos", "present", "ja", "oui", "on"))
_FORMATS = (
    (r"\d{1,2}\.\d{1,2}\.\d{4}", "%d.%m.%Y"),
    (r"\d{1,2}/\d{1,2}/\d{4}", "/"),
    (r"\d{1,2}-\d{1,2}-\d{4}", "-"),
    (r"\d{1,2}-[A-Za-z]{3}-\d{4}", "%d-%b-%Y"),
    (r"\d{1,2} [A-Za-z]{3} \d{4}", "%d %b %Y"),
    (r"\d{1,2} [A-Za-z]{4,9} \d{4}", "%d %B %Y"),
    (r"\d{4}/\d{1,2}/\d{1,2}", "%Y/%m/%d"),
)


def draft(
    table: Table,
    columns: Mapping[str, Facts],
    guesses: Mapping[str, Guess],
    disguises: Mapping[str, Sequence[Disguise]],
    *,
    below: int,
) -> Schema:
    """A schema of all columns.

    Levels of fewer than `below` rows are left out of columns of more than 20 levels, which then have `unseen: other`.

    Args:
        table: where the columns are from.
        columns: facts by name.
        guesses: kinds by name.
        disguises: suspected codes by name; certain ones become missing codes.
        below: as above.
    """
    gaps = {code for facts in columns.values() for code in facts.scan.gaps if code.lower() not in _known_gaps()}
    tree: dict[str, Any] = {
        "columns": {
            name: _column(facts, guesses[name], [one.code for one in disguises.get(name, ()) if one.certain], below)
            for name, facts in columns.items()
        }
    }
    if gaps:
        tree["missing"] = [*GAP_CODES, *sorted({code.lower() for code in gaps})]
    file: dict[str, Any] = {}
    if table.format == "text" and table.dialect is not None and not table.dialect.header:
        file["header"] = False
    if table.dialect is not None and table.dialect.encoding not in ("utf-8", "utf-8-sig", "ascii"):
        file["encoding"] = table.dialect.encoding
    if any(facts.decimal == "," for facts in columns.values()):
        file["decimal"] = ","
    if file:
        tree["file"] = file
    return Schema.parse(tree, "the draft")


def _known_gaps() -> set[str]:
    return {code.lower() for code in GAP_CODES}


def _column(facts: Facts, guess: Guess, missing: Sequence[str], below: int) -> dict[str, Any]:
    tree: dict[str, Any] = {"kind": guess.kind}
    if missing and guess.kind in ("numeric", "categorical", "ordinal", "boolean", "date"):
        tree["missing"] = list(missing)
    texts = [text for text in facts.texts if written(text) not in missing]
    if guess.kind == "numeric" and guess.unit:
        tree["unit"] = guess.unit
    elif guess.kind == "categorical":
        tree |= _levels(facts, guess, texts, below)
    elif guess.kind == "ordinal":
        tree["levels"] = [level for level in guess.levels if level not in missing]
    elif guess.kind == "boolean":
        tree |= _truth(texts)
    elif guess.kind == "date":
        form = date_format(texts)
        if form:
            tree["format"] = form
    elif guess.kind == "label":
        tree |= _label(facts, texts)
    return tree


def _levels(facts: Facts, guess: Guess, texts: Sequence[str], below: int) -> dict[str, Any]:
    known = guess.levels or tuple(in_order(texts))
    if len(known) <= _NAMED_LEVELS or guess.levels:
        return {"levels": list(known)}
    kept = [level for level in known if facts.counts.get(level, 0) >= below]
    if len(kept) == len(known) and facts.scan.values.exact:
        return {"levels": kept}
    return {"levels": kept or [OTHER], "unseen": "other"}


def _truth(texts: Sequence[str]) -> dict[str, Any]:
    lower = {text.lower() for text in texts}
    plain = {"1" if text in ("1.0", "1") else "0" if text in ("0.0", "0") else text for text in lower}
    if plain <= _YES | _NO:
        return {}
    yes = sorted(text for text in texts if text.lower() in _POSITIVE)
    return {"yes": yes, "no": sorted(text for text in texts if text.lower() not in _POSITIVE)}


def _label(facts: Facts, texts: Sequence[str]) -> dict[str, Any]:
    if len(texts) > 50 and facts.numeric_share == 1.0:
        numbers, rows = facts.amounts
        middle = numbers[(rows.cumsum() >= rows.sum() / 2).argmax()]
        return {"cut": {"above": float(middle)}}
    classes: dict[str, list[str]] = {}
    for text in in_order(texts):
        classes[text] = [text]
    tree: dict[str, Any] = {"classes": classes}
    if facts.missing:
        tree["unlabelled"] = "drop"
    return tree


def date_format(texts: Sequence[str]) -> str | None:
    """The form of dates as of strptime, None for ISO 8601.

    Of `03/04/2020` the first is taken for the day unless some date has a number above 12 in the second place.
    """
    for pattern, form in _FORMATS:
        hits = [text for text in texts[:5000] if re.match(pattern, text)]
        if len(hits) < 0.9 * len(texts[:5000]) or not hits:
            continue
        if len(form) == 1:
            month_first = any(int(text.split(form)[1]) > 12 for text in hits)
            first, second = ("%m", "%d") if month_first else ("%d", "%m")
            day = f"{first}{form}{second}{form}%Y"
        else:
            day = form
        times = {len(re.findall(":", text)) for text in hits}
        return day + {0: "", 1: " %H:%M", 2: " %H:%M:%S"}[min(max(times), 2)]
    return None


def ambiguous_dates(texts: Sequence[str]) -> bool:
    """Whether no date tells the day from the month (`03/04/2020`)."""
    hits = [re.match(r"(\d{1,2})[/-](\d{1,2})[/-]\d{4}", text) for text in texts[:5000]]
    pairs = [(int(hit[1]), int(hit[2])) for hit in hits if hit]
    return bool(pairs) and all(first <= 12 and second <= 12 for first, second in pairs)


def as_yaml(schema: Schema, profile: Mapping[str, Json]) -> str:
    """The draft as YAML, with what it is a draft of on top and the reason of each kind behind it."""
    lines = schema.to_yaml().splitlines()
    reasons = iter([column["why"] for column in profile["columns"]])
    inside = False
    marked = []
    for line in lines:
        inside = line == "columns:" or (inside and line.startswith(" "))
        named = inside and re.match(r"  [^\s-]", line)
        marked.append(f"{line}  # {next(reasons)}" if named else line)
    head = [
        f"# Drafted from {profile['file']}, {profile['rows']:,} rows. Correct it, then name it as the option `schema` of",
        "# the dataset `custom`. Kinds: numeric, categorical, ordinal, boolean, date, identifier, ignore, patient, site,",
        "# label. Levels that only another hospital has must be added.",
    ]
    text = "\n".join([*head, *marked]) + "\n"
    # a name that YAML writes over several lines would put a remark in the wrong place
    return text if Schema.parse(yaml.safe_load(text), "the draft") == schema else schema.to_yaml()

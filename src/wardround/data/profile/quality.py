"""Columns that hold nothing, or something else than they seem to."""

from __future__ import annotations

import numpy as np

from wardround.data.profile import looks, names, units
from wardround.data.profile.caution import Caution, named, percent
from wardround.data.profile.draft import ambiguous_dates
from wardround.data.profile.facts import Facts
from wardround.data.profile.order import written
from wardround.data.profile.view import FEATURES, View

_NEARLY_CONSTANT = 0.995
_ENOUGH = 200
_MOSTLY = 0.5
_MANY_LEVELS = 50


def cautions(view: View) -> list[Caution]:
    """Every check of single columns, and rows and columns that come twice."""
    found = [*_constants(view), *_gaps(view)]
    for facts in view.of_kind((*FEATURES, "date")):
        found += [*_disguised(view, facts), *_impossible(view, facts), *_mixed(view, facts), *_spelling(view, facts)]
        found += [*_units(view, facts), *_days(view, facts)]
    return [*found, *_many_levels(view), *_lists(view), *_same_columns(view), *_same_rows(view)]


def _constants(view: View) -> list[Caution]:
    single, nearly = [], []
    for facts in view.columns.values():
        guess = view.guesses[facts.name]
        if guess.kind == "ignore" and guess.why in ("empty", "one value alone"):
            single.append(facts)
        elif (
            guess.kind in FEATURES
            and facts.present >= _ENOUGH
            and next(iter(facts.counts.values())) >= _NEARLY_CONSTANT * sum(facts.counts.values())
        ):
            nearly.append(facts)
    found = []
    if single:
        empty = [facts.name for facts in single if not facts.present]
        told = [f"{len(single) - len(empty)} with one value"] if len(single) > len(empty) else []
        told += [f"{len(empty)} without any ({named(empty)})"] if empty else []
        found.append(
            Caution(
                kind="constant",
                level="check",
                columns=tuple(facts.name for facts in single),
                says="hold nothing that differs" if len(single) > 1 else "holds nothing that differs",
                evidence="; ".join(told),
                do="The draft ignores it. If another hospital's file has more values, give the column a kind.",
            )
        )
    if nearly:
        told = [f"{f.name}: all but {percent(sum(f.counts.values()) - next(iter(f.counts.values())), sum(f.counts.values()))}"
                for f in nearly[:6]]  # fmt: skip
        found.append(
            Caution(
                kind="nearly constant",
                level="note",
                columns=tuple(facts.name for facts in nearly),
                says="have one value in nearly all rows" if len(nearly) > 1 else "has one value in nearly all rows",
                evidence=", ".join(told),
                do="They teach little, and a site may have one value alone: ignore them, or merge them.",
            )
        )
    return found


def _gaps(view: View) -> list[Caution]:
    mostly = [f for f in view.of_kind((*FEATURES, "date")) if f.missing > _MOSTLY * f.rows]
    if not mostly:
        return []
    return [
        Caution(
            kind="mostly missing",
            level="note",
            columns=tuple(facts.name for facts in mostly),
            says="missing in most rows",
            evidence=", ".join(f"{f.name}: {percent(f.missing, f.rows)}" for f in mostly[:6]),
            do="Whether it was measured may say more than the value: try `indicators`, or drop the column.",
        )
    ]


def _disguised(view: View, facts: Facts) -> list[Caution]:
    suspects = view.disguises.get(facts.name, ())
    if not suspects:
        return []
    told = []
    for one in suspects[:4]:
        where = _where(view, facts, one.code)
        told.append(f"{one.code!r} in {view.counted.of(one.rows, facts.rows)}{where}; {one.why}")
    certain = [one.code for one in suspects if one.certain]
    return [
        Caution(
            kind="disguised missing",
            level="check",
            columns=(facts.name,),
            says="has values that seem to mean 'not measured'"
            if len(suspects) > 1
            else "has a value that seems to mean 'not measured'",
            evidence=". ".join(told),
            do=f"The draft takes {', '.join(map(repr, certain))} as missing: undo it where the value is real."
            if certain
            else "If so, add it to `missing` in the schema.",
        )
    ]


def _where(view: View, facts: Facts, code: str) -> str:
    if view.sites is None:
        return ""
    hit = np.fromiter((written(cell) == code for cell in facts.sample), dtype=bool, count=len(facts.sample))
    share = {s: float(hit[view.sites == s].mean()) for s in dict.fromkeys(view.sites[hit].tolist())}
    high = sorted((s for s in share if share[s] >= 0.5 and (view.sites == s).sum() >= 5), key=lambda s: -share[s])
    if not high or len(high) == len(set(view.sites.tolist())):
        return ""
    return " (" + ", ".join(f"{100 * share[site]:.0f} % of {site}" for site in high[:3]) + ")"


def _impossible(view: View, facts: Facts) -> list[Caution]:
    bounds = names.limits(facts.name)
    if bounds is None or view.guesses[facts.name].kind != "numeric":
        return []
    numbers, rows = facts.amounts
    codes = {one.code for one in view.disguises.get(facts.name, ())}
    out = (numbers < bounds[0]) | (numbers > bounds[1])
    out &= ~np.isin(numbers, [float(code) for code in codes if code.replace(".", "").lstrip("-").isdigit()])
    if not out.any() or rows[out].sum() > 0.5 * rows.sum():
        return []
    return [
        Caution(
            kind="impossible value",
            level="check",
            columns=(facts.name,),
            says=f"has values outside {bounds[0]:g} to {bounds[1]:g} {bounds[2]}",
            evidence=f"{view.counted.of(int(rows[out].sum()), facts.rows)}, the farthest is "
            f"{numbers[out][np.abs(numbers[out] - np.median(numbers)).argmax()]:g}",
            do="Correct them at the source, or declare them as missing.",
        )
    ]


def _mixed(view: View, facts: Facts) -> list[Caution]:
    guess = view.guesses[facts.name]
    if guess.kind != "numeric":
        return []
    if guess.unit:
        return [
            Caution(
                kind="number with text",
                level="note",
                columns=(facts.name,),
                says=f"writes {guess.unit!r} behind its numbers",
                evidence=f"all of {facts.different} different values",
                do=f"The draft reads the numbers (`unit: {guess.unit}`). Are they all in one unit?",
            )
        ]
    if facts.numeric_share >= 1.0:
        return []
    numbers = _numbers(facts)
    odd = [text for text in facts.texts if text not in facts.unknown and text not in numbers]
    rows = sum(facts.counts[text] for text in odd)
    if not odd:
        return []
    often = [text for text in odd if not view.counted.hides(facts.counts[text])][:3]
    examples = f", such as {', '.join(map(repr, often))}" if often else ""
    return [
        Caution(
            kind="mixed types",
            level="check",
            columns=(facts.name,),
            says="mixes numbers and text",
            evidence=f"text in {view.counted.of(rows, facts.rows)}, {len(odd)} different{examples}",
            do="Give each a number or a gap: `recode` or `missing` in the schema. Reading refuses what is left.",
        )
    ]


def _numbers(facts: Facts) -> frozenset[str]:
    """Texts that are numbers."""
    from wardround.data.profile.scan import as_numbers

    values = as_numbers(np.array(facts.texts, dtype=object), facts.decimal, facts.unit)
    return frozenset(text for text, value in zip(facts.texts, values, strict=True) if np.isfinite(value))


def _spelling(view: View, facts: Facts) -> list[Caution]:
    if view.guesses[facts.name].kind not in ("categorical", "ordinal", "boolean") or facts.distinct > 2000:
        return []
    groups: dict[str, list[str]] = {}
    for text in facts.texts:
        groups.setdefault(" ".join(text.casefold().replace("-", " ").replace("_", " ").split()), []).append(text)
    twice = [group for group in groups.values() if len(group) > 1]
    if not twice:
        return []
    shown = [g for g in twice if not any(view.counted.hides(facts.counts[t]) for t in g)][:3]
    examples = f", such as {', '.join(' = '.join(map(repr, group)) for group in shown)}" if shown else ""
    return [
        Caution(
            kind="spelling",
            level="check",
            columns=(facts.name,),
            says="spells levels in several ways",
            evidence=f"{len(twice)} of {len(groups)} levels{examples}",
            do="Write them alike with `recode` in the schema.",
        )
    ]


def _many_levels(view: View) -> list[Caution]:
    many = [facts for facts in view.of_kind(("categorical",)) if facts.distinct > _MANY_LEVELS]
    if not many:
        return []
    icd = [f.name for f in many if looks.icd(f.texts) or "icd" in names.words(f.name)]
    return [
        Caution(
            kind="many levels",
            level="note",
            columns=tuple(facts.name for facts in many),
            says="have very many levels" if len(many) > 1 else "has very many levels",
            evidence=", ".join(f"{f.name}: {f.different} in {f.present:,} rows" for f in many[:6]),
            do=(f"If these are ICD codes, group them by chapter ({named(icd)}). " if icd else "")
            + "The draft names the frequent levels and puts the rest into `other`.",
        )
    ]


def _units(view: View, facts: Facts) -> list[Caution]:
    if view.guesses[facts.name].kind != "numeric" or facts.distinct < 10:
        return []
    found = units.by_site(facts.name, facts.numbers, view.sites) if view.sites is not None else None
    if found is None:
        found = units.two_crowds(facts.name, facts.numbers)
    if found is None:
        return []
    who = f"at {named(list(found.sites))}" if found.sites else "in one crowd of rows"
    return [
        Caution(
            kind="units",
            level="check",
            columns=(facts.name,),
            says="may mix units",
            evidence=f"values {who} differ from the others by a factor of about {found.ratio:.3g}"
            + (f", that of {found.units}" if found.units else "")
            + "; nothing lies between",
            do="Convert them to one unit at the source.",
        )
    ]


def _days(view: View, facts: Facts) -> list[Caution]:
    if view.guesses[facts.name].kind != "date" or not ambiguous_dates(facts.texts):
        return []
    return [
        Caution(
            kind="dates",
            level="check",
            columns=(facts.name,),
            says="does not tell the day from the month",
            evidence="no number above 12 in either place",
            do="The draft reads the day first: correct `format` in the schema where that is wrong.",
        )
    ]


def _lists(view: View) -> list[Caution]:
    return [
        Caution(
            kind="several values",
            level="check",
            columns=(facts.name,),
            says="lists several values in a cell",
            evidence=f"{facts.different} different lists",
            do="Make a yes-or-no column of each value; one of them, or 'any', may be the label.",
        )
        for facts in view.of_kind(("ignore",))
        if view.guesses[facts.name].why == "several values in a cell"
    ]


def _same_columns(view: View) -> list[Caution]:
    found = []
    seen: dict[int, str] = {}
    for facts in view.of_kind((*FEATURES, "date")):
        if facts.distinct < 2 or len(facts.sample) < 20:
            continue
        code = hash(tuple(facts.sample.tolist()))
        if code in seen and (facts.sample == view.columns[seen[code]].sample).all():
            found.append((seen[code], facts.name))
        seen.setdefault(code, facts.name)
    if not found:
        return []
    return [
        Caution(
            kind="same column",
            level="note",
            columns=tuple(second for _, second in found),
            says="repeat another column" if len(found) > 1 else "repeats another column",
            evidence=", ".join(f"{second} = {first}" for first, second in found[:6])
            + ("" if view.scan.whole else ", in all sampled rows"),
            do="Ignore one of each.",
        )
    ]


def _same_rows(view: View) -> list[Caution]:
    if not view.scan.repeated:
        return []
    about = "" if view.scan.repeated_exact else "about "
    return [
        Caution(
            kind="duplicate rows",
            level="check",
            columns=(),
            says="rows that equal an earlier one in every column",
            evidence=about + view.counted.of(view.scan.repeated, view.scan.rows),
            do="If a patient was entered twice, keep one row: in train and in test it would flatter the figures.",
        )
    ]

"""The label: columns that give it away, and classes that are rare."""

from __future__ import annotations

from wardround.data.profile.caution import Caution, percent
from wardround.data.profile.leaks import Halves, telling_levels
from wardround.data.profile.view import FEATURES, View

LEAK = 0.985
"""AUROC of a single column from which it is suspected."""
_LEAK_LOW = 0.95
DETERMINES = 0.9995
"""AUROC of a single column from which it is taken for the label in another form."""
_LEVELS = 200
_RARE = ((10, 1.0), (50, 0.05), (float("inf"), 0.01))
"""Fewer rows than the first and a smaller share than the second, in any of these pairs."""
_MANY_CLASSES = 20


def leaking(view: View) -> list[str]:
    """Columns that nearly determine the label, in the file's order."""
    return [name for name, found in view.associations.items() if found.auroc >= LEAK and found.low >= _LEAK_LOW]


def cautions(view: View, halves: Halves | None) -> list[Caution]:
    """Leaks, levels that are of one class alone, rare classes, rows without a label, a label that is hard to find."""
    if view.roles.label is None:
        return [
            Caution(
                kind="label",
                level="note",
                columns=(),
                says="no column is known to be the label",
                evidence="no name such as label, target, class, outcome, with 2 to 20 values",
                do="Name it with --label COLUMN: then leaks, rare classes and one-class sites are looked for.",
            )
        ]
    return [*_leaks(view), *_time(view), *_levels(view, halves), *_rare(view), *_unlabelled(view), *_classes(view)]


def _leaks(view: View) -> list[Caution]:
    found = []
    for name in leaking(view):
        one = view.associations[name]
        of = "" if len(view.classes) == 2 else f" for the class {view.classes[one.label]}"
        found.append(
            Caution(
                kind="leak",
                level="act" if one.auroc >= DETERMINES else "check",
                columns=(name,),
                says=f"nearly determines the label {view.roles.label}",
                evidence=f"alone it ranks held-out rows with AUROC {one.auroc:.3f}{of} (95 % from {one.low:.3f})",
                do="Is it known before the outcome? If not, ignore it"
                + ("; the draft does." if one.auroc >= DETERMINES else "."),
            )
        )
    return found


def _time(view: View) -> list[Caution]:
    if view.roles.time is None:
        return []
    return [
        Caution(
            kind="leak",
            level="act",
            columns=(view.roles.time,),
            says="the time to the event: known only with the outcome",
            evidence=f"its name beside {view.roles.label}",
            do="No feature. For a yes or no at a fixed time, build the label from both, and leave out who was not "
            "followed so long.",
        )
    ]


def _levels(view: View, halves: Halves | None) -> list[Caution]:
    found = []
    leaks = frozenset(leaking(view))
    for facts in view.of_kind(FEATURES - {"numeric"}):
        if halves is None or facts.name in leaks or facts.distinct > _LEVELS:
            continue
        pure = telling_levels(facts, halves)
        if pure:
            told = "; ".join(
                f"{level}: all {rows:,} rows are {view.classes[label]}"
                f" (of all rows {percent(view.class_rows[view.classes[label]], sum(view.class_rows.values()))})"
                for level, label, rows in pure[:3]
            )
            found.append(
                Caution(
                    kind="telling level",
                    level="check",
                    columns=(facts.name,),
                    says="has values whose rows are all of one class",
                    evidence=told + (f"; {len(pure) - 3} more" if len(pure) > 3 else ""),
                    do="Do these rows belong to the question (a patient who died is not readmitted)? If not, `exclude` "
                    "them in the schema.",
                )
            )
    return found


def _rare(view: View) -> list[Caution]:
    total = sum(view.class_rows.values())
    rare = {c: n for c, n in view.class_rows.items() if _is_rare(n, total)}
    if not rare or len(view.classes) > _MANY_CLASSES:
        return []
    told = ", ".join(f"{name}: {view.counted.of(rows, total)}" for name, rows in rare.items())
    return [
        Caution(
            kind="rare class",
            level="check",
            columns=(str(view.roles.label),),
            says="a class is rare" if len(rare) == 1 else "classes are rare",
            evidence=told,
            do="Some sites and splits will have none of it. Merge classes in the schema, or read its figures with "
            "their intervals.",
        )
    ]


def _is_rare(rows: int, total: int) -> bool:
    return any(rows < most and rows < share * total for most, share in _RARE)


def _unlabelled(view: View) -> list[Caution]:
    facts = view.columns[str(view.roles.label)]
    if not facts.missing:
        return []
    return [
        Caution(
            kind="label",
            level="check",
            columns=(facts.name,),
            says="rows without a label",
            evidence=view.counted.of(facts.missing, facts.rows),
            do="The draft drops them. Ask why they have none: it is seldom by chance.",
        )
    ]


def _classes(view: View) -> list[Caution]:
    if len(view.classes) <= _MANY_CLASSES:
        return []
    return [
        Caution(
            kind="label",
            level="act",
            columns=(str(view.roles.label),),
            says=f"has {len(view.classes):,} different values",
            evidence=f"expected at most {_MANY_CLASSES} classes",
            do="Group the values into classes in the schema, or `cut` a number.",
        )
    ]

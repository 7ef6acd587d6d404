"""Sites that are too small, have one class alone, or share patients."""

from __future__ import annotations

from wardround.data.profile.caution import Caution, percent
from wardround.data.profile.cross import REST
from wardround.data.profile.view import View

TINY = 30
"""Fewest rows of a site that is not called tiny."""


def cautions(view: View) -> list[Caution]:
    """What is said of sites; nothing without a site column."""
    if view.roles.site is None:
        return []
    return [*_tiny(view), *_one_class(view), *_shared(view)]


def _tiny(view: View) -> list[Caution]:
    tiny = {site: rows for site, rows in view.cross.rows.items() if rows < TINY and site != REST}
    if not tiny:
        return []
    shown = sorted(tiny, key=lambda site: tiny[site])[:6]
    return [
        Caution(
            kind="tiny site",
            level="check",
            columns=(str(view.roles.site),),
            says=f"has {len(tiny)} site{'' if len(tiny) == 1 else 's'} of fewer than {TINY} rows",
            evidence=", ".join(f"{site}: {view.counted.rows(tiny[site])}" for site in shown)
            + (f" and {len(tiny) - len(shown)} more" if len(tiny) > len(shown) else "")
            + f", of {len(view.cross.rows)} sites",
            do=f"Set `min_rows: {TINY}` and `small_sites: other` (or drop) in the schema.",
        )
    ]


def _one_class(view: View) -> list[Caution]:
    alone, nearly = {}, {}
    if len(view.classes) < 2:
        return []
    for site, counts in view.cross.classes.items():
        total, most = counts.total(), max(counts.values(), default=0)
        if site == REST or not total:
            continue
        if most == total:
            # of few patients, their class is not told either
            of = "" if view.counted.hides(total) else f", all {counts.most_common(1)[0][0]}"
            alone[site] = f"{site}: {view.counted.rows(total)}{of}"
        elif total - most < view.counted.below and total >= TINY:
            nearly[site] = f"{site}: {view.counted.rows(total)}, all but fewer than {view.counted.below} are "
            nearly[site] += counts.most_common(1)[0][0]
    found = []
    for said, sites in (("of one class alone", alone), ("of nearly one class", nearly)):
        if sites:
            told = list(sites.values())
            found.append(
                Caution(
                    kind="one-class site",
                    level="check",
                    columns=(str(view.roles.site),),
                    says=f"has {len(sites)} site{'' if len(sites) == 1 else 's'} {said}",
                    evidence="; ".join(told[:6]) + (f"; {len(told) - 6} more" if len(told) > 6 else ""),
                    do="AUROC is undefined there, and a model of that site alone learns nothing; merge it, or leave it "
                    "out of figures by site.",
                )
            )
    return found


def _shared(view: View) -> list[Caution]:
    if not view.cross.shared:
        return []
    return [
        Caution(
            kind="patient at several sites",
            level="act",
            columns=(str(view.roles.patient), str(view.roles.site)),
            says="have patients in common" if len(view.cross.rows) > 2 else "share patients",
            evidence=f"{percent(view.cross.shared, view.cross.patients)} of {view.cross.patients:,} patients have rows "
            "at two sites or more",
            do="If the number is the same person, one patient may be in train at one site and in test at another: give "
            "each patient one site. If each site counts by itself, join site and number.",
        )
    ]

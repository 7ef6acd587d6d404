"""Words that stand for 'not measured' in cells of text."""

from __future__ import annotations

GAPS = frozenset(
    {"", "?", "na", "nan", "n/a", "#n/a", "<na>", "null", "nil", ".", "-", "--", "missing", "not available", "nat"}
)
"""Cells that are gaps in any column, in lower case."""

UNKNOWN = frozenset(
    {
        *("unknown", "unk", "unkn", "not known", "not reported", "not recorded", "not specified", "unspecified"),
        *("unknown/invalid", "unknown/not specified", "unobtainable", "unable to obtain", "patient declined to answer"),
        *(
            "not documented",
            "not stated",
            "no data",
            "nd",
            "n.a.",
            "k.a.",
            "unbekannt",
            "inconnu",
            "desconocido",
            "tbd",
        ),
        *("not performed", "not done", "not measured", "not tested", "not applicable"),
    }
)
"""Levels that say 'not known', in lower case."""

NOTHING = frozenset({"none", "nothing", "no value"})
"""Levels that may mean 'not known' as well as 'none there is'."""


def is_gap(text: str) -> bool:
    """Whether a cell, stripped, is a gap in any column."""
    return text.lower() in GAPS

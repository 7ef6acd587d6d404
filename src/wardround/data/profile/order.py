"""The order of levels and classes, and how a code is written."""

from __future__ import annotations

from collections.abc import Sequence

from wardround.data.profile.gaps import is_gap

_AMISS = frozenset(
    ("1", "yes", "y", "true", "t", "positive", "pos", "malignant", "dead", "died", "disease", "case", "sick", "present")
)


def written(text: str) -> str:
    """A code as schemas write it: 1.0 is 1."""
    head, point, tail = text.partition(".")
    return head if point and head.lstrip("-").isdecimal() and tail and not tail.strip("0") else text


def in_order(texts: Sequence[str]) -> list[str]:
    """Levels by number, else by letters; 1.0 is written 1; what says 'amiss' comes last of two."""
    plain = sorted({written(text) for text in texts if not is_gap(text)}, key=_natural)
    if len(plain) == 2 and plain[0].lower() in _AMISS and plain[1].lower() not in _AMISS:
        plain.reverse()
    return plain


def _natural(text: str) -> tuple[int, float, str]:
    try:
        return (0, float(text), text)
    except ValueError:
        return (1, 0.0, text.lower())

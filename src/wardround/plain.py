"""Texts that came from elsewhere, as a terminal may show them."""

from __future__ import annotations

_KEPT = frozenset(" \t")


def plain(text: str) -> str:
    """One line without control characters, by which what came from elsewhere could forge what is shown: "?" stands for each.

    Neither escape sequences nor line ends nor marks that turn the direction of writing are left.
    """
    return "".join(c if c.isprintable() or c in _KEPT else "?" for c in text)


def plain_lines(text: str) -> str:
    """Several lines, each of them as `plain`."""
    return "\n".join(plain(line) for line in text.split("\n"))

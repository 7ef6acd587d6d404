"""Patterns of names in a job: which parameters and buffers of a model one means."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping


def matching(pattern: str, owners: Mapping[str, object], names: Iterable[str]) -> set[str]:
    """The names that a pattern means.

    Args:
        pattern: a shell pattern of full names (`head.*`, `*`), a prefix of modules (`head`), or a module type (`BatchNorm2d`).
        owners: the submodule that owns each name.
        names: the candidates.
    """
    return {
        name
        for name in names
        if fnmatch.fnmatchcase(name, pattern)
        or name.startswith(pattern + ".")
        or pattern in {kind.__name__ for kind in type(owners[name]).__mro__[:-1]} - {"Module"}
    }

"""Names of coordinator, sites, submitters and runs: they become folders, so nothing else than a plain word is one."""

from __future__ import annotations

import re
from pathlib import Path

from wardround.errors import ConfigError

LONGEST = 64
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_RESERVED = frozenset(
    {"con", "prn", "aux", "nul", *(f"com{i}" for i in range(10)), *(f"lpt{i}" for i in range(10))}
)  # names of devices on Windows


def is_name(text: object) -> bool:
    """Whether it may name a party or a run."""
    return isinstance(text, str) and _NAME.fullmatch(text) is not None and text not in _RESERVED


def check_name(text: object, where: str) -> str:
    """The name, once it is one.

    Raises:
        ConfigError: another character than a-z, 0-9, `_` and `-` (a path, say), too long, or a device's name.
    """
    if not is_name(text):
        raise ConfigError(
            f"{where} = {str(text)!r:.100}: expected 1 to {LONGEST} of a-z, 0-9, _ and -, beginning with a letter or a digit"
        )
    return str(text)


def within(folder: Path, name: object, where: str) -> Path:
    """FOLDER/NAME, for a name that came from outside: it is one, and what lies there lies there and is no link to elsewhere.

    Raises:
        ConfigError: as `check_name`, or a link.
    """
    path = folder / check_name(name, where)
    if path.is_symlink():
        raise ConfigError(f"{path} is a link, and nothing is read or written through it: put the folder itself there")
    return path

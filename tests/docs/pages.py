"""The project's pages, and the files that their code blocks stand for."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "benchmarks").glob("*.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path, language: str) -> list[str]:
    """The code blocks in one language, in order."""
    return [code for name, code in _BLOCK.findall(page.read_text(encoding="utf-8")) if name == language]


def files(page: Path) -> dict[str, str]:
    """File name -> content of the blocks whose first line is a comment with a file's name."""
    found = {}
    for code in [*blocks(page, "python"), *blocks(page, "yaml")]:
        named = re.match(r"# ([\w.]+)\n", code)
        if named:
            found[named[1]] = code
    return found

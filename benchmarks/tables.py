"""Markdown tables, and blocks of a page that are written by a command."""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence
from pathlib import Path


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def spread(values: Sequence[float], *, scale: float = 1.0) -> str:
    """Median (smallest to largest)."""
    low, middle, high = (figure(scale * v) for v in (min(values), statistics.median(values), max(values)))
    return f"{middle} ({low} to {high})" if len(values) > 1 else middle


def figure(value: float) -> str:
    """Three significant digits, without an exponent."""
    exponent = int(f"{value:.2e}".partition("e")[2])
    return f"{value:,.{max(0, 2 - exponent)}f}" if value else "0"


def ratio(values: Sequence[float], baseline: Sequence[float]) -> str:
    return figure(statistics.median(values) / statistics.median(baseline))


def write_block(page: Path, name: str, text: str) -> None:
    """Replace what stands between `<!-- begin name -->` and `<!-- end name -->`.

    Raises:
        ValueError: the page has no such block.
    """
    before = page.read_text(encoding="utf-8")
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    block = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if not block.search(before):
        raise ValueError(f"{page.name} has no block {begin} ... {end}: add one where the figures should stand")
    page.write_text(block.sub(lambda _: f"{begin}\n{text}\n{end}", before), encoding="utf-8")

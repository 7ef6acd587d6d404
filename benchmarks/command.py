"""What the commands that measure share: their options, one part after another, the page that gets the figures."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import machine
from benchmarks.agreement import WeightsDiffer
from benchmarks.fresh import MeasurementFailed
from benchmarks.tables import write_block


def parser(prog: str, doc: str | None, parts: Sequence[str], repeats: int) -> argparse.ArgumentParser:
    """A parser with the options that every such command has."""
    made = argparse.ArgumentParser(prog=f"python -m {prog}", description=(doc or "").splitlines()[0])
    made.add_argument("--only", nargs="+", choices=parts, default=parts, help="parts to measure")
    made.add_argument("--repeats", type=int, default=repeats, help="measurements of which the median is shown")
    made.add_argument("--quick", action="store_true", help="tiny sizes, once, printed and not written: does it run?")
    return made


def measure(given: argparse.Namespace, section: Callable[[str, int], str], page: Path) -> None:
    """Print each part's section and write it into the page; go on after a part that failed.

    Args:
        given: what a `parser` read.
        section: part and number of repeats -> Markdown.
        page: has a block of each part's name.

    Raises:
        SystemExit: some part failed.
    """
    repeats = 1 if given.quick else given.repeats
    failed = []
    for part in given.only:
        began = time.perf_counter()
        print(f"{part}:", file=sys.stderr)
        try:
            text = section(part, repeats)
        except (MeasurementFailed, WeightsDiffer) as error:
            print(f"{part} failed: {error}", file=sys.stderr)
            failed.append(part)
            continue
        print(f"{part}\n\n{text}\n", flush=True)
        print(f"{part}: {time.perf_counter() - began:.0f} s", file=sys.stderr)
        if not given.quick:
            write_block(page, part, f"{machine.facts()}; median of {repeats} (smallest to largest).\n\n{text}")
    if failed:
        sys.exit(f"no figures for {', '.join(failed)}; try again with --only {' '.join(failed)}")

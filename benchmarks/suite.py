"""Measure, and write the figures into `benchmarks/README.md`.

    python -m benchmarks.suite [--only rounds sites] [--repeats 5] [--quick]

Each part replaces its own figures on the page as soon as it has them, so a run that was cut short goes on with `--only`.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from pathlib import Path

from benchmarks import machine
from benchmarks.agreement import WeightsDiffer
from benchmarks.fresh import MeasurementFailed
from benchmarks.tables import write_block

PARTS = ("rounds", "ragged", "sites", "startup", "parts", "switches")
PAGE = Path(__file__).with_name("README.md")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="parts to measure")
    parser.add_argument("--repeats", type=int, default=5, help="measurements of which the median is shown")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, once, printed and not written: does it run?")
    given = parser.parse_args()
    repeats = 1 if given.quick else given.repeats
    failed = []
    for part in given.only:
        began = time.perf_counter()
        print(f"{part}:", file=sys.stderr)
        try:
            text = importlib.import_module(f"benchmarks.{part}").section(repeats, given.quick)
        except (MeasurementFailed, WeightsDiffer) as error:
            print(f"{part} failed: {error}", file=sys.stderr)
            failed.append(part)
            continue
        print(f"{part}\n\n{text}\n", flush=True)
        print(f"{part}: {time.perf_counter() - began:.0f} s", file=sys.stderr)
        if not given.quick:
            write_block(PAGE, part, f"{machine.facts()}; median of {repeats} (smallest to largest).\n\n{text}")
    if failed:
        sys.exit(f"no figures for {', '.join(failed)}; try again with --only {' '.join(failed)}")


if __name__ == "__main__":
    main()

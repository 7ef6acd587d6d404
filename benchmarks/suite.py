"""Measure, and write the figures into `benchmarks/README.md`.

    python -m benchmarks.suite [--only rounds sites] [--repeats 5] [--quick]

Each part replaces its own figures on the page as soon as it has them, so a run that was cut short goes on with `--only`.
"""

from __future__ import annotations

import importlib
from pathlib import Path

from benchmarks import command

PARTS = ("rounds", "ragged", "sites", "startup", "parts", "switches", "augment")
PAGE = Path(__file__).with_name("README.md")


def main() -> None:
    given = command.parser("benchmarks.suite", __doc__, PARTS, repeats=5).parse_args()

    def section(part: str, repeats: int) -> str:
        text: str = importlib.import_module(f"benchmarks.{part}").section(repeats, given.quick)
        return text

    command.measure(given, section, PAGE)


if __name__ == "__main__":
    main()

"""Draws the pictures of docs/partitions with the commands that stand on those pages.

Run it after a change of the figures:  WARDROUND_DATA=... .venv/bin/python docs/draw_partitions.py
"""

from __future__ import annotations

import re
import shlex
import shutil
import tempfile
from pathlib import Path

from wardround.cli.app import app
from wardround.cli.exit import guarded

HERE = Path(__file__).parent


def main() -> None:
    """Run the command of each page, and keep the pictures that the page shows."""
    for page in sorted((HERE / "partitions").glob("*.md")):
        text = page.read_text(encoding="utf-8")
        shown = re.findall(r"\]\(\.\./images/partitions/(\w+)-(\w+)\.png\)", text)
        for line in re.findall(r"^wardround (data partition .*)$", text, re.MULTILINE):
            with tempfile.TemporaryDirectory() as folder:
                arguments = shlex.split(line)
                arguments[arguments.index("--out") + 1] = folder
                code = guarded(app, arguments)
                if code:
                    raise SystemExit(code)
                for name, picture in shown:
                    shutil.copy(
                        Path(folder) / f"{picture}.png", HERE / "images" / "partitions" / f"{name}-{picture}.png"
                    )


if __name__ == "__main__":
    main()

"""The facts of a machine on which its times depend. None of them names it."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path


def facts() -> str:
    """Processor, cores, memory, versions and date, in one line."""
    return (
        f"{processor()}, {os.cpu_count()} cores, {_memory()}Python {platform.python_version()}, "
        f"torch {version('torch')}, {datetime.now(UTC):%Y-%m-%d}"
    )


def processor() -> str:
    listing = Path("/proc/cpuinfo")
    if listing.exists():
        for line in listing.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _memory() -> str:
    try:
        return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB, "
    except (AttributeError, ValueError, OSError):
        return ""

"""Decimal units of bytes (1 kB is 1000 bytes)."""

from __future__ import annotations

_UNITS = ("bytes", "kB", "MB", "GB", "TB")


def byte_unit(largest: float) -> tuple[float, str]:
    """The divisor and the name of the unit in which `largest` bytes is at least 1, and below 1000 up to terabytes."""
    step = 0
    while step < len(_UNITS) - 1 and largest >= 1000.0 ** (step + 1):
        step += 1
    return 1000.0**step, _UNITS[step]

"""Channels by short names, for commands that try several."""

from __future__ import annotations

from typing import Any

NAMED: dict[str, dict[str, Any]] = {
    "plain": {"channel": {"kind": "plain"}},
    "8-bit": {"channel": {"kind": "plain"}, "encoding": {"bits": 8}},
    "secagg": {"channel": {"kind": "secagg"}},
    "he": {"channel": {"kind": "he", "options": {"masks": False}}},
    "masked-he": {"channel": {"kind": "he", "options": {"masks": True}}},
}
"""Short name -> the keys of the job's `privacy` that it stands for."""
HIDING = ("secagg", "he", "masked-he")
"""Those on which the server sees sums alone."""

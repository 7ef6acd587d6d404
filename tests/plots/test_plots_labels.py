from __future__ import annotations

import math

import pytest

from wardround.plots import DARK, LIGHT
from wardround.plots.estimate import Estimate, estimate
from wardround.plots.labels import count_of, printable
from wardround.plots.units import byte_unit


@pytest.mark.parametrize(
    ("low", "high", "direction"), [(0.01, 0.02, 1), (-0.02, -0.01, -1), (-0.01, 0.01, 0), (0.0, 0.1, 0), (-0.1, 0.0, 0)]
)
def test_an_interval_excludes_zero_only_when_both_ends_lie_on_one_side(low, high, direction):
    assert Estimate(value=0.0, low=low, high=high).direction == direction


def test_without_an_interval_there_is_no_direction():
    assert Estimate(value=0.5).direction is None


@pytest.mark.parametrize("value", [None, math.nan, math.inf, "0.5", True])
def test_what_is_not_a_finite_number_is_undefined(value):
    assert estimate({"auroc": value}, "auroc") is None


def test_half_an_interval_is_none():
    assert estimate({"auroc": 0.9, "auroc_low": 0.8}, "auroc") == Estimate(value=0.9)


@pytest.mark.parametrize(
    ("largest", "expected"),
    [(0, (1.0, "bytes")), (999, (1.0, "bytes")), (1000, (1e3, "kB")), (2.5e6, (1e6, "MB")), (1e18, (1e12, "TB"))],
)
def test_byte_units_are_decimal(largest, expected):
    assert byte_unit(largest) == expected


def test_names_become_one_short_line():
    assert printable("a\tb\n c") == "a b c"
    assert printable("x" * 30, 10) == "x" * 9 + "…"
    assert not printable("_a").startswith("_")


def test_counts_agree_with_their_noun():
    assert count_of(1, "site") == "1 site"
    assert count_of(1000, "site") == "1\u202f000 sites"


def luminance(color: str) -> float:
    """Relative luminance of WCAG 2.2."""
    parts = [int(color[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    brighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (brighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=lambda theme: theme.name)
def test_text_and_lines_stand_out_from_the_paper(theme):
    # WCAG 2.2: 4.5 for text, 3 for what a figure is made of
    assert contrast(theme.ink, theme.background) > 7
    assert contrast(theme.muted, theme.background) > 4.5
    assert all(contrast(color, theme.background) > 3 for color in theme.models.values())

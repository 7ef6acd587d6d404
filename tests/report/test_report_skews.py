from __future__ import annotations

from typing import Any

from report.sample import sample_result
from wardround.report import skews
from wardround.report.figures import DRAWN, pictures_of
from wardround.report.page import page

FOUND: dict[str, Any] = {
    "sites": 5,
    "patients": 400,
    "label": {"skew": -0.0004, "distance": 0.1, "chance": 0.1},
    "quantity": {"cv": 0.43, "effective_sites": 4.21},
    "feature": {"skew": 0.187, "distance": 0.2, "chance": 0.01, "columns": {"age": 0.187}},
    "gaps": {"skew": None},
    "shifts": {"age": dict.fromkeys(("Basel", "Cleveland", "Hungary", "Long Beach", "Zurich"), 0.3)},
}


def test_figures_are_rounded_and_what_is_undefined_says_so() -> None:
    found = {what: figure for what, figure, _ in skews.rows({"heterogeneity": FOUND})}
    assert found == {"Label skew": "0.00", "Feature skew": "0.19 SD", "Gaps": "undefined", "Effective sites": "4.2"}
    assert "4.2 of 5" in skews.sentence({"heterogeneity": FOUND})


def test_a_result_without_them_has_no_rows() -> None:
    assert skews.rows(sample_result(5)) == []
    assert skews.sentence(sample_result(5)) == ""


def test_the_page_shows_them_with_the_picture_of_shifts() -> None:
    result = sample_result(5, heterogeneity=FOUND)
    drawn = pictures_of({"shift": DRAWN["shift"]}, result)
    text = page(result, drawn)
    assert "How much the sites differ" in text
    assert "0.19 SD" in text
    assert drawn["shift"].light in text
    assert "How much the sites differ" not in page(sample_result(5), {})

"""Pictures of a described table."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from data.profile import hospital
from wardround import plots
from wardround.data.profile.describe import describe
from wardround.data.tables.reader import open_table
from wardround.plots import profile as drawn
from wardround.plots import small

EVERY = {
    "missing_by_column": drawn.missing_by_column,
    "missing_by_site": drawn.missing_by_site,
    "label_by_site": drawn.label_by_site,
    "rows_by_site": drawn.rows_by_site,
    "correlation": drawn.correlation,
    "telling": drawn.telling,
}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return describe(open_table(hospital.write(tmp_path_factory.mktemp("t") / "stays.csv", hospital.rows()))).tree


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("t") / "bare.csv"
    path.write_text("word,other\n" + "a,b\nc,d\n" * 20)
    return describe(open_table(path)).tree


@pytest.mark.parametrize("name", EVERY)
def test_every_picture_is_drawn_in_both_themes_the_same_each_time(name: str, tree: Any) -> None:
    light, again, dark = (
        plots.render(EVERY[name](tree, theme), "svg") for theme in (plots.LIGHT, plots.LIGHT, plots.DARK)
    )
    assert light == again
    assert light != dark
    assert b"#1b1e21" in light


@pytest.mark.parametrize("name", EVERY)
def test_nothing_to_draw_is_none(name: str, bare: Any) -> None:
    assert EVERY[name](bare, plots.LIGHT) is None


def test_withheld_counts_are_told_apart_and_not_told(tree: Any) -> None:
    svg = plots.render(drawn.label_by_site(tree, plots.LIGHT), "svg").decode()
    assert "hatched: fewer than 5 rows" in svg
    shown = {"edges": [0.0, 1.0, 2.0], "rows": [None, 20], "clipped": False}
    bars = small.histogram(shown, 5)
    assert bars.count('class="few"') == bars.count('class="bar"') == 1
    assert "fewer than 5" in bars
    # the threshold of 5 of 20 rows on 70 units
    assert re.search(r'class="few"[^>]*height="17\.5"', bars)


def test_names_in_small_pictures_are_escaped() -> None:
    text = small.boxes([{"name": "<b>&", "five": [0.0, 1.0, 2.0, 3.0, 4.0]}])
    assert "&lt;b&gt;&amp;" in text
    assert "<b>" not in text
    assert small.boxes([]) == ""


def test_a_page_escapes_what_comes_from_the_file(tmp_path: Path) -> None:
    from wardround.report.profile import page

    path = tmp_path / "t.csv"
    path.write_text("<i>age</i>,label\n" + "".join(f"{n % 50},{n % 2}\n" for n in range(100)))
    found = describe(open_table(path))
    text = page(found.tree, found.schema.to_yaml())
    assert "<i>age</i>" not in text
    assert "&lt;i&gt;age&lt;/i&gt;" in text
    assert not re.search(r"<script|<link|url\(|https?://(?!www\.w3\.org)", text)

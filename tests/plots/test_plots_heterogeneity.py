from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Any

import pytest
from matplotlib.figure import Figure

from report.sample import sample_result
from wardround import plots

FOUR = ("negative", "primary hypothyroid", "compensated hypothyroid", "secondary hypothyroid")


def texts(figure: Figure) -> set[str]:
    svg = plots.render(figure, "svg").decode()
    return {"".join(node.itertext()).strip() for node in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")}


def heterogeneous(sites: int = 5, columns: int = 6, **changes: Any) -> dict[str, Any]:
    """A sample result with shifts that grow with the site and fall with the column."""
    result = sample_result(sites, 1, **changes)
    names = list(result["partition"])
    result["heterogeneity"] = {
        "sites": sites,
        "quantity": {"cv": 0.4, "effective_sites": sites / 2},
        "feature": {"skew": 0.2, "columns": {f"column {c}": 0.5 - 0.01 * c for c in range(columns)}},
        "shifts": {
            f"column {c}": {name: None if k == 1 and c == 2 else 0.2 * k - 0.1 * c for k, name in enumerate(names)}
            for c in range(columns)
        },
    }
    return result


@pytest.mark.parametrize("draw", [plots.class_mix, plots.site_sizes, plots.feature_shift])
@pytest.mark.parametrize("sites", [12, 60])
def test_figures_of_any_number_of_sites_render_alike_and_by_theme(draw: Any, sites: int) -> None:
    result = heterogeneous(sites, classes=FOUR)
    light, again, dark = (draw(result, theme) for theme in (plots.LIGHT, plots.LIGHT, plots.DARK))
    assert plots.render(light, "svg") == plots.render(again, "svg")
    assert plots.render(light, "svg") != plots.render(dark, "svg")
    assert light.get_size_inches()[1] < 8


def test_nothing_to_draw_is_none() -> None:
    plain = sample_result(5)
    assert plots.class_mix(plain, plots.LIGHT) is None  # two classes: the stacked bars say it
    assert plots.site_sizes(plain, plots.LIGHT) is None
    assert plots.feature_shift(plain, plots.LIGHT) is None
    assert plots.class_mix({}, plots.LIGHT) is None


def test_bubbles_name_every_site_and_class() -> None:
    shown = texts(plots.class_mix(heterogeneous(12, classes=("a", "b", "c")), plots.LIGHT))
    assert {"a", "b", "c", "site 0011"} <= shown


def test_the_heat_map_has_its_numbers_and_marks_what_was_never_measured() -> None:
    shown = texts(plots.feature_shift(heterogeneous(5), plots.LIGHT))
    assert {"column 0", "Basel", "0.8", "0.0", "\u00d7"} <= shown
    assert "-0.0" not in shown
    assert any("never measured" in text for text in shown)
    full = heterogeneous(5)
    full["heterogeneity"]["shifts"]["column 2"]["Cleveland"] = 0.1
    assert not any("never measured" in text for text in texts(plots.feature_shift(full, plots.LIGHT)))


def test_columns_stand_for_sites_where_no_site_is_listed() -> None:
    result = heterogeneous(5, columns=40)
    result["heterogeneity"]["shifts"] = {}
    shown = texts(plots.feature_shift(result, plots.LIGHT))
    assert "The 30 columns that differ most, of 40" in shown
    assert "column 0" in shown
    assert "column 39" not in shown


def test_effective_sites_stand_below_the_sizes() -> None:
    assert "12 sites that weigh as 6.0 of one size would" in texts(plots.site_sizes(heterogeneous(12), plots.LIGHT))


@pytest.mark.parametrize("draw", [plots.partition, plots.class_mix])
def test_long_class_names_stay_on_the_paper(draw: Any) -> None:
    figure = draw(heterogeneous(60, classes=FOUR), plots.LIGHT)
    plots.render(figure, "png")
    width = figure.get_size_inches()[0] * figure.dpi
    assert all(legend.get_window_extent().x1 <= width for legend in figure.legends)

from __future__ import annotations

import xml.etree.ElementTree as ET

import matplotlib
import pytest
from matplotlib.figure import Figure

from report.sample import sample_result
from wardround import plots
from wardround.plots.convergence import curve, ranking_metric
from wardround.plots.sites import MANY_SITES

EVERY = {
    "by_bytes": plots.by_bytes,
    "by_site": plots.by_site,
    "calibration": plots.calibration,
    "comparison": plots.comparison,
    "loss_by_round": plots.loss_by_round,
    "overview": plots.overview,
    "partition": plots.partition,
    "ranking_by_round": plots.ranking_by_round,
    "roc": plots.roc,
}
PNG = b"\x89PNG\r\n\x1a\n"


def texts(figure: Figure) -> set[str]:
    """Every text that a reader sees; drawing first, since ticks are made then."""
    svg = plots.render(figure, "svg").decode()
    return {"".join(node.itertext()).strip() for node in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")}


@pytest.mark.parametrize("name", EVERY)
def test_every_figure_renders_in_both_themes_and_they_differ(name):
    result = sample_result()
    light, dark = (EVERY[name](result, theme) for theme in (plots.LIGHT, plots.DARK))
    assert plots.render(light, "png").startswith(PNG)
    assert plots.render(light, "svg") != plots.render(dark, "svg")
    assert plots.LIGHT.ink in plots.render(light, "svg").decode()
    assert plots.LIGHT.ink not in plots.render(dark, "svg").decode()


@pytest.mark.parametrize("name", EVERY)
def test_the_same_result_gives_the_same_bytes(name):
    once, again = (EVERY[name](sample_result(), plots.LIGHT) for _ in range(2))
    for kind in ("svg", "png"):
        assert plots.render(once, kind) == plots.render(again, kind)


@pytest.mark.parametrize("sites", [1, 30, 1000])
@pytest.mark.parametrize("name", ["by_site", "partition"])
def test_any_number_of_sites_fits(name, sites):
    figure = EVERY[name](sample_result(sites, 1), plots.LIGHT)
    assert figure.get_size_inches()[1] < 10
    shown = texts(figure)
    listed = sum(site in shown for site in sample_result(sites, 1)["partition"])
    assert listed == (sites if sites <= MANY_SITES else 0)


@pytest.mark.parametrize(
    ("absent", "name", "gone"),
    [
        ("centralized", "comparison", "Centralised"),
        ("centralized", "overview", "Centralised"),
        ("local", "comparison", "Each site alone"),
        ("local", "by_site", "Each site alone"),
        ("federated", "comparison", "Federated"),
        ("history", "overview", "kept: round 1"),
    ],
)
def test_a_missing_part_is_left_out(absent, name, gone):
    whole = sample_result(3, 2)
    part = {key: value for key, value in whole.items() if key != absent}
    if "history" in part:
        part["history"] = {model: entries for model, entries in whole["history"].items() if model != absent}
    assert gone in texts(EVERY[name](whole, plots.LIGHT))
    assert gone not in texts(EVERY[name](part, plots.LIGHT))


@pytest.mark.parametrize("name", [name for name in EVERY if name != "overview"])
def test_nothing_to_draw_is_none(name):
    assert EVERY[name]({}, plots.LIGHT) is None


def test_the_overview_of_nothing_is_still_a_picture():
    assert plots.render(plots.overview({}, plots.LIGHT), "png").startswith(PNG)


def test_the_overview_is_1200_pixels_wide():
    header = plots.render(plots.overview(sample_result(), plots.LIGHT), "png")
    # IHDR: width and height are the big-endian words at 16 and 20; 7.5 x 2.65 inches x 160 dpi = 1200 x 424
    assert (int.from_bytes(header[16:20]), int.from_bytes(header[20:24])) == (1200, 424)


def test_one_round_and_rounds_without_validation():
    result = sample_result(rounds=1)
    assert "kept: round 1" in texts(plots.loss_by_round(result, plots.LIGHT))
    sparse = sample_result(rounds=4)
    for entry in sparse["history"]["federated"][::2]:
        entry["validation"] = None
    # entries 1 and 3 of 4 remain, which are the completed rounds 2 and 4
    assert [x for x, _ in curve(sparse["history"]["federated"], "loss")] == [2.0, 4.0]
    for entries in sparse["history"].values():
        for entry in entries:
            entry["validation"] = None
    assert plots.loss_by_round(sparse, plots.LIGHT) is None
    assert plots.by_bytes(sparse, plots.LIGHT) is None


def test_without_auroc_accuracy_takes_its_place():
    result = sample_result()
    for entries in result["history"].values():
        for entry in entries:
            del entry["validation"]["auroc"]
    assert ranking_metric(result) == "accuracy"
    assert "Validation Accuracy by round" in texts(plots.ranking_by_round(result, plots.LIGHT))


def test_a_site_without_auroc_shows_its_accuracy_and_says_so():
    result = sample_result()
    for model in ("federated", "local"):
        del result[model]["sites"]["Zurich"]["auroc"]
    shown = texts(plots.by_site(result, plots.LIGHT))
    assert "Zurich (accuracy)" in shown
    assert "Basel" in shown
    assert any("hollow: accuracy" in text for text in shown)


def test_where_no_site_has_auroc_the_majority_class_joins():
    result = sample_result()
    for model in ("federated", "local"):
        for figures in result[model]["sites"].values():
            del figures["auroc"]
    shown = texts(plots.by_site(result, plots.LIGHT))
    assert {"Test Accuracy by site", "Majority class", "Basel"} <= shown


def test_many_sites_are_counted_on_each_side_of_the_diagonal():
    result = sample_result(50)
    names = list(result["partition"])
    for index, name in enumerate(names):
        result["local"]["sites"][name] = {"auroc": 0.8}
        # 30 above, 15 below, 5 equal
        result["federated"]["sites"][name] = {"auroc": 0.9 if index < 30 else 0.7 if index < 45 else 0.8}
    shown = texts(plots.by_site(result, plots.LIGHT))
    assert "Federated higher at 30, each site alone at 15, equal at 5" in shown


def test_accuracy_stands_beside_the_majority_class():
    shown = texts(plots.comparison(sample_result(), plots.LIGHT))
    assert {"Accuracy", "Majority class", "Federated", "Centralised", "Each site alone"} <= shown
    assert "Majority class" not in texts(plots.comparison(sample_result(majority=None), plots.LIGHT))


@pytest.mark.parametrize("name", ["$\\frac", "_hidden", "a\x00b\nc", "<script>&", "内科", "x" * 200])
def test_untrusted_names_are_drawn_as_text(name):
    result = sample_result(2, 2, classes=(name, "other"))
    for model in ("federated", "local"):
        result[model]["sites"] = {name: result[model]["sites"]["Basel"]}
    result["partition"] = {name: result["partition"]["Basel"]}
    for draw in (plots.partition, plots.by_site):
        figure = draw(result, plots.DARK)
        ET.fromstring(plots.render(figure, "svg"))
        assert plots.render(figure, "png").startswith(PNG)


@pytest.mark.parametrize("count", [1, 2, 9])
def test_any_number_of_classes(count):
    classes = tuple(f"class {label}" for label in range(count))
    shown = texts(plots.partition(sample_result(classes=classes), plots.LIGHT))
    assert set(classes) <= shown
    assert {"train", "validation", "test"} <= shown


def test_more_counts_than_class_names_are_numbered():
    result = sample_result(classes=("a", "b", "c"))
    result["dataset"]["classes"] = ["a"]
    assert {"a", "class 1", "class 2"} <= texts(plots.partition(result, plots.LIGHT))


def test_a_svg_has_no_date_and_falls_back_to_fonts_of_the_reader():
    svg = plots.render(plots.roc(sample_result(), plots.LIGHT), "svg").decode()
    assert "<dc:date>" not in svg
    assert "sans-serif" in svg


def test_drawing_leaves_the_users_settings_alone_and_ignores_them():
    expected = plots.render(plots.roc(sample_result(), plots.LIGHT), "svg")
    with matplotlib.rc_context({"font.family": ["serif"], "lines.linewidth": 9.0, "svg.fonttype": "path"}):
        before = dict(matplotlib.rcParams)
        assert plots.render(plots.roc(sample_result(), plots.LIGHT), "svg") == expected
        assert dict(matplotlib.rcParams) == before


def test_importing_the_package_does_not_import_matplotlib():
    import subprocess
    import sys

    code = "import sys, wardround.plots, wardround.report; assert not {'matplotlib', 'jinja2'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)

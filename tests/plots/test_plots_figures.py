from __future__ import annotations

import re
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
    "confusion": plots.confusion,
    "gain_by_site": plots.gain_by_site,
    "loss_by_round": plots.loss_by_round,
    "overview": plots.overview,
    "partition": plots.partition,
    "precision_recall": plots.precision_recall,
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
    day, night = plots.render(light, "svg"), plots.render(dark, "svg")
    assert day != night
    assert plots.LIGHT.ink in day.decode()
    assert plots.LIGHT.ink not in night.decode()
    turned = plots.darkened(day)
    assert (turned is None) == (name == "confusion")
    if turned is not None:
        assert nameless(turned) == nameless(night)
    assert plots.render(light, "png").startswith(PNG)


def nameless(svg: bytes) -> str:
    """An SVG whose identifiers are numbered: matplotlib makes them of what they name, colours among it."""
    names: dict[str, str] = {}
    return re.sub(
        r'(?<=["#])\w{10,11}(?=[")])', lambda found: names.setdefault(found[0], str(len(names))), svg.decode()
    )


def test_each_light_colour_has_one_dark_one():
    pairs = dict(zip(plots.LIGHT.colours, plots.DARK.colours, strict=True))
    assert tuple(pairs[colour] for colour in plots.LIGHT.colours) == plots.DARK.colours


def test_colours_that_are_not_the_themes_are_not_turned():
    svg = b'<path style="fill: %s; stroke: #e3e6e9"/><text>fill: me #1b1e21; fill: #1b1e2</text>'
    assert plots.darkened(svg % b"#123456") is None
    assert plots.darkened(svg % b"none") == svg.replace(b"#e3e6e9", b"#30363c") % b"none"
    assert plots.darkened(b'<image href=""/>') is None


@pytest.mark.parametrize("name", EVERY)
def test_the_same_result_gives_the_same_bytes(name):
    once, again = (EVERY[name](sample_result(), plots.LIGHT) for _ in range(2))
    for kind in ("svg", "png"):
        assert plots.render(once, kind) == plots.render(again, kind)


@pytest.mark.parametrize("sites", [1, 30, 1000])
@pytest.mark.parametrize("name", ["by_site", "gain_by_site", "partition"])
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


THREE = ("none", "mild", "severe")


def test_more_than_two_classes_have_a_curve_each_and_say_what_they_mean():
    result = sample_result(classes=THREE)
    for draw in (plots.roc, plots.precision_recall):
        shown = texts(draw(result, plots.LIGHT))
        assert set(THREE) <= shown
        assert "Centralised" not in shown
    assert "fraction right" in texts(plots.calibration(result, plots.LIGHT))
    assert "Macro AUROC" in texts(plots.comparison(result, plots.LIGHT))
    assert "Validation Macro AUROC by round" in texts(plots.ranking_by_round(result, plots.LIGHT))


def test_of_many_classes_the_eight_most_frequent_have_curves():
    names = tuple(f"class {label}" for label in range(12))
    result = sample_result(classes=names)
    result["confusion"]["federated"] = [[float(label if c == 0 else 0) for c in range(12)] for label in range(12)]
    shown = texts(plots.roc(result, plots.LIGHT))
    assert {name for name in names if name in shown} == set(names[4:])


def test_a_confusion_matrix_shows_shares_and_counts():
    result = sample_result(confusion={"federated": [[30.0, 10.0], [0.0, 0.0]]})
    shown = texts(plots.confusion(result, plots.LIGHT))
    assert {"Federated", "75 %", "30", "25 %", "10", "0 %", "benign", "malignant"} <= shown
    assert plots.confusion(result, plots.LIGHT, model="local") is None
    assert plots.confusion(sample_result(confusion={"federated": [[0.0, 0.0]] * 2}), plots.LIGHT) is None
    assert plots.confusion(sample_result(classes=tuple("abcdefghijklmnopqrstu")), plots.LIGHT) is None


def test_bars_below_the_calibration_count_the_federated_rows():
    shown = texts(plots.calibration(sample_result(), plots.LIGHT))
    assert {"70", "12", "41"} <= shown


def test_a_target_is_a_line_where_its_metric_is_drawn():
    result = sample_result()
    for draw in (plots.ranking_by_round, plots.by_bytes):
        assert "target 0.950" in texts(draw(result, plots.LIGHT))
    assert "target 0.950" not in texts(plots.loss_by_round(result, plots.LIGHT))


def test_gains_are_sorted_from_loss_to_gain():
    result = sample_result(3)
    values = dict(zip(result["partition"], (0.1, -0.2, 0.0), strict=True))
    result["gain"]["local"]["sites"] = {site: {"auroc": value} for site, value in values.items()}
    figure = plots.gain_by_site(result, plots.LIGHT)
    names = [label.get_text() for label in figure.subfigs[0].axes[0].get_yticklabels()]
    assert names == sorted(values, key=values.get)
    assert "AUROC: higher at 1 site, lower at 1" in texts(figure)

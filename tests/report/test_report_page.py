from __future__ import annotations

import re
import time
from html.parser import HTMLParser

import pytest
import yaml

from report.sample import sample_result
from wardround.errors import StorageError
from wardround.report import build, model_card
from wardround.report.figures import pictures
from wardround.report.page import page as write_page


class Page(HTMLParser):
    """The text of a page, its tags, its links and everything that it would load."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.words, self.loads, self.ids = [], [], [], set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        for name, value in attributes:
            if name in ("src", "srcset", "href", "data", "action", "poster"):
                self.loads.append(value)
            if name == "id":
                self.ids.add(value)

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).replace("\u00a0", " ").split())


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    path = build(tmp_path_factory.mktemp("run"), sample_result())
    return path, path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def drawn():
    return pictures(sample_result())


def test_a_report_is_a_page_figures_and_a_card(page, drawn):
    path, _ = page
    assert path.name == "report.html"
    assert {file.name for file in path.parent.iterdir()} == {"report.html", "MODEL_CARD.md", "figures"}
    assert {file.stem for file in (path.parent / "figures").iterdir()} == set(drawn)


def test_nothing_is_loaded_from_elsewhere(page):
    loads = Page(page[1]).loads
    assert loads
    assert all(load.startswith(("data:image/svg+xml;base64,", "#")) for load in loads)
    assert not re.search(r"@import|url\(|<script|<link|<iframe", page[1])
    assert "default-src 'none'" in page[1]


def test_links_lead_somewhere(page):
    parsed = Page(page[1])
    targets = {load[1:] for load in parsed.loads if load.startswith("#")}
    assert targets <= parsed.ids


def test_every_picture_has_a_dark_twin_and_a_text(page, drawn):
    parsed = Page(page[1])
    shown = len(drawn) - 1  # the overview is for the folder alone
    assert parsed.tags.count("img") == parsed.tags.count("source") == shown
    assert page[1].count('media="screen and (prefers-color-scheme: dark)"') == shown
    assert page[1].count(' alt="') == shown
    assert ' alt=""' not in page[1]


def test_tags_are_closed(page):
    for tag in ("table", "div", "section", "figure", "details", "dl", "ul", "tr", "td"):
        assert page[1].count(f"<{tag}>") + page[1].count(f"<{tag} ") == page[1].count(f"</{tag}>"), tag


def test_the_figures_that_matter_are_there(page):
    result, text = sample_result(), Page(page[1]).text
    for model in ("federated", "centralized", "local"):
        for scope in ("pooled", "site_mean"):
            assert f"{result[model][scope]['auroc']:.3f}" in text
    assert "majority class: 0.630" in text
    assert "always answering the most frequent class gives 0.630" in text
    for site in result["partition"]:
        assert site in text
    # 1316 x 5 x 20 and 1204 x 5 x 20
    assert "131\u202f600" in page[1]
    assert "120\u202f400" in page[1]
    # (131600 + 120400) / (20 rounds x 5 sites) = 2520
    assert "2\u202f520" in page[1]
    assert "on validation rows only" in text
    assert "no differential privacy" in text
    assert "the server sees the update of each site" in text
    assert "not a medical device" in text


def test_the_job_is_on_the_page_as_yaml(page):
    import html

    text = html.unescape(re.search(r"<pre>(.*?)</pre>", page[1], re.S).group(1))
    expected = yaml.safe_load(yaml.safe_dump(sample_result()["job"] | {"x": 0}))
    assert yaml.safe_load(text) | {"x": 0} == expected


def test_the_same_result_gives_the_same_files(page, tmp_path):
    again = build(tmp_path, sample_result())
    for file in page[0].parent.rglob("*.*"):
        assert (tmp_path / file.relative_to(page[0].parent)).read_bytes() == file.read_bytes(), file.name
    assert again.read_text(encoding="utf-8") == page[1]


def test_a_personalised_run_says_so():
    model = {"name": "cnn", "parameters": 100, "shared": 90, "local_names": ["norm.weight", "norm.bias"]}
    text = write_page(sample_result(2, 2, personalized=True, model=model), {})
    assert "personalised figures" in text
    assert "norm.weight, norm.bias" in text
    assert "no figures for a site that took no part" in text


def test_a_plain_run_does_not_say_personalised(page):
    assert "personalised" not in page[1].lower()


@pytest.mark.parametrize("count", [1, 1000])
def test_few_and_many_sites(count):
    text = write_page(sample_result(count, 1), {})
    assert ("All 1\u202f000 sites" in text) == (count == 1000)
    assert ("First quartile" in text) == (count == 1000)


@pytest.mark.parametrize(
    "absent", ["centralized", "local", "majority", "gain", "history", "partition", "roc", "job", "federated", "dataset"]
)
def test_a_missing_part_is_left_out(absent):
    result = sample_result(2, 2, **{absent: None})
    # the job as YAML says null, and nothing else may say None
    assert "None" not in Page(write_page(result, {})).text
    assert "None" not in model_card(result)


def test_a_result_of_nothing_is_still_a_page(tmp_path):
    assert "No test figure of the federated model is defined" in build(tmp_path, {}).read_text(encoding="utf-8")


def test_figures_without_data_are_removed_from_the_folder(tmp_path):
    build(tmp_path, sample_result(2, 2))
    assert (tmp_path / "figures" / "roc.png").exists()
    build(tmp_path, sample_result(2, 2, roc=None))
    assert not (tmp_path / "figures" / "roc.png").exists()


def test_names_from_data_are_text_and_not_markup():
    evil = '<script>alert("1")</script><img src=http://example.org/x>'
    result = sample_result(2, 2, name=evil)
    for block in (result["partition"], result["federated"]["sites"], result["local"]["sites"]):
        block[evil] = block.pop("Basel")
    result["dataset"]["title"] = result["model"]["name"] = evil
    result["dataset"]["classes"] = [evil, evil]
    result["preprocessing"]["features"] = [evil]
    result["history"]["federated"][0]["abstained"] = {evil: evil}
    result["environment"][evil] = evil
    parsed = Page(write_page(result, {}))
    assert "script" not in parsed.tags
    assert all(load.startswith(("data:image/", "#")) for load in parsed.loads)
    assert '<script>alert("1")</script>' in parsed.text
    card = model_card(result)
    assert not re.search(r"(?<!\\)<", card)


def test_abstentions_are_listed_with_their_reason():
    result = sample_result(3, 4)
    for index in (1, 3):
        result["history"]["federated"][index] |= {"survivors": 2, "abstained": {"Basel": "non-finite update"}}
    text = Page(write_page(result, {})).text
    assert "Basel 2 2, 4 non-finite update" in text
    assert "In 2 of them not every site asked was counted; the fewest were 2 of 3, in round 2." in text


def test_a_folder_that_cannot_be_made_is_a_storage_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        build(tmp_path / "file", sample_result(1, 1))


@pytest.mark.long
def test_a_report_takes_seconds(tmp_path):
    build(tmp_path, sample_result(1, 1))
    begin = time.process_time()
    build(tmp_path, sample_result(30, 100))
    # 4 seconds of the plan, with room for a slow machine
    assert time.process_time() - begin < 8


def test_what_the_threshold_does_is_in_the_page_and_the_card():
    job = sample_result()["job"]
    job["evaluation"]["threshold"] = {"sensitivity": 0.9, "specificity": None}
    result = sample_result(job=job)
    text, card = Page(write_page(result, {})).text, model_card(result)
    for words in (text, card):
        assert "chosen on validation rows only, to reach a sensitivity of 0.9 at the best specificity" in words
    point = result["operating_point"]["federated"]["test"]
    assert f"{point['npv']:.3f} {point['npv_low']:.3f}\u2013{point['npv_high']:.3f}" in text
    assert "At the decision threshold" in card


def test_three_classes_have_a_table_each_and_no_threshold():
    result = sample_result(classes=("none", "mild", "severe"))
    result["partition"]["Basel"]["test"] = [9, 4, 0]
    text, card = Page(write_page(result, {})).text, model_card(result)
    for words in (text, card):
        assert "Macro AUROC" in words
        assert "lass by class" in words
        assert "more than two classes have no threshold" in words
        assert "Basel has no test rows of severe" in words
        assert "At the decision threshold" not in words
    assert f"{result['federated']['classes'][2]['auroc']:.3f}" in text
    assert "Macro figures are unweighted means" in text


def test_figures_from_sums_say_how_their_intervals_are_made():
    result = sample_result(classes=("none", "mild", "severe"))
    result["job"]["evaluation"]["release_scores"] = False
    assert "rather too wide than too narrow" in Page(write_page(result, {})).text
    assert "rather too wide" not in Page(write_page(sample_result(), {})).text


def test_fairness_is_in_the_page_and_the_card():
    result = sample_result()
    over = result["fairness"]["federated"]["auroc"]
    sides = result["fairness"]["gain"]["local"]["auroc"]
    text, card = Page(write_page(result, {})).text, model_card(result)
    for words in (text, card):
        assert f"AUROC is better at {sides['gain']} of 5 sites and worse at {sides['lose']}" in words
        assert f"{over['deviation']:.3f}" in words
        assert over["worst_site"] in words


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {},
            "after 5 rounds and 32.9 kB up, 30.1 kB down; it stayed there from round 7 on (46.1 kB up, 42.1 kB down).",
        ),
        ({"stays": None}, "but did not stay there to the last round."),
        (
            {"first": None, "stays": None},
            "did not reach a validation AUROC of at least 0.950; the best of its rounds has 0.985.",
        ),
        ({"value": None}, "has no value"),
    ],
)
def test_the_target_is_a_sentence(changes, said):
    result = sample_result()
    result["target"] |= changes
    assert said in Page(write_page(result, {})).text
    assert "target" not in Page(write_page(sample_result(target={}), {})).text.split("Configuration")[0]

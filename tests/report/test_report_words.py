from __future__ import annotations

import pytest

from report.sample import sample_result
from wardround.plots.estimate import Estimate
from wardround.report import account, model_card, numbers, tables
from wardround.report.headline import compare, headline, reading


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0312, "+0.031"),
        (-0.0312, "-0.031"),
        (0.0, "0.000"),
        (0.0004, "+0.0004"),
        (-0.00004, "-0.00004"),
        (1e-9, "0.000000"),
    ],
)
def test_a_difference_has_a_sign_and_no_false_zero(value, text):
    assert numbers.signed(value) == text.replace("-", "\u2212")


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1316, "1.32 kB"), (13160, "13.2 kB"), (131600, "132 kB"), (2.5e9, "2.50 GB")],
)
def test_bytes_have_three_digits(value, text):
    assert numbers.human_bytes(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (3.42, "3.4 s"),
        (59.97, "1 min 00 s"),
        (125, "2 min 05 s"),
        (3599.7, "1 h 00 min"),
        (3720, "1 h 02 min"),
    ],
)
def test_durations(seconds, text):
    assert numbers.duration(seconds) == text


def test_what_is_undefined_is_a_dash():
    for write in (numbers.plain, numbers.signed, numbers.whole, numbers.human_bytes, numbers.duration):
        assert write(None) == "—"
    assert numbers.interval(None) == numbers.signed_interval(Estimate(value=1.0)) == ""


def test_a_claim_needs_an_interval_that_excludes_zero():
    higher = compare(Estimate(value=0.03, low=0.01, high=0.05), "auroc", "it", "AUROC")
    lower = compare(Estimate(value=-0.03, low=-0.05, high=-0.01), "auroc", "it", "AUROC")
    open_ = compare(Estimate(value=0.03, low=-0.01, high=0.07), "auroc", "it", "AUROC")
    bare = compare(Estimate(value=0.03), "auroc", "it", "AUROC")
    assert "is higher than" in higher
    assert "excludes 0" in higher
    assert "is lower than" in lower
    assert "does not separate" in open_
    assert "includes 0" in open_
    assert "supports no claim" in bare
    assert not any(word in open_ + bare for word in ("higher", "lower", "better", "worse"))


def test_for_a_brier_score_less_is_better():
    falls = Estimate(value=-0.03, low=-0.05, high=-0.01)
    assert reading(falls, "brier") == "better"
    assert reading(falls, "auroc") == "worse"
    assert reading(None, "auroc") == "no interval"


def test_the_headline_speaks_of_what_there_is():
    assert len(headline(sample_result())) == 4
    assert len(headline(sample_result(gain=None, majority=None))) == 1
    without = sample_result(gain=None)
    del without["federated"]["pooled"]["auroc"]
    assert "has accuracy 0." in headline(without)[0]


def test_the_whole_row_adds_up():
    rows = tables.partition(sample_result(7))
    assert [row.name for row in rows][-1] == "All sites"
    assert rows[-1].total == sum(row.total for row in rows[:-1])
    assert rows[-1].classes == tuple(map(sum, zip(*(row.classes for row in rows[:-1]), strict=True)))
    assert len(tables.partition(sample_result(1))) == 1


def test_spreads_are_minimum_quartiles_maximum():
    result = sample_result(5, local=None, majority=None, gain=None)
    for site, value in zip(result["partition"], (0.5, 0.9, 0.6, 0.8, 0.7), strict=True):
        result["federated"]["sites"][site] = {"auroc": value}
    (spread,) = tables.spreads(result, tables.sites(result))
    assert spread.values == pytest.approx((0.5, 0.6, 0.7, 0.8, 0.9))


def test_the_account_follows_the_job():
    result = sample_result()
    evaluation = result["job"]["evaluation"]
    assert "lowest validation loss, on validation rows only" in account.selection(result)
    evaluation["select"] = "last"
    assert "no figure chose it" in account.selection(result)
    assert "fixed in the job" in account.threshold(result)
    evaluation["threshold"] = "balanced"
    assert "on validation rows only" in account.threshold(result)
    evaluation["bootstrap"] = 0
    assert "no intervals" in account.intervals(result)


def test_what_is_open_follows_the_job():
    result = sample_result()
    assert any("handed out the score" in line for line in account.does_not_protect(result))
    result["job"]["evaluation"]["release_scores"] = False
    assert any("stayed at the sites" in line for line in account.does_not_protect(result))
    result["job"]["privacy"]["channel"]["kind"] = "vault:Channel"
    text = " ".join(account.does_not_protect(result))
    assert "plain" not in text
    assert "no statement" in text


def test_the_card_has_its_sections_and_figures():
    result = sample_result()
    card = model_card(result)
    for heading in ("Intended use", "Data", "Preprocessing", "Figures on test rows", "Limits", "Privacy"):
        assert f"\n## {heading}\n" in card
    pooled = result["federated"]["pooled"]
    assert f"| AUROC | {pooled['auroc']:.3f} ({pooled['auroc_low']:.3f}\u2013{pooled['auroc_high']:.3f})" in card
    assert "It is not a medical device." in card
    assert "CC BY 4.0" in card


def test_a_card_of_nothing_is_still_a_card():
    assert model_card({}).startswith("# Model card: run\n")

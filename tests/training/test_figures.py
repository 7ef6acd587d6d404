"""Figures: nested form, stratified and paired resampling, intervals that cover."""

from __future__ import annotations

import numpy as np
import pytest

import wardround.training.bootstrap as module
from wardround.errors import ConfigError, DataError
from wardround.training.figures import MAJORITY_METRICS, figures, gain, majority
from wardround.training.metrics import METRICS, ScoreTable, histogram, measure


def simulated(seed: int, sizes: dict[str, int], *, sharpness: float = 1.0) -> dict[str, ScoreTable]:
    """Rows whose labels depend on the seed alone, scored better with more sharpness."""
    tables = {}
    for index, (site, size) in enumerate(sizes.items()):
        random = np.random.default_rng([seed, index])
        labels = random.random(size) < 0.4
        logits = sharpness * (2.0 * labels - 1.0) + random.normal(size=size)
        tables[site] = ScoreTable.from_rows(1 / (1 + np.exp(-logits)), labels)
    return tables


SIZES = {"north": 30, "south": 50, "west": 12}


def test_estimates_are_the_metrics_pooled_by_site_and_their_mean() -> None:
    tables = simulated(0, SIZES)
    result = figures(tables, 0.5, 0, seed=1)
    assert result["pooled"] == measure(ScoreTable.merge(tables.values()), 0.5)
    assert result["sites"] == {site: measure(table, 0.5) for site, table in tables.items()}
    for name in METRICS:
        assert result["site_mean"][name] == pytest.approx(np.mean([result["sites"][site][name] for site in tables]))


def test_the_site_mean_is_over_the_sites_that_define_a_metric() -> None:
    tables = {
        "both": ScoreTable.from_rows([0.9, 0.8, 0.1], [1, 0, 0]),
        "healthy": ScoreTable.from_rows([0.2, 0.4], [0, 0]),
        "empty": ScoreTable.from_rows([], []),
    }
    result = figures(tables, 0.5, 0, seed=1)
    assert result["site_mean"]["auroc"] == result["sites"]["both"]["auroc"] == 1.0
    assert result["site_mean"]["specificity"] == (1 / 2 + 1) / 2
    assert "auroc" not in result["sites"]["healthy"]
    assert result["sites"]["empty"] == {}


def test_nothing_gives_nothing() -> None:
    assert figures({}, 0.5, 10, seed=1) == {"pooled": {}, "site_mean": {}, "sites": {}}
    assert figures({"a": ScoreTable.from_rows([], [])}, 0.5, 10, seed=1)["pooled"] == {}


def test_sites_are_left_out_where_not_wanted_and_nothing_else_changes() -> None:
    tables = simulated(0, SIZES)
    full, short = figures(tables, 0.5, 50, seed=1), figures(tables, 0.5, 50, seed=1, per_site=False)
    assert short["sites"] == {}
    assert (short["pooled"], short["site_mean"]) == (full["pooled"], full["site_mean"])


def test_pooled_decisions_are_at_each_sites_own_threshold() -> None:
    # At a, .3 separates; at b, .7. No single threshold is right for all four rows.
    tables = {"a": ScoreTable.from_rows([0.2, 0.4], [0, 1]), "b": ScoreTable.from_rows([0.6, 0.8], [0, 1])}
    result = figures(tables, {"b": 0.7, "a": 0.3}, 20, seed=1)
    assert result["pooled"]["accuracy"] == result["pooled"]["accuracy_low"] == 1.0
    assert figures(tables, 0.5, 0, seed=1)["pooled"]["accuracy"] == 0.5


def test_resamples_are_deterministic_and_named_by_seed_and_site(monkeypatch: pytest.MonkeyPatch) -> None:
    tables = simulated(0, SIZES)
    first = figures(tables, 0.5, 100, seed=1)
    assert figures(tables, 0.5, 100, seed=1) == first
    assert figures(tables, 0.5, 100, seed=2)["sites"]["north"] != first["sites"]["north"]
    # Sites with the same rows are not resampled alike.
    twins = figures({"one": tables["south"], "two": tables["south"]}, 0.5, 100, seed=1)["sites"]
    assert twins["one"] != twins["two"]
    # A site's figures do not depend on who else is there.
    alone = figures({"south": tables["south"]}, 0.5, 100, seed=1)
    assert alone["sites"]["south"] == first["sites"]["south"] == alone["pooled"]
    # Nor do draws depend on how many fit into memory at once.
    monkeypatch.setattr(module, "_CELLS", 700)
    in_blocks = figures(tables, 0.5, 100, seed=1)
    for part in ("pooled", "site_mean"):
        assert in_blocks[part] == pytest.approx(first[part], abs=1e-12)


def test_an_interval_holds_the_estimate_of_a_mean() -> None:
    tables = simulated(0, SIZES)
    result = figures(tables, 0.5, 400, seed=1)
    for found in (result["pooled"], result["site_mean"], *result["sites"].values()):
        for name in ("accuracy", "auroc", "brier", "sensitivity", "specificity"):
            assert found[f"{name}_low"] <= found[name] <= found[f"{name}_high"]
            assert result["pooled"][f"{name}_low"] < result["pooled"][f"{name}_high"]


def test_rows_are_resampled_within_their_site() -> None:
    # One site is always right, the other, as large, always wrong: pooled accuracy is 1/2 in every stratified resample.
    tables = {
        "right": ScoreTable.from_rows([0.9, 0.9, 0.1, 0.1], [1, 1, 0, 0]),
        "wrong": ScoreTable.from_rows([0.1, 0.1, 0.9, 0.9], [1, 1, 0, 0]),
    }
    pooled = figures(tables, 0.5, 200, seed=1)["pooled"]
    assert (pooled["accuracy_low"], pooled["accuracy"], pooled["accuracy_high"]) == (0.5, 0.5, 0.5)


def test_the_spread_of_accuracy_is_binomial() -> None:
    # Each resampled row is right with probability 3/4, so accuracy over 400 rows has deviation sqrt(3/16/400) = 0.02165
    # and its 95 % interval is 2 * 1.96 * 0.02165 = 0.0849 wide.
    table = ScoreTable.from_rows(np.repeat([0.9, 0.1], [300, 100]), np.ones(400))
    found = figures({"a": table}, 0.5, 4000, seed=3)["pooled"]
    assert found["accuracy_high"] - found["accuracy_low"] == pytest.approx(0.0849, rel=0.08)


def test_a_histogram_is_resampled_record_by_record() -> None:
    tables = simulated(0, {"a": 400})
    scores, labels = tables["a"].scores, tables["a"].positives
    binned = {"a": ScoreTable.from_histogram(**histogram(scores, labels, 1000))}
    exact, coarse = figures(tables, 0.5, 2000, seed=1)["pooled"], figures(binned, 0.5, 2000, seed=1)["pooled"]
    for name in ("accuracy", "auroc", "auprc", "brier"):
        assert coarse[name] == pytest.approx(exact[name], abs=2e-3)
        width = exact[f"{name}_high"] - exact[f"{name}_low"]
        assert coarse[f"{name}_high"] - coarse[f"{name}_low"] == pytest.approx(width, rel=0.15)


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    # The truth: P(N(1, 1) >= 0) = 0.8413 for sensitivity, and for auroc P(N(2, 2) > 0) = Phi(2 / sqrt 2) = 0.9214.
    # Over 200 data sets the coverage has a deviation of 0.015 about 0.95; percentile intervals lose a little more.
    covered = {"sensitivity": 0, "auroc": 0}
    for seed in range(200):
        found = figures(simulated(seed, {"a": 60, "b": 90}), 0.5, 200, seed=seed, per_site=False)["pooled"]
        for name, truth in (("sensitivity", 0.8413), ("auroc", 0.9214)):
            covered[name] += found[f"{name}_low"] <= truth <= found[f"{name}_high"]
    assert all(0.89 <= count / 200 <= 0.985 for count in covered.values()), covered


def test_an_interval_is_absent_where_most_resamples_do_not_define_it() -> None:
    # One of 20 rows is positive: a resample holds it with probability 1 - (19/20)^20 = 0.64, more than half.
    # Two records in cells of 0.4 positive and 1.6 negative: both classes with probability 2 * 0.2 * 0.8 = 0.32.
    rare = {"a": ScoreTable.from_rows(np.linspace(0, 1, 20), np.arange(20) == 19)}
    assert "auroc_low" in figures(rare, 0.5, 500, seed=1)["pooled"]
    rarer = {"a": ScoreTable(scores=[0.9, 0.1], positives=[0.4, 0.0], negatives=[0.0, 1.6])}
    found = figures(rarer, 0.5, 500, seed=1)["pooled"]
    assert found["auroc"] == 1.0
    assert "auroc_low" not in found
    assert "auroc_high" not in found
    assert "accuracy_low" in found


def test_a_model_gains_exactly_nothing_over_itself() -> None:
    tables = simulated(0, SIZES)
    result = gain(tables, tables, 0.5, 0.5, 100, seed=1)
    expected = {f"{name}{end}": 0.0 for name in METRICS for end in ("", "_low", "_high")}
    assert result["pooled"] == result["site_mean"] == expected
    assert result["sites"] == dict.fromkeys(SIZES, expected)


def test_a_gain_is_the_difference_of_figures_and_is_paired() -> None:
    good, fair = simulated(0, SIZES, sharpness=1.3), simulated(0, SIZES, sharpness=1.0)
    result = gain(good, dict(reversed(fair.items())), 0.5, 0.4, 300, seed=1)
    mine, theirs = figures(good, 0.5, 300, seed=1), figures(fair, 0.4, 300, seed=1)
    for name in METRICS:
        for part in ("pooled", "site_mean"):
            assert result[part][name] == pytest.approx(mine[part][name] - theirs[part][name])
        for site in SIZES:
            assert result["sites"][site][name] == pytest.approx(mine["sites"][site][name] - theirs["sites"][site][name])
    # Unpaired, variances would add, and squared widths with them; the models share their noise, so half must cancel.
    paired, one, two = (f["pooled"]["auroc_high"] - f["pooled"]["auroc_low"] for f in (result, mine, theirs))
    assert paired**2 < (one**2 + two**2) / 2


def test_a_model_that_errs_on_one_row_less_never_loses_in_a_paired_resample() -> None:
    # Of 40 positive rows one model misses 10 and the other the same 10 and one more: the difference in a resample is
    # the weight of that row over 40, so never negative; unpaired, either could be ahead.
    labels = np.ones(40)
    misses_10, misses_11 = np.where(np.arange(40) < 10, 0.1, 0.9), np.where(np.arange(40) < 11, 0.1, 0.9)
    better, worse = {"a": ScoreTable.from_rows(misses_10, labels)}, {"a": ScoreTable.from_rows(misses_11, labels)}
    pooled = gain(better, worse, 0.5, 0.5, 4000, seed=1)["pooled"]
    assert pooled["accuracy"] == pytest.approx(1 / 40)
    assert pooled["accuracy_low"] == 0.0
    # Binomial(40, 1/40) is at most 2 with probability 0.922 and at most 3 with 0.983.
    assert pooled["accuracy_high"] == pytest.approx(3 / 40)


def test_only_the_same_rows_can_be_paired() -> None:
    tables = simulated(0, SIZES)
    with pytest.raises(DataError, match="'west'"):
        gain(tables, {site: tables[site] for site in ("north", "south")}, 0.5, 0.5, 0, seed=1)
    with pytest.raises(DataError, match="'north' has 30 rows under one model and 31"):
        gain(tables, simulated(0, {**SIZES, "north": 31}), 0.5, 0.5, 0, seed=1)
    with pytest.raises(DataError, match="'north' has other outcomes"):
        gain(tables, simulated(9, SIZES), 0.5, 0.5, 0, seed=1)


def test_the_majority_class_is_each_sites_own() -> None:
    # a: mostly positive in training, so all called positive, 3 of 4 right; b: a tie, so all negative, 2 of 3 right.
    tables = {
        "a": ScoreTable.from_rows([0.1, 0.2, 0.3, 0.4], [1, 1, 1, 0]),
        "b": ScoreTable.from_rows([0.9, 0.9, 0.9], [1, 0, 0]),
    }
    result = majority({"a": (5, 6), "b": (5, 5)}, tables)
    assert result["sites"]["a"] == pytest.approx(
        {"accuracy": 3 / 4, "balanced_accuracy": 1 / 2, "sensitivity": 1, "specificity": 0, "f1": 6 / 7, "kappa": 0}
    )
    assert result["sites"]["b"] == pytest.approx(
        {"accuracy": 2 / 3, "balanced_accuracy": 1 / 2, "sensitivity": 0, "specificity": 1, "f1": 0, "kappa": 0}
    )
    assert set(result["pooled"]) == set(MAJORITY_METRICS)
    assert result["pooled"]["accuracy"] == 5 / 7
    assert result["site_mean"]["accuracy"] == pytest.approx((3 / 4 + 2 / 3) / 2)
    resampled = majority({"a": (5, 6), "b": (5, 5)}, tables, 200, seed=1)["pooled"]
    assert resampled["accuracy_low"] < resampled["accuracy"] < resampled["accuracy_high"]
    with pytest.raises(DataError, match="'b'"):
        majority({"a": (5, 6)}, tables)


def test_bad_arguments_are_named() -> None:
    tables = simulated(0, SIZES)
    with pytest.raises(ConfigError, match="resamples is -1"):
        figures(tables, 0.5, -1, seed=1)
    with pytest.raises(DataError, match="'south' has rows but no threshold"):
        figures(tables, {"north": 0.5}, 0, seed=1)
    with pytest.raises(DataError, match="threshold is nan"):
        figures(tables, float("nan"), 0, seed=1)


def test_the_site_mean_of_a_resample_is_over_the_same_sites_as_the_estimate() -> None:
    # site b ranks its one negative above every positive: its AUROC is 0, and a resample without that row has none.
    # Site a's is 1 in every resample that has both classes, so the mean is (1 + 0) / 2 in all resamples that count.
    a = ScoreTable.from_rows(np.array([0.1] * 20 + [0.9] * 20), np.array([0] * 20 + [1] * 20))
    b = ScoreTable.from_rows(np.array([0.9] + [0.1] * 9), np.array([0] + [1] * 9))
    mean = figures({"a": a, "b": b}, 0.5, 200, seed=1)["site_mean"]
    assert (mean["auroc"], mean["auroc_low"], mean["auroc_high"]) == (0.5, 0.5, 0.5)


def test_figures_of_two_classes_are_those_of_every_version_before() -> None:
    # printed by the first version: resamples, estimates and quantiles of a seed never change between versions
    fair, good = simulated(0, SIZES), simulated(0, SIZES, sharpness=1.3)
    found, better = figures(fair, 0.4, 200, seed=1), gain(good, fair, 0.4, 0.5, 200, seed=1)
    expected = {
        "auroc": (0.9038737446197992, 0.8295396787019128, 0.9566797149296276, 0.8887916666666666, 0.10132575757575757),
        "auprc": (0.9017443017131374, 0.8168519675566795, 0.9537583272467721, 0.8751239394308449, 0.09963718652387107),
        "kappa": (0.5742711707542805, 0.42924597250730856, 0.712668720657277, 0.4474495193460069, 0.3045954053405206),
        "brier": (
            0.1356565267980819,
            0.10644710082512296,
            0.16877717885756774,
            0.10503553857945579,
            -0.0312579776427752,
        ),
        "ece": (0.1199203430604898, 0.09591251414208868, 0.20120575393081896, 0.15729701083905442, 0.06807280462059502),
    }
    for name, (value, low, high, mean_low, gain_high) in expected.items():
        pooled = found["pooled"]
        assert (pooled[name], pooled[f"{name}_low"], pooled[f"{name}_high"]) == pytest.approx(
            (value, low, high), rel=1e-12
        )
        assert found["site_mean"][f"{name}_low"] == pytest.approx(mean_low, rel=1e-12)
        assert better["pooled"][f"{name}_high"] == pytest.approx(gain_high, rel=1e-12)

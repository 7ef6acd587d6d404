"""Thresholds are given, best on the rows, or reach what they are asked to at the least cost."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drawn_tables import tables
from wardround.errors import ConfigError
from wardround.training.metrics import ScoreTable, measure
from wardround.training.operating import choose_threshold


def test_a_threshold_is_the_midpoint_that_is_best() -> None:
    # A negative at .4 above the positive at .3. Accuracy at the candidates: .05 3/5, .2 4/5 (only .4 is wrong),
    # .35 3/5, .55 4/5 (only .3 is wrong), .8 3/5, .95 2/5. Of .2 and .55 the nearer to .5 is .55.
    table = ScoreTable.from_rows([0.1, 0.3, 0.4, 0.7, 0.9], [0, 1, 0, 1, 1])
    assert choose_threshold(table, "accuracy") == pytest.approx(0.55)
    # Balanced: at .2, (3/3 + 1/2) / 2 = 3/4; at .55, (2/3 + 2/2) / 2 = 5/6.
    assert choose_threshold(table, "balanced") == pytest.approx(0.55)
    rare = ScoreTable(scores=[0.2, 0.6], positives=[1.0, 2.0], negatives=[4.0, 4.0])
    # Accuracy: all negative 8/11, cut at .4 6/11, all positive 3/11: the end, midway from .6 to 1.
    assert choose_threshold(rare, "accuracy") == pytest.approx(0.8)
    # Balanced: cut at .4 (2/3 + 1/2) / 2 = 7/12, the ends 1/2.
    assert choose_threshold(rare, "balanced") == pytest.approx(0.4)


@settings(max_examples=100, deadline=None)
@given(tables, st.sampled_from(["accuracy", "balanced"]))
def test_no_cut_is_better_than_the_chosen(table: ScoreTable, how) -> None:
    chosen = choose_threshold(table, how)
    if not table.positives.any() or not table.negatives.any():
        assert chosen == 0.5
        return
    name = {"accuracy": "accuracy", "balanced": "balanced_accuracy"}[how]
    best = max(measure(table, cut)[name] for cut in [*table.scores, 2.0])
    assert measure(table, chosen)[name] == pytest.approx(best, abs=1e-12)


def test_a_threshold_at_the_edges_of_floats() -> None:
    # The midpoint of neighbours is not above the lower one: the upper one separates them.
    above = np.nextafter(0.3, 1.0)
    assert choose_threshold(ScoreTable.from_rows([0.3, above], [0, 1]), "accuracy") == above
    # Nothing should be positive, and a score is 1.
    saturated = ScoreTable(scores=[1.0, 0.5], positives=[1.0, 1.0], negatives=[5.0, 5.0])
    assert measure(saturated, choose_threshold(saturated, "accuracy"))["accuracy"] == 10 / 12


def test_a_given_threshold_is_taken_and_an_unknown_rule_refused() -> None:
    table = ScoreTable.from_rows([0.2, 0.6], [0, 1])
    assert choose_threshold(table, 0.3) == 0.3
    with pytest.raises(ConfigError, match="'f1'"):
        choose_threshold(table, "f1")  # type: ignore[arg-type]


def test_a_sensitivity_is_reached_at_the_best_specificity() -> None:
    # from high to low: + - + + - +; 3 of 4 positives take the four highest rows, cut midway between .5 and .3
    table = ScoreTable.from_rows([0.9, 0.8, 0.6, 0.5, 0.3, 0.2], [1, 0, 1, 1, 0, 1])
    assert choose_threshold(table, {"sensitivity": 0.75}) == pytest.approx(0.4)
    # more than 3 of 4 takes all four, down to .2
    assert choose_threshold(table, {"sensitivity": 0.76}) == pytest.approx(0.1)
    # one of two negatives right: .8 may be called positive, and then everything above .3 is
    assert choose_threshold(table, {"specificity": 0.5}) == pytest.approx(0.4)
    # both right: above .8 only .9 remains
    assert choose_threshold(table, {"specificity": 1.0}) == pytest.approx(0.85)


@settings(max_examples=200, deadline=None)
@given(tables, st.sampled_from(["sensitivity", "specificity"]), st.integers(1, 20).map(lambda k: k / 20))
def test_no_cut_that_reaches_it_costs_less(table: ScoreTable, name: str, least: float) -> None:
    chosen = choose_threshold(table, {name: least})
    if not table.positives.any() or not table.negatives.any():
        assert chosen == 0.5
        return
    other = {"sensitivity": "specificity", "specificity": "sensitivity"}[name]
    found = measure(table, chosen)
    assert found[name] >= least - 1e-9
    cuts = [measure(table, cut) for cut in [0.0, *table.scores, 2.0]]
    assert found[other] == pytest.approx(max(cut[other] for cut in cuts if cut[name] >= least - 1e-9), abs=1e-12)


@pytest.mark.parametrize("how", [{}, {"ppv": 0.9}, {"sensitivity": 0.0}, {"sensitivity": 0.9, "specificity": 0.9}])
def test_what_no_point_is_is_refused(how: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="one of sensitivity and specificity"):
        choose_threshold(ScoreTable.from_rows([0.2, 0.6], [0, 1]), how)

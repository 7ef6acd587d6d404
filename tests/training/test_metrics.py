"""Metrics equal scikit-learn's wherever it defines them, and numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from drawn_tables import free, tables, tied
from wardround.errors import DataError
from wardround.training.curves import calibration
from wardround.training.metrics import (
    METRICS,
    ScoreTable,
    histogram,
    measure,
    measure_weightings,
)


def by_scikit_learn(table: ScoreTable, threshold: float) -> dict[str, float]:
    """Every row twice, once as positive and once as negative, with its counts as sample weights."""
    scores = np.concatenate([table.scores, table.scores])
    labels = np.concatenate([np.ones(len(table)), np.zeros(len(table))])
    weights = np.concatenate([table.positives, table.negatives])
    scores, labels, weights = scores[weights > 0], labels[weights > 0], weights[weights > 0]
    predicted = (scores >= threshold).astype(float)
    positive, negative = bool((labels == 1).any()), bool((labels == 0).any())
    given_weights = {"sample_weight": weights}
    expected: dict[str, float] = {}
    if len(labels):
        expected["accuracy"] = reference.accuracy_score(labels, predicted, **given_weights)
        expected["brier"] = reference.brier_score_loss(labels, scores, pos_label=1, **given_weights)
    if positive:
        expected["sensitivity"] = reference.recall_score(labels, predicted, **given_weights)
        expected["auprc"] = reference.average_precision_score(labels, scores, **given_weights)
    if negative:
        expected["specificity"] = reference.recall_score(labels, predicted, pos_label=0, **given_weights)
    if positive and negative:
        expected["auroc"] = reference.roc_auc_score(labels, scores, **given_weights)
        expected["balanced_accuracy"] = reference.balanced_accuracy_score(labels, predicted, **given_weights)
    if predicted.any():
        expected["ppv"] = reference.precision_score(labels, predicted, **given_weights)
    if not predicted.all():
        expected["npv"] = reference.precision_score(labels, predicted, pos_label=0, **given_weights)
    if positive or predicted.any():
        expected["f1"] = reference.f1_score(labels, predicted, **given_weights)
    if len(set(labels) | set(predicted)) == 2:
        expected["kappa"] = reference.cohen_kappa_score(labels, predicted, **given_weights)
    return expected


@settings(max_examples=200, deadline=None)
@given(tables, st.one_of(tied, free))
def test_every_metric_equals_scikit_learn_and_is_absent_where_undefined(table: ScoreTable, threshold: float) -> None:
    measured = measure(table, threshold)
    error = measured.pop("ece", None)
    assert measured == pytest.approx(by_scikit_learn(table, threshold), abs=1e-9)
    # The calibration error, from the diagram: sum over bins of |predicted - observed| weighted by records.
    diagram = calibration(table)
    total = sum(diagram["records"])
    if total == 0:
        assert error is None
    else:
        gaps = [
            abs(p - o) * r
            for p, o, r in zip(diagram["predicted"], diagram["observed"], diagram["records"], strict=True)
        ]
        assert error == pytest.approx(sum(gaps) / total, abs=1e-12)


@settings(max_examples=50, deadline=None)
@given(tables, free, st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_no_bit(table: ScoreTable, threshold: float, random) -> None:
    order = list(range(len(table)))
    random.shuffle(order)
    shuffled = ScoreTable(
        scores=table.scores[order], positives=table.positives[order], negatives=table.negatives[order]
    )
    assert measure(shuffled, threshold) == measure(table, threshold)


@settings(max_examples=50, deadline=None)
@given(tables, free)
def test_a_count_is_that_many_rows(table: ScoreTable, threshold: float) -> None:
    positives, negatives = table.positives.astype(int), table.negatives.astype(int)
    scores = np.concatenate([np.repeat(table.scores, positives), np.repeat(table.scores, negatives)])
    labels = np.repeat([1, 0], [positives.sum(), negatives.sum()])
    written_out = measure(ScoreTable.from_rows(scores, labels), threshold)
    assert written_out == pytest.approx(measure(table, threshold), abs=1e-12)


def test_many_weightings_equal_one_at_a_time() -> None:
    random = np.random.default_rng(0)
    scores = np.round(random.random(25), 1)
    positives, negatives = random.integers(0, 3, (2, 40, 25)).astype(float)
    thresholds = random.random(25)
    together = measure_weightings(scores, positives, negatives, thresholds)
    for b in range(40):
        alone = measure_weightings(scores, positives[[b]], negatives[[b]], thresholds)
        for name in METRICS:
            assert together[name][b] == pytest.approx(alone[name][0], nan_ok=True)


def test_by_hand() -> None:
    # scores .9+ .8- .6+ .6- .3+ .1-, threshold .6: TP 2, FN 1, FP 2, TN 1.
    table = ScoreTable.from_rows([0.9, 0.8, 0.6, 0.6, 0.3, 0.1], [1, 0, 1, 0, 1, 0])
    assert measure(table, 0.6) == pytest.approx(
        {
            "accuracy": 3 / 6,
            # Pairs won: .9 beats three; .6 beats .1 and ties .6; .3 beats .1: 3 + 1.5 + 1 of 9.
            "auroc": 5.5 / 9,
            # Precision at each distinct score that adds a positive: 1/1, 2/4, 3/5, each a third of the recall.
            "auprc": (1 + 1 / 2 + 3 / 5) / 3,
            "balanced_accuracy": (2 / 3 + 1 / 3) / 2,
            "sensitivity": 2 / 3,
            "specificity": 1 / 3,
            "ppv": 2 / 4,
            "npv": 1 / 2,
            "f1": 4 / 7,
            # Agreement 1/2; by chance (4 * 3 + 2 * 3) / 36 = 1/2.
            "kappa": 0.0,
            # .01 + .64 + .16 + .36 + .49 + .01 = 1.67
            "brier": 1.67 / 6,
            # Bins of .9, .8, .6, .3, .1: |.9-1| + |.8-0| + |1.2-1| + |.3-1| + |.1-0| = 1.9
            "ece": 1.9 / 6,
        }
    )


def test_what_is_undefined_is_absent() -> None:
    assert measure(ScoreTable.from_rows([], []), 0.5) == {}
    assert measure(ScoreTable(scores=[0.4], positives=[0.0], negatives=[0.0]), 0.5) == {}
    healthy = {"accuracy", "specificity", "npv", "brier", "ece"}
    assert set(measure(ScoreTable.from_rows([0.1, 0.2], [0, 0]), 0.5)) == healthy
    assert set(measure(ScoreTable.from_rows([0.1, 0.7], [0, 0]), 0.5)) == healthy | {"ppv", "f1", "kappa"}
    ill = {"accuracy", "sensitivity", "ppv", "auprc", "f1", "brier", "ece"}
    assert set(measure(ScoreTable.from_rows([0.8, 0.9], [1, 1]), 0.5)) == ill
    assert set(measure(ScoreTable.from_rows([0.8, 0.1], [1, 0]), 0.5)) == set(METRICS)


def test_a_histogram_fine_enough_is_exact() -> None:
    random = np.random.default_rng(1)
    scores = (random.integers(0, 50, 300) + 0.5) / 50
    labels = random.random(300) < scores
    summed = histogram(scores, labels, 100)
    assert measure(ScoreTable.from_histogram(**summed), 0.37) == pytest.approx(
        measure(ScoreTable.from_rows(scores, labels), 0.37), abs=1e-12
    )


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(free, st.booleans()), min_size=2, max_size=40), st.integers(1, 200))
def test_histograms_of_parts_sum_to_that_of_the_whole_and_keep_records(drawn, bins: int) -> None:
    scores, labels = np.array([s for s, _ in drawn]), np.array([y for _, y in drawn])
    whole, left, right = (
        histogram(scores, labels, bins),
        histogram(scores[::2], labels[::2], bins),
        histogram(scores[1::2], labels[1::2], bins),
    )
    for name, values in whole.items():
        np.testing.assert_allclose(left[name] + right[name], values, atol=1e-12)
    table = ScoreTable.from_histogram(**whole)
    assert table.positives.sum() == labels.sum()
    assert table.negatives.sum() == (~labels).sum()
    assert (table.positives + table.negatives > 0).all()
    assert table.scores @ (table.positives + table.negatives) == pytest.approx(scores.sum(), abs=1e-9)


def test_merged_tables_are_one_after_another() -> None:
    one, two = ScoreTable.from_rows([0.2, 0.9], [0, 1]), ScoreTable.from_rows([0.4], [1])
    merged = ScoreTable.merge([one, two])
    assert merged.scores.tolist() == [0.2, 0.9, 0.4]
    assert merged.positives.tolist() == [0.0, 1.0, 1.0]
    assert merged.negatives.tolist() == [1.0, 0.0, 0.0]
    assert len(ScoreTable.merge([])) == 0


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: ScoreTable.from_rows([0.5, np.nan], [0, 1]), r"scores\[1\] is nan"),
        (lambda: ScoreTable.from_rows([0.5, 1.5], [0, 1]), r"scores\[1\] is 1.5"),
        (lambda: ScoreTable.from_rows([-0.1], [0]), r"scores\[0\] is -0.1"),
        (lambda: ScoreTable.from_rows([0.5, 0.5], [0]), r"labels has shape \(1,\)"),
        (lambda: ScoreTable.from_rows([0.5], [2]), r"labels\[0\] is 2"),
        (lambda: ScoreTable.from_rows([[0.5, 0.5]], [0, 1]), r"scores has shape \(1, 2\)"),
        (lambda: ScoreTable(scores=[0.5], positives=[-1.0], negatives=[1.0]), r"positives\[0\] is -1"),
        (lambda: ScoreTable(scores=[0.5], positives=[1.0], negatives=[np.inf]), r"negatives\[0\] is inf"),
        (lambda: ScoreTable.from_histogram([1.0, 0.0], [0.0, 0.0], [0.9, 0.0]), r"bin 0 of 2 is 0.9"),
        (lambda: ScoreTable.from_histogram([1.0, 0.0], [0.0], [0.9, 0.0]), r"negatives has shape \(1,\)"),
        (lambda: measure(ScoreTable.from_rows([0.5], [1]), float("nan")), "threshold is nan"),
    ],
)
def test_bad_records_are_refused_by_name(build, said: str) -> None:
    with pytest.raises(DataError, match=said):
        build()


def test_a_confusion_matrix_has_true_classes_as_rows() -> None:
    # threshold .5: of two ill one is found, of three healthy one is called ill
    table = ScoreTable.from_rows([0.9, 0.1, 0.8, 0.2, 0.3], [1, 1, 0, 0, 0])
    assert table.confusion(0.5).tolist() == [[2, 1], [1, 1]]
    assert table.class_counts.tolist() == [3, 2]

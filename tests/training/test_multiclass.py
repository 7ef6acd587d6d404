"""Figures of three and more classes equal scikit-learn's, and those from sums equal those from rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from wardround.errors import DataError
from wardround.training import evaluate
from wardround.training.class_tables import ClassSums, ClassTable, class_histograms
from wardround.training.figures import MAJORITY_METRICS, figures, gain, majority
from wardround.training.metrics import ScoreTable
from wardround.training.metrics import measure as measure_two
from wardround.training.multiclass import CLASS_METRICS, OVERALL, measure_rows
from wardround.training.tables import from_sums, measure, merge


def drawn(seed: int, rows: int, classes: int = 3, *, sharpness: float = 1.0, absent: int | None = None) -> ClassTable:
    """Rows whose labels depend on the seed alone, scored better with more sharpness."""
    random = np.random.default_rng([seed, rows])
    labels = random.integers(0, classes, rows)
    if absent is not None:
        labels[labels == absent] = (absent + 1) % classes
    logits = random.normal(size=(rows, classes)) + sharpness * np.eye(classes)[labels]
    return ClassTable(scores=np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), labels=labels)


tables = st.builds(drawn, st.integers(0, 999), st.integers(2, 40), st.integers(3, 5))


@settings(max_examples=100, deadline=None)
@given(tables)
def test_every_metric_equals_scikit_learn(table: ClassTable) -> None:
    found = measure(table, 0.5)
    labels, predicted, present = table.labels, table.predicted, np.unique(table.labels)
    expected = {
        "accuracy": reference.accuracy_score(labels, predicted),
        "balanced_accuracy": np.mean([np.mean(predicted[labels == c] == c) for c in present]),
        "f1": reference.f1_score(labels, predicted, average="macro", zero_division=0.0),
        # scikit-learn does not halve it beyond two classes
        "brier": ((table.scores - np.eye(table.classes)[labels]) ** 2).sum(axis=1).mean(),
    }
    if len(present) > 1:
        areas = [(labels == c, table.scores[:, c]) for c in present]
        expected["auroc"] = np.mean([reference.roc_auc_score(*area) for area in areas])
        expected["auprc"] = np.mean([reference.average_precision_score(*area) for area in areas])
    if len(set(labels) | set(predicted)) > 1:
        expected["kappa"] = reference.cohen_kappa_score(labels, predicted)
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-9)
    if len(present) == table.classes:
        macro = reference.roc_auc_score(labels, table.scores, multi_class="ovr", average="macro")
        assert found["auroc"] == pytest.approx(macro)
        assert found["balanced_accuracy"] == pytest.approx(reference.balanced_accuracy_score(labels, predicted))
    # the calibration error is that of 'the decision is right', whose probability is the largest one
    right = ScoreTable.from_rows(table.scores.max(axis=1), labels == predicted)
    assert found["ece"] == pytest.approx(measure_two(right, 0.5)["ece"])


def test_by_hand() -> None:
    # rows by true class 0 0 0 1 1 2, called 0 0 1 1 2 2
    scores = [[0.8, 0.1, 0.1], [0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.1, 0.8, 0.1], [0.1, 0.3, 0.6], [0.0, 0.2, 0.8]]
    table = ClassTable(scores=scores, labels=[0, 0, 0, 1, 1, 2])
    assert table.confusion().tolist() == [[2, 1, 0], [0, 1, 1], [0, 0, 1]]
    found = figures({"a": table}, 0.5, 0, seed=1)
    assert set(found["pooled"]) == set(OVERALL)
    assert found["pooled"]["accuracy"] == 4 / 6
    assert found["pooled"]["balanced_accuracy"] == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)
    # 2M/(T + K): 4/5, 2/4, 2/3
    assert found["pooled"]["f1"] == pytest.approx((4 / 5 + 2 / 4 + 2 / 3) / 3)
    # chance: 3 x 2 + 2 x 2 + 1 x 2 = 12 of 36; (6 x 4 - 12) / (36 - 12)
    assert found["pooled"]["kappa"] == pytest.approx(12 / 24)
    # of class 2: 5 others, .8 beats all, so 1; of class 1: .8 beats .7 and three more, .3 ties one and beats .1 and .2
    assert found["classes"][2]["auroc"] == 1.0
    assert found["classes"][1]["auroc"] == pytest.approx((4 + 2.5) / 8)
    assert found["classes"][1] == pytest.approx(
        {**found["classes"][1], "sensitivity": 1 / 2, "specificity": 3 / 4, "ppv": 1 / 2, "npv": 3 / 4, "f1": 1 / 2}
    )
    assert set(found["classes"][0]) == set(CLASS_METRICS)


def test_two_classes_as_a_class_table_agree_with_two_classes() -> None:
    random = np.random.default_rng(3)
    scores, labels = random.random(60), random.integers(0, 2, 60)
    two = measure_two(ScoreTable.from_rows(scores, labels), 0.5)
    table = ClassTable(scores=np.stack([1 - scores, scores], axis=1), labels=labels)
    overall, by_class = measure_rows(table, np.ones((1, 60)))
    assert overall["accuracy"][0] == pytest.approx(two["accuracy"])
    assert overall["kappa"][0] == pytest.approx(two["kappa"])
    assert overall["brier"][0] == pytest.approx(2 * two["brier"])
    for name in CLASS_METRICS:
        assert by_class[1, CLASS_METRICS.index(name), 0] == pytest.approx(two[name])


def test_a_class_that_a_site_lacks_is_left_out_of_its_means() -> None:
    whole, part = drawn(1, 80), drawn(2, 80, absent=2)
    found = figures({"whole": whole, "part": part}, 0.5, 60, seed=1)
    alone = figures({"part": part}, 0.5, 0, seed=1)
    assert "auroc" not in alone["classes"][2]
    assert "sensitivity" not in alone["classes"][2]
    known = [alone["classes"][c]["auroc"] for c in (0, 1)]
    assert found["sites"]["part"]["auroc"] == pytest.approx(np.mean(known))
    assert found["sites"]["part"]["auroc_low"] < found["sites"]["part"]["auroc_high"]


def test_a_resample_that_lost_a_class_has_no_mean_over_classes() -> None:
    table = drawn(1, 6)
    assert set(table.labels) == {0, 1, 2}
    weights = np.where(table.labels == 1, 0.0, 1.0)[None]
    overall, by_class = measure_rows(table, weights)
    assert all(np.isnan(overall[name][0]) for name in ("auroc", "auprc", "balanced_accuracy", "f1"))
    assert not np.isnan(overall["accuracy"][0])
    assert np.isnan(by_class[1, CLASS_METRICS.index("auroc"), 0])


def test_nothing_gives_nothing() -> None:
    empty = ClassTable(scores=np.zeros((0, 3)), labels=np.zeros(0, dtype=np.int64))
    assert figures({"a": empty}, 0.5, 10, seed=1) == {
        "pooled": {},
        "site_mean": {},
        "sites": {"a": {}},
        "classes": [{}] * 3,
    }
    sums = ClassSums.from_histograms(**class_histograms(empty.scores, empty.labels, 10))
    assert figures({"a": sums}, 0.5, 10, seed=1)["pooled"] == {}


def test_fine_sums_give_the_figures_of_the_rows() -> None:
    table = drawn(5, 150, 4)
    sums = ClassSums.from_histograms(**class_histograms(table.scores, table.labels, 100_000))
    exact, summed = (figures({"a": t}, 0.5, 0, seed=1) for t in (table, sums))
    for name, value in exact["pooled"].items():
        assert summed["pooled"][name] == pytest.approx(value, abs=1e-9), name
    for one, other in zip(exact["classes"], summed["classes"], strict=True):
        assert other == pytest.approx(one, abs=1e-9)
    assert (summed["sites"]["a"], len(sums)) == (summed["pooled"], 150)


def test_intervals_from_sums_are_not_narrower_than_those_from_rows() -> None:
    table = drawn(5, 300, 4)
    sums = ClassSums.from_histograms(**class_histograms(table.scores, table.labels, 1000))
    widths = []
    for kind in (table, sums):
        found = figures({"a": kind}, 0.5, 400, seed=1)["pooled"]
        widths.append({name: found[f"{name}_high"] - found[f"{name}_low"] for name in OVERALL})
    for name in OVERALL:
        assert widths[1][name] > 0.85 * widths[0][name], name
    # what needs no class's neighbour is as narrow
    for name in ("accuracy", "kappa", "brier"):
        assert widths[1][name] < 1.2 * widths[0][name], name


def test_sums_of_parts_are_the_sums_of_the_whole() -> None:
    one, two = drawn(1, 30), drawn(2, 50)
    both = merge([one, two])
    parts = [class_histograms(t.scores, t.labels, 20) for t in (one, two, both)]
    for name in parts[0]:
        np.testing.assert_allclose(parts[0][name] + parts[1][name], parts[2][name], atol=1e-12)


def test_additive_figures_are_the_histograms_of_each_site() -> None:
    random = np.random.default_rng(0)
    logits, labels = torch.from_numpy(random.normal(size=(25, 4))), torch.from_numpy(random.integers(0, 4, 25))
    owner = np.repeat([0, 1, 2], [10, 0, 15])
    found = evaluate.figures(logits, labels, owner, sites=3, bins=20)
    for site in range(3):
        mine = owner == site
        likely = torch.softmax(logits[mine], -1).numpy()
        expected = class_histograms(likely, labels[mine].numpy(), 20)
        for name, value in expected.items():
            np.testing.assert_allclose(found[name][site].numpy(), value, atol=1e-12)
    loss = torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
    assert float(found["loss"].sum()) == pytest.approx(float(loss))
    total = {name: value.sum(0) for name, value in found.items()}
    table = ClassTable(scores=torch.softmax(logits, -1).numpy(), labels=labels.numpy())
    assert measure(from_sums(total), 0.5)["kappa"] == pytest.approx(measure(table, 0.5)["kappa"])


def test_scores_that_are_not_finite_are_even_and_the_loss_says_so() -> None:
    logits = torch.tensor([[float("nan"), 0.0, 0.0], [9.0, 0.0, 0.0]], dtype=torch.float64)
    found = evaluate.figures(logits, torch.tensor([1, 0]), np.zeros(2, dtype=np.int64), sites=1, bins=4)
    assert found["confusion"][0].sum() == 2
    assert torch.isnan(found["loss"]).all()


def test_a_gain_is_paired_and_a_model_gains_nothing_over_itself() -> None:
    good, fair = drawn(1, 200, sharpness=2.0), drawn(1, 200, sharpness=1.0)
    nothing = gain({"a": fair}, {"a": fair}, 0.5, 0.5, 50, seed=1)
    assert set(nothing["pooled"].values()) == {0.0}
    assert all(set(one.values()) == {0.0} for one in nothing["classes"])
    better = gain({"a": good}, {"a": fair}, 0.5, 0.5, 200, seed=1)["pooled"]
    assert better["auroc_low"] > 0
    with pytest.raises(DataError, match="'a' has other outcomes"):
        gain({"a": good}, {"a": drawn(2, 200)}, 0.5, 0.5, 0, seed=1)


def test_the_majority_of_three_classes() -> None:
    table = ClassTable(scores=np.full((5, 3), 1 / 3), labels=[0, 1, 1, 1, 2])
    for kind in (table, ClassSums.from_histograms(**class_histograms(table.scores, table.labels, 10))):
        found = majority({"a": [3, 9, 9]}, {"a": kind}, 20, seed=1)
        assert found["pooled"]["accuracy"] == 3 / 5
        assert found["pooled"]["balanced_accuracy"] == pytest.approx(1 / 3)
        assert {name.removesuffix("_low").removesuffix("_high") for name in found["pooled"]} <= set(MAJORITY_METRICS)
        assert "classes" not in found


@pytest.mark.parametrize(
    ("scores", "labels", "said"),
    [
        ([[0.5, 0.5, 0.5]], [0], "add up to 1"),
        ([[1.2, -0.2, 0.0]], [0], "add up to 1"),
        ([[np.nan, 0.5, 0.5]], [0], "finite"),
        ([[0.2, 0.3, 0.5]], [3], r"labels\[0\] is 3; expected 0..2"),
        ([[0.2, 0.3, 0.5]], [0, 1], "expected"),
    ],
)
def test_bad_rows_are_refused(scores: list[list[float]], labels: list[int], said: str) -> None:
    with pytest.raises(DataError, match=said):
        ClassTable(scores=scores, labels=labels)


def test_bad_sums_are_refused() -> None:
    table = drawn(1, 10)
    sums = class_histograms(table.scores, table.labels, 10)
    with pytest.raises(DataError, match=r"\(C \+ 2, bins\)"):
        ClassSums.from_histograms(**{**sums, "positives": sums["positives"][:-1]})

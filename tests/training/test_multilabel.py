"""Figures of labels equal scikit-learn's; sums say what rows say; groups and resamples behave."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn import metrics as reference

from wardround.errors import DataError
from wardround.training import evaluate, figures, multilabel
from wardround.training.label_tables import LabelSums, LabelTable
from wardround.training.loss import row_losses
from wardround.training.tables import confusion, from_rows, from_sums, measure, merge


def drawn(seed: int, rows: int = 60, labels: int = 3) -> LabelTable:
    random = np.random.default_rng([seed, rows])
    truth = (random.random((rows, labels)) < 0.4).astype(np.int64)
    scores = 1 / (1 + np.exp(-(random.normal(size=truth.shape) + 1.5 * truth - 0.7)))
    return LabelTable(scores=scores, labels=truth)


@pytest.mark.parametrize("seed", range(5))
def test_every_metric_equals_scikit_learn(seed: int) -> None:
    table, cuts = drawn(seed), (0.5, 0.3, 0.7)
    found, called = measure(table, cuts), table.scores >= np.array(cuts)
    truth = table.labels
    assert found["auroc"] == pytest.approx(reference.roc_auc_score(truth, table.scores, average="macro"))
    assert found["auprc"] == pytest.approx(reference.average_precision_score(truth, table.scores, average="macro"))
    assert found["accuracy"] == pytest.approx(1 - reference.hamming_loss(truth, called))
    assert found["subset_accuracy"] == pytest.approx(reference.accuracy_score(truth, called))
    assert found["f1"] == pytest.approx(reference.f1_score(truth, called, average="macro"))
    assert found["sensitivity"] == pytest.approx(reference.recall_score(truth, called, average="macro"))
    balanced = [reference.balanced_accuracy_score(truth[:, k], called[:, k]) for k in range(3)]
    assert found["balanced_accuracy"] == pytest.approx(np.mean(balanced))
    assert found["brier"] == pytest.approx(np.mean((table.scores - truth) ** 2))
    assert confusion(table, cuts) == pytest.approx(reference.multilabel_confusion_matrix(truth, called))


def test_a_macro_figure_leaves_out_a_label_without_the_rows_it_needs() -> None:
    table = drawn(1)
    truth = table.labels.copy()
    truth[:, 0] = 0
    found = measure(LabelTable(scores=table.scores, labels=truth), 0.5)
    areas = [reference.roc_auc_score(truth[:, k], table.scores[:, k]) for k in (1, 2)]
    assert found["auroc"] == pytest.approx(np.mean(areas))
    # without positives nothing is missed, and nobody is found: the specificity still has all three labels
    passed = (table.scores < 0.5) & (truth == 0)
    assert found["specificity"] == pytest.approx(np.mean(passed.sum(axis=0) / (truth == 0).sum(axis=0)))


def test_sums_over_sites_say_what_rows_say() -> None:
    parts = [drawn(seed, rows) for seed, rows in ((1, 40), (2, 25), (3, 0))]
    logits = [torch.logit(torch.from_numpy(part.scores)) for part in parts]
    labels = torch.from_numpy(np.concatenate([part.labels for part in parts]))
    owner = np.repeat(np.arange(3), [len(part) for part in parts])
    found = evaluate.figures(torch.cat(logits), labels, owner, sites=3, bins=20_000)
    sums = from_sums({name: value.sum(0) for name, value in found.items()})
    assert isinstance(sums, LabelSums)
    whole = merge(parts)
    assert measure(sums, 0.5) == pytest.approx(measure(whole, 0.5), abs=1e-6)
    assert found["loss"].sum() == pytest.approx(float(row_losses(torch.cat(logits), labels).sum()))
    assert found["rows"].tolist() == [40, 25, 0]
    # a histogram knows which rows are right in every label at 0.5 alone
    assert "subset_accuracy" not in measure(sums, (0.3, 0.5, 0.5))
    assert merge([sums, sums]).class_counts == pytest.approx(2 * whole.class_counts)
    resampled = figures.figures({"all": sums}, 0.5, 50, seed=1)
    assert resampled["pooled"]["auroc_low"] < measure(whole, 0.5)["auroc"] < resampled["pooled"]["auroc_high"]


def test_the_loss_is_the_mean_over_labels_of_each_ones_cross_entropy() -> None:
    logits, labels = torch.tensor([[[0.0, 2.0]]]), torch.tensor([[[1, 0]]])
    # log 2 for the first, log(1 + e^2) for the second
    assert row_losses(logits, labels).item() == pytest.approx((np.log(2) + np.log1p(np.exp(2))) / 2)


def test_a_threshold_of_a_site_decides_its_own_rows() -> None:
    one, two = drawn(1, 30), drawn(2, 30)
    found = figures.figures({"a": one, "b": two}, {"a": (0.2, 0.2, 0.2), "b": 0.9}, 20, seed=0)
    right = [(one.scores >= 0.2) == (one.labels == 1), (two.scores >= 0.9) == (two.labels == 1)]
    assert found["pooled"]["accuracy"] == pytest.approx(np.mean(right))
    assert found["sites"]["b"]["accuracy"] == pytest.approx(np.mean(right[1]))
    assert len(found["classes"]) == 3
    assert found["classes"][1]["auroc_low"] <= found["classes"][1]["auroc"] <= found["classes"][1]["auroc_high"]


def test_gains_are_paired_and_the_majority_answers_label_by_label() -> None:
    table = drawn(4)
    better = LabelTable(scores=0.5 * table.scores + 0.5 * table.labels, labels=table.labels)
    gain = figures.gain({"a": better}, {"a": table}, 0.5, 0.5, 50, seed=2)
    assert gain["pooled"]["auroc"] > 0 < gain["pooled"]["auroc_low"]
    with pytest.raises(DataError, match="other outcomes"):
        figures.gain({"a": table}, {"a": drawn(5)}, 0.5, 0.5, 0, seed=2)
    floor = figures.majority({"a": [[2, 9], [9, 2], [9, 2]]}, {"a": table})
    constant = np.array([1, 0, 0])
    assert floor["pooled"]["accuracy"] == pytest.approx(np.mean(table.labels == constant))
    assert floor["pooled"]["subset_accuracy"] == pytest.approx(np.mean((table.labels == constant).all(axis=1)))


def test_no_rows_define_nothing() -> None:
    empty = LabelTable(scores=np.zeros((0, 2)), labels=np.zeros((0, 2)))
    found = figures.figures({"a": empty, "b": drawn(1, labels=2)}, 0.5, 5, seed=0)
    assert found["sites"]["a"] == {}
    assert found["pooled"]["auroc"] == found["site_mean"]["auroc"]
    assert all(np.isnan(value).all() for value in multilabel.undefined(2, 3)[0].values())


@pytest.mark.parametrize(
    ("scores", "labels", "said"),
    [([[1.2, 0.0]], [[0, 1]], r"scores\[0, 0\] is 1.2"), ([[0.2, 0.0]], [[0, 2]], r"labels\[0, 1\] is 2"),
     ([[float("nan"), 0.0]], [[0, 1]], "diverged"), ([[0.2, 0.3]], [[1]], "expected")],
)  # fmt: skip
def test_what_is_no_table_of_labels_is_refused(scores: list[list[float]], labels: list[list[int]], said: str) -> None:
    with pytest.raises(DataError, match=said):
        LabelTable(scores=np.array(scores), labels=np.array(labels))


@pytest.mark.parametrize(("how", "expected"), [("mean", [0.4, 0.9, 0.1]), ("max", [0.6, 0.9, 0.1])])
def test_a_group_has_one_score_and_the_highest_label(how: str, expected: list[float]) -> None:
    likely = torch.tensor([0.2, 0.9, 0.6, 0.1], dtype=torch.float64)
    labels, groups = torch.tensor([0, 1, 1, 0]), np.array([4, 7, 4, 9])
    score, label, owner = evaluate.aggregated(likely, labels, np.array([0, 0, 0, 1]), groups, how)
    assert score.tolist() == pytest.approx(expected)
    assert label.tolist() == [1, 1, 0]
    assert owner.tolist() == [0, 0, 1]


def test_the_largest_scores_of_classes_add_up_to_one_again() -> None:
    likely = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.6, 0.3]], dtype=torch.float64)
    score, label, _ = evaluate.aggregated(likely, torch.tensor([1, 1]), np.zeros(2, int), np.zeros(2, int), "max")
    assert score[0].tolist() == pytest.approx([0.5 / 1.4, 0.6 / 1.4, 0.3 / 1.4])
    assert from_rows(score.numpy(), label.numpy()).class_counts.tolist() == [0, 1, 0]

"""Figures of merit of a classifier whose rows may have several labels, or none: from row scores, or from sums over hospitals.

Each label is a question of two classes with a threshold of its own, and is measured as `metrics` does. Over L labels:

    auroc, auprc, balanced_accuracy,
    sensitivity, specificity, f1      unweighted mean (macro) over the labels that have the rows it needs: rows with the
                                      label, without it (specificity), or both (auroc, balanced_accuracy)
    ece                               unweighted mean over labels
    accuracy                          share of (row, label) pairs that are right: 1 - Hamming loss       Tsoumakas et al. 2010
    subset_accuracy                   share of rows all of whose labels are right
    brier                             mean over rows and labels of (score - outcome)^2

A mean over labels is undefined in a resample in which a label has lost those rows: it would be the mean of others.
Sums know of `subset_accuracy` only at a threshold of 0.5.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from wardround.training.label_tables import HALF, LabelSums, LabelTable
from wardround.training.metrics import METRICS, Floats, measure_weightings, ratio
from wardround.training.multiclass import CLASS_METRICS, Values

MACRO = ("auroc", "auprc", "balanced_accuracy", "sensitivity", "specificity", "f1", "ece")
"""What is averaged over labels."""

LABEL_METRICS = (
    "accuracy",
    "subset_accuracy",
    "auroc",
    "auprc",
    "balanced_accuracy",
    "sensitivity",
    "specificity",
    "f1",
    "brier",
    "ece",
)
"""What is said of all labels together."""


def measure_rows(table: LabelTable, weights: Floats, thresholds: Floats) -> Values:
    """All metrics of the rows under B weightings at once.

    Args:
        table: n rows.
        weights: [B, n], how often each row counts.
        thresholds: [n, L], of each row and label.
    """
    total = weights.sum(axis=1)
    called = table.scores >= thresholds
    right = (called == (table.labels == 1)).all(axis=1).astype(np.float64)
    subset = ratio(np.einsum("bn,n->b", weights, right), total)
    each = []
    for label in range(table.classes):
        positives = weights * table.labels[:, label]
        each.append(measure_weightings(table.scores[:, label], positives, weights - positives, thresholds[:, label]))
    return _assembled(each, subset, table.class_counts)


def measure_sums(sums: LabelSums, drawn: Sequence[tuple[Floats, Floats]], exact: Floats, thresholds: Floats) -> Values:
    """All metrics of B weightings of the sums' cells.

    Sums do not say which rows of one label's histogram are which of another's, so each label is drawn by itself, and the B
    values of each label are put in order before they are averaged: as if all labels erred together, see `multiclass`.

    Args:
        sums: what was summed.
        drawn: weighted positives and negatives, [B, bins] each, a label.
        exact: [B], weighted rows that are right in every label at 0.5.
        thresholds: [L].
    """
    each = [
        measure_weightings(part.scores, *pair, float(cut))
        for part, pair, cut in zip(sums.tables, drawn, thresholds, strict=True)
    ]
    rows = np.asarray(drawn[0][0].sum(axis=1) + drawn[0][1].sum(axis=1))
    subset = ratio(exact, rows) if (thresholds == HALF).all() else np.full(len(exact), np.nan)
    return _assembled(
        [{name: np.sort(value) for name, value in one.items()} for one in each], subset, sums.class_counts
    )


def undefined(labels: int, weightings: int) -> Values:
    """Nothing is defined where there are no rows."""
    nothing = np.full(weightings, np.nan)
    return dict.fromkeys(LABEL_METRICS, nothing), np.full((labels, len(CLASS_METRICS), weightings), np.nan)


def _assembled(each: Sequence[dict[str, Floats]], subset: Floats, counts: Floats) -> Values:
    """Args: each: metric -> [B], a label; counts [L, 2], the original rows without and with each label."""
    negative, positive = (counts > 0).T
    needed = {"ece": positive | negative, "specificity": negative}
    needed |= dict.fromkeys(("auprc", "sensitivity", "f1"), positive)
    needed |= dict.fromkeys(("auroc", "balanced_accuracy"), positive & negative)
    stacked = {name: np.stack([one[name] for one in each]) for name in METRICS}
    # a resample without a positive row has no F1 to average, even where something is called
    shown = stacked | {"f1": np.where(np.isnan(stacked["sensitivity"]), np.nan, stacked["f1"])}
    overall = {name: _macro(shown[name], needed[name]) for name in MACRO}
    overall |= {name: stacked[name].mean(axis=0) for name in ("accuracy", "brier")}
    overall["subset_accuracy"] = subset
    return {name: overall[name] for name in LABEL_METRICS}, np.stack([stacked[name] for name in CLASS_METRICS], axis=1)


def _macro(values: Floats, needed: NDArray[np.bool_]) -> Floats:
    """The mean over the labels that need the figure, [B], of [L, B]; NaN where one of them lacks it."""
    return np.asarray(values[needed].mean(axis=0)) if needed.any() else np.full(values.shape[1], np.nan)

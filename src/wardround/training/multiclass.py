"""Figures of merit of a classifier of three or more classes: from row scores, or from sums over hospitals (`class_tables`).

A row's decision is its most probable class (of equals, the first). With M[t, k] the weighted rows of class t that are
called k, T_c = sum_k M[c, k] and K_c = sum_t M[t, c] the margins, and N all rows:

    accuracy           sum_c M[c, c] / N
    balanced_accuracy  mean of M[c, c] / T_c over the classes that have rows
    f1                 mean of 2 M[c, c] / (T_c + K_c) over the classes that are true or predicted somewhere (macro)
    kappa              (N sum_c M[c, c] - sum_c T_c K_c) / (N^2 - sum_c T_c K_c)                      Cohen 1960
    auroc, auprc       unweighted mean of each class against the rest, over the classes that have rows (macro)
    brier              mean over rows of sum_c (score_c - [class is c])^2, in [0, 2]                    Brier 1950
    ece                calibration error of the decision: its probability against how often it is right   Guo et al. 2017

Of one class against the rest there are auroc, auprc, sensitivity, specificity, ppv, npv and f1, as in `metrics`. What
averages over classes is undefined in a resample that has lost a class of the original rows: it would be the mean of others.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from wardround.training.class_tables import ClassSums, ClassTable, Ints
from wardround.training.metrics import (
    METRICS,
    Floats,
    by_score,
    calibration_error,
    ranking,
    ratio,
)

CLASS_METRICS = ("auroc", "auprc", "sensitivity", "specificity", "ppv", "npv", "f1")
"""What is said of one class against the rest."""

OVERALL = tuple(name for name in METRICS if name not in ("sensitivity", "specificity", "ppv", "npv"))
"""What is said of all classes together."""

Values = tuple[dict[str, Floats], Floats]
"""The metrics of `OVERALL`, float64 [B] each, and those of `CLASS_METRICS`, float64 [C, metrics, B]; NaN where undefined."""


def measure_rows(table: ClassTable, weights: Floats) -> Values:
    """All metrics of the rows under B weightings at once.

    Args:
        table: n rows.
        weights: [B, n], how often each row counts.
    """
    if not len(table):
        return undefined(table.classes, len(weights))
    total = weights.sum(axis=1)
    cells = table.labels * table.classes + table.predicted
    confusion = _sums_by(cells, weights, table.classes**2).reshape(-1, table.classes, table.classes)
    areas = []
    for label in range(table.classes):
        mine = (table.labels == label).astype(np.float64)
        _, p, n = by_score(table.scores[:, label], weights * mine, weights * (1.0 - mine))
        areas.append(ranking(p, n, p.sum(axis=1), n.sum(axis=1)))
    right = (table.predicted == table.labels).astype(np.float64)
    distinct, p, n = by_score(table.decision().scores, weights * right, weights * (1.0 - right))
    return _assembled(
        confusion,
        np.array(areas),
        brier=ratio(np.einsum("bn,n->b", weights, table.squared_errors), total),
        ece=calibration_error(distinct, p, n, total),
        needed=table.class_counts > 0,
    )


def measure_sums(sums: ClassSums, confusion: Floats, drawn: Sequence[tuple[Floats, Floats]]) -> Values:
    """All metrics of B weightings of the sums' cells; areas of classes are sorted before they are averaged.

    The sums do not say which rows of one class's histogram are which of another's. So the B areas of each class are put in
    order: the ends of the mean's interval are then the means of the ends of the classes' intervals, as if all classes erred
    together, which makes it rather too wide than too narrow.

    Args:
        sums: what was summed.
        confusion: [B, C, C], weighted counts.
        drawn: weighted positives and negatives, [B, bins] each, of every one of `parts`.
    """
    if not len(sums):
        return undefined(sums.classes, len(confusion))
    nothing = np.full(len(confusion), np.nan)
    counts = [
        (*by_score(part.scores, *pair), pair) if len(part) else None
        for part, pair in zip(sums.parts, drawn, strict=True)
    ]
    areas = []
    for found in counts[: sums.classes]:
        if found is None:
            areas.append((nothing, nothing))
            continue
        _, p, n, (positives, negatives) = found
        areas.append(ranking(p, n, positives.sum(axis=1), negatives.sum(axis=1)))
    right, squares = counts[-2:]
    ece, brier = nothing, nothing
    if right is not None:
        distinct, p, n, _ = right
        ece = calibration_error(distinct, p, n, (p + n).sum(axis=1))
    if squares is not None:
        distinct, p, _, _ = squares
        brier = 2.0 * ratio(np.einsum("bg,g->b", p, distinct), p.sum(axis=1))
    return _assembled(confusion, np.sort(np.array(areas), axis=-1), brier=brier, ece=ece, needed=sums.class_counts > 0)


def undefined(classes: int, weightings: int) -> Values:
    """Nothing is defined where there are no rows."""
    overall = {name: np.full(weightings, np.nan) for name in OVERALL}
    return overall, np.full((classes, len(CLASS_METRICS), weightings), np.nan)


def _assembled(confusion: Floats, areas: Floats, *, brier: Floats, ece: Floats, needed: NDArray[np.bool_]) -> Values:
    """Args: confusion [B, C, C]; areas [C, 2, B], auroc and auprc; needed [C], the classes of the original rows."""
    matrix = np.moveaxis(confusion, 0, -1)
    hits, true, called = np.einsum("ccb->cb", matrix), matrix.sum(axis=1), matrix.sum(axis=0)
    total = true.sum(axis=0)
    rest = total - true - called + hits
    sensitivity, f1 = ratio(hits, true), ratio(2 * hits, true + called)
    chance = (true * called).sum(axis=0)
    lost = (needed[:, None] & (true == 0)).any(axis=0)

    def macro(values: Floats, defined: NDArray[np.bool_]) -> Floats:
        mean = ratio(np.where(defined, values, 0.0).sum(axis=0), defined.sum(axis=0).astype(np.float64))
        return np.where(lost, np.nan, mean)

    # AUROC also wants rows of other classes; a class's resampled rank does not say in which resample it was defined
    overall = {
        "accuracy": ratio(hits.sum(axis=0), total),
        "auroc": macro(areas[:, 0], ~np.isnan(areas[:, 0])),
        "auprc": macro(areas[:, 1], ~np.isnan(areas[:, 1])),
        "balanced_accuracy": macro(sensitivity, true > 0),
        "f1": macro(f1, true + called > 0),
        "kappa": ratio(total * hits.sum(axis=0) - chance, total**2 - chance),
        "brier": brier,
        "ece": ece,
    }
    by_class = {
        "auroc": areas[:, 0],
        "auprc": areas[:, 1],
        "sensitivity": sensitivity,
        "specificity": ratio(rest, total - true),
        "ppv": ratio(hits, called),
        "npv": ratio(rest, total - called),
        "f1": f1,
    }
    return overall, np.stack([by_class[name] for name in CLASS_METRICS], axis=1)


def _sums_by(cells: Ints, weights: Floats, count: int) -> Floats:
    """Weights [B, n] summed by the cell of each row, [B, count]."""
    order = np.argsort(cells, kind="stable")
    ordered = cells[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    sums = np.zeros((len(weights), count))
    sums[:, ordered[starts]] = np.add.reduceat(weights[:, order], starts, axis=1)
    return sums

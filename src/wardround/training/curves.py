"""Curves over every threshold, for drawing: ROC, precision-recall, reliability, and pointwise bands round the first two.

Sources: Fawcett 2006 (ROC, vertical averaging of its band); Davis and Goadrich 2006 (no interpolation between points of
precision and recall); DeGroot and Fienberg 1983 (reliability).
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from wardround.errors import ConfigError
from wardround.training.metrics import CALIBRATION_BINS, Floats, ScoreTable, bin_of, bin_sums, by_score

POINTS = 101
"""Points of a band: 0, 0.01, .. 1 of the horizontal axis."""

_MOST = 1000
"""Points of a precision-recall curve: more than a picture shows."""

_QUANTILES = (0.025, 0.975)


def roc_curve(table: ScoreTable) -> dict[str, list[float]]:
    """The receiver operating characteristic, as the corners of its polyline from (0, 0) to (1, 1).

    Returns:
        `false_positive_rate` and `true_positive_rate`, ascending, equally long; both empty with fewer than two classes.
        The area under the polyline is the auroc.
    """
    positive, negative = table.positives.sum(), table.negatives.sum()
    if positive == 0 or negative == 0:
        return {"false_positive_rate": [], "true_positive_rate": []}
    _, p, n = by_score(table.scores, table.positives[None], table.negatives[None])
    moved = (p[0] + n[0]) > 0
    up, right = p[0, moved], n[0, moved]
    corner = np.concatenate([[True], up[:-1] * right[1:] != up[1:] * right[:-1], [True]])
    tp, fp = np.concatenate([[0.0], np.cumsum(up)]), np.concatenate([[0.0], np.cumsum(right)])
    return {
        "false_positive_rate": (fp[corner] / negative).tolist(),
        "true_positive_rate": (tp[corner] / positive).tolist(),
    }


def precision_recall_curve(table: ScoreTable) -> dict[str, list[float]]:
    """Precision at each recall, from the highest threshold down; only thresholds that add a positive.

    Steps of the curve reach back from each point, so that the area under them is the auprc.

    Returns:
        `recall` (ascending, above 0, the last is 1) and `precision`, equally long; both empty without positives. A curve
        of more than a thousand points is thinned evenly, its first and last kept.
    """
    positive = table.positives.sum()
    if positive == 0:
        return {"recall": [], "precision": []}
    _, p, n = by_score(table.scores, table.positives[None], table.negatives[None])
    tp, fp = np.cumsum(p[0]), np.cumsum(n[0])
    kept = np.flatnonzero(p[0] > 0)
    if len(kept) > _MOST:
        kept = kept[np.unique(np.linspace(0, len(kept) - 1, _MOST).round().astype(np.int64))]
    return {"recall": (tp[kept] / positive).tolist(), "precision": (tp[kept] / (tp[kept] + fp[kept])).tolist()}


def calibration(table: ScoreTable, bins: int = CALIBRATION_BINS) -> dict[str, list[float]]:
    """The reliability diagram over equal bins of the score; empty bins are left out.

    Args:
        table: n rows.
        bins: 1 or more.

    Returns:
        `predicted` (mean score), `observed` (fraction positive) and `records` (weighted count), ascending in the score.
        The mean of |predicted - observed| weighted by records is the ece.

    Raises:
        ConfigError: fewer than one bin.
    """
    if bins < 1:
        raise ConfigError(f"bins is {bins}; expected 1 or more")
    index = bin_of(table.scores, bins)
    counts = table.positives + table.negatives
    records = bin_sums(index, counts, bins)
    kept = records > 0
    predicted = bin_sums(index, counts * table.scores, bins)[kept] / records[kept]
    observed = bin_sums(index, table.positives, bins)[kept] / records[kept]
    return {"predicted": predicted.tolist(), "observed": observed.tolist(), "records": records[kept].tolist()}


def bands(scores: Floats, draws: Iterable[tuple[Floats, Floats]]) -> dict[str, dict[str, list[float]]]:
    """Pointwise 95 % bands of both curves.

    Args:
        scores: [n].
        draws: blocks of resampled counts of positives and negatives, [B, n] each; a resample without both classes gives
            no curve.

    Returns:
        `roc` (sensitivity at each false positive rate) and `precision_recall` (precision at each recall), each `at`,
        `low` and `high`; {} without a resample that has both classes.
    """
    at = np.linspace(0.0, 1.0, POINTS)
    sensitivities, precisions = [], []
    for positives, negatives in draws:
        _, p, n = by_score(scores, positives, negatives)
        for tp, fp in zip(np.cumsum(p, axis=1), np.cumsum(n, axis=1), strict=True):
            if tp[-1] == 0 or fp[-1] == 0:
                continue
            ends = np.concatenate([[0.0], fp / fp[-1]]), np.concatenate([[0.0], tp / tp[-1]])
            sensitivities.append(np.interp(at, *ends))
            place = np.searchsorted(tp, at * tp[-1] * (1.0 - 1e-12)).clip(min=int(np.argmax(tp > 0)))
            precisions.append(tp[place] / (tp[place] + fp[place]))
    if not sensitivities:
        return {}
    return {"roc": _band(at, sensitivities), "precision_recall": _band(at, precisions)}


def _band(at: Floats, curves: list[Floats]) -> dict[str, list[float]]:
    low, high = np.quantile(np.stack(curves), _QUANTILES, axis=0)
    return {"at": at.tolist(), "low": low.tolist(), "high": high.tolist()}

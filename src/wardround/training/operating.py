"""The decision threshold of two classes: given, best on validation rows, or the one that reaches an operating point there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np

from wardround.errors import ConfigError
from wardround.training.metrics import Floats, ScoreTable, by_score, check_threshold

Rule = float | Literal["balanced", "accuracy"] | Mapping[str, float]
"""A threshold; a metric to maximise; or `{"sensitivity": s}` or `{"specificity": s}`, to reach at the least cost."""


def choose_threshold(table: ScoreTable, how: Rule) -> float:
    """The decision threshold: a given one, or one chosen on these (validation) rows.

    Candidates are the midpoints between adjacent distinct scores, and between the outermost scores and 0 and 1. To
    maximise a metric, the best is taken; of equally good ones the closest to 0.5; of two as close, the lower. To reach a
    sensitivity, the highest candidate that does, so that specificity is lost least; to reach a specificity, the lowest.

    Args:
        table: validation rows; not read where `how` is a number.
        how: see `Rule`.

    Returns:
        The threshold; 0.5 where the rows hold fewer than two classes and so cannot tell. Just above 1 where it is best
        to call nothing positive and a score is exactly 1.

    Raises:
        ConfigError: another `how`.
        DataError: a number that is not finite.
    """
    if isinstance(how, int | float):
        return check_threshold(how)
    positive, negative = float(table.positives.sum()), float(table.negatives.sum())
    if isinstance(how, Mapping):
        name, least = _point(how)
        if positive == 0 or negative == 0:
            return 0.5
        candidates, tp, tn = _candidates(table)
        # descending candidates: sensitivity rises and specificity falls from one to the next
        if name == "sensitivity":
            return float(candidates[np.flatnonzero(_at_least(tp, least * positive))[0]])
        return float(candidates[np.flatnonzero(_at_least(tn, least * negative))[-1]])
    if how not in ("balanced", "accuracy"):
        raise ConfigError(
            f"threshold is {how!r}; expected a probability, 'balanced', 'accuracy', or a sensitivity or specificity to reach"
        )
    if positive == 0 or negative == 0:
        return 0.5
    candidates, tp, tn = _candidates(table)
    # Multiplied out, so that whole counts compare exactly and ties are ties.
    merit = tp + tn if how == "accuracy" else tp * negative + tn * positive
    best = candidates[merit == merit.max()]
    distance = np.abs(best - 0.5)
    return float(best[distance == distance.min()].min())


def _point(how: Mapping[str, float]) -> tuple[str, float]:
    points = [(name, value) for name, value in how.items() if name in ("sensitivity", "specificity")]
    if len(how) != 1 or len(points) != 1 or not 0.0 < points[0][1] <= 1.0:
        raise ConfigError(
            f"threshold is {dict(how)!r}; expected one of sensitivity and specificity, above 0 and at most 1"
        )
    return points[0]


def _at_least(counts: Floats, least: float) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    # 0.9 x 10 rows are 9, whatever the last bit of the product is
    return np.asarray(counts >= least * (1.0 - 1e-12))


def _candidates(table: ScoreTable) -> tuple[Floats, Floats, Floats]:
    """Thresholds from high to low, and the true positives and true negatives at each."""
    counted = (table.positives + table.negatives) > 0
    scores, p, n = by_score(table.scores[counted], table.positives[None, counted], table.negatives[None, counted])
    tp = np.concatenate([[0.0], np.cumsum(p[0])])
    tn = table.negatives.sum() - np.concatenate([[0.0], np.cumsum(n[0])])
    beyond = 1.0 if scores[0] < 1.0 else np.nextafter(1.0, 2.0)
    high, low = np.concatenate([[beyond], scores]), np.concatenate([scores, [0.0]])
    middle = low + (high - low) / 2
    # The midpoint of neighbouring floats rounds to the lower one, which would then be called positive.
    return np.where(middle > low, middle, high), tp, tn

"""Figures of merit of a binary classifier, from counts of positives and negatives at each score.

Why not scikit-learn's: figures must also come from additive counts (histograms of scores, summed over hospitals that
release no row), and from a thousand bootstrap resamples at once. So there is one representation, counts at scores, and
one implementation, vectorised over weights of the rows. The tests hold it equal to scikit-learn.

With TP, FP, FN, TN the weighted counts at a threshold (a row is predicted positive when score >= threshold), P and N
the class totals, p_g and n_g the counts at the g-th distinct score from the top, and TP_g, FP_g their running sums:

    sensitivity        TP / P                          specificity   TN / N
    accuracy           (TP + TN) / (P + N)             balanced      (TP / P + TN / N) / 2
    f1                 2 TP / (2 TP + FP + FN)
    kappa              2 (TP TN - FP FN) / ((TP + FP) (FP + TN) + (TP + FN) (FN + TN))      Cohen 1960
    auroc              sum_g n_g (TP_g - p_g / 2) / (P N): ties count half                   Hanley and McNeil 1982
    auprc              sum_g (p_g / P) TP_g / (TP_g + FP_g): average precision, no interpolation
    brier              mean of (score - outcome)^2                                           Brier 1950
    ece                sum over ten equal bins of |sum of scores - positives| / (P + N)      Naeini et al. 2015
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wardround.errors import ConfigError, DataError

Floats = NDArray[np.float64]

METRICS = (
    "accuracy",
    "auroc",
    "auprc",
    "balanced_accuracy",
    "sensitivity",
    "specificity",
    "f1",
    "kappa",
    "brier",
    "ece",
)
"""The names of all metrics, in the order of reports."""

CALIBRATION_BINS = 10
"""Equal bins of the score in the expected calibration error."""

_MEAN_TOLERANCE = 1e-3
"""How far a bin's mean score may lie outside its bin: sums that crossed a secure channel are rounded to fixed point."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ScoreTable:
    """Weighted counts of outcomes at scores. Exact: a row per patient record. From a histogram: a row per bin.

    Attributes:
        scores: float64 [n], probability of the positive class, in [0, 1], in any order, ties allowed.
        positives: float64 [n], count of positive records at that score, 0 or more.
        negatives: float64 [n], count of negative records at that score, 0 or more.

    Raises:
        DataError: shapes that differ or are not one-dimensional, values that are not finite, a score outside [0, 1], a
            negative count.
    """

    scores: Floats
    positives: Floats
    negatives: Floats

    def __post_init__(self) -> None:
        """Convert to float64 and check."""
        for name in ("scores", "positives", "negatives"):
            object.__setattr__(self, name, _vector(name, getattr(self, name), np.size(self.scores)))
        outside = (self.scores < 0.0) | (self.scores > 1.0)
        if outside.any():
            row = int(outside.argmax())
            raise DataError(
                f"scores[{row}] is {self.scores[row]}; expected a probability in [0, 1]: put logits through a sigmoid"
            )
        for name, counts in (("positives", self.positives), ("negatives", self.negatives)):
            if (counts < 0.0).any():
                row = int((counts < 0.0).argmax())
                raise DataError(f"{name}[{row}] is {counts[row]}; expected a count of 0 or more: check the sums")

    def __len__(self) -> int:
        """The number of rows of the table, not of records."""
        return len(self.scores)

    @classmethod
    def from_rows(cls, scores: ArrayLike, labels: ArrayLike) -> ScoreTable:
        """The exact table: one row per record, in the order given.

        Args:
            scores: [n], probability of the positive class.
            labels: [n], 0 or 1.

        Raises:
            DataError: a label other than 0 and 1, or whatever the table itself refuses.
        """
        outcome = _labels(scores, labels)
        return cls(scores=np.asarray(scores, dtype=np.float64), positives=outcome, negatives=1.0 - outcome)

    @classmethod
    def from_histogram(cls, positives: ArrayLike, negatives: ArrayLike, score_sums: ArrayLike) -> ScoreTable:
        """The table of summed histograms: one row per bin that is not empty, at the mean score of its records.

        All records of a bin then share one score, so figures are exact but for what happens inside a bin.

        Args:
            positives: [bins], positive records in each of the uniform bins of [0, 1].
            negatives: [bins], negative records.
            score_sums: [bins], sum of the scores of all records of the bin.

        Raises:
            DataError: shapes that differ, values that are not finite, a negative count, or a mean score that lies
                outside its bin (by more than the rounding of fixed point, which is clipped).
        """
        bins = np.size(positives)
        positive = _vector("positives", positives, bins)
        negative = _vector("negatives", negatives, bins)
        sums = _vector("score_sums", score_sums, bins)
        occupied = np.flatnonzero(positive + negative)
        mean = sums[occupied] / (positive + negative)[occupied]
        low, high = occupied / max(bins, 1), (occupied + 1) / max(bins, 1)
        stray = (mean < low - _MEAN_TOLERANCE) | (mean > high + _MEAN_TOLERANCE)
        if stray.any():
            at = int(stray.argmax())
            raise DataError(
                f"the mean score of bin {occupied[at]} of {bins} is {mean[at]}; expected one in "
                f"[{low[at]}, {high[at]}]: the sums must come from uniform bins of [0, 1] and be summed bin by bin"
            )
        return cls(scores=np.clip(mean, low, high), positives=positive[occupied], negatives=negative[occupied])

    @classmethod
    def merge(cls, tables: Iterable[ScoreTable]) -> ScoreTable:
        """The tables' rows, one table after another. Merging nothing gives the table without rows."""
        parts = tuple(tables)
        empty = np.zeros(0)
        return cls(
            scores=np.concatenate([empty, *(table.scores for table in parts)]),
            positives=np.concatenate([empty, *(table.positives for table in parts)]),
            negatives=np.concatenate([empty, *(table.negatives for table in parts)]),
        )


def histogram(scores: ArrayLike, labels: ArrayLike, bins: int) -> dict[str, Floats]:
    """The additive form of scores and labels: what hospitals sum, and `ScoreTable.from_histogram` reads.

    Bin j of `bins` holds j / bins <= score < (j + 1) / bins; a score of 1 is in the last.

    Args:
        scores: [n], probability of the positive class, in [0, 1].
        labels: [n], 0 or 1.
        bins: 1 or more.

    Returns:
        `positives`, `negatives` and `score_sums`, float64 [bins] each; zeros where there are no rows.

    Raises:
        DataError: as `ScoreTable.from_rows`.
        ConfigError: fewer than one bin.
    """
    if bins < 1:
        raise ConfigError(f"bins is {bins}; expected 1 or more")
    table = ScoreTable.from_rows(scores, labels)
    index = _bin(table.scores, bins)
    return {
        "positives": _bin_sums(index, table.positives, bins),
        "negatives": _bin_sums(index, table.negatives, bins),
        "score_sums": _bin_sums(index, table.scores, bins),
    }


def measure(table: ScoreTable, threshold: float) -> dict[str, float]:
    """Every metric of `METRICS` that is defined for the table; an undefined one is absent.

    Undefined: everything without records; sensitivity and auprc without positives; specificity without negatives; auroc
    and balanced_accuracy with one class; f1 with no positive, neither true nor predicted; kappa where all records are
    of one class and predicted so.

    Args:
        table: n rows.
        threshold: a row is predicted positive when its score is at least this.

    Raises:
        DataError: a threshold that is not finite.
    """
    check_threshold(threshold)
    values = measure_weightings(table.scores, table.positives[None], table.negatives[None], threshold)
    return {name: float(values[name][0]) for name in METRICS if not np.isnan(values[name][0])}


def measure_weightings(
    scores: Floats, positives: Floats, negatives: Floats, threshold: float | Floats, *, bins: int = CALIBRATION_BINS
) -> dict[str, Floats]:
    """All metrics under B weightings of the same n rows at once.

    Args:
        scores: [n].
        positives: [B, n], counts under each weighting.
        negatives: [B, n].
        threshold: one for all rows, or [n], one a row (sites that decide at thresholds of their own).
        bins: of the calibration error.

    Returns:
        Name -> float64 [B], NaN where undefined. With whole counts the order of the rows does not change a bit.
    """
    if not len(scores):
        return {name: np.full(len(positives), np.nan) for name in METRICS}
    predicted = (scores >= threshold).astype(np.float64)
    # einsum, not a matrix product: bits must not depend on the threads of the linear algebra library.
    positive, negative = positives.sum(axis=1), negatives.sum(axis=1)
    total = positive + negative
    tp = np.einsum("bn,n->b", positives, predicted)
    fp = np.einsum("bn,n->b", negatives, predicted)
    fn, tn = positive - tp, negative - fp
    values = {
        "accuracy": _ratio(tp + tn, total),
        "balanced_accuracy": (_ratio(tp, positive) + _ratio(tn, negative)) / 2,
        "sensitivity": _ratio(tp, positive),
        "specificity": _ratio(tn, negative),
        "f1": _ratio(2 * tp, 2 * tp + fp + fn),
        "kappa": _ratio(2 * (tp * tn - fp * fn), (tp + fp) * (fp + tn) + (tp + fn) * (fn + tn)),
    }

    distinct, p, n = _by_score(scores, positives, negatives)
    gap = n * distinct - p * (1.0 - distinct)
    index = _bin(distinct, bins)
    values["ece"] = _ratio(np.abs(np.add.reduceat(gap, _starts(index), axis=1)).sum(axis=1), total)
    values["brier"] = _ratio(
        np.einsum("bg,g->b", p, (1.0 - distinct) ** 2) + np.einsum("bg,g->b", n, distinct**2), total
    )
    above = np.cumsum(p, axis=1)
    values["auroc"] = _ratio(np.einsum("bg,bg->b", n, above - p / 2), positive * negative)
    selected = above + np.cumsum(n, axis=1)
    precision = np.divide(above, selected, out=np.zeros_like(above), where=selected > 0)
    values["auprc"] = _ratio(np.einsum("bg,bg->b", p, precision), positive)
    return values


def choose_threshold(table: ScoreTable, how: float | Literal["balanced", "accuracy"]) -> float:
    """The decision threshold: a given one, or the one that is best on these (validation) rows.

    Candidates are the midpoints between adjacent distinct scores, and between the outermost scores and 0 and 1. Of
    equally good ones the closest to 0.5 is taken; of two as close, the lower.

    Args:
        table: validation rows; not read where `how` is a number.
        how: a threshold, or the metric to maximise: `balanced` accuracy or `accuracy`.

    Returns:
        The threshold; 0.5 where the rows hold fewer than two classes and so cannot tell. Just above 1 where it is best
        to call nothing positive and a score is exactly 1.

    Raises:
        ConfigError: another `how`.
        DataError: a number that is not finite.
    """
    if not isinstance(how, str):
        return check_threshold(how)
    if how not in ("balanced", "accuracy"):
        raise ConfigError(f"threshold is {how!r}; expected a probability, 'balanced' or 'accuracy'")
    counted = (table.positives + table.negatives) > 0
    positive, negative = table.positives.sum(), table.negatives.sum()
    if positive == 0 or negative == 0:
        return 0.5
    scores, p, n = _by_score(table.scores[counted], table.positives[None, counted], table.negatives[None, counted])
    tp = np.concatenate([[0.0], np.cumsum(p[0])])
    tn = negative - np.concatenate([[0.0], np.cumsum(n[0])])
    # Multiplied out, so that whole counts compare exactly and ties are ties.
    merit = tp + tn if how == "accuracy" else tp * negative + tn * positive
    beyond = 1.0 if scores[0] < 1.0 else np.nextafter(1.0, 2.0)
    high, low = np.concatenate([[beyond], scores]), np.concatenate([scores, [0.0]])
    middle = low + (high - low) / 2
    # The midpoint of neighbouring floats rounds to the lower one, which would then be called positive.
    candidates = np.where(middle > low, middle, high)
    best = candidates[merit == merit.max()]
    distance = np.abs(best - 0.5)
    return float(best[distance == distance.min()].min())


def roc_curve(table: ScoreTable) -> dict[str, list[float]]:
    """The receiver operating characteristic, as the corners of its polyline from (0, 0) to (1, 1).

    Returns:
        `false_positive_rate` and `true_positive_rate`, ascending, equally long; both empty with fewer than two classes.
        The area under the polyline is the auroc.
    """
    positive, negative = table.positives.sum(), table.negatives.sum()
    if positive == 0 or negative == 0:
        return {"false_positive_rate": [], "true_positive_rate": []}
    _, p, n = _by_score(table.scores, table.positives[None], table.negatives[None])
    moved = (p[0] + n[0]) > 0
    up, right = p[0, moved], n[0, moved]
    corner = np.concatenate([[True], up[:-1] * right[1:] != up[1:] * right[:-1], [True]])
    tp, fp = np.concatenate([[0.0], np.cumsum(up)]), np.concatenate([[0.0], np.cumsum(right)])
    return {
        "false_positive_rate": (fp[corner] / negative).tolist(),
        "true_positive_rate": (tp[corner] / positive).tolist(),
    }


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
    index = _bin(table.scores, bins)
    counts = table.positives + table.negatives
    records = _bin_sums(index, counts, bins)
    kept = records > 0
    predicted = _bin_sums(index, counts * table.scores, bins)[kept] / records[kept]
    observed = _bin_sums(index, table.positives, bins)[kept] / records[kept]
    return {"predicted": predicted.tolist(), "observed": observed.tolist(), "records": records[kept].tolist()}


def check_threshold(threshold: float) -> float:
    """The threshold as a float. Raises DataError where it is not finite."""
    if not np.isfinite(threshold):
        raise DataError(f"threshold is {threshold}; expected a finite number, usually a probability")
    return float(threshold)


def _by_score(scores: Floats, positives: Floats, negatives: Floats) -> tuple[Floats, Floats, Floats]:
    """The distinct scores [g] from high to low, and the counts [B, g] at each."""
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    starts = _starts(ordered)
    p, n = positives[:, order], negatives[:, order]
    if len(starts) == len(scores):
        return ordered, p, n
    return ordered[starts], np.add.reduceat(p, starts, axis=1), np.add.reduceat(n, starts, axis=1)


def _starts(ordered: NDArray[np.float64] | NDArray[np.int64]) -> NDArray[np.intp]:
    """Where each run of equal values begins; `ordered` has one value or more."""
    return np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))


def _bin(scores: Floats, bins: int) -> NDArray[np.int64]:
    index: NDArray[np.int64] = np.minimum((scores * bins).astype(np.int64), bins - 1)
    return index


def _bin_sums(index: NDArray[np.int64], values: Floats, bins: int) -> Floats:
    return np.bincount(index, weights=values, minlength=bins).astype(np.float64)


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    return np.divide(numerator, denominator, out=np.full_like(numerator, np.nan), where=denominator != 0)


def _vector(name: str, values: ArrayLike, length: int) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    if array.shape != (length,):
        raise DataError(f"{name} has shape {array.shape}; expected ({length},): one value a row, equally many of each")
    if not np.isfinite(array).all():
        row = int((~np.isfinite(array)).argmax())
        raise DataError(f"{name}[{row}] is {array[row]}; expected a finite number: look for a model that diverged")
    return array


def _labels(scores: ArrayLike, labels: ArrayLike) -> Floats:
    outcome = _vector("labels", labels, np.size(scores))
    wrong = (outcome != 0.0) & (outcome != 1.0)
    if wrong.any():
        row = int(wrong.argmax())
        raise DataError(f"labels[{row}] is {outcome[row]}; expected 0 or 1: these metrics are of binary classifiers")
    return outcome

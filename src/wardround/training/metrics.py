"""Figures of merit of a binary classifier, from counts of positives and negatives at each score.

More classes are measured from the same counts, class by class: see `multiclass`.

Why not scikit-learn's: figures must also come from additive counts (histograms of scores, summed over hospitals that
release no row), and from a thousand bootstrap resamples at once. So there is one representation, counts at scores, and
one implementation, vectorised over weights of the rows. The tests hold it equal to scikit-learn.

With TP, FP, FN, TN the weighted counts at a threshold (a row is predicted positive when score >= threshold), P and N
the class totals, p_g and n_g the counts at the g-th distinct score from the top, and TP_g, FP_g their running sums:

    sensitivity        TP / P                          specificity   TN / N
    ppv                TP / (TP + FP)                  npv           TN / (TN + FN)
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
    "ppv",
    "npv",
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
            object.__setattr__(self, name, vector(name, getattr(self, name), np.size(self.scores)))
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

    @property
    def class_counts(self) -> Floats:
        """Records of each class in label order, float64 [2]."""
        return np.array([self.negatives.sum(), self.positives.sum()])

    def confusion(self, threshold: float) -> Floats:
        """Records by true class (row) and predicted class (column), float64 [2, 2], in label order."""
        chosen = self.scores >= threshold
        return np.array([[of[~chosen].sum(), of[chosen].sum()] for of in (self.negatives, self.positives)])

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
        positive = vector("positives", positives, bins)
        negative = vector("negatives", negatives, bins)
        sums = vector("score_sums", score_sums, bins)
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
    index = bin_of(table.scores, bins)
    return {
        "positives": bin_sums(index, table.positives, bins),
        "negatives": bin_sums(index, table.negatives, bins),
        "score_sums": bin_sums(index, table.scores, bins),
    }


def measure(table: ScoreTable, threshold: float) -> dict[str, float]:
    """Every metric of `METRICS` that is defined for the table; an undefined one is absent.

    Undefined: everything without records; sensitivity and auprc without positives; specificity without negatives; ppv
    where nothing is predicted positive, npv where all is; auroc and balanced_accuracy with one class; f1 with no
    positive, neither true nor predicted; kappa where all records are of one class and predicted so.

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
        "accuracy": ratio(tp + tn, total),
        "balanced_accuracy": (ratio(tp, positive) + ratio(tn, negative)) / 2,
        "sensitivity": ratio(tp, positive),
        "specificity": ratio(tn, negative),
        "ppv": ratio(tp, tp + fp),
        "npv": ratio(tn, tn + fn),
        "f1": ratio(2 * tp, 2 * tp + fp + fn),
        "kappa": ratio(2 * (tp * tn - fp * fn), (tp + fp) * (fp + tn) + (tp + fn) * (fn + tn)),
    }
    distinct, p, n = by_score(scores, positives, negatives)
    values["ece"] = calibration_error(distinct, p, n, total, bins=bins)
    values["brier"] = brier_score(distinct, p, n, total)
    values["auroc"], values["auprc"] = ranking(p, n, positive, negative)
    return values


# From here on: distinct scores [g] from high to low, counts [B, g] at each as `by_score` gives them, and their sums [B].


def ranking(p: Floats, n: Floats, positive: Floats, negative: Floats) -> tuple[Floats, Floats]:
    """The areas under both curves, auroc and auprc, [B] each; NaN where undefined."""
    above = np.cumsum(p, axis=1)
    auroc = ratio(np.einsum("bg,bg->b", n, above - p / 2), positive * negative)
    selected = above + np.cumsum(n, axis=1)
    precision = np.divide(above, selected, out=np.zeros_like(above), where=selected > 0)
    return auroc, ratio(np.einsum("bg,bg->b", p, precision), positive)


def brier_score(distinct: Floats, p: Floats, n: Floats, total: Floats) -> Floats:
    """Mean of (score - outcome)^2, [B]; NaN without records."""
    squares = np.einsum("bg,g->b", p, (1.0 - distinct) ** 2) + np.einsum("bg,g->b", n, distinct**2)
    return ratio(squares, total)


def calibration_error(distinct: Floats, p: Floats, n: Floats, total: Floats, *, bins: int = CALIBRATION_BINS) -> Floats:
    """The ece over equal bins of the score, [B]; NaN without records."""
    gap = n * distinct - p * (1.0 - distinct)
    index = bin_of(distinct, bins)
    return ratio(np.abs(np.add.reduceat(gap, starts_of(index), axis=1)).sum(axis=1), total)


def check_threshold(threshold: float) -> float:
    """The threshold as a float. Raises DataError where it is not finite."""
    if not np.isfinite(threshold):
        raise DataError(f"threshold is {threshold}; expected a finite number, usually a probability")
    return float(threshold)


def by_score(scores: Floats, positives: Floats, negatives: Floats) -> tuple[Floats, Floats, Floats]:
    """The distinct scores [g] from high to low, and the counts [B, g] at each."""
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    starts = starts_of(ordered)
    p, n = positives[:, order], negatives[:, order]
    if len(starts) == len(scores):
        return ordered, p, n
    return ordered[starts], np.add.reduceat(p, starts, axis=1), np.add.reduceat(n, starts, axis=1)


def starts_of(ordered: NDArray[np.float64] | NDArray[np.int64]) -> NDArray[np.intp]:
    """Where each run of equal values begins; `ordered` has one value or more."""
    return np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))


def bin_of(scores: Floats, bins: int) -> NDArray[np.int64]:
    """The uniform bin of [0, 1] that each score lies in; a score of 1 is in the last."""
    index: NDArray[np.int64] = np.minimum((scores * bins).astype(np.int64), bins - 1)
    return index


def bin_sums(index: NDArray[np.int64], values: Floats, bins: int) -> Floats:
    """Sums of the values in each bin, float64 [bins]."""
    return np.bincount(index, weights=values, minlength=bins).astype(np.float64)


def ratio(numerator: Floats, denominator: Floats) -> Floats:
    """The quotient, NaN where the denominator is 0."""
    return np.divide(numerator, denominator, out=np.full_like(numerator, np.nan), where=denominator != 0)


def vector(name: str, values: ArrayLike, length: int) -> Floats:
    """The values as float64 [length]. Raises DataError for another shape, or a value that is not finite."""
    array = np.asarray(values, dtype=np.float64)
    if array.shape != (length,):
        raise DataError(f"{name} has shape {array.shape}; expected ({length},): one value a row, equally many of each")
    if not np.isfinite(array).all():
        row = int((~np.isfinite(array)).argmax())
        raise DataError(f"{name}[{row}] is {array[row]}; expected a finite number: look for a model that diverged")
    return array


def _labels(scores: ArrayLike, labels: ArrayLike) -> Floats:
    outcome = vector("labels", labels, np.size(scores))
    wrong = (outcome != 0.0) & (outcome != 1.0)
    if wrong.any():
        row = int(wrong.argmax())
        raise DataError(f"labels[{row}] is {outcome[row]}; expected 0 or 1: these metrics are of binary classifiers")
    return outcome

"""How well one column alone tells the label, judged on rows that it was not learned from.

Half of the rows (whole patients) give the rate of each class a level, or a twentieth of the numbers (25 or more); the
other half is ranked by these rates, and numbers by themselves too. An identifier tells nothing so, and noise of many
values does not pass for knowledge. The standard error is that of J. Hanley and B. McNeil: The meaning and use of the area
under a ROC curve, Radiology 143, 1982.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wardround.data.profile.facts import Facts

_BINS, _A_BIN = 20, 25
_FEWEST = 10
_MOST_ROWS = 20_000
_MOST_CLASSES = 12
_RARE = 30
_CHANCE = 1e-6


@dataclass(frozen=True, kw_only=True)
class Association:
    """How well a column alone ranks one class against the rest.

    Attributes:
        auroc: mean of the two halves; 0.5 is chance.
        low: lower end of its 95 % interval.
        label: the class, an index.
    """

    auroc: float
    low: float
    label: int


@dataclass(frozen=True, kw_only=True)
class Halves:
    """Two halves of the sampled rows that share no patient.

    Attributes:
        rows: places of the rows that have a label, int64 [n].
        labels: their classes, int64 [n].
        second: which are in the second half, bool [n].
        classes: number of classes.
    """

    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    second: NDArray[np.bool_]
    classes: int


def halve(labels: NDArray[np.int64], patients: NDArray[np.object_] | None, classes: int) -> Halves:
    """Divide rows by patient; at most 20,000 of them are taken.

    Args:
        labels: class a row, int64 [n], -1 without one.
        patients: identifier a row [n], or None where each row is a patient.
        classes: number of classes.
    """
    draw = np.random.default_rng(0)
    rows = np.flatnonzero(labels >= 0)
    if len(rows) > _MOST_ROWS:
        rows = np.sort(draw.choice(rows, _MOST_ROWS, replace=False))
    if patients is None:
        second = draw.permutation(len(rows)) % 2 == 1
    else:
        different, whose = np.unique(patients[rows].astype(str), return_inverse=True)
        second = (draw.permutation(len(different)) % 2 == 1)[whose.reshape(-1)]
    return Halves(rows=rows, labels=labels[rows], second=second, classes=classes)


def association(facts: Facts, halves: Halves, *, numeric: bool) -> Association | None:
    """The class that the column tells best; None where no class has ten rows in each half."""
    best: Association | None = None
    frequent = np.argsort(-np.bincount(halves.labels, minlength=halves.classes), kind="stable")[:_MOST_CLASSES]
    cells = [_coded(facts, halves, learn, numeric=numeric) for learn in (~halves.second, halves.second)]
    for label in frequent.tolist():
        truth = halves.labels == label
        found = [
            _judged(code, truth, learn) for code, learn in zip(cells, (~halves.second, halves.second), strict=True)
        ]
        values = [one for one in found if one is not None]
        if len(values) < len(found):
            continue
        auroc = sum(values) / len(values)
        if numeric:
            auroc = max(auroc, _monotone(facts.numbers[halves.rows], truth, halves.second))
        low = auroc - 1.96 * _error(auroc, int(truth.sum()), int((~truth).sum()))
        if best is None or auroc > best.auroc:
            best = Association(auroc=auroc, low=low, label=label)
        if halves.classes == 2:
            break
    return best


def telling_levels(facts: Facts, halves: Halves) -> list[tuple[str, int, int]]:
    """Levels all of whose rows are of one class where chance would not have it: level, class, rows in the sample.

    A level is named if it has 30 rows or more and so pure a level has a probability below 1e-6 (Bonferroni over the
    levels) were it drawn from all rows.
    """
    cells = facts.sample[halves.rows].astype(str)
    shares = np.bincount(halves.labels, minlength=halves.classes) / max(len(halves.labels), 1)
    levels, codes = np.unique(cells, return_inverse=True)
    found = []
    for place, level in enumerate(levels.tolist()):
        here = halves.labels[codes.reshape(-1) == place]
        if len(here) < _RARE or facts.gap[halves.rows][codes.reshape(-1) == place].any() or (here != here[0]).any():
            continue
        share = shares[here[0]]
        if share < 1 and len(here) * math.log(share) + math.log(len(levels)) < math.log(_CHANCE):
            found.append((level, int(here[0]), len(here)))
    return found


def _coded(facts: Facts, halves: Halves, learn: NDArray[np.bool_], *, numeric: bool) -> NDArray[np.int64]:
    """A code a row: the bin or the level; gaps have one of their own."""
    gap = facts.gap[halves.rows]
    if not numeric:
        cells = np.where(gap, "", facts.sample[halves.rows]).astype(str)
        return np.unique(cells, return_inverse=True)[1].reshape(-1).astype(np.int64)
    numbers = facts.numbers[halves.rows]
    known = numbers[learn & np.isfinite(numbers)]
    bins = min(_BINS, max(len(known) // _A_BIN, 2))
    edges = np.unique(np.quantile(known, np.linspace(0, 1, bins + 1)[1:-1])) if known.size else np.empty(0)
    return np.where(np.isfinite(numbers), np.searchsorted(edges, numbers, side="right"), len(edges) + 1)


def _judged(codes: NDArray[np.int64], truth: NDArray[np.bool_], learn: NDArray[np.bool_]) -> float | None:
    judge = ~learn
    if min(truth[learn].sum(), truth[judge].sum(), (~truth)[learn].sum(), (~truth)[judge].sum()) < _FEWEST:
        return None
    from sklearn.metrics import roc_auc_score

    size = int(codes.max()) + 1
    hits = np.bincount(codes[learn], weights=truth[learn], minlength=size)
    rows = np.bincount(codes[learn], minlength=size)
    rate = (hits + truth[learn].mean()) / (rows + 1)
    return float(roc_auc_score(truth[judge], rate[codes[judge]]))


def _monotone(numbers: NDArray[np.float64], truth: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """AUROC of the numbers themselves, upwards or downwards as the other half says; 0 where some are missing."""
    from sklearn.metrics import roc_auc_score

    if not np.isfinite(numbers).all():
        return 0.0
    first, other = (float(roc_auc_score(truth[half], numbers[half])) for half in (~second, second))
    return ((other if first >= 0.5 else 1 - other) + (first if other >= 0.5 else 1 - first)) / 2


def _error(auroc: float, positives: int, negatives: int) -> float:
    first, second = auroc / (2 - auroc), 2 * auroc**2 / (1 + auroc)
    spread = auroc * (1 - auroc) + (positives - 1) * (first - auroc**2) + (negatives - 1) * (second - auroc**2)
    return math.sqrt(max(spread, 0.0) / (positives * negatives))

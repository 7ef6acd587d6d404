"""Scores of two classes, of more, or of labels that a row may have several of; exact or summed, behind one set of names."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wardround.errors import DataError
from wardround.training import metrics, multiclass, multilabel
from wardround.training.class_tables import ClassSums, ClassTable
from wardround.training.label_tables import LabelSums, LabelTable, cuts
from wardround.training.metrics import Floats, ScoreTable
from wardround.types import Arrays

Table = ScoreTable | ClassTable | ClassSums | LabelTable | LabelSums
"""Two classes; more of them, row by row or summed; labels that a row may have several of, row by row or summed."""

Cut = float | tuple[float, ...]
"""A decision threshold: of two classes, or for all labels; or one a label. More than two classes have none."""


def from_rows(scores: NDArray[Any], labels: NDArray[Any]) -> Table:
    """The exact table of scores [n] (probability of class 1) or [n, C] (of every class), and labels [n].

    Labels [n, C] of 0 and 1 are those of a multi-label dataset.
    """
    if labels.ndim == 2:
        return LabelTable(scores=scores, labels=labels)
    if scores.ndim == 1:
        return ScoreTable.from_rows(scores, labels)
    return ClassTable(scores=scores, labels=labels)


def from_sums(sums: Arrays) -> Table:
    """The table of one split's additive figures, as `evaluate.figures` makes them and a channel sums them."""
    positives, negatives = (sums[name].round().clamp_min(0).numpy() for name in ("positives", "negatives"))
    score_sums = sums["score_sums"].numpy()
    if "exact" in sums:
        return LabelSums.from_histograms(positives, negatives, score_sums, max(0.0, round(float(sums["exact"]))))
    if "confusion" not in sums:
        return ScoreTable.from_histogram(positives, negatives, score_sums)
    confusion = sums["confusion"].round().clamp_min(0).numpy()
    return ClassSums.from_histograms(positives, negatives, score_sums, confusion)


def merge(tables: Iterable[Table]) -> Table:
    """All rows in one table; nothing gives the table of two classes without rows."""
    parts = list(tables)
    labelled = [table for table in parts if isinstance(table, LabelTable)]
    if labelled:
        return LabelTable.merge(labelled)
    summed = [table for table in parts if isinstance(table, LabelSums)]
    if summed:
        return LabelSums.merge(summed)
    rows = [table for table in parts if isinstance(table, ClassTable)]
    sums = [table for table in parts if isinstance(table, ClassSums)]
    if rows:
        return ClassTable.merge(rows)
    return ClassSums.merge(sums) if sums else ScoreTable.merge(t for t in parts if isinstance(t, ScoreTable))


def confusion(table: Table, threshold: Cut) -> Floats:
    """Rows by true (row) and predicted class (column); of labels, one such table each, [L, 2, 2]."""
    if isinstance(table, ScoreTable):
        return table.confusion(single(threshold))
    return table.confusion(threshold) if isinstance(table, LabelTable | LabelSums) else table.confusion()


def measure(table: Table, threshold: Cut) -> dict[str, float]:
    """Every defined metric of all classes together."""
    if isinstance(table, ScoreTable):
        return metrics.measure(table, single(threshold))
    overall, _ = values_once(table, threshold)
    return {name: float(value[0]) for name, value in overall.items() if not np.isnan(value[0])}


def single(threshold: Cut) -> float:
    """The one threshold of two classes.

    Raises:
        DataError: several, which belong to labels.
    """
    if isinstance(threshold, tuple):
        raise DataError(f"{len(threshold)} thresholds for two classes: give one")
    return threshold


def values_once(table: ClassTable | ClassSums | LabelTable | LabelSums, threshold: Cut = 0.5) -> multiclass.Values:
    """Each row counted once; the threshold is that of labels."""
    if isinstance(table, LabelTable):
        each = np.broadcast_to(cuts(threshold, table.classes), table.scores.shape)
        return multilabel.measure_rows(table, np.ones((1, len(table))), each)
    if isinstance(table, LabelSums):
        pairs = [(part.positives[None], part.negatives[None]) for part in table.tables]
        return multilabel.measure_sums(table, pairs, np.array([table.exact]), cuts(threshold, table.classes))
    if isinstance(table, ClassTable):
        return multiclass.measure_rows(table, np.ones((1, len(table))))
    drawn = [(part.positives[None], part.negatives[None]) for part in table.parts]
    return multiclass.measure_sums(table, table.matrix[None], drawn)

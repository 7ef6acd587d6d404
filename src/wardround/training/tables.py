"""Scores and labels of any number of classes, exact or summed, behind one set of names."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wardround.training import metrics, multiclass
from wardround.training.class_tables import ClassSums, ClassTable
from wardround.training.metrics import Floats, ScoreTable
from wardround.types import Arrays

Table = ScoreTable | ClassTable | ClassSums
"""Two classes; more of them, row by row; more of them, summed."""


def from_rows(scores: NDArray[Any], labels: NDArray[Any]) -> Table:
    """The exact table of scores [n] (probability of class 1) or [n, C] (of every class), and labels [n]."""
    if scores.ndim == 1:
        return ScoreTable.from_rows(scores, labels)
    return ClassTable(scores=scores, labels=labels)


def from_sums(sums: Arrays) -> Table:
    """The table of one split's additive figures, as `evaluate.figures` makes them and a channel sums them."""
    positives, negatives = (sums[name].round().clamp_min(0).numpy() for name in ("positives", "negatives"))
    score_sums = sums["score_sums"].numpy()
    if "confusion" not in sums:
        return ScoreTable.from_histogram(positives, negatives, score_sums)
    confusion = sums["confusion"].round().clamp_min(0).numpy()
    return ClassSums.from_histograms(positives, negatives, score_sums, confusion)


def merge(tables: Iterable[Table]) -> Table:
    """All rows in one table; nothing gives the table of two classes without rows."""
    parts = list(tables)
    rows = [table for table in parts if isinstance(table, ClassTable)]
    sums = [table for table in parts if isinstance(table, ClassSums)]
    if rows:
        return ClassTable.merge(rows)
    return ClassSums.merge(sums) if sums else ScoreTable.merge(t for t in parts if isinstance(t, ScoreTable))


def confusion(table: Table, threshold: float) -> Floats:
    """Rows by true (row) and predicted class (column); the threshold is that of two classes."""
    return table.confusion(threshold) if isinstance(table, ScoreTable) else table.confusion()


def measure(table: Table, threshold: float) -> dict[str, float]:
    """Every defined metric; the threshold is that of two classes."""
    if isinstance(table, ScoreTable):
        return metrics.measure(table, threshold)
    overall, _ = values_once(table)
    return {name: float(value[0]) for name, value in overall.items() if not np.isnan(value[0])}


def values_once(table: ClassTable | ClassSums) -> multiclass.Values:
    """Each row counted once."""
    if isinstance(table, ClassTable):
        return multiclass.measure_rows(table, np.ones((1, len(table))))
    drawn = [(part.positives[None], part.negatives[None]) for part in table.parts]
    return multiclass.measure_sums(table, table.matrix[None], drawn)

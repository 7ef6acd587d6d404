"""Scores and labels of rows that may have several labels, or none: row by row, or summed over hospitals.

Each label is a question of two classes, so the additive form is a histogram a label, as of two classes, and with them the
number of rows all of whose labels are right at a threshold of 0.5.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from wardround.errors import DataError
from wardround.training.class_tables import ScoredRows
from wardround.training.metrics import Floats, ScoreTable

HALF = 0.5
"""The threshold at which sums know how many rows are right in every label."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelTable(ScoredRows):
    """Rows with the probability of every label.

    Attributes:
        scores: float64 [n, L], each in [0, 1], independent of each other.
        labels: int64 [n, L], 0 or 1.

    Raises:
        DataError: other shapes, values that are not finite, a score that is no probability, a label other than 0 and 1.
    """

    def __post_init__(self) -> None:
        """Convert and check."""
        scores, labels = np.asarray(self.scores, dtype=np.float64), np.asarray(self.labels)
        if scores.ndim != 2 or labels.shape != scores.shape:
            raise DataError(
                f"scores have shape {scores.shape} and labels {labels.shape}; expected (rows, labels) of both"
            )
        wrong = ~((scores >= 0.0) & (scores <= 1.0))
        if wrong.any():
            row, label = (int(place[0]) for place in np.nonzero(wrong))
            raise DataError(
                f"scores[{row}, {label}] is {scores[row, label]}; expected a probability in [0, 1]: put logits through a "
                "sigmoid, or look for a model that diverged"
            )
        strange = (labels != 0) & (labels != 1)
        if strange.any():
            row, label = (int(place[0]) for place in np.nonzero(strange))
            raise DataError(f"labels[{row}, {label}] is {labels[row, label]}; expected 0 or 1")
        object.__setattr__(self, "scores", scores)
        object.__setattr__(self, "labels", labels.astype(np.int64))

    @property
    def class_counts(self) -> Floats:
        """Rows without and with each label, float64 [L, 2]."""
        positives = self.labels.sum(axis=0)
        return np.stack([len(self) - positives, positives], axis=1).astype(np.float64)

    def one_vs_rest(self, label: int) -> ScoreTable:
        """The rows as a table of one label."""
        return ScoreTable.from_rows(self.scores[:, label], self.labels[:, label])

    def decision(self) -> ScoreTable:
        """Every label of every row, as one table of two classes."""
        return ScoreTable.from_rows(self.scores.ravel(), self.labels.ravel())

    def confusion(self, threshold: float | tuple[float, ...]) -> Floats:
        """Rows by label, without and with it (row), called so (column), float64 [L, 2, 2]."""
        return _confusion(self, threshold)


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelSums:
    """What the additive form says of L labels.

    Attributes:
        tables: one label each.
        exact: rows all of whose labels are right at a threshold of 0.5.
    """

    tables: tuple[ScoreTable, ...]
    exact: float

    @classmethod
    def from_histograms(
        cls, positives: ArrayLike, negatives: ArrayLike, score_sums: ArrayLike, exact: float
    ) -> LabelSums:
        """From sums over sites.

        Args:
            positives, negatives, score_sums: [L, bins], of each label, as `ScoreTable.from_histogram` reads them.
            exact: rows all of whose labels are right at a threshold of 0.5.

        Raises:
            DataError: as `ScoreTable.from_histogram`.
        """
        parts = (np.asarray(part, dtype=np.float64) for part in (positives, negatives, score_sums))
        return cls(
            tables=tuple(ScoreTable.from_histogram(*rows) for rows in zip(*parts, strict=True)), exact=float(exact)
        )

    def __len__(self) -> int:
        """The number of rows that were summed."""
        return round(float(self.tables[0].class_counts.sum()))

    @classmethod
    def merge(cls, tables: Iterable[LabelSums]) -> LabelSums:
        """Sums of sums; there is at least one."""
        parts = tuple(tables)
        merged = (ScoreTable.merge(of) for of in zip(*(part.tables for part in parts), strict=True))
        return cls(tables=tuple(merged), exact=sum(part.exact for part in parts))

    @property
    def classes(self) -> int:
        """L."""
        return len(self.tables)

    @property
    def class_counts(self) -> Floats:
        """Rows without and with each label, float64 [L, 2]."""
        return np.stack([table.class_counts for table in self.tables])

    def one_vs_rest(self, label: int) -> ScoreTable:
        """The histogram of one label."""
        return self.tables[label]

    def decision(self) -> ScoreTable:
        """Every label's histogram, as one table of two classes."""
        return ScoreTable.merge(self.tables)

    def confusion(self, threshold: float | tuple[float, ...]) -> Floats:
        """Rows by label, without and with it (row), called so (column), float64 [L, 2, 2]."""
        return _confusion(self, threshold)


def cuts(threshold: float | tuple[float, ...], labels: int) -> Floats:
    """A threshold a label, float64 [L].

    Raises:
        DataError: another number of thresholds than labels.
    """
    given = np.asarray(threshold, dtype=np.float64)
    if given.ndim and len(given) != labels:
        raise DataError(f"{len(given)} thresholds for {labels} labels: give one for all, or one a label")
    return np.broadcast_to(given, (labels,)).astype(np.float64)


def _confusion(table: LabelTable | LabelSums, threshold: float | tuple[float, ...]) -> Floats:
    each = cuts(threshold, table.classes)
    return np.stack([table.one_vs_rest(label).confusion(float(each[label])) for label in range(table.classes)])

"""Scores and labels of three or more classes: row by row, or summed over hospitals.

The additive form has, for each class, a histogram of its probability by 'is it' and 'is it not', one of the decision's
probability by right and wrong, one of half the row's term of the Brier score, and M. From these come the same figures, but
for what happens inside a bin; brier is exact.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wardround.errors import DataError
from wardround.training.metrics import Floats, ScoreTable, histogram

_SUM_TOLERANCE = 1e-4
"""How far probabilities of a row may add up to something else than 1: they come from single precision."""

Ints = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class ScoredRows:
    """Rows with a probability of each of C classes or labels, and what they are.

    Attributes:
        scores: float64 [n, C].
        labels: int64, [n, ...].
    """

    scores: Floats
    labels: Ints

    def __len__(self) -> int:
        """The number of rows."""
        return len(self.labels)

    @classmethod
    def merge(cls, tables: Iterable[Self]) -> Self:
        """The tables' rows, one table after another; there is at least one table."""
        parts = tuple(tables)
        return cls(
            scores=np.concatenate([table.scores for table in parts]),
            labels=np.concatenate([table.labels for table in parts]),
        )

    @property
    def classes(self) -> int:
        """C."""
        return int(self.scores.shape[1])


@dataclass(frozen=True, kw_only=True, eq=False)
class ClassTable(ScoredRows):
    """Rows with the probability of every class.

    Attributes:
        scores: float64 [n, C], each row adding up to 1.
        labels: int64 [n], 0..C-1.

    Raises:
        DataError: other shapes, values that are not finite, a row that is no distribution, a label that is no class.
    """

    def __post_init__(self) -> None:
        """Convert and check."""
        scores, labels = np.asarray(self.scores, dtype=np.float64), np.asarray(self.labels)
        if scores.ndim != 2 or labels.shape != scores.shape[:1]:
            raise DataError(
                f"scores have shape {scores.shape} and labels {labels.shape}; expected (rows, classes) and (rows,)"
            )
        if not np.isfinite(scores).all():
            row = int((~np.isfinite(scores)).any(axis=1).argmax())
            raise DataError(f"scores[{row}] is {scores[row]}; expected finite numbers: look for a model that diverged")
        wrong = (scores < 0).any(axis=1) | (np.abs(scores.sum(axis=1) - 1.0) > _SUM_TOLERANCE)
        if wrong.any():
            row = int(wrong.argmax())
            raise DataError(
                f"scores[{row}] is {scores[row]}; expected probabilities that add up to 1: put logits through a softmax"
            )
        strange = ~np.isin(labels, np.arange(scores.shape[1]))
        if strange.any():
            row = int(strange.argmax())
            raise DataError(f"labels[{row}] is {labels[row]}; expected 0..{scores.shape[1] - 1}")
        object.__setattr__(self, "scores", scores)
        object.__setattr__(self, "labels", labels.astype(np.int64))

    @property
    def class_counts(self) -> Floats:
        """Rows of each class, float64 [C]."""
        return np.bincount(self.labels, minlength=self.classes).astype(np.float64)

    @property
    def predicted(self) -> Ints:
        """The most probable class of each row, int64 [n]."""
        return np.asarray(self.scores.argmax(axis=1), dtype=np.int64)

    def confusion(self) -> Floats:
        """Rows by true class (row) and predicted class (column), float64 [C, C]."""
        cells = np.bincount(self.labels * self.classes + self.predicted, minlength=self.classes**2)
        return cells.reshape(self.classes, self.classes).astype(np.float64)

    @property
    def squared_errors(self) -> Floats:
        """Each row's sum over classes of (score - outcome)^2, float64 [n], in [0, 2]."""
        errors = self.scores - np.eye(self.classes)[self.labels]
        return np.asarray(np.einsum("nc,nc->n", errors, errors))

    def one_vs_rest(self, label: int) -> ScoreTable:
        """The rows as a table of one class against all others."""
        return ScoreTable.from_rows(self.scores[:, label].clip(0.0, 1.0), self.labels == label)

    def decision(self) -> ScoreTable:
        """The rows by the probability of their predicted class; positive where it is right."""
        return ScoreTable.from_rows(self.scores.max(axis=1).clip(0.0, 1.0), self.labels == self.predicted)


@dataclass(frozen=True, kw_only=True, eq=False)
class ClassSums:
    """What the additive form says of C classes.

    Attributes:
        tables: one class against the rest, by class.
        right: rows by the probability of their predicted class; positive where it is right.
        squares: rows by half of sum_c (score_c - [class is c])^2, all positive.
        matrix: rows by true and predicted class, float64 [C, C].
    """

    tables: tuple[ScoreTable, ...]
    right: ScoreTable
    squares: ScoreTable
    matrix: Floats

    @classmethod
    def from_histograms(
        cls, positives: ArrayLike, negatives: ArrayLike, score_sums: ArrayLike, confusion: ArrayLike
    ) -> ClassSums:
        """From sums over sites.

        Args:
            positives: [C + 2, bins], rows of each class by its probability; then the right decisions by their
                probability; last all rows by half their squared error.
            negatives: [C + 2, bins], rows of other classes; wrong decisions; zeros.
            score_sums: [C + 2, bins], the sums of these numbers.
            confusion: [C, C], rows by true and predicted class.

        Raises:
            DataError: as `ScoreTable.from_histogram`, or shapes that do not fit each other.
        """
        matrix = np.asarray(confusion, dtype=np.float64)
        parts = [np.asarray(part, dtype=np.float64) for part in (positives, negatives, score_sums)]
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or any(len(p) != len(matrix) + 2 for p in parts):
            raise DataError(
                f"confusion has shape {matrix.shape} beside {[p.shape for p in parts]} of histograms; expected (C, C) and "
                "(C + 2, bins) each"
            )
        *tables, right, squares = (ScoreTable.from_histogram(*rows) for rows in zip(*parts, strict=True))
        return cls(tables=tuple(tables), right=right, squares=squares, matrix=matrix)

    def __len__(self) -> int:
        """The number of rows that were summed."""
        return round(float(self.matrix.sum()))

    @classmethod
    def merge(cls, tables: Iterable[ClassSums]) -> ClassSums:
        """Sums of sums; there is at least one."""
        parts = tuple(tables)
        return cls(
            tables=tuple(ScoreTable.merge(of) for of in zip(*(part.tables for part in parts), strict=True)),
            right=ScoreTable.merge(part.right for part in parts),
            squares=ScoreTable.merge(part.squares for part in parts),
            matrix=np.sum([part.matrix for part in parts], axis=0),
        )

    @property
    def classes(self) -> int:
        """C."""
        return int(self.matrix.shape[0])

    @property
    def class_counts(self) -> Floats:
        """Rows of each class, float64 [C]."""
        return np.asarray(self.matrix.sum(axis=1))

    def confusion(self) -> Floats:
        """Rows by true class (row) and predicted class (column), float64 [C, C]."""
        return self.matrix

    @property
    def parts(self) -> tuple[ScoreTable, ...]:
        """Every histogram: those of the classes, of right decisions, of squared errors."""
        return (*self.tables, self.right, self.squares)

    def one_vs_rest(self, label: int) -> ScoreTable:
        """The histogram of one class against all others."""
        return self.tables[label]

    def decision(self) -> ScoreTable:
        """The histogram of the decision's probability."""
        return self.right


def class_histograms(scores: Floats, labels: ArrayLike, bins: int) -> Mapping[str, Floats]:
    """The additive form of rows: what hospitals sum, and `ClassSums.from_histograms` reads.

    Args:
        scores: [n, C], probabilities.
        labels: [n], 0..C-1.
        bins: uniform bins of [0, 1], 1 or more.

    Returns:
        `positives`, `negatives`, `score_sums`, float64 [C + 2, bins] each, and `confusion`, float64 [C, C].
    """
    table = ClassTable(scores=scores, labels=np.asarray(labels))
    parts = [*(table.one_vs_rest(c) for c in range(table.classes)), table.decision()]
    rows = [histogram(part.scores, part.positives, bins) for part in parts]
    rows.append(histogram(table.squared_errors.clip(0.0, 2.0) / 2.0, np.ones(len(table)), bins))
    stacked = {name: np.stack([row[name] for row in rows]) for name in ("positives", "negatives", "score_sums")}
    return {**stacked, "confusion": table.confusion()}

"""Metrics of tables under resampling: the estimate, and a value a resample.

Rows are drawn within each site, so the sites and their sizes are held fixed. A histogram stands for its records: the draw
is multinomial over its cells (bin, class). A site's resamples come from the stream (seed, "bootstrap", site), so two models
scored on the same rows meet the same resamples.

Everywhere here `values` is float64 [metrics, 1 + resamples]: the estimate, then the resamples; NaN where undefined. Its
rows are those of `names`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from wardround.streams import generator
from wardround.training import curves, multilabel, tables
from wardround.training.class_tables import ClassSums, ClassTable
from wardround.training.label_tables import LabelSums, LabelTable, cuts
from wardround.training.metrics import METRICS, Floats, ScoreTable, measure_weightings
from wardround.training.multiclass import CLASS_METRICS, OVERALL, Values, measure_rows, measure_sums
from wardround.training.multilabel import LABEL_METRICS
from wardround.training.tables import Cut, Table, single

_CELLS = 1_000_000
"""Resamples x rows held at once: the working set is some ten such float64 arrays, whatever the number of rows."""


def names(table: Table) -> tuple[str, ...]:
    """The metrics of all classes together, in the order of `values`; those of each class stand below them."""
    if isinstance(table, LabelTable | LabelSums):
        return LABEL_METRICS
    return METRICS if isinstance(table, ScoreTable) else OVERALL


def pooled(
    given: Mapping[str, Table], thresholds: Mapping[str, Cut], resamples: int, seed: int
) -> tuple[Table, Floats]:
    """The rows of all sites in one table, and its values."""
    merged = tables.merge(given.values())
    if isinstance(merged, ScoreTable):
        own = np.repeat([single(cut) for cut in thresholds.values()], [len(table) for table in given.values()])
        return merged, _binary(merged, own, _binary_draws(given, resamples, seed))
    if isinstance(merged, ClassTable):
        return merged, _exact(merged, _row_draws(given, resamples, seed))
    if isinstance(merged, LabelTable):
        each = [cuts(cut, merged.classes) for cut in thresholds.values()]
        chosen = np.repeat(each, [len(table) for table in given.values()], axis=0)
        return merged, _labelled(merged, chosen, resamples, _row_draws(given, resamples, seed))
    if isinstance(merged, LabelSums):
        return merged, _labels_summed(merged, cuts(next(iter(thresholds.values())), merged.classes), resamples, seed)
    return merged, _summed(merged, resamples, seed)


def by_site(
    given: Mapping[str, Table], thresholds: Mapping[str, Cut], resamples: int, seed: int
) -> Iterator[tuple[str, Floats]]:
    """Site by site, its name and values.

    Sites are drawn here once more, rather than kept from the pooled pass: ten thousand sites' values fill no memory.
    """
    for site, table in given.items():
        yield site, pooled({site: table}, {site: thresholds[site]}, resamples, seed)[1]


def bands(given: Mapping[str, Table], resamples: int, seed: int) -> dict[str, dict[str, list[float]]]:
    """Bands round the pooled curves of two classes, see `curves.bands`; {} for more classes, and without resamples."""
    merged = tables.merge(given.values())
    return curves.bands(merged.scores, _binary_draws(given, resamples, seed)) if isinstance(merged, ScoreTable) else {}


def _binary(table: ScoreTable, threshold: Floats, draws: Iterator[tuple[Floats, Floats]]) -> Floats:
    blocks = [measure_weightings(table.scores, table.positives[None], table.negatives[None], threshold)]
    blocks += [measure_weightings(table.scores, p, n, threshold) for p, n in draws]
    return np.concatenate([np.stack([block[name] for name in METRICS]) for block in blocks], axis=1)


def _exact(table: ClassTable, draws: Iterator[Floats]) -> Floats:
    blocks = [tables.values_once(table), *(measure_rows(table, weights) for weights in draws)]
    return np.concatenate([_stacked(block) for block in blocks], axis=1)


def _labelled(table: LabelTable, thresholds: Floats, resamples: int, draws: Iterator[Floats]) -> Floats:
    if not len(table):
        return _stacked(multilabel.undefined(table.classes, 1 + resamples), LABEL_METRICS)
    blocks = [multilabel.measure_rows(table, np.ones((1, len(table))), thresholds)]
    blocks += [multilabel.measure_rows(table, weights, thresholds) for weights in draws]
    return np.concatenate([_stacked(block, LABEL_METRICS) for block in blocks], axis=1)


def _stacked(values: Values, names: Sequence[str] = OVERALL) -> Floats:
    overall, by_class = values
    return np.concatenate([np.stack([overall[name] for name in names]), by_class.reshape(-1, by_class.shape[-1])])


def by_class(table: Table, values: Floats) -> Floats:
    """The values of each class against the rest, or of each label, [C, metrics, 1 + resamples]."""
    below = values[len(names(table)) :]
    return below.reshape(-1, len(CLASS_METRICS), below.shape[-1])


class _Resampler:
    """One table's resamples, in order: whatever the sizes of the blocks, the draws are the same."""

    def __init__(self, counts: Floats, *stream: str | int) -> None:
        self._cells = np.flatnonzero(counts)
        self._width = len(counts)
        total = counts.sum()
        self._records = max(1, round(total))
        self._probabilities = counts[self._cells] / total if total else counts[self._cells]
        self._generator = generator(*stream)

    def draw(self, count: int) -> Floats:
        """Counts of the cells, [count, cells]."""
        weights = np.zeros((count, self._width))
        if len(self._cells):
            weights[:, self._cells] = self._generator.multinomial(self._records, self._probabilities, size=count)
        return weights


def _of(table: ScoreTable, *stream: str | int) -> _Resampler:
    return _Resampler(np.stack([table.positives, table.negatives], axis=1).ravel(), *stream)


def _blocks(rows: int, resamples: int) -> Iterator[int]:
    size = max(1, _CELLS // max(1, rows))
    for first in range(0, resamples, size):
        yield min(size, resamples - first)


def _binary_draws(given: Mapping[str, Table], resamples: int, seed: int) -> Iterator[tuple[Floats, Floats]]:
    """Blocks of positives and negatives, [block, n] each."""
    resamplers = [_of(t, seed, "bootstrap", site) for site, t in given.items() if isinstance(t, ScoreTable)]
    for count in _blocks(sum(len(table) for table in given.values()), resamples) if resamplers else ():
        drawn = np.concatenate([resampler.draw(count) for resampler in resamplers], axis=1)
        yield drawn[:, 0::2], drawn[:, 1::2]


def _row_draws(given: Mapping[str, Table], resamples: int, seed: int) -> Iterator[Floats]:
    """Blocks of weights of the rows, [block, n]."""
    resamplers = [_Resampler(np.ones(len(table)), seed, "bootstrap", site) for site, table in given.items()]
    for count in _blocks(sum(len(table) for table in given.values()), resamples):
        yield np.concatenate([resampler.draw(count) for resampler in resamplers], axis=1)


def _summed(sums: ClassSums, resamples: int, seed: int) -> Floats:
    """Each part of the sums is drawn by itself, all resamples at once: a histogram has few cells."""
    estimate = _stacked(tables.values_once(sums))
    if not resamples:
        return estimate
    pairs = []
    for place, part in enumerate(sums.parts):
        drawn = _of(part, seed, "bootstrap", "sums", place).draw(resamples)
        pairs.append((drawn[:, 0::2], drawn[:, 1::2]))
    cells = _Resampler(sums.matrix.ravel(), seed, "bootstrap", "confusion").draw(resamples)
    found = _stacked(measure_sums(sums, cells.reshape(-1, *sums.matrix.shape), pairs))
    return np.concatenate([estimate, found], axis=1)


def _labels_summed(sums: LabelSums, thresholds: Floats, resamples: int, seed: int) -> Floats:
    """As `_summed`: each label is drawn by itself."""
    if not len(sums):
        return _stacked(multilabel.undefined(sums.classes, 1 + resamples), LABEL_METRICS)
    pairs, rows = [], len(sums)
    for place, part in enumerate(sums.tables):
        drawn = _of(part, seed, "bootstrap", "sums", place).draw(resamples)
        pairs.append(
            (
                np.concatenate([part.positives[None], drawn[:, 0::2]]),
                np.concatenate([part.negatives[None], drawn[:, 1::2]]),
            )
        )
    exact = np.full(resamples, np.nan)  # of a constant decision nothing is known
    if not np.isnan(sums.exact):
        exact = _Resampler(np.array([sums.exact, rows - sums.exact]), seed, "bootstrap", "exact").draw(resamples)[:, 0]
    once = [(positives[:1], negatives[:1]) for positives, negatives in pairs]
    again = [(positives[1:], negatives[1:]) for positives, negatives in pairs]
    blocks = [multilabel.measure_sums(sums, once, np.array([sums.exact]), thresholds)]
    if resamples:
        blocks.append(multilabel.measure_sums(sums, again, exact, thresholds))
    return np.concatenate([_stacked(block, LABEL_METRICS) for block in blocks], axis=1)

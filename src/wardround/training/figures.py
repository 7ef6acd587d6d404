"""The figures of a run: metrics pooled, averaged over sites and by site, with bootstrap intervals.

Intervals are 95 % percentile intervals (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13) over
resamples of the patients' rows. Rows are drawn within each site, so the sites and their sizes are held fixed: the
interval speaks of other patients of these hospitals, not of other hospitals. A histogram stands for its records: the
draw is multinomial over its cells (bin, class). Resampling biases ece upwards, and its interval is shifted so.

A site's resamples come from the stream (seed, "bootstrap", site), so two models scored on the same rows meet the same
resamples, and the difference of their figures is a paired one. scikit-learn has no such thing; see `metrics`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypedDict

import numpy as np

from wardround.errors import ConfigError, DataError
from wardround.streams import generator
from wardround.training.metrics import METRICS, Floats, ScoreTable, check_threshold, measure_weightings

Threshold = float | Mapping[str, float]
"""A decision threshold for all sites, or one a site."""

MAJORITY_METRICS = ("accuracy", "balanced_accuracy", "sensitivity", "specificity", "f1", "kappa")
"""What can be said of a constant decision: it has no ranking and no calibration."""

_CELLS = 1_000_000
"""Resamples x rows held at once: the working set is some ten such float64 arrays, whatever the number of rows."""

_QUANTILES = (0.025, 0.975)


class Figures(TypedDict):
    """Metric -> value, `<metric>_low` and `<metric>_high` -> ends of its interval. What is undefined is absent.

    Attributes:
        pooled: of the rows of all sites together.
        site_mean: the unweighted mean over the sites in which the metric is defined.
        sites: by site; empty where figures by site are not wanted.
    """

    pooled: dict[str, float]
    site_mean: dict[str, float]
    sites: dict[str, dict[str, float]]


def figures(
    tables: Mapping[str, ScoreTable], threshold: Threshold, resamples: int, *, seed: int, per_site: bool = True
) -> Figures:
    """All metrics of one model on the sites' rows.

    An interval is absent where fewer than half of the resamples define the metric, and with 0 resamples. The
    site mean runs over the sites that define the metric, and a resample in which one of them no longer does gives none.

    Args:
        tables: site -> its rows; a site without records has no figures.
        threshold: for all sites, or site -> its own; pooled decisions are taken at the site's own threshold.
        resamples: bootstrap resamples, 0 or more; 0 gives no intervals.
        seed: of the resamples.
        per_site: False leaves `sites` empty.

    Raises:
        ConfigError: a negative number of resamples.
        DataError: a site without a threshold, or with one that is not finite.
    """
    thresholds = _thresholds(tables, threshold)
    _check_resamples(resamples)
    return _summary(
        _pooled(tables, thresholds, resamples, seed), _by_site(tables, thresholds, resamples, seed), per_site=per_site
    )


def gain(
    model: Mapping[str, ScoreTable],
    other: Mapping[str, ScoreTable],
    threshold: Threshold,
    other_threshold: Threshold,
    resamples: int,
    *,
    seed: int,
    per_site: bool = True,
) -> Figures:
    """Paired differences, model minus other, in every metric that both define.

    Both are resampled alike, so an interval is that of the difference on the same patients. `site_mean` is the mean of
    the sites' differences. For brier and ece, less is better.

    Args:
        model: site -> its rows under the one model.
        other: site -> the same rows in the same order under the other.
        threshold: of `model`, for all sites or site -> its own.
        other_threshold: of `other`.
        resamples: 0 or more.
        seed: of the resamples; that of `figures` gives the same ones.
        per_site: False leaves `sites` empty.

    Raises:
        ConfigError: a negative number of resamples.
        DataError: other sites, another number of rows at a site, or other outcomes in its rows; histograms of two
            models differ in these, for they do not say which record is which. Or a threshold that is absent or not
            finite.
    """
    _check_resamples(resamples)
    _check_paired(model, other)
    aligned = {site: other[site] for site in model}
    mine, theirs = _thresholds(model, threshold), _thresholds(aligned, other_threshold)
    pooled = _pooled(model, mine, resamples, seed) - _pooled(aligned, theirs, resamples, seed)
    sites = (
        (site, values - against)
        for (site, values), (_, against) in zip(
            _by_site(model, mine, resamples, seed), _by_site(aligned, theirs, resamples, seed), strict=True
        )
    )
    return _summary(pooled, sites, per_site=per_site)


def majority(
    train_positives: Mapping[str, float],
    train_negatives: Mapping[str, float],
    tables: Mapping[str, ScoreTable],
    resamples: int = 0,
    *,
    seed: int = 0,
    per_site: bool = True,
) -> Figures:
    """The floor: at each site, always predict the class that most of its training rows have (negative if equally many).

    Only `MAJORITY_METRICS` are given.

    Args:
        train_positives: site -> count of positive training rows.
        train_negatives: site -> count of negative training rows.
        tables: site -> the rows to predict; their scores are not read.
        resamples: 0 or more.
        seed: of the resamples; that of `figures` gives the same ones.
        per_site: False leaves `sites` empty.

    Raises:
        ConfigError: a negative number of resamples.
        DataError: a site without training counts.
    """
    _check_resamples(resamples)
    constant: dict[str, ScoreTable] = {}
    for site, table in tables.items():
        if site not in train_positives or site not in train_negatives:
            raise DataError(
                f"site {site!r} has rows to predict but no training counts; give its positives and negatives"
            )
        decision = 1.0 if train_positives[site] > train_negatives[site] else 0.0
        constant[site] = ScoreTable(
            scores=np.full(len(table), decision), positives=table.positives, negatives=table.negatives
        )
    thresholds = _thresholds(constant, 0.5)
    return _summary(
        _pooled(constant, thresholds, resamples, seed),
        _by_site(constant, thresholds, resamples, seed),
        per_site=per_site,
        given=MAJORITY_METRICS,
    )


# From here on, `values` is float64 [metrics, 1 + resamples]: the estimate, then the resamples; NaN where undefined.


class _Resampler:
    """One site's resamples, in order: whatever the sizes of the blocks, the draws are the same."""

    def __init__(self, site: str, table: ScoreTable, seed: int) -> None:
        counts = np.stack([table.positives, table.negatives], axis=1).ravel()
        self._cells = np.flatnonzero(counts)
        self._width = len(counts)
        total = counts.sum()
        self._records = max(1, round(total))
        self._probabilities = counts[self._cells] / total if total else counts[self._cells]
        self._generator = generator(seed, "bootstrap", site)

    def draw(self, count: int) -> tuple[Floats, Floats]:
        """Positives and negatives, [count, n] each."""
        weights = np.zeros((count, self._width))
        if len(self._cells):
            weights[:, self._cells] = self._generator.multinomial(self._records, self._probabilities, size=count)
        return weights[:, 0::2], weights[:, 1::2]


def _pooled(tables: Mapping[str, ScoreTable], thresholds: Mapping[str, float], resamples: int, seed: int) -> Floats:
    merged = ScoreTable.merge(tables.values())
    own = np.repeat(list(thresholds.values()), [len(table) for table in tables.values()])
    resamplers = [_Resampler(site, table, seed) for site, table in tables.items()]
    return _values(merged, own, resamplers, resamples)


def _by_site(
    tables: Mapping[str, ScoreTable], thresholds: Mapping[str, float], resamples: int, seed: int
) -> Iterator[tuple[str, Floats]]:
    # Sites are drawn here once more, rather than kept from the pooled pass: ten thousand sites' values fill no memory.
    for site, table in tables.items():
        yield site, _values(table, thresholds[site], [_Resampler(site, table, seed)], resamples)


def _values(table: ScoreTable, threshold: float | Floats, resamplers: Sequence[_Resampler], resamples: int) -> Floats:
    blocks = [_stack(measure_weightings(table.scores, table.positives[None], table.negatives[None], threshold))]
    size = max(1, _CELLS // max(1, len(table)))
    for first in range(0, resamples, size):
        draws = [resampler.draw(min(size, resamples - first)) for resampler in resamplers]
        if draws:
            positives = np.concatenate([drawn for drawn, _ in draws], axis=1)
            negatives = np.concatenate([drawn for _, drawn in draws], axis=1)
            blocks.append(_stack(measure_weightings(table.scores, positives, negatives, threshold)))
    return np.concatenate(blocks, axis=1)


def _stack(values: Mapping[str, Floats]) -> Floats:
    return np.stack([values[name] for name in METRICS])


def _summary(
    pooled: Floats, sites: Iterable[tuple[str, Floats]], *, per_site: bool, given: Sequence[str] = METRICS
) -> Figures:
    total, defined = np.zeros_like(pooled), np.zeros_like(pooled)
    described: dict[str, dict[str, float]] = {}
    for site, values in sites:
        present = ~np.isnan(values)
        total += np.where(present, values, 0.0)
        defined += present
        if per_site:
            described[site] = _describe(values, given)
    mean = np.divide(total, defined, out=np.full_like(total, np.nan), where=defined > 0)
    # a resample that loses a site's figure would be the mean of other sites than the estimate is
    mean[defined < defined[:, :1]] = np.nan
    return Figures(pooled=_describe(pooled, given), site_mean=_describe(mean, given), sites=described)


def _describe(values: Floats, given: Sequence[str]) -> dict[str, float]:
    described: dict[str, float] = {}
    for name, (estimate, *_), draws in zip(METRICS, values, values[:, 1:], strict=True):
        if name not in given or np.isnan(estimate):
            continue
        described[name] = float(estimate)
        defined = draws[~np.isnan(draws)]
        if len(draws) and 2 * len(defined) >= len(draws):
            low, high = np.quantile(defined, _QUANTILES)
            described[f"{name}_low"], described[f"{name}_high"] = float(low), float(high)
    return described


def _thresholds(tables: Mapping[str, ScoreTable], threshold: Threshold) -> dict[str, float]:
    if not isinstance(threshold, Mapping):
        return dict.fromkeys(tables, check_threshold(threshold))
    absent = [site for site in tables if site not in threshold]
    if absent:
        raise DataError(f"site {absent[0]!r} has rows but no threshold; give one a site, or a single number for all")
    return {site: check_threshold(threshold[site]) for site in tables}


def _check_resamples(resamples: int) -> None:
    if resamples < 0:
        raise ConfigError(f"resamples is {resamples}; expected 0 (no intervals) or more")


def _check_paired(model: Mapping[str, ScoreTable], other: Mapping[str, ScoreTable]) -> None:
    if set(model) != set(other):
        raise DataError(
            f"sites {sorted(set(model) ^ set(other))} are in one of the two models only; score both on the same sites"
        )
    for site, table in model.items():
        against = other[site]
        if len(table) != len(against):
            raise DataError(
                f"site {site!r} has {len(table)} rows under one model and {len(against)} under the other; a paired "
                "difference needs the same rows in the same order (histograms have none: compare figures instead)"
            )
        if not (
            np.array_equal(table.positives, against.positives) and np.array_equal(table.negatives, against.negatives)
        ):
            raise DataError(
                f"site {site!r} has other outcomes under one model than under the other; a paired difference needs the "
                "same rows in the same order (histograms have none: compare figures instead)"
            )

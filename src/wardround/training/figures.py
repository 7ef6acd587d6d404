"""The figures of a run: metrics pooled, averaged over sites and by site, with bootstrap intervals.

Intervals are 95 % percentile intervals (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13) over
resamples of the patients' rows. Rows are drawn within each site, so the sites and their sizes are held fixed: the
interval speaks of other patients of these hospitals, not of other hospitals. Resampling biases ece upwards, and its
interval is shifted so.

Two models scored on the same rows meet the same resamples, and the difference of their figures is a paired one.
scikit-learn has no such thing; see `metrics`, `multiclass` and `bootstrap`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NotRequired, TypedDict

import numpy as np
from numpy.typing import NDArray

from wardround.errors import ConfigError, DataError
from wardround.training import bootstrap
from wardround.training.class_tables import ClassSums, ClassTable
from wardround.training.label_tables import LabelSums, LabelTable
from wardround.training.metrics import Floats, ScoreTable, check_threshold
from wardround.training.multiclass import CLASS_METRICS
from wardround.training.tables import Cut, Table

Threshold = Cut | Mapping[str, Cut]
"""A decision threshold for all sites, or one a site. More than two classes need none, and it is not read."""

MAJORITY_METRICS = ("accuracy", "balanced_accuracy", "sensitivity", "specificity", "f1", "kappa")
"""What can be said of a constant decision: it has no ranking and no calibration."""

_QUANTILES = (0.025, 0.975)


class Figures(TypedDict):
    """Metric -> value, `<metric>_low` and `<metric>_high` -> ends of its interval. What is undefined is absent.

    Attributes:
        pooled: of the rows of all sites together.
        site_mean: the unweighted mean over the sites in which the metric is defined.
        sites: by site; empty where figures by site are not wanted.
        classes: of the rows of all sites together, each class against the rest, or each label, in label order; absent for two
            classes.
    """

    pooled: dict[str, float]
    site_mean: dict[str, float]
    sites: dict[str, dict[str, float]]
    classes: NotRequired[list[dict[str, float]]]


def figures(
    tables: Mapping[str, Table], threshold: Threshold, resamples: int, *, seed: int, per_site: bool = True
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
    table, pooled = bootstrap.pooled(tables, thresholds, resamples, seed)
    return _summary(table, pooled, bootstrap.by_site(tables, thresholds, resamples, seed), per_site=per_site)


def gain(
    model: Mapping[str, Table],
    other: Mapping[str, Table],
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
    table, pooled = bootstrap.pooled(model, mine, resamples, seed)
    _, against = bootstrap.pooled(aligned, theirs, resamples, seed)
    sites = (
        (site, values - others)
        for (site, values), (_, others) in zip(
            bootstrap.by_site(model, mine, resamples, seed),
            bootstrap.by_site(aligned, theirs, resamples, seed),
            strict=True,
        )
    )
    return _summary(table, pooled - against, sites, per_site=per_site)


def majority(
    training: Mapping[str, Sequence[float] | Sequence[Sequence[float]]],
    tables: Mapping[str, Table],
    resamples: int = 0,
    *,
    seed: int = 0,
    per_site: bool = True,
) -> Figures:
    """The floor: at each site, always predict the class that most of its training rows have (of equals, the first).

    Only `MAJORITY_METRICS` are given, and of labels the subset accuracy.

    Args:
        training: site -> training rows of each class, in label order; of a multi-label dataset, rows without and with each
            label, [L, 2].
        tables: site -> the rows to predict; their scores are not read.
        resamples: 0 or more.
        seed: of the resamples; that of `figures` gives the same ones.
        per_site: False leaves `sites` empty.

    Raises:
        ConfigError: a negative number of resamples.
        DataError: a site without training counts.
    """
    _check_resamples(resamples)
    constant: dict[str, Table] = {}
    for site, table in tables.items():
        if site not in training:
            raise DataError(f"site {site!r} has rows to predict but no training counts; give its rows of each class")
        constant[site] = _constant(table, np.argmax(training[site], axis=-1))
    thresholds = _thresholds(constant, 0.5)
    whole, pooled = bootstrap.pooled(constant, thresholds, resamples, seed)
    sites = bootstrap.by_site(constant, thresholds, resamples, seed)
    return _summary(whole, pooled, sites, per_site=per_site, given=(*MAJORITY_METRICS, "subset_accuracy"))


def _constant(table: Table, label: np.int64 | NDArray[np.int64]) -> Table:
    """The same rows, all called `label`; of a multi-label dataset, with and without each label as [L] says."""
    if isinstance(table, LabelTable):
        return LabelTable(scores=np.tile(np.asarray(label, dtype=np.float64), (len(table), 1)), labels=table.labels)
    if isinstance(table, LabelSums):
        merged = zip(table.tables, np.atleast_1d(label), strict=True)
        constant = tuple(
            ScoreTable(scores=np.full(len(part), float(called)), positives=part.positives, negatives=part.negatives)
            for part, called in merged
        )
        return LabelSums(tables=constant, exact=float("nan"))
    if isinstance(table, ScoreTable):
        scores = np.full(len(table), float(label))
        return ScoreTable(scores=scores, positives=table.positives, negatives=table.negatives)
    if isinstance(table, ClassTable):
        return ClassTable(scores=np.tile(np.eye(table.classes)[label], (len(table), 1)), labels=table.labels)
    matrix = np.zeros_like(table.matrix)
    matrix[:, label] = table.class_counts
    nothing = ScoreTable.merge([])
    return ClassSums(tables=(nothing,) * table.classes, right=nothing, squares=nothing, matrix=matrix)


def _summary(
    table: Table,
    pooled: Floats,
    sites: Iterable[tuple[str, Floats]],
    *,
    per_site: bool,
    given: Sequence[str] | None = None,
) -> Figures:
    names = bootstrap.names(table)
    given = names if given is None else given
    total, defined = (np.zeros((len(names), pooled.shape[1])) for _ in range(2))
    described: dict[str, dict[str, float]] = {}
    for site, found in sites:
        values = found[: len(names)]
        present = ~np.isnan(values)
        total += np.where(present, values, 0.0)
        defined += present
        if per_site:
            described[site] = _describe(names, values, given)
    mean = np.divide(total, defined, out=np.full_like(total, np.nan), where=defined > 0)
    # a resample that loses a site's figure would be the mean of other sites than the estimate is
    mean[defined < defined[:, :1]] = np.nan
    whole = Figures(pooled=_describe(names, pooled, given), site_mean=_describe(names, mean, given), sites=described)
    if not isinstance(table, ScoreTable) and given is names:
        whole["classes"] = [_describe(CLASS_METRICS, one, CLASS_METRICS) for one in bootstrap.by_class(table, pooled)]
    return whole


def _describe(names: Sequence[str], values: Floats, given: Sequence[str]) -> dict[str, float]:
    described: dict[str, float] = {}
    for name, (estimate, *_), draws in zip(names, values, values[:, 1:], strict=False):
        if name not in given or np.isnan(estimate):
            continue
        described[name] = float(estimate)
        defined = draws[~np.isnan(draws)]
        if len(draws) and 2 * len(defined) >= len(draws):
            low, high = np.quantile(defined, _QUANTILES)
            described[f"{name}_low"], described[f"{name}_high"] = float(low), float(high)
    return described


def _thresholds(tables: Mapping[str, Table], threshold: Threshold) -> dict[str, Cut]:
    if not isinstance(threshold, Mapping):
        return dict.fromkeys(tables, _checked(threshold))
    absent = [site for site in tables if site not in threshold]
    if absent:
        raise DataError(f"site {absent[0]!r} has rows but no threshold; give one a site, or a single number for all")
    return {site: _checked(threshold[site]) for site in tables}


def _checked(cut: Cut) -> Cut:
    return tuple(map(check_threshold, cut)) if isinstance(cut, tuple) else check_threshold(cut)


def _check_resamples(resamples: int) -> None:
    if resamples < 0:
        raise ConfigError(f"resamples is {resamples}; expected 0 (no intervals) or more")


def _check_paired(model: Mapping[str, Table], other: Mapping[str, Table]) -> None:
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
        if not _same_outcomes(table, against):
            raise DataError(
                f"site {site!r} has other outcomes under one model than under the other; a paired difference needs the "
                "same rows in the same order (histograms have none: compare figures instead)"
            )


def _same_outcomes(one: Table, other: Table) -> bool:
    if isinstance(one, ScoreTable) and isinstance(other, ScoreTable):
        return np.array_equal(one.positives, other.positives) and np.array_equal(one.negatives, other.negatives)
    if isinstance(one, LabelTable) and isinstance(other, LabelTable):
        return np.array_equal(one.labels, other.labels)
    return isinstance(one, ClassTable) and isinstance(other, ClassTable) and np.array_equal(one.labels, other.labels)

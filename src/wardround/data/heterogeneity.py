"""How much sites differ, in numbers that are 0 where patients were dealt at random.

Let site k hold n_k of N patients, w_k = n_k / N. A patient's rows share the weight of one. For a class, a level or a
threshold x, f_k and f are the fractions of patients (of that class, of that level, not above x) at site k and in the pool.

Label:   D_k = 1/2 sum_c |f_kc - f_c|, the total variation between a site's classes and the pool's. Then

             skew = (sum_k w_k D_k - E) / (1 - sum_c f_c^2 - E)

         where E is what sum_k w_k D_k would be on average had the same patients been dealt at random to sites of the same
         sizes, and 1 - sum_c f_c^2 is what it is where each site has a single class. So 0 is an IID deal, 1 the most.
Feature: a numeric column has W_k = integral |f_k(x) - f(x)| dx / s, the Wasserstein-1 distance in the pool's standard
         deviations s; a categorical one D_k / sqrt((1 - sum_l f_l^2) / 2), which for two levels is the same thing for their
         0/1 column. The skew of a column is sum_k w_k W_k minus what a random deal would give; that of the features is the
         mean over columns. A site whose column lies 1 s higher than elsewhere has W near 1.
Gaps:    the mean over columns of sum_k w_k |g_k - g| minus chance, for fractions of gaps g.
Size:    rows r_k: coefficient of variation, and the effective number of sites (sum r_k)^2 / sum r_k^2 (inverse Simpson).

Chance is exact: |X / n - R / N| of a hypergeometric X has a closed-form mean (Diaconis and Zabell, Closed form summation
for classical distributions, Statistical Science 6, 1991). Where patients have several rows, so that a patient counts as a
fraction, it is multiplied by the ratio of the deviations (the design effect), which is a close approximation.

Everything is a sum over sites: first counts, sums and squares (for s, w, f of classes and levels), then histograms over
100 bins within 4 s of the mean (for f(x)), then each site's distance, which it knows once the pool's figures are told to
it. A federation can thus compute all of it through its channel; no site's own figure is needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wardround.data.strata import strata
from wardround.types import Column, Description, Json, SiteData

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]
_BINS, _REACH = 100, 4.0
_ROUNDING = 1e-12
MANY_SITES, MANY_COLUMNS = 40, 30
"""Sites and columns up to which a site's own shifts are listed."""


@dataclass(frozen=True, kw_only=True)
class Distance:
    """A distance of sites from their pool, averaged over sites by their patients.

    Attributes:
        observed: as measured.
        chance: what a random deal of the same sizes would give on average.
    """

    observed: float
    chance: float

    @property
    def excess(self) -> float:
        """What is left without chance; it may be a little below 0."""
        return self.observed - self.chance


def measure(description: Description, sites: Mapping[str, SiteData]) -> dict[str, Json]:
    """The numbers, as `result.json` holds them under `heterogeneity`; figures without meaning are None.

    Args:
        description: the dataset: classes and columns. Arrays without columns are described by the mean and the deviation
            of each channel.
        sites: site -> records; sites without rows do not count. {} where none has any.
    """
    names = [site for site, data in sites.items() if len(data.labels)]
    if not names:
        return {}
    records = _Records.of([sites[site] for site in names])
    levels = len(description.classes) + description.multilabel
    columns, values = _columns(description, [sites[site].features for site in names])
    distances: dict[str, Distance] = {}
    shifts: dict[str, Floats] = {}
    gaps: list[Distance] = []
    for c, column in enumerate(columns):
        value = np.asarray(values[:, c], dtype=np.float64)
        gap = np.isnan(value)
        gaps.append(_of_levels(records, gap.astype(np.intp), 2)[0])
        measured = records.where(~gap)
        if column.kind == "numeric":
            distances[column.name] = _of_numbers(measured, value[~gap])
        else:
            distance, diversity = _of_levels(measured, value[~gap].astype(np.intp), len(column.levels))
            distances[column.name] = _scaled(distance, float(np.sqrt(diversity / 2.0)))
        if column.kind == "numeric" or len(column.levels) == 2:
            shifts[column.name] = _shift(measured, value[~gap])
    label, most = _of_levels(records, records.labels, levels)
    rows = np.bincount(records.owner, minlength=records.sites).astype(np.float64)
    room = most - label.chance
    return {
        "sites": records.sites,
        "patients": records.patients,
        "label": {
            "skew": label.excess / room if room > _ROUNDING else None,
            "distance": label.observed,
            "chance": label.chance,
        },
        "quantity": {
            "cv": float(rows.std() / rows.mean()),
            "effective_sites": float(rows.sum() ** 2 / (rows**2).sum()),
        },
        "feature": _mean(list(distances.values()))
        | {"columns": {name: distance.excess for name, distance in distances.items()}},
        "gaps": _mean(gaps),
        "shifts": _listed(names, distances, shifts),
    }


@dataclass(frozen=True, kw_only=True)
class _Records:
    """Rows of all sites: owner and patient (numbered over all sites) and label (see `strata`) a row, int64 [R]."""

    owner: Ints
    patient: Ints
    labels: Ints
    sites: int

    @classmethod
    def of(cls, sites: Sequence[SiteData]) -> _Records:
        owner = np.repeat(np.arange(len(sites)), [len(data.labels) for data in sites])
        identifiers = [data.patients for data in sites]
        if len({array.dtype.kind for array in identifiers}) > 1:
            identifiers = [array.astype(np.str_) for array in identifiers]
        _, code = np.unique(np.concatenate(identifiers), return_inverse=True)
        code = code.reshape(-1)
        _, patient = np.unique(owner * (int(code.max()) + 1) + code, return_inverse=True)
        labels = strata(np.concatenate([data.labels for data in sites]))
        return cls(owner=owner, patient=patient.reshape(-1), labels=labels, sites=len(sites))

    @cached_property
    def patients(self) -> int:
        """How many there are among the rows."""
        return int(np.count_nonzero(np.bincount(self.patient))) if len(self.patient) else 0

    @cached_property
    def single(self) -> bool:
        """Whether each patient has one row."""
        return self.patients == len(self.patient)

    @cached_property
    def weights(self) -> Floats:
        """Of the rows, float64 [R]: those of a patient sum to 1."""
        if self.single:
            return np.ones(len(self.patient))
        weights: Floats = 1.0 / np.bincount(self.patient)[self.patient]
        return weights

    @cached_property
    def counts(self) -> Ints:
        """Patients of each site, int64 [K]."""
        summed = np.bincount(self.owner, weights=self.weights, minlength=self.sites)
        return np.rint(summed).astype(np.intp)

    def where(self, keep: NDArray[np.bool_]) -> _Records:
        """Some of the rows."""
        if keep.all():
            return self
        return replace(self, owner=self.owner[keep], patient=self.patient[keep], labels=self.labels[keep])


def _of_levels(records: _Records, level: Ints, levels: int) -> tuple[Distance, float]:
    """Total variation of the levels, and the pool's diversity 1 - sum_l f_l^2."""
    if not records.patients:
        return Distance(observed=0.0, chance=0.0), 0.0
    counts = _histogram(records, level, levels)
    pooled = counts.sum(axis=0) / records.patients
    diversity = float(1.0 - (pooled**2).sum())
    squares = counts.sum(axis=0)
    if not records.single:
        pairs, pair = np.unique(records.patient * levels + level, return_inverse=True)
        own = np.bincount(pair.reshape(-1), weights=records.weights)
        squares = np.bincount(pairs % levels, weights=own**2, minlength=levels)
    observed, chance = _deviation(counts, squares, records)
    return Distance(observed=0.5 * float(observed.sum()), chance=0.5 * float(chance.sum())), diversity


def _of_numbers(records: _Records, value: Floats) -> Distance:
    """Wasserstein-1 distance in pooled standard deviations."""
    if not records.patients:
        return Distance(observed=0.0, chance=0.0)
    mean, deviation = _moments(records, value)
    if deviation <= _ROUNDING * max(1.0, abs(mean)):
        return Distance(observed=0.0, chance=0.0)
    width = 2.0 * _REACH / _BINS
    place = np.clip((((value - mean) / deviation + _REACH) / width), 0, _BINS - 1).astype(np.intp)
    below = np.cumsum(_histogram(records, place, _BINS), axis=1)[:, :-1]
    squares = below.sum(axis=0)
    if not records.single:
        # of a patient's rows in order, the j-th is the larger one of 2 j + 1 pairs
        order = np.lexsort((place, records.patient))
        rows = np.bincount(records.patient)
        rank = np.arange(len(order)) - (np.cumsum(rows) - rows)[records.patient[order]]
        pairs = (2 * rank + 1) * records.weights[order] ** 2
        squares = np.cumsum(np.bincount(place[order], weights=pairs, minlength=_BINS))[:-1]
    observed, chance = _deviation(below, squares, records)
    return Distance(observed=width * float(observed.sum()), chance=width * float(chance.sum()))


def _histogram(records: _Records, place: Ints, places: int) -> Floats:
    """Patients of each site at each place, float64 [K, places]."""
    flat = np.bincount(records.owner * places + place, weights=records.weights, minlength=records.sites * places)
    counts = flat.astype(np.float64, copy=False)
    return counts.reshape(records.sites, places)


def _moments(records: _Records, value: Floats) -> tuple[float, float]:
    mean = float((records.weights * value).sum()) / records.patients
    return mean, float(np.sqrt((records.weights * (value - mean) ** 2).sum() / records.patients))


def _shift(records: _Records, value: Floats) -> Floats:
    """Each site's mean minus the pool's, in pooled standard deviations, float64 [K]; NaN where nothing is measured."""
    shift = np.full(records.sites, np.nan)
    if not records.patients:
        return shift
    mean, deviation = _moments(records, value)
    there = records.counts > 0
    summed = np.bincount(records.owner, weights=records.weights * (value - mean), minlength=records.sites)
    shift[there] = summed[there] / records.counts[there]
    return shift / deviation if deviation > _ROUNDING * max(1.0, abs(mean)) else np.where(there, 0.0, np.nan)


def _deviation(counts: Floats, squares: Floats, records: _Records) -> tuple[Floats, Floats]:
    """Mean over sites, by their patients, of |f_k - f|: as it is, and for a random deal, float64 [B] each.

    Args:
        counts: patients at each site and place, [K, B].
        squares: sum over patients of the square of their own fraction, [B]; it is their number where all fractions are 0
            and 1.
        records: the rows.
    """
    size, patients = records.counts, records.patients
    pooled = counts.sum(axis=0) / patients
    observed = np.abs(counts - size[:, None] * pooled).sum(axis=0) / patients
    sizes, times = np.unique(size[size > 0], return_counts=True)
    chance = (times * sizes) @ mean_absolute_deviation(sizes, np.rint(pooled * patients), patients) / patients
    if not records.single:
        whole = pooled * (1.0 - pooled)
        between = np.maximum(squares / patients - pooled**2, 0.0)
        chance = chance * np.sqrt(np.divide(between, whole, out=np.ones_like(whole), where=whole > _ROUNDING))
    return observed, chance


def mean_absolute_deviation(sizes: NDArray[Any], marked: NDArray[Any], total: int) -> Floats:
    """Mean of |X / n - R / N| for a hypergeometric X, float64 [U, B].

    With m the least whole number above n R / N it is 2 m (N - R - n + m) P(X = m) / (n N).

    Args:
        sizes: draws n, whole, 1..total, [U].
        marked: marked R among all, whole, 0..total, [B].
        total: N.
    """
    from scipy.special import gammaln

    n, r = sizes.astype(np.float64)[:, None], marked.astype(np.float64)[None, :]
    least = np.floor(n * r / total) + 1.0
    others = total - r - n + least
    possible = (least <= r) & (least <= n) & (others > 0)
    m, left = np.where(possible, least, 0.0), np.where(possible, others, 1.0)
    # parts that are negative belong to places that are not possible
    parts = [np.maximum(part, 0.0) for part in (m, r - m, n - m, left)]
    logarithm = (
        gammaln(r + 1) + gammaln(total - r + 1) + gammaln(n + 1) + gammaln(total - n + 1) - gammaln(total + 1)
        - sum(gammaln(part + 1) for part in parts)
    )  # fmt: skip
    mean: Floats = np.where(possible, 2.0 * m * left * np.exp(np.where(possible, logarithm, 0.0)) / (n * total), 0.0)
    return mean


def _scaled(distance: Distance, unit: float) -> Distance:
    if unit <= _ROUNDING:
        return Distance(observed=0.0, chance=0.0)
    return Distance(observed=distance.observed / unit, chance=distance.chance / unit)


def _mean(distances: Sequence[Distance]) -> dict[str, Json]:
    if not distances:
        return {"skew": None, "distance": None, "chance": None}
    observed, chance = (float(np.mean([getattr(d, name) for d in distances])) for name in ("observed", "chance"))
    return {"skew": observed - chance, "distance": observed, "chance": chance}


def _listed(names: Sequence[str], distances: Mapping[str, Distance], shifts: Mapping[str, Floats]) -> dict[str, Json]:
    """Column -> site -> shift, the columns that differ most first; {} where there are too many sites to read."""
    if len(names) > MANY_SITES:
        return {}
    chosen = sorted(shifts, key=lambda name: -distances[name].excess)[:MANY_COLUMNS]
    return {
        column: {
            site: float(value) if np.isfinite(value) else None
            for site, value in zip(names, shifts[column], strict=True)
        }
        for column in chosen
    }


def _columns(
    description: Description, features: Sequence[NDArray[np.floating[Any]]]
) -> tuple[tuple[Column, ...], NDArray[np.floating[Any]]]:
    """Columns, and their values [R, C]; pictures become the mean and the deviation of each channel."""
    if description.columns:
        return description.columns, np.concatenate(features)
    channels = description.shape[0] if len(description.shape) == 3 else 1
    summary = []
    for rows in features:
        view = rows.reshape(len(rows), channels, -1)
        mean, deviation = (figure(axis=2, dtype=np.float64) for figure in (view.mean, view.std))
        summary.append(np.concatenate([mean, deviation], axis=1))
    names = [
        f"{what} of channel {c}" if channels > 1 else what for what in ("mean", "deviation") for c in range(channels)
    ]
    return tuple(Column(name=name) for name in names), np.concatenate(summary)

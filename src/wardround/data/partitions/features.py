"""Feature skew: what makes sites' features differ although patients were dealt alike.

Of entry x in column (or channel) c at site k, the i-th of K in canonical order:

    x' = mean_c + exp(scale a_kc) (x - mean_c) + unit_c (shift b_kc + noise sqrt(i / K) e)

with a, b, e standard normal, a and b drawn once a site and column, e for each entry. Noise whose variance grows evenly over
the sites is that of Li et al., Federated learning on non-IID data silos (NIID-Bench), ICDE 2022, section IV-C; a column's
unit is its pooled standard deviation unless it is declared. Then entries go missing, completely at random: a fraction of
its own at each site, and whole columns at some.

Integers are rounded and stay in the range of their type, so that a pixel which is white already gets no whiter.

Every number is a function of (seed, site, place of the row at its site): removing a site changes no other's draws but for
the level of its noise and the columns that it does not measure, which depend on who is there.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from wardround.config.job import FeatureSkewSpec
from wardround.config.plugins import construct, resolve
from wardround.errors import ConfigError, DataError
from wardround.streams import Keys, generator, key, site_keys, uniform_bits
from wardround.types import Column, SiteData

Floats = NDArray[np.float64]
_BLOCK = 1 << 21
"""Entries drawn at once."""
EFFECTS = {"scanner": "wardround.data.partitions.scanner:Scanner"}
EVERY = "*"
"""In `units`: all other columns."""


class SiteEffect(Protocol):
    """What `partition.features.effect` names: a scanner, a laboratory's assay."""

    def apply(
        self, features: NDArray[Any], *, site: str, place: int, sites: int, rng: np.random.Generator
    ) -> NDArray[Any]:
        """The site's features [n, ...], changed, of the same shape; the argument is left as it is.

        Args:
            features: [n, columns] or [n, *shape], raw, possibly mapped from a file; of floating numbers NaN is a gap.
            site: its name.
            place: its place in canonical order, 0..sites-1.
            sites: number of sites.
            rng: drawn from the seed and the site's name.
        """
        ...


def skewed(
    sites: Mapping[str, SiteData], spec: FeatureSkewSpec, *, seed: int, columns: tuple[Column, ...]
) -> dict[str, SiteData]:
    """The sites with changed features; labels, patients and splits are as they were.

    Args:
        sites: site -> records, in canonical order.
        spec: what to change; the defaults change nothing.
        seed: the run's seed.
        columns: of a table, () for arrays: pictures [C, height, width] and volumes [C, depth, height, width] have a channel
            on their first axis, others are one.

    Raises:
        ConfigError: an unknown column or unit, gaps asked of arrays, a column for which nothing that is asked has a
            meaning, or a plug-in that cannot be made.
        DataError: sites whose rows have different shapes, or a plug-in that gives another shape.
    """
    _check(spec, columns)
    asked = spec.noise or spec.shift or spec.scale or spec.missing or spec.unmeasured
    if asked and any(len(data.labels) for data in sites.values()):
        sites = _apply(sites, spec, seed, columns)
    return dict(sites) if spec.effect is None else _with_effect(sites, spec, seed)


def _apply(
    sites: Mapping[str, SiteData], spec: FeatureSkewSpec, seed: int, columns: tuple[Column, ...]
) -> dict[str, SiteData]:
    shapes = sorted({data.features.shape[1:] for data in sites.values()})
    if len(shapes) > 1:
        raise DataError(f"sites have rows of different shapes {shapes}: partition.features cannot treat them alike")
    counts = np.array([len(data.labels) for data in sites.values()])
    features = np.concatenate([data.features for data in sites.values()])
    owner = np.repeat(np.arange(len(counts)), counts)
    place = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
    keys = site_keys(tuple(sites))
    # a row's own key: hashed before use, so neighbours are as unlike as any two
    rows = keys[owner] + place.astype(np.uint64)
    view = features.reshape(len(features), _channels(shapes[0], columns), -1)
    for c, name in _chosen(spec, columns, view.shape[1]):
        values = view[:, c]
        if _is_numeric(columns, c) and (spec.noise or spec.shift or spec.scale):
            _move(values, owner, rows, keys, spec, seed, name)
        if spec.missing:
            rate = spec.missing * _uniform(keys, key("partition", "missing fraction", seed), 1)[:, 0]
            values[_uniform(rows, key("partition", "missing", seed, name), 1) < rate[owner][:, None]] = np.nan
        if spec.unmeasured:
            values[_without(keys, spec.unmeasured, key("partition", "unmeasured", seed, name))[owner]] = np.nan
    parts = np.split(features, np.cumsum(counts)[:-1])
    return {site: replace(data, features=part) for (site, data), part in zip(sites.items(), parts, strict=True)}


def _move(
    values: NDArray[Any],
    owner: NDArray[np.intp],
    rows: Keys,
    keys: Keys,
    spec: FeatureSkewSpec,
    seed: int,
    name: str,
) -> None:
    """Stretch, shift and blur one column or channel, values [n, p] in place; gaps stay gaps."""
    mean, unit = _moments(values)
    unit = spec.units.get(name, spec.units.get(EVERY, unit))
    factor = np.exp(spec.scale * _normal(keys, key("partition", "scale", seed, name), 1)[:, 0])
    shift = unit * spec.shift * _normal(keys, key("partition", "shift", seed, name), 1)[:, 0]
    noise = unit * spec.noise * np.sqrt(np.arange(1, len(keys) + 1) / len(keys))
    purpose = key("partition", "noise", seed, name)
    for part in _blocks(*values.shape):
        of = owner[part]
        moved = values[part].astype(np.float64)
        if spec.scale:
            moved = mean + factor[of][:, None] * (moved - mean)
        moved += shift[of][:, None]
        if spec.noise:
            moved += noise[of][:, None] * _normal(rows[part], purpose, values.shape[1])
        if np.issubdtype(values.dtype, np.integer):
            limits = np.iinfo(values.dtype)
            moved = np.clip(np.rint(moved), limits.min, limits.max)
        values[part] = moved


def _moments(values: NDArray[Any]) -> tuple[float, float]:
    """Mean and standard deviation of what is measured; (0, 0) where nothing is."""
    count = total = squares = 0.0
    for part in _blocks(*values.shape):
        block = values[part].astype(np.float64)
        count, total = count + np.count_nonzero(~np.isnan(block)), total + float(np.nansum(block))
    mean = total / count if count else 0.0
    for part in _blocks(*values.shape):
        squares += float(np.nansum((values[part].astype(np.float64) - mean) ** 2))
    return mean, float(np.sqrt(squares / count)) if count else 0.0


def _without(keys: Keys, fraction: float, purpose: int) -> NDArray[np.bool_]:
    """The sites that do not measure a column, bool [K]: those of lowest rank, one at least measures it."""
    absent = min(int(np.floor(fraction * len(keys) + 0.5)), len(keys) - 1)
    flags = np.zeros(len(keys), dtype=np.bool_)
    flags[np.argsort(uniform_bits(keys, purpose, 1)[:, 0], kind="stable")[:absent]] = True
    return flags


def _with_effect(sites: Mapping[str, SiteData], spec: FeatureSkewSpec, seed: int) -> dict[str, SiteData]:
    where = "partition.features.effect"
    effect: SiteEffect = construct(resolve(str(spec.effect), EFFECTS, where), spec.options, where)
    changed = {}
    for place, (site, data) in enumerate(sites.items()):
        rng = generator("partition", "effect", seed, site)
        features = np.asarray(effect.apply(data.features, site=site, place=place, sites=len(sites), rng=rng))
        if features.shape != data.features.shape:
            raise DataError(
                f"{where} = {spec.effect}: features of site '{site}' became {features.shape}, expected "
                f"{data.features.shape}: keep their shape"
            )
        changed[site] = replace(data, features=features)
    return changed


def _check(spec: FeatureSkewSpec, columns: tuple[Column, ...]) -> None:
    known = [column.name for column in columns]
    if not columns:
        tables_only = [name for name in ("missing", "unmeasured", "columns") if getattr(spec, name)]
        if tables_only:
            raise ConfigError(
                f"partition.features.{tables_only[0]} is for the columns of a table, and this dataset has arrays: remove it"
            )
    for where, names in (("columns", spec.columns), ("units", tuple(spec.units))):
        for name in names:
            if name not in known and not (where == "units" and name == EVERY):
                close = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean '{close[0]}'? " if close else ""
                raise ConfigError(
                    f"partition.features.{where} names {name!r}: {hint}known: {', '.join(known) or EVERY}"
                )
    gaps = spec.missing or spec.unmeasured
    numeric = any(column.kind == "numeric" for column in columns if not spec.columns or column.name in spec.columns)
    if columns and not gaps and not numeric and (spec.noise or spec.shift or spec.scale):
        raise ConfigError(
            "partition.features: noise, shift and scale are for numeric columns, and none of those meant is one: name "
            "others in columns, or use missing"
        )


def _channels(shape: tuple[int, ...], columns: tuple[Column, ...]) -> int:
    return len(columns) if columns else shape[0] if len(shape) in (3, 4) else 1


def _chosen(spec: FeatureSkewSpec, columns: tuple[Column, ...], channels: int) -> list[tuple[int, str]]:
    """Place and name of each column or channel that is meant."""
    if not columns:
        return [(c, str(c)) for c in range(channels)]
    return [(c, column.name) for c, column in enumerate(columns) if not spec.columns or column.name in spec.columns]


def _is_numeric(columns: tuple[Column, ...], place: int) -> bool:
    return not columns or columns[place].kind == "numeric"


def _blocks(rows: int, width: int) -> Iterator[slice]:
    step = max(1, _BLOCK // max(width, 1))
    return (slice(start, start + step) for start in range(0, rows, step))


def _uniform(keys: Keys, purpose: int, count: int) -> Floats:
    """Uniform numbers inside (0, 1), float64 [len(keys), count]."""
    bits = uniform_bits(keys, purpose, count) >> np.uint64(11)
    numbers: Floats = (bits.astype(np.float64) + 0.5) * 2.0**-53
    return numbers


def _normal(keys: Keys, purpose: int, count: int) -> Floats:
    """Standard normal numbers, float64 [len(keys), count] (Box and Muller, 1958)."""
    half = (count + 1) // 2
    numbers = _uniform(keys, purpose, 2 * half)
    radius = np.sqrt(-2.0 * np.log(numbers[:, :half]))
    angle = 2.0 * np.pi * numbers[:, half:]
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1)[:, :count]

"""Preprocessing of clinical tables, fitted from additive statistics: what the sites add up is all that is needed.

Two passes. The first sums counts, values, gaps and levels; from its totals come the means. The second sums the squared
deviations from those means, which is stable where the one-pass difference of sums is not (T. Chan, G. Golub,
R. LeVeque: Algorithms for computing the sample variance, The American Statistician 1983).

Numeric columns: mean m = sum / count and population deviation s = sqrt(squares / count), over the entries present; a
gap becomes m; the feature is (x - m) / s. Categorical columns: a gap becomes the most frequent level; every level but
the first becomes a 0/1 feature with frequency p after imputation, standardised to (x - p) / sqrt(p (1 - p)).
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from wardround.config.job import PreprocessingSpec
from wardround.errors import ConfigError, DataError
from wardround.types import Column, Json

Statistics = dict[str, NDArray[np.float64]]
"""Named float64 arrays that add up over sites."""


def first_statistics(
    columns: Sequence[Column], features: NDArray[np.floating[Any]], keep: NDArray[np.bool_] | None = None
) -> Statistics:
    """What the means, the most frequent levels and the counts of gaps follow from.

    Args:
        columns: C raw columns.
        features: float array [n, C], NaN for gaps, level indices in categorical columns; n may be 0.
        keep: bool [n], the rows that count (those to train on); all where None.

    Returns:
        `count` [C] entries present, `missing` [C] gaps, `sum` [C] of the entries present (0 for categorical columns),
        `levels` [L] counts of every level of every categorical column, flattened in column order.

    Raises:
        DataError: the shape is not [n, C], a value is infinite, or a level index is out of range.
    """
    values = _checked(columns, features, keep)
    present = ~np.isnan(values)
    numeric = _numeric(columns)
    count = present.sum(axis=0, dtype=np.float64)
    total = np.where(present & numeric, values, 0.0).sum(axis=0)
    levels = [
        np.bincount(values[present[:, c], c].astype(np.int64), minlength=len(column.levels)).astype(np.float64)
        for c, column in enumerate(columns)
        if column.kind == "categorical"
    ]
    return {
        "count": count,
        "sum": total,
        "missing": len(values) - count,
        "levels": np.concatenate([np.zeros(0), *levels]),
    }


def column_means(first: Mapping[str, NDArray[np.floating[Any]]]) -> NDArray[np.float64]:
    """The mean of each numeric column from totals of `first_statistics`, float64 [C]; 0 where nothing is present."""
    count = np.rint(np.asarray(first["count"], dtype=np.float64))
    total = np.asarray(first["sum"], dtype=np.float64)
    return np.divide(total, count, out=np.zeros_like(total), where=count > 0)


def second_statistics(
    columns: Sequence[Column],
    features: NDArray[np.floating[Any]],
    mean: NDArray[np.floating[Any]],
    keep: NDArray[np.bool_] | None = None,
) -> Statistics:
    """`squares` [C]: the sum of (x - mean)^2 over the entries present of numeric columns, 0 for categorical ones.

    Args:
        columns: C raw columns.
        features: as in `first_statistics`.
        mean: float array [C], `column_means` of the totals over all sites.
        keep: as in `first_statistics`.

    Raises:
        DataError: as `first_statistics`, or `mean` is not [C].
    """
    values = _checked(columns, features, keep)
    if np.shape(mean) != (len(columns),):
        raise DataError(f"means of shape {np.shape(mean)} for {len(columns)} columns: expected one mean a column")
    deviation = np.where(~np.isnan(values) & _numeric(columns), values - mean, 0.0)
    return {"squares": np.square(deviation).sum(axis=0)}


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """A fitted map from raw columns to a model's features.

    Attributes:
        columns: the C raw columns.
        spec: the switches that it was fitted with.
        fill: what a gap becomes, one a column: a numeric column's mean, the index of a categorical column's most
            frequent level.
        gaps: whether the column had gaps in the rows it was fitted on, one a column; these get indicators if `spec`
            asks for them.
        mean, scale: what is subtracted from and divides each feature before the indicators; 0 and 1 where `spec` asks
            for no standardisation.
    """

    columns: tuple[Column, ...]
    spec: PreprocessingSpec
    fill: tuple[float, ...]
    gaps: tuple[bool, ...]
    mean: tuple[float, ...]
    scale: tuple[float, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the F features: `age`, `cp=2`, and `chol missing` for indicators, which come last."""
        return (*_feature_names(self.columns, self.spec), *(f"{c.name} missing" for _, c in self._indicated()))

    def transform(self, features: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Raw rows [n, C] to features, float64 [n, F] without NaN; n may be 0. Indicators stay 0 and 1.

        Raises:
            DataError: the shape is not [n, C], a value is infinite, a level index is out of range, or `spec.impute` is
                `none` and a column that is used has a gap.
        """
        values = _checked(self.columns, features, None)
        missing = np.isnan(values)
        if self.spec.impute == "none":
            _refuse_gaps(self.columns, self.spec, missing.sum(axis=0))
        indicators = [missing[:, c].astype(np.float64) for c, _ in self._indicated()]
        filled = np.where(missing, np.asarray(self.fill), values)
        design: list[NDArray[np.float64]] = []
        for c, column in _used(self.columns, self.spec):
            if column.kind == "numeric":
                design.append(filled[:, c])
            else:
                design += [(filled[:, c] == level).astype(np.float64) for level in range(1, len(column.levels))]
        standard = (np.stack(design, axis=1) - np.asarray(self.mean)) / np.asarray(self.scale)
        return np.concatenate([standard, *(indicator[:, None] for indicator in indicators)], axis=1)

    def to_json(self) -> dict[str, Json]:
        """Plain lists, strings and numbers; `from_json` gives back an equal object."""
        return {
            "columns": [
                {
                    "name": c.name,
                    "kind": c.kind,
                    "levels": list(c.levels),
                    "missing_codes": list(c.missing_codes),
                }
                for c in self.columns
            ],
            "spec": self.spec.model_dump(mode="json", exclude={"pictures"}),
            "fill": list(self.fill),
            "gaps": list(self.gaps),
            "mean": list(self.mean),
            "scale": list(self.scale),
        }

    @classmethod
    def from_json(cls, tree: Json) -> Preprocessing:
        """The inverse of `to_json`. Raises DataError where `tree` is not its output."""
        try:
            columns = tuple(
                Column(
                    name=str(c["name"]),
                    kind=_kind(c["kind"]),
                    levels=tuple(str(level) for level in c["levels"]),
                    missing_codes=tuple(float(code) for code in c["missing_codes"]),
                )
                for c in tree["columns"]
            )
            fitted = cls(
                columns=columns,
                spec=PreprocessingSpec.model_validate(tree["spec"]),
                fill=_floats(tree["fill"]),
                gaps=tuple(bool(gap) for gap in tree["gaps"]),
                mean=_floats(tree["mean"]),
                scale=_floats(tree["scale"]),
            )
            features = len(_feature_names(columns, fitted.spec))
        except (KeyError, TypeError, ValueError, ValidationError, ConfigError) as error:
            raise DataError(
                f"not a saved preprocessing: {type(error).__name__} {error}: fit and save it again"
            ) from error
        lengths = {
            "fill": (len(fitted.fill), len(columns)),
            "gaps": (len(fitted.gaps), len(columns)),
            "mean": (len(fitted.mean), features),
            "scale": (len(fitted.scale), features),
        }
        for name, (length, expected) in lengths.items():
            if length != expected:
                raise DataError(f"not a saved preprocessing: '{name}' holds {length} values, expected {expected}")
        return fitted

    def _indicated(self) -> list[tuple[int, Column]]:
        if not self.spec.indicators:
            return []
        return [(c, column) for c, column in _used(self.columns, self.spec) if self.gaps[c]]


def fit(
    columns: tuple[Column, ...],
    first: Mapping[str, NDArray[np.floating[Any]]],
    second: Mapping[str, NDArray[np.floating[Any]]],
    spec: PreprocessingSpec,
    *,
    gaps: Sequence[bool] | None = None,
) -> Preprocessing:
    """The preprocessing that follows from the totals of the two passes.

    The caller chooses whose totals: the federation's for `spec.standardize` `global`, a site's own for `site`. A
    numeric column without any entry is filled with 0, a categorical one with its first level; both standardise to 0. A
    feature that is constant up to rounding is divided by 1. Counts are rounded to whole numbers, since a secure sum may
    be off by the step of its fixed point.

    Args:
        columns: the C raw columns.
        first: totals of `first_statistics`.
        second: totals of `second_statistics`, for the means of `first`.
        spec: the switches.
        gaps: which columns get an indicator, [C]; those with gaps in `first` where None. A fit from one site's totals
            needs the federation's, so that all sites have the same features.

    Raises:
        ConfigError: `spec.drop` names an unknown column, or no feature is left.
        DataError: `spec.impute` is `none` and a column that is used has gaps, or totals do not fit the columns.
    """
    _check_drop(columns, spec)
    _check_totals(columns, first, second)
    if gaps is not None and len(gaps) != len(columns):
        raise DataError(f"{len(gaps)} gap flags for {len(columns)} columns: expected one a column")
    missing, count = np.rint(first["missing"]), np.rint(first["count"])
    levels = np.split(np.rint(first["levels"]), np.cumsum([len(_levels(column)) for column in columns])[:-1])
    if spec.impute == "none":
        _refuse_gaps(columns, spec, missing)

    fill = column_means(first)
    for c, column in enumerate(columns):
        if column.kind == "categorical":
            fill[c] = float(np.argmax(levels[c])) if len(levels[c]) else 0.0

    mean: list[float] = []
    scale: list[float] = []
    for c, column in _used(columns, spec):
        if column.kind == "numeric":
            mean.append(float(fill[c]))
            scale.append(_deviation(float(second["squares"][c]), float(count[c]), float(fill[c])))
        else:
            imputed = levels[c].copy()
            imputed[int(fill[c])] += missing[c]
            rows = imputed.sum()
            share = imputed / rows if rows > 0 else np.zeros_like(imputed)
            mean += share[1:].tolist()
            scale += [float(np.sqrt(p * (1.0 - p))) if 0.0 < p < 1.0 else 1.0 for p in share[1:]]
    if spec.standardize == "none":
        mean, scale = [0.0] * len(mean), [1.0] * len(scale)
    return Preprocessing(
        columns=columns,
        spec=spec,
        fill=tuple(fill.tolist()),
        gaps=tuple(bool(gap) for gap in (missing > 0 if gaps is None else gaps)),
        mean=tuple(mean),
        scale=tuple(scale),
    )


def _deviation(squares: float, count: float, mean: float) -> float:
    if count <= 0:
        return 1.0
    deviation = float(np.sqrt(max(squares, 0.0) / count))
    # the mean of n equal numbers may be off by n rounding errors; dividing by that would blow noise up to +-1
    return deviation if deviation > count * np.finfo(np.float64).eps * abs(mean) else 1.0


def _check_drop(columns: Sequence[Column], spec: PreprocessingSpec) -> None:
    known = [column.name for column in columns]
    for name in spec.drop:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean '{close[0]}'? " if close else ""
            raise ConfigError(f"data.preprocessing.drop names {name!r}: {hint}columns: {', '.join(known)}")
    if not _feature_names(columns, spec):
        raise ConfigError(
            f"data.preprocessing.drop = {list(spec.drop)} leaves no feature of {', '.join(known)}: keep one"
        )


def _check_totals(
    columns: Sequence[Column],
    first: Mapping[str, NDArray[np.floating[Any]]],
    second: Mapping[str, NDArray[np.floating[Any]]],
) -> None:
    expected = dict.fromkeys(("count", "sum", "missing", "squares"), len(columns))
    expected["levels"] = sum(len(_levels(column)) for column in columns)
    given = {**first, **second}
    for name, length in expected.items():
        shape = np.shape(given[name]) if name in given else "absent"
        if shape != (length,):
            raise DataError(
                f"the statistic '{name}' is {shape}, expected shape ({length},): do all sites share one dataset?"
            )
        if not np.isfinite(given[name]).all():
            raise DataError(f"the statistic '{name}' is not finite: a site's values overflow; check their units")


def _refuse_gaps(columns: Sequence[Column], spec: PreprocessingSpec, missing: NDArray[Any]) -> None:
    found = [f"'{column.name}' ({int(missing[c])})" for c, column in _used(columns, spec) if missing[c] > 0]
    if found:
        raise DataError(
            f"data.preprocessing.impute = 'none' and these columns have gaps: {', '.join(found)}: set impute to "
            "'mean', or name the columns in data.preprocessing.drop"
        )


def _checked(
    columns: Sequence[Column], features: NDArray[np.floating[Any]], keep: NDArray[np.bool_] | None
) -> NDArray[np.float64]:
    """The rows that count as float64 [n, C], checked."""
    if features.ndim != 2 or features.shape[1] != len(columns):
        raise DataError(f"rows of shape {features.shape}: expected [n, {len(columns)}], one value a column")
    if keep is not None and (keep.dtype != np.bool_ or keep.shape != features.shape[:1]):
        raise DataError(f"keep is {keep.dtype} {keep.shape}: expected bool ({features.shape[0]},), one flag a row")
    values = np.asarray(features if keep is None else features[keep], dtype=np.float64)
    infinite = np.isinf(values).sum(axis=0)
    for c, column in enumerate(columns):
        if infinite[c]:
            raise DataError(
                f"column '{column.name}' has {infinite[c]} infinite values: make them numbers, or NaN for gaps"
            )
        if column.kind == "categorical":
            present = values[:, c][~np.isnan(values[:, c])]
            wrong = present[(present < 0) | (present >= len(column.levels)) | (present != np.floor(present))]
            if len(wrong):
                raise DataError(
                    f"column '{column.name}' holds {wrong[0]:g}: expected level indices 0..{len(column.levels) - 1} of "
                    f"{', '.join(column.levels)}"
                )
    return values


def _used(columns: Sequence[Column], spec: PreprocessingSpec) -> list[tuple[int, Column]]:
    return [(c, column) for c, column in enumerate(columns) if column.name not in spec.drop]


def _feature_names(columns: Sequence[Column], spec: PreprocessingSpec) -> list[str]:
    names: list[str] = []
    for _, column in _used(columns, spec):
        if column.kind == "numeric":
            names.append(column.name)
        else:
            names += [f"{column.name}={level}" for level in column.levels[1:]]
    return names


def _levels(column: Column) -> tuple[str, ...]:
    return column.levels if column.kind == "categorical" else ()


def _numeric(columns: Sequence[Column]) -> NDArray[np.bool_]:
    return np.array([column.kind == "numeric" for column in columns], dtype=np.bool_)


def _floats(values: Json) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


def _kind(value: Json) -> Any:
    if value not in ("numeric", "categorical"):
        raise ValueError(f"kind {value!r}: expected 'numeric' or 'categorical'")
    return value

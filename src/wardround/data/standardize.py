"""Standardising pictures by channel, fitted from additive statistics: (x - mean) / deviation of the training rows' pixels.

Two passes, as for tables (`data.preprocess`): sums, then squares about the means that they give. A row counts as the mean of
its pixels, not as their sum, so that sums stay of the order of rows; all rows of a dataset have the same number of pixels, so
nothing is weighed otherwise.

By site, each site subtracts its own mean, and its squares are about that one. What the sites add up is then the mean, over rows,
of their means and of their variances: what a stranger takes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from wardround.config.job import PreprocessingSpec
from wardround.data.preprocess import Preprocessing, Statistics
from wardround.errors import ConfigError, DataError
from wardround.types import Description, Json

Blocks = Iterable[NDArray[np.float64]]
"""Some rows after another, [n, C, *sizes], in the numbers that a network would be given without this."""
_LEAST = 1e-6
"""Least deviation, as a fraction of the mean: in float32 a smaller one is rounding, and the channel is constant."""


@dataclass(frozen=True, kw_only=True)
class Standardization:
    """What is subtracted from and divides the pixels of each channel.

    Attributes:
        by: whether sites have numbers of their own beside these.
        mean, scale: one a channel, in the units of the scaled pixels; a scale is above 0.
    """

    by: Literal["global", "site"]
    mean: tuple[float, ...]
    scale: tuple[float, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Of a table's features: there are none."""
        return ()

    def to_json(self) -> dict[str, Json]:
        """Plain lists and strings; `fitted_from_json` gives back an equal object."""
        return {"pictures": self.by, "mean": list(self.mean), "scale": list(self.scale)}


Fitted = Preprocessing | Standardization
"""What was fitted to the training rows, of a table or of pictures."""


def fitted_from_json(tree: Json) -> Fitted:
    """The inverse of both `to_json`. Raises DataError where `tree` is the output of neither."""
    if not (isinstance(tree, Mapping) and "pictures" in tree):
        return Preprocessing.from_json(tree)
    try:
        by = tree["pictures"]
        mean, scale = (tuple(float(value) for value in tree[name]) for name in ("mean", "scale"))
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"not a saved standardisation: {type(error).__name__} {error}: fit and save it again"
        ) from error
    sound = len(mean) == len(scale) > 0 and bool(np.isfinite([*mean, *scale]).all()) and min(scale) > 0
    if by not in ("global", "site") or not sound:
        raise DataError(
            f"not a saved standardisation: pictures {by!r}, mean {list(mean)}, scale {list(scale)}: expected global or site, and "
            "a finite mean and a scale above 0 a channel; fit and save it again"
        )
    return Standardization(by=by, mean=mean, scale=scale)


def check(spec: PreprocessingSpec, description: Description) -> None:
    """Raises ConfigError where `spec` would standardise pictures, and the dataset has none."""
    if spec.pictures != "none" and (description.columns or len(description.shape) not in (3, 4)):
        what = "is a table" if description.columns else f"has rows of shape {description.shape}"
        raise ConfigError(
            f"data.preprocessing.pictures = {spec.pictures} standardises images and volumes by channel, and {description.name} "
            f"{what}: leave it out; the columns of a table are standardised by data.preprocessing.standardize"
        )


def first_statistics(blocks: Blocks, channels: int) -> Statistics:
    """`rows` [1], and `sum` [C] over rows of the mean of their pixels.

    Raises:
        DataError: a pixel is not finite.
    """
    rows, total = 0.0, np.zeros(channels)
    for block in blocks:
        rows += len(block)
        total += _by_row(block).sum(axis=0)
    if not np.isfinite(total).all():
        raise DataError(
            f"channel {int(np.flatnonzero(~np.isfinite(total))[0])} of the pictures has pixels that are NaN or infinite: mend "
            "them, or leave data.preprocessing.pictures out"
        )
    return {"rows": np.array([rows]), "sum": total}


def channel_means(first: Mapping[str, NDArray[np.floating[Any]]]) -> NDArray[np.float64]:
    """The mean of each channel from totals of `first_statistics`, float64 [C]; 0 without rows."""
    return np.asarray(first["sum"], dtype=np.float64) / max(_rows(first), 1.0)


def second_statistics(blocks: Blocks, mean: NDArray[np.floating[Any]]) -> Statistics:
    """`squares` [C]: the sum over rows of the mean of (x - mean)^2 of their pixels."""
    total = np.zeros(len(mean))
    for block in blocks:
        centre = mean.reshape(-1, *[1] * (block.ndim - 2))
        total += _by_row(np.square(block - centre)).sum(axis=0)
    return {"squares": total}


def fit(
    first: Mapping[str, NDArray[np.floating[Any]]],
    second: Mapping[str, NDArray[np.floating[Any]]],
    by: Literal["global", "site"],
) -> Standardization:
    """What follows from the totals of the two passes; a channel that is constant, or has no rows, is divided by 1."""
    mean = channel_means(first)
    squares = np.maximum(np.asarray(second["squares"], dtype=np.float64), 0.0)
    deviation = np.sqrt(squares / max(_rows(first), 1.0))
    scale = np.where(deviation > _LEAST * np.abs(mean), deviation, 1.0)
    return Standardization(by=by, mean=tuple(mean.tolist()), scale=tuple(scale.tolist()))


def _rows(first: Mapping[str, NDArray[np.floating[Any]]]) -> float:
    return float(np.rint(first["rows"][0]))


def _by_row(block: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean of the pixels of each row and channel, [n, C]."""
    means: NDArray[np.float64] = block.mean(axis=tuple(range(2, block.ndim)))
    return means

"""Federated preprocessing: two additive passes through the channel fit what one pooled table, or pile of pictures, would have."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from wardround.config.job import PreprocessingSpec
from wardround.data import standardize
from wardround.data.preprocess import Preprocessing, column_means, fit
from wardround.data.standardize import Standardization
from wardround.federation import messages
from wardround.types import Arrays, Channel, Column, Engine, Round

Totals = dict[str, NDArray[Any]]


def fit_preprocessing(
    engine: Engine, channel: Channel, columns: tuple[Column, ...], spec: PreprocessingSpec, round: Round,
    *, deadline: float | None, quorum: int,
) -> Preprocessing:  # fmt: skip
    """Counts and sums first, then squares about the mean they give (which keeps variances accurate).

    Args:
        engine, channel: how sites are reached and protected.
        columns: the public schema.
        spec: the job's `data.preprocessing`.
        round: facts of the exchange; the two passes have the indices -2 and -1, before training.
        deadline: seconds to wait for each pass.
        quorum: fewest sites in a sum.

    Raises QuorumLost where too few sites are left.
    """
    first, second = _two_passes(engine, channel, column_means, round, deadline, quorum)
    return fit(columns, first, second, spec)


def fit_pictures(
    engine: Engine, channel: Channel, by: Literal["global", "site"], round: Round,
    *, deadline: float | None, quorum: int,
) -> Standardization:  # fmt: skip
    """The mean and deviation of each channel of the sites' pictures; by site, what a stranger takes. Else as for tables."""
    first, second = _two_passes(engine, channel, standardize.channel_means, round, deadline, quorum)
    return standardize.fit(first, second, by)


def _two_passes(
    engine: Engine, channel: Channel, means: Callable[[Mapping[str, NDArray[Any]]], NDArray[np.float64]], round: Round,
    deadline: float | None, quorum: int,
) -> tuple[Totals, Totals]:  # fmt: skip
    """Both summed over the same sites: where one is lost between them, the others are asked again, with indices further down."""

    def collect(index: int, sites: Sequence[str], arrays: Arrays) -> tuple[tuple[str, ...], Totals]:
        request = messages.ask_for(messages.STATISTICS, replace(round, index=index), arrays)
        sums: Totals = {}
        gave: list[str] = []
        for total in channel.collect(engine, request, sites, deadline, quorum):
            gave += total.survivors
            for name, value in total.sums["statistics"].items():
                sums[name] = sums[name] + value.numpy() if name in sums else value.numpy()
        return tuple(sorted(gave)), sums

    sites: tuple[str, ...] = engine.sites
    index = -2
    while True:
        both, first = collect(index, sites, {})
        sites, second = collect(index + 1, both, {"mean": torch.from_numpy(means(first))})
        if sites == both:
            return first, second
        # squares are about the mean of one turn: a late answer to it must not pass for one to the next
        index -= 2

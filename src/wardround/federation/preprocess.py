"""Federated preprocessing: two additive passes through the channel fit what one pooled table would have given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from numpy.typing import NDArray

from wardround.config.job import PreprocessingSpec
from wardround.data.preprocess import Preprocessing, column_means, fit
from wardround.federation import messages
from wardround.types import Arrays, Channel, Column, Engine, Round


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

    Both passes are summed over the same sites: where one is lost between them, the others are asked again, with indices
    further down. Raises QuorumLost where too few are left.
    """

    def collect(index: int, sites: Sequence[str], arrays: Arrays) -> tuple[tuple[str, ...], dict[str, NDArray[Any]]]:
        request = messages.ask_for(messages.STATISTICS, replace(round, index=index), arrays)
        sums: dict[str, NDArray[Any]] = {}
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
        sites, second = collect(index + 1, both, {"mean": torch.from_numpy(column_means(first))})
        if sites == both:
            return fit(columns, first, second, spec)
        # squares are about the mean of one turn: a late answer to it must not pass for one to the next
        index -= 2

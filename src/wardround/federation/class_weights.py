"""Federated class weights: one sum of the sites' class counts, from which all sites get the same factors."""

from __future__ import annotations

from dataclasses import replace

import torch

from wardround.federation import messages
from wardround.federation.schedule import CLASSES_INDEX
from wardround.training.recipe import balanced
from wardround.types import Channel, Engine, Round


def fit_class_weights(
    engine: Engine, channel: Channel, round: Round, *, classes: int, deadline: float | None, quorum: int
) -> list[float]:
    """Factors with which all classes weigh the same over the federation, see `training.recipe.balanced`.

    Args:
        engine, channel: how sites are reached and protected.
        round: facts of the exchange.
        classes: C.
        deadline: seconds to wait.
        quorum: fewest sites in the sum; QuorumLost where there are fewer.
    """
    request = messages.ask_for(messages.CLASSES, replace(round, index=CLASSES_INDEX), {})
    counts = torch.zeros(classes, dtype=torch.float64)
    for total in channel.collect(engine, request, engine.sites, deadline, quorum):
        counts += total.sums["classes"]["rows"]
    return [float(factor) for factor in balanced(counts.numpy())]

"""A federation of a few small sites, and the shortest loop over rounds that an executor can be tried in."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from wardround import streams
from wardround.aggregation.mean import Mean
from wardround.aggregation.weighting import WEIGHT, weighed_sum
from wardround.algorithms import registry as algorithms
from wardround.algorithms.fedavg import FedAvg
from wardround.algorithms.server_average import Average
from wardround.config.job import Job, OptimizerSpec
from wardround.models import registry as models
from wardround.training.executors import Sequential, Stacked
from wardround.training.probe import probe
from wardround.types import (
    LOCAL,
    STEP_TERMS,
    Arrays,
    LocalRule,
    ModelState,
    Round,
    Rows,
    Server,
    ServerRule,
    Term,
    Total,
    Work,
)

RAGGED = (1, 2, 7, 16, 33, 40)
"""Rows of the sites: with batches of 8 there are lone rows, whole batches, and last batches of every kind."""


def job_of(tree: dict[str, Any], changes: Mapping[str, Any]) -> Job:
    """A job from a tree, which is changed at `node__leaf` keys."""
    for key, value in changes.items():
        *parents, leaf = key.split("__")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = value
    return Job.model_validate(tree)


def names_of(sites: int) -> tuple[str, ...]:
    """Names of the sites, in canonical order."""
    return tuple(f"site-{k}" for k in range(sites))


def make_rows(
    counts: Sequence[int], shape: Sequence[int], *, classes: int = 2, dtype: torch.dtype = torch.float64, seed: int = 1
) -> Rows:
    """Standard normal features that differ between sites by a shift, labels that depend on them."""
    draw = torch.Generator().manual_seed(seed)
    count = np.array(counts, dtype=np.int64)
    features = torch.randn(int(count.sum()), *shape, generator=draw, dtype=torch.float64)
    features += torch.from_numpy(np.repeat(np.linspace(-0.5, 0.5, len(count)), count)).view(-1, *[1] * len(shape))
    width = math.prod(shape)
    signal = features.reshape(-1, width).sum(1) / width**0.5
    noisy = signal + torch.randn(len(signal), generator=draw, dtype=torch.float64)
    labels = torch.bucketize(noisy, torch.linspace(-0.5, 0.5, classes - 1) if classes > 2 else torch.zeros(1))
    return Rows(
        features=features.to(dtype),
        labels=labels,
        start=np.cumsum(count) - count,
        count=count,
        keys=streams.site_keys(names_of(len(count))),
    )


def part(data: Rows, sites: Sequence[int]) -> Rows:
    """The rows of some of the sites."""
    own = np.array(sites, dtype=np.int64)
    return Rows(
        features=data.features,
        labels=data.labels,
        start=data.start[own],
        count=data.count[own],
        keys=data.keys[own],
    )


def make_round(
    index: int = 0,
    *,
    epochs: int | tuple[int, int] | None = None,
    steps: int | tuple[int, int] | None = None,
    batch_size: int = 8,
    learning_rate: float = 0.1,
    population: int = 6,
    cohort: int | None = None,
    seed: int = 5,
) -> Round:
    """A round whose largest weight is 64 rows; one epoch where neither epochs nor steps are given."""
    epochs = 1 if epochs is None and steps is None else epochs
    return Round(
        index=index,
        population=population,
        cohort=population if cohort is None else cohort,
        work=Work(steps=steps, epochs=epochs, batch_size=batch_size, learning_rate=learning_rate),
        seed=seed,
        max_weight=64.0,
    )


@dataclass
class Federation:
    """Sites, a model, and the two halves of an algorithm.

    Attributes:
        module: the network; it is copied, so that runs do not share one.
        data: every site's training rows.
        rule, server_rule, optimizer: the algorithm.
        local: patterns of `model.local`.
        stacked: which executor.
        chunks: which sites are trained together; all of them by default.
    """

    module: nn.Module
    data: Rows
    rule: LocalRule = field(default_factory=FedAvg)
    server_rule: ServerRule = field(default_factory=Average)
    optimizer: OptimizerSpec = field(default_factory=OptimizerSpec)
    local: tuple[str, ...] = ()
    stacked: bool = True
    chunks: Sequence[Sequence[int]] | None = None

    def __post_init__(self) -> None:
        self.module = copy.deepcopy(self.module)
        sites = len(self.data.count)
        whole = models.state_of(self.module)
        everything = {**whole.params, **whole.buffers}
        self.kept = algorithms.local_names(self.local, self.rule, models.owners(self.module), list(everything))
        shared = ModelState(
            params={n: v for n, v in whole.params.items() if n not in self.kept},
            buffers={n: v for n, v in whole.buffers.items() if n not in self.kept},
        )
        self.server = Server(model=shared, rule=self.rule.broadcast(shared), optimizer=self.server_rule.initial(shared))
        first = {**self.rule.initial(shared), **{LOCAL + n: v for n, v in everything.items() if n in self.kept}}
        self.states: Arrays = {n: v.unsqueeze(0).repeat(sites, *[1] * v.dim()) for n, v in first.items()}
        found = probe(self.module, tuple(self.data.features.shape[1:]))
        assert found.stackable or not self.stacked, found.reason
        self.done = 0
        self.executor = (Stacked if self.stacked else Sequential)(self.module, self.optimizer, found)

    def run(self, rounds: int, *, cohort: Sequence[int] | None = None, **work: float) -> Federation:
        """Train some rounds; `work` goes to `make_round`, `cohort` sits the other sites out."""
        sites = range(len(self.data.count)) if cohort is None else cohort
        for _ in range(rounds):
            self.round(make_round(self.done, cohort=len(sites), **work), self.chunks or [sites])
            self.done += 1
        return self

    def round(self, round: Round, chunks: Sequence[Sequence[int]]) -> None:
        """One round as the site and the server do it, without messages between them."""
        totals = []
        for chunk in chunks:
            own, data = torch.tensor(list(chunk)), part(self.data, chunk)
            before = {n: v[own] for n, v in self.states.items()}
            trained = self.executor.train(self.rule, self.server, before, data, round)
            for n, value in trained.states.items():
                self.states[n][own] = value
            rows = torch.from_numpy(data.count).double()
            terms = {
                name: Term(arrays=arrays, weights=rows, maximum=round.max_weight)
                if name in STEP_TERMS
                else Term(arrays=arrays, weights=(rows > 0).double(), maximum=1.0)
                for name, arrays in trained.terms.items()
            }
            sums = {name: weighed_sum(term) for name, term in terms.items()}
            weights = {name: float(values.pop(WEIGHT)) for name, values in sums.items()}
            survivors = tuple(names_of(len(self.data.count))[k] for k in chunk)
            totals.append(Total(sums=sums, weights=weights, survivors=survivors))
            self.trained = trained
        total = Mean().combine(totals)
        combined = self.rule.combine(total, self.server, round)
        self.server = self.rule.absorb(self.server_rule.apply(self.server, combined, round), total, round)

    def everything(self) -> Arrays:
        """All that the run has made: the global model, the server's memory, the sites' states."""
        server = self.server
        groups = {"params": server.model.params, "buffers": server.model.buffers, "rule": server.rule}
        groups |= {"optimizer": server.optimizer, "states": self.states}
        return {f"{group}/{name}": value for group, arrays in groups.items() for name, value in arrays.items()}


def difference(one: Arrays, other: Arrays) -> float:
    """The largest absolute difference of two sets of arrays with the same names."""
    assert one.keys() == other.keys()
    return max((float((one[n] - other[n]).abs().max()) for n in one), default=0.0)


class Quadratic(nn.Module):
    """One weight w, and with label 0 the loss (w - x)^2 / 2 + 1000: its gradient is w - x, exactly.

    The logit is z = (w - x)^2 / 2 + 1000. The loss of label 0 is softplus(z), which is z itself in float64 for z > 40, and
    its derivative is sigmoid(z) = 1.
    """

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([weight], dtype=torch.float64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits [b, 1] of x [b, 1]."""
        return (self.weight - x) ** 2 / 2 + 1000.0


def quadratic_sites(targets: Sequence[float], counts: Sequence[int]) -> Rows:
    """Sites whose rows all have the same feature, their own target, and label 0."""
    count = np.array(counts, dtype=np.int64)
    features = torch.from_numpy(np.repeat(np.array(targets, dtype=np.float64), count)).unsqueeze(1)
    return Rows(
        features=features,
        labels=torch.zeros(len(features), dtype=torch.int64),
        start=np.cumsum(count) - count,
        count=count,
        keys=streams.site_keys(names_of(len(count))),
    )

"""The executors: how the sites of a chunk are trained in one process. Stacked and sequential give the same model.

Stacked trains all K sites of a chunk in one set of tensors. Where rows are independent of each other, sites are sorted by
their number of steps, short batches are padded with rows of weight 0, and the sites still training are a prefix: a view, no
copy. Where they are not (BatchNorm), sites whose batch has exactly the same size go together. Sequential is the same code
with K = 1 and the plain module.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property, partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wardround import streams
from wardround.config.job import OptimizerSpec
from wardround.errors import ConfigError
from wardround.training import memory, optimizers
from wardround.training.evaluate import Evaluator
from wardround.training.forward import OFF, Forward, Switches, hand_stacked, single, switched, vmapped
from wardround.training.probe import Probe
from wardround.training.recipe import PLAIN, Recipe
from wardround.training.schedule import Plan, plan
from wardround.training.step import Sites, step
from wardround.types import LOCAL, Arrays, LocalRule, Progress, Round, Rows, Server, Trained

Ints = NDArray[np.int64]
AHEAD = 2**22
"""Most numbers of rows that are read together for several steps."""


class _Executor:
    """What both executors share: the module, the optimiser, and how a result is put together.

    Parameters named in `frozen` do not train: they lie among the server's buffers.
    """

    def __init__(
        self, module: nn.Module, optimizer: OptimizerSpec, probe: Probe, switches: Switches = OFF,
        frozen: frozenset[str] = frozenset(), recipe: Recipe = PLAIN,
    ) -> None:  # fmt: skip
        memory.keep_freed()
        self.module = module
        self.optimizer = optimizer
        self.probe = probe
        self.switches = switches
        self.frozen = frozen
        self.recipe = recipe
        self._forward = switched(self._plain_forward(), switches)
        self._trainable = [n for n, p in module.named_parameters() if p.requires_grad and n not in frozen]
        self._floating_buffers = [*sorted(frozen), *(n for n, b in module.named_buffers() if b.is_floating_point())]
        self._counters = {n: b.detach().clone() for n, b in module.named_buffers() if not b.is_floating_point()}

    def _plain_forward(self) -> Forward:
        raise NotImplementedError

    @cached_property
    def _evaluator(self) -> Evaluator:
        return Evaluator(self.module, stackable=isinstance(self, Stacked), channels_last=self.probe.channels_last)

    def _train(
        self, forward: Forward, rule: LocalRule, server: Server, states: Arrays, data: Rows, round: Round
    ) -> Trained:
        sites = len(data.count)
        steps = plan(
            data.keys, data.count, round, join_single=not self.probe.independent, labels=self.recipe.labels(data)
        )
        order = np.argsort(-steps.steps, kind="stable")
        params = _with_axis(server.model.params, states, sites, order, trainable=self._trainable)
        buffers = _with_axis(server.model.buffers, states, sites, order, trainable=self._floating_buffers)
        counters = {
            n: value.to(data.features.device).repeat(sites, *[1] * value.dim()) for n, value in self._counters.items()
        }
        context = {
            n: value[torch.from_numpy(order).to(value.device)] for n, value in rule.start(server, states).items()
        }
        training = Sites(
            params=params,
            buffers={**buffers, **counters},
            slots=optimizers.start(self.optimizer, params),
            context=context,
        )
        self.module.train()
        run = _run_prefixes if self.probe.independent else _run_groups
        losses = run(self, forward, rule, server, training, data, round, steps, order)

        if len(np.unique(steps.steps)) > 1:  # else the order is that of the sites already
            back = torch.from_numpy(np.argsort(order, kind="stable")).to(losses.device)
            params = {n: value[back] for n, value in params.items()}
            buffers = {n: value[back] for n, value in buffers.items()}
            losses = losses[back]
        taken = torch.from_numpy(steps.steps).double()
        progress = Progress(
            steps=taken,
            effective_steps=optimizers.effective_steps(self.optimizer, taken),
            learning_rate=round.work.learning_rate,
            momentum=self.optimizer.momentum,
            incoming_loss=partial(self._evaluator.losses, server.model, states, data),
        )
        own, kept = rule.finish(params, server, states, progress)
        for name, value in [*kept.items(), *((n, v) for arrays in own.values() for n, v in arrays.items())]:
            if value.dim() == 0 or len(value) != sites:
                raise ConfigError(
                    f"algorithm {rule.name}: finish gives {name} the shape {tuple(value.shape)}, expected a leading axis of "
                    f"{sites} sites"
                )
        local = {n: v for n, v in {**params, **buffers}.items() if LOCAL + n in states}
        terms = {
            "step": {n: params.pop(n) - value for n, value in server.model.params.items()},
            "buffers": {n: buffers[n] - value for n, value in server.model.buffers.items()},
            **own,
        }
        return Trained(
            terms={term: arrays for term, arrays in terms.items() if arrays},
            states={**kept, **{LOCAL + n: value for n, value in local.items()}},
            loss=losses.cpu().double() / taken,
        )


def _with_axis(shared: Arrays, states: Arrays, sites: int, order: NDArray[np.int64], *, trainable: list[str]) -> Arrays:
    """Working copies [K, ...] in training order: the server's values, or the site's own where a name is local."""
    rows = torch.from_numpy(order)
    return {
        name: states[LOCAL + name][rows.to(states[LOCAL + name].device)]
        if LOCAL + name in states
        else shared[name].expand(sites, *shared[name].shape).clone(memory_format=torch.contiguous_format)
        for name in trainable
    }


def _run_prefixes(
    executor: _Executor, forward: Forward, rule: LocalRule, server: Server, training: Sites, data: Rows, round: Round,
    steps: Plan, order: NDArray[np.int64],
) -> Tensor:  # fmt: skip
    """All steps of row-independent modules. Returns the summed losses, [K], in training order."""
    device = data.features.device
    counts = steps.counts[:, order]
    rows = torch.from_numpy(steps.rows[:, order] + data.start[order][:, None]).to(device)
    share = np.where(np.arange(steps.rows.shape[2]) < counts[:, :, None], 1.0 / np.maximum(counts, 1)[:, :, None], 0.0)
    weights = torch.from_numpy(share).to(device, data.features.dtype)
    losses = torch.zeros(len(order), dtype=data.features.dtype, device=device)
    keys, factors = data.keys[order], executor.recipe.factors(data, order)
    view, shown = training, len(order)
    for t, (x, y, w) in enumerate(_batches(data, rows, weights, counts)):
        if len(y) != shown:
            view, shown = training.first(len(y)), len(y)
        batch = executor.recipe.batch(
            x, y, w, None if factors is None else factors[:shown],
            keys=keys[:shown], rows=steps.rows[t, order[:shown], : y.shape[1]], round=round, step=t,
        )  # fmt: skip
        found = step(
            forward, rule, server, executor.optimizer, view, *batch,
            learning_rate=round.work.learning_rate, number=t + 1, row_losses=executor.recipe.losses,
            parts=executor.recipe.parts(y.shape[1], independent=True),
        )  # fmt: skip
        losses[:shown].add_(found)
    return losses


def _batches(data: Rows, rows: Tensor, weights: Tensor, counts: Ints) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Each step's features [k, b, ...], labels and weights [k, b]: views of what is read for several steps at once.

    Args:
        data: all rows.
        rows: int64 [T, K, B], which of them.
        weights: [T, K, B], of the rows.
        counts: int64 [T, K], how many of the B are real; the sites that have some are the first k.
    """
    sites, widths = (counts > 0).sum(1).tolist(), counts.max(1, initial=0).tolist()
    elements, t = max(data.features[0].numel(), 1), 0
    while t < len(rows):
        k, b, end = sites[t], widths[t], t + 1
        most, least = max(AHEAD // (k * b * elements), 1), k * b / 2
        while end < min(t + most, len(rows)) and widths[end] <= b and sites[end] * widths[end] >= least:
            end += 1
        block = (*_gathered(data, rows[t:end, :k, :b]), weights[t:end, :k, :b])
        for number, own in enumerate(zip(sites[t:end], widths[t:end], strict=True)):
            x, y, w = (part[number] if own == (k, b) else part[number, : own[0], : own[1]] for part in block)
            yield x, y, w
        t = end


def _gathered(data: Rows, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Features and labels of the rows with the numbers in an array of any shape."""
    flat = rows.reshape(-1)
    features = data.features.index_select(0, flat).view(*rows.shape, *data.features.shape[1:])
    return features, data.labels.index_select(0, flat).view(*rows.shape, *data.labels.shape[1:])


def _run_groups(
    executor: _Executor, forward: Forward, rule: LocalRule, server: Server, training: Sites, data: Rows, round: Round,
    steps: Plan, order: NDArray[np.int64],
) -> Tensor:  # fmt: skip
    """All steps of modules whose rows meet in a batch: sites of exactly equal batch size go together."""
    device, sites = data.features.device, len(order)
    counts = steps.counts[:, order]
    rows = torch.from_numpy(steps.rows[:, order] + data.start[order][:, None]).to(device)
    losses = torch.zeros(sites, dtype=data.features.dtype, device=device)
    keys, factors = data.keys[order], executor.recipe.factors(data, order)
    for t in range(len(counts)):
        for size in np.unique(counts[t][counts[t] > 0]):
            members = np.flatnonzero(counts[t] == size)
            index = torch.from_numpy(members).to(device)
            everyone = len(members) == sites
            part = training if everyone else training.take(index)
            weights = torch.full((len(members), int(size)), 1.0 / float(size), dtype=data.features.dtype, device=device)
            batch = executor.recipe.batch(
                *_gathered(data, rows[t, index, : int(size)]), weights, None if factors is None else factors[index],
                keys=keys[members], rows=steps.rows[t, order[members], : int(size)], round=round, step=t,
            )  # fmt: skip
            losses[index] += step(
                forward, rule, server, executor.optimizer, part, *batch,
                learning_rate=round.work.learning_rate, number=t + 1, row_losses=executor.recipe.losses,
                parts=executor.recipe.parts(int(size), independent=False),
            )  # fmt: skip
            if not everyone:
                training.put(index, part)
    return losses


class Stacked(_Executor):
    """All sites of a chunk in one set of tensors."""

    name = "stacked"

    def _plain_forward(self) -> Forward:
        return hand_stacked(self.module) or vmapped(self.module)

    def train(self, rule: LocalRule, server: Server, states: Arrays, data: Rows, round: Round) -> Trained:
        """Train the K sites of `data`; see `Executor`."""
        return self._train(self._forward, rule, server, states, data, round)


class Sequential(_Executor):
    """One site after another, through the plain module."""

    name = "sequential"

    def _plain_forward(self) -> Forward:
        return single(self.module, channels_last=self.probe.channels_last)

    def train(self, rule: LocalRule, server: Server, states: Arrays, data: Rows, round: Round) -> Trained:
        """Train the K sites of `data`; see `Executor`."""
        done = [self._train_one(rule, server, states, data, round, k) for k in range(len(data.count))]
        if len(done) == 1:
            return done[0]
        first = done[0]
        return Trained(
            terms={t: {n: torch.cat([d.terms[t][n] for d in done]) for n in names} for t, names in first.terms.items()},
            states={n: torch.cat([d.states[n] for d in done]) for n in first.states},
            loss=torch.cat([d.loss for d in done]),
        )

    def _train_one(self, rule: LocalRule, server: Server, states: Arrays, data: Rows, round: Round, k: int) -> Trained:
        own = slice(k, k + 1)
        rows = Rows(
            features=data.features,
            labels=data.labels,
            start=data.start[own],
            count=data.count[own],
            keys=data.keys[own],
        )
        mine = {n: value[own] for n, value in states.items()}
        if not self.probe.stochastic:
            return self._train(self._forward, rule, server, mine, rows, round)
        with torch.random.fork_rng(devices=[data.features.device] if data.features.device.type == "cuda" else []):
            torch.manual_seed(streams.key("dropout", round.seed, round.index, int(data.keys[k])) % 2**63)
            return self._train(self._forward, rule, server, mine, rows, round)

"""Additive figures of a model at K sites: summed loss, and histograms of the score by class.

A site may hold parameters of its own; each row is scored with its own site's model.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wardround.training.forward import Forward, hand_stacked, plain, vmapped
from wardround.training.label_tables import HALF
from wardround.training.loss import multilabel, row_losses, scores
from wardround.types import LOCAL, Arrays, Features, ModelState, Rows

_BLOCK = 2**17
"""Features of the rows scored at once: pictures in blocks that stay in a processor's cache take half the time."""
_FEWEST = 32
"""Rows scored at once, however large."""

Ints = NDArray[np.int64]


class Evaluator:
    """Scores rows in evaluation mode (BatchNorm uses its running statistics, dropout is off).

    Args:
        module: the network.
        stackable: whether several sites' own models may be scored in one stacked forward.
        channels_last: see `forward.plain`.
    """

    def __init__(self, module: nn.Module, *, stackable: bool, channels_last: bool = False) -> None:
        self._module = module
        self._stacked: Forward | None = (hand_stacked(module) or vmapped(module)) if stackable else None
        self._plain = plain(module, channels_last=channels_last)

    def logits(self, model: ModelState, states: Arrays, data: Rows) -> tuple[Tensor, Tensor, Ints]:
        """Logits [R, outputs] and labels [R] of all rows of K sites, in site order, and the owner k of each row, int64 [R].

        Args:
            model: the shared part.
            states: the sites' states [K, ...]; names under `local/` replace or complete the shared part.
            data: the rows.
        """
        index, owner = flat(data)
        local = {n.removeprefix(LOCAL): v for n, v in states.items() if n.startswith(LOCAL)}
        self._module.eval()
        with torch.no_grad():
            if not len(index):
                logits = self._no_logits(model, local, data)
            elif local:
                logits = self._personal(model, local, data, index, owner)
            else:
                # read once, where they lie in a file
                logits = self._in_blocks(dict(model.params), dict(model.buffers), data.features, index)
        return logits, data.labels[index], owner

    def losses(self, model: ModelState, states: Arrays, data: Rows) -> Tensor:
        """Mean loss of each of K sites, float64 [K] on the CPU; 0 for a site without rows. Arguments as for `logits`."""
        logits, labels, owner = self.logits(model, states, data)
        count = torch.from_numpy(data.count).double()
        summed = torch.zeros_like(count).index_add_(
            0, torch.from_numpy(owner), row_losses(logits, labels).cpu().double()
        )
        return summed / count.clamp_min(1.0)

    def _in_blocks(self, params: Arrays, buffers: Arrays, features: Tensor | Features, index: Tensor) -> Tensor:
        rows = max(_FEWEST, _BLOCK // features[0].numel())
        return torch.cat([self._plain(params, buffers, features[part]) for part in torch.split(index, rows)])

    def _no_logits(self, model: ModelState, local: Arrays, data: Rows) -> Tensor:
        """Logits [0, outputs]: their width decides which figures a site sends, so it comes from a row of zeros."""
        params_and_buffers = {**model.params, **model.buffers, **{n: v[0] for n, v in local.items()}}
        return self._plain(params_and_buffers, {}, data.features.new_zeros(1, *data.features.shape[1:]))[:0]

    def _personal(self, model: ModelState, local: Arrays, data: Rows, index: Tensor, owner: Ints) -> Tensor:
        sites = len(data.count)
        shared = {**model.params, **model.buffers}
        whole = {n: v.unsqueeze(0).expand(sites, *v.shape) for n, v in shared.items() if n not in local} | local
        names = {n for n, _ in self._module.named_parameters()}
        params = {n: v for n, v in whole.items() if n in names}
        buffers = {n: v for n, v in whole.items() if n not in names}
        if self._stacked is None or sites == 1:
            each = []
            for k, rows in enumerate(torch.split(index, data.count.tolist())):
                if len(rows):
                    own = {n: v[k] for n, v in params.items()}, {n: v[k] for n, v in buffers.items()}
                    each.append(self._in_blocks(*own, data.features, rows))
            return torch.cat(each)
        first = np.cumsum(data.count) - data.count
        site, place = (torch.from_numpy(i).to(index.device) for i in (owner, np.arange(len(owner)) - first[owner]))
        padded = index.new_zeros(sites, int(data.count.max()))
        padded[site, place] = index
        return self._stacked(params, buffers, data.features[padded])[site, place]


def flat(data: Rows) -> tuple[Tensor, Ints]:
    """All rows of K sites in site order: where each lies, int64 [R], and its owner k, int64 [R]."""
    owner = np.repeat(np.arange(len(data.count)), data.count)
    first = np.cumsum(data.count) - data.count
    where = data.start[owner] + np.arange(len(owner)) - first[owner]
    return torch.from_numpy(where).to(data.features.device), owner


def aggregated(likely: Tensor, labels: Tensor, owner: Ints, groups: Ints, how: str) -> tuple[Tensor, Tensor, Ints]:
    """One row a group: its rows' mean or largest scores, and what any of them is labelled.

    Args:
        likely: float64 [R] or [R, C], as `loss.scores` gives them. Largest scores of classes are made to add up to 1 again.
        labels: int64 [R], or [R, C] of 0 and 1.
        owner: int64 [R], the site of each row; a group is of one site.
        groups: int64 [R].
        how: `mean` or `max`.

    Returns:
        Scores [G], or [G, C]; labels [G], or [G, C]; owner [G]; groups in ascending order.
    """
    _, first, inverse = np.unique(groups, return_index=True, return_inverse=True)
    place = torch.from_numpy(inverse.reshape(-1).astype(np.int64))
    if how == "mean":
        count = torch.bincount(place, minlength=len(first)).double().view(-1, *[1] * (likely.dim() - 1))
        score = likely.new_zeros(len(first), *likely.shape[1:]).index_add_(0, place, likely) / count
    else:
        score = _highest(likely, place, len(first))
        if likely.dim() > labels.dim():
            score = score / score.sum(-1, keepdim=True)
    return score, _highest(labels.cpu(), place, len(first)), owner[first]


def _highest(values: Tensor, place: Tensor, count: int) -> Tensor:
    """The highest of the values 0 or more at each place, [count, ...]."""
    highest = np.zeros((count, *values.shape[1:]), dtype=values.numpy().dtype)
    np.maximum.at(highest, place.numpy(), values.numpy())
    return torch.from_numpy(highest)


def figures(
    logits: Tensor, labels: Tensor, owner: Ints, *, sites: int, bins: int, groups: Ints | None = None, how: str = "mean"
) -> Arrays:
    """Additive figures of K sites.

    Args:
        logits: [R, outputs]; labels: int64 [R], or [R, outputs] of 0 and 1; owner: int64 [R].
        sites: K.
        bins: uniform bins of a probability over [0, 1].
        groups, how: see `aggregated`; the loss stays that of rows. None judges each row.

    Returns:
        float64 `loss` [K] (summed over rows), `rows` [K], and histograms. Of two classes: `positives`, `negatives`,
        `score_sums` [K, bins], rows of each class in each bin and the sum of their scores. Of C > 2: the same of each class
        against the rest, of the decision (right against wrong) and of half the squared error (all rows against none),
        [K, C + 2, bins], and `confusion` [K, C, C], rows by true and predicted class. Of L labels: the same as of two classes
        for each, [K, L, bins], and `exact` [K], rows all of whose labels are right at 0.5.
    """
    logits, labels = logits.cpu(), labels.cpu()  # float64 sums, which not every accelerator has
    where = torch.from_numpy(owner)

    def by_site(values: Tensor) -> Tensor:
        return torch.zeros(sites, dtype=torch.float64).index_add_(0, where, values.double())

    found = {"loss": by_site(row_losses(logits, labels)), "rows": by_site(torch.ones(len(labels)))}
    labelled = multilabel(logits, labels)
    likely = scores(logits, labelled=labelled)
    if groups is not None:
        likely, labels, owner = aggregated(likely, labels, owner, groups, how)
        where = torch.from_numpy(owner)
    if labelled:
        return found | _label_figures(likely, labels, where, sites=sites, bins=bins)
    if logits.shape[-1] > 2:
        return found | _class_figures(likely, labels, where, sites=sites, bins=bins)
    finite = torch.where(torch.isfinite(likely), likely, torch.full_like(likely, 0.5))
    cell = where * bins + (finite * bins).long().clamp_(0, bins - 1)

    def table(values: Tensor) -> Tensor:
        empty = torch.zeros(sites * bins, dtype=torch.float64)
        return empty.index_add_(0, cell, values.double()).view(sites, bins)

    return found | {
        "positives": table((labels == 1).double()),
        "negatives": table((labels != 1).double()),
        "score_sums": table(finite),
    }


def _label_figures(likely: Tensor, labels: Tensor, where: Tensor, *, sites: int, bins: int) -> Arrays:
    count = likely.shape[-1]
    finite = torch.where(torch.isfinite(likely), likely, torch.full_like(likely, HALF))
    cell = where.unsqueeze(-1) * count + torch.arange(count)
    cell = (cell * bins + (finite * bins).long().clamp_(0, bins - 1)).flatten()

    def table(values: Tensor) -> Tensor:
        empty = torch.zeros(sites * count * bins, dtype=torch.float64)
        return empty.index_add_(0, cell, values.double().flatten()).view(sites, count, bins)

    right = ((finite >= HALF) == (labels == 1)).all(-1).double()
    return {
        "positives": table(labels == 1),
        "negatives": table(labels != 1),
        "score_sums": table(finite),
        "exact": torch.zeros(sites, dtype=torch.float64).index_add_(0, where, right),
    }


def _class_figures(likely: Tensor, labels: Tensor, where: Tensor, *, sites: int, bins: int) -> Arrays:
    classes = likely.shape[-1]
    finite = torch.where(torch.isfinite(likely), likely, torch.full_like(likely, 1 / classes))
    sure, called = finite.max(-1)
    actual = (labels.unsqueeze(-1) == torch.arange(classes)).double()
    squares = (finite - actual).square().sum(-1) / 2
    values = torch.cat([finite, torch.stack([sure, squares], -1)], -1)
    hits = torch.cat([actual, torch.stack([(labels == called).double(), torch.ones_like(squares)], -1)], -1)
    kinds = classes + 2
    cell = where.unsqueeze(-1) * kinds + torch.arange(kinds)
    cell = (cell * bins + (values * bins).long().clamp_(0, bins - 1)).flatten()

    def table(values: Tensor) -> Tensor:
        empty = torch.zeros(sites * kinds * bins, dtype=torch.float64)
        return empty.index_add_(0, cell, values.flatten()).view(sites, kinds, bins)

    pairs = (where * classes + labels) * classes + called
    matrix = torch.zeros(sites * classes**2, dtype=torch.float64)
    matrix.index_add_(0, pairs, torch.ones_like(pairs, dtype=torch.float64))
    return {
        "positives": table(hits),
        "negatives": table(1.0 - hits),
        "score_sums": table(values),
        "confusion": matrix.view(sites, classes, classes),
    }

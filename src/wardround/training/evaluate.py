"""Additive figures of a model at K sites: summed loss, and histograms of the score by class.

A site may hold parameters of its own; each row is scored with its own site's model.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call

from wardround.training.forward import Forward, hand_stacked, single, vmapped
from wardround.training.loss import positive_probability, row_losses
from wardround.types import LOCAL, Arrays, ModelState, Rows

_BLOCK = 65_536
"""Rows scored at once, a bound on memory."""

Ints = NDArray[np.int64]


class Evaluator:
    """Scores rows in evaluation mode (BatchNorm uses its running statistics, dropout is off).

    Args:
        module: the network.
        stackable: whether several sites' own models may be scored in one stacked forward.
    """

    def __init__(self, module: nn.Module, *, stackable: bool) -> None:
        self._module = module
        self._stacked: Forward | None = (hand_stacked(module) or vmapped(module)) if stackable else None
        self._single = single(module)

    def logits(self, model: ModelState, states: Arrays, data: Rows) -> tuple[Tensor, Tensor, Ints]:
        """Logits [R, outputs] and labels [R] of all rows of K sites, in site order, and the owner k of each row, int64 [R].

        Args:
            model: the shared part.
            states: the sites' states [K, ...]; names under `local/` replace or complete the shared part.
            data: the rows.
        """
        owner = np.repeat(np.arange(len(data.count)), data.count)
        first = np.cumsum(data.count) - data.count
        flat = data.start[owner] + np.arange(len(owner)) - first[owner]
        index = torch.from_numpy(flat).to(data.features.device)
        local = {n.removeprefix(LOCAL): v for n, v in states.items() if n.startswith(LOCAL)}
        self._module.eval()
        with torch.no_grad():
            if not len(index):
                return self._no_logits(model, local, data), data.labels[index], owner
            score = self._personal(model, local, data, owner, first) if local else self._shared(model, data)
            logits = score(index)
        return logits, data.labels[index], owner

    def _no_logits(self, model: ModelState, local: Arrays, data: Rows) -> Tensor:
        """Logits [0, outputs]: their width decides which figures a site sends, so it comes from a row of zeros."""
        params_and_buffers = {**model.params, **model.buffers, **{n: v[0] for n, v in local.items()}}
        row = data.features.new_zeros(1, *data.features.shape[1:])
        logits: Tensor = functional_call(self._module, params_and_buffers, (row,))
        return logits[:0]

    def _shared(self, model: ModelState, data: Rows) -> Callable[[Tensor], Tensor]:
        def score(index: Tensor) -> Tensor:
            blocks = [
                functional_call(self._module, (model.params, model.buffers), (data.features[part],))
                for part in torch.split(index, _BLOCK)
            ]
            return torch.cat(blocks)

        return score

    def _personal(
        self, model: ModelState, local: Arrays, data: Rows, owner: Ints, first: Ints
    ) -> Callable[[Tensor], Tensor]:
        sites = len(data.count)
        shared = {**model.params, **model.buffers}
        whole = {n: v.unsqueeze(0).expand(sites, *v.shape) for n, v in shared.items() if n not in local} | local
        names = {n for n, _ in self._module.named_parameters()}

        def part(sites_of: slice) -> tuple[Arrays, Arrays]:
            params = {n: v[sites_of] for n, v in whole.items() if n in names}
            return params, {n: v[sites_of] for n, v in whole.items() if n not in names}

        def together(index: Tensor) -> Tensor:
            forward = self._stacked
            if forward is None or sites == 1:
                cuts = [int(c) for c in data.count]
                each = [
                    self._single(*part(slice(k, k + 1)), data.features[rows].unsqueeze(0))[0]
                    for k, rows in enumerate(torch.split(index, cuts))
                    if len(rows)
                ]
                return torch.cat(each)
            width = int(data.count.max())
            padded = index.new_zeros(sites, width)
            place = torch.from_numpy(np.arange(len(owner)) - first[owner]).to(index.device)
            padded[torch.from_numpy(owner).to(index.device), place] = index
            params, buffers = part(slice(None))
            logits = forward(params, buffers, data.features[padded])
            return logits[torch.from_numpy(owner).to(index.device), place]

        return together


def figures(logits: Tensor, labels: Tensor, owner: Ints, *, sites: int, bins: int) -> Arrays:
    """Additive figures of K sites.

    Args:
        logits: [R, outputs]; labels: int64 [R]; owner: int64 [R].
        sites: K.
        bins: uniform bins of the positive class's probability over [0, 1].

    Returns:
        float64 `loss` [K] (summed over rows), `rows` [K], and for two classes `positives`, `negatives`, `score_sums`
        [K, bins]: rows of each class in each bin, and the sum of their scores.
    """
    logits, labels = logits.cpu(), labels.cpu()  # float64 sums, which not every accelerator has
    where = torch.from_numpy(owner)

    def by_site(values: Tensor) -> Tensor:
        return torch.zeros(sites, dtype=torch.float64).index_add_(0, where, values.double())

    found = {"loss": by_site(row_losses(logits, labels)), "rows": by_site(torch.ones_like(labels))}
    if logits.shape[-1] <= 2:
        scores = positive_probability(logits)
        finite = torch.where(torch.isfinite(scores), scores, torch.full_like(scores, 0.5))
        cell = where * bins + (finite * bins).long().clamp_(0, bins - 1)

        def table(values: Tensor) -> Tensor:
            empty = torch.zeros(sites * bins, dtype=torch.float64)
            return empty.index_add_(0, cell, values.double()).view(sites, bins)

        found |= {
            "positives": table((labels == 1).double()),
            "negatives": table((labels != 1).double()),
            "score_sums": table(finite),
        }
    return found

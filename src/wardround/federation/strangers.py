"""Sites that never trained, judged as a stranger would use the model: its shared part, and the mean of what stays at sites."""

from __future__ import annotations

import copy

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wardround.config.job import Job
from wardround.federation.records import Records
from wardround.federation.rounds import Outcome
from wardround.training.evaluate import Evaluator, aggregated, figures
from wardround.training.loss import multilabel, scores
from wardround.types import Arrays, ModelState


def released(job: Job, outcome: Outcome, records: Records, device: torch.device) -> dict[str, tuple[Tensor, Tensor]]:
    """Scores and labels of the test rows (or groups) of each site, in its order.

    Args:
        job: what trained.
        outcome: the kept model, and the preprocessing that its sites agreed on.
        records: the sites that took no part.
        device: where to score.
    """
    logits, labels, owner = _logits(job, outcome, records, device)
    likely, labels = scores(logits, labelled=multilabel(logits, labels)), labels.cpu()
    groups = records.groups(records.sites, "test")
    if groups is not None:
        likely, labels, owner = aggregated(likely, labels, owner, groups, job.evaluation.aggregate)
    own = [torch.from_numpy(owner == k) for k in range(len(records.sites))]
    return {site: (likely[mine], labels[mine]) for site, mine in zip(records.sites, own, strict=True)}


def summed(job: Job, outcome: Outcome, records: Records, device: torch.device) -> Arrays:
    """The additive figures of all these sites' test rows, as `evaluate.figures` makes them, without a site axis."""
    logits, labels, owner = _logits(job, outcome, records, device)
    found = figures(
        logits, labels, owner, sites=len(records.sites), bins=job.evaluation.bins,
        groups=records.groups(records.sites, "test"), how=job.evaluation.aggregate,
    )  # fmt: skip
    return {name: value.sum(0) for name, value in found.items()}


def _logits(
    job: Job, outcome: Outcome, records: Records, device: torch.device
) -> tuple[Tensor, Tensor, NDArray[np.int64]]:
    own = records.unprepared()
    dtype = torch.float64 if job.training.dtype == "float64" else torch.float32
    own.prepare(outcome.preprocessing, {}, device=device, dtype=dtype)
    model = outcome.server.model
    params = {name: value.to(device) for name, value in {**model.params, **outcome.overlay}.items()}
    buffers = {name: value.to(device) for name, value in model.buffers.items()}
    evaluator = Evaluator(copy.deepcopy(outcome.network.module).to(device), stackable=False)
    return evaluator.logits(ModelState(params=params, buffers=buffers), {}, own.rows(own.sites, "test"))

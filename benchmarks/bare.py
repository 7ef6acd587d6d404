"""The bare loop on a workload: the same rows in the same batches from the same weights as the product."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import agreement
from benchmarks.loop import one_round
from benchmarks.product import ANY_MODULE, Trained, job_for
from benchmarks.workloads import Rows, Workload, counts, names, workload
from wardround import Job, streams
from wardround.models.registry import build
from wardround.training.schedule import Plan, plan
from wardround.types import Round, Work


def plans(workload: Workload, seed: int) -> Iterator[Plan]:
    """The batches of each round, as the product draws them."""
    keys, rows = streams.site_keys(names(workload)), counts(workload)
    work = Work(steps=None, epochs=1, batch_size=workload.batch, learning_rate=workload.learning_rate)
    for index in range(workload.rounds):
        facts = Round(
            index=index, population=workload.sites, cohort=workload.sites, work=work, seed=seed, max_weight=1.0
        )
        yield plan(keys, rows, facts, join_single=False)


def initial(workload: Workload, job: Job) -> nn.Module:
    """The network with its first weights."""
    dtype = torch.float64 if job.training.dtype == "float64" else torch.float32
    return build(job.model, workload.shape, workload.classes, seed=job.seed, dtype=dtype)


def train(workload: Workload, job: Job) -> Trained:
    """Train. Drawing the batches takes no part in the times."""
    module = initial(workload, job)
    server = {n: p.detach().clone() for n, p in module.named_parameters()}
    dtype = next(iter(server.values())).dtype
    sites = [
        (torch.from_numpy(own.features).to(dtype), torch.from_numpy(own.labels)) for own in Rows(workload).values()
    ]
    share = (counts(workload) / counts(workload).sum()).tolist()
    marks = [0.0]
    for drawn in plans(workload, job.seed):
        batches = [_batches(drawn, k) for k in range(workload.sites)]
        began = time.perf_counter()
        server = one_round(module, server, sites, batches, share, workload.learning_rate)
        marks.append(marks[-1] + time.perf_counter() - began)
    return Trained(marks=marks, weights=server)


def _batches(drawn: Plan, site: int) -> list[Tensor]:
    return [torch.from_numpy(drawn.rows[t, site, : drawn.counts[t, site]]) for t in range(drawn.steps[site])]


def measure(given: Mapping[str, Any], threads: int, weights: str = "", dtype: str = "float32") -> dict[str, Any]:
    """Seconds a round; the arguments are those of `product.measure`."""
    torch.set_num_threads(threads)
    chosen = workload(**given)
    trained = train(chosen, job_for(chosen, ANY_MODULE, dtype=dtype))
    if weights:
        agreement.save(weights, trained.weights)
    return {"round": trained.seconds_a_round}

"""Seconds a round of the product, over those of a bare PyTorch loop that takes the same steps in the same run.

    python benchmarks/rounds.py [--repeats 3]

The product runs as a user runs it: engine, channel, message metering, and a committed checkpoint every round. The bare loop
is `torch.optim.SGD` on one plain module, one site after another, on the same rows in the same batches from the same weights;
the final weights are compared. Neither evaluates. The first round is left out on both sides.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from wardround import Job, streams
from wardround.channels.plain import Plain
from wardround.federation.engines.local import LocalEngine
from wardround.federation.records import Records
from wardround.federation.rounds import Federation
from wardround.federation.site import Host
from wardround.models.registry import build
from wardround.store.run import Run
from wardround.store.states import StateTable
from wardround.training.schedule import plan
from wardround.types import Arrays, Round, Work
from workloads import W1, W3, Workload, description, names, site


class PlainMLP(nn.Module):
    """The same network without a hand-stacked forward: what a user's own module gets."""

    def __init__(self, inputs: int, outputs: int, hidden: int) -> None:
        super().__init__()
        self.hidden = nn.ModuleList([nn.Linear(inputs, hidden)])
        self.head = nn.Linear(hidden, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(F.relu(self.hidden[0](x)))


def job_for(workload: Workload, model: dict[str, object]) -> Job:
    return Job.model_validate(
        {
            "name": workload.name,
            "model": model,
            "training": {
                "rounds": workload.rounds,
                "local_epochs": 1,
                "batch_size": workload.batch,
                "optimizer": {"learning_rate": workload.learning_rate},
            },
            "evaluation": {"every": 10**6, "select": "last"},
        }
    )


def product(workload: Workload, model: dict[str, object], folder: Path) -> tuple[float, Arrays]:
    """Median seconds of a round after the first, and the final weights."""
    job = job_for(workload, model)
    facts = description(workload)
    records = Records(facts, {name: site(workload, k) for k, name in enumerate(names(workload))})
    channel = Plain()
    host = Host(job, records, StateTable(records.sites), channel.site_half(), torch.device("cpu"))
    with Run.create(folder, job, {}) as run:
        marks: list[float] = []
        federation = Federation(
            job, LocalEngine(host), channel, facts, run, lambda event: marks.append(time.perf_counter())
        )
        outcome = federation.train()
    ends = marks[1 : workload.rounds + 1]
    return statistics.median(np.diff(ends)), outcome.server.model.params


def bare(workload: Workload, model: dict[str, object]) -> tuple[float, Arrays]:
    """The same rounds by hand."""
    job = job_for(workload, model)
    module = build(job.model, (workload.features,), 2, seed=job.seed, dtype=torch.float32)
    server = {n: p.detach().clone() for n, p in module.named_parameters()}
    rows = [site(workload, k) for k in range(workload.sites)]
    x = [torch.from_numpy(r.features) for r in rows]
    y = [torch.from_numpy(r.labels) for r in rows]
    keys = streams.site_keys(names(workload))
    counts = np.full(workload.sites, workload.rows)
    work = Work(steps=None, epochs=1, batch_size=workload.batch, learning_rate=workload.learning_rate)
    ends = []
    for index in range(workload.rounds):
        facts = Round(
            index=index, population=workload.sites, cohort=workload.sites, work=work, seed=job.seed, max_weight=1.0
        )
        batches = plan(keys, counts, facts, join_single=False)
        order = [
            [torch.from_numpy(batches.rows[t, k, : batches.counts[t, k]]) for t in range(batches.steps[k])]
            for k in range(workload.sites)
        ]
        if index == 0:
            ends.append(time.perf_counter())
        began = time.perf_counter()
        total = {n: torch.zeros_like(p) for n, p in server.items()}
        for k in range(workload.sites):
            with torch.no_grad():
                for n, p in module.named_parameters():
                    p.copy_(server[n])
            optimizer = torch.optim.SGD(module.parameters(), lr=workload.learning_rate)
            module.train()
            for batch in order[k]:
                optimizer.zero_grad()
                F.cross_entropy(module(x[k][batch]), y[k][batch]).backward()
                optimizer.step()
            for n, p in module.named_parameters():
                total[n] += p.detach() / workload.sites
        server = total
        ends.append(time.perf_counter() - began)
    return statistics.median(ends[2:]), server


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    print(
        f"torch {torch.__version__}, median of {repeats}; seconds a round after the first, ratio to bare with 1 thread"
    )
    print(
        "| workload | bare, 1 thread | bare, 2 threads | built-in mlp | any module | ratio built-in | ratio any | max diff |"
    )
    print("|---|---|---|---|---|---|---|---|")
    here = Path(__file__).stem
    for workload in (W1, W3):
        builtin = {"name": "mlp", "options": {"hidden": [workload.hidden], "outputs": 2}}
        other = {"name": f"{here}:PlainMLP", "options": {"hidden": workload.hidden, "outputs": 2}}
        times: dict[str, list[float]] = {"bare1": [], "bare2": [], "builtin": [], "any": []}
        worst = 0.0
        for _ in range(repeats):
            torch.set_num_threads(1)
            seconds, expected = bare(workload, builtin)
            times["bare1"].append(seconds)
            torch.set_num_threads(2)
            times["bare2"].append(bare(workload, builtin)[0])
            for name, model in (("builtin", builtin), ("any", other)):
                with tempfile.TemporaryDirectory() as folder:
                    seconds, got = product(workload, model, Path(folder) / "run")
                times[name].append(seconds)
                worst = max(worst, *(float((got[n] - expected[n]).abs().max()) for n in expected))
        median = {name: statistics.median(values) for name, values in times.items()}
        print(
            f"| {workload.name} | {median['bare1']:.4f} | {median['bare2']:.4f} | {median['builtin']:.4f} | {median['any']:.4f} "
            f"| {median['builtin'] / median['bare1']:.3f} | {median['any'] / median['bare1']:.3f} | {worst:.1e} |",
            flush=True,
        )


if __name__ == "__main__":
    main()

"""The product: engine, channel, metering, journal and checkpoints in a run folder."""

from __future__ import annotations

import time

from benchmarks import product
from benchmarks.peers import outcome
from benchmarks.peers.steps import Steps
from benchmarks.workloads import workload


def main() -> None:
    given = outcome.arguments()
    steps = Steps.load(given.steps)
    sites, rows = steps.labels.shape
    chosen = workload(steps.workload, sites=sites, rows=rows, rounds=steps.rounds)
    features = steps.features.reshape(sites * rows, *chosen.shape)
    job = product.job_for(chosen, dtype=features.dtype.name, **given.settings)
    trained = product.train(chosen, job, (features, steps.labels.reshape(-1)))
    wall = time.time() - time.perf_counter()
    outcome.save(given.folder, outcome.Marks(times=[wall + mark for mark in trained.marks]), trained.weights)


if __name__ == "__main__":
    main()

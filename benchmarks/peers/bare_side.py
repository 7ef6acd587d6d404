"""The bare loop, without any framework."""

from __future__ import annotations

import torch

from benchmarks.loop import one_round
from benchmarks.peers import outcome
from benchmarks.peers.steps import Steps


def main() -> None:
    given = outcome.arguments()
    torch.set_num_threads(given.threads)
    steps = Steps.load(given.steps)
    module = steps.module()
    server = {name: value.detach().clone() for name, value in module.named_parameters()}
    sites = [steps.rows(k) for k in range(steps.sites)]
    share = [1 / steps.sites] * steps.sites
    marks = outcome.Marks()
    marks.now()
    for index in range(steps.rounds):
        batches = [steps.batches(index, k) for k in range(steps.sites)]
        server = one_round(module, server, sites, batches, share, steps.learning_rate)
        marks.now()
    outcome.save(given.folder, marks, server)


if __name__ == "__main__":
    main()

"""Baselines are not code: each is the same loop over a changed job.

'Each site alone' is a run in which every name of the model is local. 'Centralised' is a run whose sites are merged into one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wardround.config.job import Job


def sites_asked(job: Job, sites: int) -> int:
    """How many of `sites` sites a round asks."""
    return job.participation.count or max(1, round(job.participation.fraction * sites))


def alone(job: Job) -> Job:
    """Each site by itself: the same loop with every name local, its own preprocessing, and every site in every round."""
    return _changed(
        job,
        {
            "data.preprocessing.standardize": "site" if job.data.preprocessing.standardize != "none" else "none",
            "model.local": ("*",),
            "algorithm": {"name": "fedavg"},
            "participation": {"fraction": 1.0, "quorum": 1},
        },
    )


def centralized(job: Job, sites: int) -> Job:
    """All records in one place: the same loop over one merged site.

    With `local_steps` it sees as many rows a round as the sites that a round asks see together; with `local_epochs` it
    passes over all rows, also those of sites that a round would not ask.
    """
    steps = job.training.local_steps
    asked = sites_asked(job, sites)
    return _changed(
        job,
        {
            "model.local": (),
            "algorithm": {"name": "fedavg"},
            "training.local_steps": None if steps is None else steps * asked,
            "participation": {"fraction": 1.0, "quorum": 1},
            "aggregation.max_weight": None,
        },
    )


def _changed(job: Job, changes: Mapping[str, Any]) -> Job:
    tree = job.model_dump()
    for path, value in changes.items():
        *parents, leaf = path.split(".")
        node = tree
        for parent in parents:
            node = node[parent]
        node[leaf] = value
    return Job.model_validate(tree)

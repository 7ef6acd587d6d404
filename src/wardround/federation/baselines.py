"""Baselines and fine-tuning are not code: each is the same loop over a changed job.

'Each site alone' is a run in which every name of the model is local. 'Centralised' is a run whose sites are merged into one.
'Fine-tuned' is a run from the kept model on, in which what trains is local and nothing else moves.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from wardround.config.job import Job


def sites_asked(job: Job, sites: int) -> int:
    """How many of `sites` sites a round asks."""
    return job.participation.count or max(1, round(job.participation.fraction * sites))


def alone(job: Job) -> Job:
    """Each site by itself: the same loop with every name local, its own preprocessing, and every site in every round."""
    weights = job.training.loss.class_weights
    return changed(
        job,
        {
            "data.preprocessing.standardize": "site" if job.data.preprocessing.standardize != "none" else "none",
            "data.preprocessing.pictures": "site" if job.data.preprocessing.pictures != "none" else "none",
            "model.local": ("*",),
            "training.loss.class_weights": "site" if weights == "balanced" else weights,
            "algorithm": {"name": "fedavg"},
            "participation": {"fraction": 1.0, "quorum": 1},
        },
    )


def alone_elsewhere(job: Job) -> Job:
    """Each hospital by itself, between hospitals: as `alone`, and sums of its figures are of as many sites as the job wants."""
    spec = job.participation
    kept = {"fraction": 1.0, **{name: getattr(spec, name) for name in ("quorum", "deadline_seconds", "attempts")}}
    return changed(alone(job), {"participation": kept, "evaluation.baselines": ()})


def centralized(job: Job, sites: int) -> Job:
    """All records in one place: the same loop over one merged site.

    With `local_steps` it sees as many rows a round as the sites that a round asks see together; with `local_epochs` it
    passes over all rows, also those of sites that a round would not ask.
    """
    asked, steps = sites_asked(job, sites), job.training.local_steps
    if steps is not None:
        steps = (steps[0] * asked, steps[1] * asked) if isinstance(steps, tuple) else steps * asked
    return changed(
        job,
        {
            "model.local": (),
            "algorithm": {"name": "fedavg"},
            "training.local_steps": steps,
            "participation": {"fraction": 1.0, "quorum": 1},
            "aggregation.max_weight": None,
            "privacy": {},
        },
    )


def finetuned(job: Job, local: Collection[str]) -> Job:
    """Each site's own training of the kept model: an epoch a round, of what is fine-tuned and of what stays at the sites.

    Args:
        job: the federation's.
        local: names that stay at the sites in it.
    """
    spec = job.finetuning
    return changed(
        job,
        {
            "model.local": (*sorted(local), *spec.layers),
            "algorithm": {"name": "wardround.algorithms.finetune:FineTune"},
            "training.rounds": spec.epochs,
            "training.local_steps": None,
            "training.local_epochs": 1,
            "training.optimizer.learning_rate": spec.learning_rate or job.training.optimizer.learning_rate,
            "training.optimizer.schedule": {},
            "participation": {"fraction": 1.0, "quorum": 1},
            "evaluation.every": 1,
            "finetuning": {},
        },
    )


def changed(job: Job, changes: Mapping[str, Any]) -> Job:
    """The job with other values at dotted keys. Raises pydantic's ValidationError where they mean nothing."""
    tree = job.model_dump()
    for path, value in changes.items():
        *parents, leaf = path.split(".")
        node = tree
        for parent in parents:
            node = node[parent]
        node[leaf] = value
    return Job.model_validate(tree)

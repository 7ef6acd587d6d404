"""What each round of a run is: it follows from the job, so that whoever holds the job can tell what a server may ask."""

from __future__ import annotations

from wardround import streams
from wardround.config.job import Job
from wardround.training.optimizers import learning_rate
from wardround.types import Round, Work

CLASSES_INDEX = -(2**31)
"""Index of the exchange that sums class counts: below those that fit the preprocessing, so that no late answer passes for one
to it."""


def round_of(job: Job, index: int, *, population: int, cohort: int, max_weight: float, trained: bool = False) -> Round:
    """The facts of a round.

    Args:
        job: the run.
        index: 0 to `training.rounds` - 1 trains; below 0 comes before training, and from `training.rounds` on after it.
        population: sites of the federation.
        cohort: sites that are asked.
        max_weight: public bound of a site's rows.
        trained: whether the run began with a trained model, which is judged in round 0 as well.
    """
    training = job.training
    steps, epochs = training.work
    work = Work(
        steps=steps,
        epochs=epochs,
        batch_size=training.batch_size,
        learning_rate=learning_rate(training.optimizer, max(index, 0), training.rounds),
    )
    return Round(
        index=index,
        population=population,
        cohort=cohort,
        work=work,
        seed=job.seed,
        max_weight=max_weight,
        evaluate=(index > 0 or trained) and index % job.evaluation.every == 0,
    )


def cohort_of(job: Job, sites: tuple[str, ...], keys: streams.Keys, index: int) -> tuple[str, ...]:
    """The sites that a round of training asks, in canonical order.

    Args:
        job: the run.
        sites: of the federation, sorted.
        keys: theirs, `streams.site_keys`.
        index: the round.
    """
    spec = job.participation
    size = spec.count if spec.count is not None else max(1, round(spec.fraction * len(sites)))
    return streams.cohort(sites, keys, size, seed=job.seed, round=index)


def quorum_of(job: Job, asked: int) -> int:
    """Fewest of the sites that are asked whose contribution counts."""
    return job.participation.quorum if job.participation.quorum is not None else min(2, asked)

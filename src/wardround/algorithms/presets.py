"""Algorithms by the names of their papers: a local rule and a server rule, at their defaults.

A job says which two it pairs; a comparison names the pair.
"""

from __future__ import annotations

from typing import Any

from wardround.config.job import AlgorithmSpec, Job
from wardround.config.load import from_mapping
from wardround.config.plugins import unknown_name

PRESETS: dict[str, dict[str, Any]] = {
    "fedavg": {"algorithm.name": "fedavg"},
    "fedprox": {"algorithm.name": "fedprox"},
    "fednova": {"algorithm.name": "fednova"},
    "scaffold": {"algorithm.name": "scaffold"},
    "fedbn": {"algorithm.name": "fedbn"},
    "qfedavg": {"algorithm.name": "qfedavg"},
    "fedavgm": {"algorithm.server.name": "momentum"},
    "fedadam": {"algorithm.server.name": "adam"},
    "fedyogi": {"algorithm.server.name": "yogi"},
    "fedadagrad": {"algorithm.server.name": "adagrad"},
}
"""Name -> keys of the job and their values, where a job's algorithm is otherwise the default."""


def apply(job: Job, name: str) -> Job:
    """The job with this algorithm instead of its own: the whole node `algorithm` begins anew at its defaults.

    `algorithm.weighting` stays, for it says whose mean loss is minimised, not how.

    Args:
        job: any job.
        name: of `PRESETS`.

    Raises:
        ConfigError: an unknown name, or an algorithm that the rest of the job does not allow.
    """
    if name not in PRESETS:
        raise unknown_name(name, PRESETS, "algorithm")
    tree = job.model_dump(mode="json")
    tree["algorithm"] = AlgorithmSpec(weighting=job.algorithm.weighting).model_dump(mode="json")
    overrides = [f"{key}={value}" for key, value in PRESETS[name].items()]
    return from_mapping(tree, overrides, where=f"algorithm {name}")

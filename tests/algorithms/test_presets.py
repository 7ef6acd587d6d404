"""Algorithms by the names of their papers."""

from __future__ import annotations

import pytest

from wardround.algorithms.presets import PRESETS, apply
from wardround.algorithms.registry import local_rule, server_rule
from wardround.config.job import Job
from wardround.errors import ConfigError

PAIRS = {
    "fedavg": ("fedavg", "average"),
    "fedprox": ("fedprox", "average"),
    "fednova": ("fednova", "average"),
    "scaffold": ("scaffold", "average"),
    "fedbn": ("fedbn", "average"),
    "qfedavg": ("qfedavg", "average"),
    "fedavgm": ("fedavg", "momentum"),
    "fedadam": ("fedavg", "adam"),
    "fedyogi": ("fedavg", "yogi"),
    "fedadagrad": ("fedavg", "adagrad"),
}


def test_each_is_a_pair_of_rules() -> None:
    assert PRESETS.keys() == PAIRS.keys()
    for name, pair in PAIRS.items():
        spec = apply(Job(), name).algorithm
        assert (local_rule(spec).name, server_rule(spec).name) == pair


def test_nothing_of_the_algorithm_before_is_left_but_the_weighting() -> None:
    before = {"name": "fedprox", "mu": 0.5, "server": {"name": "adam", "learning_rate": 0.3}, "weighting": "uniform"}
    job = Job.model_validate({"algorithm": before, "training": {"rounds": 7}})
    for name in PRESETS:
        found = apply(job, name)
        assert found.algorithm == apply(Job(), name).algorithm.model_copy(update={"weighting": "uniform"})
        assert found.model_copy(update={"algorithm": job.algorithm}) == job


def test_what_the_job_does_not_allow_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"algorithm = 'fedadm': did you mean 'fedadam'\?"):
        apply(Job(), "fedadm")
    with pytest.raises(ConfigError, match=r"algorithm scaffold: .*control variate"):
        apply(Job.model_validate({"training": {"optimizer": {"name": "adam"}}}), "scaffold")

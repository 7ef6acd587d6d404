"""What a comparison trains: the same budget for everybody, and nothing that the job does not allow."""

from __future__ import annotations

from typing import Any

import pytest

from wardround.comparison.plan import LEARNING_RATE, Plan, configurations, plan
from wardround.config.load import from_mapping
from wardround.errors import ConfigError

JOB = from_mapping({"partition": {"kind": "iid", "sites": 3}, "training": {"rounds": 3}})
METHODS = ("fedavg", "fedprox", "fedadam")


def planned(**changes: Any) -> Plan:
    given: dict[str, Any] = {"algorithms": METHODS, "alphas": ("iid", "0.1"), "seeds": 2, "budget": 4}
    return plan(JOB, **{**given, **changes})


def test_every_method_has_as_many_configurations_in_every_cell() -> None:
    trials = planned().trials()
    cells: dict[tuple[str, str, int], int] = {}
    for trial in trials:
        place = (trial.method, trial.setting, trial.seed)
        cells[place] = cells.get(place, 0) + 1
    assert set(cells.values()) == {4}
    assert len(cells) == (3 + 2) * 2 * 2


def test_all_methods_try_the_same_learning_rates() -> None:
    drawn = {m: [c.get(LEARNING_RATE) for c in configurations(m, JOB, 8)] for m in (*METHODS, "local", "centralized")}
    rates = drawn["fedavg"]
    assert all(other == rates for other in drawn.values())
    assert rates[0] is None  # the job's own
    middle = JOB.training.optimizer.learning_rate
    known = [rate for rate in rates if rate is not None]
    assert len(set(known)) == 7
    assert all(middle / 10 <= rate <= middle * 10 for rate in known)
    assert min(known) < middle / 3
    assert max(known) > middle * 3


def test_a_wider_budget_only_adds_configurations() -> None:
    for method in METHODS:
        assert configurations(method, JOB, 9)[:4] == configurations(method, JOB, 4)


def test_a_trial_is_the_job_with_its_changes() -> None:
    trial = next(
        t for t in planned().trials() if (t.method, t.setting, t.seed, t.number) == ("fedprox", "alpha 0.1", 1, 2)
    )
    assert trial.job.algorithm.name == "fedprox"
    assert trial.job.algorithm.mu == trial.configuration["algorithm.mu"]
    assert trial.job.training.optimizer.learning_rate == trial.configuration[LEARNING_RATE]
    assert (trial.job.partition.kind, trial.job.partition.alpha, trial.job.partition.sites) == ("dirichlet", 0.1, 3)
    assert trial.job.seed == 1
    assert trial.job.evaluation.baselines == ()
    assert trial.job.training.rounds == 3


def test_a_plug_in_can_be_compared() -> None:
    trials = planned(algorithms=("fedavg", "sample_plugins:Broken"), budget=1).trials()
    assert {t.job.algorithm.name for t in trials} == {"fedavg", "sample_plugins:Broken"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"algorithms": ()}, "none given"),
        ({"algorithms": ("fedavg", "fedavg")}, "fedavg is given twice"),
        ({"alphas": ("0",)}, "alpha '0'"),
        ({"alphas": ("nan",)}, "alpha 'nan'"),
        ({"alphas": ("some",)}, "alpha 'some'"),
        ({"seeds": 1}, "at least 2"),
        ({"budget": 0}, "tune = 0"),
        ({"metric": "charm"}, "metric 'charm'"),
        ({"reference": "scaffold"}, "must be one of fedavg, fedprox, fedadam"),
        ({"baselines": ("oracle",)}, "oracle is unknown"),
    ],
)
def test_what_means_nothing_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        planned(**changes)


def test_an_unknown_method_is_refused_before_anything_runs() -> None:
    with pytest.raises(ConfigError, match="did you mean 'fedavg'"):
        planned(algorithms=("fedavgg",)).trials()

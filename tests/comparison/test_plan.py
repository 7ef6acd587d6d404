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


def test_each_algorithm_is_trained_over_each_channel() -> None:
    asked = planned(algorithms=("fedavg", "fedprox"), channels=("plain", "8-bit", "secagg", "masked-he"), budget=1)
    assert asked.methods[:4] == ("fedavg", "fedavg+8-bit", "fedavg+secagg", "fedavg+masked-he")
    assert asked.reference == "fedavg"
    jobs = {trial.method: trial.job for trial in asked.trials() if trial.setting == "IID" and trial.seed == 0}
    assert jobs["fedprox"].privacy.channel.kind == "plain"
    assert jobs["fedprox+8-bit"].privacy.encoding.bits == 8
    assert jobs["fedprox+secagg"].privacy.channel.kind == "secagg"
    assert jobs["fedprox+masked-he"].privacy.channel.options == {"masks": True}
    assert jobs["fedprox+masked-he"].algorithm.name == "fedprox"
    assert all(job.evaluation.release_scores for job in jobs.values())
    drawn = [configurations(m, JOB, 3) for m in ("fedprox", "fedprox+secagg")]
    assert drawn[0] == drawn[1]


def test_an_unknown_channel_is_refused() -> None:
    with pytest.raises(ConfigError, match="channels: smoke is unknown: expected some of plain, 8-bit, secagg"):
        planned(channels=("plain", "smoke"))
    with pytest.raises(ConfigError, match="channels: he is given twice"):
        planned(channels=("he", "he"))
    with pytest.raises(ConfigError, match=r"reference 'fedavg' is not compared: it must be one of fedavg\+he"):
        planned(algorithms=("fedavg",), channels=("he",), reference="fedavg")

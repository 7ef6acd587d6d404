"""Rules, schedules and uneven work in a whole federation: weights, resuming, and what crosses."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from federation.trials import a_job, assert_same, federation, local_engine, plain, trained
from wardround.channels.plain import Plain
from wardround.federation import messages
from wardround.types import Round, Total, Work


@pytest.mark.parametrize("weighting", ["samples", "uniform"])
@pytest.mark.parametrize("rule", [{"name": "qfedavg", "q": 0.0}, {"name": "fednova"}], ids=["qfedavg", "fednova"])
def test_it_is_fedavg_where_its_paper_says_so_under_either_weighting(
    rule: dict[str, Any], weighting: str, tmp_path: Path
) -> None:
    # q = 0, and equal steps
    found, expected = (
        plain(tmp_path / name, a_job(algorithm={**spec, "weighting": weighting}, training__local_steps=4))
        for name, spec in (("own", rule), ("fedavg", {"name": "fedavg"}))
    )
    for name, value in expected.outcome.server.model.params.items():
        assert float((value - found.outcome.server.model.params[name]).abs().max()) <= 1e-14


@pytest.mark.parametrize("rule", ["fednova", "qfedavg"])
def test_the_weighting_matters(rule: str, tmp_path: Path) -> None:
    by_rows, alike = (plain(tmp_path / w, a_job(rule, algorithm__weighting=w)) for w in ("samples", "uniform"))
    for name, value in by_rows.outcome.server.model.params.items():
        assert float((value - alike.outcome.server.model.params[name]).abs().max()) > 1e-5


class Killed(Exception):
    """The server's process is gone."""


@pytest.mark.parametrize("rule", ["fednova", "qfedavg", "momentum"])
def test_resumed_is_uninterrupted(rule: str, tmp_path: Path) -> None:
    # fednova's job has a schedule with a warm-up, ranges of work, and memory at the server
    job = a_job(rule, training__rounds=5, participation={"fraction": 0.6})
    whole = plain(tmp_path / "whole", job)

    def die(event: Mapping[str, Any]) -> None:
        if event.get("round") == 2:
            raise Killed

    first = federation(tmp_path / "run", job, local_engine(job, Plain()), Plain(), listener=die)
    with pytest.raises(Killed):
        first.train()
    first._run.close()
    assert_same(trained(tmp_path / "run", job, local_engine(job, Plain())), whole, 0.0)


def test_each_round_has_the_rate_of_the_schedule(tmp_path: Path) -> None:
    optimizer = {"learning_rate": 0.8, "schedule": {"kind": "exponential", "factor": 0.5, "warmup": 1}}
    job = a_job(training__rounds=3, training__optimizer=optimizer)
    engine = local_engine(job, Plain())
    seen: list[Round] = []
    ask = engine.ask

    def watching(request: Any, *rest: Any) -> Any:
        if request.message.meta.get("task") == messages.TRAIN:
            seen.append(messages.round_from(request.message.meta))
        return ask(request, *rest)

    engine.ask = watching  # type: ignore[method-assign]
    trained(tmp_path / "run", job, engine)
    assert [round.work.learning_rate for round in seen] == pytest.approx([0.4, 0.8, 0.4])


def test_a_range_of_work_crosses_as_a_list() -> None:
    work = Work(steps=(2, 5), epochs=None, batch_size=4, learning_rate=0.1)
    round = Round(index=0, population=2, cohort=2, work=work, seed=1, max_weight=4.0)
    meta = messages.ask_for(messages.TRAIN, round, {}).message.meta
    assert messages.round_from(meta) == round
    crossed = {**meta, "round": {**meta["round"], "work": {**meta["round"]["work"], "steps": [2, 5]}}}
    assert messages.round_from(crossed) == round


def test_a_rule_that_combines_into_something_else_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from wardround.algorithms.fedavg import FedAvg
    from wardround.errors import ConfigError

    def wrong(self: FedAvg, total: Total, *_: object) -> Any:
        return total.sums

    monkeypatch.setattr(FedAvg, "combine", wrong)
    with pytest.raises(ConfigError, match="algorithm fedavg: combine gives dict, expected the Total"):
        plain(tmp_path / "run", a_job())

"""What stays at the sites is of the round that is kept, wherever the sites keep it.

The learning rates here are too long for the models, so that the best round is not the last. A run in one process takes its
sites' states from its journal; sites behind bytes have nothing but their own disks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from channels.test_secure import channel_of, homes
from channels.toy_masks import ToyMasks
from federation.adverse import Fault, Plan, peaceful, scripted, seeded
from federation.trials import (
    SITES,
    Restricted,
    a_job,
    adverse_engine,
    federation,
    gap,
    local_engine,
    states_of,
)
from wardround.channels.plain import Plain
from wardround.config.job import Job
from wardround.data.preprocess import Preprocessing
from wardround.federation import messages
from wardround.federation.rounds import Federation, Outcome
from wardround.training.tables import Table, measure
from wardround.types import Arrays, Channel, Engine

ROUNDING = 1e-11
FIXED_POINT = 1e-4
"""A step of 5 makes of what rounding begins some hundred times as much in each round."""
RATES: dict[str, dict[str, Any]] = {
    "fedbn": {"training__optimizer": {"learning_rate": 5.0}, "seed": 4},
    "scaffold": {"training__optimizer": {"learning_rate": 2.0}},
    "own head bias": {"training__optimizer": {"learning_rate": 2.0}},
}
NOISE: dict[Fault, float] = {"duplicated": 0.3, "late copy": 0.3, "asked twice": 0.3, "crash after": 0.3}
LOSS: dict[Fault, float] = {"lost": 0.15, "late": 0.15, "crash before": 0.15, "crash after": 0.3}


def overshooting(rule: str, **changes: Any) -> Job:
    return a_job(rule, **{"evaluation__select": "loss", "training__rounds": 5, **RATES[rule], **changes})


@dataclass(frozen=True, kw_only=True)
class Kept:
    """All that is of the kept round: the model, its pooled figures, what stays at the sites, and their mean."""

    outcome: Outcome
    tables: Mapping[str, Table]
    states: dict[str, Arrays]
    survivors: list[tuple[str, ...]]


def kept(folder: Path, job: Job, engine: Engine, channel: Channel, given: Preprocessing | None = None) -> Kept:
    return finished(federation(folder, job, engine, channel, given), engine)


def finished(server: Federation, engine: Engine) -> Kept:
    outcome = server.train()
    tables = server.histograms(outcome)
    records = server._run.records[1:]
    there = [tuple(s for s in server._asked(record) if s not in record["missing"]) for record in records]
    server._run.close()
    return Kept(outcome=outcome, tables=tables, states=states_of(engine), survivors=there)


def alone(folder: Path, job: Job, given: Preprocessing | None = None) -> Kept:
    """The run of one process."""
    return kept(folder, job, local_engine(job, Plain()), Plain(), given)


def assert_same(one: Kept, other: Kept, tolerance: float) -> None:
    assert one.outcome.selected == other.outcome.selected
    assert one.survivors == other.survivors
    mine, theirs = one.outcome.server.model, other.outcome.server.model
    assert gap(mine.params, theirs.params) <= tolerance
    assert gap(mine.buffers, theirs.buffers) <= tolerance
    assert gap(one.outcome.overlay, other.outcome.overlay) <= tolerance
    for site in SITES:
        assert gap(one.states[site], other.states[site]) <= tolerance, site
    assert_same_figures(one, other, tolerance)


def assert_same_figures(one: Kept, other: Kept, tolerance: float) -> None:
    for split, table in one.tables.items():
        assert len(table) == len(other.tables[split]) > 0
        assert "auroc" in measure(table, 0.5)
        assert measure(table, 0.5) == pytest.approx(measure(other.tables[split], 0.5), abs=tolerance)


@pytest.mark.parametrize("rule", RATES)
def test_sites_with_disks_of_their_own_keep_what_a_simulation_keeps(rule: str, tmp_path: Path) -> None:
    job = overshooting(rule)
    expected = alone(tmp_path / "alone", job)
    assert expected.outcome.selected == 2
    last = alone(tmp_path / "last", overshooting(rule, evaluation__select="last"))
    assert max(gap(last.states[site], expected.states[site]) for site in SITES) > 0.01
    engine = adverse_engine(tmp_path / "sites", job, Plain(), plan=seeded(1, NOISE), seed=1)
    assert_same(kept(tmp_path / "run", job, engine, Plain()), expected, ROUNDING)


@pytest.mark.parametrize("rule", RATES)
@pytest.mark.parametrize("seed", [5, 6, 7])
def test_sites_that_were_away_keep_the_last_state_that_counted_before_it(rule: str, seed: int, tmp_path: Path) -> None:
    job = overshooting(rule, participation={"attempts": 20, "quorum": 2}, training__rounds=6)
    given = alone(tmp_path / "alone", job).outcome.preprocessing
    assert isinstance(given, Preprocessing)
    plan = seeded(seed, {**NOISE, **LOSS}, task=messages.TRAIN)
    engine = adverse_engine(tmp_path / "sites", job, Plain(), plan=plan, seed=seed)
    found = kept(tmp_path / "run", job, engine, Plain(), given)
    assert len(set(found.survivors)) > 1
    fewer = Restricted(local_engine(job, Plain()), found.survivors)
    assert_same(found, kept(tmp_path / "fewer", job, fewer, Plain(), given), ROUNDING)


@pytest.mark.parametrize("every", [1, 2, 3])
def test_a_part_of_the_sites_a_round_and_figures_of_few_rounds(every: int, tmp_path: Path) -> None:
    job = overshooting(
        "own head bias", participation={"count": 2}, evaluation__every=every, training__rounds=7,
        training__optimizer={"learning_rate": 4.0}, seed=5,
    )  # fmt: skip
    expected = alone(tmp_path / "alone", job)
    assert expected.outcome.selected == every
    engine = adverse_engine(tmp_path / "sites", job, Plain(), plan=seeded(every, NOISE))
    assert_same(kept(tmp_path / "run", job, engine, Plain()), expected, ROUNDING)


def test_a_site_that_missed_the_last_evaluation_goes_back_as_the_others_do(tmp_path: Path) -> None:
    job = overshooting("fedbn")
    lost = scripted({(5, 0, "site-2"): {"crash before"}}, task=messages.EVALUATE)
    engine = adverse_engine(tmp_path / "sites", job, Plain(), plan=lost)
    found, expected = kept(tmp_path / "run", job, engine, Plain()), alone(tmp_path / "alone", job)
    assert gap(found.outcome.overlay, expected.outcome.overlay) <= ROUNDING
    assert gap(found.states["site-2"], expected.states["site-2"]) <= ROUNDING


def test_a_site_that_missed_the_averaging_is_judged_by_its_state_of_the_kept_round(tmp_path: Path) -> None:
    job = overshooting("fedbn")

    def plan(call: Any) -> frozenset[Fault]:
        away = call.site == "site-2" and (call.task, call.index) in (("evaluate", 5), ("overlay", 5))
        return frozenset({"crash before"} if away else ())

    engine = adverse_engine(tmp_path / "sites", job, Plain(), plan=plan)
    found, expected = kept(tmp_path / "run", job, engine, Plain()), alone(tmp_path / "alone", job)
    assert gap(found.states["site-2"], expected.states["site-2"]) <= ROUNDING
    assert_same_figures(found, expected, ROUNDING)


@pytest.mark.parametrize("channel", ["toy", "secagg", "active", "masked he"])
def test_a_channel_that_hides_tells_sites_the_same(channel: str, tmp_path: Path) -> None:
    job = overshooting("own head bias")
    plan: Plan = seeded(3, {"duplicated": 0.3, "late copy": 0.3})
    if channel == "toy":
        toy = ToyMasks()
        engine = adverse_engine(tmp_path / "sites", job, toy, plan=plan)
        found = kept(tmp_path / "run", job, engine, toy)
    else:
        secure = channel_of(channel)
        engine = adverse_engine(tmp_path / "sites", job, secure, plan=plan, halves=homes(secure))
        found = kept(tmp_path / "run", job, engine, secure)
    assert_same(found, alone(tmp_path / "alone", job), FIXED_POINT)


class Killed(Exception):
    """The server's process is gone."""


@pytest.mark.parametrize(
    ("event", "round"), [("round", 0), ("round", 2), ("round", 3), ("round", 4), ("selected", None)]
)
def test_a_resumed_server_goes_back_to_the_same_round(event: str, round: int | None, tmp_path: Path) -> None:
    job = overshooting("fedbn")

    def die(told: Mapping[str, Any]) -> None:
        if told["event"] == event and told.get("round") == round:
            raise Killed

    engine = adverse_engine(tmp_path / "sites", job, Plain(), plan=seeded(8, {"crash after": 0.3, "duplicated": 0.2}))
    first = federation(tmp_path / "run", job, engine, Plain(), listener=die)
    with pytest.raises(Killed):
        first.train()
    first._run.close()
    assert_same(kept(tmp_path / "run", job, engine, Plain()), alone(tmp_path / "alone", job), ROUNDING)


@pytest.mark.parametrize("completed", [2, 3, 5])
def test_a_server_that_died_before_its_commit_goes_back_to_the_same_round(completed: int, tmp_path: Path) -> None:
    job = overshooting("fedbn")
    engine = adverse_engine(tmp_path / "sites", job, Plain())
    first = federation(tmp_path / "run", job, engine, Plain())
    commit = first._run.commit

    def dying(rounds: int, *arguments: Any, **options: Any) -> None:
        if rounds == completed:
            raise Killed
        commit(rounds, *arguments, **options)

    first._run.commit = dying  # type: ignore[method-assign]
    with pytest.raises(Killed):
        first.train()
    first._run.close()
    assert_same(kept(tmp_path / "run", job, engine, Plain()), alone(tmp_path / "alone", job), ROUNDING)


def test_a_site_holds_two_states_while_it_trains_and_one_in_the_end(tmp_path: Path) -> None:
    job = overshooting("fedbn")
    engine = adverse_engine(tmp_path / "sites", job, Plain(), plan=peaceful)
    seen: list[list[str]] = []

    def watching(told: Mapping[str, Any]) -> None:
        seen.append(sorted(file.name for file in (tmp_path / "sites" / "site-1" / "state").iterdir()))

    server = federation(tmp_path / "run", job, engine, Plain(), listener=watching)
    finished(server, engine)
    seen.append(sorted(file.name for file in (tmp_path / "sites" / "site-1" / "state").iterdir()))
    each = [[name.removesuffix(".safetensors") for name in names] for names in seen]
    # after setup, after each round, once the best round, 2, is chosen, and in the end
    assert each == [
        [], ["pending"], ["pending", "state-00001"], ["pending", "state-00001", "state-00002"],
        ["pending", "state-00002", "state-00003"], ["pending", "state-00002", "state-00004"],
        ["state-00002", "state-00005"], ["state-00002"],
    ]  # fmt: skip


def test_sites_that_keep_nothing_are_told_nothing_more(tmp_path: Path) -> None:
    job = a_job("fedavg", evaluation__select="loss")
    engine = local_engine(job, Plain())
    ask, told = engine.ask, set[str]()

    def listening(request: Any, *rest: Any) -> Any:
        told.update(request.message.meta)
        return ask(request, *rest)

    engine.ask = listening  # type: ignore[method-assign]
    kept(tmp_path / "run", job, engine, Plain())
    assert "task" in told
    assert not told & {messages.BEST, messages.SELECTED}

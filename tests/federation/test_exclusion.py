"""A site that gives what no sum may hold is left out and named; the round goes on while the quorum holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from channels.toy_masks import ToyMasks
from federation.adverse import Call
from federation.trials import (
    SITES,
    Restricted,
    a_job,
    adverse_engine,
    data_of,
    federation,
    gap,
    local_engine,
    plain,
    trained,
    with_huge_values,
)
from wardround.aggregation.weighting import WEIGHT
from wardround.channels.plain import Plain
from wardround.config.job import Job
from wardround.data.preprocess import Preprocessing
from wardround.errors import MessageError, QuorumLost
from wardround.federation import messages
from wardround.federation.site import Host
from wardround.store.states import StateFile
from wardround.types import Message, Request, SiteData

BAD = "site-3"
OTHERS = tuple(site for site in SITES if site != BAD)


def poisoned(job: Job, given: Preprocessing | None) -> dict[str, SiteData]:
    """Everyone's records, those of one site in units that overflow."""
    assert given is not None
    data = data_of(job)[1]
    return {**data, BAD: with_huge_values(data[BAD], given)}


def rows_of(job: Job, sites: tuple[str, ...], split: int) -> int:
    data = data_of(job)[1]
    return sum(int(np.sum(data[site].split == split)) for site in sites)


# ----------------------------------------------------------------------------------------- the site's own abstention


@pytest.mark.parametrize("rule", ["scaffold", "own head bias"])
@pytest.mark.parametrize("where", ["one chunk", "chunks", "bytes", "masks", "masks behind bytes"])
def test_a_site_whose_update_is_not_finite_abstains(rule: str, where: str, tmp_path: Path) -> None:
    job = a_job(rule)
    given = plain(tmp_path / "plain", job).outcome.preprocessing
    channel = ToyMasks() if "masks" in where else Plain()
    data = poisoned(job, given)
    if "bytes" in where:
        engine: Any = adverse_engine(tmp_path / "sites", job, channel, data=data)
    else:
        engine = local_engine(job, channel, 2 if where == "chunks" else None, data)
    found = trained(tmp_path / "run", job, engine, channel, given)

    assert found.survivors == [OTHERS] * 3
    for record in found.records[1:]:
        assert set(record["abstained"]) == {BAD}
        assert "non-finite" in record["abstained"][BAD]
    # its figures are not in those of the final model either, and do not spoil those of the sites beside it
    final = found.history[-1]["validation"]
    assert final["rows"] == rows_of(job, OTHERS, 1)
    fewer = trained(tmp_path / "fewer", job, Restricted(local_engine(job, Plain()), [OTHERS] * 3), preprocessing=given)
    tolerance = 1e-5 if "masks" in where else 1e-12
    assert gap(found.outcome.server.model.params, fewer.outcome.server.model.params) <= tolerance
    assert gap(found.outcome.server.rule, fewer.outcome.server.rule) <= tolerance
    for site in SITES:
        assert gap(found.states[site], fewer.states[site]) <= tolerance


@pytest.mark.parametrize("where", ["one process", "bytes"])
def test_a_plug_in_rule_that_diverges_at_one_site_abstains_there(where: str, tmp_path: Path) -> None:
    steps = {site: -(-rows_of(a_job(), (site,), 0) // 16) for site in SITES}
    most = max(steps.values())
    diverging = [site for site, taken in steps.items() if taken == most]
    job = a_job(algorithm={"name": "federation.diverging:Diverging", "options": {"steps": most}})
    if where == "bytes":
        engine: Any = adverse_engine(tmp_path / "sites", job, Plain())
    else:
        engine = local_engine(job, Plain())
    found = trained(tmp_path / "run", job, engine)
    assert 0 < len(diverging) < len(SITES)
    for record in found.records[1:]:
        assert record["abstained"] == dict.fromkeys(diverging, "a non-finite value in marker/value")
        assert record["missing"] == diverging


def test_a_lost_quorum_names_the_sites_and_why(tmp_path: Path) -> None:
    job = a_job(participation={"quorum": 5, "attempts": 2})
    given = plain(tmp_path / "plain", a_job()).outcome.preprocessing
    events: list[Mapping[str, Any]] = []
    server = federation(
        tmp_path / "run", job, local_engine(job, Plain(), 1, poisoned(job, given)), Plain(), given, events.append
    )
    with pytest.raises(QuorumLost, match=r"round 0, after 2 attempts: 4 of 5 .* site-3: a non-finite value") as caught:
        server.train()
    assert caught.value.exit_code == 4
    assert [event["event"] for event in events] == ["setup", "retry"]


def test_a_lost_quorum_names_the_silent_sites(tmp_path: Path) -> None:
    job = a_job(participation={"quorum": 5, "attempts": 1})
    engine = adverse_engine(
        tmp_path / "sites", job, Plain(),
        plan=lambda call: frozenset({"lost"}) if (call.task, call.site) == ("train", "site-2") else frozenset(),
    )  # fmt: skip
    with pytest.raises(QuorumLost, match=r"4 of 5 .* site-2: no reply"):
        trained(tmp_path / "run", job, engine)


# ----------------------------------------------------------------------------------------- the server's exclusion


def nan_in_it(message: Message) -> Message:
    return replace(message, arrays={n: v.clone().fill_(float("nan")) for n, v in message.arrays.items()})


def other_shape(message: Message) -> Message:
    name = "step/linear.weight"
    return replace(message, arrays={**message.arrays, name: message.arrays[name][:, 1:]})


def other_names(message: Message) -> Message:
    return replace(message, arrays={**message.arrays, "extra/value": torch.ones(1, dtype=torch.float64)})


def missing_name(message: Message) -> Message:
    return replace(message, arrays={n: v for n, v in message.arrays.items() if n != f"step/{WEIGHT}"})


def other_dtype(message: Message) -> Message:
    return replace(message, arrays={n: v.float() for n, v in message.arrays.items()})


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (nan_in_it, "non-finite"),
        (other_shape, "other names, shapes or dtypes"),
        (other_names, "other names, shapes or dtypes"),
        (missing_name, "other names, shapes or dtypes"),
        (other_dtype, "other names, shapes or dtypes"),
    ],
)
@pytest.mark.parametrize("bad", ["site-1", "site-4"])
def test_a_reply_that_cannot_be_added_is_left_out_and_named(
    spoil: Callable[[Message], Message], reason: str, bad: str, tmp_path: Path
) -> None:
    job = a_job("scaffold", training__rounds=2)

    def tamper(call: Call, message: Message) -> Message:
        return spoil(message) if (call.site, call.task, call.index) == (bad, "train", 1) else message

    found = trained(tmp_path / "run", job, adverse_engine(tmp_path / "sites", job, Plain(), tamper=tamper))
    others = tuple(site for site in SITES if site != bad)
    assert found.survivors == [SITES, others]
    assert found.records[2]["abstained"].keys() == {bad}
    assert reason in found.records[2]["abstained"][bad]
    fewer = trained(tmp_path / "fewer", job, Restricted(local_engine(job, Plain()), [SITES, others]))
    assert gap(found.outcome.server.model.params, fewer.outcome.server.model.params) <= 1e-12
    for site in SITES:
        assert gap(found.states[site], fewer.states[site]) <= 1e-12


def test_a_site_speaks_for_itself_alone(tmp_path: Path) -> None:
    job = a_job(training__rounds=1)

    def slander(call: Call, message: Message) -> Message:
        if (call.site, call.task) != ("site-2", "train"):
            return message
        return replace(message, meta={**message.meta, "abstained": {"site-1": "is down"}})

    found = trained(tmp_path / "run", job, adverse_engine(tmp_path / "sites", job, Plain(), tamper=slander))
    assert found.survivors == [SITES]
    assert found.records[1]["abstained"] == {}


# ----------------------------------------------------------------------------------------- what a site does not know


def test_an_unknown_stage_or_task_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    job = a_job("scaffold")
    engine = adverse_engine(tmp_path / "sites", job, Plain())
    hospital = engine.hospitals["site-1"]
    server = federation(tmp_path / "run", job, engine, Plain())
    server.train()
    host = hospital.host()
    states = host.states
    assert isinstance(states, StateFile)
    kept = {name: value + 1.0 for name, value in states.read(("site-1",), host.network.initial_state).items()}
    states.stage(7, ("site-1",), kept)

    round = server._round(8, len(SITES))
    with pytest.raises(MessageError, match="stage 'advertise' is unknown"):
        list(host.answer(Request(message=Message(stage="advertise")), ("site-1",)))
    with pytest.raises(MessageError, match="task 'unlearn' is unknown"):
        list(host.answer(messages.ask_for("unlearn", round, {}, {"site-1": 7}), ("site-1",)))
    assert states.journal(7, ("site-1",))[0] == ("site-1",)


def test_a_task_before_the_preprocessing_is_refused(tmp_path: Path) -> None:
    job = a_job()
    host: Host = local_engine(job, Plain()).host
    server = federation(tmp_path / "run", job, local_engine(job, Plain()), Plain())
    with pytest.raises(MessageError, match="before `prepare`"):
        list(host.answer(messages.ask_for("train", server._round(0, 5), {}), SITES))

"""Other engines and channels fit: sites behind bytes and faults, and masked sums, give the model that one process gives."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from channels.toy_masks import BITS, ToyMasks
from federation.adverse import AdverseEngine, Call, Fault, scripted, seeded
from federation.trials import (
    FEATURES,
    RULES,
    SITES,
    Restricted,
    Trained,
    a_job,
    adverse_engine,
    assert_same,
    data_of,
    federation,
    gap,
    local_engine,
    moved,
    plain,
    trained,
)
from wardround import wire
from wardround.channels.plain import Plain
from wardround.federation import messages
from wardround.federation.site import Host
from wardround.types import Message, Request

ROUNDING = 1e-12
"""Sums of float64 in another order."""
FIXED_POINT = 1e-5
"""Far above 2^-31 a number, since training amplifies what rounding begins (SCAFFOLD divides by the learning rate)."""
NOISE: dict[Fault, float] = {"duplicated": 0.3, "late copy": 0.3, "asked twice": 0.3}
LOSS: dict[Fault, float] = {"lost": 0.15, "late": 0.15, "crash before": 0.15, "crash after": 0.3}
LOSS_IN_EACH_OF_THREE: dict[Fault, float] = {"lost": 0.04, "late": 0.04, "crash before": 0.04, "crash after": 0.06}


@pytest.fixture(scope="module", params=RULES)
def reference(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Trained]:
    """Each rule's run in one process."""
    run = plain(tmp_path_factory.mktemp("plain") / "run", a_job(request.param))
    assert moved(run) > 0.01
    return request.param, run


# ----------------------------------------------------------------------------------------------- nothing lost


def test_sites_behind_bytes_give_the_same_model(reference: tuple[str, Trained], tmp_path: Path) -> None:
    rule, expected = reference
    job = a_job(rule)
    engine = adverse_engine(tmp_path / "sites", job, Plain(), plan=seeded(1, {**NOISE, "crash after": 0.2}), seed=1)
    assert_same(trained(tmp_path / "run", job, engine), expected, ROUNDING)


def test_masked_sums_give_the_same_model(reference: tuple[str, Trained], tmp_path: Path) -> None:
    rule, expected = reference
    job = a_job(rule)
    found = trained(tmp_path / "run", job, local_engine(job, ToyMasks(), chunk=2), ToyMasks())
    assert_same(found, expected, FIXED_POINT)


@pytest.mark.parametrize("rule", ["fedavg", "scaffold", "own head bias"])
def test_masked_sums_behind_bytes_give_the_same_model(rule: str, tmp_path: Path) -> None:
    job = a_job(rule)
    engine = adverse_engine(tmp_path / "sites", job, ToyMasks(), plan=seeded(2, NOISE), seed=2)
    found = trained(tmp_path / "run", job, engine, ToyMasks())
    assert_same(found, plain(tmp_path / "plain", job), FIXED_POINT)
    assert {answer.call.stage for answer in engine.answers} >= {"advertise", "contribute", "unmask"}


def test_a_masked_sum_is_off_by_its_fixed_point_and_no_more(tmp_path: Path) -> None:
    # A weighed step of N sites is off by at most N 2^-(BITS + 1) in each of its d numbers. Fractions n_k / 2^m are exact,
    # so the mean step is off by that over W = sum n_k / max_weight, and in length by sqrt(d) as much. A gradient step on
    # the convex logistic loss, of curvature at most (|x|^2 + 1) / 4, brings no two models further apart where learning
    # rate x curvature <= 2. So R rounds end at most R sqrt(d) N 2^-(BITS + 1) / W apart.
    job = a_job(training__optimizer={"learning_rate": 0.01})
    expected = plain(tmp_path / "plain", job)
    given = expected.outcome.preprocessing
    assert given is not None
    data = data_of(job)[1]
    norms = [np.square(given.transform(site.features)).sum(axis=1).max() for site in data.values()]
    assert 0.01 * (max(norms) + 1.0) / 4.0 <= 2.0

    found = trained(tmp_path / "masks", job, local_engine(job, ToyMasks()), ToyMasks(), given)
    rows = sum(int((site.split == 0).sum()) for site in data.values() if site.split is not None)
    share = rows / expected.outcome.max_weight
    bound = 3 * math.sqrt(FEATURES + 1) * len(SITES) * 2.0 ** -(BITS + 1) / share
    a, b = found.outcome.server.model.params, expected.outcome.server.model.params
    apart = math.sqrt(sum(float((value - b[name]).square().sum()) for name, value in a.items()))
    assert 0.0 < apart <= bound


def test_masked_sums_keep_the_dtype_of_the_model(tmp_path: Path) -> None:
    job = a_job(training__dtype="float32", training__rounds=2)
    found = trained(tmp_path / "run", job, local_engine(job, ToyMasks()), ToyMasks())
    assert {value.dtype for value in found.outcome.server.model.params.values()} == {torch.float32}
    assert_same(found, plain(tmp_path / "plain", job), FIXED_POINT)


def test_a_mask_hides_a_single_reply_from_the_fold(tmp_path: Path) -> None:
    job = a_job(training__rounds=1)
    engine = adverse_engine(tmp_path / "sites", job, ToyMasks())
    trained(tmp_path / "run", job, engine, ToyMasks())
    sent = [wire.decode(a.data) for a in engine.answers if a.call.stage == "contribute" and a.call.task == "train"]
    assert len(sent) == len(SITES)
    for message in sent:
        # unmasked, a step of less than 8 would stay below 2^33; a uniform number of 64 bits does so once in 2^30
        assert float(message.arrays["step/linear.weight"].abs().min()) > 2.0**33


@pytest.mark.parametrize("chunk", [1, 2])
def test_chunks_give_the_same_model(reference: tuple[str, Trained], chunk: int, tmp_path: Path) -> None:
    rule, expected = reference
    job = a_job(rule)
    assert_same(trained(tmp_path / "run", job, local_engine(job, Plain(), chunk)), expected, ROUNDING)


def test_the_kept_model_is_the_same_where_validation_chooses_it(tmp_path: Path) -> None:
    # so long a step that the third round is worse than the second
    job = a_job(evaluation__select="loss", training__optimizer={"learning_rate": 2.0}, training__rounds=4)
    engine = adverse_engine(tmp_path / "sites", job, Plain(), plan=seeded(3, NOISE))
    found, expected = trained(tmp_path / "run", job, engine), plain(tmp_path / "plain", job)
    assert expected.outcome.selected == 2
    assert_same(found, expected, ROUNDING)


# ----------------------------------------------------------------------------------------------- replies lost


@pytest.mark.parametrize("rule", ["fedavg", "scaffold", "own head bias"])
@pytest.mark.parametrize(
    ("channel", "loss", "tolerance"), [(Plain, LOSS, ROUNDING), (ToyMasks, LOSS_IN_EACH_OF_THREE, FIXED_POINT)]
)
def test_what_is_lost_leaves_the_run_of_the_others(
    rule: str, channel: type[Plain] | type[ToyMasks], loss: dict[Fault, float], tolerance: float, tmp_path: Path
) -> None:
    job = a_job(rule, participation={"attempts": 20}, training__rounds=4)
    given = plain(tmp_path / "plain", job).outcome.preprocessing
    engine = adverse_engine(
        tmp_path / "sites", job, channel(), plan=seeded(5, {**NOISE, **loss}, task=messages.TRAIN), seed=5
    )
    found = trained(tmp_path / "run", job, engine, channel(), given)
    counted = found.survivors
    assert any(len(sites) < len(SITES) for sites in counted)
    assert len(set(counted)) > 1

    fewer = Restricted(local_engine(job, Plain()), counted)
    assert_same(found, trained(tmp_path / "fewer", job, fewer, preprocessing=given), tolerance)
    if channel is ToyMasks:
        # a survivor of `contribute` that is gone in `unmask` costs an attempt: the run has been through that, too
        assert max(answer.call.attempt for answer in engine.answers) > 0
        assert any("advertised no key" in reason for h in engine.hospitals.values() for reason in h.refusals)


def test_both_passes_of_the_statistics_are_summed_over_the_same_sites(tmp_path: Path) -> None:
    # site-2 adds to the counts and sums, and its squares are lost; the others' squares about the mean with site-2 come
    # once more when those about the mean without it are asked for
    job = a_job(training__rounds=1)
    faults: dict[tuple[int, int, str], set[Fault]] = {(-1, 0, site): {"later copy"} for site in SITES}
    faults[-1, 0, "site-2"] = {"late"}
    engine = adverse_engine(tmp_path / "sites", job, Plain(), plan=scripted(faults, task=messages.STATISTICS))
    found = trained(tmp_path / "run", job, engine).outcome.preprocessing
    assert found is not None
    others = [site.features[site.split == 0] for name, site in data_of(job)[1].items() if name != "site-2"]
    rows = np.concatenate(others)
    np.testing.assert_allclose(found.mean, rows.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.scale, rows.std(axis=0), rtol=1e-10)


def test_an_overlay_is_of_the_last_counted_round_where_a_site_missed_the_evaluation(tmp_path: Path) -> None:
    job = a_job("own head bias")
    lost = scripted({(3, 0, "site-2"): {"crash before"}}, task=messages.EVALUATE)
    found = trained(tmp_path / "run", job, adverse_engine(tmp_path / "sites", job, Plain(), plan=lost))
    expected = plain(tmp_path / "plain", job)
    assert expected.overlay
    assert gap(found.overlay, expected.overlay) <= ROUNDING
    assert gap(found.states["site-2"], expected.states["site-2"]) <= ROUNDING


# ----------------------------------------------------------------------------------------------- attempts


def test_a_retried_attempt_sends_the_same_bytes_and_trains_nobody_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = a_job("scaffold", participation={"quorum": 3})
    expected = trained(tmp_path / "calm", job, adverse_engine(tmp_path / "calm-sites", job, Plain()))

    trainings: list[tuple[str, int]] = []
    train = Host._train

    def counting(host: Host, sites: tuple[str, ...], message: Message, round: Any, question: str) -> Any:
        trainings.extend((site, round.index) for site in sites)
        return train(host, sites, message, round, question)

    monkeypatch.setattr(Host, "_train", counting)
    faults: dict[tuple[int, int, str], set[Fault]] = {
        (1, 0, "site-1"): {"crash after"},
        (1, 0, "site-2"): {"lost"},
        (1, 0, "site-3"): {"lost", "crash after"},
        (1, 0, "site-4"): {"crash before"},
    }
    engine = adverse_engine(tmp_path / "sites", job, Plain(), plan=scripted(faults))
    events: list[Mapping[str, Any]] = []
    found = trained(tmp_path / "run", job, engine, listener=events.append)

    assert [(e["round"], e["attempt"]) for e in events if e["event"] == "retry"] == [(1, 1)]
    sent = {
        attempt: {
            answer.call.site: answer.data
            for answer in engine.answers
            if (answer.call.task, answer.call.index, answer.call.attempt) == ("train", 1, attempt)
        }
        for attempt in (0, 1)
    }
    assert sent[0].keys() == {"site-1", "site-2", "site-3", "site-5"}
    assert {site: sent[1][site] for site in sent[0]} == sent[0]
    assert sorted(trainings) == sorted((site, index) for site in SITES for index in range(3))
    assert_same(found, expected, 0.0)


def test_a_retried_attempt_under_masks_gives_the_same_model(tmp_path: Path) -> None:
    job = a_job("scaffold", participation={"quorum": 4})
    lost = scripted({(1, 0, "site-2"): {"lost"}, (1, 0, "site-3"): {"late"}, (1, 0, "site-4"): {"late"}})
    engine = adverse_engine(tmp_path / "sites", job, ToyMasks(), plan=lost)
    found = trained(tmp_path / "run", job, engine, ToyMasks())
    assert max(answer.call.attempt for answer in engine.answers) == 1
    assert_same(found, plain(tmp_path / "plain", job), FIXED_POINT)


class Killed(Exception):
    """The server's process is gone."""


def test_a_resumed_server_finds_its_sites_where_they_are(tmp_path: Path) -> None:
    job = a_job("scaffold", training__rounds=4)
    plan = seeded(7, {"lost": 0.2, "crash after": 0.3, "duplicated": 0.2}, task=messages.TRAIN)
    whole = trained(tmp_path / "whole", job, adverse_engine(tmp_path / "whole-sites", job, Plain(), plan=plan))
    assert any(len(sites) < len(SITES) for sites in whole.survivors)

    def die(event: Mapping[str, Any]) -> None:
        if event.get("round") == 1:
            raise Killed

    engine = adverse_engine(tmp_path / "sites", job, Plain(), plan=plan)
    first = federation(tmp_path / "run", job, engine, Plain(), listener=die)
    with pytest.raises(Killed):
        first.train()
    first._run.close()
    assert_same(trained(tmp_path / "run", job, engine), whole, 0.0)


def test_a_server_that_died_before_its_commit_hears_the_same_replies_again(tmp_path: Path) -> None:
    job = a_job("scaffold")
    expected = trained(tmp_path / "calm", job, adverse_engine(tmp_path / "calm-sites", job, Plain()))
    engine = adverse_engine(tmp_path / "sites", job, Plain())
    first = federation(tmp_path / "run", job, engine, Plain())
    commit = first._run.commit

    def dying(completed: int, *arguments: Any, **options: Any) -> None:
        if completed == 2:
            raise Killed
        commit(completed, *arguments, **options)

    first._run.commit = dying  # type: ignore[method-assign]
    with pytest.raises(Killed):
        first.train()
    first._run.close()
    assert_same(trained(tmp_path / "run", job, engine), expected, 0.0)
    sent = [a.data for a in engine.answers if (a.call.task, a.call.index, a.call.site) == ("train", 1, "site-3")]
    assert len(sent) == 2
    assert sent[0] == sent[1]


# ----------------------------------------------------------------------------------------------- bytes


@pytest.mark.parametrize("channel", [Plain, ToyMasks])
@pytest.mark.parametrize("rule", ["fedavg", "scaffold", "own head bias"])
def test_the_meter_counts_what_crosses(rule: str, channel: type[Plain] | type[ToyMasks], tmp_path: Path) -> None:
    job = a_job(rule)
    engine = adverse_engine(tmp_path / "sites", job, channel())
    server = federation(tmp_path / "run", job, engine, channel())
    server.train()
    up = sum(len(answer.data) for answer in engine.answers)
    assert (server.engine.up, server.engine.down) == (up, engine.down)
    assert engine.up == up

    for chunk in (2, 5):
        simulated = federation(tmp_path / f"local-{chunk}", job, local_engine(job, channel(), chunk), channel())
        simulated.train()
        assert (simulated.engine.up, simulated.engine.down) == (up, engine.down)


# ----------------------------------------------------------------------------------------------- what a site sees


def test_a_site_sees_its_own_facts_alone(tmp_path: Path) -> None:
    job = a_job("scaffold")
    lost = scripted({(1, 0, "site-2"): {"lost"}})
    engine = adverse_engine(tmp_path / "sites", job, Plain(), plan=lost)
    seen: dict[tuple[str, int], Any] = {}
    for hospital in engine.hospitals.values():
        answer = hospital.answer

        def watching(data: bytes, site: str = hospital.site, answer: Any = answer) -> Any:
            meta = wire.decode(data).meta
            if meta.get("task") == "train":
                seen[site, meta["round"]["index"]] = meta.get("facts")
            return answer(data)

        hospital.answer = watching  # type: ignore[method-assign]
    trained(tmp_path / "run", job, engine)
    assert [seen["site-1", t] for t in range(3)] == [None, {"counted": 0}, {"counted": 1}]
    assert [seen["site-2", t] for t in range(3)] == [None, {"counted": 0}, {"counted": 0}]


def test_a_call_names_its_fault_the_same_in_every_run() -> None:
    plan = seeded(1, NOISE)
    calls = [Call(site=site, stage="contribute", task="train", index=t) for site in SITES for t in range(20)]
    struck = [plan(call) for call in calls]
    assert struck == [seeded(1, NOISE)(call) for call in calls]
    assert struck != [seeded(2, NOISE)(call) for call in calls]
    assert {fault for faults in struck for fault in faults} == set(NOISE)


def test_a_lone_site_takes_up_its_preprocessing_after_a_crash(tmp_path: Path) -> None:
    job = a_job()
    engine: AdverseEngine = adverse_engine(tmp_path / "sites", job, Plain())
    trained(tmp_path / "run", job, engine)
    before = engine.hospitals["site-1"].host().records.rows(("site-1",), "train").features
    engine.hospitals["site-1"].crash()
    after = engine.hospitals["site-1"].host().records.rows(("site-1",), "train").features
    assert torch.equal(before, after)


def test_what_a_channel_adds_to_a_request_is_no_part_of_the_model() -> None:
    arrays = {"params/a": torch.ones(2), "rule/b": torch.ones(3), "channel/keys": torch.ones(4), "keys": torch.ones(1)}
    server = messages.server_from(arrays)
    assert (set(server.model.params), set(server.model.buffers), set(server.rule)) == ({"a"}, set(), {"b"})


def test_a_request_crosses_and_comes_back_whole() -> None:
    request = Request(
        message=Message(stage="contribute", meta={"task": "train"}, arrays={"params/a": torch.arange(3.0)}),
        facts={"counted": {"site-1": 4, "site-2": 5}},
    )
    crossed = wire.decode(wire.encode(messages.for_site(request, "site-1")))
    assert crossed.meta == {"task": "train", "facts": {"counted": 4}}
    assert torch.equal(crossed.arrays["params/a"], torch.arange(3.0))

"""Channels that hide, whole: encoding, masks and carrier under the round loop, against the plain channel."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from federation.adverse import Call, Fault, scripted, seeded
from federation.trials import (
    RULES,
    SITES,
    Trained,
    a_job,
    adverse_engine,
    assert_same,
    gap,
    local_engine,
    plain,
    trained,
)
from wardround.channels import registry
from wardround.channels.exchange import EXCHANGE
from wardround.channels.home import Home
from wardround.channels.secagg.site import MaskSite
from wardround.channels.secure import SecureChannel
from wardround.config.job import Job, PrivacySpec
from wardround.errors import ConfigError, MessageError, QuorumLost, Refused
from wardround.experiment import run
from wardround.store.run import Run
from wardround.types import Contribution, Message, Reply, Request, SiteHalf, Term, Total

COARSE = 2e-3
"""What training makes of 16 bits in some rounds; FedNova and Adam amplify."""
KINDS = ("secagg", "active", "bare he", "masked he")


def channel_of(kind: str, bits: int | None = None, **options: object) -> SecureChannel:
    spec = {
        "secagg": {"kind": "secagg", "options": options},
        "active": {"kind": "secagg", "options": {"active": True, **options}},
        "bare he": {"kind": "he", "options": {"masks": False, **options}},
        "masked he": {"kind": "he", "options": {"masks": True, **options}},
    }[kind]
    built = registry.build(PrivacySpec.model_validate({"channel": spec, "encoding": {"bits": bits}}))
    assert isinstance(built, SecureChannel)
    return built


def homes(channel: SecureChannel, sites: Sequence[str] = SITES) -> Callable[[Path, str], SiteHalf]:
    """Sites with identities of their own, and a disk on which their channel's state outlives them."""
    known = Home.simulated(sites)

    def half(folder: Path, site: str) -> SiteHalf:
        own = Home(identities={site: known.identities[site]}, pins=known.pins, folder=folder / "channel")
        return channel.half_at(own)

    return half


def hidden(folder: Path, job: Job, kind: str, bits: int | None = None) -> Trained:
    channel = channel_of(kind, bits)
    return trained(folder, job, local_engine(job, channel), channel)


# ----------------------------------------------------------------------------------------------- the same model


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_goes_through_unchanged(rule: str, tmp_path: Path) -> None:
    job = a_job(rule)
    expected = plain(tmp_path / "plain", job)
    found = hidden(tmp_path / "run", job, "secagg", bits=24)
    assert_same(found, expected, 0.02 if rule == "adam" else COARSE)


@pytest.mark.parametrize("kind", KINDS)
def test_the_sum_is_the_plain_sum(kind: str, tmp_path: Path) -> None:
    job = a_job("scaffold")
    found = hidden(tmp_path / "run", job, kind)
    assert_same(found, plain(tmp_path / "plain", job), COARSE)


def test_figures_and_statistics_are_exact(tmp_path: Path) -> None:
    job = a_job("fedavg", training__rounds=1)
    found, expected = hidden(tmp_path / "run", job, "secagg", bits=8), plain(tmp_path / "plain", job)
    for name in ("fill", "scale"):
        mine, theirs = found.records[0]["preprocessing"][name], expected.records[0]["preprocessing"][name]
        assert mine == pytest.approx(theirs, rel=1e-13)
    mine, theirs = found.records[1]["train_loss"], expected.records[1]["train_loss"]
    assert mine == pytest.approx(theirs, rel=1e-12)


def test_fewer_bits_are_coarser_and_unbiased_rounding_still_learns(tmp_path: Path) -> None:
    job = a_job()
    expected = plain(tmp_path / "plain", job)
    off = {}
    for bits in (8, 16, 24):
        found = hidden(tmp_path / str(bits), job, "secagg", bits)
        off[bits] = gap(found.outcome.server.model.params, expected.outcome.server.model.params)
    assert off[24] < off[16] < off[8] < 0.1


def test_the_range_of_values_follows_what_was_summed(tmp_path: Path) -> None:
    found = hidden(tmp_path / "run", a_job(), "secagg")
    scales = [record["channel"]["scales"]["train"] for record in found.records[1:]]
    assert set(scales[0]) == {"step/linear.weight", "step/linear.bias"}
    assert all(-40 < exponent < 5 for of in scales for exponent in of.values())
    assert all(record["encoding"]["clipped"] == 0 for record in found.records[1:])


@pytest.mark.parametrize("bits", [8, 16])
def test_what_the_server_adds_up_stays_what_the_sites_added_up(bits: int, tmp_path: Path) -> None:
    # SCAFFOLD's c is the mean of the c_k for good: no rounding, and nothing cut off, may add up over the rounds
    job = a_job("scaffold", training__rounds=12, training__optimizer={"learning_rate": 0.2})
    found = hidden(tmp_path / "run", job, "secagg", bits)
    for name, value in found.outcome.server.rule.items():
        mean = torch.stack([state[name] for state in found.states.values()]).mean(0)
        apart = float((value - mean).abs().max())
        assert apart < 12 * 2.0 ** (9 - 2 * bits) * float(value.abs().max()) + 1e-12


# ----------------------------------------------------------------------------------------------- what breaks


@pytest.mark.parametrize("kind", KINDS)
def test_sites_behind_bytes_that_repeat_themselves(kind: str, tmp_path: Path) -> None:
    job, channel = a_job("scaffold", training__rounds=2), channel_of(kind)
    noise: dict[Fault, float] = {"duplicated": 0.3, "late copy": 0.3}
    engine = adverse_engine(tmp_path / "sites", job, channel, plan=seeded(2, noise), seed=2, halves=homes(channel))
    found = trained(tmp_path / "run", job, engine, channel)
    assert_same(found, plain(tmp_path / "plain", job), COARSE)


@pytest.mark.parametrize("kind", ["secagg", "active", "masked he"])
def test_a_site_that_drops_out_is_left_out_of_the_sum(kind: str, tmp_path: Path) -> None:
    job, channel = a_job(), channel_of(kind)
    lost = {(1, 0, "site-2"): {"lost"}, (2, 0, "site-4"): {"crash before"}}
    engine = adverse_engine(tmp_path / "sites", job, channel, plan=scripted(lost), halves=homes(channel))
    found = trained(tmp_path / "run", job, engine, channel)
    without = adverse_engine(tmp_path / "plain-sites", job, registry.build(PrivacySpec()), plan=scripted(lost))
    expected = trained(tmp_path / "plain", job, without)
    assert found.survivors == expected.survivors
    assert found.survivors[1] == ("site-1", "site-3", "site-4", "site-5")
    assert_same(found, expected, COARSE)


@pytest.mark.parametrize("kind", ["secagg", "active", "masked he", "bare he"])
def test_sites_that_restart_after_each_answer_go_on(kind: str, tmp_path: Path) -> None:
    job, channel = a_job("scaffold", training__rounds=2), channel_of(kind)
    plan = seeded(5, {"crash after": 0.3})
    engine = adverse_engine(tmp_path / "sites", job, channel, plan=plan, halves=homes(channel))
    found = trained(tmp_path / "run", job, engine, channel)
    assert_same(found, plain(tmp_path / "plain", job), COARSE)


def test_below_the_threshold_nothing_is_revealed_and_the_run_says_who_is_missing(tmp_path: Path) -> None:
    job, channel = a_job(participation={"attempts": 1}), channel_of("secagg")
    lost = {(0, 0, site): {"lost"} for site in ("site-1", "site-2", "site-3")}
    engine = adverse_engine(tmp_path / "sites", job, channel, plan=scripted(lost), halves=homes(channel))
    with pytest.raises(QuorumLost, match=r"site-1.*site-2.*site-3|2 of"):
        trained(tmp_path / "run", job, engine, channel)
    after = [a.call.stage for a in engine.answers if a.call.task == "train"]
    assert "contribute" in after
    assert "mask-reveal" not in after


class _Interrupted(Exception):
    pass


@pytest.mark.parametrize("bits", [8, 16])
def test_a_resumed_run_equals_an_uninterrupted_one(bits: int, tmp_path: Path) -> None:
    job = a_job("scaffold", training__rounds=4)
    whole = hidden(tmp_path / "whole", job, "secagg", bits)

    def stop(event: object) -> None:
        if isinstance(event, dict) and event["event"] == "round" and event["round"] == 1:
            raise _Interrupted

    channel = channel_of("secagg", bits)
    with pytest.raises(_Interrupted):
        trained(tmp_path / "run", job, local_engine(job, channel), channel, listener=stop)
    channel = channel_of("secagg", bits)
    resumed = trained(tmp_path / "run", job, local_engine(job, channel), channel)
    assert_same(resumed, whole, 0.0)


@pytest.mark.parametrize("kind", ["secagg", "active", "masked he", "bare he"])
def test_a_damaged_message_costs_its_site_and_nobody_else(kind: str, tmp_path: Path) -> None:
    job, channel = a_job(), channel_of(kind)

    def cut(call: Call, message: Message) -> Message:
        if (call.site, call.stage, call.task, call.index) != ("site-3", "contribute", "train", 1):
            return message
        return replace(message, arrays={name: value[: len(value) // 2] for name, value in message.arrays.items()})

    engine = adverse_engine(tmp_path / "sites", job, channel, tamper=cut, halves=homes(channel))
    found = trained(tmp_path / "run", job, engine, channel)
    without = registry.build(PrivacySpec())
    lost = scripted({(1, 0, "site-3"): {"lost"}})
    expected = trained(
        tmp_path / "plain", job, adverse_engine(tmp_path / "plain-sites", job, without, plan=lost), without
    )
    assert "site-3" in found.records[2]["abstained"]
    assert "its message cannot be added" in found.records[2]["abstained"]["site-3"]
    assert found.survivors == expected.survivors
    assert gap(found.outcome.server.model.params, expected.outcome.server.model.params) < COARSE


@pytest.mark.parametrize("kind", ["secagg", "masked he"])
def test_arrays_of_another_shape_cannot_be_added_to_most_sites(kind: str) -> None:
    channel = channel_of(kind)
    channel.bind("run", None)
    names = tuple(f"site-{i}" for i in range(5))
    half = channel.site_half(names)

    class Unlike(Answering):
        def ask(self, request: Request, sites: Sequence[str], deadline: float | None) -> Iterator[Reply]:
            if request.message.stage != "contribute":
                yield from super().ask(request, sites, deadline)
                return
            for site in sites:
                wide = torch.ones(1, 3 if site == "site-4" else 2, dtype=torch.float64)
                term = Term(arrays={"x": wide}, weights=torch.ones(1).double(), maximum=1.0, exact=True)
                yield from self.half.contribute(Contribution(sites=(site,), terms={"figures": term}), request)

    meta = {"task": "statistics", "round": {"index": 0, "attempt": 0}}
    engine = Unlike(contribution_of(*range(5)), half)
    [found] = channel.collect(engine, Request(message=replace(_EMPTY, meta=meta)), names, None, 2)
    assert found.survivors == names[:4]
    assert "other names, shapes or dtypes than most sites'" in found.abstained["site-4"]
    assert found.sums["figures"]["x"].tolist() == [4.0, 4.0]


# ----------------------------------------------------------------------------------------------- one site's trouble


def _one_round(channel: SecureChannel, contribution: Contribution) -> Total:
    """What the server makes of one exchange among the sites of a contribution."""
    channel.bind("run", None)
    engine = Answering(contribution, channel.site_half(contribution.sites))
    meta = {"task": "statistics", "round": {"index": 0, "attempt": 0}}
    request = Request(message=replace(_EMPTY, meta=meta))
    [found] = channel.collect(engine, request, contribution.sites, None, 2)
    return found


_EMPTY = Message(stage="contribute")


class Answering:
    """Sites that all have their part of one contribution."""

    def __init__(self, contribution: Contribution, half: SiteHalf) -> None:
        self.contribution, self.half = contribution, half

    @property
    def sites(self) -> tuple[str, ...]:
        return self.contribution.sites

    def ask(self, request: Request, sites: Sequence[str], deadline: float | None) -> Iterator[Reply]:
        if request.message.stage == "contribute":
            yield from self.half.contribute(self.contribution, request)
        else:
            yield from self.half.stages()[request.message.stage](tuple(sites), request)


def contribution_of(*values: float) -> Contribution:
    sites = tuple(f"site-{i}" for i in range(len(values)))
    ones = torch.ones(len(values), dtype=torch.float64)
    arrays = {"x": torch.tensor(values, dtype=torch.float64)}
    return Contribution(sites=sites, terms={"figures": Term(arrays=arrays, weights=ones, maximum=1.0, exact=True)})


@pytest.mark.parametrize("kind", KINDS)
def test_a_figure_that_cannot_be_encoded_is_its_sites_own_abstention(kind: str) -> None:
    found = _one_round(channel_of(kind), contribution_of(1.5, 2.25, 1e30, -7.0))
    assert found.survivors == ("site-0", "site-1", "site-3")
    assert "1e+30" in found.abstained["site-2"]
    assert float(found.sums["figures"]["x"]) == -3.25
    assert found.weights["figures"] == 3.0


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_never_reaches_a_sum(value: float) -> None:
    found = _one_round(channel_of("secagg"), contribution_of(1.0, value, 2.0, 3.0))
    assert float(found.sums["figures"]["x"]) == 6.0
    assert found.survivors == ("site-0", "site-2", "site-3")


def test_a_site_that_refuses_costs_the_others_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    mask = MaskSite.mask

    def refuse(self: MaskSite, site: str, *given: Any, **more: Any) -> Any:
        if site == "site-1":
            raise MessageError("it was asked before")
        return mask(self, site, *given, **more)

    monkeypatch.setattr(MaskSite, "mask", refuse)
    found = _one_round(channel_of("secagg"), contribution_of(1.0, 2.0, 4.0, 8.0, 16.0))
    assert found.survivors == ("site-0", "site-2", "site-3", "site-4")
    assert float(found.sums["figures"]["x"]) == 29.0


def test_a_site_never_answers_in_the_clear() -> None:
    half = channel_of("secagg").site_half(("a", "b", "c"))
    meta = {"task": "train", "round": {"index": 0, "attempt": 0}}
    with pytest.raises(MessageError, match="names the exchange None"):
        list(half.contribute(contribution_of(1.0, 2.0, 3.0), Request(message=replace(_EMPTY, meta=meta))))


def test_a_site_refuses_other_bits_than_its_job_says() -> None:
    channel = channel_of("secagg", bits=16)
    half = channel.site_half(("site-0", "site-1", "site-2"))
    other = channel_of("secagg", bits=8)
    other.bind("run", None)
    engine = Answering(contribution_of(1.0, 2.0, 3.0), half)
    meta = {"task": "statistics", "round": {"index": 0, "attempt": 0}}
    with pytest.raises(MessageError, match="announces 8 bits a value, and the job says 16"):
        list(other.collect(engine, Request(message=replace(_EMPTY, meta=meta)), engine.sites, None, 2))


def test_an_exchange_is_never_repeated(tmp_path: Path) -> None:
    job, channel = a_job(training__rounds=2), channel_of("secagg")
    engine = adverse_engine(tmp_path / "sites", job, channel, halves=homes(channel))
    trained(tmp_path / "run", job, engine, channel)
    from wardround import wire

    seen = [wire.decode(a.data).meta.get(EXCHANGE) for a in engine.answers if a.call.stage == "contribute"]
    assert len({exchange["serial"] for exchange in seen}) == len(seen) / len(SITES)


# ----------------------------------------------------------------------------------------------- refused at build


def test_refusals_when_the_job_is_built(tmp_path: Path) -> None:
    def refused(error: type[Exception], text: str, **changes: object) -> None:
        with pytest.raises(error, match=text):
            run(a_job(**changes), tmp_path / "run")
        assert not (tmp_path / "run").exists()

    secagg = {"channel": {"kind": "secagg"}}
    refused(Refused, "3", privacy=secagg, partition={"kind": "iid", "sites": 2})
    refused(Refused, "ask more sites", privacy=secagg, participation={"count": 2})
    refused(Refused, "privacy.secure is true", privacy={"secure": True})
    refused(ConfigError, "top_k belongs to the plain channel", privacy={**secagg, "encoding": {"top_k": 0.1}})
    refused(ConfigError, "options", privacy={"channel": {"kind": "secagg", "options": {"treshold": 1}}})
    refused(Refused, "needs 5 sums", privacy=secagg, aggregation={"rule": f"{__name__}:Median"})


class Median:
    """A rule that needs several sums."""

    name = "median"
    least_groups = 5


@pytest.mark.parametrize("kind", ["secagg", "bare he"])
def test_too_many_sites_for_the_head_room(kind: str) -> None:
    with pytest.raises(ConfigError, match=r"sites"):
        channel_of(kind, bits=24).check(2**45)


def test_groups_give_a_sum_each(tmp_path: Path) -> None:
    sites = 9
    job = a_job(partition={"kind": "iid", "sites": sites}, training__rounds=2)
    channel = channel_of("secagg", groups=3)
    found = trained(tmp_path / "run", job, local_engine(job, channel), channel)
    assert_same(found, plain(tmp_path / "plain", job), COARSE)
    channel.bind("run", None)
    names = tuple(f"site-{i}" for i in range(sites))
    engine = Answering(contribution_of(*range(sites)), channel.site_half(names))
    meta = {"task": "statistics", "round": {"index": 0, "attempt": 0}}
    totals = list(channel.collect(engine, Request(message=replace(_EMPTY, meta=meta)), names, None, 2))
    assert [total.group for total in totals] == [0, 1, 2]
    assert sorted(site for total in totals for site in total.survivors) == sorted(names)
    for total in totals:
        assert len(total.survivors) == 3
        assert float(total.sums["figures"]["x"]) == sum(int(site[5:]) for site in total.survivors)


# ----------------------------------------------------------------------------------------------- what the report says


def test_figures_of_single_sites_stay_where_they_are(tmp_path: Path) -> None:
    job = a_job(privacy={"channel": {"kind": "secagg"}}, evaluation__select="loss")
    result = run(job, tmp_path / "run", report=False)
    assert result["job"]["evaluation"]["release_scores"] is False
    assert result["partition"] == {}
    assert result["federated"]["sites"] == {}
    assert 0.9 < result["federated"]["pooled"]["auroc"] <= 1.0
    with Run.open(tmp_path / "run", writer=False) as folder:
        assert folder.job.evaluation.release_scores is False
    declared = run(
        a_job(privacy={"channel": {"kind": "secagg"}}, evaluation__release_scores=True), tmp_path / "said", report=False
    )
    assert set(declared["partition"]) == set(SITES)

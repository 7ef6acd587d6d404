"""A coordinator that asks sites different things, or unsound ones, to get one site's own part as 'the sum'."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from channels.test_secure import KINDS, channel_of, homes
from federation.adverse import AdverseEngine, Answer, Hospital
from federation.trials import SITES, a_job, adverse_engine, federation, local_engine, trained
from wardround import wire
from wardround.channels import registry, secure
from wardround.channels.exchange import asked_of
from wardround.channels.home import Home
from wardround.channels.secure import SecureChannel
from wardround.config.job import PrivacySpec
from wardround.content import Content, Spool
from wardround.data.preprocess import Preprocessing
from wardround.data.standardize import fitted_from_json
from wardround.errors import QuorumLost
from wardround.federation import messages
from wardround.federation.rounds import Federation
from wardround.types import Arrays, Contribution, Message, Request, Term, Total

VICTIM = "site-2"
WEIGHT = "step/array/linear.weight"
Lie = Callable[[Message], Message]


def with_round(message: Message, **facts: Any) -> Message:
    return replace(message, meta={**message.meta, "round": {**message.meta["round"], **facts}})


def with_arrays(message: Message, change: Callable[[torch.Tensor], torch.Tensor]) -> Message:
    return replace(message, arrays={name: change(value) for name, value in message.arrays.items()})


def another_bound(message: Message) -> Message:
    return with_round(message, max_weight=1e30)


def another_model(message: Message) -> Message:
    return with_arrays(message, lambda value: value + 1e-9)


def another_mark(message: Message) -> Message:
    return replace(message, meta={**message.meta, "note": 1})


def another_encoding(message: Message) -> Message:
    return replace(message, meta={**message.meta, "encoding": {**message.meta["encoding"], "rounding": "stochastic"}})


@dataclass
class Wards:
    """Five sites behind bytes, prepared, and a coordinator that may lie to all but one."""

    engine: AdverseEngine
    channel: SecureChannel
    server: Federation
    lie: Lie | None = None

    def __post_init__(self) -> None:
        call = self.engine._call

        def twisted(request: Request, hospital: Hospital) -> list[Answer]:
            contributes = request.message.stage == "contribute" and request.message.meta["task"] == "train"
            if self.lie is not None and contributes and hospital.site != VICTIM:
                request = replace(request, message=self.lie(request.message))
            return call(request, hospital)

        self.engine._call = twisted  # type: ignore[method-assign]

    def request(self, **meta: Any) -> Request:
        """What the coordinator asks in round 0, with the model that the run begins with."""
        arrays = messages.server_arrays(self.server._initial())
        return messages.ask_for(
            "train", self.server._round(0, len(SITES)), arrays, {}, **{**self.server._prepared, **meta}
        )

    def collect(self, request: Request, quorum: int = 3) -> list[Total]:
        return list(self.channel.collect(self.engine, request, SITES, None, quorum))

    def refusals(self) -> dict[str, list[str]]:
        return {site: hospital.refusals for site, hospital in self.engine.hospitals.items()}

    def own(self, site: str) -> Message:
        """What a site has written ahead, [1, ...], unweighed."""
        kept = self.engine.hospitals[site].host().states.staged_reply(0)
        assert kept is not None
        return kept

    def part(self, site: str) -> torch.Tensor:
        """What a site gives to the sum of its steps, under the honest bound."""
        kept, bound = self.own(site), self.server._max_weight
        return kept.arrays[WEIGHT][0] * float(kept.arrays["step/weights"][0]) / bound


def wards(folder: Path, kind: str, *, prepare: bool = True) -> Wards:
    job, channel = a_job(training__rounds=1), channel_of(kind, bits=24)
    engine = adverse_engine(folder / "sites", job, channel, halves=homes(channel))
    server = federation(folder / "run", job, engine, channel)
    if prepare:
        plain = registry.build(PrivacySpec())
        fitted = trained(folder / "other", job, local_engine(job, plain), plain)
        preprocessing = fitted.outcome.preprocessing
        assert isinstance(preprocessing, Preprocessing)
        server._preprocessing, server._max_weight = preprocessing, fitted.outcome.max_weight
        server._prepare()
        channel.bind(server._run.id, None)
    return Wards(engine=engine, channel=channel, server=server)


# ----------------------------------------------------------------------------------------------- different things


@pytest.mark.parametrize("kind", KINDS)
def test_asked_the_same_they_give_the_sum(kind: str, tmp_path: Path) -> None:
    here = wards(tmp_path, kind)
    [found] = here.collect(here.request())
    expected = sum(here.part(site) for site in SITES)
    assert torch.allclose(found.sums["step"]["linear.weight"], expected, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_were_answers_not_bound_to_what_was_asked_one_site_would_be_read(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the attack itself, on a broken variant: without it the tests below could not fail
    monkeypatch.setattr(secure, "asked_of", lambda message: bytes(32))
    here = wards(tmp_path, kind)
    here.lie = another_bound
    [found] = here.collect(here.request())
    assert found.survivors == SITES
    assert torch.allclose(found.sums["step"]["linear.weight"], here.part(VICTIM), atol=1e-4)


@pytest.mark.parametrize("lie", [another_bound, another_model, another_mark, another_encoding])
@pytest.mark.parametrize("kind", KINDS)
def test_sites_that_are_asked_different_things_have_no_sum(
    kind: str, lie: Lie, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, seen = wards(tmp_path, kind), list[np.ndarray]()
    less = secure._less

    def noted(elements: np.ndarray, net: np.ndarray, modulus: int) -> np.ndarray:
        seen.append(less(elements, net, modulus))
        return seen[-1]

    monkeypatch.setattr(secure, "_less", noted)
    here.lie = lie
    why = {"secagg": "what was opened is not the sum", "active": "this question"}.get(
        kind, "no site opened the encrypted sum"
    )
    with pytest.raises(QuorumLost, match=why):
        here.collect(here.request())
    if kind == "secagg":  # without signatures the server takes off what it can: what is left is as good as random
        share = np.unpackbits(seen[-1].view(np.uint8)).mean()
        assert abs(share - 0.5) < 5 * 0.5 / np.sqrt(64 * len(seen[-1]))
    else:
        assert not seen
    if kind.endswith("he"):
        assert all("is not the sum of what its 5 members sent" in whys[-1] for whys in here.refusals().values())


@pytest.mark.parametrize("kind", ["secagg", "bare he"])
def test_sites_that_were_prepared_differently_have_no_sum(kind: str, tmp_path: Path) -> None:
    here, other = wards(tmp_path, kind), wards(tmp_path / "b", kind, prepare=False)
    fitted = here.server._preprocessing
    assert isinstance(fitted, Preprocessing)
    told = {"preprocessing": fitted.to_json()}
    vanishing = {"preprocessing": replace(fitted, scale=tuple(1e300 for _ in fitted.scale)).to_json()}
    for site, hospital in other.engine.hospitals.items():
        meta = told if site == VICTIM else vanishing
        other.engine._call(Request(message=Message(stage="prepare", meta=meta)), hospital)
    other.channel.bind("run", None)
    honest = here.request()
    with pytest.raises(QuorumLost):
        other.collect(honest)  # four sites say that they were prepared with something else
    assert sorted(site for site, whys in other.refusals().items() if "prepared with" in str(whys)) == [
        site for site in SITES if site != VICTIM
    ]
    own = messages.digest_of(Request(message=Message(stage="prepare", meta=vanishing)))
    other.lie = lambda message: replace(message, meta={**message.meta, "prepared": own})
    with pytest.raises(QuorumLost, match=r"is not the sum|no site opened the encrypted sum"):
        other.collect(honest)


def test_a_request_that_does_not_say_how_sites_were_prepared_is_refused(tmp_path: Path) -> None:
    here = wards(tmp_path, "secagg")
    with pytest.raises(QuorumLost):
        here.collect(here.request(prepared=None))
    assert all("prepared with None" in whys[-1] for whys in here.refusals().values())


def test_what_was_written_ahead_answers_one_question_only(tmp_path: Path) -> None:
    here = wards(tmp_path, "secagg")
    honest = here.request()
    here.collect(honest)
    before = here.own(VICTIM)
    retried = replace(honest, message=with_round(honest.message, attempt=1))
    here.collect(retried)
    again = here.own(VICTIM)
    assert again.meta == before.meta
    assert all(torch.equal(again.arrays[name], value) for name, value in before.arrays.items())
    here.collect(replace(retried, message=another_bound(retried.message)))
    maxima = {name: maximum for name, maximum, *_ in here.own(VICTIM).meta["maxima"]}
    assert maxima["step"] == 1e30  # and not the part that the honest bound gave, beside others that vanish


# ----------------------------------------------------------------------------------------------- unsound things


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("kind", KINDS)
def test_a_model_that_is_not_finite_is_refused_and_nobody_gives_zeros(kind: str, value: float, tmp_path: Path) -> None:
    here = wards(tmp_path, kind)
    here.lie = lambda message: with_arrays(message, lambda array: array + value)
    with pytest.raises(QuorumLost):
        here.collect(here.request(), quorum=1)
    refused = {site for site, whys in here.refusals().items() if "is not finite" in str(whys)}
    assert refused == set(SITES) - {VICTIM}


def test_means_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    here = wards(tmp_path, "secagg")
    mean = torch.full((30,), math.nan, dtype=torch.float64)
    with pytest.raises(QuorumLost):
        here.collect(messages.ask_for("statistics", here.server._round(-1, 5), {"mean": mean}))
    assert all("array 'mean' is not finite" in whys[-1] for whys in here.refusals().values())


@pytest.mark.parametrize("bound", [0.0, -1.0, 1.0, 1e-300])
def test_a_bound_below_a_sites_rows_is_refused(bound: float, tmp_path: Path) -> None:
    here = wards(tmp_path, "secagg")
    request = here.request()
    with pytest.raises(QuorumLost):
        here.collect(replace(request, message=with_round(request.message, max_weight=bound)))
    assert all("the server says that no site weighs more than" in whys[-1] for whys in here.refusals().values())


def test_a_sum_of_more_sites_than_there_are_is_refused(tmp_path: Path) -> None:
    # its head-room leaves so little for a figure that only the site with the smallest could answer
    here = wards(tmp_path, "secagg")

    def crowd(message: Message) -> Message:
        return replace(message, meta={**message.meta, "encoding": {**message.meta["encoding"], "sites": 2**20}})

    here.lie = crowd
    with pytest.raises(QuorumLost):
        here.collect(here.request())
    assert "a sum of 1048576 sites, and 5 are known here" in here.refusals()["site-1"][-1]


# ----------------------------------------------------------------------------------------------- too few of them


def one_round(kind: str, *values: float, minimum: int = 0) -> list[Total]:
    """An exchange among sites, each with a process of its own, of a figure that some cannot encode."""
    sites = tuple(f"site-{k}" for k in range(len(values)))
    channel, known = channel_of(kind), Home.simulated(sites)
    channel.bind("run", None)
    halves = {
        site: channel.half_at(Home(identities={site: known.identities[site]}, pins=known.pins, minimum=minimum))
        for site in sites
    }

    class Reached:
        def __init__(self) -> None:
            self.sites = sites

        def ask(self, request: Request, asked: Any, deadline: float | None) -> Any:
            for site in asked:
                if request.message.stage != "contribute":
                    yield from halves[site].stages()[request.message.stage]((site,), request)
                    continue
                value = torch.tensor([values[sites.index(site)]], dtype=torch.float64)
                ones = torch.ones(1, dtype=torch.float64)
                term = Term(arrays={"x": value}, weights=ones, maximum=1.0, exact=True)
                yield from halves[site].contribute(Contribution(sites=(site,), terms={"figures": term}), request)

    meta = {"task": "statistics", "round": {"index": 0, "attempt": 0}}
    engine: Any = Reached()
    return list(channel.collect(engine, Request(message=Message(stage="contribute", meta=meta)), sites, None, 1))


@pytest.mark.parametrize("kind", ["active", "bare he", "masked he"])
def test_a_sum_to_which_fewer_than_three_gave_something_is_not_opened(kind: str) -> None:
    [found] = one_round(kind, 1.0, 2.0, 4.0, 1e30)
    assert float(found.sums["figures"]["x"]) == 7.0
    with pytest.raises(QuorumLost, match="gave something"):
        one_round(kind, 1.0, 2.0, 1e30, 1e30)


def test_without_signatures_abstentions_leave_a_sum_of_fewer() -> None:
    # what the threat model says of secagg without active
    [found] = one_round("secagg", 1.0, 1e30, 1e30, 1e30)
    assert float(found.sums["figures"]["x"]) == 1.0


@pytest.mark.parametrize("kind", KINDS)
def test_a_site_takes_part_in_no_smaller_sum_than_its_home_allows(kind: str) -> None:
    [found] = one_round(kind, 1.0, 2.0, 4.0, 8.0, minimum=4)
    assert float(found.sums["figures"]["x"]) == 15.0
    with pytest.raises(Exception, match=r"sums of 5 sites or more|expected 5 or more"):
        one_round(kind, 1.0, 2.0, 4.0, 8.0, minimum=5)


# ----------------------------------------------------------------------------------------------- the digest


def test_what_was_asked_is_the_same_on_both_sides_and_also_from_a_file() -> None:
    arrays: Arrays = {
        "b": torch.arange(12.0).reshape(3, 4).T, "a": torch.tensor(True), "none": torch.empty(0, 3), "h": torch.ones(5).half(),
    }  # fmt: skip
    sent = Message(stage="contribute", meta={"task": "train", "round": {"pair": (1, 3), "x": 60.0}}, arrays=arrays)
    encoded, spool = wire.encode(sent), Spool()
    spool.write(encoded)
    assert asked_of(wire.decode(encoded)) == asked_of(sent)
    monkey = pytest.MonkeyPatch()
    monkey.setattr(wire, "LONG", 1)
    stored = wire.decode(Content(spool))
    monkey.undo()
    assert isinstance(stored.arrays, wire.Stored)
    assert asked_of(stored) == asked_of(sent)
    others = [
        replace(sent, stage="reveal"), replace(sent, meta={**sent.meta, "task": "evaluate"}), with_round(sent, x=60.5),
        replace(sent, arrays={**arrays, "a": torch.tensor(False)}), replace(sent, arrays={**arrays, "h": torch.ones(5)}),
        replace(sent, arrays=dict(reversed(arrays.items()))),
    ]  # fmt: skip
    assert len({asked_of(sent), *map(asked_of, others)}) == 7


def test_a_fitted_preprocessing_is_told_alike_after_a_restart_of_the_server(tmp_path: Path) -> None:
    fitted = wards(tmp_path, "secagg").server._preprocessing
    assert fitted is not None
    stored = json.loads(json.dumps(fitted.to_json()))
    assert json.dumps(fitted_from_json(stored).to_json()) == json.dumps(fitted.to_json())

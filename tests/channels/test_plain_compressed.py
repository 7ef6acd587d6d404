"""The plain channel with `privacy.encoding`: compressed updates, counted at their true size, through all that goes wrong."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from federation.adverse import Fault, scripted
from federation.trials import (
    SITES,
    Restricted,
    Trained,
    a_job,
    adverse_engine,
    assert_same,
    local_engine,
    moved,
    trained,
)
from wardround import Job, run, wire
from wardround.aggregation.weighting import weighed_sum
from wardround.channels.plain import Plain
from wardround.config.job import EncodingSpec, PrivacySpec
from wardround.config.plugins import construct
from wardround.errors import ConfigError, QuorumLost, WardroundError
from wardround.federation import messages
from wardround.federation.metering import Metered
from wardround.types import Arrays, Contribution, Reply, Request, Round, Term, Total, Work

ENCODINGS: dict[str, dict[str, Any]] = {
    "8 bits": {"bits": 8},
    "12 bits, fed back": {"bits": 12, "feedback": True},
    "8 bits, rotated": {"bits": 8, "rotation": True, "feedback": True},
    "a tenth": {"top_k": 0.1, "feedback": True},
    "a tenth in 9 bits": {"top_k": 0.1, "bits": 9, "feedback": True},
}


class _Engine:
    """Replies that are ready."""

    def __init__(self, replies: Sequence[Reply], sites: tuple[str, ...]) -> None:
        self.replies, self.sites = replies, sites

    def ask(self, request: Request, sites: Sequence[str], deadline: float | None) -> Iterator[Reply]:
        yield from self.replies

    def journal(self, index: int, sites: Sequence[str]) -> tuple[tuple[str, ...], Arrays]:
        return (), {}

    def restore(self, sites: Sequence[str], states: Arrays) -> None: ...

    def close(self) -> None: ...


def _request(task: str = messages.TRAIN) -> Request:
    work = Work(steps=1, epochs=None, batch_size=8, learning_rate=0.1)
    return messages.ask_for(task, Round(index=3, population=4, cohort=4, work=work, seed=5, max_weight=8.0), {})


def _contribution(sites: tuple[str, ...], seed: int = 0) -> Contribution:
    draw = torch.Generator().manual_seed(seed)
    rows = torch.tensor([8.0, 1.0, 3.0, 5.0][: len(sites)], dtype=torch.float64)
    step = {"w": torch.randn(len(sites), 40, 30, generator=draw), "b": torch.randn(len(sites), generator=draw)}
    figures = {"loss": torch.rand(len(sites), dtype=torch.float64, generator=draw), "rows": rows}
    terms = {
        "step": Term(arrays=step, weights=rows, maximum=8.0),
        "training": Term(arrays=figures, weights=torch.ones_like(rows), maximum=1.0, exact=True),
    }
    return Contribution(sites=sites, terms=terms)


def _collected(channel: Plain, replies: Sequence[Reply], quorum: int = 1, request: Request | None = None) -> Total:
    sites = tuple(sorted({site for reply in replies for site in reply.sites}))
    (found,) = channel.collect(_Engine(replies, sites), request or _request(), sites, None, quorum)
    return found


def _replies(channel: Plain, contribution: Contribution, request: Request | None = None) -> list[Reply]:
    return list(channel.site_half(contribution.sites).contribute(contribution, request or _request()))


FOUR = ("a", "b", "c", "d")


@pytest.mark.parametrize("spec", ENCODINGS.values(), ids=ENCODINGS)
def test_figures_and_weights_are_exact_and_updates_nearly(spec: dict[str, Any]) -> None:
    one, channel = _contribution(FOUR), Plain(EncodingSpec(**spec))
    found = _collected(channel, _replies(channel, one))
    assert found.survivors == FOUR
    for term, content in one.terms.items():
        plain = weighed_sum(content)
        assert found.weights[term] == float(plain[".weight"])
        assert found.sums[term].keys() == content.arrays.keys()
        for name, value in found.sums[term].items():
            assert (value.dtype, value.shape) == (plain[name].dtype, plain[name].shape)
            if content.exact:
                assert torch.allclose(
                    value, plain[name], rtol=1e-15, atol=0.0
                )  # the same four numbers, added in another order
            elif "top_k" not in spec:
                # half a step of the grid, or a whole one: at most 4 sites' ranges of about 4, over 127
                assert torch.allclose(value, plain[name], atol=4 * 4.5 / 127)
                assert name == "b" or not torch.equal(value, plain[name])
            else:
                assert int((value != 0).sum()) <= 4 * -(-value.numel() // 10)


@pytest.mark.parametrize("spec", ENCODINGS.values(), ids=ENCODINGS)
def test_one_site_at_a_time_sends_what_all_together_send(spec: dict[str, Any]) -> None:
    one, channel = _contribution(FOUR), Plain(EncodingSpec(**spec))
    together = _collected(channel, _replies(channel, one))
    singles = []
    for k, site in enumerate(FOUR):
        terms = {
            t: replace(c, arrays={n: v[k : k + 1] for n, v in c.arrays.items()}, weights=c.weights[k : k + 1])
            for t, c in one.terms.items()
        }
        replies = _replies(channel, Contribution(sites=(site,), terms=terms))
        # over the wire and back: what a site elsewhere sends
        singles += [replace(r, message=wire.decode(wire.encode(r.message))) for r in replies]
    apart = _collected(channel, singles)
    assert apart.survivors == together.survivors
    for term, arrays in together.sums.items():
        for name, value in arrays.items():
            assert torch.allclose(apart.sums[term][name], value, atol=1e-5)


@pytest.mark.parametrize(
    ("spec", "least", "most"),
    [
        ({}, 4 * 1201, 4 * 1201), ({"bits": 16}, 2 * 1201, 2 * 1201), ({"bits": 8}, 1201, 1201), ({"bits": 12}, 1802, 1802),
        ({"top_k": 0.01}, 13 * 8, 13 * 8), ({"top_k": 0.01, "bits": 8}, 13 * 5, 13 * 5),
    ],
)  # fmt: skip
def test_metering_counts_what_a_site_sends(spec: dict[str, Any], least: int, most: int) -> None:
    # 1201 values: 12 + 1 of them are a hundredth of each array, rounded up. Besides: 3 fractions and figures of 8 bytes,
    # a range of 4 for each array, and a header of names and shapes
    one, channel = _contribution(FOUR), Plain(EncodingSpec(**spec))
    replies = _replies(channel, one)
    metered = Metered(_Engine(replies, FOUR))
    list(metered.ask(_request(), FOUR, None))
    each = metered.up / 4
    assert least + 32 <= each <= most + 32 + 8 + 900
    if spec:  # the true size of a site's own message
        terms = {
            t: replace(c, arrays={n: v[:1] for n, v in c.arrays.items()}, weights=c.weights[:1])
            for t, c in one.terms.items()
        }
        (alone,) = _replies(channel, Contribution(sites=("a",), terms=terms))
        # the axis of one site is written as `1,` in the header: a few bytes, padded to a multiple of 8
        assert abs(len(wire.encode(alone.message)) - each) <= 32


def test_every_round_rounds_anew_and_every_attempt_alike() -> None:
    one, channel, request = _contribution(FOUR), Plain(EncodingSpec(bits=8)), _request()

    def codes(**changes: Any) -> torch.Tensor:
        meta = {**request.message.meta, "round": {**request.message.meta["round"], **changes}}
        (reply,) = _replies(channel, one, replace(request, message=replace(request.message, meta=meta)))
        return reply.message.arrays[".codes"]

    assert torch.equal(codes(), codes(attempt=1))
    assert not torch.equal(codes(), codes(index=4))
    assert not torch.equal(codes(), codes(seed=6))


def test_other_tasks_travel_as_they_are() -> None:
    one, channel, request = _contribution(FOUR), Plain(EncodingSpec(bits=8, top_k=0.01)), _request(messages.OVERLAY)
    found = _collected(channel, _replies(channel, one, request), request=request)
    plain = weighed_sum(one.terms["step"])
    assert torch.equal(found.sums["step"]["w"], plain["w"])


@pytest.mark.parametrize(
    "spoil",
    [
        lambda m: replace(m, meta={**m.meta, "compressed": "all"}),
        lambda m: replace(m, meta={**m.meta, "compressed": m.meta["compressed"][:1]}),
        lambda m: replace(m, meta={**m.meta, "compressed": m.meta["compressed"] * 2}),
        lambda m: replace(m, meta={**m.meta, "compressed": [["step/w", "float32", [2**40]]]}),
        lambda m: replace(m, meta={**m.meta, "compressed": [["step/w", "object", [1200]], ["step/b", "float32", []]]}),
        lambda m: replace(m, meta={**m.meta, "compressed": [["step/w", "float32", [1201]], ["step/b", "float32", []]]}),
        lambda m: replace(m, meta={**m.meta, "compressed": [["other/w", "float32", [40, 30]], ["step/b", "float32", []]]}),
        lambda m: replace(m, meta={**m.meta, "compressed": [["step/.weight", "float32", [40, 30]], ["step/b", "float32", []]]}),
        lambda m: replace(m, arrays={n: v for n, v in m.arrays.items() if n != ".scales"}),
        lambda m: replace(m, arrays={**m.arrays, ".codes": m.arrays[".codes"].float()}),
        lambda m: replace(m, arrays={**m.arrays, ".codes": m.arrays[".codes"][:, :-1]}),
        lambda m: replace(m, arrays={**m.arrays, ".scales": m.arrays[".scales"] * float("nan")}),
        lambda m: replace(m, arrays={**m.arrays, "training/loss": torch.tensor(1.0)}),
        lambda m: replace(m, arrays={**m.arrays, "step/.weight": torch.tensor([float("inf")])}),
    ],
)  # fmt: skip
def test_a_malformed_parcel_is_left_out_and_named(spoil: Any) -> None:
    channel = Plain(EncodingSpec(bits=8))
    good, bad = (_replies(channel, _contribution((site,)))[0] for site in ("a", "b"))
    bad = replace(bad, message=spoil(bad.message))
    found = _collected(channel, [good, bad])
    assert found.survivors == ("a",)
    assert "b" in found.abstained
    alone = _collected(channel, [good])
    assert all(torch.equal(found.sums["step"][name], value) for name, value in alone.sums["step"].items())


def test_a_compressed_reply_to_a_server_that_knows_of_none() -> None:
    (reply,) = _replies(Plain(EncodingSpec(bits=8)), _contribution(FOUR))
    with pytest.raises(QuorumLost, match=r"privacy\.encoding"):
        _collected(Plain(), [reply])


@pytest.mark.parametrize("spec", [{"feedback": True}, {"rotation": True}])
def test_an_encoding_that_means_nothing_is_refused(spec: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"privacy\.encoding"):
        construct(Plain, {"encoding": EncodingSpec(**spec)}, "privacy.channel.options of plain")


# ------------------------------------------------------------------------------------------------------------ whole runs


def _job(rule: str, spec: dict[str, Any], **changes: Any) -> Job:
    return a_job(rule, privacy=PrivacySpec(encoding=EncodingSpec(**spec)).model_dump(), **changes)


def _local(folder: Path, job: Job, chunk: int | None = None) -> Trained:
    channel = Plain(job.privacy.encoding)
    return trained(folder, job, local_engine(job, channel, chunk), channel)


@pytest.mark.parametrize("name", ENCODINGS)
@pytest.mark.parametrize("rule", ["scaffold", "shared batch norm", "own head bias"])
def test_many_sites_in_one_process_equal_each_in_its_own(tmp_path: Path, rule: str, name: str) -> None:
    job = _job(rule, ENCODINGS[name])
    channel = Plain(job.privacy.encoding)
    here = _local(tmp_path / "here", job)
    apart = trained(tmp_path / "apart", job, adverse_engine(tmp_path / "sites", job, channel), channel)
    assert moved(here) > 1e-3
    # float32 ranges: a difference in the last bit of a value may move a code by one step of the grid
    assert_same(here, apart, 1e-3)


def test_faults_lose_no_residual_and_count_none_twice(tmp_path: Path) -> None:
    job = _job("scaffold", {"top_k": 0.1, "feedback": True}, training__rounds=4)
    channel = Plain(job.privacy.encoding)
    faults: dict[tuple[int, int, str], set[Fault]] = {
        (0, 0, "site-4"): {"lost", "crash after"},
        (1, 0, "site-1"): {"crash after"},
        (1, 0, "site-2"): {"lost"},
        (2, 0, "site-3"): {"duplicated", "crash after"},
        (3, 0, "site-5"): {"late"},
    }
    lost = {(0, "site-4"), (1, "site-2"), (3, "site-5")}
    engine = adverse_engine(tmp_path / "sites", job, channel, plan=scripted(faults))
    found = trained(tmp_path / "faulty", job, engine, channel)
    assert [set(SITES) - set(names) for names in found.survivors] == [{s for t, s in lost if t == i} for i in range(4)]

    allowed = [[site for site in SITES if (t, site) not in lost] for t in range(4)]
    quiet = trained(tmp_path / "quiet", job, Restricted(local_engine(job, channel), allowed), channel)
    # a site whose update was lost keeps the residual that it had: as if it had never been asked
    for site in SITES:
        for name, value in quiet.states[site].items():
            assert torch.allclose(found.states[site][name], value, atol=1e-5), (site, name)
    residuals = [v for n, v in found.states["site-1"].items() if n.startswith("feedback/")]
    assert any(float(value.abs().max()) > 0 for value in residuals)


def test_chunks_and_restarts_change_nothing(tmp_path: Path) -> None:
    job = _job("fedavg", {"bits": 8, "feedback": True}, training__rounds=4)
    whole = _local(tmp_path / "whole", job)
    assert_same(whole, _local(tmp_path / "two", job, chunk=2), 1e-6)

    class Stop(WardroundError):
        pass

    def stop(event: Any) -> None:
        if event.get("event") == "round" and event.get("round") == 1:
            raise Stop

    channel = Plain(job.privacy.encoding)
    with pytest.raises(Stop):
        trained(tmp_path / "cut", job, local_engine(job, channel), channel, listener=stop)
    channel = Plain(job.privacy.encoding)
    again = trained(tmp_path / "cut", job, local_engine(job, channel), channel)
    assert_same(whole, again, 0.0)


def test_statistics_of_batches_are_never_made_coarser(tmp_path: Path) -> None:
    # a variance that is late or rounded overshoots below 0, and the next forward pass is NaN
    job = _job(
        "shared batch norm", {"top_k": 0.1, "bits": 8, "feedback": True},
        training__rounds=8, model={"name": "mlp", "options": {"hidden": [64, 32], "norm": "batch"}},
    )  # fmt: skip
    found = _local(tmp_path / "run", job)
    variances = [v for n, v in found.outcome.server.model.buffers.items() if n.endswith("running_var")]
    assert variances
    assert all(float(value.min()) > 0 for value in variances)
    assert not any("buffers" in name for name in found.states["site-1"])


def _run(folder: Path, **encoding: Any) -> dict[str, Any]:
    tree = {
        "name": "wdbc", "seed": 3, "partition": {"kind": "dirichlet", "sites": 5},
        "training": {"rounds": 20}, "evaluation": {"baselines": [], "bootstrap": 0}, "engine": {"threads": 1},
        "privacy": {"encoding": encoding},
    }  # fmt: skip
    return dict(run(Job.model_validate(tree), folder, report=False))


def test_eight_bits_score_as_floating_point_does(tmp_path: Path) -> None:
    plain, eight = _run(tmp_path / "plain"), _run(tmp_path / "eight", bits=8)
    assert abs(_auroc(plain) - _auroc(eight)) <= 0.005
    assert _auroc(plain) > 0.95
    assert plain["federated"]["pooled"] != eight["federated"]["pooled"]


def _auroc(result: dict[str, Any]) -> float:
    return float(result["federated"]["pooled"]["auroc"])

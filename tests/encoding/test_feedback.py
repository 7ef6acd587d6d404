"""Error feedback: nothing is lost for good."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from federation.trials import RULES, a_job
from wardround.algorithms.scaffold import _VARIATE
from wardround.config.job import EncodingSpec, PrivacySpec
from wardround.encoding import feedback, parcel
from wardround.encoding.compress import Compression
from wardround.federation.site import Network
from wardround.types import Contribution, Term

SITES = ("a", "b")


def _contribution(update: torch.Tensor) -> Contribution:
    ones = torch.ones(len(SITES), dtype=torch.float64)
    figures = Term(
        arrays={"loss": torch.full((2,), 0.123456789, dtype=torch.float64)}, weights=ones, maximum=1.0, exact=True
    )
    return Contribution(
        sites=SITES, terms={"step": Term(arrays={"w": update}, weights=ones, maximum=1.0), "training": figures}
    )


@pytest.mark.parametrize("how", [Compression(bits=8), Compression(bits=8, stochastic=True), Compression(top_k=0.05)])
def test_what_was_sent_and_what_is_left_are_what_there_was(how: Compression) -> None:
    torch.manual_seed(1)
    residuals = {"feedback/step/w": torch.zeros(2, 100, dtype=torch.float64)}
    there = arrived = torch.zeros(2, 100, dtype=torch.float64)
    for t in range(10):
        update = torch.randn(2, 100, dtype=torch.float64)
        corrected, residuals = feedback.corrected(_contribution(update), residuals, how, seed=t)
        there = there + update
        arrived = arrived + parcel.sent(corrected, how, seed=t)["step/w"]
        assert residuals.keys() == {"feedback/step/w"}
        assert torch.allclose(arrived + residuals["feedback/step/w"], there, atol=1e-12)
        assert float(residuals["feedback/step/w"].abs().max()) > 0
        assert torch.equal(
            corrected.terms["training"].arrays["loss"], _contribution(update).terms["training"].arrays["loss"]
        )


def _quadratic(*, with_feedback: bool) -> float:
    """Distance to the optimum, relative to the start's, after gradient steps on two sites' quadratics, of which each sends 1%.

    Site k has f_k(x) = 1/2 |x - a_k|^2 with a_k = b +- c. In half of the entries c is 4, and the sites' gradients cancel at the
    optimum b, but are larger than all others: without memory nothing else is ever sent, and the other half stays at 0. That
    half holds half of |b|^2, so the distance cannot fall below about sqrt(1/2) = .71.
    """
    torch.manual_seed(0)
    size = 1000
    target, apart = torch.randn(size, dtype=torch.float64), torch.zeros(size, dtype=torch.float64)
    apart[: size // 2] = 4.0
    optima = torch.stack([target + apart, target - apart])
    how, x = Compression(top_k=0.01), torch.zeros(size, dtype=torch.float64)
    residuals = {"feedback/step/w": torch.zeros(2, size, dtype=torch.float64)}
    for t in range(2500):
        contribution = _contribution(-0.002 * (x - optima))
        if with_feedback:
            contribution, residuals = feedback.corrected(contribution, residuals, how, seed=t)
        x = x + parcel.sent(contribution, how, seed=t)["step/w"].mean(0)
    return float((x - target).norm() / target.norm())


def test_top_one_percent_stalls_without_feedback_and_converges_with_it() -> None:
    assert _quadratic(with_feedback=False) > 0.69
    assert _quadratic(with_feedback=True) < 0.12


@pytest.mark.parametrize("rule", RULES)
def test_a_site_begins_with_zeros_for_each_array_of_its_rule(rule: str) -> None:
    job = a_job(rule, privacy={"encoding": {"bits": 8, "feedback": True}})
    network = Network(job, (30,), 2, torch.device("cpu"))
    found = {name: value for name, value in network.initial_state.items() if name.startswith("feedback/")}
    own = {f"feedback/step/{name}" for name in network.shared.params}
    if rule == "scaffold":
        own |= {f"feedback/{_VARIATE}/{name}" for name in network.shared.params}
    assert found.keys() == own
    assert all(float(value.abs().sum()) == 0.0 for value in found.values())
    without = Network(a_job(rule), (30,), 2, torch.device("cpu"))
    assert not any(name.startswith("feedback/") for name in without.initial_state)


@pytest.mark.parametrize(
    ("spec", "kind", "there"),
    [
        ({"bits": 8, "feedback": True}, "plain", True),
        ({"bits": 8}, "plain", False),
        ({"bits": 8, "feedback": True}, "a:B", False),
    ],
)
def test_it_belongs_to_the_plain_channel(spec: dict[str, Any], kind: str, there: bool) -> None:
    assert feedback.applies(PrivacySpec(encoding=EncodingSpec(**spec), channel={"kind": kind})) is there  # type: ignore[arg-type]


def test_an_array_without_a_residual_is_left_alone() -> None:
    one = _contribution(torch.randn(2, 10))
    more = replace(
        one, terms={**one.terms, "more": Term(arrays={"v": torch.randn(2, 3)}, weights=torch.ones(2), maximum=1.0)}
    )
    residuals = {"feedback/step/w": torch.ones(2, 10), "feedback/gone/x": torch.ones(2, 4)}
    found, left = feedback.corrected(more, residuals, Compression(bits=8), seed=0)
    assert torch.equal(found.terms["more"].arrays["v"], more.terms["more"].arrays["v"])
    assert torch.equal(found.terms["step"].arrays["w"], one.terms["step"].arrays["w"] + 1)
    assert left.keys() == residuals.keys()
    assert torch.equal(left["feedback/gone/x"], torch.ones(2, 4))

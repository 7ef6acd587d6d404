"""FedProx: FedAvg at mu = 0, and a pull of known strength otherwise."""

from __future__ import annotations

import pytest
import torch

from small_federation import RAGGED, Federation, Quadratic, make_rows, quadratic_sites
from wardround.algorithms.fedavg import FedAvg
from wardround.algorithms.fedprox import FedProx
from wardround.algorithms.registry import local_rule
from wardround.config.job import AlgorithmSpec, OptimizerSpec
from wardround.errors import ConfigError
from wardround.models.mlp import MLP
from wardround.types import ModelState, Server


def mlp() -> MLP:
    torch.manual_seed(0)
    return MLP(5, hidden=(6,)).double()


@pytest.mark.parametrize("stacked", [True, False])
@pytest.mark.parametrize("local", [(), ("head",)])
def test_mu_zero_is_fedavg_to_the_bit(stacked: bool, local: tuple[str, ...]) -> None:
    optimizer = OptimizerSpec(momentum=0.9, weight_decay=0.01)
    one, other = (
        Federation(mlp(), make_rows(RAGGED, (5,)), rule=rule, stacked=stacked, local=local, optimizer=optimizer)
        .run(3, epochs=2, learning_rate=0.05)
        .everything()
        for rule in (FedProx(0.0), FedAvg())
    )
    assert one.keys() == other.keys()
    assert all(torch.equal(one[n], other[n]) for n in one)


def test_the_pull_by_hand() -> None:
    # Loss (w - 4)^2 / 2, learning rate 1/2, mu = 1, from w_t = 0. First step: gradient -4, no pull yet, w = 2. Second:
    # gradient -2, pull 1 x (2 - 0), together 0: w stays at 2, which is 4 / (1 + mu), the minimum with the proximal term.
    federation = Federation(Quadratic(0.0), quadratic_sites([4.0], [3]), rule=FedProx(1.0))
    federation.run(1, steps=2, learning_rate=0.5, population=1)
    assert federation.server.model.params["weight"].item() == pytest.approx(2.0, abs=1e-15)


def test_every_shared_parameter_of_every_site_is_pulled() -> None:
    # the gradient of mu / 2 ||w - w_t||^2, by autograd, is what is added
    draw = torch.Generator().manual_seed(0)
    shapes = {"weight": (3, 2), "bias": (3,), "head": (1, 3)}
    params = {n: torch.randn(4, *s, generator=draw, dtype=torch.float64).requires_grad_() for n, s in shapes.items()}
    shared = {n: torch.randn(s, generator=draw, dtype=torch.float64) for n, s in shapes.items() if n != "head"}
    grads = {n: torch.randn(4, *s, generator=draw, dtype=torch.float64) for n, s in shapes.items()}
    (0.7 / 2 * sum(((params[n] - value) ** 2).sum() for n, value in shared.items())).backward()
    with torch.no_grad():
        found = FedProx(0.7).correct(grads, params, {}, Server(model=ModelState(params=shared, buffers={})))
    assert found.keys() == shapes.keys()
    for n, value in found.items():
        pull = params[n].grad if n in shared else torch.zeros(())
        assert torch.allclose(value, grads[n] + pull, atol=1e-14, rtol=0)


def test_the_pull_is_toward_this_rounds_model() -> None:
    # The proximal minimum lies at (4 + mu w_t) / (1 + mu) = 2 + w_t / 2: from 0 the rounds end at 2, 3, 7/2.
    federation = Federation(Quadratic(0.0), quadratic_sites([4.0], [3]), rule=FedProx(1.0))
    for expected in (2.0, 3.0, 3.5):
        federation.run(1, steps=3, learning_rate=0.5, population=1)
        assert federation.server.model.params["weight"].item() == pytest.approx(expected, abs=1e-15)


def test_a_name_that_stays_at_the_site_is_not_pulled() -> None:
    federation = Federation(Quadratic(0.0), quadratic_sites([4.0], [3]), rule=FedProx(1.0), local=("weight",))
    federation.run(1, steps=2, learning_rate=0.5, population=1)
    assert federation.states["local/weight"].item() == pytest.approx(3.0, abs=1e-15)


def test_the_default_mu_and_the_jobs_own() -> None:
    assert local_rule(AlgorithmSpec(name="fedprox")).mu == 0.01
    assert local_rule(AlgorithmSpec(name="fedprox", mu=0.3)).mu == 0.3


@pytest.mark.parametrize("mu", [-0.1, float("nan")])
def test_a_negative_mu_is_refused(mu: float) -> None:
    with pytest.raises(ConfigError, match=r"algorithm\.mu = .*at least 0"):
        FedProx(mu)

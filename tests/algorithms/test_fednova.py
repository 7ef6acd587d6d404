"""FedNova: worked examples, FedAvg where all take equal steps, and where it rests when they do not."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from small_federation import RAGGED, Federation, Quadratic, difference, make_round, make_rows, quadratic_sites
from wardround.algorithms.fedavg import FedAvg
from wardround.algorithms.fednova import FedNova, accumulation
from wardround.algorithms.fedprox import FedProx
from wardround.algorithms.registry import local_rule
from wardround.algorithms.server_adam import Adam
from wardround.algorithms.server_average import Average
from wardround.config.job import AlgorithmSpec, Job, OptimizerSpec
from wardround.models.logistic import Logistic
from wardround.training import optimizers
from wardround.types import ModelState, Server, Total


def one_round(rule: FedAvg, *, momentum: float = 0.0, stacked: bool = True) -> float:
    """Losses (w - x)^2 / 2, learning rate 1/2, from w = 1; x = -1 with one row and one step, x = 4 with three of each."""
    optimizer = OptimizerSpec(momentum=momentum)
    sites = quadratic_sites([-1.0, 4.0], [1, 3])
    federation = Federation(Quadratic(1.0), sites, rule=rule, optimizer=optimizer, stacked=stacked)
    federation.run(1, epochs=1, batch_size=1, learning_rate=0.5, population=2)
    return federation.server.model.params["weight"].item()


@pytest.mark.parametrize("stacked", [True, False])
def test_two_sites_by_hand(stacked: bool) -> None:
    # A step halves the distance to x. A: one step from distance 2, so y - w = -1, a = 1, d = -1. B: three from -3, so
    # y - w = 3 x 7/8 = 21/8, a = 3, d = 7/8. p = 1/4 and 3/4: sum p a = 5/2, sum p d = -1/4 + 21/32 = 13/32.
    assert one_round(FedNova(), stacked=stacked) == pytest.approx(1 + 5 / 2 * 13 / 32, abs=1e-15)
    # FedAvg lets B count three times as often: (1 x -1 + 3 x 21/8) / 4
    assert one_round(FedAvg(), stacked=stacked) == pytest.approx(1 + 55 / 32, abs=1e-15)


def test_two_sites_with_momentum_by_hand() -> None:
    # m = 1/2. A as before. B: velocities -3, -3/2 - 3/2 = -3, -3/2 + 0: y - w = (3 + 3 + 3/2) / 2 = 15/4. Its three gradients
    # act 7/4, 3/2 and 1 times, a = 17/4, d = 15/17. sum p a = (1 + 51/4) / 4 = 55/16, sum p d = -1/4 + 45/68 = 7/17.
    assert one_round(FedNova(), momentum=0.5) == pytest.approx(1 + 55 / 16 * 7 / 17, abs=1e-14)


def test_two_sites_with_a_proximal_pull_by_hand() -> None:
    # mu = 1. A as before, the pull being 0 at the start. B: gradient -3, to w = 5/2; there -3/2 + 3/2 = 0, and it stays:
    # y - w = 3/2. Its gradients weigh (1 - 1/2)^2, 1 - 1/2 and 1: a = 7/4, d = 6/7. sum p a = (1 + 21/4) / 4 = 25/16,
    # sum p d = -1/4 + 9/14 = 11/28.
    assert one_round(FedNova(1.0)) == pytest.approx(1 + 25 / 16 * 11 / 28, abs=1e-14)


@pytest.mark.parametrize(("rule", "same"), [(FedNova(), FedAvg()), (FedNova(0.3), FedProx(0.3))])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_equal_steps_are_the_rule_without_normalising(rule: FedAvg, same: FedAvg, momentum: float) -> None:
    made = [
        Federation(Logistic(5).double(), make_rows(RAGGED, (5,)), rule=r, optimizer=OptimizerSpec(momentum=momentum))
        .run(4, steps=5, learning_rate=0.1)
        .everything()
        for r in (rule, same)
    ]
    assert difference(*made) <= 1e-14


@pytest.mark.parametrize(("rule", "expected"), [(FedNova(), 3 / 4), (FedAvg(), 9 / 10)], ids=["fednova", "fedavg"])
def test_where_it_rests_under_unequal_steps(rule: FedAvg, expected: float) -> None:
    # Targets 0 and 1, 2 and 6 rows in batches of 2, so 1 and 3 steps. The mean loss by rows is least at 6/8. With short steps
    # a site moves tau eta (x - w): FedAvg rests where 2 x 1 (0 - w) + 6 x 3 (1 - w) = 0, w = 18/20. The local learning rate is
    # short, and the server's makes up for it: w moves a quarter of the way each round (by 1e-6 x 1e5 x 5/2).
    sites = quadratic_sites([0.0, 1.0], [2, 6])
    federation = Federation(Quadratic(0.3), sites, rule=rule, server_rule=Average(1e5))
    federation.run(120, epochs=1, batch_size=2, learning_rate=1e-6, population=2)
    assert federation.server.model.params["weight"].item() == pytest.approx(expected, abs=1e-5)


def test_long_steps_leave_an_error() -> None:
    # Learning rate 1/2: d is 1/2 of A's distance, and (7/8) / 3 of B's, so it rests where 2 (1/2) (0 - w) + 6 (7/24) (1 - w) = 0.
    federation = Federation(Quadratic(0.3), quadratic_sites([0.0, 1.0], [2, 6]), rule=FedNova())
    federation.run(80, epochs=1, batch_size=2, learning_rate=0.5, population=2)
    assert federation.server.model.params["weight"].item() == pytest.approx(7 / 11, abs=1e-12)


@pytest.mark.parametrize(("momentum", "pull"), [(0.0, 0.2), (0.5, 0.05), (0.9, 0.002), (0.9, 0.3)])
def test_the_accumulation_is_the_way_under_a_constant_gradient(momentum: float, pull: float) -> None:
    rate = 0.1
    params, spec = {"w": torch.zeros(1, 1, dtype=torch.float64)}, OptimizerSpec(momentum=momentum)
    slots = optimizers.start(spec, params)
    reached = [0.0]
    for number in range(1, 13):
        grads = {"w": 1.0 + pull / rate * params["w"]}
        optimizers.step(spec, params, grads, slots, rate, number)
        reached.append(-params["w"].item() / rate)
    found = accumulation(torch.arange(13, dtype=torch.float64), momentum, pull)
    assert found.tolist() == pytest.approx(reached, rel=1e-12)
    assert (found[1:] > 0).all()


def test_the_accumulation_in_closed_form() -> None:
    steps = torch.tensor([4.0, 0.0, 1.0], dtype=torch.float64)
    assert accumulation(steps, 0.0, 0.25).tolist() == pytest.approx([(1 - 0.75**4) / 0.25, 0.0, 1.0])
    momentum = optimizers.effective_steps(OptimizerSpec(momentum=0.9), steps)
    assert accumulation(steps, 0.9, 0.0).tolist() == pytest.approx(momentum.tolist())
    assert accumulation(steps[:0], 0.9, 0.1).shape == (0,)


def test_any_server_rule_takes_the_mean_step() -> None:
    # one site of 8 rows: whatever a is, tau_eff d = y - w, and FedNova under Adam is FedAvg under Adam
    made = [
        Federation(Logistic(4).double(), make_rows((20,), (4,)), rule=rule, server_rule=Adam(0.05))
        .run(4, epochs=2, population=1)
        .everything()
        for rule in (FedNova(), FedAvg())
    ]
    assert difference(*made) <= 1e-10


def test_a_total_without_weight_or_step_is_passed_on() -> None:
    server = Server(model=ModelState(params={}, buffers={}))
    nothing = Total(sums={}, weights={}, survivors=())
    empty = Total(sums={"scale": {"accumulation": torch.tensor(0.0)}}, weights={"scale": 0.0}, survivors=("a",))
    kept = replace(empty, weights={"scale": 1.0})
    assert all(FedNova().combine(total, server, make_round()) is total for total in (nothing, empty, kept))


def test_what_a_job_says_of_it() -> None:
    assert local_rule(AlgorithmSpec(name="fednova", mu=0.2))._proximal.mu == 0.2
    assert local_rule(AlgorithmSpec(name="fednova"))._proximal.mu == 0.0
    for optimizer in ({"name": "adam"}, {"name": "adamw"}):
        with pytest.raises(ValueError, match=r"fednova with training\.optimizer adamw? means nothing"):
            Job.model_validate({"algorithm": {"name": "fednova"}, "training": {"optimizer": optimizer}})
    with pytest.raises(ValueError, match=r"algorithm\.mu = 20.0 with learning_rate 0.05: .* below 1"):
        Job.model_validate(
            {"algorithm": {"name": "fednova", "mu": 20}, "training": {"optimizer": {"learning_rate": 0.05}}}
        )

"""SCAFFOLD: a worked example, and the identities that its control variates keep."""

from __future__ import annotations

import pytest
import torch

from small_federation import RAGGED, Federation, Quadratic, make_round, make_rows, part, quadratic_sites
from wardround.algorithms.fedavg import FedAvg
from wardround.algorithms.scaffold import Scaffold
from wardround.config.job import OptimizerSpec
from wardround.models.cnn import CNN
from wardround.models.logistic import Logistic
from wardround.models.mlp import MLP
from wardround.training import optimizers
from wardround.types import Arrays, Server


def mlp() -> MLP:
    torch.manual_seed(0)
    return MLP(5, hidden=(6,)).double()


def weight(federation: Federation) -> float:
    return federation.server.model.params["weight"].item()


def server_variate(federation: Federation) -> float:
    return federation.server.rule["variate/weight"].item()


def site_variates(federation: Federation) -> list[float]:
    return federation.states["variate/weight"][:, 0].tolist()


@pytest.mark.parametrize("stacked", [True, False])
def test_two_sites_by_hand(stacked: bool) -> None:
    """Losses (w - x)^2 / 2 with x_A = -1 (one row) and x_B = 4 (three rows); learning rate 1/2, two steps, population 2.

    A step halves the distance to the root of the corrected gradient w - x - c_k + c, which is x + c_k - c. Two steps
    leave a quarter of it. With learning rate x steps = 1, the new c_k is c_k - c + (w - y_k).

    Round 0, both sites, from w = 1, c = c_A = c_B = 0:
        A: root -1, distance 2:  y_A = -1 + 2/4 = -1/2     c_A = 1 - y_A = 3/2     (the gradients were 2 and 1: mean 3/2)
        B: root  4, distance -3: y_B = 4 - 3/4 = 13/4      c_B = 1 - y_B = -9/4    (-3 and -3/2)
        w = 1 + (1 x (-3/2) + 3 x 9/4) / 4 = 37/16         c = 0 + (3/2 - 9/4) / 2 = -3/8
    Round 1, A alone:
        c - c_A = -15/8, root -1 + 15/8 = 7/8; distance 37/16 - 14/16 = 23/16
        y_A = 7/8 + 23/64 = 79/64                          w = 79/64, for A is all there is
        the change of c_A: -c + (w - y_A) = 3/8 + 69/64 = 93/64, so c_A = 189/64
            (its own gradients at 37/16 and 7/8 + 23/32 = 51/32 were 53/16 and 83/32: mean 189/64)
        c = -3/8 + (93/64) / 2 = 45/128, the mean of c_A = 189/64 and c_B = -144/64
    """
    sites = quadratic_sites([-1.0, 4.0], [1, 3])
    federation = Federation(Quadratic(1.0), sites, rule=Scaffold(), stacked=stacked)
    work = {"steps": 2, "learning_rate": 0.5, "population": 2}

    federation.run(1, **work)
    assert weight(federation) == pytest.approx(37 / 16, abs=1e-15)
    assert site_variates(federation) == pytest.approx([3 / 2, -9 / 4], abs=1e-15)
    assert server_variate(federation) == pytest.approx(-3 / 8, abs=1e-15)

    federation.run(1, cohort=[0], **work)
    assert weight(federation) == pytest.approx(79 / 64, abs=1e-15)
    assert site_variates(federation) == pytest.approx([189 / 64, -9 / 4], abs=1e-15)
    assert server_variate(federation) == pytest.approx(45 / 128, abs=1e-15)


def test_the_variate_is_the_mean_of_all_sites_over_the_population() -> None:
    # c starts as the mean of the c_k, and moves by the sum of their changes over the population: it stays the mean,
    # whoever takes part
    federation = Federation(mlp(), make_rows(RAGGED, (5,)), rule=Scaffold())
    for cohort in ([0, 1, 2, 3, 4, 5], [1, 4], [0], [2, 3, 5]):
        federation.run(1, cohort=cohort, population=6)
        for n, value in federation.server.rule.items():
            assert torch.allclose(value, federation.states[n].mean(0), atol=1e-12, rtol=0)
    assert any((v.abs() > 1e-3).any() for v in federation.server.rule.values())


@pytest.mark.parametrize("optimizer", [OptimizerSpec(), OptimizerSpec(momentum=0.9, weight_decay=0.01)])
@pytest.mark.parametrize("stacked", [True, False])
def test_one_site_that_always_takes_part_is_sgd_to_the_bit(optimizer: OptimizerSpec, stacked: bool) -> None:
    # The change d = c_1+ - c_1 is sent with weight 1, and c+ = c + d / 1. From c = c_1 = 0 both take the same additions,
    # so c - c_1 = 0 exactly, every round: the corrected gradient g + 0 is g, and each round is FedAvg's, which with one
    # site is a run of SGD. Equal are the models; the variate itself is the mean gradient, not 0.
    data = part(make_rows(RAGGED, (5,)), [4])
    work = {"epochs": 2, "learning_rate": 0.05, "population": 1}
    made = [
        Federation(mlp(), data, rule=rule, optimizer=optimizer, stacked=stacked).run(5, **work)
        for rule in (Scaffold(), FedAvg())
    ]
    for n, value in made[1].server.model.params.items():
        assert torch.equal(made[0].server.model.params[n], value)
    for n, value in made[0].server.rule.items():
        assert torch.equal(made[0].states[n][0], value)
        assert (value.abs() > 0.0).any()


class Recording(Scaffold):
    """Remembers the gradients of the one site: as they came, and as they were corrected."""

    def __init__(self) -> None:
        self.own: list[Arrays] = []
        self.corrected: list[Arrays] = []

    def correct(self, grads: Arrays, params: Arrays, context: Arrays, server: Server) -> Arrays:
        corrected = super().correct(grads, params, context, server)
        self.own.append({n: g.clone() for n, g in grads.items()})
        self.corrected.append({n: g.clone() for n, g in corrected.items()})
        return corrected


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_a_step_is_the_learning_rate_times_effective_steps_times_the_mean_gradient(momentum: float) -> None:
    # Gradient i of tau enters the displacement with a_i = 1 + m + ... + m^(tau - 1 - i). Their sum is `effective_steps`,
    # so x - y_k = learning rate x effective_steps x (mean of the corrected gradients weighted by a_i), and therefore
    # c_k+ = c_k - c + that mean = the mean of the site's own gradients weighted by a_i.
    optimizer = OptimizerSpec(momentum=momentum)
    data = make_rows((20, 12), (5,))
    federation = Federation(mlp(), data, rule=Scaffold(), optimizer=optimizer).run(2, population=2)
    assert any((v.abs() > 1e-3).any() for v in federation.server.rule.values())
    rule = Recording()
    states = {n: v[[0]] for n, v in federation.states.items()}
    round = make_round(2, steps=7, learning_rate=0.05)
    trained = federation.executor.train(rule, federation.server, states, part(data, [0]), round)
    tau = len(rule.corrected)
    assert tau == 7
    share = [sum(momentum**j for j in range(tau - i)) for i in range(tau)]
    effective = optimizers.effective_steps(optimizer, torch.tensor([7.0], dtype=torch.float64)).item()
    assert effective == pytest.approx(sum(share), rel=1e-14)
    for n, step in trained.terms["step"].items():
        corrected, own = (
            sum(a * grads[n] for a, grads in zip(share, recorded, strict=True)) / sum(share)
            for recorded in (rule.corrected, rule.own)
        )
        assert torch.allclose(-step, 0.05 * effective * corrected, atol=1e-12, rtol=0)
        assert torch.allclose(trained.states["variate/" + n], own, atol=1e-12, rtol=0)
        assert not torch.allclose(own, corrected, atol=1e-6)


def test_the_change_is_what_a_site_sends() -> None:
    federation = Federation(mlp(), make_rows((20, 12), (5,)), rule=Scaffold()).run(1, population=2)
    trained = federation.executor.train(
        federation.rule, federation.server, federation.states, federation.data, make_round(1)
    )
    for n, change in trained.terms["variate"].items():
        before, after = federation.states["variate/" + n], trained.states["variate/" + n]
        assert torch.allclose(after - before, change, atol=1e-14, rtol=0)


@pytest.mark.parametrize(("rule", "expected"), [(FedAvg(), 21 / 25), (Scaffold(), 1 / 2)], ids=["fedavg", "scaffold"])
def test_the_fixed_points_where_sites_take_unequal_steps(rule: FedAvg, expected: float) -> None:
    # Targets 0 and 1, 2 and 6 rows in batches of 2, so 1 and 3 steps, each of which halves the distance to its root.
    # FedAvg rests where 2 x (1/2) (0 - w) + 6 x (7/8) (1 - w) = 0, w = 21/25: neither the mean of targets by rows, 3/4,
    # nor by sites, for the longer walk counts more. SCAFFOLD rests where both corrected gradients, (w - x_k) - c_k + c,
    # are 0; with c_k = w - x_k and c = mean of c_k that is c = 0, w = 1/2: the mean over sites, as c weighs them alike.
    federation = Federation(Quadratic(0.3), quadratic_sites([0.0, 1.0], [2, 6]), rule=rule)
    federation.run(80, epochs=1, batch_size=2, learning_rate=0.5, population=2)
    assert weight(federation) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("local", [("head",), ("*.bias",)])
def test_names_that_stay_have_no_variate_and_no_correction(local: tuple[str, ...]) -> None:
    federation = Federation(mlp(), make_rows((20, 12), (5,)), rule=Scaffold(), local=local).run(2, population=2)
    shared = set(federation.server.model.params)
    assert federation.server.rule.keys() == {"variate/" + n for n in shared}
    assert {n for n in federation.states if n.startswith("variate/")} == {"variate/" + n for n in shared}


def test_buffers_have_no_variate() -> None:
    torch.manual_seed(0)
    federation = Federation(CNN((1, 8, 8), width=2).double(), make_rows((6, 9), (1, 8, 8)), rule=Scaffold())
    assert federation.server.model.buffers
    assert federation.server.rule.keys() == {"variate/" + n for n in federation.server.model.params}


def test_a_site_without_rows_keeps_its_variate() -> None:
    federation = Federation(Logistic(4).double(), make_rows((8, 5), (4,)), rule=Scaffold()).run(1, population=2)
    federation.data.count[1] = 0
    before = {n: v.clone() for n, v in federation.states.items()}
    trained = federation.executor.train(
        federation.rule, federation.server, federation.states, federation.data, make_round(1)
    )
    for n, value in before.items():
        assert torch.equal(trained.states[n][1], value[1])
        assert (value[1] != 0.0).any()
        assert not torch.equal(trained.states[n][0], value[0])

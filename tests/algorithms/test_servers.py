"""The server rules, by hand."""

from __future__ import annotations

import math

import pytest
import torch

from small_federation import make_round
from wardround.algorithms.registry import SERVER_RULES, server_rule
from wardround.algorithms.server_adagrad import Adagrad
from wardround.algorithms.server_adam import Adam
from wardround.algorithms.server_average import Average
from wardround.algorithms.server_momentum import Momentum
from wardround.algorithms.server_yogi import Yogi
from wardround.config.job import AlgorithmSpec, ServerSpec
from wardround.errors import ConfigError
from wardround.types import ModelState, Server, ServerRule, Total

EACH: list[ServerRule] = [Average(0.5), Momentum(), Adam(), Yogi(), Adagrad()]


def tensor(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def start(rule: ServerRule) -> Server:
    model = ModelState(params={"w": tensor(1.0, 2.0)}, buffers={"running": tensor(10.0)})
    return Server(model=model, rule={"kept": tensor(7.0)}, optimizer=rule.initial(model))


def summed(step: torch.Tensor, weight: float = 0.5, moved: float = 4.0) -> Total:
    """A total whose mean step is `step` and whose buffers moved by `moved`, at this sum of weights."""
    return Total(
        sums={"step": {"w": step * weight}, "buffers": {"running": tensor(moved) * weight}},
        weights={"step": weight, "buffers": weight},
        survivors=("a", "b"),
    )


@pytest.mark.parametrize("rate", [1.0, 0.25])
def test_average_moves_by_the_mean_step_and_buffers_by_their_whole_mean(rate: float) -> None:
    rule = Average(rate)
    after = rule.apply(start(rule), summed(tensor(0.4, -0.8)), make_round())
    assert after.model.params["w"].tolist() == pytest.approx([1.0 + rate * 0.4, 2.0 - rate * 0.8], abs=1e-15)
    assert after.model.buffers["running"].tolist() == pytest.approx([14.0])
    assert after.rule["kept"].tolist() == [7.0]
    assert after.optimizer == {}


def test_adam_takes_two_steps_by_hand() -> None:
    # beta1 = 1/2, beta2 = 3/4, tau = 1/2, learning rate 2.
    # Step d = 4: m = 2, v = 16/4 = 4, sqrt(v) + tau = 5/2, w = 1 + 2 x 2 / (5/2) = 13/5 (no bias correction).
    # Step d = -2: m = 1 - 1 = 0, v = 3 + 1 = 4: w stays. Step d = 6: m = 3, v = 3 + 9 = 12, w = 13/5 + 6 / (sqrt 12 + 1/2).
    rule = Adam(learning_rate=2.0, beta1=0.5, beta2=0.75, epsilon=0.5)
    server = start(rule)
    reached = []
    for step in (4.0, -2.0, 6.0):
        server = rule.apply(server, summed(tensor(step, 0.0)), make_round())
        reached.append(server.model.params["w"][0].item())
    assert reached == pytest.approx([2.6, 2.6, 2.6 + 6 / (math.sqrt(12) + 0.5)], abs=1e-14)
    assert server.optimizer["mean/w"].tolist() == pytest.approx([3.0, 0.0])
    assert server.optimizer["square/w"].tolist() == pytest.approx([12.0, 0.0])
    # a name whose step is 0 does not move
    assert server.model.params["w"][1].item() == 2.0


def steps_of(rule: ServerRule, steps: list[float]) -> tuple[list[float], Server]:
    """Where the first weight is after each of these mean steps, from 1."""
    server, reached = start(rule), []
    for step in steps:
        server = rule.apply(server, summed(tensor(step, 0.0)), make_round())
        reached.append(server.model.params["w"][0].item())
    assert server.model.params["w"][1].item() == 2.0
    return reached, server


def test_momentum_takes_three_steps_by_hand() -> None:
    # beta = 1/2, learning rate 2. v = 4, w = 1 + 8; v = 2 - 2 = 0, w stays; v = 0 + 6, w = 9 + 12
    reached, server = steps_of(Momentum(2.0, 0.5), [4.0, -2.0, 6.0])
    assert reached == pytest.approx([9.0, 9.0, 21.0])
    assert server.optimizer["velocity/w"].tolist() == pytest.approx([6.0, 0.0])


def test_momentum_without_memory_is_the_average() -> None:
    assert steps_of(Momentum(0.5, 0.0), [4.0, -2.0])[0] == steps_of(Average(0.5), [4.0, -2.0])[0]


def test_yogi_takes_two_steps_by_hand() -> None:
    # beta1 = 1/2, beta2 = 3/4, tau = 1/2, learning rate 2.
    # d = 4: v = 0 - 16/4 x sign(0 - 16) = 4, m = 2, w = 1 + 4 / (5/2). d = -1: v = 4 - 1/4 x sign(4 - 1) = 15/4, which Adam
    # would have brought down to 3 + 1/4; m = 1 - 1/2 = 1/2, w = 13/5 + 1 / (sqrt(15/4) + 1/2).
    reached, server = steps_of(Yogi(learning_rate=2.0, beta1=0.5, beta2=0.75, epsilon=0.5), [4.0, -1.0])
    assert reached == pytest.approx([2.6, 2.6 + 1 / (math.sqrt(3.75) + 0.5)], abs=1e-14)
    assert server.optimizer["square/w"].tolist() == pytest.approx([3.75, 0.0])


def test_adagrad_takes_two_steps_by_hand() -> None:
    # tau = 1, learning rate 2, no first moment. d = 3: v = 9, w = 1 + 6 / 4. d = 4: v = 25, w = 5/2 + 8 / 6.
    reached, server = steps_of(Adagrad(learning_rate=2.0, epsilon=1.0), [3.0, 4.0])
    assert reached == pytest.approx([2.5, 2.5 + 4 / 3], abs=1e-14)
    assert server.optimizer["square/w"].tolist() == pytest.approx([25.0, 0.0])
    # beta1 = 1/2 halves the first step, whose m is 3/2
    assert steps_of(Adagrad(learning_rate=2.0, beta1=0.5, epsilon=1.0), [3.0])[0] == pytest.approx([1.75])


@pytest.mark.parametrize("rule", EACH, ids=[rule.name for rule in EACH])
def test_buffers_are_averaged(rule: ServerRule) -> None:
    after = rule.apply(start(rule), summed(tensor(1.0, 1.0), moved=-3.0), make_round())
    assert after.model.buffers["running"].tolist() == [7.0]
    assert after.optimizer.keys() == rule.initial(start(rule).model).keys()


@pytest.mark.parametrize("rule", EACH, ids=[rule.name for rule in EACH])
@pytest.mark.parametrize(
    "total",
    [
        Total(sums={}, weights={}, survivors=()),
        summed(tensor(5.0, 5.0), weight=0.0),
        Total(sums={"step": {"w": tensor(0.0, 0.0)}}, weights={"step": 0.0}, survivors=("a",)),
    ],
    ids=["nothing", "no weight", "sites without rows"],
)
def test_a_total_without_weight_changes_nothing(rule: ServerRule, total: Total) -> None:
    first = rule.apply(start(rule), summed(tensor(1.0, 2.0)), make_round())
    after = rule.apply(first, total, make_round(1))
    assert torch.equal(after.model.params["w"], first.model.params["w"])
    assert torch.equal(after.model.buffers["running"], first.model.buffers["running"])
    assert after.optimizer.keys() == first.optimizer.keys()
    assert all(torch.equal(after.optimizer[n], v) for n, v in first.optimizer.items())


@pytest.mark.parametrize("rule", EACH, ids=[rule.name for rule in EACH])
def test_the_server_before_is_left_as_it_was(rule: ServerRule) -> None:
    before = start(rule)
    rule.apply(before, summed(tensor(1.0, 2.0)), make_round())
    assert before.model.params["w"].tolist() == [1.0, 2.0]
    assert before.model.buffers["running"].tolist() == [10.0]
    assert all((v == 0.0).all() for v in before.optimizer.values())


@pytest.mark.parametrize("rule", EACH, ids=[rule.name for rule in EACH])
def test_only_the_mean_matters_not_the_public_maximum(rule: ServerRule) -> None:
    one, other = (rule.apply(start(rule), summed(tensor(0.3, -0.2), weight=w), make_round()) for w in (0.125, 4.0))
    assert torch.allclose(one.model.params["w"], other.model.params["w"], atol=1e-15, rtol=0)


@pytest.mark.parametrize("name", SERVER_RULES)
def test_every_name_builds_a_rule_of_that_name(name: str) -> None:
    assert server_rule(AlgorithmSpec(server=ServerSpec(name=name))).name == name


def test_defaults_and_settings_of_the_job() -> None:
    assert server_rule(AlgorithmSpec()).learning_rate == 1.0
    assert server_rule(AlgorithmSpec(server=ServerSpec(learning_rate=0.5))).learning_rate == 0.5
    adam = server_rule(AlgorithmSpec(server=ServerSpec(name="adam", beta1=0.5, beta2=0.6, epsilon=0.7)))
    assert (adam.learning_rate, adam.beta1, adam.beta2, adam.epsilon) == (0.1, 0.5, 0.6, 0.7)
    yogi = server_rule(AlgorithmSpec(server=ServerSpec(name="yogi", learning_rate=0.2)))
    assert (yogi.learning_rate, yogi.beta1, yogi.beta2, yogi.epsilon) == (0.2, 0.9, 0.99, 1e-3)
    adagrad = server_rule(AlgorithmSpec(server=ServerSpec(name="adagrad", epsilon=0.7)))
    assert (adagrad.learning_rate, adagrad.beta1, adagrad.epsilon) == (0.1, 0.0, 0.7)
    momentum = server_rule(AlgorithmSpec(server=ServerSpec(name="momentum")))
    assert (momentum.learning_rate, momentum.beta1) == (1.0, 0.9)


def test_an_unknown_server_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"algorithm\.server\.name = 'adm': did you mean 'adam'"):
        server_rule(AlgorithmSpec(server=ServerSpec(name="adm")))

"""q-FedAvg: FedAvg at q = 0, a worked example, and less spread of the sites' losses at a larger q."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from small_federation import RAGGED, Federation, Quadratic, difference, make_rows, quadratic_sites
from wardround.algorithms.fedavg import FedAvg
from wardround.algorithms.qfedavg import QFedAvg
from wardround.algorithms.registry import local_rule
from wardround.algorithms.server_momentum import Momentum
from wardround.config.job import AlgorithmSpec, Job, OptimizerSpec
from wardround.errors import ConfigError
from wardround.models.logistic import Logistic
from wardround.models.mlp import MLP
from wardround.training.evaluate import Evaluator
from wardround.types import Rows


def mlp() -> MLP:
    torch.manual_seed(0)
    return MLP(5, hidden=(6,)).double()


@pytest.mark.parametrize("stacked", [True, False])
@pytest.mark.parametrize("local", [(), ("head",)])
@pytest.mark.parametrize("server", [None, Momentum()])
def test_q_zero_is_fedavg_and_computes_no_loss(
    stacked: bool, local: tuple[str, ...], server: Momentum | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unwanted(*_: object) -> None:
        raise AssertionError("a loss was computed")

    monkeypatch.setattr(Evaluator, "losses", unwanted)
    options: dict[str, Any] = {"stacked": stacked, "local": local, "optimizer": OptimizerSpec(momentum=0.9)}
    options |= {"server_rule": server} if server else {}
    made = [
        Federation(mlp(), make_rows(RAGGED, (5,)), rule=rule, **options)
        .run(3, epochs=2, learning_rate=0.05)
        .everything()
        for rule in (QFedAvg(0.0), FedAvg())
    ]
    assert difference(*made) <= 1e-15


@pytest.mark.parametrize("stacked", [True, False])
def test_two_sites_by_hand(stacked: bool) -> None:
    # Losses F = (w - x)^2 / 2 + 1000, learning rate 1/2 (L = 2), two steps from w = 1: x = -1 has F = 1002 and moves -3/2, x = 4
    # has F = 1004.5 and moves 9/4. q = 1: h / L = move^2 L + F, that is 4.5 + 1002 and 10.125 + 1004.5, with 1 and 3 rows.
    federation = Federation(Quadratic(1.0), quadratic_sites([-1.0, 4.0], [1, 3]), rule=QFedAvg(1.0), stacked=stacked)
    federation.run(1, steps=2, learning_rate=0.5, population=2)
    expected = 1 + (1002 * -1.5 + 3 * 1004.5 * 2.25) / (1006.5 + 3 * 1014.625)
    assert federation.server.model.params["weight"].item() == pytest.approx(expected, abs=1e-13)


def torn() -> Rows:
    """A large site where the label follows the first feature, and a small one where it goes against it."""
    data = make_rows((60, 12), (3,))
    data.labels[:] = (data.features[:, 0] > 0).long()
    data.labels[60:] = 1 - data.labels[60:]
    return data


def test_a_larger_q_serves_the_worst_site_better() -> None:
    losses = []
    for q in (0.0, 1.0, 4.0):
        federation = Federation(Logistic(3).double(), torn(), rule=QFedAvg(q))
        federation.run(300, steps=1, batch_size=64, learning_rate=0.5, population=2)
        evaluator = federation.executor._evaluator
        losses.append(evaluator.losses(federation.server.model, federation.states, federation.data))
    worst = [float(loss.max()) for loss in losses]
    spread = [float(loss.max() - loss.min()) for loss in losses]
    assert worst[0] > worst[1] + 0.1 > worst[2] + 0.2
    assert spread[0] > spread[1] > spread[2]


def test_it_rests_where_the_weighted_gradients_cancel() -> None:
    # the gradient of sum n_k F_k^(q + 1) / (q + 1) is sum n_k F_k^q grad F_k
    federation = Federation(Logistic(3).double(), torn(), rule=QFedAvg(2.0))
    federation.run(4000, steps=1, batch_size=64, learning_rate=0.5, population=2)
    params = {n: v.clone().requires_grad_() for n, v in federation.server.model.params.items()}
    data, total = federation.data, 0.0
    for start, count in zip(data.start, data.count, strict=True):
        rows = slice(start, start + count)
        logits = data.features[rows] @ params["linear.weight"][0] + params["linear.bias"]
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, data.labels[rows].double())
        total = total + int(count) * loss**3 / 3
    total.backward()
    assert max(float(v.grad.abs().max()) for v in params.values()) <= 1e-6


@pytest.mark.parametrize("q", [0.5, 2.0])
def test_a_site_without_loss_moves_nothing(q: float) -> None:
    # softplus(-z) and its gradient are exactly 0 for a logit of 800: F^(q - 1) has no value, and must not spoil the sum
    data = make_rows((4,), (1,))
    data.features[:], data.labels[:] = 8.0, 1
    module = Logistic(1).double()
    module.linear.weight.data.fill_(100.0)
    before = module.linear.weight.item()
    federation = Federation(module, data, rule=QFedAvg(q)).run(2, population=1)
    assert federation.server.model.params["linear.weight"].item() == before


def test_what_a_job_says_of_it() -> None:
    assert local_rule(AlgorithmSpec(name="qfedavg")).q == 1.0
    assert local_rule(AlgorithmSpec(name="qfedavg", q=0.2)).q == 0.2
    with pytest.raises(ConfigError, match=r"algorithm\.q = -1.*at least 0"):
        QFedAvg(-1.0)
    with pytest.raises(ValueError, match=r"algorithm\.q belongs to qfedavg, and algorithm\.name is fedprox: remove q"):
        Job.model_validate({"algorithm": {"name": "fedprox", "q": 1.0}})

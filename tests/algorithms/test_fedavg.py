"""FedAvg: what federation means when nothing else is added."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from small_federation import Federation, Quadratic, difference, make_rows, quadratic_sites
from wardround.algorithms.fedavg import FedAvg
from wardround.algorithms.registry import LOCAL_RULES, local_names, local_rule
from wardround.config.job import AlgorithmSpec
from wardround.errors import ConfigError
from wardround.models.cnn import CNN
from wardround.models.logistic import Logistic
from wardround.models.mlp import MLP
from wardround.models.registry import owners, state_of
from wardround.types import LOCAL


def test_one_round_by_hand() -> None:
    # Losses (w - x)^2 / 2, learning rate 1/2, two steps: each halves the distance to the site's target x, so a site moves
    # 3/4 of the way. From w = 1: to -1 it moves -3/2, to 4 it moves 9/4. With 1 and 3 rows the mean is
    # (1 x -3/2 + 3 x 9/4) / 4 = 21/16, so w = 37/16.
    federation = Federation(Quadratic(1.0), quadratic_sites([-1.0, 4.0], [1, 3]))
    federation.run(1, steps=2, learning_rate=0.5, population=2)
    assert federation.server.model.params["weight"].item() == pytest.approx(37 / 16, abs=1e-15)


def test_the_loss_of_a_site_is_its_mean_over_steps() -> None:
    # at target 4 the distances are 3 and 3/2, the losses 9/2 and 9/8 (and the constant 1000); at -1: 2 and 1, so 2 and 1/2
    federation = Federation(Quadratic(1.0), quadratic_sites([-1.0, 4.0], [1, 3]))
    federation.run(1, steps=2, learning_rate=0.5, population=2)
    assert federation.trained.loss.tolist() == pytest.approx([1000 + 2.5 / 2, 1000 + 45 / 16], abs=1e-12)


@pytest.mark.parametrize("stacked", [True, False])
def test_one_whole_batch_a_round_is_gradient_descent_on_all_rows(stacked: bool) -> None:
    # with one step on all rows of a site, the mean of the steps weighted by rows is the step on everybody's mean loss
    rows = make_rows((3, 9, 20), (4,))
    federation = Federation(Logistic(4).double(), rows, stacked=stacked).run(5, steps=1, batch_size=32)
    module = Logistic(4).double()
    for _ in range(5):
        module.zero_grad()
        logits = module(rows.features)[:, 0]
        nn.functional.binary_cross_entropy_with_logits(logits, rows.labels.double()).backward()
        with torch.no_grad():
            for value in module.parameters():
                value.sub_(value.grad, alpha=0.1)
    assert difference(federation.server.model.params, state_of(module).params) <= 1e-12


def test_sites_out_of_the_cohort_change_nothing() -> None:
    rows = make_rows((3, 9, 20), (4,))
    federation = Federation(Logistic(4).double(), rows).run(3, cohort=[0, 2])
    features, labels = rows.features.clone(), 1 - rows.labels
    features[rows.start[1] : rows.start[1] + 9] = 100.0
    labels[: rows.start[1]], labels[rows.start[2] :] = rows.labels[: rows.start[1]], rows.labels[rows.start[2] :]
    other = type(rows)(features=features, labels=labels, start=rows.start, count=rows.count, keys=rows.keys)
    again = Federation(Logistic(4).double(), other).run(3, cohort=[0, 2])
    assert difference(federation.everything(), again.everything()) == 0.0


def test_every_name_local_is_each_site_alone() -> None:
    rows = make_rows((5, 12), (4,))
    federation = Federation(Logistic(4).double(), rows, local=("*",)).run(4, population=2)
    assert federation.server.model.params == {}
    alone = Federation(Logistic(4).double(), rows).run(4, cohort=[1], population=2)
    for n, value in alone.server.model.params.items():
        assert torch.allclose(federation.states[LOCAL + n][1], value, atol=1e-12, rtol=0)


# ------------------------------------------------------------------------------------------------ what stays at a site


def kept(patterns: tuple[str, ...], module: nn.Module) -> set[str]:
    state = state_of(module)
    return set(local_names(patterns, FedAvg(), owners(module), [*state.params, *state.buffers]))


NORMS = {f"norm{i}.{n}" for i in (1, 2) for n in ("weight", "bias", "running_mean", "running_var")}


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        ((), set()),
        (("head",), {"head.weight", "head.bias"}),
        (("head.*",), {"head.weight", "head.bias"}),
        (("head.bias",), {"head.bias"}),
        (("BatchNorm2d",), NORMS),
        (("_BatchNorm",), NORMS),
        (("Linear", "norm1"), {"head.weight", "head.bias"} | {n for n in NORMS if n.startswith("norm1")}),
        (("conv?.bias",), {"conv1.bias", "conv2.bias"}),
    ],
)
def test_local_patterns(patterns: tuple[str, ...], expected: set[str]) -> None:
    assert kept(patterns, CNN((1, 8, 8))) == expected


def test_local_patterns_for_all_biases_and_for_everything() -> None:
    module = MLP(4, hidden=(5, 3))
    names = set(state_of(module).params)
    assert kept(("*.bias",), module) == {"hidden.0.bias", "hidden.1.bias", "head.bias"}
    assert kept(("*",), module) == names
    assert kept(("hidden.1",), module) == {"hidden.1.weight", "hidden.1.bias"}
    assert kept(("Linear",), module) == names


@pytest.mark.parametrize("pattern", ["nothing", "hea", "BatchNorm2d", "Module", "Head", "hidden.2"])
def test_a_pattern_that_matches_nothing_is_refused(pattern: str) -> None:
    with pytest.raises(ConfigError, match=rf"model.local: '{pattern}' matches nothing; .* hidden\.0\.weight"):
        kept(("head", pattern), MLP(4, hidden=(5,)))


# ------------------------------------------------------------------------------------------------ the table


@pytest.mark.parametrize("name", LOCAL_RULES)
def test_every_name_builds_a_rule_of_that_name(name: str) -> None:
    assert local_rule(AlgorithmSpec(name=name)).name == name


def test_a_plug_in_is_built_from_its_reference() -> None:
    rule = local_rule(AlgorithmSpec(name="wardround.algorithms.fedprox:FedProx", options={"mu": 0.5}))
    assert rule.mu == 0.5


def test_an_unknown_name_suggests_the_closest() -> None:
    with pytest.raises(ConfigError, match=r"algorithm.name = 'fedprx': did you mean 'fedprox'\?"):
        local_rule(AlgorithmSpec(name="fedprx"))


def test_options_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"algorithm\.options of fedavg"):
        local_rule(AlgorithmSpec(name="fedavg", options={"mu": 1.0}))

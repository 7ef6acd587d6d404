"""FedBN: BatchNorm layers stay at their site and the server never gets them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from small_federation import Federation, make_round, make_rows
from wardround.algorithms.fedbn import FedBN
from wardround.algorithms.registry import local_names
from wardround.errors import ConfigError
from wardround.models.cnn import CNN
from wardround.models.logistic import Logistic
from wardround.models.mlp import MLP
from wardround.models.registry import owners, state_of
from wardround.types import LOCAL

NORMS = {f"norm{i}.{n}" for i in (1, 2) for n in ("weight", "bias", "running_mean", "running_var")}


def names(module: nn.Module) -> list[str]:
    state = state_of(module)
    return [*state.params, *state.buffers]


def test_exactly_the_norms_are_local() -> None:
    module = CNN((1, 8, 8))
    assert local_names((), FedBN(), owners(module), names(module)) == NORMS
    assert local_names(("head.bias",), FedBN(), owners(module), names(module)) == NORMS | {"head.bias"}


def test_norms_of_a_table_model_are_local() -> None:
    module = MLP(4, hidden=(5,), norm="batch")
    kept = local_names((), FedBN(), owners(module), names(module))
    assert kept == {f"norms.0.{n}" for n in ("weight", "bias", "running_mean", "running_var")}


@pytest.mark.parametrize(
    "module", [Logistic(4), MLP(4), nn.Sequential(nn.GroupNorm(2, 4), nn.Linear(4, 1)), nn.LayerNorm(4)]
)
def test_a_model_without_batch_norm_is_refused(module: nn.Module) -> None:
    with pytest.raises(ConfigError, match="fedbn keeps BatchNorm layers at the site, and this model has none"):
        local_names(("*",), FedBN(), owners(module), names(module))


@pytest.mark.parametrize("stacked", [True, False])
def test_norms_stay_at_the_site_and_the_server_never_gets_them(stacked: bool) -> None:
    torch.manual_seed(0)
    module = CNN((1, 8, 8), width=2).double()
    data = make_rows((6, 9, 12), (1, 8, 8))
    federation = Federation(module, data, rule=FedBN(), stacked=stacked)
    assert federation.states.keys() == {LOCAL + n for n in NORMS}
    shared = {"conv1.weight", "conv1.bias", "conv2.weight", "conv2.bias", "head.weight", "head.bias"}
    trained = federation.executor.train(federation.rule, federation.server, federation.states, data, make_round())
    assert {term: set(arrays) for term, arrays in trained.terms.items()} == {"step": shared}
    federation.run(2)
    assert federation.server.model.params.keys() == shared
    assert federation.server.model.buffers == {}
    for value in federation.states.values():
        assert not torch.allclose(value[0], value[1], atol=1e-6)
        assert not torch.allclose(value[1], value[2], atol=1e-6)


def test_a_site_out_of_the_cohort_keeps_its_norms() -> None:
    torch.manual_seed(0)
    federation = Federation(CNN((1, 8, 8), width=2).double(), make_rows((6, 9, 12), (1, 8, 8)), rule=FedBN())
    before = {n: v.clone() for n, v in federation.states.items()}
    federation.run(2, cohort=[0, 2])
    for n, value in federation.states.items():
        assert torch.equal(value[1], before[n][1])
        assert not torch.equal(value[0], before[n][0])

"""How a network is built the same everywhere, and what of it is state."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from wardround.config.job import ModelSpec
from wardround.errors import ConfigError
from wardround.models.cnn import CNN
from wardround.models.logistic import Logistic
from wardround.models.mlp import MLP
from wardround.models.registry import build, owners, state_of


def built(
    name: str = "mlp", shape: tuple[int, ...] = (4,), classes: int = 2, seed: int = 0, **options: object
) -> nn.Module:
    return build(ModelSpec(name=name, options=options), shape, classes, seed=seed, dtype=torch.float32)


@pytest.mark.parametrize(
    ("name", "shape", "kind"), [("logistic", (4,), Logistic), ("mlp", (4,), MLP), ("cnn", (1, 8, 8), CNN)]
)
@pytest.mark.parametrize(("classes", "outputs"), [(2, 1), (3, 3)])
def test_built_in_names_take_their_sizes_from_the_data(
    name: str, shape: tuple[int, ...], kind: type[nn.Module], classes: int, outputs: int
) -> None:
    module = built(name, shape, classes)
    assert type(module) is kind
    assert module(torch.randn(5, *shape)).shape == (5, outputs)


def test_weights_depend_on_the_seed_alone() -> None:
    torch.manual_seed(1)
    generator = torch.get_rng_state()
    first = state_of(built(seed=3)).params
    assert torch.equal(generator, torch.get_rng_state())
    torch.manual_seed(2)
    again, other = state_of(built(seed=3)).params, state_of(built(seed=4)).params
    assert all(torch.equal(first[n], again[n]) for n in first)
    assert not torch.equal(first["head.weight"], other["head.weight"])


def test_options_reach_the_network_and_dtype_its_parameters() -> None:
    module = build(ModelSpec(name="mlp", options={"hidden": [3, 2]}), (4,), 2, seed=0, dtype=torch.float64)
    assert [p.shape[0] for p in module.hidden.parameters()] == [3, 3, 2, 2]
    assert all(p.dtype == torch.float64 for p in module.parameters())


def test_a_plug_in_gets_only_what_it_asks_for() -> None:
    module = built("torch.nn:Linear", in_features=4, out_features=1)
    assert isinstance(module, nn.Linear)


def test_a_plug_in_that_is_no_module_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"model.name = 'builtins:dict': expected an nn.Module, got dict"):
        built("builtins:dict")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("logstic", "model.name = 'logstic': did you mean 'logistic'"),
        ("absent.package:Net", "the module 'absent.package' cannot be imported"),
        ("torch.nn:Absent", "'torch.nn' has no 'Absent'"),
    ],
)
def test_an_unknown_name_is_refused(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        built(name)


def test_options_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"model\.options of mlp"):
        built("mlp", depth=3)


def test_a_table_model_on_pictures_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"model\.options of logistic"):
        built("logistic", (1, 8, 8))


def test_state_leaves_out_counters_and_frozen_parameters() -> None:
    module = built("cnn", (1, 8, 8))
    module.conv1.requires_grad_(False)
    state = state_of(module)
    assert state.params.keys() == {
        "norm1.weight", "norm1.bias", "conv2.weight", "conv2.bias", "norm2.weight", "norm2.bias", "head.weight", "head.bias",
    }  # fmt: skip
    assert state.buffers.keys() == {f"norm{i}.{n}" for i in (1, 2) for n in ("running_mean", "running_var")}
    assert not any(v.requires_grad for v in state.params.values())


def test_state_is_a_copy() -> None:
    module = built()
    state = state_of(module)
    for value in state.params.values():
        value.add_(1.0)
    assert not torch.allclose(state.params["head.weight"], module.head.weight)


def test_owners_are_the_submodules_that_hold_a_name() -> None:
    module = built("cnn", (1, 8, 8))
    found = owners(module)
    assert found["norm1.running_mean"] is module.norm1
    assert found["head.bias"] is module.head
    assert set(state_of(module).params) | set(state_of(module).buffers) <= set(found)
    assert owners(nn.Linear(2, 1)).keys() == {"weight", "bias"}

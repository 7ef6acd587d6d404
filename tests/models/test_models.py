"""The networks: shapes, hand-stacked layers, and what they refuse."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import nn

from wardround.errors import ConfigError
from wardround.models.cnn import CNN
from wardround.models.logistic import Logistic
from wardround.models.mlp import MLP


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize(
    "make",
    [
        lambda outputs: Logistic(4, outputs),
        lambda outputs: MLP(4, outputs, hidden=(6,)),
        lambda outputs: MLP(4, outputs, hidden=(6, 5, 3)),
    ],
    ids=["logistic", "mlp", "deep mlp"],
)
def test_stacked_is_forward_at_every_site(make: Any, outputs: int) -> None:
    torch.manual_seed(0)
    modules = [make(outputs).double() for _ in range(3)]
    for module in modules:
        for p in module.parameters():
            nn.init.normal_(p)
    params = {
        n: torch.stack([dict(m.named_parameters())[n].detach() for m in modules])
        for n, _ in modules[0].named_parameters()
    }
    x = torch.randn(3, 7, 4, dtype=torch.float64)
    together = modules[0].stacked(params, x)
    assert together.shape == (3, 7, outputs)
    for k, module in enumerate(modules):
        assert torch.allclose(together[k], module(x[k]).detach(), atol=1e-12, rtol=0)


def test_logistic_starts_from_zero_so_every_class_is_as_likely() -> None:
    assert Logistic(4, 2)(torch.randn(3, 4)).tolist() == [[0.0, 0.0]] * 3


def test_mlp_by_hand() -> None:
    # hidden = relu(x1 - x2, x2 - x1), output = 2 h1 + 3 h2 + 1: for (5, 3) it is 2 x 2 + 1, for (3, 5) 3 x 2 + 1
    module = MLP(2, hidden=(2,))
    with torch.no_grad():
        module.hidden[0].weight.copy_(torch.tensor([[1.0, -1.0], [-1.0, 1.0]]))
        module.hidden[0].bias.zero_()
        module.head.weight.copy_(torch.tensor([[2.0, 3.0]]))
        module.head.bias.fill_(1.0)
    assert module(torch.tensor([[5.0, 3.0], [3.0, 5.0]])).tolist() == [[5.0], [7.0]]


def test_mlp_with_batch_norm_normalises_before_each_relu() -> None:
    torch.manual_seed(0)
    module = MLP(4, hidden=(5,), norm="batch").double()
    x = torch.randn(20, 4, dtype=torch.float64)
    before = module.hidden[0](x)
    normal = (before - before.mean(0)) / (before.var(0, unbiased=False) + 1e-5).sqrt()
    assert torch.allclose(module(x), module.head(torch.relu(normal)), atol=1e-12)
    assert module.stacked is None


@pytest.mark.parametrize("inputs", [(1, 8, 8), (3, 4, 4), (1, 28, 20), (2, 7, 5)])
@pytest.mark.parametrize("outputs", [1, 4])
def test_cnn_takes_pictures_of_any_side_from_four(inputs: tuple[int, ...], outputs: int) -> None:
    assert CNN(inputs, outputs, width=2)(torch.randn(3, *inputs)).shape == (3, outputs)


@pytest.mark.parametrize("inputs", [8, (8, 8), (1, 3, 8), (1, 8, 3), (1, 1, 8, 8)])
def test_cnn_refuses_what_is_no_picture(inputs: int | Sequence[int]) -> None:
    with pytest.raises(ConfigError, match=r"model cnn: inputs = .*at least 4 pixels a side"):
        CNN(inputs)


@pytest.mark.parametrize("hidden", [(), (4, 0), (-1,)])
def test_mlp_refuses_widths_below_one(hidden: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match=r"model\.options\.hidden"):
        MLP(4, hidden=hidden)


def test_mlp_refuses_an_unknown_norm() -> None:
    with pytest.raises(ConfigError, match=r"model\.options\.norm = 'layer': expected none or batch"):
        MLP(4, norm="layer")

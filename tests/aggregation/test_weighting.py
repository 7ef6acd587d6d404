"""Weights go on as fractions of a public maximum."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from wardround.aggregation.weighting import WEIGHT, fractions, weighed, weighed_sum
from wardround.types import Term


def term(sites: int, *, seed: int = 0, maximum: float = 64.0, dtype: torch.dtype = torch.float64) -> Term:
    draw = np.random.default_rng(seed)
    return Term(
        arrays={
            "matrix": torch.from_numpy(draw.normal(size=(sites, 3, 2))).to(dtype),
            "scalar": torch.from_numpy(draw.normal(size=sites)).to(dtype),
        },
        weights=torch.from_numpy(draw.integers(0, 65, size=sites).astype(np.float64)),
        maximum=maximum,
    )


@given(sites=st.integers(0, 6), seed=st.integers(0, 100), maximum=st.sampled_from([64.0, 65.0, 1000.0]))
def test_weighed_sum_is_numpys(sites: int, seed: int, maximum: float) -> None:
    given_term = term(sites, seed=seed, maximum=maximum)
    share = given_term.weights.numpy() / maximum
    found = weighed_sum(given_term)
    assert found.keys() == {"matrix", "scalar", WEIGHT}
    assert found[WEIGHT].numpy() == pytest.approx(share.sum(), abs=1e-15)
    for name, value in given_term.arrays.items():
        expected = sum((s * v for s, v in zip(share, value.numpy(), strict=True)), np.zeros(value.shape[1:]))
        assert found[name].shape == value.shape[1:]
        assert found[name].numpy() == pytest.approx(expected, abs=1e-12)


@given(sites=st.integers(1, 6), seed=st.integers(0, 100))
def test_weighed_adds_up_to_weighed_sum(sites: int, seed: int) -> None:
    given_term = term(sites, seed=seed)
    each, whole = weighed(given_term), weighed_sum(given_term)
    assert each.keys() == whole.keys()
    for name, value in whole.items():
        assert each[name].shape == (sites, *value.shape)
        assert torch.allclose(each[name].sum(0), value, atol=1e-12, rtol=0)


def test_by_hand() -> None:
    given_term = Term(
        arrays={"w": torch.tensor([[2.0], [6.0], [5.0]])}, weights=torch.tensor([4.0, 8.0, 0.0]), maximum=16.0
    )
    # 1/4 x 2 + 1/2 x 6 + 0 x 5 = 3.5, weight 3/4
    assert fractions(given_term).tolist() == [0.25, 0.5, 0.0]
    assert weighed_sum(given_term)["w"].tolist() == [3.5]
    assert weighed_sum(given_term)[WEIGHT].item() == 0.75
    assert weighed(given_term)["w"].tolist() == [[0.5], [3.0], [0.0]]


def test_a_parameter_named_weight_is_no_weight() -> None:
    # a bare nn.Linear has one
    named = Term(arrays={"weight": torch.tensor([[2.0], [6.0]])}, weights=torch.tensor([4.0, 8.0]), maximum=16.0)
    for function, array, weight in ((weighed_sum, [3.5], 0.75), (weighed, [[0.5], [3.0]], [0.25, 0.5])):
        assert function(named)["weight"].tolist() == array
        assert function(named)[WEIGHT].tolist() == weight


def test_no_parameter_can_take_the_name_of_the_weight() -> None:
    for name in (WEIGHT, ""):
        with pytest.raises(KeyError):
            nn.Module().register_parameter(name, nn.Parameter(torch.zeros(1)))
    with pytest.raises(KeyError):
        nn.Module().add_module("", nn.Linear(1, 1))


def test_dtypes() -> None:
    half = term(3, dtype=torch.float32)
    counted = Term(
        arrays={"count": torch.tensor([3, 4])}, weights=torch.tensor([1.0, 1.0], dtype=torch.float32), maximum=1.0
    )
    for function in (weighed, weighed_sum):
        assert function(half)["matrix"].dtype == torch.float32
        assert function(half)[WEIGHT].dtype == torch.float64
        assert function(counted)["count"].dtype == torch.float64
        assert function(counted)[WEIGHT].dtype == torch.float64
    assert weighed_sum(counted)["count"].item() == 7.0

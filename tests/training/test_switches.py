"""Lower precision and compilation: what they change, and what they leave as it is."""

from __future__ import annotations

import functools

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from small_federation import RAGGED, make_round, make_rows
from wardround.algorithms.fedavg import FedAvg
from wardround.config.job import Job, OptimizerSpec
from wardround.models.mlp import MLP
from wardround.models.registry import state_of
from wardround.training.executors import Sequential, Stacked
from wardround.training.forward import OFF, Switches
from wardround.training.probe import probe
from wardround.types import Arrays, Server


def trained(kind: type[Stacked | Sequential], switches: Switches) -> Arrays:
    torch.manual_seed(0)
    module = MLP(5, hidden=(16,))
    executor = kind(module, OptimizerSpec(learning_rate=0.1), probe(module, (5,)), switches)
    rows = make_rows(RAGGED, (5,), dtype=torch.float32)
    return executor.train(FedAvg(), Server(model=state_of(module)), {}, rows, make_round()).terms["step"]


def furthest(one: Arrays, other: Arrays) -> float:
    return max(float((one[name] - other[name]).abs().max()) for name in one)


@pytest.mark.parametrize("kind", [Stacked, Sequential])
def test_bf16_takes_nearly_the_same_steps_and_keeps_weights_in_full(kind: type[Stacked | Sequential]) -> None:
    full, low = trained(kind, OFF), trained(kind, Switches(precision="bf16"))
    assert all(value.dtype == torch.float32 for value in low.values())
    assert 1e-6 < furthest(full, low) < 0.05 * max(float(value.abs().max()) for value in full.values())


def test_bf16_multiplies_in_bfloat16() -> None:
    seen: set[torch.dtype] = set()

    class Watched(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            out = super().forward(x)
            seen.add(out.dtype)
            return out

    module = nn.Sequential(Watched(5, 1))
    executor = Sequential(module, OptimizerSpec(), probe(module, (5,)), Switches(precision="bf16"))
    seen.clear()
    executor.train(
        FedAvg(), Server(model=state_of(module)), {}, make_rows(RAGGED, (5,), dtype=torch.float32), make_round()
    )
    assert seen == {torch.bfloat16}


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Stacked, Sequential])
def test_a_compiled_forward_takes_the_same_steps(
    kind: type[Stacked | Sequential], monkeypatch: pytest.MonkeyPatch
) -> None:
    full = trained(kind, OFF)
    # the graph is captured as for any backend; making kernels of it needs a C++ compiler
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    assert furthest(full, trained(kind, Switches(compile=True))) < 1e-6


def test_two_precisions_at_once_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"engine.precision bf16 with training.dtype float64"):
        Job.model_validate({"engine": {"precision": "bf16"}, "training": {"dtype": "float64"}})

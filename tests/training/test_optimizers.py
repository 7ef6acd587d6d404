"""Local optimisers over a site axis: PyTorch's numbers, and what a step is worth."""

from __future__ import annotations

import pytest
import torch

from wardround.config.job import OptimizerSpec
from wardround.training import optimizers
from wardround.types import Arrays

SPECS = {
    "sgd": OptimizerSpec(),
    "momentum": OptimizerSpec(momentum=0.9),
    "momentum and decay": OptimizerSpec(momentum=0.9, weight_decay=0.1),
    "adam": OptimizerSpec(name="adam"),
    "adam with decay": OptimizerSpec(name="adam", beta1=0.8, beta2=0.95, epsilon=1e-2, weight_decay=0.1),
    "adamw": OptimizerSpec(name="adamw"),
    "adamw with decay": OptimizerSpec(name="adamw", beta1=0.8, beta2=0.95, epsilon=1e-2, weight_decay=0.1),
}


def theirs(spec: OptimizerSpec, values: list[torch.Tensor], rate: float) -> torch.optim.Optimizer:
    if spec.name == "sgd":
        return torch.optim.SGD(values, lr=rate, momentum=spec.momentum, weight_decay=spec.weight_decay)
    kind = torch.optim.Adam if spec.name == "adam" else torch.optim.AdamW
    return kind(values, lr=rate, betas=(spec.beta1, spec.beta2), eps=spec.epsilon, weight_decay=spec.weight_decay)


def made(sites: int, seed: int) -> Arrays:
    draw = torch.Generator().manual_seed(seed)
    shapes = {"weight": (3, 2), "bias": (3,)}
    return {n: torch.randn(sites, *s, generator=draw, dtype=torch.float64) for n, s in shapes.items()}


@pytest.mark.parametrize("name", SPECS)
def test_ten_steps_equal_torch_optim_at_every_site(name: str) -> None:
    spec, rate, sites = SPECS[name], 0.03, 3
    params = made(sites, 0)
    copies = [{n: v[k].clone().requires_grad_() for n, v in params.items()} for k in range(sites)]
    reference = [theirs(spec, list(own.values()), rate) for own in copies]
    slots = optimizers.start(spec, params)
    for number in range(1, 11):
        grads = made(sites, number)
        for k, own in enumerate(copies):
            for n, value in own.items():
                value.grad = grads[n][k].clone()
            reference[k].step()
        optimizers.step(spec, params, grads, slots, rate, number)
    for k, own in enumerate(copies):
        for n, value in own.items():
            assert torch.allclose(params[n][k], value.detach(), atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", SPECS)
def test_a_prefix_steps_in_place_and_leaves_the_rest(name: str) -> None:
    spec = SPECS[name]
    params = made(3, 0)
    before = {n: v.clone() for n, v in params.items()}
    slots = optimizers.start(spec, params)
    views = {n: v[:2] for n, v in params.items()}
    optimizers.step(spec, views, made(2, 1), {s: {n: v[:2] for n, v in a.items()} for s, a in slots.items()}, 0.1, 1)
    for n, value in params.items():
        assert torch.equal(value[2], before[n][2])
        assert not torch.equal(value[:2], before[n][:2])
        assert all((slot[n][2] == 0.0).all() for slot in slots.values())
        assert all((slot[n][:2] != 0.0).all() for slot in slots.values())


def test_state_is_as_small_as_the_optimiser_allows() -> None:
    kept = {name: set(optimizers.start(spec, made(2, 0))) for name, spec in SPECS.items()}
    assert kept["sgd"] == set()
    assert kept["momentum"] == {"momentum"}
    assert kept["adam"] == kept["adamw with decay"] == {"mean", "square"}


def test_effective_steps_by_hand() -> None:
    # tau = 3, m = 1/2: the three gradients weigh 1 + 1/2 + 1/4, 1 + 1/2 and 1, so 1.75 + 1.5 + 1 = 4.25
    steps = torch.tensor([0.0, 1.0, 3.0], dtype=torch.float64)
    found = optimizers.effective_steps(OptimizerSpec(momentum=0.5), steps)
    assert found.tolist() == pytest.approx([0.0, 1.0, 4.25], abs=1e-15)
    assert torch.equal(optimizers.effective_steps(OptimizerSpec(), steps), steps)
    assert torch.equal(optimizers.effective_steps(OptimizerSpec(name="adam"), steps), steps)


@pytest.mark.parametrize("momentum", [0.0, 0.3, 0.9, 0.99])
@pytest.mark.parametrize("steps", [1, 2, 10, 200])
def test_effective_steps_are_the_displacement_under_a_constant_gradient(momentum: float, steps: int) -> None:
    spec = OptimizerSpec(momentum=momentum)
    params = {"w": torch.zeros(1, 1, dtype=torch.float64)}
    slots = optimizers.start(spec, params)
    for number in range(1, steps + 1):
        optimizers.step(spec, params, {"w": torch.full((1, 1), 2.0, dtype=torch.float64)}, slots, 0.1, number)
    effective = optimizers.effective_steps(spec, torch.tensor([float(steps)], dtype=torch.float64))
    assert params["w"].item() == pytest.approx(-0.1 * 2.0 * effective.item(), rel=1e-12)

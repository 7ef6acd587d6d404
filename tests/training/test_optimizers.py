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


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_decay_of_weights_spares_vectors(name: str) -> None:
    kinds = {"spared": ("weights", 0.1), "decayed": ("all", 0.1), "none": ("all", 0.0)}
    found = {}
    for kind, (decay, amount) in kinds.items():
        spec = OptimizerSpec(name=name, weight_decay=amount, decay=decay)
        found[kind] = made(2, 0)
        optimizers.step(spec, found[kind], made(2, 1), optimizers.start(spec, found[kind]), 0.1, 1)
    assert torch.equal(found["spared"]["weight"], found["decayed"]["weight"])
    assert torch.equal(found["spared"]["bias"], found["none"]["bias"])
    assert not torch.equal(found["decayed"]["bias"], found["none"]["bias"])
    assert not torch.equal(found["decayed"]["weight"], found["none"]["weight"])


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


# ------------------------------------------------------------------------------------------------ over rounds


def rates(rounds: int, **schedule: float | str) -> list[float]:
    spec = OptimizerSpec(learning_rate=0.8, schedule=schedule)
    return [optimizers.learning_rate(spec, index, rounds) for index in range(rounds)]


def test_schedules_by_hand() -> None:
    assert rates(3) == [0.8, 0.8, 0.8]
    assert rates(5, kind="step", every=2, factor=0.5) == pytest.approx([0.8, 0.8, 0.4, 0.4, 0.2])
    assert rates(3, kind="step", every=1) == pytest.approx([0.8, 0.08, 0.008])
    assert rates(3, kind="exponential", factor=0.9) == pytest.approx([0.8, 0.72, 0.648])
    assert rates(2, kind="exponential") == pytest.approx([0.8, 0.76])
    # (1 + cos) / 2 at 0, 60, 120 degrees: 1, 3/4, 1/4
    assert rates(3, kind="cosine") == pytest.approx([0.8, 0.6, 0.2])
    assert rates(3, kind="cosine", floor=0.5) == pytest.approx([0.8, 0.7, 0.5])
    assert rates(4, kind="exponential", factor=0.5, floor=0.3) == pytest.approx([0.8, 0.4, 0.24, 0.24])


def test_a_warm_up_rises_to_the_full_rate_and_the_rest_begins_there() -> None:
    assert rates(4, warmup=3) == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert rates(5, kind="cosine", warmup=2) == pytest.approx([0.8 / 3, 1.6 / 3, 0.8, 0.6, 0.2])
    assert rates(3, kind="step", every=1, factor=0.5, warmup=1) == pytest.approx([0.4, 0.8, 0.4])
    assert rates(2, kind="cosine", warmup=5) == pytest.approx([0.8 / 6, 1.6 / 6])


@pytest.mark.parametrize("kind", ["constant", "step", "exponential", "cosine"])
def test_every_round_has_a_rate_above_zero(kind: str) -> None:
    assert min(rates(50, kind=kind, warmup=5)) > 0.0
    assert optimizers.learning_rate(OptimizerSpec(schedule={"kind": kind}), 60, 50) >= 0.0

"""The networks for pictures and volumes: size, shapes, normalisation, and that both executors train them alike."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from wardround.algorithms import registry as algorithms
from wardround.algorithms.fedavg import FedAvg
from wardround.config.job import AlgorithmSpec, Job, ModelSpec, OptimizerSpec
from wardround.errors import ConfigError
from wardround.federation.choice import choose_executor, convolves_apart
from wardround.models import registry as models
from wardround.models.norm import exchange, groups
from wardround.training.executors import Sequential, Stacked
from wardround.training.forward import Switches
from wardround.training.probe import probe
from wardround.training.recipe import Recipe
from wardround.types import LOCAL, Round, Rows, Server, Trained, Work

TINY: dict[str, tuple[dict[str, Any], int]] = {
    "cnn": ({"width": 2}, 8),
    "resnet18": ({"width": 2, "stem": "small"}, 8),
    "resnet50": ({"width": 2, "stem": "small"}, 8),
    "densenet121": ({"width": 4, "growth": 4, "blocks": (1, 1, 1, 1)}, 32),
    "efficientnet_b0": ({"width": 0.25, "depth": 0.3, "dropout": 0.0, "drop_connect": 0.0}, 16),
    "vit_small": ({"patch": 4, "width": 12, "depth": 1, "heads": 3}, 8),
}
NORMS = ("batch", "group", "none")


def build(name: str, axes: int = 2, channels: int = 1, classes: int = 2, **options: Any) -> tuple[nn.Module, Any]:
    own, side = TINY[name]
    shape = (channels, *[side] * axes)
    spec = ModelSpec(name=name, options={**own, **options})
    return models.build(spec, shape, classes, seed=1, dtype=torch.float64), shape


def train(
    module: nn.Module, shape: tuple[int, ...], kind: type[Stacked] | type[Sequential], *,
    counts: tuple[int, ...] = (4, 3), local: frozenset[str] = frozenset(), batch: int = 3, epochs: int = 1,
    recipe: Recipe | None = None, switches: Switches | None = None,
) -> Trained:  # fmt: skip
    dtype = next(module.parameters()).dtype
    draw = torch.Generator().manual_seed(2)
    rows = sum(counts)
    count = np.array(counts)
    data = Rows(
        features=torch.randn(rows, *shape, generator=draw, dtype=torch.float64).to(dtype),
        labels=torch.arange(rows) % 2,
        start=np.cumsum(count) - count,
        count=count,
        keys=np.arange(1, len(counts) + 1, dtype=np.uint64),
    )
    work = Work(steps=None, epochs=epochs, batch_size=batch, learning_rate=0.05)
    round = Round(index=0, population=len(counts), cohort=len(counts), work=work, seed=3, max_weight=8.0)
    whole = models.state_of(module)
    states = {
        LOCAL + n: v.expand(len(counts), *v.shape).clone()
        for n, v in {**whole.params, **whole.buffers}.items()
        if n in local
    }
    shared = type(whole)(
        params={n: v for n, v in whole.params.items() if n not in local},
        buffers={n: v for n, v in whole.buffers.items() if n not in local},
    )
    extra = {} if recipe is None else {"recipe": recipe}
    executor = kind(
        module,
        OptimizerSpec(momentum=0.9),
        probe(module, shape),
        **({"switches": switches} if switches else {}),
        **extra,
    )
    return executor.train(FedAvg(), Server(model=shared), states, data, round)


def same(left: Trained, right: Trained, within: float = 1e-10) -> None:
    for term, arrays in left.terms.items():
        assert arrays.keys() == right.terms[term].keys()
        for name, value in arrays.items():
            assert torch.allclose(value, right.terms[term][name], atol=within, rtol=0), (term, name)
    for name, value in left.states.items():
        assert torch.allclose(value, right.states[name], atol=within, rtol=0), name


# ------------------------------------------------------------------------------------------------------------- sizes


@pytest.mark.parametrize(
    ("name", "published", "features"),
    [
        # what torchvision, EfficientNet-PyTorch and DeiT give for ImageNet's 1000 classes, and the width before the head
        ("resnet18", 11_689_512, 512),
        ("resnet50", 25_557_032, 2048),
        ("densenet121", 7_978_856, 1024),
        ("efficientnet_b0", 5_288_548, 1280),
        # DeiT has a position for the class token, which is folded into the token here
        ("vit_small", 22_050_664 - 384, 384),
    ],
)
def test_networks_have_the_size_of_their_papers(name: str, published: int, features: int) -> None:
    module = models.build(ModelSpec(name=name), (3, 224, 224), 2, seed=0, dtype=torch.float32)
    head = 1000 * (features + 1) - (features + 1)
    assert sum(p.numel() for p in module.parameters()) == published - head


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("axes", [2, 3])
def test_pictures_and_volumes_of_any_channels_give_logits(name: str, axes: int) -> None:
    for channels, classes in ((1, 2), (3, 4)):
        module, shape = build(name, axes, channels, classes)
        assert module.eval()(torch.zeros(2, *shape, dtype=torch.float64)).shape == (2, 1 if classes == 2 else classes)


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("shape", [(5,), (8, 8), (1, 2, 64, 64), (1, 2, 2, 2, 2)])
def test_rows_that_are_no_picture_are_refused(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match=r"model \w+: inputs = .*expected \(channels, height, width\)"):
        models.build(ModelSpec(name=name, options=TINY[name][0]), shape, 2, seed=0, dtype=torch.float32)


@pytest.mark.parametrize("name", TINY)
def test_initial_weights_follow_from_the_seed_alone(name: str) -> None:
    first = build(name)[0].state_dict()
    torch.manual_seed(99)
    again = build(name)[0].state_dict()
    assert all(torch.equal(value, again[n]) for n, value in first.items())


# ----------------------------------------------------------------------------------------------------- normalisation


@pytest.mark.parametrize("name", [name for name in TINY if name != "vit_small"])
@pytest.mark.parametrize("norm", NORMS)
def test_norm_is_exchanged_throughout(name: str, norm: str) -> None:
    module, _ = build(name, norm=norm)
    batch = sum(isinstance(m, _BatchNorm) for m in module.modules())
    group = sum(isinstance(m, nn.GroupNorm) for m in module.modules())
    assert (batch > 0, group > 0) == (norm == "batch", norm == "group")
    if norm != "batch":
        assert not models.state_of(module).buffers
        assert probe(module, build(name)[1]).independent


def test_groups_divide_the_channels_and_have_four_or_more_of_them() -> None:
    # 64 = 16 x 4, not 32 x 2; 24 = 4 x 6, not 8 x 3; 6 and 3 stay whole
    assert [groups(c) for c in (2048, 128, 64, 24, 6, 3, 1)] == [32, 32, 16, 4, 1, 1, 1]
    with pytest.raises(ConfigError, match=r"norm = 'layer'.*batch, group or none"):
        exchange(nn.Identity(), "layer")  # type: ignore[arg-type]


def test_a_resnet_without_norm_begins_as_its_shortcuts() -> None:
    # residual branches are zero, so depth multiplies no variance
    module, _ = build("resnet50", norm="none")
    x = torch.randn(3, 8, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    block = module.layer1[1]  # type: ignore[index, union-attr]
    assert torch.equal(block(x.relu()), x.relu())


# --------------------------------------------------------------------------------------------------------- executors


CASES = [
    *((name, 2, {"norm": norm}) for name in TINY if name != "vit_small" for norm in NORMS),
    *((name, 3, {"norm": norm}) for name in ("cnn", "resnet18") for norm in NORMS),
    ("vit_small", 2, {}),
    ("vit_small", 3, {}),
]


@pytest.mark.parametrize(("name", "axes", "options"), CASES)
def test_stacked_and_sequential_train_the_same_model(name: str, axes: int, options: dict[str, Any]) -> None:
    module, shape = build(name, axes, **options)
    assert probe(module, shape).stackable
    same(train(module, shape, Stacked), train(module, shape, Sequential))


def test_what_drops_at_random_trains_one_site_after_another() -> None:
    for name, options in (
        ("efficientnet_b0", {"dropout": 0.2, "drop_connect": 0.2}),
        ("vit_small", {"dropout": 0.1}),
        ("densenet121", {"dropout": 0.1}),
    ):
        module, shape = build(name, **options)
        found = probe(module, shape)
        assert (found.stackable, found.stochastic) == (False, True)
        same(train(module, shape, Sequential), train(module, shape, Sequential), 0.0)


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "efficientnet_b0"])
def test_fedbn_keeps_every_batch_norm_and_trains_alike(name: str) -> None:
    module, shape = build(name)
    rule = algorithms.local_rule(AlgorithmSpec(name="fedbn"))
    whole = models.state_of(module)
    local = algorithms.local_names((), rule, models.owners(module), [*whole.params, *whole.buffers])
    kept = {
        f"{n}.{p}" for n, m in module.named_modules() if isinstance(m, _BatchNorm) for p in ("weight", "running_var")
    }
    assert kept <= local
    assert not any("fc" in n or "class_layers" in n for n in local)
    stacked = train(module, shape, Stacked, local=local)
    assert set(stacked.states) == {LOCAL + n for n in local}
    same(stacked, train(module, shape, Sequential, local=local))


def test_local_patterns_name_the_head() -> None:
    module, _ = build("resnet18")
    names, owners = list(models.state_of(module).params), models.owners(module)
    found = algorithms.local_names(("fc", "layer4.*.bn2.*"), FedAvg(), owners, [*names])
    assert found >= {"fc.weight", "fc.bias", "layer4.0.bn2.weight", "layer4.1.bn2.bias"}


def test_rows_meet_where_a_relu_hides_them_from_the_output() -> None:
    class Hidden(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(4)
            self.head = nn.Linear(4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(torch.relu(self.norm(x) - 100.0))

    assert not probe(Hidden(), (4,)).independent


def test_stacking_is_not_tried_where_convolutions_train_one_by_one_anyway() -> None:
    module, shape = build("resnet18")
    tried, spared = probe(module, shape), probe(module, shape, stack=None)
    assert (tried.stackable, spared.stackable) == (True, False)
    assert replace(spared, stackable=True, reason="") == replace(tried, reason="")
    assert probe(nn.Linear(3, 1), (3,), stack=None).stackable  # no convolution, so nothing to spare
    job = Job.model_validate({"training": {"batch_size": 16}, "engine": {"executor": "auto"}})
    cpu = torch.device("cpu")
    assert convolves_apart(job, (1, 128, 128), cpu)
    assert not convolves_apart(job, (1, 128, 128), torch.device("cuda"))
    assert not convolves_apart(job, (1, 8, 8), cpu)
    assert choose_executor(job, spared, (1, 128, 128), cpu)[1].startswith("sequential: on a CPU convolutions")


def bf16(name: str, norm: str) -> tuple[Trained, Trained]:
    module, shape = build(name, **({} if name == "vit_small" else {"norm": norm}))
    module = module.float()
    full = train(module, shape, Sequential, epochs=1)
    return full, train(module, shape, Sequential, epochs=1, switches=Switches(precision="bf16"))


@pytest.mark.parametrize(("name", "norm"), [("cnn", "batch"), ("resnet18", "group"), ("vit_small", "batch")])
def test_mixed_precision_steps_near_the_full_ones_with_parameters_in_full(name: str, norm: str) -> None:
    full, mixed = bf16(name, norm)
    far = torch.cat([v.flatten() for v in full.terms["step"].values()])
    near = torch.cat([v.flatten() for v in mixed.terms["step"].values()])
    assert near.dtype == torch.float32
    assert 0 < float((far - near).norm() / far.norm()) < 0.2


# ------------------------------------------------------------------------------------------------------ accumulation


@pytest.mark.parametrize("kind", [Stacked, Sequential])
@pytest.mark.parametrize("name", ["cnn", "resnet18", "vit_small"])
def test_parts_of_a_batch_add_up_to_the_batch(name: str, kind: type[Stacked] | type[Sequential]) -> None:
    module, shape = build(name, **({} if name == "vit_small" else {"norm": "group"}))
    whole = train(module, shape, kind, counts=(7, 5), batch=5)
    for parts in (2, 3, 50):
        same(train(module, shape, kind, counts=(7, 5), batch=5, recipe=Recipe(accumulate=parts)), whole, 1e-12)


def test_batch_norm_sees_a_part_and_never_a_single_row() -> None:
    module, shape = build("cnn")
    whole = train(module, shape, Sequential, counts=(7,), batch=7)
    split = train(module, shape, Sequential, counts=(7,), batch=7, recipe=Recipe(accumulate=3))
    assert not torch.equal(whole.terms["step"]["conv1.weight"], split.terms["step"]["conv1.weight"])
    assert [Recipe(accumulate=4).parts(n, independent=False) for n in (1, 2, 3, 5, 8, 9)] == [1, 1, 1, 2, 4, 4]
    assert [Recipe(accumulate=4).parts(n, independent=True) for n in (1, 3, 8)] == [1, 3, 4]
    same(
        train(module, shape, Stacked, counts=(7, 5), batch=7, recipe=Recipe(accumulate=3)),
        train(module, shape, Sequential, counts=(7, 5), batch=7, recipe=Recipe(accumulate=3)),
    )

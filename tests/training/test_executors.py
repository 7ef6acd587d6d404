"""One client program, two executors: they are equal to each other, to any chunking, and to PyTorch's own optimisers."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from small_federation import RAGGED, Federation, difference, make_round, make_rows, part
from wardround.algorithms.fedavg import FedAvg
from wardround.algorithms.fedbn import FedBN
from wardround.algorithms.fednova import FedNova
from wardround.algorithms.fedprox import FedProx
from wardround.algorithms.qfedavg import QFedAvg
from wardround.algorithms.scaffold import Scaffold
from wardround.algorithms.server_adam import Adam
from wardround.config.job import OptimizerSpec
from wardround.models.cnn import CNN
from wardround.models.logistic import Logistic
from wardround.models.mlp import MLP
from wardround.models.registry import state_of
from wardround.training.executors import Sequential, Stacked
from wardround.training.probe import Probe, probe
from wardround.training.schedule import plan
from wardround.types import LOCAL, Arrays, ModelState, Rows, Server

PICTURE = (1, 8, 8)
FEATURES = (5,)


def logistic() -> nn.Module:
    return Logistic(5).double()


def mlp() -> nn.Module:
    torch.manual_seed(0)
    return MLP(5, outputs=3, hidden=(6, 4)).double()


def mlp_with_batch_norm() -> nn.Module:
    torch.manual_seed(0)
    return MLP(5, hidden=(6,), norm="batch").double()


def cnn() -> nn.Module:
    torch.manual_seed(0)
    return CNN(PICTURE, width=2).double()


def group_norm() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 6), nn.GroupNorm(2, 6), nn.Tanh(), nn.Linear(6, 1)).double()


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int, tuple[int, ...]]] = {
    "logistic": (logistic, FEATURES, 2, RAGGED),
    "mlp": (mlp, FEATURES, 3, RAGGED),
    "group_norm": (group_norm, FEATURES, 2, RAGGED),
    # 9, 17 and 33 leave a last row that must join the batch before it
    "mlp_with_batch_norm": (mlp_with_batch_norm, FEATURES, 2, (2, 7, 9, 17, 33, 40)),
    "cnn": (cnn, PICTURE, 2, RAGGED),
}
RULES = {
    "fedavg": FedAvg,
    "fedprox": lambda: FedProx(0.5),
    "fednova": lambda: FedNova(0.1),
    "scaffold": Scaffold,
    "fedbn": FedBN,
    "qfedavg": lambda: QFedAvg(2.0),
}
WORKS: dict[str, dict[str, Any]] = {"epochs": {"epochs": 2}, "steps": {"steps": 5}, "range": {"steps": (2, 7)}}
SGD = {
    "plain": OptimizerSpec(),
    "momentum": OptimizerSpec(momentum=0.9),
    "decay": OptimizerSpec(weight_decay=0.01),
    "both": OptimizerSpec(momentum=0.5, weight_decay=0.05),
}
# a bias before BatchNorm has no gradient but rounding, 1e-17, which AdamW's usual epsilon of 1e-8 would turn into 1e-9
ADAM = {
    "adam": OptimizerSpec(name="adam", weight_decay=0.01),
    "adamw": OptimizerSpec(name="adamw", weight_decay=0.1, beta1=0.8, epsilon=1e-3),
}


def federation(model: str, **options: Any) -> Federation:
    make, shape, classes, counts = MODELS[model]
    return Federation(make(), make_rows(counts, shape, classes=classes), **options)


def compare(model: str, rounds: int, work: dict[str, Any], **options: Any) -> float:
    """The difference of everything that a stacked and a sequential run make, which must not be standing still."""
    stacked = federation(model, stacked=True, **options)
    before = {n: v.clone() for n, v in stacked.everything().items()}
    stacked.run(rounds, **work)
    sequential = federation(model, stacked=False, **options).run(rounds, **work)
    assert difference(before, stacked.everything()) > 1e-3
    assert all(torch.isfinite(v).all() for v in stacked.everything().values())
    assert torch.allclose(stacked.trained.loss, sequential.trained.loss, atol=1e-12, rtol=0)
    return difference(stacked.everything(), sequential.everything())


# ------------------------------------------------------------------------------------------------ stacked = sequential


@pytest.mark.parametrize("optimizer", ["both", *(pytest.param(n, marks=pytest.mark.long) for n in SGD if n != "both")])
@pytest.mark.parametrize("work", WORKS)
@pytest.mark.parametrize("rule", sorted(RULES.keys() - {"fedbn"}))
@pytest.mark.parametrize("model", ["logistic", "mlp"])
def test_stacked_equals_sequential_where_rows_are_independent(model: str, rule: str, work: str, optimizer: str) -> None:
    learning = {**WORKS[work], "learning_rate": 0.05}
    assert compare(model, 10, learning, rule=RULES[rule](), optimizer=SGD[optimizer]) <= 1e-12


@pytest.mark.parametrize(
    ("work", "optimizer"),
    [pytest.param("epochs", "plain", marks=pytest.mark.long), ("epochs", "both"), ("steps", "momentum")],
)
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("model", ["mlp_with_batch_norm", "cnn"])
def test_stacked_equals_sequential_with_batch_norm(model: str, rule: str, work: str, optimizer: str) -> None:
    learning = {**WORKS[work], "learning_rate": 0.02}
    assert compare(model, 10, learning, rule=RULES[rule](), optimizer=SGD[optimizer]) <= 1e-12


def test_stacked_equals_sequential_through_vmap() -> None:
    assert "vmap" in probe(group_norm(), FEATURES).reason
    assert compare("group_norm", 10, {"epochs": 2, "learning_rate": 0.05}, optimizer=SGD["both"]) <= 1e-12


LOCAL_PATTERNS = [
    ("logistic", ("*.bias",)),
    ("logistic", ("*",)),
    ("mlp", ("head",)),
    ("mlp", ("hidden.1.*", "*.bias")),
    ("cnn", ("BatchNorm2d", "head.bias")),
    ("cnn", ("*running_*",)),
]


@pytest.mark.parametrize("rule", ["fedprox", "scaffold", "qfedavg"])
@pytest.mark.parametrize(("model", "local"), LOCAL_PATTERNS)
def test_stacked_equals_sequential_with_local_names(model: str, local: tuple[str, ...], rule: str) -> None:
    learning = {"epochs": 1, "learning_rate": 0.02}
    assert compare(model, 10, learning, rule=RULES[rule](), optimizer=SGD["both"], local=local) <= 1e-12


@pytest.mark.parametrize("optimizer", ADAM)
@pytest.mark.parametrize("model", ["logistic", "mlp", "cnn"])
def test_stacked_equals_sequential_under_local_adam(model: str, optimizer: str) -> None:
    learning = {"epochs": 1, "learning_rate": 0.01}
    assert compare(model, 10, learning, rule=FedProx(0.1), optimizer=ADAM[optimizer]) <= 1e-8


@pytest.mark.parametrize("rule", ["fedavg", "scaffold"])
@pytest.mark.parametrize("model", ["logistic", "cnn"])
def test_stacked_equals_sequential_under_server_adam(model: str, rule: str) -> None:
    learning = {"epochs": 1, "learning_rate": 0.02}
    assert compare(model, 10, learning, rule=RULES[rule](), server_rule=Adam(0.05)) <= 1e-8


@pytest.mark.parametrize("model", MODELS)
def test_one_round_in_float32(model: str) -> None:
    make, shape, classes, counts = MODELS[model]
    data = make_rows(counts, shape, classes=classes, dtype=torch.float32)
    pair = [
        Federation(make().float(), data, rule=Scaffold(), optimizer=SGD["both"], stacked=s).run(1, learning_rate=0.05)
        for s in (True, False)
    ]
    assert all(v.dtype == torch.float32 for v in pair[0].everything().values())
    # the variate is a step divided by the learning rate, 0.05: rounding is 20 times that of the weights
    assert difference(pair[0].everything(), pair[1].everything()) <= 1e-5


CHUNKS = {
    "1": [[0], [1], [2], [3], [4], [5]],
    "2": [[0, 1], [2, 3], [4, 5]],
    "4": [[0, 1, 2, 3], [4, 5]],
    "any order": [[5, 0], [3], [1, 4, 2]],
}


@pytest.mark.parametrize("chunks", CHUNKS)
@pytest.mark.parametrize(("model", "rule"), [("mlp", "scaffold"), ("cnn", "fedbn")])
def test_any_chunking_gives_the_same_run(model: str, rule: str, chunks: str) -> None:
    work = {"epochs": 1, "learning_rate": 0.02}
    whole = federation(model, rule=RULES[rule](), optimizer=SGD["momentum"]).run(5, **work)
    cut = federation(model, rule=RULES[rule](), optimizer=SGD["momentum"], chunks=CHUNKS[chunks]).run(5, **work)
    assert difference(whole.everything(), cut.everything()) <= 1e-12


# ------------------------------------------------------------------------------------------------ executor = torch.optim


def by_torch(
    module: nn.Module, spec: OptimizerSpec, data: Any, round: Any, *, join_single: bool
) -> tuple[Arrays, float]:
    """The plain module under `torch.optim`, over the batches of the plan: its state and its mean loss."""
    module = copy.deepcopy(module).train()
    values = list(module.parameters())
    rate = round.work.learning_rate
    if spec.name == "sgd":
        optimizer: torch.optim.Optimizer = torch.optim.SGD(
            values, lr=rate, momentum=spec.momentum, weight_decay=spec.weight_decay
        )
    else:
        kind = torch.optim.Adam if spec.name == "adam" else torch.optim.AdamW
        betas = (spec.beta1, spec.beta2)
        optimizer = kind(values, lr=rate, betas=betas, eps=spec.epsilon, weight_decay=spec.weight_decay)
    batches = plan(data.keys, data.count, round, join_single=join_single)
    losses = []
    for t in range(int(batches.steps[0])):
        rows = torch.from_numpy(batches.rows[t, 0, : batches.counts[t, 0]]) + int(data.start[0])
        logits, labels = module(data.features[rows]), data.labels[rows]
        if logits.shape[1] == 1:
            loss = F.binary_cross_entropy_with_logits(logits[:, 0], labels.to(logits))
        else:
            loss = F.cross_entropy(logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    state = state_of(module)
    return {**state.params, **state.buffers}, sum(losses) / len(losses)


@pytest.mark.parametrize("stacked", [True, False], ids=["stacked", "sequential"])
@pytest.mark.parametrize("optimizer", [*SGD, *ADAM])
@pytest.mark.parametrize("model", ["logistic", "mlp", "mlp_with_batch_norm", "cnn"])
def test_one_site_equals_torch_optim(model: str, optimizer: str, stacked: bool) -> None:
    spec = {**SGD, **ADAM}[optimizer]
    make, shape, classes, counts = MODELS[model]
    round = make_round(3, epochs=3, learning_rate=0.03)
    data = part(make_rows(counts, shape, classes=classes), [4])
    module = make()
    found = probe(module, shape)
    expected, loss = by_torch(module, spec, data, round, join_single=not found.independent)
    start = state_of(module)
    trained = (Stacked if stacked else Sequential)(module, spec, found).train(
        FedAvg(), Server(model=start), {}, data, round
    )
    reached = {n: start.params[n] + v[0] for n, v in trained.terms["step"].items()}
    reached |= {n: start.buffers[n] + v[0] for n, v in trained.terms.get("buffers", {}).items()}
    assert difference(reached, expected) <= 1e-12
    assert trained.loss.item() == pytest.approx(loss, abs=1e-12)


# ------------------------------------------------------------------------------------------------ what must not happen


def test_training_leaves_module_server_and_states_as_they_were() -> None:
    module = cnn()
    made = Federation(module, make_rows(RAGGED, PICTURE), rule=FedBN())
    module = made.module
    before = {n: v.clone() for n, v in [*module.named_parameters(), *module.named_buffers()]}
    server, states = copy.deepcopy(made.server), {n: v.clone() for n, v in made.states.items()}
    made.executor.train(made.rule, made.server, made.states, made.data, make_round())
    assert all(torch.equal(v, before[n]) for n, v in [*module.named_parameters(), *module.named_buffers()])
    assert difference(made.server.model.params, server.model.params) == 0.0
    assert difference(made.states, states) == 0.0


@pytest.mark.parametrize("model", ["mlp", "group_norm", "cnn"])
def test_a_site_with_broken_rows_does_not_touch_the_others(model: str) -> None:
    made = federation(model)
    round = make_round()
    clean = made.executor.train(made.rule, made.server, made.states, made.data, round)
    features = made.data.features.clone()
    features[made.data.start[3] : made.data.start[3] + made.data.count[3]] = float("nan")
    hurt = made.executor.train(made.rule, made.server, made.states, replace(made.data, features=features), round)
    others = torch.tensor([0, 1, 2, 4, 5])
    for term, arrays in clean.terms.items():
        for name, value in arrays.items():
            assert torch.equal(hurt.terms[term][name][others], value[others])
    assert not torch.isfinite(next(iter(hurt.terms["step"].values()))[3]).all()


@pytest.mark.parametrize("stacked", [True, False], ids=["stacked", "sequential"])
@pytest.mark.parametrize("rule", RULES)
def test_a_site_without_rows_stands_still(rule: str, stacked: bool) -> None:
    data = make_rows((0, 12, 0), PICTURE)
    made = Federation(cnn(), data, rule=RULES[rule](), stacked=stacked)
    before = {n: v.clone() for n, v in made.states.items()}
    trained = made.executor.train(made.rule, made.server, made.states, data, make_round())
    for arrays in trained.terms.values():
        for value in arrays.values():
            assert (value[[0, 2]] == 0.0).all()
    assert all(torch.equal(value[[0, 2]], before[n][[0, 2]]) for n, value in trained.states.items())
    assert torch.isnan(trained.loss[[0, 2]]).all()
    assert torch.isfinite(trained.loss[1])


@pytest.mark.parametrize("stacked", [True, False], ids=["stacked", "sequential"])
@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_a_chunk_without_any_row_stands_still(model: str, stacked: bool) -> None:
    make, shape, classes, _ = MODELS[model]
    data = part(make_rows((0, 5, 0), shape, classes=classes), [0, 2])
    made = Federation(make(), data, stacked=stacked)
    trained = made.executor.train(made.rule, made.server, made.states, data, make_round())
    assert all((v == 0.0).all() for arrays in trained.terms.values() for v in arrays.values())
    assert torch.isnan(trained.loss).all()


def test_the_order_of_sites_is_that_of_the_rows() -> None:
    made = federation("mlp")
    round = make_round()
    forward = made.executor.train(made.rule, made.server, made.states, made.data, round)
    backward = made.executor.train(made.rule, made.server, made.states, part(made.data, [5, 4, 3, 2, 1, 0]), round)
    for name, value in forward.terms["step"].items():
        assert torch.allclose(backward.terms["step"][name].flip(0), value, atol=1e-12, rtol=0)
    assert torch.allclose(backward.loss.flip(0), forward.loss, atol=1e-12, rtol=0)


def test_local_names_are_no_term_and_continue_from_the_state() -> None:
    made = federation("mlp", local=("head",))
    assert made.server.model.params.keys() == {f"hidden.{i}.{n}" for i in (0, 1) for n in ("weight", "bias")}
    assert made.states.keys() == {LOCAL + "head.weight", LOCAL + "head.bias"}
    made.states[LOCAL + "head.bias"] += torch.arange(6.0).unsqueeze(1)
    trained = made.executor.train(made.rule, made.server, made.states, made.data, make_round(learning_rate=1e-9))
    assert trained.terms["step"].keys() == made.server.model.params.keys()
    assert difference(trained.states, made.states) < 1e-8


# ------------------------------------------------------------------------------------------------ unusual modules


class Tied(nn.Module):
    """Encodes and decodes with one matrix; a frozen scale, and a parameter that nothing uses."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(4, 4, bias=False)
        self.decoder = nn.Linear(4, 4, bias=False)
        self.decoder.weight = self.encoder.weight
        self.scale = nn.Parameter(torch.full((4,), 0.5), requires_grad=False)
        self.unused = nn.Parameter(torch.ones(3))
        self.head = nn.Linear(4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.decoder(torch.tanh(self.encoder(x))) * self.scale)


@pytest.mark.parametrize("stacked", [True, False], ids=["stacked", "sequential"])
def test_frozen_unused_and_tied_parameters(stacked: bool) -> None:
    torch.manual_seed(0)
    module = Tied().double()
    data = part(make_rows((9, 14), (4,)), [1])
    round = make_round(epochs=2)
    found = probe(module, (4,))
    assert found.stackable
    spec = OptimizerSpec(momentum=0.5)
    expected, _ = by_torch(module, spec, data, round, join_single=False)
    start = state_of(module)
    assert start.params.keys() == {"encoder.weight", "unused", "head.weight", "head.bias"}
    trained = (Stacked if stacked else Sequential)(module, spec, found).train(
        FedAvg(), Server(model=start), {}, data, round
    )
    reached = {n: start.params[n] + v[0] for n, v in trained.terms["step"].items()}
    assert difference(reached, expected) <= 1e-12
    assert (trained.terms["step"]["unused"] == 0.0).all()


# ------------------------------------------------------------------------------------------------ dropout


def with_dropout() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 1)).double()


def dropped(found: Probe, *, chunks: Any = None, seed: int = 5, noise: int = 0) -> Arrays:
    torch.manual_seed(noise)
    made = Federation(with_dropout(), make_rows(RAGGED, FEATURES), stacked=False, chunks=chunks)
    return made.run(2, seed=seed).everything()


def test_dropout_is_named_by_seed_site_and_round_alone() -> None:
    found = probe(with_dropout(), FEATURES)
    assert found.stochastic
    once = dropped(found)
    again = dropped(found, noise=99)
    assert all(torch.equal(once[n], again[n]) for n in once)
    for chunks in CHUNKS.values():
        assert difference(once, dropped(found, chunks=chunks)) <= 1e-12


def test_dropout_differs_between_seeds_sites_and_rounds() -> None:
    module = with_dropout()
    found = probe(module, FEATURES)
    # sites of one and the same row, eight times: without dropout neither site, seed nor round could matter
    row = make_rows((1,), FEATURES)
    twins = Rows(
        features=row.features.repeat(16, 1),
        labels=row.labels.repeat(16),
        start=np.array([0, 8]),
        count=np.array([8, 8]),
        keys=make_rows((1, 1), FEATURES).keys,
    )
    executor = Sequential(module, OptimizerSpec(), found)
    server = Server(model=state_of(module))

    def step(**facts: int) -> torch.Tensor:
        return executor.train(FedAvg(), server, {}, twins, make_round(steps=1, **facts)).terms["step"]["3.weight"]

    assert not torch.allclose(step()[0], step()[1])
    assert not torch.allclose(step()[0], step(seed=6)[0])
    assert not torch.allclose(step()[0], step(index=1)[0])


def test_dropout_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(3)
    made = Federation(with_dropout(), make_rows((8, 9), FEATURES), stacked=False)
    before = torch.get_rng_state()
    made.run(1)
    assert torch.equal(before, torch.get_rng_state())


def test_model_state_has_no_integer_counters() -> None:
    state: ModelState = state_of(cnn())
    assert not any("num_batches_tracked" in n for n in [*state.params, *state.buffers])

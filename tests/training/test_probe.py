"""What the probe says of a module, and that it is true."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from wardround.errors import ConfigError
from wardround.models.cnn import CNN
from wardround.models.logistic import Logistic
from wardround.models.mlp import MLP
from wardround.training.probe import probe
from wardround.types import Arrays


class Recurrent(nn.Module):
    """The last output of a recurrent layer."""

    def __init__(self, cell: type[nn.RNNBase]) -> None:
        super().__init__()
        self.cell = cell(3, 4, batch_first=True)
        self.head = nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cell(x)[0][:, -1])


class Branching(nn.Module):
    """Takes a way that depends on its data."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) if bool((x[:, 0] > 5.0).any()) else -self.linear(x)


class WithFrozen(nn.Module):
    """A frozen layer, tied weights and a parameter that nothing uses."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.first = nn.Linear(4, 4)
        self.second = nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.unused = nn.Parameter(torch.ones(2))
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.second(torch.tanh(self.first(self.frozen(x)))))


BY_HAND = "stacked: hand-stacked layers, rows independent"
BY_VMAP = "stacked: vmap, rows independent"
GROUPED = "stacked: vmap, rows meet in a batch (BatchNorm): grouped by batch size"

STACKABLE: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], bool, str]] = {
    "logistic": (lambda: Logistic(4), (4,), True, BY_HAND),
    "logistic with classes": (lambda: Logistic(4, outputs=3), (4,), True, BY_HAND),
    "mlp": (lambda: MLP(4, hidden=(5, 3)), (4,), True, BY_HAND),
    "mlp with BatchNorm": (lambda: MLP(4, hidden=(5,), norm="batch"), (4,), False, GROUPED),
    "cnn": (lambda: CNN((1, 8, 8), width=2), (1, 8, 8), False, GROUPED),
    "plain layers": (lambda: nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1)), (4,), True, BY_VMAP),
    "GroupNorm": (lambda: nn.Sequential(nn.Linear(4, 4), nn.GroupNorm(2, 4), nn.Linear(4, 1)), (4,), True, BY_VMAP),
    "float64": (lambda: Logistic(4).double(), (4,), True, BY_HAND),
    "frozen, tied, unused": (WithFrozen, (4,), True, BY_VMAP),
    "BatchNorm that does not learn": (
        lambda: nn.Sequential(nn.BatchNorm1d(4, affine=False), nn.Linear(4, 1)),
        (4,),
        False,
        GROUPED,
    ),
}


@pytest.mark.parametrize("name", STACKABLE)
def test_stackable_modules(name: str) -> None:
    make, shape, independent, reason = STACKABLE[name]
    found = probe(make(), shape)
    assert (found.stackable, found.independent, found.stochastic) == (True, independent, False)
    assert found.reason == reason


@pytest.mark.parametrize("cell", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers_are_sequential(cell: type[nn.RNNBase]) -> None:
    found = probe(Recurrent(cell), (6, 3))
    assert (found.stackable, found.independent, found.stochastic) == (False, True, False)
    assert found.reason.startswith(
        "sequential: vmap cannot take this model: RuntimeError: Batching rule not implemented"
    )


def test_a_way_that_depends_on_data_is_sequential() -> None:
    found = probe(Branching(), (4,))
    assert not found.stackable
    assert "data-dependent control flow" in found.reason


@pytest.mark.parametrize("probability", [0.001, 0.5])
@pytest.mark.parametrize("seed", range(5))
def test_dropout_is_sequential_however_small(probability: float, seed: int) -> None:
    torch.manual_seed(seed)
    found = probe(nn.Sequential(nn.Linear(4, 3), nn.Dropout(probability), nn.Linear(3, 1)), (4,))
    assert (found.stackable, found.stochastic) == (False, True)
    assert found.reason == "sequential: the model draws random numbers while it trains (dropout)"


class WrongStacked(Logistic):
    """Forgets the bias."""

    def stacked(self, params: Arrays, x: Tensor) -> Tensor:
        return x @ params["linear.weight"].transpose(1, 2)


class Doubled(Logistic):
    """The right logits with the wrong scale."""

    def stacked(self, params: Arrays, x: Tensor) -> Tensor:
        return 2.0 * super().stacked(params, x)


class ForgetsStatistics(nn.Module):
    """Its forward keeps a running mean, its own `stacked` does not."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 1)
        self.register_buffer("seen", torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            self.seen.mul_(0.9).add_(x.mean(0), alpha=0.1)
        return self.linear(x)

    def stacked(self, params: Arrays, x: Tensor) -> Tensor:
        return torch.baddbmm(params["linear.bias"].unsqueeze(1), x, params["linear.weight"].transpose(1, 2))


@pytest.mark.parametrize("module", [WrongStacked, Doubled])
def test_a_stacked_that_disagrees_with_forward_is_refused(module: type[Logistic]) -> None:
    with pytest.raises(ConfigError, match=rf"{module.__name__}: its stacked.* give different gradients"):
        probe(module(4), (4,))


def test_a_stacked_that_forgets_buffers_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"ForgetsStatistics: its stacked.* different gradients or buffers"):
        probe(ForgetsStatistics(), (4,))


def test_a_stacked_that_cannot_run_leaves_the_model_sequential() -> None:
    frozen = Logistic(4)
    frozen.linear.bias.requires_grad_(False)
    found = probe(frozen, (4,))
    assert (found.stackable, found.independent) == (False, True)
    assert found.reason == "sequential: hand-stacked layers cannot take this model: KeyError: 'linear.bias'"


@pytest.mark.parametrize(
    ("module", "shape"), [(Logistic(4), (5,)), (CNN((1, 8, 8)), (64,)), (CNN((1, 8, 8)), (1, 4, 4))]
)
def test_rows_of_another_shape_are_refused(module: nn.Module, shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match=rf"model {type(module).__name__} cannot take rows of shape"):
        probe(module, shape)


@pytest.mark.parametrize(
    ("module", "shape", "outputs"),
    [
        (nn.Sequential(nn.Linear(4, 1), nn.Flatten(0)), (4,), r"\(5,\)"),
        (nn.Linear(4, 1), (6, 4), r"\(5, 6, 1\)"),
        (nn.Sequential(nn.Dropout(), nn.Linear(4, 1)), (6, 4), r"\(5, 6, 1\)"),
    ],
)
def test_outputs_that_are_no_logits_are_refused(module: nn.Module, shape: tuple[int, ...], outputs: str) -> None:
    with pytest.raises(ConfigError, match=rf"makes outputs of shape {outputs} .* expected logits \[rows, outputs\]"):
        probe(module, shape)


@pytest.mark.parametrize("training", [True, False])
def test_the_module_and_the_global_generator_stay_as_they_were(training: bool) -> None:
    for module in (CNN((1, 8, 8), width=2), nn.Sequential(nn.Flatten(), nn.Linear(64, 1), nn.Dropout())):
        module.train(training)
        before = copy.deepcopy(module.state_dict())
        generator = torch.get_rng_state()
        probe(module, (1, 8, 8))
        after = module.state_dict()
        assert all(torch.equal(after[n], v) and after[n].dtype == v.dtype for n, v in before.items())
        assert module.training is training
        assert all(p.grad is None for p in module.parameters())
        assert torch.equal(generator, torch.get_rng_state())


def test_batchnorm_over_a_table_cannot_train_on_one_row() -> None:
    assert not probe(MLP(inputs=4, hidden=(3,), norm="batch"), (4,)).single_row
    assert probe(MLP(inputs=4, hidden=(3,)), (4,)).single_row
    # a picture's one row still has many pixels a channel
    assert probe(CNN(inputs=(1, 8, 8)), (1, 8, 8)).single_row


@pytest.mark.parametrize(
    ("module", "shape"), [(Logistic(4, 1), (4,)), (MLP(4, 1, norm="batch"), (4,)), (CNN((1, 8, 8), 3), (1, 8, 8))]
)
def test_a_trial_without_stacking_finds_the_same_but_for_stacking(module: nn.Module, shape: tuple[int, ...]) -> None:
    before = {name: value.clone() for name, value in module.state_dict().items()}
    full, bare = probe(module, shape), probe(module, shape, stack=False)
    assert full.stackable
    assert not bare.stackable
    for name in ("independent", "stochastic", "single_row", "outputs", "convolves", "channels_last"):
        assert getattr(full, name) == getattr(bare, name), name
    assert probe(module, shape, stack=None).stackable is not full.convolves
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())

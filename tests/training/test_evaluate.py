"""Figures of K sites at once equal those of one site after another, and the histograms of their scores."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from small_federation import Federation, difference, make_rows, part
from wardround.algorithms.fedbn import FedBN
from wardround.models.cnn import CNN
from wardround.models.logistic import Logistic
from wardround.models.mlp import MLP
from wardround.models.registry import state_of
from wardround.training.evaluate import Evaluator, figures
from wardround.training.metrics import histogram
from wardround.types import LOCAL, Arrays, ModelState, Rows

COUNTS = (3, 0, 11, 1, 8)
BINS = 20


def made(*local: str, model: str = "mlp", counts: tuple[int, ...] = COUNTS) -> Federation:
    """A federation whose sites' own parameters, if any, have drifted apart."""
    torch.manual_seed(0)
    if model == "cnn":
        found = Federation(CNN((1, 8, 8), width=2).double(), make_rows(counts, (1, 8, 8)), rule=FedBN())
    else:
        found = Federation(MLP(4, hidden=(5,)).double(), make_rows(counts, (4,)), local=local)
    if any(counts):
        found.run(3, learning_rate=0.2)
    return found


def own_module(found: Federation, site: int) -> nn.Module:
    """The plain module with a site's own parameters in place, in evaluation mode."""
    module = copy.deepcopy(found.module).eval()
    own = {n.removeprefix(LOCAL): v[site] for n, v in found.states.items()}
    module.load_state_dict({**found.server.model.params, **found.server.model.buffers, **own}, strict=False)
    return module


def rows_of(data: Rows, site: int) -> slice:
    return slice(int(data.start[site]), int(data.start[site] + data.count[site]))


def together(found: Federation, *, stackable: bool) -> Arrays:
    evaluator = Evaluator(found.module, stackable=stackable)
    logits, labels, owner = evaluator.logits(found.server.model, found.states, found.data)
    return figures(logits, labels, owner, sites=len(found.data.count), bins=BINS)


CASES = {
    "shared": made(),
    "own head": made("head"),
    "all its own": made("*"),
    "own BatchNorm": made(model="cnn"),
}


@pytest.mark.parametrize("stackable", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_logits_are_those_of_each_sites_own_model(case: str, stackable: bool) -> None:
    found = CASES[case]
    data = found.data
    logits, labels, owner = Evaluator(found.module, stackable=stackable).logits(found.server.model, found.states, data)
    assert owner.tolist() == np.repeat(np.arange(len(COUNTS)), COUNTS).tolist()
    assert torch.equal(labels, data.labels)
    for site in range(len(COUNTS)):
        with torch.no_grad():
            alone = own_module(found, site)(data.features[rows_of(data, site)])
        assert torch.allclose(logits[rows_of(data, site)], alone, atol=1e-12, rtol=0)


@pytest.mark.parametrize("stackable", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_figures_are_the_histograms_and_losses_of_each_site(case: str, stackable: bool) -> None:
    found = CASES[case]
    sums = together(found, stackable=stackable)
    assert all(value.dtype == torch.float64 for value in sums.values())
    assert sums["rows"].tolist() == list(COUNTS)
    for site in range(len(COUNTS)):
        rows = rows_of(found.data, site)
        with torch.no_grad():
            logits = own_module(found, site)(found.data.features[rows])[:, 0]
        labels = found.data.labels[rows]
        loss = F.binary_cross_entropy_with_logits(logits, labels.double(), reduction="sum")
        assert sums["loss"][site].item() == pytest.approx(loss.item(), abs=1e-12)
        expected = histogram(torch.sigmoid(logits).numpy(), labels.numpy(), BINS)
        for name, value in expected.items():
            assert sums[name][site].numpy() == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_stacked_figures_equal_those_one_by_one(case: str) -> None:
    found = CASES[case]
    sums = together(found, stackable=True)
    for site in range(len(COUNTS)):
        data = part(found.data, [site])
        states = {n: v[[site]] for n, v in found.states.items()}
        logits, labels, owner = Evaluator(found.module, stackable=True).logits(found.server.model, states, data)
        alone = figures(logits, labels, owner, sites=1, bins=BINS)
        assert difference(alone, {n: v[[site]] for n, v in sums.items()}) <= 1e-12


def test_the_cases_differ_between_sites() -> None:
    for case in ("own head", "all its own", "own BatchNorm"):
        states = CASES[case].states
        assert any(not torch.allclose(v[0], v[2], atol=1e-3) for v in states.values()), case
    assert not CASES["shared"].states


def test_evaluation_changes_no_buffer() -> None:
    found = made(model="cnn")
    states = {n: v.clone() for n, v in found.states.items()}
    counters = {n: b.clone() for n, b in found.module.named_buffers()}
    together(found, stackable=True)
    assert difference(states, found.states) == 0.0
    assert difference(counters, dict(found.module.named_buffers())) == 0.0


def test_dropout_is_off() -> None:
    module = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 1)).double()
    data = make_rows((6,), (4,))
    evaluator = Evaluator(module, stackable=False)
    first, second = (evaluator.logits(state_of(module), {}, data)[0] for _ in range(2))
    assert torch.equal(first, second)


def test_softmax_of_two_outputs_is_scored_as_a_probability() -> None:
    # softmax(0, ln 3) = (1/4, 3/4) and softmax(0, -ln 3) = (3/4, 1/4): the second is the score
    logits = torch.tensor([[0.0, 3.0], [0.0, 1 / 3]], dtype=torch.float64).log().nan_to_num(neginf=0.0)
    found = figures(logits, torch.tensor([1, 0]), np.zeros(2, dtype=np.int64), sites=1, bins=4)
    assert found["positives"].tolist() == [[0.0, 0.0, 0.0, 1.0]]
    assert found["negatives"].tolist() == [[0.0, 1.0, 0.0, 0.0]]
    assert found["score_sums"][0].tolist() == pytest.approx([0.0, 0.25, 0.0, 0.75])
    # -ln(3/4) twice
    assert found["loss"].tolist() == pytest.approx([2 * np.log(4 / 3)])


def test_a_score_of_one_is_in_the_last_bin_and_no_score_in_the_middle() -> None:
    logits = torch.tensor([[1000.0], [-1000.0], [float("nan")]], dtype=torch.float64)
    found = figures(logits, torch.tensor([1, 0, 1]), np.zeros(3, dtype=np.int64), sites=1, bins=4)
    assert found["positives"].tolist() == [[0.0, 0.0, 1.0, 1.0]]
    assert found["negatives"].tolist() == [[1.0, 0.0, 0.0, 0.0]]
    # a model that is not finite must not look like one that is: the loss says so
    assert torch.isnan(found["loss"]).all()


_HISTOGRAMS = {"positives", "negatives", "score_sums"}
CLASSES = {1: {"loss", "rows", *_HISTOGRAMS}, 3: {"loss", "rows", *_HISTOGRAMS, "confusion"}}


@pytest.mark.parametrize("outputs", CLASSES)
@pytest.mark.parametrize("local", [(), ("linear.bias",)])
@pytest.mark.parametrize("stackable", [True, False])
@pytest.mark.parametrize("sites", [1, 2])
def test_sites_without_rows_send_the_same_figures_as_the_others(
    outputs: int, local: tuple[str, ...], stackable: bool, sites: int
) -> None:
    module = Logistic(4, outputs=outputs).double()
    data = make_rows((0,) * sites, (4,))
    state = state_of(module)
    shared = ModelState(params={n: v for n, v in state.params.items() if n not in local}, buffers={})
    states = {LOCAL + n: state.params[n].unsqueeze(0).repeat(sites, 1) for n in local}
    logits, labels, owner = Evaluator(module, stackable=stackable).logits(shared, states, data)
    assert logits.shape == (0, outputs)
    found = figures(logits, labels, owner, sites=sites, bins=BINS)
    assert found.keys() == CLASSES[outputs]
    assert all((value == 0.0).all() and len(value) == sites for value in found.values())


class Reshaping(nn.Module):
    """A usual way to flatten, which cannot flatten no rows at all."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x.view(len(x), -1))


def test_a_site_without_rows_never_runs_an_empty_batch() -> None:
    module = Reshaping().double()
    logits, _, _ = Evaluator(module, stackable=False).logits(state_of(module), {}, make_rows((0,), (2, 2)))
    assert logits.shape == (0, 1)


def test_large_sites_are_scored_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    found = CASES["shared"]
    whole, _, _ = Evaluator(found.module, stackable=True).logits(found.server.model, {}, found.data)
    monkeypatch.setattr("wardround.training.evaluate._BLOCK", 1)
    monkeypatch.setattr("wardround.training.evaluate._FEWEST", 5)
    blocks, _, _ = Evaluator(found.module, stackable=True).logits(found.server.model, {}, found.data)
    assert torch.allclose(blocks, whole, atol=1e-12, rtol=0)

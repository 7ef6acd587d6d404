"""Class weights, focal loss and balanced sampling: the pooled objective, by hand, and whoever trains it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from small_federation import RAGGED, Federation, difference, make_round, make_rows, names_of
from wardround import Job, run, streams
from wardround.errors import ConfigError
from wardround.models.logistic import Logistic
from wardround.training.loss import focal_losses, row_losses
from wardround.training.recipe import Recipe, balanced, recipe_of
from wardround.training.schedule import plan


def test_balanced_factors_by_hand() -> None:
    """90, 30 and 0 rows: n / (2 n_c) = 120 / 180 and 120 / 60; their mean over rows is (90 x 2/3 + 30 x 2) / 120 = 1."""
    assert balanced([90, 30, 0]) == pytest.approx([2 / 3, 2.0, 0.0])
    assert balanced([0, 0]).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("outputs", [1, 3])
def test_focal_loss_is_the_papers(outputs: int) -> None:
    logits = torch.tensor([[0.3], [-2.0]]) if outputs == 1 else torch.tensor([[0.3, 1.0, -1.0], [2.0, 0.0, 0.5]])
    labels = torch.tensor([1, 0])
    p = torch.sigmoid(torch.tensor([0.3, 2.0])) if outputs == 1 else torch.softmax(logits, -1)[[0, 1], labels]
    assert torch.allclose(focal_losses(logits, labels, 2.0), -((1 - p) ** 2) * p.log())
    assert torch.allclose(focal_losses(logits, labels, 0.0), row_losses(logits, labels))


def test_focal_loss_of_several_labels_is_the_mean_of_theirs() -> None:
    logits, labels = torch.tensor([[0.3, -2.0]]), torch.tensor([[1, 0]])
    each = [focal_losses(logits[:, [i]], labels[:, i], 2.0) for i in range(2)]
    assert torch.allclose(focal_losses(logits, labels, 2.0), (each[0] + each[1]) / 2)


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_a_row_that_is_certain_has_a_finite_slope(gamma: float) -> None:
    logits = torch.tensor([[200.0], [-200.0]], requires_grad=True)
    focal_losses(logits, torch.tensor([1, 1]), gamma).sum().backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_one_step_of_all_sites_is_a_step_on_the_weighted_pooled_loss() -> None:
    """Whole-site batches, rows as weights: sum_k n_k (1 / n_k) sum_i c(y_i) l_i / n is the pooled weighted mean."""
    data, factors = make_rows(RAGGED, (5,)), (0.3, 2.5)
    found = Federation(Logistic(5).double(), data)
    found.executor.recipe = Recipe(class_weights=factors, classes=2)
    before = {n: v.clone().requires_grad_() for n, v in found.server.model.params.items()}
    found.run(1, steps=1, batch_size=64, learning_rate=0.1)
    logits = torch.nn.functional.linear(data.features, before["linear.weight"], before["linear.bias"])
    loss = (torch.tensor(factors).double()[data.labels] * row_losses(logits, data.labels)).mean()
    grads = torch.autograd.grad(loss, list(before.values()))
    for (name, start), grad in zip(before.items(), grads, strict=True):
        assert torch.allclose(found.server.model.params[name], start - 0.1 * grad, atol=1e-12)


RECIPES = {
    "weights": Recipe(class_weights=(0.3, 2.5), classes=2),
    "own weights": Recipe(class_weights="site", classes=2),
    "focal": recipe_of(
        Job.model_validate({"training": {"loss": {"name": "focal"}}}), (5,), 2, multilabel=False, class_weights=None
    ),
    "balanced": Recipe(balanced=True),
}


@pytest.mark.parametrize("recipe", RECIPES)
def test_stacked_sequential_and_chunks_train_alike(recipe: str) -> None:
    def trained(**options: Any) -> Federation:
        found = Federation(Logistic(5).double(), make_rows(RAGGED, (5,)), **options)
        found.executor.recipe = RECIPES[recipe] if recipe in RECIPES else Recipe()
        return found.run(3, epochs=2)

    expected = trained(stacked=True)
    for options in ({"stacked": False}, {"stacked": True, "chunks": [[5, 0], [3], [1, 4, 2]]}):
        assert difference(trained(**options).everything(), expected.everything()) <= 1e-12
    recipe = "plain"
    assert difference(trained(stacked=True).everything(), expected.everything()) > 1e-3


def test_balanced_batches_take_the_classes_of_a_site_alike_and_only_its_rows() -> None:
    counts = np.array([400, 30, 1])
    labels = np.concatenate([np.arange(400) % 20 == 0, np.ones(30), [0]]).astype(np.int64)
    labels[:400][labels[:400] == 1] = 2  # the first site has 20 rows of class 2, and none of class 1
    keys = streams.site_keys(names_of(3))
    drawn = plan(keys, counts, make_round(steps=500), join_single=False, labels=labels)
    usual = plan(keys, counts, make_round(steps=500), join_single=False)
    assert (drawn.counts == usual.counts).all()
    rows = [np.concatenate([drawn.rows[t, k, : drawn.counts[t, k]] for t in range(500)]) for k in range(3)]
    assert 0.47 < (labels[rows[0]] == 2).mean() < 0.53  # 4000 draws: 4 standard deviations
    assert len(np.unique(rows[0])) > 390
    assert set(rows[1]) == set(range(30))
    assert set(rows[2]) == {0}
    alone = plan(keys[1:2], counts[1:2], make_round(steps=500), join_single=False, labels=labels[400:430])
    assert (alone.rows[:, 0, : alone.rows.shape[2]] == drawn.rows[:, 1, : alone.rows.shape[2]]).all()


def test_weights_come_of_the_sum_of_the_sites_counts(tmp_path: Any) -> None:
    """Training rows of all sites: the record of the start has n / (2 n_c), and a site alone balances its own."""
    tree = {
        "data": {"dataset": "wdbc"}, "partition": {"kind": "dirichlet", "sites": 3}, "evaluation": {"bootstrap": 0},
        "training": {"rounds": 1, "loss": {"class_weights": "balanced"}},
    }  # fmt: skip
    result = run(Job.model_validate(tree), tmp_path / "run", report=False)
    from wardround.store.run import Run

    with Run.open(tmp_path / "run") as folder:
        found = folder.records[0]["class_weights"]
    counts = np.sum([site["train"] for site in result["partition"].values()], axis=0)
    assert found == pytest.approx(balanced(counts).tolist())
    with Run.open(tmp_path / "run" / "baselines" / "local") as folder:
        assert "class_weights" not in folder.records[0]


@pytest.mark.parametrize(
    ("training", "multilabel", "words"),
    [
        ({"loss": {"class_weights": [1.0, 2.0, 3.0]}}, False, "there are 2 classes"),
        ({"loss": {"class_weights": "balanced"}}, True, "one class each"),
        ({"sampling": "balanced"}, True, "one class each"),
    ],
)
def test_what_means_nothing_is_refused(training: dict[str, Any], multilabel: bool, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        recipe_of(Job.model_validate({"training": training}), (5,), 2, multilabel=multilabel, class_weights=None)


def test_gamma_belongs_to_focal() -> None:
    with pytest.raises(ValueError, match="belongs to focal"):
        Job.model_validate({"training": {"loss": {"gamma": 1.0}}})

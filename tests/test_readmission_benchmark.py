"""The readmission benchmark's own figures."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from benchmarks import readmission
from benchmarks.readmission import Rows, Tried
from wardround.types import Description, SiteData


def rows(sites: dict[str, tuple[list[int], list[int]]]) -> Rows:
    """Test rows of each site as (labels, patients), one feature."""
    description = Description(name="made", title="Made", source="https://example.org", licence="", sites=tuple(sites))
    return Rows(
        description=description,
        sites={
            name: SiteData(
                features=np.zeros((len(labels), 1)),
                labels=np.array(labels),
                patients=np.array(patients),
                split=np.full(len(labels), 2, dtype=np.int8),
            )
            for name, (labels, patients) in sites.items()
        },
    )


def test_the_area_is_scikit_learns_with_ties_and_weights() -> None:
    rng = np.random.default_rng(0)
    labels, scores = rng.integers(0, 2, 60), rng.integers(0, 9, 60) / 10
    weights = rng.integers(0, 4, (5, 60)).astype(float)
    expected = [roc_auc_score(labels, scores, sample_weight=w) for w in weights]
    np.testing.assert_allclose(readmission.auroc(scores, labels, weights), expected, atol=1e-12)


def test_a_resample_without_a_class_has_no_area() -> None:
    area = readmission.auroc(np.array([0.2, 0.7]), np.array([0, 1]), np.array([[1.0, 0.0], [1.0, 1.0]]))
    assert np.isnan(area[0])
    assert area[1] == 1.0


def test_log_loss_is_scikit_learns() -> None:
    labels, scores = np.array([0, 1, 1, 0]), np.array([0.1, 0.8, 0.3, 0.6])
    assert readmission.log_loss(labels, scores) == pytest.approx(log_loss(labels, scores))


def test_within_sites_only_patients_of_one_site_are_compared() -> None:
    two = rows({"a": ([0, 1], [0, 1]), "b": ([0, 1, 0], [2, 3, 4])})
    # site a: its one pair is right; site b: one of two. Between sites the scores of a are far too low
    scores = np.array([0.01, 0.02, 0.5, 0.6, 0.7])
    assert readmission.within_sites([two], [scores]) == pytest.approx(2 / 3)


def test_resamples_draw_patients_for_all_seeds_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readmission, "RESAMPLES", 50)
    first, second = rows({"a": ([0, 1, 0, 1], [0, 1, 2, 3])}), rows({"a": ([1, 0, 1, 0], [3, 2, 1, 0])})
    scores = np.array([0.1, 0.4, 0.5, 0.9])
    found = readmission.resampled([first, second], [scores, scores[::-1]])
    alone = readmission.resampled([first], [scores])
    assert alone[0] == 0.75
    # the same patients with the same scores in another order: every resample agrees
    np.testing.assert_allclose(found, alone)


def test_each_seed_chooses_by_its_own_validation_loss() -> None:
    def seed(a: float, b: float) -> dict[str, Tried]:
        return {"a": Tried(loss=a, scores=np.array([0.0])), "b": Tried(loss=b, scores=np.array([1.0]))}

    name, loss, scores = readmission.best_of([seed(0.3, 0.1), seed(0.3, 0.4), seed(0.5, 0.2)])
    assert (name, loss) == ("b (2 of 3 seeds)", pytest.approx(0.2))
    assert [s.tolist() for s in scores] == [[1.0], [0.0], [1.0]]


def test_a_model_tries_twelve_configurations() -> None:
    assert len(dict(readmission.grid({}))) == 12
    assert {job["training.local_steps"] for _, job in readmission.grid({}, sites=7)} == {28, 112}

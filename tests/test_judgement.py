"""Figures from row scores and figures from summed histograms, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from wardround import Job, run

TREE: dict[str, Any] = {
    "name": "two ways",
    "partition": {"kind": "dirichlet", "sites": 4, "alpha": 1.0},
    "model": {"local": ["linear.bias"]},
    "training": {"rounds": 4, "local_epochs": 1},
    "engine": {"threads": 1},
}


def result(folder: Path, **evaluation: Any) -> dict[str, Any]:
    return run(Job.model_validate({**TREE, "evaluation": {"bootstrap": 50, **evaluation}}), folder, report=False)


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return result(tmp_path_factory.mktemp("exact") / "run")


@pytest.fixture(scope="module")
def summed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return result(tmp_path_factory.mktemp("summed") / "run", release_scores=False, bins=100_000)


@pytest.mark.parametrize("arm", ["federated", "centralized", "local"])
def test_fine_histograms_give_the_exact_pooled_figures(exact: dict[str, Any], summed: dict[str, Any], arm: str) -> None:
    # a bin is 1e-5 wide: no two of the 140 test rows of different class share one here, so ranks are the same
    for metric in ("auroc", "auprc", "accuracy", "sensitivity", "specificity", "f1", "kappa"):
        assert summed[arm]["pooled"][metric] == pytest.approx(exact[arm]["pooled"][metric], abs=1e-9)
    assert summed[arm]["pooled"]["brier"] == pytest.approx(exact[arm]["pooled"]["brier"], abs=1e-5)


def test_what_would_tell_of_one_site_is_absent(summed: dict[str, Any]) -> None:
    for arm in ("federated", "centralized", "local", "majority"):
        assert summed[arm]["sites"] == {}
        assert summed[arm]["site_mean"] == {}
    assert summed["partition"] == {}
    assert summed["gain"] == {}


def test_the_majority_of_the_federation_stands_in_for_that_of_each_site(
    exact: dict[str, Any], summed: dict[str, Any]
) -> None:
    counts = exact["partition"].values()
    healthy, ill = (sum(site["test"][c] for site in counts) for c in (0, 1))
    assert summed["majority"]["pooled"]["accuracy"] == pytest.approx(healthy / (healthy + ill))


def test_thresholds_come_from_validation_either_way(tmp_path: Path) -> None:
    one = result(tmp_path / "rows", threshold="balanced", baselines=[])
    two = result(tmp_path / "bins", threshold="balanced", baselines=[], release_scores=False, bins=100_000)
    assert one["thresholds"]["federated"] != 0.5
    assert two["thresholds"]["federated"] == pytest.approx(one["thresholds"]["federated"], abs=1e-4)

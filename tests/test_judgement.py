"""Figures from row scores and figures from summed histograms, side by side."""

from __future__ import annotations

import json
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


def test_an_operating_point_is_reached_on_validation_rows(tmp_path: Path) -> None:
    found = result(tmp_path / "run", threshold={"sensitivity": 0.9}, baselines=["local"])
    for arm in ("federated", "local"):
        point = found["operating_point"][arm]
        assert point["threshold"] == found["thresholds"][arm]
        assert point["validation"]["sensitivity"] >= 0.9
        assert point["test"]["npv"] == found[arm]["pooled"]["npv"]
        (tn, fp), (fn, tp) = found["confusion"][arm]
        assert tp / (tp + fn) == found[arm]["pooled"]["sensitivity"]
        assert tn / (tn + fp) == found[arm]["pooled"]["specificity"]


def test_a_target_is_read_from_the_history(tmp_path: Path) -> None:
    found = result(tmp_path / "run", target={"metric": "auroc", "fraction": 0.99}, baselines=["centralized"])
    kept = next(e for e in found["history"]["centralized"] if e["completed"] == json.loads(
        (tmp_path / "run" / "baselines" / "centralized" / "final.json").read_text())["validation"]["completed"])  # fmt: skip
    assert kept["validation"]
    target = found["target"]
    first = next(e for e in found["history"]["federated"] if e["validation"]["auroc"] >= target["value"])
    assert target["first"] == {
        **{key: first[key] for key in ("completed", "bytes_up", "bytes_down", "seconds")},
        "figure": first["validation"]["auroc"],
    }


def test_fairness_is_of_the_sites_figures(exact: dict[str, Any], summed: dict[str, Any]) -> None:
    values = {site: block["auroc"] for site, block in exact["federated"]["sites"].items() if "auroc" in block}
    over = exact["fairness"]["federated"]["auroc"]
    assert (over["worst"], over["best"]) == (min(values.values()), max(values.values()))
    assert over["sites"] == len(values)
    gains = [block["auroc"] for block in exact["gain"]["local"]["sites"].values() if "auroc" in block]
    assert exact["fairness"]["gain"]["local"]["auroc"]["gain"] == sum(gain > 0 for gain in gains)
    assert summed["fairness"] == {}


THREE: dict[str, Any] = {
    "name": "three classes",
    "data": {"dataset": "sample_plugins:Clinics", "options": {"classes": 3, "rows": 90}},
    "training": {"rounds": 4, "local_epochs": 2, "optimizer": {"learning_rate": 0.2}},
    "engine": {"threads": 1},
}


@pytest.mark.parametrize("select", ["loss", "auroc"])
def test_three_classes_by_rows_and_by_sums(select: str, tmp_path: Path) -> None:
    trees = [
        {"bootstrap": 30, "select": select, "bins": 10_000, "release_scores": release} for release in (None, False)
    ]
    rows, sums = (
        run(
            Job.model_validate({**THREE, "evaluation": tree}),
            tmp_path / str(number),
            report=select == "loss" and not number,
        )
        for number, tree in enumerate(trees)
    )
    for arm in ("federated", "centralized", "local"):
        for metric, value in rows[arm]["pooled"].items():
            if not metric.endswith(("_low", "_high")):
                assert sums[arm]["pooled"][metric] == pytest.approx(value, abs=2e-3), (arm, metric)
        assert sums["confusion"][arm] == rows["confusion"][arm]
        assert len(rows[arm]["classes"]) == len(sums[arm]["classes"]) == 3
    assert rows["thresholds"] == rows["operating_point"] == rows["bands"] == {}
    assert set(rows["federated"]["sites"]) == {"north", "south", "west"}
    assert sums["federated"]["sites"] == sums["gain"] == {}
    last = rows["history"]["federated"][-1]["validation"]
    assert {"auroc", "auprc", "accuracy", "balanced_accuracy", "loss"} <= set(last)
    if select == "auroc":
        best = max(rows["history"]["federated"], key=lambda e: e["validation"]["auroc"])
        assert rows["selected_round"] == best["completed"]
    else:
        assert {"report.html", "MODEL_CARD.md"} <= {path.name for path in (tmp_path / "0").iterdir()}

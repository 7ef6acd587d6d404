"""Rows with several labels, groups, sites that never train and evidence maps, from a job to its page."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from labelled_plugins import FINDINGS, Xrays
from wardround import Job, run
from wardround.data.check import check_records
from wardround.data.heterogeneity import measure
from wardround.errors import ConfigError, DataError, Refused
from wardround.experiment import divided, records_of
from wardround.prediction import load_predictor
from wardround.types import SiteData

BASE: dict[str, Any] = {
    "name": "xrays",
    "seed": 1,
    "data": {"dataset": "labelled_plugins:Xrays", "options": {"rows": 160}},
    "partition": {"kind": "dirichlet", "alpha": 1.0, "sites": 3},
    "model": {"name": "labelled_plugins:Spots"},
    "training": {"rounds": 3, "batch_size": 16, "optimizer": {"learning_rate": 0.2}},
    "evaluation": {"baselines": [], "bootstrap": 20, "threshold": "balanced", "select": "auroc"},
}


def job(**changes: Any) -> Job:
    """The base job; `evaluation_maps=3` sets evaluation.maps."""
    tree = json.loads(json.dumps(BASE))
    for path, value in changes.items():
        node, _, leaf = path.partition("_")
        if leaf:
            tree[node][leaf] = value
        else:
            tree[node] = value
    return Job.model_validate(tree)


def test_a_run_with_labels_says_all_that_one_with_classes_does(tmp_path: Path) -> None:
    result = run(job(evaluation_baselines=["centralized", "local"]), tmp_path / "run")
    federated = result["federated"]
    assert federated["pooled"]["auroc"] > 0.75
    assert {"accuracy", "subset_accuracy", "f1", "auprc"} <= federated["pooled"].keys()
    assert len(federated["classes"]) == len(FINDINGS) == len(result["thresholds"]["federated"])
    assert np.shape(result["confusion"]["federated"]) == (4, 2, 2)
    assert set(result["gain"]) == {"centralized", "local"}
    rows = sum(sum(splits.values()) for splits in result["rows"].values())
    assert rows == 160
    _, sites = records_of(job())
    positives = np.sum([data.labels.sum(axis=0) for data in sites.values()], axis=0)
    counted = np.sum([np.sum(list(splits.values()), axis=0) for splits in result["partition"].values()], axis=0)
    assert counted.tolist() == positives.tolist()
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Label by label" in page
    assert "Hamming accuracy" in page
    assert "Who is called what" not in page
    assert (tmp_path / "run" / "figures" / "labels.png").exists()
    assert "each label" in (tmp_path / "run" / "MODEL_CARD.md").read_text()

    predictor = load_predictor(tmp_path / "run")
    likely = predictor.probabilities(sites["site-1"].features[:5])
    assert likely.shape == (5, 4)
    assert predictor.multilabel
    assert predictor.threshold == tuple(result["thresholds"]["federated"])


def test_stacked_and_sequential_give_the_same_and_so_does_a_resumed_run(tmp_path: Path) -> None:
    whole = run(job(engine={"executor": "stacked"}), tmp_path / "stacked", report=False)
    other = run(job(engine={"executor": "sequential"}), tmp_path / "sequential", report=False)
    assert whole["executor"] == "stacked"
    assert whole["federated"]["pooled"] == pytest.approx(other["federated"]["pooled"], abs=1e-5)

    rounds = 0

    def stop(event: Any) -> None:
        nonlocal rounds
        rounds += event["event"] == "round"
        if rounds == 2:
            raise KeyboardInterrupt

    spec = job(engine={"executor": "stacked", "commit_seconds": 0})
    with pytest.raises(KeyboardInterrupt):
        run(spec, tmp_path / "cut", listener=stop, report=False)
    resumed = run(spec, tmp_path / "cut", resume=True, report=False)
    for key in ("federated", "thresholds", "confusion", "selected_round"):
        assert resumed[key] == whole[key]


def test_sums_alone_give_the_pooled_figures(tmp_path: Path) -> None:
    exact = run(job(evaluation_threshold=0.5), tmp_path / "exact", report=False)
    sums = run(job(evaluation_threshold=0.5, evaluation_release_scores=False), tmp_path / "sums")
    found, expected = sums["federated"]["pooled"], exact["federated"]["pooled"]
    for metric in ("accuracy", "subset_accuracy", "sensitivity", "f1"):
        assert found[metric] == pytest.approx(expected[metric])
    assert found["auroc"] == pytest.approx(expected["auroc"], abs=0.02)
    assert sums["majority"]["pooled"]["accuracy"] > 0.5
    assert sums["federated"]["sites"] == {}


def test_groups_are_judged_instead_of_rows(tmp_path: Path) -> None:
    rows = run(job(), tmp_path / "rows", report=False)
    groups = run(job(evaluation_aggregate="mean"), tmp_path / "groups")
    counts = [np.sum(result["confusion"]["federated"][0]) for result in (rows, groups)]
    # patients have two rows each, and both are of one group
    assert counts[0] == 2 * counts[1]
    assert "Figures are of groups" in (tmp_path / "groups" / "report.html").read_text()


def test_a_held_out_site_changes_nothing_that_trains(tmp_path: Path) -> None:
    spec = job(evaluation_held_out=["site-2"], evaluation_baselines=["centralized"])
    _, sites, held = divided(spec)
    _, everybody = records_of(job())
    assert sorted(sites) == ["site-1", "site-3"]
    assert held["site-2"].split is not None
    assert (held["site-2"].split == 2).all()
    assert len(held["site-2"].labels) == len(everybody["site-2"].labels)
    result = run(spec, tmp_path / "run")
    block = result["held_out"]
    assert block["rows"] == {"site-2": len(everybody["site-2"].labels)}
    assert block["federated"]["pooled"]["auroc"] > 0.7
    assert "auroc" in block["gain"]["centralized"]["pooled"]
    assert list(result["partition"]) == ["site-1", "site-3"]
    assert "Sites that never trained" in (tmp_path / "run" / "report.html").read_text()

    # other pixels at the held-out site: the model, its selection and its figures elsewhere stay as they are
    noisy = job(
        evaluation_held_out=["site-2"],
        evaluation_baselines=["centralized"],
        partition_features={"effect": "labelled_plugins:OnlySecond"},
    )
    changed = run(noisy, tmp_path / "changed", report=False)
    assert changed["federated"] == result["federated"]
    assert changed["held_out"]["federated"] != block["federated"]


def test_a_stranger_to_a_personalised_model_gets_the_mean_of_what_stays(tmp_path: Path) -> None:
    spec = job(evaluation_held_out=["site-2"], model={"name": "labelled_plugins:Spots", "local": ["head.bias"]})
    result = run(spec, tmp_path / "run", report=False)
    predictor = load_predictor(tmp_path / "run")
    _, _, held = divided(spec)
    likely = predictor.probabilities(held["site-2"].features)
    right = (likely >= np.array(result["thresholds"]["federated"])) == (held["site-2"].labels == 1)
    assert result["held_out"]["federated"]["pooled"]["accuracy"] == pytest.approx(right.mean())


def test_held_out_sites_are_some_of_the_sites() -> None:
    with pytest.raises(ConfigError, match="no site"):
        divided(job(evaluation_held_out=["mercy"]))
    with pytest.raises(ConfigError, match="every site"):
        divided(job(evaluation_held_out=["site-1", "site-2", "site-3"]))


def test_maps_are_written_where_they_are_asked_for(tmp_path: Path) -> None:
    result = run(job(evaluation_maps=3), tmp_path / "run")
    assert len(result["maps"]) == 3
    page = (tmp_path / "run" / "report.html").read_text()
    assert "pictures of patients" in page
    assert (tmp_path / "run" / "figures" / "maps.png").exists()
    assert not any("patient" in fact for fact in result["maps"])
    bare = run(job(), tmp_path / "bare")
    assert "maps" not in bare
    assert not (tmp_path / "bare" / "maps.safetensors").exists()
    assert "pictures of patients" not in (tmp_path / "bare" / "report.html").read_text()


def test_maps_that_cannot_be_are_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="pictures of patients"):
        run(job(evaluation_maps=3, evaluation_release_scores=False), tmp_path / "a")
    with pytest.raises(ConfigError, match="convolutions"):
        run(job(evaluation_maps=3, model={"name": "labelled_plugins:Flat"}), tmp_path / "b")
    assert not list(tmp_path.iterdir())


def test_splits_and_partitions_follow_the_rarest_label() -> None:
    _, sites = records_of(job(data={"dataset": "labelled_plugins:Xrays", "options": {"rows": 2000}}))
    for data in sites.values():
        assert data.split is not None
        assert not set(data.patients[data.split == 0]) & set(data.patients[data.split == 2])
    pooled = np.concatenate([data.labels[:, 3] for data in sites.values()])
    split = np.concatenate([data.split for data in sites.values() if data.split is not None])
    rare = [pooled[split == code].mean() for code in (0, 2)]
    assert rare[0] == pytest.approx(rare[1], abs=0.03)
    spread = {}
    for alpha in (0.1, 100.0):
        dealt = job(
            partition={"kind": "dirichlet", "alpha": alpha, "sites": 3},
            data={"dataset": "labelled_plugins:Xrays", "options": {"rows": 2000}},
        )
        spread[alpha] = measure(Xrays().describe(), records_of(dealt)[1])["label"]["skew"]
    assert spread[0.1] > 5 * max(spread[100.0], 0.01)


@pytest.mark.parametrize(
    ("labels", "said"),
    [(np.zeros(4, int), "shape"), (np.full((4, 4), 2), "expected 0 or 1"), (np.zeros((4, 4), int), "no record has"),
     (np.ones((4, 4), int), "every record has")],
)  # fmt: skip
def test_labels_that_cannot_be_learned_are_refused(labels: np.ndarray, said: str) -> None:
    data = SiteData(features=np.zeros((4, 1, 12, 12)), labels=labels, patients=np.arange(4))
    with pytest.raises(DataError, match=said):
        check_records(Xrays().describe(), {"hospital-0": data})


def test_the_official_table_trains(tmp_path: Path) -> None:
    table = tmp_path / "sample_labels.csv"
    random = np.random.default_rng(0)
    with table.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["Image Index", "Finding Labels", "Patient ID"])
        for k in range(120):
            found = [name for name in FINDINGS if random.random() < 0.3]
            writer.writerow([f"{k:08d}_000.png", "|".join(found) or "No Finding", k // 3])
    options = {"table": str(table)}
    result = run(job(data={"dataset": "labelled_plugins:Xrays", "options": options}), tmp_path / "run", report=False)
    assert sum(sum(splits.values()) for splits in result["rows"].values()) == 120
    assert torch.isfinite(torch.tensor(result["federated"]["pooled"]["auroc"]))

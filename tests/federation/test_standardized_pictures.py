"""Pictures standardised by channel, from the job to a saved model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from wardround import Job, run, wire
from wardround.data.standardize import Standardization
from wardround.errors import ConfigError
from wardround.experiment import divided, records_of, train_arm
from wardround.federation.baselines import alone, centralized
from wardround.federation.records import Records
from wardround.judgement import ALONE, CENTRALIZED, FEDERATED
from wardround.prediction import load_predictor
from wardround.store.run import Run
from wardround.training.metrics import ScoreTable, measure
from wardround.types import SPLITS, Arrays, Description, SiteData

SITES = tuple(f"hospital-{k}" for k in range(4))
DTYPE = torch.float64


def job(by: str, *, volumes: bool = False, **changes: Any) -> Job:
    tree: dict[str, Any] = {
        "seed": 2,
        "data": {
            "dataset": "tinted_plugins:Tinted",
            "options": {"volumes": volumes},
            "preprocessing": {"pictures": by},
        },
        "model": {"name": "cnn", "options": {"width": 2}},
        "training": {"rounds": 2, "batch_size": 16, "optimizer": {"learning_rate": 0.1}},
        "evaluation": {"bootstrap": 0, "baselines": []},
        "engine": {"threads": 1, "commit_seconds": 0},
    }
    for path, value in changes.items():
        *parents, leaf = path.split("__")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = value
    return Job.model_validate(tree)


def pixels(data: SiteData, split: str) -> NDArray[Any]:
    rows = np.asarray(data.features[data.split == SPLITS.index(split)], dtype=np.float64)
    return rows / 255.0 if data.features.dtype == np.uint8 else rows


def of(data: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    axes = (0, *range(2, data.ndim))
    scale = data.std(axis=axes)
    scale[0] = 1.0  # the channel that is the same everywhere
    return data.mean(axis=axes), scale


def saved(file: Path) -> Mapping[str, Any]:
    meta = wire.unpack(file.read_bytes())[1]
    found: Mapping[str, Any] = json.loads(meta["preprocessing"])
    return found


def close(found: Mapping[str, Any], data: NDArray[Any], tolerance: float = 1e-9) -> None:
    mean, scale = of(data)
    assert found["mean"] == pytest.approx(mean, rel=tolerance)
    assert found["scale"] == pytest.approx(scale, rel=tolerance)


@pytest.mark.parametrize("channel", ["plain", "secagg"])
@pytest.mark.parametrize("volumes", [False, True])
def test_the_federation_fits_what_numpy_gives_of_all_training_rows(volumes: bool, channel: str, tmp_path: Path) -> None:
    spec = job("global", volumes=volumes, training__rounds=1, privacy__channel={"kind": channel})
    run(spec, tmp_path / "run", report=False)
    _, data = records_of(spec)
    close(saved(tmp_path / "run" / "model.safetensors"), np.concatenate([pixels(data[s], "train") for s in SITES]))


def test_by_site_each_keeps_its_own_and_a_stranger_takes_their_mean(tmp_path: Path) -> None:
    spec = job("site", training__rounds=1)
    result = run(spec, tmp_path, report=False)
    assert result["personalized"] is True
    _, data = records_of(spec)
    own = {site: pixels(data[site], "train") for site in SITES}
    for site in SITES:
        close(saved(tmp_path / "overlays" / f"{site}.safetensors"), own[site])
    # the mean over rows of the sites' means, and of their variances
    rows = np.array([len(own[site]) for site in SITES])
    means, scales = (np.array(each) for each in zip(*(of(own[site]) for site in SITES), strict=True))
    shared = saved(tmp_path / "model.safetensors")
    assert shared["mean"] == pytest.approx(rows @ means / rows.sum(), rel=1e-9)
    assert shared["scale"][1:] == pytest.approx(np.sqrt(rows @ scales**2 / rows.sum())[1:], rel=1e-9)
    assert len({saved(tmp_path / "overlays" / f"{site}.safetensors")["scale"][1] for site in SITES}) == 4


@pytest.mark.parametrize("by", ["global", "site"])
@pytest.mark.parametrize("volumes", [False, True])
def test_a_saved_model_scores_test_rows_as_the_run_did(by: str, volumes: bool, tmp_path: Path) -> None:
    spec = job(by, volumes=volumes)
    result = run(spec, tmp_path, report=False)
    _, data = records_of(spec)
    probabilities = []
    for site in SITES:
        predictor = load_predictor(tmp_path, site=site if by == "site" else None)
        rows = data[site].split == SPLITS.index("test")
        likely = predictor.probabilities(data[site].features[rows])
        probabilities.append(likely)
        figures = measure(ScoreTable.from_rows(likely, data[site].labels[rows]), result["thresholds"]["federated"])
        for name, value in result["federated"]["sites"][site].items():
            assert figures[name] == pytest.approx(value, abs=1e-6), (site, name)
    # without its standardisation the model says something else
    bare = load_predictor(tmp_path, site=SITES[3] if by == "site" else None)
    object.__setattr__(bare, "preprocessing", None)
    rows = data[SITES[3]].split == SPLITS.index("test")
    assert np.abs(bare.probabilities(data[SITES[3]].features[rows]) - probabilities[3]).max() > 1e-3


@pytest.mark.parametrize("by", ["global", "site"])
def test_a_held_out_site_is_scored_as_by_a_stranger(by: str, tmp_path: Path) -> None:
    spec = job(by, evaluation__held_out=["hospital-3"])
    result = run(spec, tmp_path, report=False)
    _, _, held_out = divided(spec)
    strange = held_out["hospital-3"]
    likely = load_predictor(tmp_path).probabilities(strange.features)
    figures = measure(ScoreTable.from_rows(likely, strange.labels), result["thresholds"]["federated"])
    for name, value in result["held_out"]["federated"]["pooled"].items():
        assert figures[name] == pytest.approx(value, abs=1e-6), name


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    spec = job(
        "site", data__augment={"flip": ["width"], "tint": 0.3}, training__rounds=3, model__local=["head.bias"],
        finetuning__epochs=1, evaluation__baselines=["centralized", "local"], evaluation__maps=1,
    )  # fmt: skip
    run(spec, tmp_path / "whole", report=False)

    for stopped in ("federated", "centralized", "local"):
        out = tmp_path / stopped

        def stop(event: Mapping[str, Any], stopped: str = stopped) -> None:
            if event["event"] == "round" and (event["round"], event["arm"]) == (1, stopped):
                raise InterruptedError

        with pytest.raises(InterruptedError):
            run(spec, out, report=False, listener=stop)
        run(spec, out, report=False, resume=True)
        kept = [p.relative_to(out) for p in out.rglob("*.safetensors")]
        files = [
            p
            for p in kept
            if p.parts[0] in ("model.safetensors", "maps.safetensors", "overlays", "finetuned", "baselines")
        ]
        assert {Path("maps.safetensors"), Path("overlays/hospital-0.safetensors")} <= set(files)
        for file in files:
            mine, theirs = (wire.unpack((folder / file).read_bytes()) for folder in (out, tmp_path / "whole"))
            assert mine[1].get("preprocessing") == theirs[1].get("preprocessing")
            for name, value in mine[0].items():
                assert torch.equal(value, theirs[0][name]), (file, name)


def trained(name: str, spec: Job, folder: Path, data: Mapping[str, SiteData], description: Description) -> Arrays:
    """Parameters of one arm, with what stays at the sites."""
    records, (listener, arms) = Records(description, data), (lambda event: None, {})
    for arm in dict.fromkeys((FEDERATED, name)):
        own = {FEDERATED: spec, CENTRALIZED: centralized(spec, 4), ALONE: alone(spec)}[arm]
        rows = records.merged() if arm == CENTRALIZED else records.unprepared()
        with Run.create(folder / arm, own, {"versions": {}}) as run_folder:
            arms[arm] = train_arm(
                arm, own, run_folder, description, rows, listener, parent=arms.get(FEDERATED), origin=records
            )
            states = run_folder.restore()[2]
    return {**arms[name].outcome.server.model.params, **states}


@pytest.mark.parametrize(
    ("by", "arm"),
    [("global", FEDERATED), ("site", FEDERATED), ("global", CENTRALIZED), ("site", CENTRALIZED), ("global", ALONE)],
)
def test_training_is_that_on_pictures_standardised_beforehand(by: str, arm: str, tmp_path: Path) -> None:
    whole = {"training__dtype": "float64", "training__rounds": 2, "training__local_steps": 3}
    spec = job(by, **whole)
    description, data = records_of(spec)
    own = {site: of(pixels(data[site], "train")) for site in SITES}
    if by == "global" and arm != ALONE:
        own = dict.fromkeys(SITES, of(np.concatenate([pixels(data[site], "train") for site in SITES])))
    by_hand = {}
    for site, (mean, scale) in own.items():
        features = (data[site].features / 255.0 - mean[:, None, None]) / scale[:, None, None]
        by_hand[site] = replace(data[site], features=features)
    found = trained(arm, spec, tmp_path / "found", data, description)
    wanted = trained(arm, job("none", **whole), tmp_path / "wanted", by_hand, replace(description, scale=None))
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert torch.allclose(found[name], value, atol=1e-9), name


def test_maps_show_the_pictures_as_they_were(tmp_path: Path) -> None:
    shown = []
    for by in ("none", "global"):
        run(job(by, evaluation__maps=3, training__rounds=1), tmp_path / by, report=False)
        shown.append(wire.unpack((tmp_path / by / "maps.safetensors").read_bytes())[0])
    assert torch.equal(shown[0]["pictures"], shown[1]["pictures"])
    assert not torch.equal(shown[0]["maps"], shown[1]["maps"])


def test_merged_rows_keep_the_standard_of_where_they_came_from() -> None:
    description, data = records_of(job("site"))
    records = Records(description, data).merged()
    own = {
        site: Standardization(by="site", mean=tuple(mean), scale=tuple(scale))
        for site, (mean, scale) in ((site, of(pixels(data[site], "train"))) for site in SITES)
    }
    records.prepare(own[SITES[0]], own, device=torch.device("cpu"), dtype=DTYPE)
    rows = records.rows(records.sites, "train")
    seen = rows.features[torch.arange(rows.start[0], rows.start[0] + rows.count[0])].numpy()
    wanted = np.concatenate(
        [
            (pixels(data[s], "train") - np.reshape(own[s].mean, (3, 1, 1))) / np.reshape(own[s].scale, (3, 1, 1))
            for s in SITES
        ]
    )
    assert sorted(seen.sum(axis=(1, 2, 3))) == pytest.approx(sorted(wanted.sum(axis=(1, 2, 3))), abs=1e-9)


def test_tables_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    spec = Job.model_validate({"data": {"preprocessing": {"pictures": "global"}}, "partition": {"kind": "iid"}})
    with pytest.raises(ConfigError, match=r"data.preprocessing.pictures = global"):
        run(spec, tmp_path / "run")
    assert not (tmp_path / "run").exists()

"""Fine-tuning: what each site makes of the kept model, and what stays as it was."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from small_federation import job_of
from wardround import wire
from wardround.config.job import Job
from wardround.errors import ConfigError, DataError
from wardround.experiment import records_of, run
from wardround.federation.baselines import finetuned
from wardround.models.registry import build
from wardround.prediction import load_predictor
from wardround.streams import site_keys
from wardround.training.schedule import plan
from wardround.types import Arrays, Round, Work

SITES = ("site-1", "site-2", "site-3")
BATCH = 16


def a_job(**changes: Any) -> Job:
    """Three uneven sites of wdbc; `changes` are `node__leaf=value`, or a whole node."""
    tree: dict[str, Any] = {
        "seed": 4,
        "partition": {"kind": "dirichlet", "sites": len(SITES), "alpha": 0.7, "min_rows": 40},
        "model": {"name": "mlp", "options": {"hidden": [6]}},
        "training": {"rounds": 3, "batch_size": BATCH, "optimizer": {"learning_rate": 0.1}, "dtype": "float64"},
        "finetuning": {"epochs": 3},
        "evaluation": {"baselines": [], "bootstrap": 0, "select": "last"},
        "engine": {"threads": 1},
    }
    return job_of(tree, changes)


def done(folder: Path, job: Job, **options: Any) -> dict[str, Any]:
    return run(job, folder, report=False, **options)


def overlays(folder: Path) -> dict[str, Arrays]:
    return {p.stem: wire.unpack(p.read_bytes())[0] for p in sorted((folder / "overlays").glob("*.safetensors"))}


def shared(folder: Path) -> Arrays:
    return wire.unpack((folder / "model.safetensors").read_bytes())[0]


def test_each_site_goes_on_from_the_kept_model_on_its_own_rows(tmp_path: Path) -> None:
    job = a_job()
    result = done(tmp_path / "run", job)
    assert result["finetuning"] == {
        "epochs": 3,
        "selected_epoch": 3,
        "local_names": ["head.bias", "head.weight", "hidden.0.bias", "hidden.0.weight"],
    }
    assert not result["personalized"]
    kept, found = shared(tmp_path / "run"), overlays(tmp_path / "run" / "finetuned")
    # the same epochs with torch.optim, on the same rows in the same order
    _, data = records_of(job)
    given = load_predictor(tmp_path / "run").preprocessing
    assert given is not None
    assert set(data) == set(found)
    for site, records in data.items():
        rows = records.split == 0
        x, y = (
            torch.from_numpy(given.transform(records.features[rows])),
            torch.from_numpy(records.labels[rows]).double(),
        )
        module = build(job.model, (x.shape[1],), 2, seed=job.seed, dtype=torch.float64)
        module.load_state_dict(kept)
        for epoch in range(3):
            optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
            work = Work(steps=None, epochs=1, batch_size=BATCH, learning_rate=0.1)
            about = Round(index=epoch, population=3, cohort=3, work=work, seed=job.seed, max_weight=1.0)
            batches = plan(site_keys((site,)), np.array([len(x)]), about, join_single=False)
            for order, count in zip(batches.rows[:, 0], batches.counts[:, 0], strict=True):
                batch = order[:count]
                optimizer.zero_grad()
                nn.functional.binary_cross_entropy_with_logits(module(x[batch])[:, 0], y[batch]).backward()
                optimizer.step()
        for name, value in module.state_dict().items():
            torch.testing.assert_close(found[site][name], value, rtol=0, atol=1e-12)
            assert not torch.allclose(value, kept[name], atol=1e-4)


def test_the_federation_is_what_it_would_be_without(tmp_path: Path) -> None:
    with_it, without = done(tmp_path / "with", a_job()), done(tmp_path / "without", a_job(finetuning={}))
    assert with_it["federated"] == without["federated"]
    assert "finetuned" not in without
    assert without["finetuning"] == {}
    for name, value in shared(tmp_path / "without").items():
        assert torch.equal(value, shared(tmp_path / "with")[name])


@pytest.mark.parametrize("executor", ["stacked", "sequential"])
def test_only_the_layers_asked_for_train(tmp_path: Path, executor: str) -> None:
    # BatchNorm's running statistics of the frozen layers stand still as well, and weight decay does not reach them
    job = a_job(
        model={"name": "mlp", "options": {"hidden": [6], "norm": "batch"}},
        finetuning={"epochs": 2, "layers": ["head"]},
        training__optimizer={"learning_rate": 0.1, "weight_decay": 0.1, "momentum": 0.5},
        engine__executor=executor,
    )
    result = done(tmp_path / "run", job)
    assert result["finetuning"]["local_names"] == ["head.bias", "head.weight"]
    kept = shared(tmp_path / "run")
    for own in overlays(tmp_path / "run" / "finetuned").values():
        assert own.keys() == {"head.bias", "head.weight"}
        assert not torch.allclose(own["head.weight"], kept["head.weight"], atol=1e-4)
    server = wire.unpack((tmp_path / "run/finetuned/checkpoints/server-00002.safetensors").read_bytes())[0]
    still = {name.partition("/")[2]: value for name, value in server.items()}
    assert {"hidden.0.weight", "norms.0.running_mean"} <= still.keys()
    for name, value in still.items():
        assert torch.equal(value, kept[name])


def test_stacked_and_sequential_tune_alike(tmp_path: Path) -> None:
    found = []
    for executor in ("stacked", "sequential"):
        done(tmp_path / executor, a_job(engine__executor=executor, finetuning__layers=["head", "hidden.0.bias"]))
        found.append(overlays(tmp_path / executor / "finetuned"))
    for site, own in found[0].items():
        for name, value in own.items():
            torch.testing.assert_close(value, found[1][site][name], rtol=0, atol=1e-12)


def test_no_epoch_is_kept_where_none_helps_on_validation_rows(tmp_path: Path) -> None:
    job = a_job(evaluation__select="loss", finetuning={"epochs": 3, "learning_rate": 1e3})
    result = done(tmp_path / "run", job)
    assert result["finetuning"]["selected_epoch"] == 0
    assert result["finetuned"]["pooled"] == pytest.approx(result["federated"]["pooled"])
    kept = shared(tmp_path / "run")
    for own in overlays(tmp_path / "run" / "finetuned").values():
        assert all(torch.equal(value, kept[name]) for name, value in own.items())


def test_the_epoch_with_the_least_validation_loss_is_kept(tmp_path: Path) -> None:
    result = done(tmp_path / "run", a_job(evaluation__select="loss", finetuning__epochs=6))
    losses = {entry["completed"]: entry["validation"]["loss"] for entry in result["history"]["finetuned"]}
    assert losses.keys() == set(range(1, 7))
    assert result["finetuning"]["selected_epoch"] == min(losses, key=lambda epoch: losses[epoch])


def test_what_stayed_at_a_site_is_where_it_goes_on_from(tmp_path: Path) -> None:
    # so short a step that fine-tuning changes nothing that could be seen
    job = a_job(
        model={"name": "mlp", "options": {"hidden": [6], "norm": "batch"}}, algorithm__name="fedbn",
        finetuning={"epochs": 1, "learning_rate": 1e-9, "layers": ["head"]},
    )  # fmt: skip
    result = done(tmp_path / "run", job)
    assert result["personalized"]
    before, after = overlays(tmp_path / "run"), overlays(tmp_path / "run" / "finetuned")
    norms = {"norms.0.weight", "norms.0.bias"}
    for site, own in before.items():
        assert after[site].keys() == own.keys() | {"head.weight", "head.bias"}
        for name in norms:
            torch.testing.assert_close(after[site][name], own[name], rtol=0, atol=1e-6)
    assert not torch.allclose(after["site-1"]["norms.0.weight"], after["site-2"]["norms.0.weight"], atol=1e-4)
    assert (tmp_path / "run" / "overlay-average.safetensors").exists()


def test_a_site_is_scored_with_its_own_and_a_stranger_with_the_shared_model(tmp_path: Path) -> None:
    job = a_job(evaluation__threshold="balanced")
    result = done(tmp_path / "run", job)
    _, data = records_of(job)
    stranger, own = load_predictor(tmp_path / "run"), load_predictor(tmp_path / "run", site="site-2")
    assert (stranger.threshold, own.threshold) == (result["thresholds"]["federated"], result["thresholds"]["finetuned"])
    rows, labels = (part[data["site-2"].split == 2] for part in (data["site-2"].features, data["site-2"].labels))
    for predictor, arm in ((stranger, "federated"), (own, "finetuned")):
        right = (predictor.probabilities(rows) >= predictor.threshold) == labels
        assert right.mean() == pytest.approx(result[arm]["sites"]["site-2"]["accuracy"])
    assert not np.allclose(stranger.probabilities(rows), own.probabilities(rows), atol=1e-3)
    with pytest.raises(DataError, match=r"site 'site-9' has no overlay .* site-1, site-2, site-3"):
        load_predictor(tmp_path / "run", site="site-9")


def test_figures_without_row_scores(tmp_path: Path) -> None:
    result = done(tmp_path / "run", a_job(evaluation__release_scores=False))
    exact = done(tmp_path / "exact", a_job())
    assert result["finetuned"]["pooled"]["accuracy"] == pytest.approx(exact["finetuned"]["pooled"]["accuracy"])


class Killed(Exception):
    """The process is gone."""


@pytest.mark.parametrize("local", [[], ["hidden.0.bias"]])
def test_resumed_is_uninterrupted(tmp_path: Path, local: list[str]) -> None:
    job = a_job(
        evaluation__select="loss", finetuning__epochs=5, engine__commit_seconds=0, model__local=local,
        participation={"fraction": 0.67, "quorum": 1},
    )  # fmt: skip
    whole = done(tmp_path / "whole", job)

    def die(event: Mapping[str, Any]) -> None:
        if event.get("arm") == "finetuned" and event.get("round") == 2:
            raise Killed

    with pytest.raises(Killed):
        done(tmp_path / "run", job, listener=die)
    again = done(tmp_path / "run", job, resume=True)
    assert again["finetuned"] == whole["finetuned"]
    for site, own in overlays(tmp_path / "whole" / "finetuned").items():
        assert all(torch.equal(v, overlays(tmp_path / "run" / "finetuned")[site][n]) for n, v in own.items())


def test_a_pattern_that_matches_nothing_is_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"finetuning\.layers: 'tail' matches nothing; .* head\.weight"):
        done(tmp_path / "run", a_job(finetuning__layers=["tail"]))
    assert not (tmp_path / "run").exists()


def test_the_job_of_it() -> None:
    job = a_job(
        training__local_steps=7, training__optimizer={"learning_rate": 0.2, "schedule": {"kind": "cosine"}},
        algorithm={"name": "scaffold"}, participation={"fraction": 0.5},
    )  # fmt: skip
    own = finetuned(job, {"b", "a"})
    assert (own.training.rounds, own.training.work) == (3, (None, 1))
    assert (own.training.optimizer.learning_rate, own.training.optimizer.schedule.kind) == (0.2, "constant")
    assert own.model.local == ("a", "b", "*")
    assert own.participation.fraction == 1.0
    assert own.finetuning.epochs == 0

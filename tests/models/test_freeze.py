"""Frozen layers neither train nor travel, and are in the model that a run leaves behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from wardround import Job, run
from wardround.config.job import ModelSpec
from wardround.errors import ConfigError
from wardround.models import registry as models
from wardround.models.freeze import FrozenBatchNorm, frozen_of
from wardround.prediction import load_predictor
from wardround.training.probe import probe
from wardround.types import Description, SiteData


class Pictures:
    """Two hospitals with 40 pictures of 8 x 8 pixels, brighter where the label is 1."""

    def describe(self) -> Description:
        return Description(
            name="pictures", title="", source="", licence="", sites=("a", "b"), shape=(1, 8, 8), natural=True
        )

    def load(self, site: str) -> SiteData:
        draw = np.random.default_rng(ord(site))
        labels = np.arange(40) % 2
        features = draw.normal(size=(40, 1, 8, 8)) + labels[:, None, None, None]
        return SiteData(features=features.astype(np.float32), labels=labels, patients=np.arange(40))


def build(freeze: tuple[str, ...], name: str = "cnn", **options: Any) -> nn.Module:
    spec = ModelSpec(name=name, options={"width": 2, **options}, freeze=freeze)
    return models.build(spec, (1, 8, 8), 2, seed=0, dtype=torch.float32)


def shared(module: nn.Module) -> set[str]:
    state = models.state_of(module)
    return {*state.params, *state.buffers}


def test_patterns_take_layers_out_and_let_them_go_again() -> None:
    everything = shared(build(()))
    assert shared(build(("conv1", "norm1"))) == {n for n in everything if not n.startswith(("conv1", "norm1"))}
    assert shared(build(("*", "!head"))) == {"head.weight", "head.bias"}
    assert shared(build(("BatchNorm2d",))) == {n for n in everything if not n.startswith("norm")}
    assert shared(build(("conv*.weight",))) == everything - {"conv1.weight", "conv2.weight"}


def test_frozen_batch_norm_keeps_its_statistics_and_rows_do_not_meet() -> None:
    module = build(("BatchNorm2d",)).double().train()
    assert isinstance(module.norm1, FrozenBatchNorm)
    found = probe(module, (1, 8, 8))
    assert (found.stackable, found.independent) == (True, True)
    before = frozen_of(module)
    module(torch.randn(5, 1, 8, 8, dtype=torch.float64) + 3)
    assert all(torch.equal(value, before[n]) for n, value in frozen_of(module).items())
    plain = build(()).double()
    x = torch.randn(5, 1, 8, 8, dtype=torch.float64)
    assert torch.allclose(module(x), plain.eval()(x))


def test_names_that_mean_nothing_or_half_a_layer_are_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"model\.freeze: 'stem' matches nothing; the model's names are conv1\.weight"
    ):
        build(("stem",))
    with pytest.raises(ConfigError, match=r"leaves the rest of norm1: freeze a BatchNorm layer whole"):
        build(("norm1.weight",))


def job(weights: Path, **model: Any) -> Job:
    return Job.model_validate(
        {
            "data": {"dataset": "test_freeze_data:Pictures"},
            "model": {"name": "cnn", "options": {"width": 2}, "pretrained": str(weights), **model},
            "training": {"rounds": 2, "optimizer": {"learning_rate": 0.1}},
            "evaluation": {"baselines": ["local"], "bootstrap": 0},
        }
    )


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    import sys
    import types

    module = types.ModuleType("test_freeze_data")
    module.Pictures = Pictures  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "test_freeze_data", module)
    donor = models.build(ModelSpec(name="cnn", options={"width": 2}), (1, 8, 8), 2, seed=5, dtype=torch.float32)
    save_file(donor.state_dict(), tmp_path / "w.safetensors")
    return tmp_path / "w.safetensors"


def test_a_run_with_frozen_layers_sends_the_rest_and_predicts_without_the_file(weights: Path, tmp_path: Path) -> None:
    frozen = run(job(weights, freeze=["*", "!head"]), tmp_path / "frozen", report=False)
    free = run(job(weights), tmp_path / "free", report=False)
    assert frozen["model"]["shared"] == frozen["model"]["parameters"] == 2 * 2 * 4 + 1  # the head's
    assert frozen["model"]["frozen"] == 20 + 8 + 76 + 16  # two convolutions, two BatchNorms with statistics
    assert frozen["bytes_up"] < free["bytes_up"]
    assert frozen["model"]["pretrained"].startswith("14 of 14 tensors from w.safetensors; head from the file")
    donor = models.build(ModelSpec(name="cnn", options={"width": 2}), (1, 8, 8), 2, seed=5, dtype=torch.float32)
    weights.unlink()
    predictor = load_predictor(tmp_path / "frozen")
    kept = donor.state_dict()
    for name in ("conv1.weight", "norm1.running_var", "conv2.bias"):
        assert torch.equal(predictor.arrays[name], kept[name])
    assert not torch.equal(predictor.arrays["head.weight"], kept["head.weight"])
    rows = Pictures().load("a").features
    donor.load_state_dict({**kept, **{n: v for n, v in predictor.arrays.items() if n in kept}})
    with torch.no_grad():
        expected = torch.sigmoid(donor.eval()(torch.from_numpy(rows))).flatten().double()
    assert np.allclose(predictor.probabilities(rows), expected.numpy(), atol=1e-6)


def test_absent_weights_are_refused_before_a_folder_is_made(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"weights = 'nowhere\.pth': there is no such file"):
        run(job(Path("nowhere.pth")), tmp_path / "out")
    assert not (tmp_path / "out").exists()

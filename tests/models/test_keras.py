"""Keras models: the same network as in plain PyTorch, however it is executed, and what they refuse."""

from __future__ import annotations

import copy
import importlib.util
import os
import pickle
import random
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from wardround.config.job import ModelSpec
from wardround.config.load import from_mapping
from wardround.errors import ConfigError
from wardround.experiment import run
from wardround.models.registry import build, owners, state_of
from wardround.prediction import load_predictor
from wardround.store.run import Run
from wardround.training.probe import probe
from wardround.types import Arrays, ModelState

if importlib.util.find_spec("keras") is None:
    pytest.skip('Keras is not installed: pip install "wardround[keras]"', allow_module_level=True)
os.environ.setdefault("KERAS_BACKEND", "torch")
import keras

JOB = {
    "data": {"dataset": "wdbc"},
    "partition": {"kind": "dirichlet", "sites": 4, "alpha": 0.5},
    "training": {
        "rounds": 3, "local_epochs": 2, "dtype": "float64", "optimizer": {"learning_rate": 0.05, "momentum": 0.9},
    },
    "evaluation": {"bootstrap": 0, "baselines": [], "select": "last"},
}  # fmt: skip


def built(
    name: str, shape: tuple[int, ...] = (5,), classes: int = 2, seed: int = 0, dtype: torch.dtype = torch.float64
) -> Any:
    return build(ModelSpec(name=f"keras_plugins:{name}"), shape, classes, seed=seed, dtype=dtype)


def trained(out: Path, model: dict[str, Any], **changes: Any) -> tuple[dict[str, Any], ModelState, Arrays]:
    """Result, shared model and the sites' states of a run."""
    result = run(from_mapping(JOB | {"model": model} | changes), out, report=False)
    with Run.open(out, writer=False) as folder:
        server, _, states = folder.restore()
    return result, server.model, states


def close(a: Arrays, b: Arrays, tolerance: float) -> None:
    assert a.keys() == b.keys()
    for name, value in a.items():
        torch.testing.assert_close(value, b[name], rtol=0, atol=tolerance)


def as_torch(params: Arrays) -> Arrays:
    """Parameters by the names of `Twin`, kernels transposed."""
    layers = {"dense": "hidden", "dense_1": "head", "head": "head", "batch_normalization": "norm"}
    leaves = {"kernel": "weight", "bias": "bias", "gamma": "weight", "beta": "bias"}
    places = {name: name.split(".") for name in params}
    return {f"{layers[a]}.{leaves[b]}": params[n].T if b == "kernel" else params[n] for n, (a, b) in places.items()}


@pytest.mark.parametrize("middle", ["dense", "normal", "dropped"])
def test_a_run_is_that_of_the_same_network_in_plain_torch(tmp_path: Path, middle: str) -> None:
    network = {"name": f"keras_plugins:{middle}"}
    start = state_of(built(middle, (30,))).params  # wdbc has 30 features
    torch.save(as_torch(start), tmp_path / "start.pt")
    twin = {"name": "keras_plugins:Twin", "options": {"weights": str(tmp_path / "start.pt"), "middle": middle}}
    result, model, _ = trained(tmp_path / "keras", network)
    expected, same, _ = trained(tmp_path / "torch", twin)
    moved = max((model.params[n] - start[n]).abs().max() for n in start)
    assert moved > 0.01
    close(as_torch(model.params), same.params, 1e-10)
    assert result["executor"] == expected["executor"] == ("sequential" if middle == "dropped" else "stacked")
    if middle == "normal":
        close(
            {"mean": model.buffers["batch_normalization.moving_mean"]},
            {"mean": same.buffers["norm.running_mean"]},
            1e-10,
        )
    else:
        assert result["federated"]["pooled"]["auroc"] == pytest.approx(
            expected["federated"]["pooled"]["auroc"], abs=1e-6
        )


@pytest.mark.parametrize("name", ["dense", "normal", "Residual"])
def test_stacked_is_sequential(tmp_path: Path, name: str) -> None:
    models = []
    for executor in ("stacked", "sequential"):
        engine = {"engine": {"executor": executor}}
        models.append(trained(tmp_path / executor, {"name": f"keras_plugins:{name}"}, **engine)[1])
    close(models[0].params, models[1].params, 1e-10)
    close(models[0].buffers, models[1].buffers, 1e-10)


@pytest.mark.slow
@pytest.mark.long
def test_workers_give_the_same(tmp_path: Path) -> None:
    one, two = (
        trained(tmp_path / f"{n}", {"name": "keras_plugins:dropped", "options": {"seed": 3}}, engine={"workers": n})[1]
        for n in (1, 2)
    )
    close(one.params, two.params, 0.0)


def test_dropout_depends_on_the_jobs_seed_alone(tmp_path: Path) -> None:
    # a layer's own seed makes its masks repeat in every process, but not from step to step
    found = []
    for number, seed in enumerate((None, None, 3, 3)):
        random.seed(number)
        torch.manual_seed(number)
        network = {"name": "keras_plugins:dropped", "options": {"seed": seed}}
        found.append(trained(tmp_path / f"{number}", network)[1].params)
    close(found[0], found[1], 0.0)
    close(found[2], found[3], 0.0)
    assert not torch.equal(found[0]["dense.kernel"], found[2]["dense.kernel"])


@pytest.mark.parametrize("seed", [None, 3])
def test_dropout_draws_a_new_mask_each_time_and_none_in_evaluation(seed: int | None) -> None:
    module = build(
        ModelSpec(name="keras_plugins:dropped", options={"seed": seed}), (5,), 2, seed=0, dtype=torch.float64
    )
    x = torch.ones(64, 5, dtype=torch.float64)
    assert len({module(x).sum().item() for _ in range(4)}) == 4
    module.eval()
    assert len({module(x).sum().item() for _ in range(4)}) == 1
    assert probe(module, (5,)).stochastic


def test_batch_norm_by_hand() -> None:
    module = built("normal")
    x = torch.randn(7, 5, dtype=torch.float64)
    hidden = x @ module.dense.kernel + module.dense.bias
    mean, variance = hidden.mean(0), hidden.var(0, unbiased=False)
    expected = torch.relu((hidden - mean) / (variance + 1e-3).sqrt()) @ module.head.kernel + module.head.bias
    torch.testing.assert_close(module(x), expected, rtol=0, atol=1e-12)
    norm = module.batch_normalization
    torch.testing.assert_close(norm.moving_mean, 0.01 * mean.detach(), rtol=0, atol=1e-12)
    torch.testing.assert_close(norm.moving_variance, 0.99 + 0.01 * variance.detach(), rtol=0, atol=1e-12)
    before = copy.deepcopy(state_of(module))
    module.eval()
    module(x)
    close(state_of(module).buffers, before.buffers, 0.0)
    module.train()
    with pytest.raises(ValueError, match="more than one row"):
        module(x[:1])


def test_fedbn_and_local_names_keep_keras_layers(tmp_path: Path) -> None:
    statistics = {f"batch_normalization.{n}" for n in ("gamma", "beta", "moving_mean", "moving_variance")}
    network: dict[str, Any] = {"name": "keras_plugins:normal"}
    _, model, states = trained(tmp_path / "fedbn", network, algorithm={"name": "fedbn"})
    assert {n.removeprefix("local/") for n in states} == statistics
    assert not statistics & {*model.params, *model.buffers}
    means = states["local/batch_normalization.moving_mean"]
    assert not torch.equal(means[0], means[1])
    _, _, by_type = trained(tmp_path / "type", network | {"local": ["BatchNormalization"]})
    close(states, by_type, 0.0)
    _, _, by_name = trained(tmp_path / "name", network | {"local": ["head"]})
    assert by_name.keys() == {"local/head.kernel", "local/head.bias"}


def test_names_and_weights_do_not_depend_on_the_process() -> None:
    first = built("Residual", seed=1)
    random.seed(5)
    torch.manual_seed(5)
    keras.layers.Dense(3)
    state, generator = random.getstate(), torch.get_rng_state()
    rounded = keras.backend.result_type("float64", "float64")
    again, other = built("Residual", seed=1), built("Residual", seed=2)
    assert random.getstate() == state
    assert torch.equal(torch.get_rng_state(), generator)
    assert keras.config.floatx() == "float32"
    assert keras.backend.result_type("float64", "float64") == rounded
    close(state_of(first).params, state_of(again).params, 0.0)
    assert not torch.equal(state_of(first).params["dense.kernel"], state_of(other).params["dense.kernel"])
    assert list(state_of(first).params) == [
        "dense.kernel", "dense.bias", "sequential.layer_normalization.gamma", "sequential.layer_normalization.beta",
        "sequential.dense.kernel", "sequential.dense.bias", "sequential.p_re_lu.alpha", "dense_1.kernel", "dense_1.bias",
    ]  # fmt: skip
    assert type(owners(first)["sequential.p_re_lu.alpha"]).__name__ == "PReLU"


def test_copies_are_equal_and_apart() -> None:
    module = built("normal", dtype=torch.float32)
    x = torch.randn(9, 5)
    module(x)
    module.eval()
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert not twin.training
        assert torch.equal(twin(x), module(x))
        twin.double().train()(x.double())
        assert not torch.equal(twin.batch_normalization.moving_mean.float(), module.batch_normalization.moving_mean)


def test_frozen_layers_do_not_travel() -> None:
    state = state_of(built("frozen"))
    assert state.params.keys() == {"dense_1.kernel", "dense_1.bias"}
    assert state.buffers == {}
    module = built("frozen")
    x = torch.randn(7, 5, dtype=torch.float64)
    module(x)
    assert torch.equal(module.batch_normalization.moving_mean, torch.zeros(8, dtype=torch.float64))
    module(x[:1])


def test_pictures_and_layers_are_models_too() -> None:
    module = built("picture", (2, 6, 6), classes=3)
    found = probe(module, (2, 6, 6))
    assert found.stackable
    assert found.convolves
    assert found.outputs == 3
    assert state_of(built("bare")).params.keys() == {"kernel", "bias"}


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras's own
def test_a_trained_model_goes_back_to_keras(tmp_path: Path) -> None:
    trained(tmp_path / "run", {"name": "keras_plugins:normal"})
    model = load_predictor(tmp_path / "run")
    x = np.random.default_rng(0).normal(size=(6, 30))
    model.module.eval()
    expected = torch.func.functional_call(model.module, model.arrays, (torch.from_numpy(x),))
    network = model.module.filled(model.arrays)
    network.save(tmp_path / "net.keras")
    weights = keras.saving.load_model(tmp_path / "net.keras").get_weights()
    assert [tuple(w.shape) for w in weights] == [tuple(v.shape) for v in network.variables]
    close(
        dict(enumerate(map(torch.from_numpy, weights))),
        dict(enumerate(v.value.detach() for v in network.variables)),
        0.0,
    )
    # Keras computes in float32
    assert network.predict(x, verbose=0) == pytest.approx(expected.detach().numpy(), abs=1e-4)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("sure", "outputs are probabilities .*expected logits"),
        ("penalised", "losses of its own .*weight_decay"),
        ("constrained", "kernel has a constraint"),
        ("half", "computes in bfloat16: leave its dtype out"),
        ("noisy", "state that none of its layers holds.*SeedGenerator"),
        ("wide", r"cannot take rows of shape \(5,\): ValueError"),
    ],
)
def test_what_could_not_be_right_is_refused(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        built(name)


@pytest.mark.skipif(
    keras.backend.result_type("float64", "float64") == "float64", reason="this Keras computes in float64 by itself"
)
def test_float64_that_would_be_rounded_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wardround.models.keras.precise", lambda dtype: nullcontext())
    with pytest.raises(ConfigError, match=r"rounds float64 to float32.*training\.dtype: float32"):
        built("dense")
    assert built("dense", dtype=torch.float32)(torch.zeros(2, 5)).dtype == torch.float32


def test_pictures_of_the_wrong_layout_are_explained() -> None:
    with pytest.raises(ConfigError, match=r"rows, channels, height, width.*Permute"):
        built("last", (1, 8, 8))


def test_without_keras_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "keras", None)
    monkeypatch.delitem(sys.modules, "keras_plugins", raising=False)
    with pytest.raises(ConfigError, match=r'pip install "wardround\[keras\]"'):
        built("dense")


def test_another_backend_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(ConfigError, match="Keras runs on its jax backend here, expected torch"):
        built("dense")


def test_a_backend_that_cannot_be_imported_is_explained() -> None:
    code = (
        "import torch\nfrom wardround.config.job import ModelSpec\nfrom wardround.models.registry import build\n"
        "build(ModelSpec(name='keras_plugins:dense'), (5,), 2, seed=0, dtype=torch.float32)"
    )
    path = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False,
        env=os.environ | {"KERAS_BACKEND": "absent", "PYTHONPATH": path},
    )  # fmt: skip
    last = done.stderr.splitlines()[-1]
    assert last.startswith("wardround.errors.ConfigError")
    assert last.endswith("the environment has KERAS_BACKEND = absent, expected torch: unset it")

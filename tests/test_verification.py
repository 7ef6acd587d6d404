"""`wardround privacy verify`: the secure sum beside the plain one, of a run's own records."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from wardround import load, run
from wardround.channels.secure import SecureChannel
from wardround.cli.app import app
from wardround.cli.exit import guarded
from wardround.errors import ConfigError, RunError
from wardround.verification import verify

WDBC = Path(__file__).parents[1] / "examples" / "wdbc.yaml"
SMALL = ["training.rounds=2", "partition.sites=4", "evaluation.baselines=[]", "evaluation.bootstrap=0"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    run(load(WDBC, [*SMALL, "algorithm.name=scaffold", "privacy.channel.kind=secagg"]), out, report=False)
    return out


@pytest.mark.parametrize("channel", [None, "secagg", "he", "masked-he"])
def test_the_sum_is_within_its_bound(folder: Path, channel: str | None) -> None:
    found = verify(folder, channel)
    assert found.holds
    assert found.sites == 4
    assert found.clipped == 0
    layers = {layer.name: layer for layer in found.layers}
    step = layers["step/linear.weight"]
    assert 0.0 < step.error <= step.bound < 1e-3
    assert layers["training/loss"].error <= layers["training/loss"].bound < 1e-9
    assert "scaffold/linear.weight" in "".join(layers) or any("variate" in name or "change" in name for name in layers)
    assert found.unpacked > 1.9 * found.upload
    if channel in ("he", "masked-he"):
        assert sum(layer.ciphertexts for layer in found.layers) == pytest.approx(1.0)
        assert found.single > 100 * found.upload
    else:
        assert found.single == 0.0


def test_a_sum_that_is_off_is_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = SecureChannel._opened

    def nudged(self, *given):  # type: ignore[no-untyped-def]
        for total, exponents in opened(self, *given):
            value = total.sums.get("step", {}).get("linear.weight")
            if value is not None:
                value.view(-1)[3] += 0.01
            yield total, exponents

    monkeypatch.setattr(SecureChannel, "_opened", nudged)
    found = verify(folder)
    assert not found.holds
    [bad] = [layer for layer in found.layers if layer.error > layer.bound]
    assert bad.name == "step/linear.weight"
    assert bad.error == pytest.approx(0.01, rel=0.05)
    assert guarded(app, ["privacy", "verify", str(folder), "--json"]) == 7


def test_the_command_prints_layers_and_a_verdict(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert guarded(app, ["privacy", "verify", str(folder), "--channel", "he"]) == 0
    printed = capsys.readouterr().out
    assert "step/linear.weight" in printed
    assert "the sum is the plain sum, within its bound" in printed
    assert "packing saves" in printed
    assert guarded(app, ["privacy", "verify", str(folder), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["holds"] is True
    assert np.isfinite([layer["error"] for layer in told["layers"]]).all()


def test_what_cannot_be_verified_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="channel 'paillier' is unknown here: expected one of secagg"):
        verify(folder, "paillier")
    out = tmp_path / "plain"
    run(load(WDBC, SMALL), out, report=False)
    with pytest.raises(ConfigError, match=r"hides nothing that could be verified: name one with --channel"):
        verify(out)
    assert verify(out, "secagg").holds
    with pytest.raises(RunError):
        verify(tmp_path / "nowhere")

"""Weights from a file: names of other libraries, the first convolution, the head, what is refused, and the fetching."""

from __future__ import annotations

import hashlib
import io
import re
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from wardround.config.job import ModelSpec
from wardround.errors import ConfigError
from wardround.models import pretrained
from wardround.models import registry as models
from wardround.models.pretrained import PUBLISHED, Matched, channels_changed

TINY: dict[str, dict[str, Any]] = {
    "resnet18": {"width": 4},
    "densenet121": {"width": 4, "growth": 4, "blocks": [1, 1, 1, 1]},
    "efficientnet_b0": {"width": 0.25, "depth": 0.6},
    "vit_small": {"patch": 8, "width": 12, "depth": 2, "heads": 3},
}


def build(
    name: str = "resnet18", channels: int = 3, classes: int = 5, side: int = 32, axes: int = 2, **spec: Any
) -> Any:
    own = ModelSpec(name=name, options=TINY[name], **spec)
    return models.build(own, (channels, *[side] * axes), classes, seed=8 if spec else 7, dtype=torch.float32)


def saved(path: Path, arrays: dict[str, Tensor]) -> str:
    save_file({n: v.contiguous() for n, v in arrays.items()}, path)
    return str(path)


def logits(module: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return module.eval()(x)


X = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))


# -------------------------------------------------------------------------------------------------------- what comes


@pytest.mark.parametrize("name", TINY)
def test_a_file_of_the_same_network_gives_the_same_logits(name: str, tmp_path: Path) -> None:
    donor = build(name)
    given = build(name, pretrained=saved(tmp_path / "w.safetensors", donor.state_dict()))
    assert torch.equal(logits(donor, X), logits(given, X))
    assert (given.origin.tensors, given.origin.head, given.origin.missing) == (given.origin.of, "from the file", ())


def torchvision_densenet(arrays: dict[str, Tensor]) -> dict[str, Tensor]:
    return {n.replace(".layers.", ".").replace("class_layers.out.", "classifier."): v for n, v in arrays.items()}


def old_torchvision_densenet(arrays: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        re.sub(r"(denselayer\d+\.(?:norm|conv))([12])", r"\1.\2", n): v for n, v in torchvision_densenet(arrays).items()
    }


def efficientnet_pytorch(arrays: dict[str, Tensor]) -> dict[str, Tensor]:
    return {re.sub(r"^_blocks\.\d+\.", "_blocks.", n): v for n, v in arrays.items()}


def deit(arrays: dict[str, Tensor]) -> dict[str, Tensor]:
    names = {"patch_embedding.patch_embeddings": "patch_embed.proj", "attn.out_proj": "attn.proj", "linear": "fc"}
    found = {}
    for own, value in arrays.items():
        name = own.replace("classification_head", "head")
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        found[name] = value
    token = found["cls_token"]
    found["cls_token"] = token - 1.0  # DeiT adds a position to the token as well
    grid = found.pop("patch_embedding.position_embeddings")
    found["pos_embed"] = torch.cat([torch.ones_like(token), grid], 1)
    return found


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("densenet121", torchvision_densenet),
        ("densenet121", old_torchvision_densenet),
        ("efficientnet_b0", efficientnet_pytorch),
        ("vit_small", deit),
    ],
)
def test_names_of_other_libraries_are_understood(name: str, theirs: Any, tmp_path: Path) -> None:
    donor = build(name)
    given = build(name, pretrained=saved(tmp_path / "w.safetensors", theirs(donor.state_dict())))
    assert torch.allclose(logits(donor, X), logits(given, X), atol=1e-5)
    assert given.origin.tensors == given.origin.of


@pytest.mark.parametrize("wrap", [lambda d: d, lambda d: {"state_dict": d, "epoch": 3}, lambda d: {"model": d}])
@pytest.mark.parametrize("prefix", ["", "module.", "backbone."])
def test_checkpoints_of_torch_save_with_prefixes_and_holders(wrap: Any, prefix: str, tmp_path: Path) -> None:
    donor = build()
    torch.save(wrap({prefix + n: v for n, v in donor.state_dict().items()}), tmp_path / "w.pth")
    assert torch.equal(logits(donor, X), logits(build(pretrained=str(tmp_path / "w.pth")), X))


def test_positions_of_a_vision_transformer_are_resampled(tmp_path: Path) -> None:
    # a plane of positions stays a plane: 4 x 4 to 8 x 8
    donor = build("vit_small")
    arrays = deit(donor.state_dict())
    arrays["pos_embed"][:, 1:] = 0.25
    given = build("vit_small", side=64, pretrained=saved(tmp_path / "w.safetensors", arrays))
    positions = given.state_dict()["patch_embedding.position_embeddings"]
    assert positions.shape == (1, 64, 12)
    assert torch.allclose(positions, torch.tensor(0.25))


# --------------------------------------------------------------------------------------------- the first convolution


def test_sum_keeps_what_a_grey_picture_gives(tmp_path: Path) -> None:
    donor = build()
    given = build(channels=1, pretrained=saved(tmp_path / "w.safetensors", donor.state_dict()))
    grey = X[:, :1]
    assert torch.allclose(logits(given, grey), logits(donor, grey.expand(-1, 3, -1, -1)), atol=1e-5)
    assert given.origin.stem == "sum of 3 channels to 1"


@pytest.mark.parametrize("how", ["sum", "mean"])
@pytest.mark.parametrize(("before", "after"), [(3, 1), (1, 3), (3, 6), (6, 3), (2, 4)])
def test_channels_changed_keeps_the_sum_or_the_mean(how: str, before: int, after: int) -> None:
    weight = torch.randn(5, before, 3, 3, generator=torch.Generator().manual_seed(0))
    changed = channels_changed(weight, after, how)
    assert changed.shape == (5, after, 3, 3)
    kept = Tensor.sum if how == "sum" else Tensor.mean
    assert torch.allclose(kept(changed, 1), kept(weight, 1), atol=1e-6)


def test_more_channels_repeat_those_that_there_are() -> None:
    weight = torch.arange(3.0).view(1, 3, 1, 1)
    assert channels_changed(weight, 4, "mean").flatten().tolist() == [0.0, 1.0, 2.0, 0.0]


def test_kernels_of_pictures_are_spread_over_the_depth_of_volumes(tmp_path: Path) -> None:
    # a volume that is the same in every slice gives, in its inner slices, what the picture gives
    donor = build()
    given = build(channels=1, axes=3, side=32, pretrained=saved(tmp_path / "w.safetensors", donor.state_dict()))
    flat = donor.conv1.weight.sum(1)
    assert torch.allclose(given.conv1.weight.sum((1, 2)), flat, atol=1e-6)
    assert given.origin.inflated == sum(p.dim() == 4 for p in donor.parameters())


# ------------------------------------------------------------------------------------------------------------ the head


def test_a_head_of_other_classes_stays_new_and_the_report_says_what_matched(tmp_path: Path) -> None:
    donor, fresh = build(classes=10), build()
    arrays = {n: v for n, v in donor.state_dict().items() if n != "layer4.1.bn2.bias"} | {"extra": torch.zeros(1)}
    path = saved(tmp_path / "w.safetensors", arrays)
    given = build(pretrained=path)
    assert given.fc.weight.shape == (5, 32)
    assert not torch.equal(given.fc.weight, donor.fc.weight[:5])
    found: Matched = given.origin
    assert (found.head, found.missing, found.unused) == ("new", ("layer4.1.bn2.bias",), ("extra",))
    assert found.tensors == found.of - 3  # head's weight and bias, and what is missing
    assert found.words().startswith(
        f"{found.tensors} of {found.of} tensors from w.safetensors; head new; not in the file:"
    )
    assert found.sha256 == hashlib.sha256(Path(path).read_bytes()).hexdigest()
    assert not torch.equal(fresh.conv1.weight, given.conv1.weight)


def test_a_head_may_be_asked_to_be_new(tmp_path: Path) -> None:
    donor = build()
    path = saved(tmp_path / "w.safetensors", donor.state_dict())
    given = build(pretrained={"weights": path, "head": "new"})
    assert torch.equal(given.layer1[0].conv1.weight, donor.layer1[0].conv1.weight)
    assert not torch.equal(given.fc.weight, donor.fc.weight)


# ------------------------------------------------------------------------------------------------------------- refused


class Evil:
    def __reduce__(self) -> Any:
        return print, ("run by a weights file",)


def test_a_file_that_holds_code_is_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"state_dict": Evil()}, tmp_path / "w.pth")
    with pytest.raises(ConfigError, match=r"w\.pth holds more than tensors.*its state_dict alone"):
        build(pretrained=str(tmp_path / "w.pth"))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("name", "content"),
    [("w.pth", b"no weights"), ("w.safetensors", b"\xff" * 40), ("w.pth", b""), ("w.safetensors", b"")],
)
def test_damaged_files_say_so(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=r"model\.pretrained: .*w\.(pth|safetensors)"):
        build(pretrained=str(tmp_path / name))


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    donor = build()
    other = saved(tmp_path / "other.safetensors", build("densenet121").state_dict())
    with pytest.raises(ConfigError, match=r"fits 0% of model resnet18: it is another network's"):
        build(pretrained=other)
    wide = {n: torch.cat([v, v]) if n == "layer1.0.bn1.weight" else v for n, v in donor.state_dict().items()}
    with pytest.raises(ConfigError, match=r"layer1\.0\.bn1\.weight has the shape \(8,\), and the network's is \(4,\)"):
        build(pretrained=saved(tmp_path / "wide.safetensors", wide))
    spoilt = donor.state_dict() | {"conv1.weight": torch.full_like(donor.conv1.weight, torch.nan)}
    with pytest.raises(ConfigError, match=r"conv1\.weight is not finite"):
        build(pretrained=saved(tmp_path / "nan.safetensors", spoilt))
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ConfigError, match="no tensors by name"):
        build(pretrained=str(tmp_path / "list.pth"))
    with pytest.raises(ConfigError, match=r"there is no such file: expected a path .*or one of imagenet"):
        build(pretrained=str(tmp_path / "absent.pth"))
    with pytest.raises(ConfigError, match=r"SHA-256 of .* is [0-9a-f]{64}, expected 0000"):
        build(pretrained={"weights": other, "sha256": "0" * 64})


# ------------------------------------------------------------------------------------------------------------- fetched


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    return tmp_path / "hub" / "checkpoints"


def test_without_a_network_the_error_says_what_to_do(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(url: str, timeout: float) -> Any:
        raise URLError("Name or service not known")

    monkeypatch.setattr(pretrained, "urlopen", unreachable)
    with pytest.raises(ConfigError) as caught:
        build(pretrained="imagenet")
    message = str(caught.value)
    assert "https://download.pytorch.org/models/resnet18-f37072fd.pth cannot be fetched" in message
    assert f"copy it to {hub / 'resnet18-f37072fd.pth'}" in message
    assert "model.pretrained.weights" in message
    assert not list(hub.iterdir())


def test_a_fetched_file_is_checked_kept_and_used_again(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    donor, content = build(classes=10), io.BytesIO()
    torch.save(donor.state_dict(), content)
    digest = hashlib.sha256(content.getvalue()).hexdigest()
    asked: list[str] = []

    def answers(url: str, timeout: float) -> Any:
        asked.append(url)
        return io.BytesIO(content.getvalue())

    monkeypatch.setattr(pretrained, "urlopen", answers)
    with pytest.raises(ConfigError, match=rf"SHA-256 of .* is {digest}, expected one that begins with f37072fd"):
        build(pretrained="imagenet")
    assert not list(hub.iterdir())

    url = f"https://example.org/r18-{digest[:8]}.pth"
    listed = {("resnet18", "imagenet"): pretrained.Weights(url=url, title="", licence="")}
    monkeypatch.setattr(pretrained, "PUBLISHED", listed)
    for _ in range(2):
        given = build(pretrained="imagenet")
        assert torch.equal(given.conv1.weight, donor.conv1.weight)
    assert asked[1:] == [url]
    assert [path.name for path in hub.iterdir()] == [f"r18-{digest[:8]}.pth"]


def test_the_table_names_checksums_for_networks_that_exist() -> None:
    assert {model for model, _ in PUBLISHED} <= models.MODELS.keys()
    for weights in PUBLISHED.values():
        assert weights.url.startswith("https://")
        assert re.fullmatch(r"[0-9a-f]{8}", weights.digest)
        assert weights.licence

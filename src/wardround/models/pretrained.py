"""Weights that were trained elsewhere: found in a file or fetched, fitted to the network, and accounted for.

The first convolution is adapted to the channels of the rows, a kernel of pictures is spread over the depth of volumes
(Carreira & Zisserman 2017), and the head stays new where its classes are others. Files are read as tensors alone: nothing
in them is executed.
"""

from __future__ import annotations

import os
import pickle
import shutil
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib.request import urlopen

import torch
from torch import Tensor, nn

from wardround.config.job import ModelSpec, PretrainedSpec
from wardround.errors import ConfigError
from wardround.store.atomic import sha256
from wardround.types import Arrays

Translate = Callable[[Arrays, nn.Module], Arrays]


@dataclass(frozen=True, kw_only=True)
class Weights:
    """A published checkpoint.

    Attributes:
        url: where it is; the hexadecimal end of its name is the beginning of its SHA-256.
        title: what it was trained on, and by whom.
        licence: under which its authors give it.
    """

    url: str
    title: str
    licence: str

    @property
    def name(self) -> str:
        """Of the file."""
        return self.url.rpartition("/")[2]

    @property
    def digest(self) -> str:
        """How the file's SHA-256 begins."""
        return self.name.rpartition(".")[0].rpartition("-")[2]


_TORCHVISION = "https://download.pytorch.org/models"
PUBLISHED: dict[tuple[str, str], Weights] = {
    (model, "imagenet"): Weights(url=url, title=title, licence=licence)
    for model, url, title, licence in (
        ("resnet18", f"{_TORCHVISION}/resnet18-f37072fd.pth", "ImageNet-1k, torchvision", "BSD-3-Clause"),
        ("resnet50", f"{_TORCHVISION}/resnet50-0676ba61.pth", "ImageNet-1k, torchvision", "BSD-3-Clause"),
        ("densenet121", f"{_TORCHVISION}/densenet121-a639ec97.pth", "ImageNet-1k, torchvision", "BSD-3-Clause"),
        (
            "efficientnet_b0",
            "https://github.com/lukemelas/EfficientNet-PyTorch/releases/download/1.0/efficientnet-b0-355c32eb.pth",
            "ImageNet-1k, EfficientNet-PyTorch",
            "Apache-2.0",
        ),
        (
            "vit_small",
            "https://dl.fbaipublicfiles.com/deit/deit_small_patch16_224-cd65a155.pth",
            "ImageNet-1k, DeiT",
            "Apache-2.0",
        ),
    )
}
"""(model, name of the weights) -> where they are. ImageNet's own terms allow research and teaching."""
_PREFIXES = ("", "module.", "model.", "backbone.", "encoder.", "net.", "network.")
_HOLDERS = ("state_dict", "model", "model_state_dict", "net", "network")
_TIMEOUT = 30.0
_LEAST = 0.5
"""Share of the network's numbers that a file must have: with fewer it belongs to another network."""


@dataclass(frozen=True, kw_only=True)
class Matched:
    """What a file gave to a network.

    Attributes:
        source, sha256: the file.
        tensors: of the network's parameters and statistics, those taken from the file.
        of: all of them.
        stem: how the first convolution was adapted; "" where it was not.
        inflated: kernels of pictures that were spread over the depth of volumes.
        head: `from the file` or `new`.
        missing: names of the network that the file does not have.
        unused: names of the file that the network does not have.
    """

    source: str
    sha256: str
    tensors: int
    of: int
    stem: str
    inflated: int
    head: str
    missing: tuple[str, ...]
    unused: tuple[str, ...]

    def words(self) -> str:
        """In a sentence for the report."""
        parts = [f"{self.tensors} of {self.of} tensors from {self.source}", f"head {self.head}"]
        parts += [f"first convolution {self.stem}"] if self.stem else []
        parts += [f"{self.inflated} kernels spread over the depth"] if self.inflated else []
        for what, names in (("not in the file", self.missing), ("not in the network", self.unused)):
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            parts += [f"{what}: {', '.join(names[:3])}{more}"] if names else []
        return "; ".join(parts)


# ------------------------------------------------------------------------------------------------------------- files


def locate(spec: ModelSpec) -> Path:
    """The file of `model.pretrained`, fetched into PyTorch's hub folder where it is published and not there yet.

    Args:
        spec: the job's `model`, with `pretrained`.

    Raises:
        ConfigError: no such file, a name that is not known for this network, another checksum, or no way to fetch it.
    """
    given = _spec(spec)
    known = {weights: found for (model, weights), found in PUBLISHED.items() if model == spec.name}
    if given.weights in known:
        path = _fetched(known[given.weights])
    else:
        path = Path(given.weights).expanduser()
        if not path.is_file():
            names = f", or one of {', '.join(known)}" if known else f" ({spec.name} has no published weights by name)"
            raise ConfigError(
                f"model.pretrained.weights = {given.weights!r}: there is no such file: expected a path of a .safetensors or "
                f".pth file{names}"
            )
    digest = sha256(path)
    if given.sha256 is not None and digest != given.sha256:
        raise ConfigError(
            f"model.pretrained: the SHA-256 of {path} is {digest}, expected {given.sha256}: fetch it again, or correct sha256"
        )
    return path


def _spec(spec: ModelSpec) -> PretrainedSpec:
    given = spec.pretrained
    if given is None:
        raise ConfigError("model.pretrained is not given")
    return PretrainedSpec(weights=given) if isinstance(given, str) else given


def _fetched(weights: Weights) -> Path:
    path = Path(torch.hub.get_dir()) / "checkpoints" / weights.name
    if not path.is_file():
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with urlopen(weights.url, timeout=_TIMEOUT) as answer, part.open("wb") as file:
                shutil.copyfileobj(answer, file)
            _check(part, weights)
            part.replace(path)
        except (OSError, HTTPException) as error:
            raise ConfigError(
                f"model.pretrained: {weights.url} cannot be fetched: {type(error).__name__}: {error}. Is this machine on line? "
                f"Else fetch it on another one, and copy it to {path}, or name its path in model.pretrained.weights; without "
                "model.pretrained the network begins with random weights"
            ) from error
        finally:
            part.unlink(missing_ok=True)
    _check(path, weights)
    return path


def _check(path: Path, weights: Weights) -> None:
    digest = sha256(path)
    if not digest.startswith(weights.digest):
        raise ConfigError(
            f"model.pretrained: the SHA-256 of {path} is {digest}, expected one that begins with {weights.digest}: remove "
            f"the file, and fetch {weights.url} again"
        )


def read(path: Path) -> Arrays:
    """The tensors of a `.safetensors` file, or of one that `torch.save` wrote, by name; nothing in it is executed.

    Raises:
        ConfigError: it is neither, is damaged, or holds anything but tensors by name.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        held = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ConfigError(
            f"model.pretrained: {path} holds more than tensors, and reading it would run its code: save its state_dict alone "
            f"(torch.save(model.state_dict(), ...) or safetensors); PyTorch says: {str(error).splitlines()[0]}"
        ) from error
    except (SafetensorError, OSError, RuntimeError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ConfigError(
            f"model.pretrained: {path} cannot be read: {type(error).__name__}: {_first(error)}: expected a "
            ".safetensors file, or one of torch.save"
        ) from error
    for name in _HOLDERS:
        if isinstance(held, Mapping) and isinstance(held.get(name), Mapping):
            held = held[name]
            break
    found = {str(n): v for n, v in held.items() if isinstance(v, Tensor)} if isinstance(held, Mapping) else {}
    if not found:
        raise ConfigError(f"model.pretrained: {path} holds no tensors by name: expected a state_dict")
    return found


def _first(error: Exception) -> str:
    return (str(error).splitlines() or ["it is empty"])[0]


# ----------------------------------------------------------------------------------------------------------- fitting


def load(module: nn.Module, spec: ModelSpec, translate: Translate | None = None) -> Matched:
    """Give a network the weights of its file, in place.

    Args:
        module: the network, with its initial weights.
        spec: the job's `model`, with `pretrained`.
        translate: another library's names -> the network's.

    Raises:
        ConfigError: see `locate` and `read`; a file of another network, a shape that cannot be adapted, or weights that are
            not finite.
    """
    given, path = _spec(spec), locate(spec)
    own = module.state_dict()
    found = _named_alike(read(path), module, own, translate)
    counted = [n for n in own if not n.endswith("num_batches_tracked")]
    head, stem = _head(module), _stem(module)
    taken: Arrays = {}
    adapted, inflated, fresh = "", 0, given.head == "new"
    for name, target in own.items():
        if name not in found:
            continue
        value = found[name]
        if not bool(torch.isfinite(value).all()):
            raise ConfigError(f"model.pretrained: {path}: {name} is not finite: the file is of a run that diverged")
        if name in head and (value.shape != target.shape or given.head == "new"):
            fresh = True
            continue
        if value.dim() == 4 and target.dim() == 5:
            depth = target.shape[2]
            value = value.unsqueeze(2).repeat(1, 1, depth, 1, 1) / depth
            inflated += 1
        if name == stem and value.dim() == target.dim() and value.shape[1] != target.shape[1]:
            adapted = f"{given.stem} of {value.shape[1]} channels to {target.shape[1]}"
            value = channels_changed(value, target.shape[1], given.stem)
        if value.shape != target.shape:
            raise ConfigError(
                f"model.pretrained: {path}: {name} has the shape {tuple(value.shape)}, and the network's is "
                f"{tuple(target.shape)}: choose model.options as they were (width, stem, patch), or another file"
            )
        taken[name] = value
    if fresh:
        for name in head:
            taken.pop(name, None)
    rest = {n for n in counted if n not in head}
    share = sum(own[n].numel() for n in rest & taken.keys()) / max(sum(own[n].numel() for n in rest), 1)
    if share < _LEAST:
        raise ConfigError(
            f"model.pretrained: {path} fits {share:.0%} of model {spec.name}: it is another network's. The network has "
            f"{', '.join(list(own)[:3])}, ...; the file has {', '.join(list(found)[:3])}, ..."
        )
    module.load_state_dict({n: v.to(own[n].dtype) for n, v in taken.items()}, strict=False)
    return Matched(
        source=path.name, sha256=sha256(path), tensors=sum(n in taken for n in counted), of=len(counted), stem=adapted,
        inflated=inflated, head="from the file" if head <= taken.keys() else "new",
        missing=tuple(n for n in counted if n not in found and n not in head),
        unused=tuple(n for n in found if n not in own),
    )  # fmt: skip


def channels_changed(weight: Tensor, channels: int, how: str) -> Tensor:
    """A first convolution for another number of channels.

    Fewer channels take the mean of those that there are, more repeat them. `sum` then keeps what a filter's weights add up
    to over the channels (where one number divides the other), so that a grey picture gives what it gave when it was
    repeated for each colour; `mean` keeps their mean.

    Args:
        weight: [out, in, ...].
        channels: of the rows.
        how: `sum` or `mean`.
    """
    before = weight.shape[1]
    if channels > before:
        changed = weight.repeat(1, -(-channels // before), *[1] * (weight.dim() - 2))[:, :channels]
    else:
        changed = weight.mean(1, keepdim=True).repeat(1, channels, *[1] * (weight.dim() - 2))
    return changed * (before / channels) if how == "sum" else changed


def _named_alike(raw: Arrays, module: nn.Module, own: Mapping[str, Tensor], translate: Translate | None) -> Arrays:
    """The file's tensors, without a prefix that all share and under the network's names: whichever way most of them fit."""
    tried = []
    for prefix in _PREFIXES:
        bare = {n.removeprefix(prefix): v for n, v in raw.items() if n.startswith(prefix)}
        tried.append(bare)
        if translate is not None and bare:
            tried.append(translate(dict(bare), module))
    return max(tried, key=lambda arrays: len(arrays.keys() & own.keys()))


def _head(module: nn.Module) -> set[str]:
    """Weight and bias of the last linear layer."""
    linear = [name for name, layer in module.named_modules() if isinstance(layer, nn.Linear)]
    return {n for n in module.state_dict() if linear and n.startswith(linear[-1] + ".")}


def _stem(module: nn.Module) -> str:
    """The weight of the first convolution; "" where there is none."""
    kinds = nn.Conv1d | nn.Conv2d | nn.Conv3d
    return next((f"{name}.weight" for name, layer in module.named_modules() if isinstance(layer, kinds)), "")

"""The table of networks, and how one is built the same at every site."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from wardround import streams
from wardround.config.job import ModelSpec
from wardround.config.plugins import construct, resolve
from wardround.errors import ConfigError
from wardround.models import keras, pretrained
from wardround.models.freeze import freeze
from wardround.models.seeded import seeded
from wardround.types import ModelState

MODELS = {
    "logistic": "wardround.models.logistic:Logistic",
    "mlp": "wardround.models.mlp:MLP",
    "cnn": "wardround.models.cnn:CNN",
    "resnet18": "wardround.models.resnet:resnet18",
    "resnet50": "wardround.models.resnet:resnet50",
    "densenet121": "wardround.models.densenet:densenet121",
    "efficientnet_b0": "wardround.models.efficientnet:efficientnet_b0",
    "vit_small": "wardround.models.vit:VisionTransformer",
}


def build(
    spec: ModelSpec, shape: Sequence[int], classes: int, *, seed: int, dtype: torch.dtype, multilabel: bool = False
) -> nn.Module:
    """The network, with initial weights that depend on the seed, and on the file of `model.pretrained`, alone.

    An nn.Module that took weights from a file says so in its attribute `origin`, a `pretrained.Matched`. A plug-in's file may
    offer `translated(arrays, module)`, another library's names -> the network's.

    Args:
        spec: the job's `model`.
        shape: shape of one row's features: (n,) for a table, (channels, height, width) for a picture.
        classes: number of label classes, at least 2; two classes need a single output.
        seed: the run's seed.
        dtype: of the parameters.
        multilabel: whether each class is a label of its own, with an output of its own.

    Raises:
        ConfigError: an unknown name, options that do not fit, weights or frozen layers that the network does not have,
            or an object that is neither an nn.Module nor a Keras model
            on the torch backend, see `keras.KerasModule`.
    """
    factory = resolve(spec.name, MODELS, "model.name")
    inputs: int | tuple[int, ...] = shape[0] if len(shape) == 1 else tuple(shape)
    offered = {"inputs": inputs, "outputs": 1 if classes == 2 and not multilabel else classes}
    options: dict[str, Any] = {**{k: v for k, v in offered.items() if _accepts(factory, k)}, **spec.options}
    make = partial(construct, factory, options, f"model.options of {spec.name}")
    drawn = streams.key("model", seed) % 2**63
    with seeded(drawn):
        module = make()
    if keras.is_keras(module):
        if spec.pretrained is not None or spec.freeze:
            raise ConfigError(
                f"model.name = {spec.name!r} is a Keras model: let the function that makes it load its weights, and set "
                "trainable = False there; model.pretrained and model.freeze are for nn.Modules"
            )
        return keras.build(make, shape, seed=drawn, dtype=dtype, where=f"model.name = {spec.name!r}")
    if not isinstance(module, nn.Module):
        raise ConfigError(f"model.name = {spec.name!r}: expected an nn.Module, got {type(module).__name__}")
    if spec.pretrained is not None:
        translate = getattr(sys.modules.get(getattr(factory, "__module__", "")), "translated", None)
        module.origin = pretrained.load(module, spec, translate)  # type: ignore[assignment]
    module = module.to(dtype)
    if spec.freeze:
        freeze(module, spec.freeze, owners(module))
    return module


def _accepts(factory: Any, name: str) -> bool:
    try:
        return name in inspect.signature(factory).parameters
    except (TypeError, ValueError):
        return False


def state_of(module: nn.Module, *, copies: bool = True) -> ModelState:
    """The trainable parameters and the floating-point buffers of a module, detached.

    Args:
        module: the network.
        copies: whether the parameters are copies, or the module's own memory, which nobody may then change.
    """
    return ModelState(
        params={
            n: p.detach().clone() if copies else p.detach() for n, p in module.named_parameters() if p.requires_grad
        },
        buffers={n: b.detach().clone() for n, b in module.named_buffers() if b.is_floating_point()},
    )


def given_to(module: nn.Module) -> dict[str, Any]:
    """What a network did not learn here, for the report: `pretrained`, from a file, and `frozen`, numbers that do not train.

    Each is there only where the network has some.
    """
    origin: pretrained.Matched | None = getattr(module, "origin", None)
    frozen = sum(p.numel() for p in module.parameters() if not p.requires_grad)
    took = {"pretrained": origin.words(), "pretrained_sha256": origin.sha256} if origin is not None else {}
    return took | ({"frozen": frozen} if frozen else {})


def owners(module: nn.Module) -> dict[str, nn.Module]:
    """Which submodule owns each parameter and buffer, by full name; of a Keras model, which layer."""
    found: dict[str, nn.Module] = {}
    for prefix, child in module.named_modules():
        for name, _ in [*child.named_parameters(recurse=False), *child.named_buffers(recurse=False)]:
            found[f"{prefix}.{name}" if prefix else name] = getattr(child, "layer", child)
    return found

"""Layers that stand still: what `model.freeze` names neither trains nor travels, and is part of the module."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from wardround.config.patterns import matching
from wardround.errors import ConfigError


class FrozenBatchNorm(nn.Module):
    """BatchNorm that always uses the statistics that it was given: rows do not meet in it.

    Args:
        norm: the layer whose values it takes over; one without running statistics cannot stand still.
    """

    def __init__(self, norm: _BatchNorm) -> None:
        super().__init__()
        self.eps = norm.eps
        for name in ("weight", "bias", "running_mean", "running_var"):
            value: Tensor | None = getattr(norm, name)
            own = None if value is None else nn.Parameter(value.detach().clone(), requires_grad=False)
            self.register_parameter(name, own)

    def forward(self, x: Tensor) -> Tensor:
        """As x, [b, channels, ...]."""
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)  # type: ignore[arg-type]


def freeze(module: nn.Module, patterns: Sequence[str], owners: dict[str, nn.Module]) -> None:
    """Take what the patterns name out of training, in place.

    Args:
        module: the network.
        patterns: as for `model.local`, in order; one that begins with `!` lets go again what it names.
        owners: the submodule that owns each parameter and buffer.

    Raises:
        ConfigError: a pattern that matches nothing, or half a BatchNorm layer.
    """
    floating = {n for n, b in module.named_buffers() if b.is_floating_point()}
    names = [*(n for n, _ in module.named_parameters()), *floating]
    chosen: set[str] = set()
    for pattern in patterns:
        meant = matching(pattern.removeprefix("!"), owners, names)
        if not meant:
            raise ConfigError(f"model.freeze: {pattern!r} matches nothing; the model's names are {', '.join(names)}")
        chosen = chosen - meant if pattern.startswith("!") else chosen | meant
    for parent_name, parent in list(module.named_modules()):
        for name, child in list(parent.named_children()):
            prefix = f"{parent_name}.{name}." if parent_name else f"{name}."
            if isinstance(child, _BatchNorm) and child.running_mean is not None:
                own = {prefix + n for n, _ in [*child.named_parameters(recurse=False), *child.named_buffers()]}
                stands = chosen & own
                if stands and stands != own & set(names):
                    raise ConfigError(
                        f"model.freeze names {', '.join(sorted(stands))} and leaves the rest of {prefix[:-1]}: freeze a "
                        f"BatchNorm layer whole ({prefix[:-1]}), statistics included"
                    )
                if stands:
                    setattr(parent, name, FrozenBatchNorm(child))
    held = chosen & floating
    for name, parameter in module.named_parameters():
        held.discard(name)
        if name in chosen:
            parameter.requires_grad_(False)
    if held:
        raise ConfigError(
            f"model.freeze names the buffers {', '.join(sorted(held))}, which the model changes by itself: name its parameters "
            "alone"
        )


def frozen_of(module: nn.Module) -> dict[str, Tensor]:
    """The parameters that do not train, detached copies."""
    return {n: p.detach().clone() for n, p in module.named_parameters() if not p.requires_grad}

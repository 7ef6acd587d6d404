"""Residual networks (He et al. 2016), over pictures and volumes: MONAI's, in the form and with the names of torchvision's.

Shortcuts are projections, as torchvision's are. A network without normalisation begins with residual branches of zero, so
that its depth does not multiply the variance (Zhang et al. 2019, *Fixup initialization*, rule 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from monai.networks.nets.resnet import ResNet
from torch import nn

from wardround.errors import ConfigError
from wardround.models.norm import Norm, exchange
from wardround.models.pictures import channels_and_sides

Stem = Literal["large", "small"]


def resnet18(
    inputs: Sequence[int], outputs: int = 1, norm: Norm = "batch", width: int = 64, stem: Stem = "large"
) -> nn.Module:
    """ResNet-18: x [b, *inputs] to logits [b, outputs].

    Args:
        inputs: (channels, height, width) or (channels, depth, height, width).
        outputs: 1 for a binary label, or the number of classes.
        norm: see `norm.exchange`.
        width: channels of the first stage; each of the three others has twice as many as the one before.
        stem: `large` is a convolution of 7 with stride 2 and a pooling, for 64 pixels a side and more and for pretrained
            weights; `small` is a convolution of 3, which keeps the resolution.

    Raises:
        ConfigError: a row that is no picture or volume, or options out of range.
    """
    return _resnet("basic", [2, 2, 2, 2], inputs, outputs, norm, width, stem)


def resnet50(
    inputs: Sequence[int], outputs: int = 1, norm: Norm = "batch", width: int = 64, stem: Stem = "large"
) -> nn.Module:
    """ResNet-50, with its stride at the 3 x 3 convolution; arguments and errors as for `resnet18`."""
    return _resnet("bottleneck", [3, 4, 6, 3], inputs, outputs, norm, width, stem)


def _resnet(
    block: str, layers: list[int], inputs: Sequence[int], outputs: int, norm: Norm, width: int, stem: Stem
) -> nn.Module:
    channels, sides = channels_and_sides(inputs, "resnet", smallest=8)
    if width < 1:
        raise ConfigError(f"model.options.width = {width}: expected at least 1")
    if stem not in ("large", "small"):
        raise ConfigError(f"model.options.stem = {stem!r}: expected large or small")
    large = stem == "large"
    network = ResNet(
        block, layers, [width, 2 * width, 4 * width, 8 * width], spatial_dims=len(sides), n_input_channels=channels,
        conv1_t_size=7 if large else 3, conv1_t_stride=2 if large else 1, no_max_pool=not large, num_classes=outputs,
        bias_downsample=False,
    )  # fmt: skip
    if norm == "none":
        last = "conv2" if block == "basic" else "conv3"
        for name, parameter in network.named_parameters():
            if name.startswith("layer") and name.endswith(f"{last}.weight"):
                nn.init.zeros_(parameter)
    return exchange(network, norm)

"""DenseNet-121 (Huang et al. 2017), over pictures and volumes: MONAI's."""

from __future__ import annotations

import re
from collections.abc import Sequence

from monai.networks.nets.densenet import DenseNet
from torch import nn

from wardround.models.norm import Norm, exchange
from wardround.models.pictures import channels_and_sides
from wardround.types import Arrays

_LAYER = re.compile(r"(denselayer\d+)\.(norm|conv)\.?([12])\.")


def densenet121(
    inputs: Sequence[int], outputs: int = 1, norm: Norm = "batch", width: int = 64, growth: int = 32,
    blocks: Sequence[int] = (6, 12, 24, 16), dropout: float = 0.0,
) -> nn.Module:  # fmt: skip
    """DenseNet: x [b, *inputs] to logits [b, outputs].

    Args:
        inputs: (channels, height, width) or (channels, depth, height, width), each side at least 29.
        outputs: 1 for a binary label, or the number of classes.
        norm: see `norm.exchange`.
        width: channels of the stem.
        growth: channels that each layer adds.
        blocks: layers of each dense block.
        dropout: fraction dropped after each layer.

    Raises:
        ConfigError: a row that is no such picture or volume, or another norm.
    """
    channels, sides = channels_and_sides(inputs, "densenet121", smallest=29)
    network = DenseNet(
        len(sides), channels, outputs, init_features=width, growth_rate=growth, block_config=tuple(blocks),
        dropout_prob=dropout,
    )  # fmt: skip
    return exchange(network, norm)


def translated(arrays: Arrays, _module: nn.Module) -> Arrays:
    """A checkpoint of torchvision's DenseNet under the names of this one."""
    return {
        _LAYER.sub(r"\1.layers.\2\3.", re.sub(r"^classifier\.", "class_layers.out.", name)): value
        for name, value in arrays.items()
    }

"""EfficientNet-B0 (Tan & Le 2019), over pictures and volumes: MONAI's."""

from __future__ import annotations

import re
from collections.abc import Sequence

from monai.networks.blocks.activation import MemoryEfficientSwish, Swish
from monai.networks.nets.efficientnet import EfficientNet
from torch import nn

from wardround.models.norm import Norm, exchange
from wardround.models.pictures import channels_and_sides
from wardround.types import Arrays

_BLOCKS = [
    "r1_k3_s11_e1_i32_o16_se0.25",
    "r2_k3_s22_e6_i16_o24_se0.25",
    "r2_k5_s22_e6_i24_o40_se0.25",
    "r3_k3_s22_e6_i40_o80_se0.25",
    "r3_k5_s11_e6_i80_o112_se0.25",
    "r4_k5_s22_e6_i112_o192_se0.25",
    "r1_k3_s11_e6_i192_o320_se0.25",
]
"""Table 1 of the paper: repeats, kernel, stride, expansion, channels in and out, squeeze."""
_STACK = re.compile(r"^(_blocks)\.\d+(\.\d+\.)")


def efficientnet_b0(
    inputs: Sequence[int], outputs: int = 1, norm: Norm = "batch", width: float = 1.0, depth: float = 1.0,
    dropout: float = 0.2, drop_connect: float = 0.2,
) -> nn.Module:  # fmt: skip
    """EfficientNet: x [b, *inputs] to logits [b, outputs].

    Args:
        inputs: (channels, height, width) or (channels, depth, height, width).
        outputs: 1 for a binary label, or the number of classes.
        norm: see `norm.exchange`.
        width, depth: multiples of the channels and of the repeats of B0.
        dropout: fraction dropped before the head.
        drop_connect: fraction of rows whose last residual branch is dropped; less in earlier ones. With neither of both the
            network draws no random numbers, and sites can be stacked.

    Raises:
        ConfigError: a row that is no picture or volume, or another norm.
    """
    channels, sides = channels_and_sides(inputs, "efficientnet_b0", smallest=8)
    network = EfficientNet(
        list(_BLOCKS), spatial_dims=len(sides), in_channels=channels, num_classes=outputs, width_coefficient=width,
        depth_coefficient=depth, dropout_rate=dropout, image_size=max(sides), drop_connect_rate=drop_connect,
    )  # fmt: skip
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            # one kernel, which vmap knows, instead of a function of its own backward
            if isinstance(child, MemoryEfficientSwish | Swish):
                setattr(parent, name, nn.SiLU())
            elif isinstance(child, nn.Dropout) and not child.p:
                setattr(parent, name, nn.Identity())
    return exchange(network, norm)


def translated(arrays: Arrays, module: nn.Module) -> Arrays:
    """A checkpoint of EfficientNet-PyTorch, whose blocks are one list, under the names of this one, where they are stacks."""
    own = {_STACK.sub(r"\1\2", name): name for name in module.state_dict()}
    return {own.get(name, name): value for name, value in arrays.items()}

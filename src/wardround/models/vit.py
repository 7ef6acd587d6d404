"""ViT-small (Dosovitskiy et al. 2021; its size after Touvron et al. 2021), over pictures and volumes: MONAI's."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import cast

from monai.networks.nets.vit import ViT
from torch import Tensor, nn
from torch.nn import functional as F

from wardround.errors import ConfigError
from wardround.models.pictures import channels_and_sides
from wardround.types import Arrays

_NAMES = (
    (r"^patch_embed\.proj\.", "patch_embedding.patch_embeddings."),
    (r"\.attn\.proj\.", ".attn.out_proj."),
    (r"\.mlp\.fc([12])\.", r".mlp.linear\1."),
    (r"^head\.", "classification_head."),
)
_POSITIONS = "patch_embedding.position_embeddings"


class VisionTransformer(ViT):
    """Maps x [b, *inputs] to logits [b, outputs].

    Args:
        inputs: (channels, height, width) or (channels, depth, height, width), each side at least a patch; what is left over
            beside whole patches is not looked at.
        outputs: 1 for a binary label, or the number of classes.
        patch: pixels of a patch's side.
        width, depth, heads: numbers of a token, blocks, and heads of each, which divide the width.
        dropout: fraction dropped in embedding, attention and perceptrons.

    Raises:
        ConfigError: rows or options that do not fit each other.
    """

    def __init__(
        self, inputs: Sequence[int], outputs: int = 1, patch: int = 16, width: int = 384, depth: int = 12, heads: int = 6,
        dropout: float = 0.0,
    ) -> None:  # fmt: skip
        channels, sides = channels_and_sides(inputs, "vit_small", smallest=patch)
        if width % heads:
            raise ConfigError(f"model.options.width = {width} with heads = {heads}: expected a multiple")
        super().__init__(
            channels, sides, patch, hidden_size=width, mlp_dim=4 * width, num_layers=depth, num_heads=heads,
            classification=True, num_classes=outputs, dropout_rate=dropout, spatial_dims=len(sides), post_activation="",
            qkv_bias=True,
        )  # fmt: skip
        self.grid = tuple(side // patch for side in sides)
        for module in self.modules():
            if isinstance(module, nn.LayerNorm):
                module.eps = 1e-6  # as where the weights come from
        for block in self.blocks:
            block.norm_cross_attn = nn.Identity()  # never used, and its parameters would travel
        nn.init.trunc_normal_(self.cls_token, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [b, outputs] of x [b, *inputs]."""
        logits: Tensor = super().forward(x)[0]  # type: ignore[no-untyped-call]
        return logits


def translated(arrays: Arrays, module: nn.Module) -> Arrays:
    """A checkpoint of timm's or DeiT's vision transformer under the names of this one.

    Positions of pictures are resampled to the grid of the module; the class token takes its own position's vector with it.
    """
    found = {}
    for name, value in arrays.items():
        for pattern, own in _NAMES:
            name = re.sub(pattern, own, name)  # noqa: PLW2901
        found[name] = value
    positions = found.pop("pos_embed", None)
    if positions is None or "cls_token" not in found:
        return found
    found["cls_token"] = found["cls_token"] + positions[:, :1]
    side, grid = math.isqrt(positions.shape[1] - 1), cast("tuple[int, ...]", module.grid)
    if len(grid) == 2 and side**2 == positions.shape[1] - 1:
        square = positions[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
        if (side, side) != grid:
            square = F.interpolate(square.float(), grid, mode="bicubic", antialias=True).to(positions.dtype)
        found[_POSITIONS] = square.flatten(2).transpose(1, 2)
    return found

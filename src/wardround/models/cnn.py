"""A small convolutional network, for small pictures and volumes and for the tests of the executors."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from wardround.models.norm import Norm, exchange
from wardround.models.pictures import channels_and_sides


class CNN(nn.Module):
    """Maps x [b, channels, *sides] to logits [b, outputs]: two blocks of convolution, normalisation, ReLU, pooling.

    Args:
        inputs: (channels, height, width) or (channels, depth, height, width), each side at least 4.
        outputs: 1 for a binary label, or the number of classes.
        width: channels of the first block; the second has twice as many.
        norm: `batch`, `group` or `none`, see `norm.exchange`.

    Raises:
        ConfigError: a row that is no picture or volume, or another norm.
    """

    def __init__(self, inputs: Sequence[int], outputs: int = 1, width: int = 8, norm: Norm = "batch") -> None:
        super().__init__()
        channels, sides = channels_and_sides(inputs, "cnn", smallest=4)
        flat = len(sides) == 2
        convolution, normal = (nn.Conv2d, nn.BatchNorm2d) if flat else (nn.Conv3d, nn.BatchNorm3d)
        self._flat = flat
        self.conv1 = convolution(channels, width, 3, padding=1)
        self.norm1 = normal(width)
        self.conv2 = convolution(width, 2 * width, 3, padding=1)
        self.norm2 = normal(2 * width)
        cells = 1
        for side in sides:
            cells *= side // 4
        self.head = nn.Linear(2 * width * cells, outputs)
        exchange(self, norm)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [b, outputs] of x [b, channels, *sides]."""
        pool = F.max_pool2d if self._flat else F.max_pool3d
        x = pool(F.relu(self.norm1(self.conv1(x))), 2)
        x = pool(F.relu(self.norm2(self.conv2(x))), 2)
        logits: Tensor = self.head(x.flatten(1))
        return logits

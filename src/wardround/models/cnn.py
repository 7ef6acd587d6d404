"""A small convolutional network with batch normalisation, for small pictures and for the tests of the executors."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from wardround.errors import ConfigError


class CNN(nn.Module):
    """Maps x [b, channels, height, width] to logits [b, outputs]: two blocks of convolution, BatchNorm, ReLU, pooling.

    Args:
        inputs: (channels, height, width), each side at least 4.
        outputs: 1 for a binary label, or the number of classes.
        width: channels of the first block; the second has twice as many.
    """

    def __init__(self, inputs: Sequence[int], outputs: int = 1, width: int = 8) -> None:
        super().__init__()
        if isinstance(inputs, int) or len(inputs) != 3 or min(inputs[1:]) < 4:
            raise ConfigError(
                f"model cnn: inputs = {inputs!r}: expected (channels, height, width) of at least 4 x 4 pixels"
            )
        channels, height, breadth = inputs
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, 2 * width, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(2 * width)
        self.head = nn.Linear(2 * width * (height // 4) * (breadth // 4), outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [b, outputs] of x [b, channels, height, width]."""
        x = F.max_pool2d(F.relu(self.norm1(self.conv1(x))), 2)
        x = F.max_pool2d(F.relu(self.norm2(self.conv2(x))), 2)
        logits: Tensor = self.head(x.flatten(1))
        return logits

"""What the networks for pictures and volumes ask of a row's shape."""

from __future__ import annotations

from collections.abc import Sequence

from wardround.errors import ConfigError


def channels_and_sides(inputs: Sequence[int], name: str, *, smallest: int = 1) -> tuple[int, tuple[int, ...]]:
    """Channels, and the two sides of a picture or the three of a volume.

    Args:
        inputs: shape of a row: (channels, height, width) or (channels, depth, height, width).
        name: what messages call the network.
        smallest: fewest pixels or voxels a side.

    Raises:
        ConfigError: a row of another shape.
    """
    if isinstance(inputs, int) or len(inputs) not in (3, 4) or min(inputs[1:]) < smallest or inputs[0] < 1:
        raise ConfigError(
            f"model {name}: inputs = {inputs!r}: expected (channels, height, width) or (channels, depth, height, width), "
            f"of at least {smallest} pixels a side"
        )
    return inputs[0], tuple(inputs[1:])

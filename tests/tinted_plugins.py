"""Pictures and volumes whose channels differ in brightness, and more so between hospitals."""

from __future__ import annotations

import numpy as np

from wardround.types import Description, SiteData


class Tinted:
    """Four hospitals of unequal size; the ill are brighter in the last channel, and the first is the same in every pixel.

    Args:
        volumes: [3, 4, 6, 6] in floating point, instead of [3, 8, 8] in bytes.
    """

    counts = (13, 40, 27, 52)

    def __init__(self, volumes: bool = False) -> None:
        self.volumes, self.shape = volumes, (3, 4, 6, 6) if volumes else (3, 8, 8)

    def describe(self) -> Description:
        return Description(
            name="tinted",
            title="Tinted pictures",
            source="drawn",
            licence="none",
            sites=tuple(f"hospital-{k}" for k in range(len(self.counts))),
            shape=self.shape,
            natural=True,
            scale=None if self.volumes else (0.0, 255.0),
        )

    def load(self, site: str) -> SiteData:
        place = int(site[-1])
        random, rows = np.random.default_rng([3, place]), self.counts[place]
        ill = random.random(rows) < 0.5
        levels = np.array([90.0, 60.0 + 15 * place, 120.0 - 20 * place]).reshape(3, *[1] * (len(self.shape) - 1))
        pixels = levels + random.normal(size=(rows, *self.shape)) * (8.0 + 5 * place)
        pixels[:, 2] += 15.0 * ill.reshape(-1, *[1] * (len(self.shape) - 1))
        pixels[:, 0] = 90.0
        return SiteData(
            features=pixels.astype(np.float32) if self.volumes else pixels.clip(0, 255).astype(np.uint8),
            labels=ill.astype(np.int64),
            patients=np.arange(rows),
        )

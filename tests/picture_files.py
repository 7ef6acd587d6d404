"""Pictures of noise, for tiny collections in official layouts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


class Painter:
    """Writes pictures of noise; equal for an equal `key`."""

    def __init__(self, size: tuple[int, int] = (24, 16), seed: int = 0) -> None:
        self._size = size
        self._rng = np.random.default_rng(seed)

    def __call__(self, path: Path, key: int | None = None) -> None:
        """Write one, of `size` (width, height), making its folder."""
        path.parent.mkdir(parents=True, exist_ok=True)
        rng = self._rng if key is None else np.random.default_rng(10_000 + key)
        width, height = self._size
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)

"""What augmentation costs: rounds of the small CNN on pictures of 64 pixels in memory, with each preset and without, in turn.

The speed is that of the same steps on the same tensor: the share of it that is left.
"""

from __future__ import annotations

import statistics
import sys
import time
from itertools import cycle, islice
from typing import Any

from benchmarks.fresh import call
from benchmarks.tables import figure, spread, table

PRESETS = ("xray", "ct", "mri", "ultrasound", "dermoscopy", "photo")
HEADER = ("preset", "pictures", "ms a step", "ms a step without", "speed that is left")
_BATCH = 32
_SIDE = 64


def section(repeats: int, quick: bool) -> str:
    """The table."""
    lines = []
    for preset in PRESETS:
        print(f"  augmentation of {preset}", file=sys.stderr, flush=True)
        channels = 3 if preset in ("dermoscopy", "photo") else 1
        found = call(
            "benchmarks.augment:measure", preset=preset, channels=channels, repeats=2 if quick else 6 * repeats
        )
        ratios = [plain / augmented for plain, augmented in zip(found["plain"], found["augmented"], strict=True)]
        own, bare = (statistics.median(found[name]) * 1e3 for name in ("augmented", "plain"))
        lines.append([preset, f"{channels} x {_SIDE} x {_SIDE}", figure(own), figure(bare), spread(ratios)])
    return table(HEADER, lines)


def measure(preset: str, channels: int, repeats: int) -> dict[str, Any]:
    """Seconds a step with the preset and without, a number a repeat, in one process of one thread."""
    import numpy as np
    import torch

    from wardround import streams
    from wardround.algorithms.fedavg import FedAvg
    from wardround.config.job import OptimizerSpec
    from wardround.models.cnn import CNN
    from wardround.models.registry import state_of
    from wardround.training import augment
    from wardround.training.executors import Sequential
    from wardround.training.probe import probe
    from wardround.training.recipe import PLAIN, Recipe
    from wardround.types import Round, Rows, Server, Work

    torch.set_num_threads(1)
    torch.manual_seed(0)
    steps, shape = 8, (channels, _SIDE, _SIDE)
    count = np.array([steps * _BATCH])
    data = Rows(
        features=torch.rand(int(count[0]), *shape),
        labels=torch.randint(0, 2, (int(count[0]),)),
        start=np.zeros(1, dtype=np.int64),
        count=count,
        keys=streams.site_keys(("hospital",)),
    )
    module = CNN(shape)
    found, server, rule = probe(module, shape), Server(model=state_of(module)), FedAvg()
    recipes = {"plain": PLAIN, "augmented": Recipe(augment=augment.build(preset, shape))}
    executors = {name: Sequential(module, OptimizerSpec(), found, recipe=recipe) for name, recipe in recipes.items()}
    seconds: dict[str, list[float]] = {name: [] for name in executors}
    for number, name in enumerate(islice(cycle(executors), 2 * (repeats + 1))):
        work = Work(epochs=1, steps=None, batch_size=_BATCH, learning_rate=0.01)
        round = Round(index=number // 2, population=1, cohort=1, work=work, seed=0, max_weight=1024.0)
        start = time.process_time()
        executors[name].train(rule, server, {}, data, round)
        if number >= 2:
            seconds[name].append((time.process_time() - start) / steps)
    return seconds

"""Write the file of a workload's steps, with the product's own batches and first weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.bare import initial, plans
from benchmarks.peers.steps import Steps
from benchmarks.product import ANY_MODULE, job_for
from benchmarks.workloads import Workload, draw, workload
from wardround.training.schedule import Plan


def write(given: Mapping[str, Any], path: str, dtype: str = "float32") -> None:
    """`given`: arguments of `workload`; its sites must be of equal size."""
    chosen = workload(**given)
    job = job_for(chosen, ANY_MODULE, dtype=dtype)
    features, labels = draw(chosen)
    shape = (chosen.sites, chosen.rows)
    Steps(
        workload=chosen.name,
        network=chosen.network,
        batch=chosen.batch,
        learning_rate=chosen.learning_rate,
        features=features.reshape(*shape, *chosen.shape).astype(dtype),
        labels=labels.reshape(shape),
        order=np.stack([_order(drawn, chosen) for drawn in plans(chosen, job.seed)]),
        first={name: value.detach().numpy() for name, value in initial(chosen, job).named_parameters()},
    ).save(Path(path))


def _order(drawn: Plan, workload: Workload) -> np.ndarray[Any, Any]:
    """[K, n]: the batches of each site, one after another without their padding."""
    padded = drawn.rows.transpose(1, 0, 2).reshape(workload.sites, -1)
    return padded[:, : workload.rows]

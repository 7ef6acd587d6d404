"""wardround: hospitals train a diagnostic model together while no patient record leaves any of them.

from wardround import Job, load, run
result = run(load("examples/heart.yaml"), "runs/heart")
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Before PyTorch is imported: on a busy machine, GNU OpenMP's threads wait for each other by spinning for so long that a step
# of a small model takes thirty times its time. This is a thirtieth of its default, and on an idle machine as fast.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

if TYPE_CHECKING:
    from wardround.comparison.study import compare
    from wardround.config import Job, load
    from wardround.experiment import run
    from wardround.prediction import predict

_WHERE = {
    "Job": "wardround.config",
    "load": "wardround.config",
    "run": "wardround.experiment",
    "compare": "wardround.comparison.study",
    "predict": "wardround.prediction",
}

__all__ = ["Job", "__version__", "compare", "load", "predict", "run"]


def __getattr__(name: str) -> Any:
    # late, so that `wardround --help` does not wait for torch
    if name in _WHERE:
        from importlib import import_module

        return getattr(import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'wardround' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)

"""What Keras keeps for the whole process, set for as long as a model of ours is made or run, and put back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from wardround.models.seeded import seeded


@contextmanager
def plain() -> Iterator[None]:
    """Errors as they are raised: Keras would wrap them in pages of arguments."""
    import keras

    filtered = keras.config.is_traceback_filtering_enabled()
    keras.config.disable_traceback_filtering()
    try:
        yield
    finally:
        if filtered:
            keras.config.enable_traceback_filtering()


@contextmanager
def precise(dtype: torch.dtype) -> Iterator[None]:
    """Float64 stays float64: on this backend Keras rounds it to float32 in most operations (keras-team/keras#23704)."""
    try:
        from keras.src.backend.common import dtypes
    except ImportError:
        yield
        return
    table: dict[str, str] = getattr(dtypes, "BIT64_TO_BIT32_DTYPE", {})
    if dtype != torch.float64 or "float64" not in table:
        yield
        return
    before = table["float64"]
    table["float64"] = "float64"
    try:
        yield
    finally:
        table["float64"] = before


@contextmanager
def afresh(seed: int, dtype: str) -> Iterator[None]:
    """Keras as in a new process: its precision, its device, and the generators that its initialisers ask for seeds."""
    import keras

    floatx, policy = keras.config.floatx(), keras.config.dtype_policy()
    try:
        with seeded(seed), keras.device("cpu"), plain():
            keras.config.set_floatx(dtype)
            keras.config.set_dtype_policy(dtype)
            yield
    finally:
        keras.config.set_floatx(floatx)
        keras.config.set_dtype_policy(policy)

"""A trained model on new rows: the shared part, a site's overlay or the mean of all, and their preprocessing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import numpy as np
import torch
from numpy.typing import NDArray
from torch.func import functional_call

from wardround import wire
from wardround.config.job import Job
from wardround.data.preprocess import Preprocessing
from wardround.data.table import read_rows
from wardround.errors import DataError, MessageError, RunError
from wardround.models import registry as models
from wardround.training.loss import positive_probability
from wardround.types import Arrays


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """A model that is ready to score rows.

    Attributes:
        job: the run that made it.
        classes: class names in label order.
        threshold: a row is called positive from this probability on; chosen on validation rows.
        preprocessing: None for data that need none.
        site: whose overlay is used; "" for the shared model, or the mean overlay for a stranger.
        personalized: whether sites have parts of their own.
    """

    job: Job
    classes: tuple[str, ...]
    threshold: float
    preprocessing: Preprocessing | None
    site: str
    personalized: bool
    module: torch.nn.Module
    arrays: Arrays

    def probabilities(self, features: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Probability of the positive class, float64 [n], of raw rows [n, columns] (NaN where missing) or [n, *shape]."""
        ready = self.preprocessing.transform(features) if self.preprocessing else features
        dtype = torch.float64 if self.job.training.dtype == "float64" else torch.float32
        self.module.eval()
        with torch.no_grad():
            rows = torch.from_numpy(np.ascontiguousarray(ready)).to(dtype)
            logits = functional_call(self.module, self.arrays, (rows,))
        return np.asarray(positive_probability(logits).numpy(), dtype=np.float64)


def load_predictor(path: Path | str, *, site: str | None = None) -> Predictor:
    """The model of a run.

    Args:
        path: a run folder, or a `model.safetensors` in one.
        site: a hospital of the run, to score with its own part of a personalised model; None is a stranger.

    Raises:
        RunError: no model there, or a damaged one.
        DataError: a site that the run does not have, or a site where the run is not personalised.
    """
    path = Path(path)
    file = path / "model.safetensors" if path.is_dir() else path
    arrays, meta = _read(file)
    try:
        job = Job.model_validate_json(meta["job"])
        shape, classes = json.loads(meta["shape"]), tuple(json.loads(meta["classes"]))
        stored = json.loads(meta["preprocessing"])
        personalized = bool(json.loads(meta["personalized"]))
        threshold = float(meta["threshold"])
    except (KeyError, ValueError) as error:
        raise RunError(
            f"{file} is not a model that this version of wardround wrote ({type(error).__name__}: {error}): give the folder "
            "of a finished run, or its model.safetensors"
        ) from error
    overlay = _overlay(file.parent, site, personalized)
    if overlay is not None:
        extra, own = overlay
        arrays = {**arrays, **extra}
        stored = json.loads(own["preprocessing"]) or stored
    dtype = torch.float64 if job.training.dtype == "float64" else torch.float32
    module = models.build(job.model, shape, len(classes), seed=job.seed, dtype=dtype)
    needed = models.state_of(module)
    absent = [n for n in [*needed.params, *needed.buffers] if n not in arrays]
    if absent:
        raise RunError(
            f"{file}: it has no {', '.join(absent[:5])}: the file is incomplete, or the model's code has changed"
        )
    return Predictor(
        job=job,
        classes=classes,
        threshold=threshold,
        preprocessing=Preprocessing.from_json(stored) if stored is not None else None,
        site=site or "",
        personalized=personalized,
        module=module,
        arrays=arrays,
    )


def predict(path: Path | str, rows: Path | str, *, site: str | None = None) -> list[dict[str, Any]]:
    """Score a CSV file of raw rows.

    Args:
        path: a run folder.
        rows: a CSV with a header that has at least the dataset's columns.
        site: see `load_predictor`.

    Returns:
        One mapping a row: `row` (1-based), `probability` of the positive class, `prediction` (a class name).
    """
    predictor = load_predictor(path, site=site)
    if predictor.preprocessing is None:
        raise DataError(f"{path}: this model takes arrays, not a table; a CSV file cannot be scored with it")
    features, _ = read_rows(Path(rows), predictor.preprocessing.columns)
    return [
        {
            "row": number,
            "probability": float(probability),
            "prediction": predictor.classes[int(probability >= predictor.threshold)],
        }
        for number, probability in enumerate(predictor.probabilities(features), start=1)
    ]


def _read(file: Path) -> tuple[Arrays, dict[str, str]]:
    try:
        arrays, meta = wire.unpack(file.read_bytes())
    except FileNotFoundError as error:
        raise RunError(f"no model at {file}: is the run finished? `wardround resume {file.parent}` goes on") from error
    except (OSError, MessageError) as error:
        raise RunError(f"{file}: the model cannot be read: {error}") from error
    return arrays, meta


def _overlay(folder: Path, site: str | None, personalized: bool) -> tuple[Arrays, dict[str, str]] | None:
    if not personalized:
        if site is not None:
            raise DataError(f"site {site!r}: the run in {folder} made one model for all sites: score without a site")
        return None
    if site is None:
        average = folder / "overlay-average.safetensors"
        return _read(average) if average.exists() else None
    file = folder / "overlays" / f"{quote(site, safe='')}.safetensors"
    if not file.exists():
        known: Sequence[str] = sorted(unquote(p.stem) for p in (folder / "overlays").glob("*.safetensors"))
        raise DataError(f"site {site!r} has no overlay in {folder}: this run's sites are {', '.join(known)}")
    return _read(file)

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
from wardround.data.standardize import Fitted, Standardization, fitted_from_json
from wardround.data.tables.encode import encode, open_as
from wardround.data.tables.schema import Schema
from wardround.errors import DataError, MessageError, RunError
from wardround.models import registry as models
from wardround.models.freeze import frozen_of
from wardround.training.label_tables import cuts
from wardround.training.loss import scores
from wardround.training.pictures import Standard, scaled
from wardround.training.tables import Cut, single
from wardround.types import Arrays


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """A model that is ready to score rows.

    Attributes:
        job: the run that made it.
        classes: class names in label order.
        threshold: a row is called positive from this probability on; chosen on validation rows. Of two classes, or of labels:
            one for all of them, or one each.
        multilabel: whether a row may have several of `classes`, or none.
        preprocessing: of a table's columns, or of a picture's channels; None for data that need none.
        schema: how a raw table is read; None for data that are no table.
        scale: (low, high) of stored pixels, which become 0 and 1; None takes features as they are.
        site: whose overlay is used; "" for the shared model, or the mean overlay for a stranger.
        personalized: whether sites have parts of their own.
    """

    job: Job
    classes: tuple[str, ...]
    threshold: Cut
    multilabel: bool
    preprocessing: Fitted | None
    schema: Schema | None
    scale: tuple[float, float] | None
    site: str
    personalized: bool
    module: torch.nn.Module
    arrays: Arrays

    def probabilities(self, features: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Probability of the positive class, float64 [n], or of each of more than two and of each label, [n, classes].

        Args:
            features: raw rows, [n, columns] (NaN where missing) or [n, *shape].
        """
        fitted = self.preprocessing
        ready = fitted.transform(features) if isinstance(fitted, Preprocessing) else features
        dtype = torch.float64 if self.job.training.dtype == "float64" else torch.float32
        self.module.eval()
        with torch.no_grad():
            rows = scaled(torch.from_numpy(np.ascontiguousarray(ready)).to(dtype), self.scale)
            if isinstance(fitted, Standardization):
                standard = Standard(mean=np.array([fitted.mean]), scale=np.array([fitted.scale]))
                rows = standard(rows, np.arange(len(rows)))
            logits = functional_call(self.module, self.arrays, (rows,))
        return np.asarray(scores(logits, labelled=self.multilabel).numpy(), dtype=np.float64)


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
        threshold, multilabel = _cut(meta["threshold"]), bool(json.loads(meta.get("multilabel", "false")))
        scale = json.loads(meta.get("scale", "null"))
        own_schema = meta.get("schema", "")
        schema = Schema.model_validate_json(own_schema) if own_schema else None
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
        threshold = _cut(own["threshold"]) if "threshold" in own else threshold
    dtype = torch.float64 if job.training.dtype == "float64" else torch.float32
    # what it began with is in the file, or was learnt over
    plain = job.model.model_copy(update={"pretrained": None})
    module = models.build(plain, shape, len(classes), seed=job.seed, dtype=dtype, multilabel=multilabel)
    needed = models.state_of(module)
    absent = [n for n in [*needed.params, *needed.buffers, *frozen_of(module)] if n not in arrays]
    if absent:
        raise RunError(
            f"{file}: it has no {', '.join(absent[:5])}: the file is incomplete, or the model's code has changed"
        )
    preprocessing = fitted_from_json(stored) if stored is not None else None
    if schema is None and isinstance(preprocessing, Preprocessing):
        schema = Schema.of_columns(preprocessing.columns)
    return Predictor(
        job=job,
        classes=classes,
        threshold=threshold,
        multilabel=multilabel,
        preprocessing=preprocessing,
        schema=schema,
        scale=(scale[0], scale[1]) if scale else None,
        site=site or "",
        personalized=personalized,
        module=module,
        arrays=arrays,
    )


def predict(path: Path | str, rows: Path | str, *, site: str | None = None) -> list[dict[str, Any]]:
    """Score a table of raw rows, read in the way that the run read its own.

    Args:
        path: a run folder.
        rows: CSV, TSV, Parquet or ARFF, also packed with gzip, that has at least the dataset's feature columns.
        site: see `load_predictor`.

    Returns:
        One mapping a row: `row` (1-based), `probability` of the positive class, `prediction` (a class name). Of more than
        two classes, `probability` is that of the predicted one, and `probability of <class>` stands for each. Where rows may
        have several labels, `prediction` joins those called with `|` (empty: none), and `probability of <label>` stands for
        each.
    """
    predictor = load_predictor(path, site=site)
    if predictor.schema is None:
        raise DataError(f"{path}: this model takes arrays, not a table; {rows} cannot be scored with it")
    parts = encode(open_as(rows, predictor.schema), predictor.schema, labelled=False)
    none = np.empty((0, len(predictor.schema.features)))
    likely = predictor.probabilities(np.concatenate([none, *(part.features for part in parts)]))
    classes = predictor.classes
    if predictor.multilabel:
        called = likely >= cuts(predictor.threshold, len(classes))
        return [
            {"row": number, "prediction": "|".join(name for name, yes in zip(classes, own, strict=True) if yes)}
            | {f"probability of {name}": float(p) for name, p in zip(classes, each, strict=True)}
            for number, (each, own) in enumerate(zip(likely, called, strict=True), start=1)
        ]
    if likely.ndim == 1:
        cut = single(predictor.threshold)
        return [
            {"row": number, "probability": float(p), "prediction": classes[int(p >= cut)]}
            for number, p in enumerate(likely, start=1)
        ]
    return [
        {"row": number, "probability": float(each.max()), "prediction": classes[int(each.argmax())]}
        | {f"probability of {name}": float(p) for name, p in zip(classes, each, strict=True)}
        for number, each in enumerate(likely, start=1)
    ]


def _cut(text: str) -> Cut:
    value = json.loads(text)
    return tuple(map(float, value)) if isinstance(value, list) else float(value)


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
    # a fine-tuned run has both, and what came out of the fine-tuning holds what stayed at the site before it
    folders = (folder / "finetuned" / "overlays", folder / "overlays")
    overlays = next((path for path in folders if path.exists()), folders[-1])
    file = overlays / f"{quote(site, safe='')}.safetensors"
    if not file.exists():
        known: Sequence[str] = sorted(unquote(p.stem) for p in overlays.glob("*.safetensors"))
        raise DataError(f"site {site!r} has no overlay in {folder}: this run's sites are {', '.join(known)}")
    return _read(file)

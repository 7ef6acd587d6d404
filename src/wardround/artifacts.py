"""The model as files: the shared part with all that scoring a row needs, and what stays at each site."""

from __future__ import annotations

import json
from urllib.parse import quote

from wardround import __version__
from wardround.config.job import Job
from wardround.data.preprocess import Preprocessing
from wardround.federation.rounds import Outcome
from wardround.federation.site import Host
from wardround.judgement import Arm
from wardround.models.freeze import frozen_of
from wardround.store.run import Run
from wardround.training.tables import Cut
from wardround.types import LOCAL, Description


def save_overlays(folder: Run, host: Host, outcome: Outcome, threshold: Cut) -> None:
    """What stays at each site at the selected round, its own preprocessing included, and their mean for a stranger."""
    local = outcome.network.local
    if not (local or host.own):
        return
    for site in host.records.sites:
        states = host.states.read((site,), host.network.initial_state) if local else {}
        arrays = {n.removeprefix(LOCAL): v[0].cpu() for n, v in states.items() if n.startswith(LOCAL)}
        own = host.own.get(site)
        stored = json.dumps(own.to_json() if own else None)
        metadata = {"site": site, "preprocessing": stored, "threshold": json.dumps(threshold)}
        folder.write_tensors(f"overlays/{quote(site, safe='')}.safetensors", arrays, metadata)
    save_average(folder, outcome, threshold)


def save_average(folder: Run, outcome: Outcome, threshold: Cut) -> None:
    """The mean of what stays at the sites, for a stranger; nothing where nothing stays."""
    if outcome.overlay:
        metadata = {"site": "", "preprocessing": "null", "threshold": json.dumps(threshold)}
        folder.write_tensors("overlay-average.safetensors", outcome.overlay, metadata)


def save_model(folder: Run, job: Job, description: Description, arm: Arm) -> None:
    """One file with the selected round's shared part and what never trained; its header has all else that scoring needs."""
    outcome, fitted = arm.outcome, arm.outcome.preprocessing
    stored = fitted.to_json() if fitted else None
    metadata = {
        "format": "wardround-model-1",
        "wardround": __version__,
        "run": folder.id,
        "job": job.model_dump_json(),
        "preprocessing": json.dumps(stored),
        "schema": description.schema,
        "classes": json.dumps(list(description.classes)),
        "shape": json.dumps([len(fitted.names)] if isinstance(fitted, Preprocessing) else list(description.shape)),
        "scale": json.dumps(description.scale),
        "threshold": json.dumps(arm.threshold),
        "multilabel": json.dumps(description.multilabel),
        "selected_round": str(outcome.selected),
        "personalized": json.dumps(arm.personalized or job.finetuning.epochs > 0),
    }
    model, frozen = outcome.server.model, frozen_of(outcome.network.module)
    folder.write_tensors("model.safetensors", {**frozen, **model.params, **model.buffers}, metadata)

"""One experiment, whole: a federation, its baselines, the figures that compare them, the model, the page.

    from wardround import Job, run
    result = run(Job(name="demo"), "runs/demo")

Baselines are not code: 'centralised' is the same loop with the sites merged into one, 'local' the same loop with every name
of the model staying at its site.
"""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import torch

from wardround import __version__
from wardround.aggregation import registry as aggregation
from wardround.algorithms import registry as algorithms
from wardround.channels import registry as channels
from wardround.config.job import Job
from wardround.config.plugins import construct, resolve
from wardround.data import registry as datasets
from wardround.data.partition import partition
from wardround.data.split import split_patients
from wardround.errors import ConfigError, Refused, RunError, StorageError
from wardround.federation import messages
from wardround.federation.engines.local import LocalEngine
from wardround.federation.records import Records
from wardround.federation.rounds import Federation, Listener, Outcome
from wardround.federation.site import Host
from wardround.models import registry as models
from wardround.store.run import Run
from wardround.store.states import StateTable
from wardround.training import figures as compare
from wardround.training.metrics import ScoreTable, calibration, choose_threshold, roc_curve
from wardround.types import LOCAL, Arrays, Description, Message, Request, SiteData, Split

ENGINES = {"local": "wardround.federation.engines.local:LocalEngine"}
FEDERATED, CENTRALIZED, ALONE, MAJORITY = "federated", "centralized", "local", "majority"

Result = dict[str, Any]
Tables = dict[str, ScoreTable]


@dataclass(frozen=True, kw_only=True)
class _Arm:
    """One trained model of the experiment, with the scores it gives to each site's rows."""

    outcome: Outcome
    history: list[dict[str, Any]]
    threshold: float
    test: Tables
    personalized: bool
    overlay: Arrays
    own: Mapping[str, Any]


def records_of(job: Job) -> tuple[Description, dict[str, SiteData]]:
    """The dataset's description, and each site's records with their split.

    Raises:
        ConfigError: a partition that the data do not allow.
        DataError: records absent, malformed or too few.
    """
    dataset = datasets.build(job.data)
    description = dataset.describe()
    if job.partition.kind == "natural" and not description.natural:
        raise ConfigError(
            f"partition.kind = natural, but {description.name} has no hospitals of its own: choose iid or dirichlet"
        )
    raw = {site: dataset.load(site) for site in description.sites}
    sites = partition(raw, job.partition, seed=job.seed, classes=len(description.classes))
    split = {site: split_patients(data, job.data.split, seed=job.seed, site=site) for site, data in sites.items()}
    return description, split


def device_of(name: str) -> torch.device:
    """The device that `engine.device` names; `auto` takes CUDA, then Apple's, then the CPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        float(torch.zeros(1, device=device))
    except (RuntimeError, AssertionError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(
            f"engine.device = {name!r} is not available here: {reason}; choose cpu, or auto for the best there is"
        ) from error
    return device


def run(
    job: Job, out: Path | str, *,
    resume: bool = False, overwrite: bool = False, report: bool = True, listener: Listener = lambda event: None,
) -> Result:  # fmt: skip
    """Run a job into a folder, and return what `result.json` holds.

    What cannot run is refused before anything is written; a run that fails before its first commit leaves no folder, so
    that the mended job can be given the same one.

    Args:
        job: what to run.
        out: the run's folder; it must not hold a run yet, unless `resume` or `overwrite`.
        resume: go on from the last commit of a run that was cut short; the result equals an uninterrupted one.
        overwrite: delete the run that the folder holds, once it is certain that this one can begin.
        report: whether to write `report.html` and the figures.
        listener: told of progress, one mapping an event; `arm` says which model is being trained. After training come
            `figures` and `report`, without an arm.

    Raises:
        WardroundError: see `wardround.errors`; each class has the exit code of the command line.
    """
    out = Path(out)
    _check_names(job)
    if job.engine.threads is not None:
        torch.set_num_threads(job.engine.threads)
    description, data = records_of(job)
    if len(description.classes) != 2:
        raise ConfigError(
            f"data.dataset = {job.data.dataset!r} has {len(description.classes)} classes: this version judges models of two"
        )
    _check_participation(job, len(data))
    records = Records(description, data)
    facts = _facts(job, records)
    if overwrite and not resume:
        Run.discard(out)
    folder = _open(out, job, facts, resume=resume)
    try:
        with folder:
            return _complete(job, folder, description, data, records, report, listener)
    except Exception:
        if not resume and folder.completed is None:
            Run.discard(out)
        raise


def _complete(
    job: Job, folder: Run, description: Description, data: Mapping[str, SiteData], records: Records, report: bool,
    listener: Listener,
) -> Result:  # fmt: skip
    if folder.status == "done" and (folder.path / "result.json").exists():
        recorded: Result = folder.read_json("result.json")
        return recorded
    try:
        result = _experiment(job, folder, description, data, records, listener)
        folder.write_json("result.json", result)
        if report:
            listener({"event": "report"})
            from wardround import report as pages

            pages.build(folder.path, result)
        folder.finish("done")
    except BaseException as error:
        _record_failure(folder, error)
        raise
    return result


def _record_failure(folder: Run, error: BaseException) -> None:
    interrupted = not isinstance(error, Exception)
    try:
        folder.finish(
            "interrupted" if interrupted else "failed", "" if interrupted else f"{type(error).__name__}: {error}"
        )
    except StorageError:
        # the disk that failed the run may fail this note too; the first failure is the one to tell
        return


def _check_names(job: Job) -> None:
    """Refuse what could never run, before a record is read: unknown names, a device that is not there, no way to judge."""
    algorithms.local_rule(job.algorithm)
    algorithms.server_rule(job.algorithm)
    aggregation.build(job.aggregation)
    channels.build(job.privacy.channel)
    resolve(job.model.name, models.MODELS, "model.name")
    engine = resolve(job.engine.kind, ENGINES, "engine.kind")
    if CENTRALIZED in job.evaluation.baselines and not getattr(engine, "merges", False):
        raise Refused(
            f"evaluation.baselines asks for centralized, and engine.kind = {job.engine.kind} cannot merge the sites' "
            "records: leave it out (baselines: [local])"
        )
    if job.evaluation.release_scores is False:
        raise Refused(
            "evaluation.release_scores = false: this version compares models on row scores of one process, which hand them "
            "to their own report only; figures from histograms alone come with the secure channels"
        )
    device_of(job.engine.device)


def _check_participation(job: Job, sites: int) -> None:
    spec = job.participation
    if spec.count is not None and spec.count > sites:
        raise ConfigError(
            f"participation.count = {spec.count}, and there are {sites} sites: ask at most {sites}, or give a fraction"
        )
    asked = _asked(job, sites)
    if spec.quorum is not None and spec.quorum > asked:
        raise ConfigError(
            f"participation.quorum = {spec.quorum} can never be met: {asked} of {sites} sites are asked each round; "
            "lower the quorum, or ask more sites"
        )


def _asked(job: Job, sites: int) -> int:
    return job.participation.count or max(1, round(job.participation.fraction * sites))


def _experiment(
    job: Job, folder: Run, description: Description, data: Mapping[str, SiteData], records: Records, listener: Listener
) -> Result:
    federated = _train(FEDERATED, job, folder, description, records, listener)
    arms = {FEDERATED: federated}
    for name in job.evaluation.baselines:
        own = alone(job) if name == ALONE else centralized(job, len(records.sites))
        merged = Records(description, data, merged=True) if name == CENTRALIZED else Records(description, data)
        with _sub_run(folder, name, own) as sub:
            arms[name] = _train(name, own, sub, description, merged, listener, parent=federated, data=data)
    _save_model(job, folder, description, federated)
    listener({"event": "figures"})
    return _result(job, folder, description, records, arms)


def alone(job: Job) -> Job:
    """Each site by itself: the same loop with every name local, its own preprocessing, and every site in every round."""
    return _changed(
        job,
        {
            "data.preprocessing.standardize": "site" if job.data.preprocessing.standardize != "none" else "none",
            "model.local": ("*",),
            "algorithm": {"name": "fedavg"},
            "participation": {"fraction": 1.0, "quorum": 1},
        },
    )


def centralized(job: Job, sites: int) -> Job:
    """All records in one place: the same loop over one merged site, with the same number of rows seen a round."""
    steps = job.training.local_steps
    asked = _asked(job, sites)
    return _changed(
        job,
        {
            "model.local": (),
            "algorithm": {"name": "fedavg"},
            "training.local_steps": None if steps is None else steps * asked,
            "participation": {"fraction": 1.0, "quorum": 1},
            "aggregation.max_weight": None,
        },
    )


def _changed(job: Job, changes: Mapping[str, Any]) -> Job:
    tree = job.model_dump()
    for path, value in changes.items():
        *parents, leaf = path.split(".")
        node = tree
        for parent in parents:
            node = node[parent]
        node[leaf] = value
    return Job.model_validate(tree)


# ------------------------------------------------------------------------------------------------------- training


def _train(
    name: str, job: Job, folder: Run, description: Description, records: Records, listener: Listener,
    *, parent: _Arm | None = None, data: Mapping[str, SiteData] | None = None,
) -> _Arm:  # fmt: skip
    channel = channels.build(job.privacy.channel)
    device = device_of(job.engine.device)
    host = Host(job, records, StateTable(records.sites), channel.site_half(), device)
    engine = _engine(job, host)
    # a centralised model sees the features that the federation agreed on; a lone hospital has only its own
    given = parent.outcome.preprocessing if parent and name == CENTRALIZED else None
    federation = Federation(
        job, engine, channel, description, folder, lambda event: listener({"arm": name, **event}), given
    )
    outcome = federation.train()
    if name == CENTRALIZED and data is not None:
        # the merged model is judged at the hospitals its rows came from
        host = Host(job, Records(description, data), StateTable(tuple(sorted(data))), channel.site_half(), device)
        engine = _engine(job, host)
        stored = outcome.preprocessing.to_json() if outcome.preprocessing else None
        prepare = Request(message=Message(stage=messages.PREPARE, meta={"preprocessing": stored}))
        for _ in engine.ask(prepare, engine.sites, None):
            pass
    threshold, test = _judge(job, engine, outcome)
    personalized = bool(outcome.network.local) or bool(host.own)
    arm = _Arm(
        outcome=outcome, history=federation.history(), threshold=threshold, test=test,
        personalized=personalized, overlay=outcome.overlay, own=host.own,
    )  # fmt: skip
    if name == FEDERATED:
        _save_overlays(folder, engine, arm)
    engine.close()
    return arm


def _engine(job: Job, host: Host) -> LocalEngine:
    chunk = None if job.engine.chunk == "auto" else job.engine.chunk
    if job.engine.kind == "local":
        return LocalEngine(host, chunk)
    factory = resolve(job.engine.kind, ENGINES, "engine.kind")
    engine: LocalEngine = construct(factory, {"host": host, "chunk": chunk, **job.engine.options}, "engine.options")
    return engine


def _judge(job: Job, engine: LocalEngine, outcome: Outcome) -> tuple[float, Tables]:
    """The threshold, from validation rows alone, and the test scores of each site."""
    validation = ScoreTable.merge(list(_scores(engine, outcome, "validation").values()))
    how = job.evaluation.threshold
    threshold = 0.5 if isinstance(how, str) and not len(validation) else choose_threshold(validation, how)
    return threshold, _scores(engine, outcome, "test")


def _scores(engine: LocalEngine, outcome: Outcome, split: Split) -> Tables:
    arrays = messages.server_arrays(outcome.server)
    request = Request(message=Message(stage=messages.RELEASE, meta={"split": split}, arrays=arrays))
    tables: Tables = {}
    for reply in engine.ask(request, engine.sites, None):
        scores, labels = (reply.message.arrays[n].numpy() for n in ("scores", "labels"))
        tables[reply.sites[0]] = ScoreTable.from_rows(scores, labels)
    return tables


# ------------------------------------------------------------------------------------------------------- results


def _result(job: Job, folder: Run, description: Description, records: Records, arms: Mapping[str, _Arm]) -> Result:
    spec, federated = job.evaluation, arms[FEDERATED]
    counts = {site: records.class_counts(site) for site in records.sites}
    seen = {site: np.add(c["train"], c["validation"]) for site, c in counts.items()}
    result: Result = {"name": job.name, "job": job.model_dump(mode="json")}
    result["dataset"] = {
        key: getattr(description, key) for key in ("name", "title", "source", "licence", "natural")
    } | {"classes": list(description.classes)}
    for name, arm in arms.items():
        result[name] = compare.figures(arm.test, arm.threshold, spec.bootstrap, seed=job.seed, per_site=spec.sites)
    result[MAJORITY] = compare.majority(
        {site: float(n[1]) for site, n in seen.items()},
        {site: float(n[0]) for site, n in seen.items()},
        federated.test, spec.bootstrap, seed=job.seed, per_site=spec.sites,
    )  # fmt: skip
    result["gain"] = {
        name: compare.gain(
            federated.test, arm.test, federated.threshold, arm.threshold, spec.bootstrap,
            seed=job.seed, per_site=spec.sites,
        )
        for name, arm in arms.items() if name != FEDERATED
    }  # fmt: skip
    outcome = federated.outcome
    names = outcome.network.local
    result |= {
        "personalized": federated.personalized,
        "rounds": job.training.rounds,
        "selected_round": outcome.selected,
        "seconds": outcome.seconds,
        "bytes_up": outcome.bytes_up,
        "bytes_down": outcome.bytes_down,
        "executor": outcome.executor,
        "executor_reason": outcome.reason,
        "thresholds": {name: arm.threshold for name, arm in arms.items()},
        "partition": counts,
        "history": {name: arm.history for name, arm in arms.items()},
        "calibration": {name: _curve(arm) for name, arm in arms.items()},
        "roc": {name: roc_curve(ScoreTable.merge(list(arm.test.values()))) for name, arm in arms.items()},
        "model": {
            "name": job.model.name,
            "parameters": outcome.network.parameters,
            "shared": sum(v.numel() for v in outcome.network.shared.params.values()),
            "local_names": sorted(names),
        },
        "preprocessing": {"features": list(outcome.preprocessing.names) if outcome.preprocessing else []},
        "environment": folder.facts["versions"] | {key: folder.facts[key] for key in ("device", "threads")},
        "overlay_average": bool(federated.overlay),
    }
    return result


def _curve(arm: _Arm) -> dict[str, Any]:
    curve = calibration(ScoreTable.merge(list(arm.test.values())))
    return {"predicted": curve["predicted"], "observed": curve["observed"], "count": curve["records"]}


def _save_overlays(folder: Run, engine: LocalEngine, arm: _Arm) -> None:
    """What stays at each site at the selected round, its own preprocessing included, and their mean for a stranger."""
    host = engine.host
    local = arm.outcome.network.local
    if not arm.personalized:
        return
    for site in engine.sites:
        states = host.states.read((site,), host.network.initial_state) if local else {}
        arrays = {n.removeprefix(LOCAL): v[0].cpu() for n, v in states.items() if n.startswith(LOCAL)}
        own = host.own.get(site)
        metadata = {"site": site, "preprocessing": json.dumps(own.to_json() if own else None)}
        folder.write_tensors(f"overlays/{quote(site, safe='')}.safetensors", arrays, metadata)
    if arm.overlay:
        folder.write_tensors("overlay-average.safetensors", arm.overlay, {"site": "", "preprocessing": "null"})


def _save_model(job: Job, folder: Run, description: Description, arm: _Arm) -> None:
    outcome = arm.outcome
    stored = outcome.preprocessing.to_json() if outcome.preprocessing else None
    metadata = {
        "format": "wardround-model-1",
        "wardround": __version__,
        "run": folder.id,
        "job": job.model_dump_json(),
        "preprocessing": json.dumps(stored),
        "classes": json.dumps(list(description.classes)),
        "shape": json.dumps([len(outcome.preprocessing.names)] if outcome.preprocessing else list(description.shape)),
        "threshold": repr(arm.threshold),
        "selected_round": str(outcome.selected),
        "personalized": json.dumps(arm.personalized),
    }
    model = outcome.server.model
    folder.write_tensors("model.safetensors", {**model.params, **model.buffers}, metadata)


# ------------------------------------------------------------------------------------------------------- folders


def _facts(job: Job, records: Records) -> dict[str, Any]:
    return {
        "data": records.fingerprint(),
        "device": str(device_of(job.engine.device)),
        "threads": torch.get_num_threads(),
        "versions": {
            "wardround": __version__,
            "torch": torch.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
            "platform": platform.platform(),
        },
    }


def _open(out: Path, job: Job, facts: Mapping[str, Any], *, resume: bool) -> Run:
    if not resume:
        return Run.create(out, job, facts)
    folder = Run.open(out)
    try:
        folder.check(job, facts)
    except RunError:
        folder.close()
        raise
    return folder


def _sub_run(folder: Run, name: str, job: Job) -> Run:
    """The folder of a baseline: opened where a killed run left one, else made."""
    path = folder.path / "baselines" / name
    if (path / "run.json").exists():
        return Run.open(path)
    if path.exists():
        shutil.rmtree(path)
    return Run.create(path, job, {"versions": folder.facts["versions"]})

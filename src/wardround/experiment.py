"""One experiment, whole: a federation, its baselines, the figures that compare them, the model, the page.

    from wardround import load, run
    result = run(load("examples/wdbc.yaml"), "runs/demo")

Baselines are not code: 'centralised' is the same loop with the sites merged into one, 'local' the same loop with every name
of the model staying at its site.
"""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wardround import __version__, artifacts, judgement
from wardround.aggregation import registry as aggregation
from wardround.algorithms import registry as algorithms
from wardround.channels import registry as channels
from wardround.channels.carrier import Bounded
from wardround.config.job import Job
from wardround.config.plugins import construct, resolve
from wardround.config.plugins import digest as digest_of_plugin
from wardround.data import registry as datasets
from wardround.data.check import check_groups, check_records
from wardround.data.heterogeneity import measure
from wardround.data.partitions.partition import partition
from wardround.data.split import split_sites
from wardround.data.standardize import Fitted
from wardround.data.standardize import check as check_pictures
from wardround.errors import ConfigError, DataError, Refused, RunError, StorageError
from wardround.federation import messages
from wardround.federation.baselines import alone, alone_elsewhere, centralized, changed, finetuned, sites_asked
from wardround.federation.by_site import SiteFigures
from wardround.federation.engines.local import LocalEngine
from wardround.federation.further import FurtherModel
from wardround.federation.maps import maps
from wardround.federation.records import Records
from wardround.federation.rounds import Federation, Listener, Start
from wardround.federation.site import Host, Seen
from wardround.judgement import ALONE, CENTRALIZED, FEDERATED, FINETUNED, Arm, Result
from wardround.models import registry as models
from wardround.models.pretrained import locate
from wardround.report.evidence import MAPS
from wardround.store.atomic import sha256
from wardround.store.run import Run
from wardround.store.states import StateTable
from wardround.training.gradcam import convolves
from wardround.types import LOCAL, SPLITS, Channel, Description, Engine, Message, Request, SiteData

_CUT = "threshold.json"
"""Of a run between hospitals: the threshold that pooled figures gave, before sites are asked for figures at it."""

ENGINES = {
    "local": "wardround.federation.engines.local:LocalEngine",
    "flower": "wardround.federation.engines.flower.engine:FlowerEngine",
}


def records_of(job: Job) -> tuple[Description, dict[str, SiteData]]:
    """The dataset's description, and the records, with their split, of each site that takes part; see `divided`."""
    description, sites, _ = divided(job)
    return description, sites


def divided(job: Job) -> tuple[Description, dict[str, SiteData], dict[str, SiteData]]:
    """The dataset's description, each site's records with their split, and those of sites held out, all of them test rows.

    Raises:
        ConfigError: a partition that the data do not allow, or a held-out site that there is not.
        DataError: records absent, malformed or too few.
    """
    dataset = datasets.build(job.data)
    description = dataset.describe()
    if not description.sites:
        raise DataError(
            f"data.dataset = {job.data.dataset!r} has no records here: data.options.path says where the tables are"
        )
    if len(description.classes) < 2:
        raise DataError(
            f"data.dataset = {job.data.dataset!r} has {len(description.classes)} classes: expected two or more to tell apart"
        )
    if len(description.classes) > 2 and not description.multilabel and job.evaluation.threshold != 0.5:
        raise ConfigError(
            f"evaluation.threshold belongs to two classes, and data.dataset = {job.data.dataset!r} has "
            f"{len(description.classes)}: leave it out; a row is called the most probable of them"
        )
    if job.partition.kind == "natural" and not description.natural:
        raise ConfigError(
            f"partition.kind = natural, but {description.name} has no hospitals of its own: choose iid or dirichlet"
        )
    raw = {site: dataset.load(site) for site in description.sites}
    check_records(description, raw)
    sites = partition(raw, job.partition, seed=job.seed, classes=len(description.classes), columns=description.columns)
    if job.evaluation.aggregate != "none":
        check_groups(description, sites)
    held_out = {
        site: replace(own, split=np.full(len(own.labels), SPLITS.index("test"), dtype=np.int8))
        for site, own in _held_out(job, sites).items()
    }
    sites = {site: own for site, own in sites.items() if site not in held_out}
    split = split_sites(sites, job.data.split, seed=job.seed)
    if not any(np.any(data.split == SPLITS.index("test")) for data in split.values()):
        raise DataError(
            f"no test rows: data.split.test = {job.data.split.test} of so few patients a site leaves none, and nothing could be "
            "judged; raise it, or use fewer sites"
        )
    return description, split, held_out


def _held_out(job: Job, sites: Mapping[str, SiteData]) -> dict[str, SiteData]:
    asked = job.evaluation.held_out
    unknown = [site for site in asked if site not in sites]
    if unknown:
        raise ConfigError(
            f"evaluation.held_out = {unknown[0]!r} is no site: these are {', '.join(list(sites)[:20])}"
            f"{' and others' if len(sites) > 20 else ''}"
        )
    if asked and len(set(asked)) == len(sites):
        raise ConfigError(
            "evaluation.held_out names every site, and none is left to train: leave at least one out of it"
        )
    return {site: sites[site] for site in asked}


def _check_maps(job: Job, description: Description) -> None:
    """Refuse maps that could not be made, before anything trains."""
    if not job.evaluation.maps:
        return
    if job.evaluation.release_scores is False:
        raise Refused(
            "evaluation.maps writes pictures of patients, and evaluation.release_scores is false: not even scores may leave a "
            "site; leave maps out"
        )
    dtype = torch.float64 if job.training.dtype == "float64" else torch.float32
    if description.columns or (job.evaluation.maps_by == "grad_cam" and not convolves(
        models.build(
            job.model, description.shape, len(description.classes), seed=job.seed, dtype=dtype,
            multilabel=description.multilabel,
        )
    )):  # fmt: skip
        raise ConfigError(
            f"evaluation.maps = {job.evaluation.maps} needs images and, by {job.evaluation.maps_by}, a model with convolutions, "
            f"and this is {job.model.name} on {description.name}: leave maps out, or on images take maps_by: occlusion"
        )


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

    What cannot run is refused before anything is written; a run that fails before its first round leaves no folder, so
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
    if getattr(resolve(job.engine.kind, ENGINES, "engine.kind"), "remote", False):
        raise Refused(
            f"engine.kind = {job.engine.kind} reaches sites on other machines: submit the job with `wardround deploy submit`, "
            "or take the engine local to simulate it"
        )
    job = _without_scores(job)
    if job.engine.threads is not None:
        torch.set_num_threads(job.engine.threads)
    description, data, held_out = divided(job)
    check_pictures(job.data.preprocessing, description)
    _check_maps(job, description)
    _check_participation(job, len(data))
    heterogeneity = measure(description, data)
    if job.evaluation.release_scores is False:
        del heterogeneity["shifts"]  # a site's own figures
    grouped = job.evaluation.aggregate != "none"
    records = Records(description, data, grouped=grouped)
    strangers = Records(description, held_out, grouped=grouped) if held_out else None
    del data, held_out  # copied
    facts = facts_of(job, records)
    if strangers is not None:
        facts["held_out"] = strangers.fingerprint()
    if overwrite and not resume:
        Run.discard(out)
    folder = _open(out, job, facts, resume=resume)
    try:
        with folder:
            return _complete(job, folder, description, records, strangers, heterogeneity, report, listener)
    except Exception:
        if not resume and not folder.completed:
            Run.discard(out)
        raise


def run_between(
    job: Job, out: Path | str, engine: Engine, description: Description, facts: Mapping[str, Any], *,
    resume: bool = False, report: bool = True, listener: Listener = lambda event: None,
) -> Result:  # fmt: skip
    """Run a job over sites that are elsewhere, and return what `result.json` holds.

    There are no records here: figures are pooled from sums, those of single sites are what the sites work out and their policies
    let go, what stays at the sites stays there, and nothing is compared with a model of all records.

    Args:
        job: what to run.
        out: the run's folder.
        engine: reaches the sites.
        description: what the dataset is.
        facts: what else a resumed run must find the same; `run`, where it is given, is the run's id between the parties.
        resume: go on from the last commit.
        report: whether to write `report.html`.
        listener: told of progress.

    Raises:
        WardroundError: see `wardround.errors`.
    """
    _check_names(job)
    job = changed(job, {"evaluation.release_scores": False})
    check_between(job)
    check_pictures(job.data.preprocessing, description)
    _check_participation(job, len(engine.sites))
    surroundings = {**foreign_files(job), **_surroundings(job), **facts}
    with _open(Path(out), job, surroundings, resume=resume) as folder:
        recorded = _recorded(folder)
        if recorded is not None:
            return recorded

        def trained() -> Result:
            folder.finish("running")
            arms = _train_between(job, folder, description, engine, listener)
            artifacts.save_model(folder, job, description, arms[FEDERATED])
            artifacts.save_average(folder, arms[FEDERATED].outcome, arms[FEDERATED].threshold)
            listener({"event": "figures"})
            return judgement.result_of(job, folder, description, None, arms) | {"heterogeneity": {}}

        return _brought_to_its_end(folder, trained, report, listener)


def check_between(job: Job) -> None:
    """Refuse what needs the sites' records in one place, or simulated sites."""
    spec = job.evaluation
    for key, given in (
        ("evaluation.baselines", bool({*spec.baselines} - {ALONE})), ("evaluation.held_out", bool(spec.held_out)),
        ("evaluation.maps", bool(spec.maps)), ("finetuning.epochs", bool(job.finetuning.epochs)),
        ("partition.kind", job.partition.kind != "natural"),
    ):  # fmt: skip
        if given:
            raise Refused(
                f"{key} needs records or states that stay at the sites, and engine.kind = {job.engine.kind} reaches sites "
                "that are elsewhere: leave it out"
            )


def _train_between(
    job: Job, folder: Run, description: Description, engine: Engine, listener: Listener
) -> dict[str, Arm]:
    """The federation, and where the job asks for it the models that sites train alone, with figures of each."""
    federation = _federation(FEDERATED, job, folder, description, engine, listener)
    parts = {FEDERATED: (federation, _judged(federation, job, folder))}
    with ExitStack() as folders:
        if ALONE in job.evaluation.baselines:
            own, fitted = alone_elsewhere(job), parts[FEDERATED][1].outcome.preprocessing
            sub = folders.enter_context(_sub_run(folder, f"baselines/{ALONE}", own))
            lone = _federation(ALONE, own, sub, description, FurtherModel(engine, ALONE), listener, fitted)
            parts[ALONE] = lone, _judged(lone, own, sub)
        return _with_site_figures(job, parts)


def _federation(
    name: str, job: Job, folder: Run, description: Description, engine: Engine, listener: Listener,
    fitted: Fitted | None = None,
) -> Federation:  # fmt: skip
    return Federation(
        job, engine, _channel(job, len(engine.sites)), description, folder,
        lambda event: listener({"arm": name, **event}), fitted, strangers=name == FEDERATED,
    )  # fmt: skip


def _judged(federation: Federation, job: Job, folder: Run) -> Arm:
    outcome = federation.train()
    scores = judgement.pooled(federation.histograms(outcome))
    if not (folder.path / _CUT).exists():
        # sites answer one question about their figures: a coordinator that begins again must ask the same
        cut = scores.threshold(job.evaluation.threshold)
        folder.write_json(_CUT, {"threshold": list(cut) if isinstance(cut, tuple) else cut})
    stored = folder.read_json(_CUT)["threshold"]
    spec = job.data.preprocessing
    return Arm(
        outcome=outcome, history=federation.history(), threshold=tuple(stored) if isinstance(stored, list) else stored,
        scores=scores, personalized=bool(outcome.network.local) or "site" in (spec.standardize, spec.pictures),
    )  # fmt: skip


def _with_site_figures(job: Job, parts: Mapping[str, tuple[Federation, Arm]]) -> dict[str, Arm]:
    """The models with what each site says of them on its own rows, where the job asks for it.

    A site that was begun again between two models has forgotten the scores that the second is compared with, and answers when
    both are asked for once more.
    """
    if not job.evaluation.site_figures:
        return {name: arm for name, (_, arm) in parts.items()}
    told: dict[str, dict[str, SiteFigures]] = {name: {} for name in parts}
    silent: dict[str, dict[str, str]] = {}
    for _ in range(job.participation.attempts):
        for name, (federation, arm) in parts.items():
            found, faults = federation.site_figures(arm.outcome, arm.threshold, name)
            told[name] |= found
            silent[name] = {site: why for site, why in faults.items() if site not in told[name]}
        if not any(silent.values()):
            break
    return {
        name: replace(arm, scores=replace(arm.scores, told=dict(sorted(told[name].items())), silent=silent[name]))
        for name, (_, arm) in parts.items()
    }


def _complete(
    job: Job, folder: Run, description: Description, records: Records, strangers: Records | None, heterogeneity: Result,
    report: bool, listener: Listener,
) -> Result:  # fmt: skip
    recorded = _recorded(folder)
    if recorded is not None:
        if report and not (folder.path / "report.html").exists():
            _write_report(folder, recorded, listener)
        return recorded

    def trained() -> Result:
        found = _experiment(job, folder, description, records, strangers, listener)
        return found | {"heterogeneity": heterogeneity}

    return _brought_to_its_end(folder, trained, report, listener)


def _recorded(folder: Run) -> Result | None:
    """The result of a run that is done; None of any other."""
    whole = all((folder.path / name).exists() for name in ("result.json", "model.safetensors"))
    if folder.status != "done" or not whole:
        return None
    recorded: Result = folder.read_json("result.json")
    return recorded


def _brought_to_its_end(folder: Run, trained: Callable[[], Result], report: bool, listener: Listener) -> Result:
    try:
        result = trained()
        folder.write_json("result.json", result)
        if report:
            _write_report(folder, result, listener)
        folder.finish("done")
    except BaseException as error:
        _record_failure(folder, error)
        raise
    return result


def _write_report(folder: Run, result: Result, listener: Listener) -> None:
    listener({"event": "report"})
    from wardround import report as pages

    pages.build(folder.path, result)


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
    _check_rule(job, _channel(job))
    resolve(job.model.name, models.MODELS, "model.name")
    if job.model.pretrained is not None:
        locate(job.model)
    engine = resolve(job.engine.kind, ENGINES, "engine.kind")
    if CENTRALIZED in job.evaluation.baselines and not getattr(engine, "merges", False):
        raise Refused(
            f"evaluation.baselines asks for centralized, and engine.kind = {job.engine.kind} cannot merge the sites' "
            "records: leave it out (baselines: [local])"
        )
    target = job.evaluation.target
    if target is not None and target.fraction is not None and CENTRALIZED not in job.evaluation.baselines:
        raise ConfigError(
            f"evaluation.target asks for {target.fraction:g} of the centralised figure, and evaluation.baselines has no "
            "centralized: add it, or give the target a value"
        )
    device_of(job.engine.device)


def _channel(job: Job, sites: int | None = None) -> Channel:
    return channels.build(job.privacy, sites=sites, remote=job.engine.kind != "local")


def _check_rule(job: Job, channel: Channel) -> None:
    """Refuse a rule over several sums where the channel gives fewer."""
    least = getattr(aggregation.build(job.aggregation), "least_groups", 1)
    groups = getattr(channel, "groups", None)
    if groups is not None and groups < least:
        raise Refused(
            f"aggregation.rule = {job.aggregation.rule} needs {least} sums, and privacy.channel.kind = {channel.name} gives "
            f"{groups}: on a channel that hides, raise privacy.channel.options.groups to {least} (of three sites or more each), "
            "or take the rule mean"
        )


def _without_scores(job: Job) -> Job:
    """On a channel that hides, the figures of single sites leave them only where the job says so."""
    if job.evaluation.release_scores is None and _channel(job).hides:
        return changed(job, {"evaluation.release_scores": False})
    return job


def _check_participation(job: Job, sites: int) -> None:
    spec = job.participation
    if spec.count is not None and spec.count > sites:
        raise ConfigError(
            f"participation.count = {spec.count}, and there are {sites} sites: ask at most {sites}, or give a fraction"
        )
    asked = sites_asked(job, sites)
    channel = _channel(job, sites)
    if isinstance(channel, Bounded):
        channel.check(asked)
    if spec.quorum is not None and spec.quorum > asked:
        raise ConfigError(
            f"participation.quorum = {spec.quorum} can never be met: {asked} of {sites} sites are asked each round; "
            "lower the quorum, or ask more sites"
        )


def _experiment(
    job: Job, folder: Run, description: Description, records: Records, strangers: Records | None, listener: Listener
) -> Result:
    seen: Seen = {}
    federated = train_arm(FEDERATED, job, folder, description, records, listener, seen=seen)
    arms = {FEDERATED: federated}
    for name in job.evaluation.baselines:
        own = alone(job) if name == ALONE else centralized(job, len(records.sites))
        rows = records.merged() if name == CENTRALIZED else records.unprepared()
        with _sub_run(folder, f"baselines/{name}", own) as sub:
            arms[name] = train_arm(
                name, own, sub, description, rows, listener, parent=federated, origin=records, seen=seen
            )
    if job.finetuning.epochs:
        own, start = finetuned(job, federated.outcome.network.local), _kept(folder, federated)
        with _sub_run(folder, FINETUNED, own) as sub:
            arms[FINETUNED] = train_arm(
                FINETUNED, own, sub, description, records.unprepared(), listener, parent=federated, start=start
            )
    artifacts.save_model(folder, job, description, federated)
    listener({"event": "figures"})
    result = judgement.result_of(job, folder, description, records, arms)
    if strangers is not None:
        result["held_out"] = judgement.held_out(job, records, strangers, arms, device_of(job.engine.device))
    if job.evaluation.maps:
        result["maps"] = json.loads(folder.read_tensors(MAPS)[1]["facts"])
    return result


def _kept(folder: Run, arm: Arm) -> Start:
    """The model that a federation kept, with what stays at each of its sites."""
    server, sites, states = folder.restore(arm.outcome.selected)
    own = {name: value for name, value in states.items() if name.startswith(LOCAL)}
    return Start(model=server.model, sites=sites if own else (), states=own)


# ------------------------------------------------------------------------------------------------------- training


def train_arm(
    name: str, job: Job, folder: Run, description: Description, records: Records, listener: Listener,
    *, parent: Arm | None = None, origin: Records | None = None, start: Start | None = None, seen: Seen | None = None,
) -> Arm:  # fmt: skip
    """Train one model and score its held-out rows.

    Args:
        name: `federated`, `centralized`, `local` or `finetuned`; all but the first with the job that `federation.baselines`
            makes.
        job: what to train.
        folder: its run folder; a run that was cut short goes on.
        description: what the dataset is.
        records: rows as this model sees them: merged for `centralized`.
        listener: told of progress.
        parent: the federation, where its preprocessing is to be used.
        origin: the sites' rows, on which a merged model is judged.
        start: the trained model to go on from.
        seen: what the sites keep of the scores of this run's models, to compare them.
    """
    channel = _channel(job, len(records.sites))
    device = device_of(job.engine.device)
    host = Host(job, records, StateTable(records.sites), channel.site_half(records.sites), device, seen=seen)
    with ExitStack() as engines:
        engine = engines.enter_context(closing(_engine(job, host)))
        # a centralised model sees the features that the federation agreed on; a lone hospital has only its own
        given = parent.outcome.preprocessing if parent and name != ALONE else None
        federation = Federation(
            job, engine, channel, description, folder, lambda event: listener({"arm": name, **event}), given, start
        )
        outcome = federation.train()
        exact = _exact(job, engine)
        if name == CENTRALIZED and exact and origin is not None:
            # the merged model is judged at the hospitals its rows came from
            half = channel.site_half(origin.sites)
            host = Host(job, origin.unprepared(), StateTable(origin.sites), half, device)
            engine = engines.enter_context(closing(_engine(job, host)))
            stored = outcome.preprocessing.to_json() if outcome.preprocessing else None
            prepare = Request(message=Message(stage=messages.PREPARE, meta={"preprocessing": stored}))
            for _ in engine.ask(prepare, engine.sites, None):
                pass
        scores = judgement.exact(engine, outcome) if exact else judgement.pooled(federation.histograms(outcome))
        threshold = scores.threshold(job.evaluation.threshold)
        if not exact and job.evaluation.site_figures and name in messages.MODELS:
            told, silent = federation.site_figures(outcome, threshold, name)
            scores = replace(scores, told=told, silent=silent)
        personalized = bool(outcome.network.local) or bool(host.own)
        arm = Arm(
            outcome=outcome, history=federation.history(), threshold=threshold, scores=scores, personalized=personalized
        )
        if name == FEDERATED and job.evaluation.maps:
            arrays, facts = maps(engine.host, outcome, job.evaluation.maps)
            folder.write_tensors(MAPS, arrays, {"facts": json.dumps(facts)})
        if name in (FEDERATED, FINETUNED):
            artifacts.save_overlays(folder, engine.host, outcome, arm.threshold)
        return arm


def _exact(job: Job, engine: LocalEngine) -> bool:
    asked = job.evaluation.release_scores
    return engine.merges if asked is None else asked


def _engine(job: Job, host: Host) -> LocalEngine:
    chunk = None if job.engine.chunk == "auto" else job.engine.chunk
    if job.engine.kind == "local":
        return LocalEngine(host, chunk)
    factory = resolve(job.engine.kind, ENGINES, "engine.kind")
    engine: LocalEngine = construct(factory, {"host": host, "chunk": chunk, **job.engine.options}, "engine.options")
    return engine


# ------------------------------------------------------------------------------------------------------- folders


def facts_of(job: Job, records: Records) -> dict[str, Any]:
    """What a run's folder says of its surroundings: a resumed run must find the same."""
    return foreign_files(job) | {"data": records.fingerprint()} | _surroundings(job)


def _surroundings(job: Job) -> dict[str, Any]:
    return {
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


def foreign_files(job: Job) -> dict[str, Any]:
    """SHA-256 of what a job uses from outside the package: the file behind each plug-in, and pretrained weights."""
    weights = {} if job.model.pretrained is None else {"pretrained": sha256(locate(job.model))}
    names = {
        job.data.dataset, job.model.name, job.algorithm.name, job.algorithm.server.name, job.privacy.channel.kind,
        job.partition.kind, job.partition.features.effect or "",
        job.engine.kind, job.aggregation.rule,
    }  # fmt: skip
    found = {}
    for name in sorted(n for n in names if ":" in n):
        resolve(name, {}, "plug-in")  # imports it
        digest = digest_of_plugin(name)
        if digest:
            found[name] = digest
    return {**weights, "plugins": found}


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
    """The folder of a further model: opened where a killed run left one, else made."""
    path = folder.path / name
    if (path / "run.json").exists():
        return Run.open(path)
    if path.exists():
        shutil.rmtree(path)
    return Run.create(path, job, {"versions": folder.facts["versions"]})

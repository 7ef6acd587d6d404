"""What a finished experiment says: scores of every model, thresholds from validation, and the whole of `result.json`.

Exact figures need row scores, which one process may hand to its own report. Where they may not leave, pooled figures come
from score histograms summed over sites; figures by site, and paired differences at a site, are then those that the sites
worked out themselves and handed over finished, where the job asks for them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch

from wardround.config.job import Job, OperatingPointSpec
from wardround.federation import messages
from wardround.federation import strangers as strange
from wardround.federation.by_site import SiteFigures, mean_over_sites
from wardround.federation.records import Records
from wardround.federation.rounds import Outcome
from wardround.plots.labels import LOWER_IS_BETTER
from wardround.store.run import Run
from wardround.training import bootstrap, tables
from wardround.training import figures as compare
from wardround.training.curves import calibration, precision_recall_curve, roc_curve
from wardround.training.fairness import sides, spread
from wardround.training.label_tables import LabelSums, LabelTable, cuts
from wardround.training.metrics import ScoreTable
from wardround.training.operating import choose_threshold
from wardround.training.tables import Cut, Table, single
from wardround.training.target import reached
from wardround.types import SPLITS, Description, Engine, Message, Request, Split

FEDERATED, ALONE = messages.FEDERATED, messages.ALONE
CENTRALIZED, MAJORITY, FINETUNED = "centralized", "majority", "finetuned"
POOLED = "all sites"
AT_THE_THRESHOLD = ("sensitivity", "specificity", "ppv", "npv")
"""What is said of an operating point."""
BY_SITE = ("auroc", "auprc", "accuracy", "balanced_accuracy", "brier")
"""What is compared over sites for fairness."""

Result = dict[str, Any]
Tables = dict[str, Table]
Counts = Sequence[float] | Sequence[Sequence[float]]
Threshold = float | Literal["balanced", "accuracy"] | OperatingPointSpec


@dataclass(frozen=True, kw_only=True)
class Scores:
    """One model's scores on held-out rows.

    Attributes:
        validation, test: site -> its rows, or one pooled histogram under the name `all sites`.
        training: rows of each class that were trained on, for the majority class, or without and with each label, [L, 2]; None
            where sites tell their own counts.
        by_site: whether the tables are rows of sites, exact and aligned between models.
        told: site -> what it worked out itself and handed over; None where nobody was asked.
        silent: site -> why it told nothing, in words.
    """

    validation: Tables
    test: Tables
    training: Counts | None
    by_site: bool
    told: Mapping[str, SiteFigures] | None = None
    silent: Mapping[str, str] = field(default_factory=dict)

    def threshold(self, how: Threshold) -> Cut:
        """The decision threshold, from validation rows alone; 0.5 where there are none to choose it on.

        Of labels, each one's own where a rule chooses it.
        """
        rule = how.model_dump(exclude_none=True) if isinstance(how, OperatingPointSpec) else how
        rows = tables.merge(self.validation.values())
        if isinstance(rows, ScoreTable) and (len(rows) or not isinstance(rule, str)):
            return choose_threshold(rows, rule)
        if isinstance(rows, LabelTable | LabelSums):
            if isinstance(rule, float):
                return rule
            return tuple(choose_threshold(rows.one_vs_rest(label), rule) for label in range(rows.classes))
        return 0.5

    @property
    def pooled_test(self) -> Table:
        """Test rows of all sites."""
        return tables.merge(self.test.values())


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One trained model of an experiment.

    Attributes:
        outcome: what training gave.
        history: one entry a round.
        threshold: probability from which on a row is called positive; of two classes, or of labels: for all or one each.
        scores: of held-out rows.
        personalized: whether sites have parts of their own.
    """

    outcome: Outcome
    history: list[dict[str, Any]]
    threshold: Cut
    scores: Scores
    personalized: bool


def exact(engine: Engine, outcome: Outcome) -> Scores:
    """Row scores of every site, handed over by a process that holds them all."""
    validation, test = (_released(engine, outcome, split) for split in ("validation", "test"))
    return Scores(validation=validation, test=test, training=None, by_site=True)


def pooled(histograms: Mapping[Split, Table]) -> Scores:
    """Scores from histograms summed over sites."""
    return Scores(
        validation={POOLED: histograms["validation"]},
        test={POOLED: histograms["test"]},
        training=(histograms["train"].class_counts + histograms["validation"].class_counts).tolist(),
        by_site=False,
    )


def _released(engine: Engine, outcome: Outcome, split: str) -> Tables:
    arrays = messages.server_arrays(outcome.server)
    request = Request(message=Message(stage=messages.RELEASE, meta={"split": split}, arrays=arrays))
    released: Tables = {}
    for reply in engine.ask(request, engine.sites, None):
        scores, labels = (reply.message.arrays[n].numpy() for n in ("scores", "labels"))
        released[reply.sites[0]] = tables.from_rows(scores, labels)
    return released


def result_of(
    job: Job, folder: Run, description: Description, records: Records | None, arms: Mapping[str, Arm]
) -> Result:
    """What `result.json` holds: see the README for its layout. Without `records` the scores must be pooled."""
    spec, federated = job.evaluation, arms[FEDERATED]
    by_site = federated.scores.by_site
    known = records if by_site else None
    counts = {site: known.class_counts(site) for site in known.sites} if known else {}
    per_site = spec.sites and by_site
    result: Result = {"name": job.name, "job": job.model_dump(mode="json")}
    result["dataset"] = {
        key: getattr(description, key) for key in ("name", "title", "source", "licence", "natural")
    } | {"classes": list(description.classes)}
    if description.multilabel:
        result["dataset"]["multilabel"] = True
        if known:
            result["rows"] = _rows(known)
    for name, arm in arms.items():
        result[name] = compare.figures(arm.scores.test, arm.threshold, spec.bootstrap, seed=job.seed, per_site=per_site)
    result[MAJORITY] = compare.majority(
        _training_counts(counts, result.get("rows"), federated.scores), federated.scores.test, spec.bootstrap,
        seed=job.seed, per_site=per_site,
    )  # fmt: skip
    if not by_site:
        for name in (*arms, MAJORITY):
            result[name]["site_mean"] = {}  # one pooled histogram knows no sites
    told = federated.scores.told
    parts: Mapping[str, Any] = counts
    if told is not None:
        parts = {site: own.counts for site, own in told.items()}
        result["rows"] = {site: own.rows for site, own in told.items()}
    result["gain"] = {
        name: compare.gain(
            federated.scores.test, arm.scores.test, federated.threshold, arm.threshold, spec.bootstrap,
            seed=job.seed, per_site=per_site,
        )
        for name, arm in arms.items() if name != FEDERATED and by_site
    }  # fmt: skip
    if told is not None:
        result["by_site"] = _told(result, arms, per_site=spec.sites)
    outcome = federated.outcome
    names = outcome.network.local
    two = len(description.classes) == 2 and not description.multilabel
    result |= {
        "fairness": _fairness(result, arms) if spec.sites and (by_site or told is not None) else {},
        "target": _target(job, arms),
        "personalized": federated.personalized,
        "rounds": job.training.rounds,
        "selected_round": outcome.selected,
        "seconds": outcome.seconds,
        "bytes_up": outcome.bytes_up,
        "bytes_down": outcome.bytes_down,
        "executor": outcome.executor,
        "executor_reason": outcome.reason,
        "thresholds": {name: _listed(arm) for name, arm in arms.items()} if two or description.multilabel else {},
        "operating_point": {name: _operating_point(arm, result[name]) for name, arm in arms.items()} if two else {},
        "partition": parts,
        "history": {name: arm.history for name, arm in arms.items()},
        "calibration": {name: _curve(arm) for name, arm in arms.items()},
        "roc": {name: _by_class(roc_curve, arm) for name, arm in arms.items()},
        "precision_recall": {name: _by_class(precision_recall_curve, arm) for name, arm in arms.items()},
        "bands": bootstrap.bands(federated.scores.test, spec.bootstrap, job.seed),
        "confusion": {
            name: tables.confusion(arm.scores.pooled_test, arm.threshold).tolist() for name, arm in arms.items()
        },
        "model": {
            "name": job.model.name,
            "parameters": outcome.network.parameters,
            "shared": sum(v.numel() for v in outcome.network.shared.params.values()),
            "local_names": sorted(names),
            **outcome.network.given,
        },
        "preprocessing": {"features": list(outcome.preprocessing.names) if outcome.preprocessing else []},
        "environment": folder.facts["versions"] | {key: folder.facts[key] for key in ("device", "threads")},
        "overlay_average": bool(outcome.overlay),
        "finetuning": _finetuning(job, arms),
    }
    return result


def held_out(job: Job, records: Records, strangers: Records, arms: Mapping[str, Arm], device: torch.device) -> Result:
    """Figures of sites that never trained, under the models that are one for all: see `federation.strangers`.

    Returns:
        `rows` (site -> number), a block of figures for `federated`, `centralized` where it was trained and `majority`, and below
        `gain` the paired differences of federated and centralised. Without row scores figures are pooled alone.
    """
    spec, by_site = job.evaluation, arms[FEDERATED].scores.by_site
    found: dict[str, Tables] = {}
    for name in (name for name in (FEDERATED, CENTRALIZED) if name in arms):
        outcome = arms[name].outcome
        if by_site:
            released = strange.released(job, outcome, strangers, device)
            found[name] = {site: tables.from_rows(s.numpy(), y.numpy()) for site, (s, y) in released.items()}
        else:
            found[name] = {POOLED: tables.from_sums(strange.summed(job, outcome, strangers, device))}
    judged: Result = {
        name: compare.figures(own, arms[name].threshold, spec.bootstrap, seed=job.seed, per_site=by_site)
        for name, own in found.items()
    }
    counts = arms[FEDERATED].scores.training
    if counts is None:
        each = {site: records.class_counts(site) for site in records.sites}
        rows = None
        if strangers.description.multilabel:
            rows = _rows(records)
        counts = np.sum(list(_training_counts(each, rows, arms[FEDERATED].scores).values()), axis=0).tolist()
    training = dict.fromkeys(found[FEDERATED], counts)
    judged[MAJORITY] = compare.majority(training, found[FEDERATED], spec.bootstrap, seed=job.seed, per_site=by_site)
    for block in judged.values():
        if not by_site:
            block["site_mean"] = {}
    judged["rows"] = {site: int(strangers.count((site,), "test")[0]) for site in strangers.sites}
    judged["gain"] = {}
    if CENTRALIZED in found and by_site:
        judged["gain"][CENTRALIZED] = compare.gain(
            found[FEDERATED], found[CENTRALIZED], arms[FEDERATED].threshold, arms[CENTRALIZED].threshold, spec.bootstrap,
            seed=job.seed, per_site=by_site,
        )  # fmt: skip
    return judged


def _told(result: Result, arms: Mapping[str, Arm], *, per_site: bool) -> dict[str, Any]:
    """Put in what the sites worked out themselves; returns who did not, and what is withheld, by model and site."""
    withheld: dict[str, dict[str, str]] = {}
    blocks: dict[str, dict[str, dict[str, float]]] = {}
    for name, arm in arms.items():
        told = arm.scores.told
        if told is None:
            continue
        blocks[name] = {site: own.figures for site, own in told.items() if own.figures is not None}
        said = {site: own.withheld for site, own in told.items() if own.withheld}
        withheld[name] = dict(sorted({**said, **arm.scores.silent}.items()))
        if name == FEDERATED:
            blocks[MAJORITY] = {site: own.majority for site, own in told.items() if own.majority is not None}
        else:
            gains = {site: own.gain for site, own in told.items() if own.gain is not None}
            mean = mean_over_sites(gains)
            result["gain"][name] = {"pooled": {}, "site_mean": mean, "sites": gains if per_site else {}}
    for name, block in blocks.items():
        result[name]["site_mean"] = mean_over_sites(block)
        result[name]["sites"] = block if per_site else {}
    return {"worked_out": "at the sites", "withheld": withheld}


def _finetuning(job: Job, arms: Mapping[str, Arm]) -> dict[str, Any]:
    """How long sites fine-tuned, and what; {} where they did not."""
    if FINETUNED not in arms:
        return {}
    outcome = arms[FINETUNED].outcome
    return {
        "epochs": job.finetuning.epochs,
        "selected_epoch": outcome.selected,
        "local_names": sorted(outcome.network.local),
    }


def _rows(records: Records) -> dict[str, dict[Split, int]]:
    """Rows of each split at each site."""
    return {site: {split: int(records.count((site,), split)[0]) for split in SPLITS} for site in records.sites}


def _listed(arm: Arm) -> float | list[float]:
    """The threshold as JSON: of labels, one each."""
    table = arm.scores.pooled_test
    return (
        cuts(arm.threshold, table.classes).tolist()
        if isinstance(table, LabelTable | LabelSums)
        else single(arm.threshold)
    )


def _training_counts(
    counts: Mapping[str, dict[str, list[int]]], rows: Mapping[str, Mapping[Split, int]] | None, scores: Scores
) -> Mapping[str, Counts]:
    """Rows of each class that a majority rule may learn from, by site or pooled; of labels, without and with each."""
    if scores.training is not None:
        return {POOLED: scores.training}
    known = {site: np.add(c["train"], c["validation"]) for site, c in counts.items()}
    if rows is None:
        return {site: count.tolist() for site, count in known.items()}
    seen = {site: of["train"] + of["validation"] for site, of in rows.items()}
    return {site: np.stack([seen[site] - count, count], axis=1).tolist() for site, count in known.items()}


def _curve(arm: Arm) -> dict[str, Any]:
    """Reliability of the positive class's probability; of more classes, of the decision's; of labels, of all together."""
    table = arm.scores.pooled_test
    curve = calibration(table if isinstance(table, ScoreTable) else table.decision())
    return {"predicted": curve["predicted"], "observed": curve["observed"], "count": curve["records"]}


def _by_class(draw: Callable[[ScoreTable], dict[str, list[float]]], arm: Arm) -> dict[str, Any]:
    """A curve of two classes; of more, one of each against the rest, or of each label, in label order."""
    table = arm.scores.pooled_test
    if isinstance(table, ScoreTable):
        return draw(table)
    return {"classes": [draw(table.one_vs_rest(label)) for label in range(table.classes)]}


def _operating_point(arm: Arm, figures: compare.Figures) -> dict[str, Any]:
    """What the threshold does on the validation rows that it was chosen on, and on test rows, with intervals."""
    seen = tables.measure(tables.merge(arm.scores.validation.values()), arm.threshold)
    ends = [name + end for name in AT_THE_THRESHOLD for end in ("", "_low", "_high")]
    return {
        "threshold": arm.threshold,
        "validation": {name: seen[name] for name in AT_THE_THRESHOLD if name in seen},
        "test": {name: figures["pooled"][name] for name in ends if name in figures["pooled"]},
    }


def _fairness(result: Result, arms: Mapping[str, Arm]) -> dict[str, Any]:
    """By model and metric, how figures spread over sites; below `gain`, who gains on each baseline and who loses."""
    found: dict[str, Any] = {name: {} for name in arms}
    for name in arms:
        for metric in BY_SITE:
            values = {site: block[metric] for site, block in result[name]["sites"].items() if metric in block}
            if values:
                found[name][metric] = spread(values, lower_is_better=metric in LOWER_IS_BETTER)
    found["gain"] = {
        baseline: {
            metric: sided
            for metric in BY_SITE
            if (sided := sides(gain["sites"], metric, lower_is_better=metric in LOWER_IS_BETTER))
        }
        for baseline, gain in result["gain"].items()
    }
    return found


def _target(job: Job, arms: Mapping[str, Arm]) -> dict[str, Any]:
    """Rounds and bytes until the federation's validation figure reached the target; {} without one."""
    spec = job.evaluation.target
    if spec is None:
        return {}
    value = spec.value
    if spec.fraction is not None:
        whole = arms[CENTRALIZED]
        kept = (entry["validation"] for entry in whole.history if entry["completed"] == whole.outcome.selected)
        figure = next((figures[spec.metric] for figures in kept if figures and spec.metric in figures), None)
        value = None if figure is None else spec.fraction * figure
    if value is None:
        return {"metric": spec.metric, "value": None, "first": None, "stays": None, "best": None}
    lower = spec.metric in LOWER_IS_BETTER
    return {
        "metric": spec.metric,
        "value": value,
        **reached(arms[FEDERATED].history, spec.metric, value, lower_is_better=lower),
    }

"""What a finished experiment says: scores of every model, thresholds from validation, and the whole of `result.json`.

Exact figures need row scores, which one process may hand to its own report. Where they may not leave, pooled figures come
from score histograms summed over sites; then there are no figures by site and no paired differences.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from wardround.config.job import Job
from wardround.federation import messages
from wardround.federation.records import Records
from wardround.federation.rounds import Outcome
from wardround.store.run import Run
from wardround.training import figures as compare
from wardround.training.metrics import ScoreTable, calibration, choose_threshold, roc_curve
from wardround.types import Description, Engine, Message, Request, Split

FEDERATED, CENTRALIZED, ALONE, MAJORITY = "federated", "centralized", "local", "majority"
POOLED = "all sites"

Result = dict[str, Any]
Tables = dict[str, ScoreTable]


@dataclass(frozen=True, kw_only=True)
class Scores:
    """One model's scores on held-out rows.

    Attributes:
        validation, test: site -> its rows, or one pooled histogram under the name `all sites`.
        training: pooled rows that were trained on, for the majority class; None where sites tell their own counts.
        by_site: whether the tables are rows of sites, exact and aligned between models.
    """

    validation: Tables
    test: Tables
    training: ScoreTable | None
    by_site: bool

    def threshold(self, how: float | Literal["balanced", "accuracy"]) -> float:
        """The decision threshold, from validation rows alone; 0.5 where there are none to choose it on."""
        rows = ScoreTable.merge(list(self.validation.values()))
        return 0.5 if isinstance(how, str) and not len(rows) else choose_threshold(rows, how)

    @property
    def pooled_test(self) -> ScoreTable:
        """Test rows of all sites."""
        return ScoreTable.merge(list(self.test.values()))


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One trained model of an experiment.

    Attributes:
        outcome: what training gave.
        history: one entry a round.
        threshold: probability from which on a row is called positive.
        scores: of held-out rows.
        personalized: whether sites have parts of their own.
    """

    outcome: Outcome
    history: list[dict[str, Any]]
    threshold: float
    scores: Scores
    personalized: bool


def exact(engine: Engine, outcome: Outcome) -> Scores:
    """Row scores of every site, handed over by a process that holds them all."""
    validation, test = (_released(engine, outcome, split) for split in ("validation", "test"))
    return Scores(validation=validation, test=test, training=None, by_site=True)


def pooled(histograms: Mapping[Split, ScoreTable]) -> Scores:
    """Scores from histograms summed over sites."""
    return Scores(
        validation={POOLED: histograms["validation"]},
        test={POOLED: histograms["test"]},
        training=ScoreTable.merge([histograms["train"], histograms["validation"]]),
        by_site=False,
    )


def _released(engine: Engine, outcome: Outcome, split: str) -> Tables:
    arrays = messages.server_arrays(outcome.server)
    request = Request(message=Message(stage=messages.RELEASE, meta={"split": split}, arrays=arrays))
    tables: Tables = {}
    for reply in engine.ask(request, engine.sites, None):
        scores, labels = (reply.message.arrays[n].numpy() for n in ("scores", "labels"))
        tables[reply.sites[0]] = ScoreTable.from_rows(scores, labels)
    return tables


def result_of(job: Job, folder: Run, description: Description, records: Records, arms: Mapping[str, Arm]) -> Result:
    """What `result.json` holds: see the README for its layout."""
    spec, federated = job.evaluation, arms[FEDERATED]
    by_site = federated.scores.by_site
    counts = {site: records.class_counts(site) for site in records.sites} if by_site else {}
    per_site = spec.sites and by_site
    result: Result = {"name": job.name, "job": job.model_dump(mode="json")}
    result["dataset"] = {
        key: getattr(description, key) for key in ("name", "title", "source", "licence", "natural")
    } | {"classes": list(description.classes)}
    for name, arm in arms.items():
        result[name] = compare.figures(arm.scores.test, arm.threshold, spec.bootstrap, seed=job.seed, per_site=per_site)
    result[MAJORITY] = compare.majority(
        *_training_counts(counts, federated.scores), federated.scores.test, spec.bootstrap,
        seed=job.seed, per_site=per_site,
    )  # fmt: skip
    if not by_site:
        for name in (*arms, MAJORITY):
            result[name]["site_mean"] = {}  # one pooled histogram knows no sites
    result["gain"] = {
        name: compare.gain(
            federated.scores.test, arm.scores.test, federated.threshold, arm.threshold, spec.bootstrap,
            seed=job.seed, per_site=per_site,
        )
        for name, arm in arms.items() if name != FEDERATED and by_site
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
        "roc": {name: roc_curve(arm.scores.pooled_test) for name, arm in arms.items()},
        "model": {
            "name": job.model.name,
            "parameters": outcome.network.parameters,
            "shared": sum(v.numel() for v in outcome.network.shared.params.values()),
            "local_names": sorted(names),
        },
        "preprocessing": {"features": list(outcome.preprocessing.names) if outcome.preprocessing else []},
        "environment": folder.facts["versions"] | {key: folder.facts[key] for key in ("device", "threads")},
        "overlay_average": bool(outcome.overlay),
    }
    return result


def _training_counts(
    counts: Mapping[str, dict[str, list[int]]], scores: Scores
) -> tuple[dict[str, float], dict[str, float]]:
    """Positive and negative rows that a majority rule may learn from, by site or pooled."""
    if scores.training is not None:
        return {POOLED: float(scores.training.positives.sum())}, {POOLED: float(scores.training.negatives.sum())}
    seen = {site: np.add(c["train"], c["validation"]) for site, c in counts.items()}
    return {site: float(n[1]) for site, n in seen.items()}, {site: float(n[0]) for site, n in seen.items()}


def _curve(arm: Arm) -> dict[str, Any]:
    curve = calibration(arm.scores.pooled_test)
    return {"predicted": curve["predicted"], "observed": curve["observed"], "count": curve["records"]}

"""Readmission within 30 days: federated beside pooled, local and scikit-learn, as a Markdown table.

    WARDROUND_DATA=... python -m benchmarks.readmission

Five seeds, each with a split of its own; all models of a seed share rows, and all but the sites alone and the trees share
the preprocessing that the federation fitted. Every model has the same tuning budget: twelve configurations, of which each seed
takes the one with the lowest loss on its own validation rows, since those of one seed are test rows of another. Models that
train in rounds, or grow trees, keep the round of the lowest validation loss. No test row is looked at for either.

An AUROC is the mean over the seeds. Its interval is that of 1000 resamples of the patients: a resample draws patients
anew, and each split's test rows count as often as their patients were drawn. Models are not trained again.
"""

from __future__ import annotations

import math
import statistics
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wardround import load, run
from wardround.experiment import records_of
from wardround.prediction import load_predictor
from wardround.types import SPLITS, Description, SiteData

CONFIG = Path(__file__).parent.parent / "examples" / "readmission.yaml"
SEEDS = range(5)
RESAMPLES = 1000

Floats = NDArray[np.float64]
Overrides = dict[str, Any]

STEPS, RATES, DECAYS = (4, 16), (0.03, 0.1), (0.1, 0.3, 1.0)
FEDERATED: dict[str, Overrides] = {
    "federated, FedAvg": {},
    "federated, FedProx": {"algorithm.name": "fedprox", "algorithm.mu": 0.1},
    "federated, SCAFFOLD": {"algorithm.name": "scaffold"},
    "federated, an intercept a site": {"model.local": ["linear.bias"]},
    "federated, the intercept decays": {"training.optimizer.decay": "all"},
}
ALONE: Overrides = {"model.local": ["*"], "data.preprocessing.standardize": "site", "participation.quorum": 1}
POOLED, LOCAL = "pooled (centralised)", "each site alone"
REFERENCE, TREES = "pooled logistic (scikit-learn)", "pooled gradient boosting (scikit-learn)"


@dataclass(frozen=True, kw_only=True)
class Rows:
    """All rows of one seed, site after site."""

    description: Description
    sites: dict[str, SiteData]

    def column(self, name: str) -> NDArray[Any]:
        """One array of all sites."""
        return np.concatenate([getattr(data, name) for data in self.sites.values()])

    def part(self, name: str) -> NDArray[np.bool_]:
        """Which rows are in a split."""
        return np.asarray(self.column("split") == SPLITS.index(name))

    @property
    def site(self) -> NDArray[np.str_]:
        """The site of each row."""
        return np.concatenate([np.full(len(data.labels), name) for name, data in self.sites.items()])


@dataclass(frozen=True, kw_only=True)
class Tried:
    """One configuration on one seed: the validation loss of what it keeps, and its test scores in the order of the rows."""

    loss: float
    scores: Floats


def rows_of(seed: int) -> Rows:
    description, sites = records_of(load(CONFIG, [f"seed={seed}"]))
    return Rows(description=description, sites=sites)


class Merged:
    """The rows of a seed as one site, with the split that they have: the centralised model as a federation of one."""

    def __init__(self, seed: int) -> None:
        self.rows = rows_of(seed)

    def describe(self) -> Description:
        """One site."""
        return replace(self.rows.description, sites=("all",))

    def load(self, site: str) -> SiteData:
        """All rows."""
        return SiteData(**{name: self.rows.column(name) for name in ("features", "labels", "patients", "split")})


def trained(seed: int, rows: Rows, overrides: Overrides, *, own: bool) -> Tried:
    """A run, and its model on the test rows; `own`: each site scores with its own part of the model."""
    with tempfile.TemporaryDirectory() as folder:
        fixed = {"seed": seed, "evaluation.baselines": [], "evaluation.bootstrap": 0, "engine.threads": 1}
        job = load(CONFIG, [f"{key}={_yaml(value)}" for key, value in {**fixed, **overrides}.items()])
        result = run(job, Path(folder) / "run", report=False)
        shared = None if own else load_predictor(Path(folder) / "run")
        scores = []
        for site, data in rows.sites.items():
            predictor = shared or load_predictor(Path(folder) / "run", site=site)
            scores.append(predictor.probabilities(data.features[data.split == SPLITS.index("test")]))
    losses = [entry["validation"].get("loss", math.inf) for entry in result["history"]["federated"]]
    return Tried(loss=min(losses), scores=np.concatenate(scores))


def _yaml(value: Any) -> str:
    return str(value).replace("'", '"')


def grid(common: Overrides, sites: int = 1) -> Iterator[tuple[str, Overrides]]:
    """Twelve configurations; one site that stands for several takes as many steps as these together."""
    for steps, rate, decay in product(STEPS, RATES, DECAYS):
        yield (
            f"{steps} steps, rate {rate:g}, decay {decay:g}",
            {
                **common,
                "training.local_steps": steps * sites,
                "training.optimizer.learning_rate": rate,
                "training.optimizer.weight_decay": decay,
            },
        )


def prepared(seed: int, rows: Rows) -> Floats:
    """All rows through the preprocessing that the federation fits."""
    with tempfile.TemporaryDirectory() as folder:
        job = load(CONFIG, [f"seed={seed}", "training.rounds=1", "evaluation.baselines=[]", "evaluation.bootstrap=0"])
        run(job, Path(folder) / "run", report=False)
        preprocessing = load_predictor(Path(folder) / "run").preprocessing
    if preprocessing is None:
        raise TypeError("the run made no preprocessing")
    return preprocessing.transform(rows.column("features"))


def logistic(seed: int, rows: Rows) -> dict[str, Tried]:
    from sklearn.linear_model import LogisticRegression

    features, labels = prepared(seed, rows), rows.column("labels")
    train, validation, test = (rows.part(name) for name in SPLITS)
    tried = {}
    for penalty in np.geomspace(1e-4, 1.0, 12):
        model = LogisticRegression(C=penalty, max_iter=5000).fit(features[train], labels[train])
        scores = model.predict_proba(features)[:, 1]
        loss = log_loss(labels[validation], scores[validation])
        tried[f"C {penalty:.2g}"] = Tried(loss=loss, scores=scores[test])
    return tried


def boosting(seed: int, rows: Rows) -> dict[str, Tried]:
    from sklearn.ensemble import HistGradientBoostingClassifier

    features, labels = rows.column("features"), rows.column("labels")
    train, validation, test = (rows.part(name) for name in SPLITS)
    tried = {}
    for rate, leaves, penalty in product((0.03, 0.1), (3, 7, 15), (0.0, 10.0)):
        model = HistGradientBoostingClassifier(
            learning_rate=rate, max_leaf_nodes=leaves, l2_regularization=penalty, max_iter=200, early_stopping=False,
            categorical_features=[c.kind == "categorical" for c in rows.description.columns], random_state=seed,
        ).fit(features[train], labels[train])  # fmt: skip
        stages = [stage[:, 1] for stage in model.staged_predict_proba(features[~train])]
        held = validation[~train]
        losses = [log_loss(labels[validation], stage[held]) for stage in stages]
        best = int(np.argmin(losses))
        scores = stages[best][test[~train]]
        tried[f"rate {rate:g}, {leaves} leaves, penalty {penalty:g}"] = Tried(loss=losses[best], scores=scores)
    return tried


def log_loss(labels: NDArray[np.int64], scores: Floats) -> float:
    chosen = np.clip(np.where(labels == 1, scores, 1.0 - scores), 1e-15, 1.0)
    return float(-np.log(chosen).mean())


def auroc(scores: Floats, labels: NDArray[np.int64], weights: Floats) -> Floats:
    """The area for each resample's weights [B, n] of the rows [n]; ties count half."""
    _, group = np.unique(scores, return_inverse=True)
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(group[order]) > 0])
    positives, negatives = (
        np.add.reduceat((weights * (labels == c))[:, order], starts, axis=1).astype(np.float64) for c in (1, 0)
    )
    below = np.cumsum(negatives, axis=1) - negatives / 2
    pairs = positives.sum(axis=1) * negatives.sum(axis=1)
    return np.asarray((positives * below).sum(axis=1) / np.where(pairs > 0, pairs, np.nan))


def resampled(seeds: Sequence[Rows], scores: Sequence[Floats]) -> Floats:
    """The mean AUROC over seeds as it is, and for each resample of the patients: [1 + RESAMPLES]."""
    patients = np.unique(seeds[0].column("patients"))
    draws = np.random.default_rng(0).multinomial(len(patients), np.full(len(patients), 1 / len(patients)), RESAMPLES)
    draws = np.concatenate([np.ones((1, len(patients)), dtype=draws.dtype), draws])
    areas = []
    for rows, own in zip(seeds, scores, strict=True):
        test = rows.part("test")
        place = np.searchsorted(patients, rows.column("patients")[test])
        areas.append(auroc(own, rows.column("labels")[test], draws[:, place]))
    return np.mean(areas, axis=0)


def within_sites(seeds: Sequence[Rows], scores: Sequence[Floats]) -> float:
    """The AUROC over pairs of patients of one site, mean over seeds: what a calibration between sites does not change."""
    areas = []
    for rows, own in zip(seeds, scores, strict=True):
        test = rows.part("test")
        labels, site = rows.column("labels")[test], rows.site[test]
        won = pairs = 0.0
        for name in rows.sites:
            here = site == name
            count = float(labels[here].sum()) * float((1 - labels[here]).sum())
            if count:
                won += count * float(auroc(own[here], labels[here], np.ones((1, int(here.sum()))))[0])
                pairs += count
        areas.append(won / pairs)
    return statistics.mean(areas)


def interval(values: Floats) -> str:
    low, high = np.nanquantile(values[1:], (0.025, 0.975))
    return f"{values[0]:.3f} ({low:.3f} to {high:.3f})"


def best_of(tried: Sequence[Mapping[str, Tried]]) -> tuple[str, float, list[Floats]]:
    """Each seed's configuration of the lowest validation loss: the one chosen most often, mean loss, scores a seed."""
    names = [min(seed, key=lambda name: seed[name].loss) for seed in tried]
    (name, often), *_ = Counter(names).most_common()
    kept = [seed[name] for seed, name in zip(tried, names, strict=True)]
    return f"{name} ({often} of {len(names)} seeds)", statistics.mean(k.loss for k in kept), [k.scores for k in kept]


def tried_on(name: str, seed: int) -> dict[str, Tried]:
    """One model's configurations on one seed."""
    rows = rows_of(seed)
    if name == REFERENCE:
        return logistic(seed, rows)
    if name == TREES:
        return boosting(seed, rows)
    common, own, count = FEDERATED.get(name, {}), "model.local" in FEDERATED.get(name, {}), 1
    if name == POOLED:
        common = {"data.dataset": "benchmarks.readmission:Merged", "data.options": {"seed": seed}}
        count = len(rows.sites)
    if name == LOCAL:
        common, own = ALONE, True
    return {key: trained(seed, rows, job, own=own) for key, job in grid(common, count)}


def main() -> None:
    seeds = [rows_of(seed) for seed in SEEDS]
    names = [*FEDERATED, POOLED, LOCAL, REFERENCE, TREES]
    tasks = list(product(names, SEEDS))
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        found = dict(zip(tasks, pool.map(tried_on, *zip(*tasks, strict=True)), strict=True))
    arms = {name: [found[name, seed] for seed in SEEDS] for name in names}
    chosen = {name: best_of(tried) for name, tried in arms.items()}
    areas = {name: resampled(seeds, scores) for name, (_, _, scores) in chosen.items()}

    description, test = seeds[0].description, [rows.part("test") for rows in seeds]
    positives = [int(rows.column("labels")[own].sum()) for rows, own in zip(seeds, test, strict=True)]
    print(f"{description.title}. {len(seeds[0].sites)} sites, {len(seeds)} seeds.")
    print(f"Test rows a seed: {int(test[0].sum())}, of which readmitted: {', '.join(map(str, positives))}.\n")
    print(
        "| model | chosen most often on validation | validation loss | test AUROC | within sites | minus pooled logistic |"
    )
    print("|---|---|---|---|---|---|")
    for name, (configuration, loss, scores) in chosen.items():
        gap = "" if name == REFERENCE else interval(areas[name] - areas[REFERENCE])
        cells = [name, configuration, f"{loss:.4f}", interval(areas[name]), f"{within_sites(seeds, scores):.3f}", gap]
        print(f"| {' | '.join(cells)} |", flush=True)
    print(f"\nThe best federated model on validation: {min(FEDERATED, key=lambda name: chosen[name][1])}.")


if __name__ == "__main__":
    main()

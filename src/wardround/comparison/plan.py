"""What a comparison trains: methods x settings x seeds x configurations, each a job of its own.

Every method gets the same number of configurations in every cell (a method in a setting with one seed), and the one that
is best on that cell's validation rows is scored on its test rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from wardround.algorithms import presets
from wardround.channels.named import NAMED
from wardround.config.job import Job
from wardround.config.load import from_mapping
from wardround.errors import ConfigError
from wardround.federation.baselines import changed
from wardround.judgement import ALONE, CENTRALIZED, FEDERATED

BASELINES = (CENTRALIZED, ALONE)
"""Methods that are no federation; they are tuned like one."""
PLAIN, JOINT = "plain", "+"
"""The channel that a method's name leaves out, and what stands before any other."""
METRICS = ("auroc", "balanced_accuracy", "accuracy")
"""Known of validation rows after every round, and of test rows."""

LEARNING_RATE = "training.optimizer.learning_rate"
DECADES = 1.0
"""Learning rates are drawn from the job's own, divided and multiplied by ten to this power."""
OWN: dict[str, dict[str, tuple[float, float]]] = {
    "fedprox": {"algorithm.mu": (1e-3, 1.0)},
    "fedavgm": {"algorithm.server.learning_rate": (0.03, 1.0)},
    "fedadam": {"algorithm.server.learning_rate": (3e-3, 0.3)},
    "fedyogi": {"algorithm.server.learning_rate": (3e-3, 0.3)},
    "fedadagrad": {"algorithm.server.learning_rate": (1e-2, 1.0)},
    "qfedavg": {"algorithm.q": (0.01, 5.0)},
}
"""Method -> its own hyper-parameters with the range in which they are drawn, on a logarithmic scale."""
_STEPS = (0.6180339887498949, 0.7548776662466927)
"""Fractional parts that fill an interval evenly (golden and plastic ratio): of learning rates, of own hyper-parameters."""

Configuration = dict[str, float]
"""Job key -> value."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How records lie at the sites.

    Attributes:
        label: `natural`, `IID`, `alpha 0.1`.
        changes: keys of the job's `partition` and their values.
    """

    label: str
    changes: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One training run.

    Attributes:
        method: a preset, a plug-in `module:Class`, one of `BASELINES`, or `algorithm+channel` off the plain channel.
        setting: label of the setting.
        seed: the job's seed.
        number: of the configuration in its cell, 0 for the job's own.
        configuration: the hyper-parameters that were drawn.
        job: the federation's job with all of that; a baseline's is derived from it.
    """

    method: str
    setting: str
    seed: int
    number: int
    configuration: Configuration
    job: Job

    @property
    def arm(self) -> str:
        """Which model this is, as `experiment.train_arm` names it."""
        return self.method if self.method in BASELINES else FEDERATED


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A comparison before it runs.

    Attributes:
        job: what all runs have in common.
        methods: in the order of the table; the baselines come last.
        settings: in the order of the table.
        seeds: one split, partition and initial model each.
        budget: configurations a method in each cell, 1 or more.
        metric: of `METRICS`; configurations are chosen by it, on validation rows.
        reference: the method that the others are compared with.
        target: value of the metric on validation rows for 'rounds to target', or None for 99 % of the centralised model's.
    """

    job: Job
    methods: tuple[str, ...]
    settings: tuple[Setting, ...]
    seeds: tuple[int, ...]
    budget: int
    metric: str
    reference: str
    target: float | None = None

    def trials(self) -> list[Trial]:
        """All runs, those on the same records side by side.

        Raises:
            ConfigError: a method that the job cannot have.
        """
        return [
            self._trial(method, setting, seed, number, configuration)
            for setting in self.settings
            for seed in self.seeds
            for method in self.methods
            for number, configuration in enumerate(configurations(method, self.job, self.budget))
        ]

    def _trial(self, method: str, setting: Setting, seed: int, number: int, configuration: Configuration) -> Trial:
        changes: dict[str, Any] = {f"partition.{key}": value for key, value in setting.changes.items()}
        changes |= {"seed": seed, **configuration, **_carried(method)}
        # one process is one thread, and figures come from the comparison
        changes |= {"engine.workers": 1, "engine.threads": self.job.engine.threads or 1}
        changes |= {"evaluation.bootstrap": 0, "evaluation.baselines": (), "evaluation.sites": True}
        try:
            job = changed(_with_method(self.job, algorithm_of(method)), changes)
        except ValidationError as error:
            raise ConfigError(f"method {method}: {error}") from error
        return Trial(
            method=method, setting=setting.label, seed=seed, number=number, configuration=configuration, job=job
        )


def plan(
    job: Job,
    *,
    algorithms: Sequence[str],
    alphas: Sequence[str] = (),
    channels: Sequence[str] = (),
    seeds: int = 5,
    budget: int = 8,
    metric: str = "auroc",
    reference: str | None = None,
    baselines: Sequence[str] = BASELINES,
    target: float | None = None,
) -> Plan:
    """A plan from what a person asks for.

    Args:
        job: what all runs have in common; its own algorithm is set aside, its learning rate is the middle of the range.
        algorithms: presets or plug-ins.
        alphas: `natural`, `iid`, or concentrations of the Dirichlet; none for the job's own partition.
        channels: of `wardround.channels.named.NAMED`; each algorithm is trained over each. None: over the job's own alone.
        seeds: how many, from the job's own upwards; at least 2.
        budget: configurations a method in each cell; 1 takes the job's own alone.
        metric: one of `METRICS`.
        reference: a method of the comparison, such as `fedavg` or `fedavg+secagg`; the first where None.
        baselines: `centralized`, `local`, both or none.
        target: see `Plan`.

    Raises:
        ConfigError: an unknown name, a repeated one, or a number out of range.
    """
    for what, names in (
        ("algorithms", algorithms), ("alpha", alphas), ("baselines", baselines), ("channels", channels),
    ):  # fmt: skip
        repeated = sorted({name for name in names if list(names).count(name) > 1})
        if repeated:
            raise ConfigError(f"{what}: {', '.join(repeated)} is given twice: name each once")
    if not algorithms:
        raise ConfigError(f"algorithms: none given: name some of {', '.join(presets.PRESETS)}")
    unknown = [name for name in baselines if name not in BASELINES]
    if unknown:
        raise ConfigError(f"baselines: {', '.join(unknown)} is unknown: expected {' or '.join(BASELINES)}")
    if metric not in METRICS:
        raise ConfigError(f"metric {metric!r} is unknown here: expected one of {', '.join(METRICS)}")
    if seeds < 2:
        raise ConfigError(f"seeds = {seeds}: at least 2, for one run shows no spread")
    if budget < 1:
        raise ConfigError(f"tune = {budget}: expected the number of configurations a method may try, 1 or more")
    strange = [name for name in channels if name not in NAMED]
    if strange:
        raise ConfigError(f"channels: {', '.join(strange)} is unknown: expected some of {', '.join(NAMED)}")
    methods = tuple(
        algorithm if channel in ("", PLAIN) else f"{algorithm}{JOINT}{channel}"
        for algorithm in algorithms
        for channel in (channels or ("",))
    )
    reference = reference or methods[0]
    if reference not in methods:
        raise ConfigError(f"reference {reference!r} is not compared: it must be one of {', '.join(methods)}")
    if channels:
        # the job's own channel is one among those that are compared; sites' figures are wanted of all of them
        job = changed(job, {"privacy": {}, "evaluation.release_scores": True})
    settings = tuple(_setting(alpha) for alpha in alphas) or (_own(job),)
    return Plan(
        job=job,
        methods=(*methods, *(name for name in BASELINES if name in baselines)),
        settings=settings,
        seeds=tuple(range(job.seed, job.seed + seeds)),
        budget=budget,
        metric=metric,
        reference=reference,
        target=target,
    )


def configurations(method: str, job: Job, budget: int) -> list[Configuration]:
    """The hyper-parameters that a method tries: the job's own first, then low-discrepancy draws on a logarithmic scale.

    All methods try the same learning rates; a method's own hyper-parameters are drawn beside them, so nobody tries more.
    """
    tried: list[Configuration] = []
    middle = job.training.optimizer.learning_rate
    for number in range(budget):
        drawn: Configuration = {}
        if number:
            drawn[LEARNING_RATE] = _round(middle * 10 ** (DECADES * (2 * (number * _STEPS[0] % 1) - 1)))
            for key, (low, high) in OWN.get(algorithm_of(method), {}).items():
                drawn[key] = _round(low * (high / low) ** ((0.5 + number * _STEPS[1]) % 1))
        tried.append(drawn)
    return tried


def algorithm_of(method: str) -> str:
    """The algorithm of a method, whatever channel carries it."""
    return method.partition(JOINT)[0]


def channel_of(method: str) -> str:
    """The name of the channel that carries a method; `plain` where it names none."""
    return method.partition(JOINT)[2] or PLAIN


def _carried(method: str) -> dict[str, Any]:
    channel = channel_of(method)
    return {} if channel == PLAIN else {f"privacy.{key}": value for key, value in NAMED[channel].items()}


def _round(value: float) -> float:
    return float(f"{value:.3g}")


def _with_method(job: Job, method: str) -> Job:
    if ":" in method:
        return from_mapping(job.model_dump(mode="json") | {"algorithm": {"name": method}}, where=f"method {method}")
    return presets.apply(job, "fedavg" if method in BASELINES else method)


def _setting(alpha: str) -> Setting:
    name = alpha.strip().lower()
    if name == "natural":
        return Setting(label="natural", changes={"kind": "natural"})
    if name == "iid":
        return Setting(label="IID", changes={"kind": "iid"})
    try:
        value = float(name)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise ConfigError(f"alpha {alpha!r}: expected natural, iid, or a concentration above 0, such as 0.5")
    return Setting(label=f"alpha {value:g}", changes={"kind": "dirichlet", "alpha": value})


def _own(job: Job) -> Setting:
    kind = job.partition.kind
    label = {"natural": "natural", "iid": "IID", "dirichlet": f"alpha {job.partition.alpha:g}"}.get(kind, kind)
    return Setting(label=label, changes={})

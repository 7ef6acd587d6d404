"""What a site allows: `site.yaml`. A job may be stricter than it and never looser; what is not allowed is refused.

Where a job's key changes what the whole federation computes, the site does not change it: it refuses, and says what it wants.
What concerns the site alone (which records, device, threads) it sets itself, in the job that comes out as `tightened`.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, field_validator, model_validator

from wardround.config.job import Job, PretrainedSpec, highest
from wardround.config.load import parse_yaml
from wardround.deploy.jobs import named_files, plugin_hash, references
from wardround.deploy.names import is_name
from wardround.deploy.project import Strict, read_settings, strict_from
from wardround.errors import ConfigError, WardroundError
from wardround.federation.baselines import changed, sites_asked
from wardround.types import Json

if TYPE_CHECKING:
    from wardround.federation.by_site import Judged, SiteFigures

HIDING = ("secagg", "he")
"""Channels of this package on which the server sees sums alone. A plug-in's word for itself is not taken."""
_DIGEST = re.compile(r"[0-9a-f]{64}")
_REFERENCE = re.compile(r"[A-Za-z_]\w*:[A-Za-z_]\w*")
_HOURS = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
_DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
Count = Annotated[int, Field(ge=1)]

KNOWN: Mapping[str, frozenset[str]] = {
    key: frozenset(members.split())
    for key, members in {
        "name": "",
        "seed": "",
        "data": "dataset options split preprocessing augment",
        "partition": "kind sites alpha classes_per_site shards min_rows quantity features options",
        "model": "name options local pretrained freeze",
        "algorithm": "name mu q server weighting options",
        "training": "rounds local_steps local_epochs batch_size accumulate optimizer loss sampling dtype",
        "participation": "fraction count quorum deadline_seconds attempts",
        "finetuning": "epochs layers learning_rate",
        "aggregation": "rule max_weight",
        "privacy": "channel encoding secure dp",
        "evaluation": "baselines bootstrap sites every select threshold target aggregate held_out maps maps_by bins "
        "release_scores site_figures",
        "engine": "kind device executor workers chunk commit_seconds precision compile threads options",
    }.items()
}
"""The keys of a job that this policy was written for. A job with another one is refused until somebody has thought about it."""


class Binding(Strict):
    """What a job's dataset means at this site."""

    dataset: str
    """The dataset here: a built-in name, or a plug-in `module:Class` that is under `plugins`."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Its options here: where the site's files are. The job's own never reach it, but for `from_job`."""
    from_job: list[str] = Field(default_factory=list)
    """Options that a job may set. Never those that are paths."""


class Allow(Strict):
    """Who may ask for what, by name. What is not listed is refused; nothing is listed to begin with."""

    submitters: list[str] = Field(default_factory=list)
    """Whose jobs are looked at."""
    models: list[str] = Field(default_factory=list)
    """`model.name`."""
    algorithms: list[str] = Field(default_factory=list)
    """`algorithm.name`."""
    servers: list[str] = Field(default_factory=lambda: ["average"])
    """`algorithm.server.name`."""
    channels: list[str] = Field(default_factory=lambda: ["secagg", "he"])
    """`privacy.channel.kind`."""
    aggregation: list[str] = Field(default_factory=lambda: ["mean"])
    """`aggregation.rule`."""
    peers: list[str] | None = None
    """Sites with which this one computes; null: any in the roster."""
    baselines: list[str] = Field(default_factory=list)
    """`evaluation.baselines`: `local` trains a model of this site alone as well, for as many rounds, which stays here."""


class PrivacyFloor(Strict):
    """The least protection."""

    hiding_channel: bool = True
    """Whether the channel must hide this site's contribution from the coordinator: `secagg` or `he`."""
    channel_options: dict[str, Any] = Field(default_factory=dict)
    """Options that the channel must have, with these values: `{active: true}`, say."""
    differential_privacy: bool = False
    """Whether `privacy.dp` must be set. This version has none, so `true` refuses every job."""


class Cohort(Strict):
    """How many must be in a sum."""

    minimum_sites: Count = 3
    """Fewest sites asked in a round, and in each sum that this site helps to open, of each group of the channel."""
    minimum_quorum: Count = 3
    """Fewest sites whose contribution makes a round, and which are in its sum where there is one. Held-out sites do not count."""
    retry_over_fewer: bool = False
    """Whether a sum that was opened may be opened again over other sites that differ in fewer than `minimum_sites`: a round that
    lost a site at the last moment then goes on, and whoever knows both sums knows what the lost sites sent."""
    minimum_rows: Count = 50
    """Fewest training rows that this site must have."""


class Release(Strict):
    """Which figures may leave."""

    site_figures: bool = False
    """Whether figures of this site alone may leave: finished ones of the kept model on its test rows, where a job asks for them
    (`evaluation.site_figures`), and what a channel that does not hide shows. Without it such jobs are refused."""
    row_scores: bool = False
    """Whether a job may say that scores and labels of single rows leave. No loop between hospitals asks for them, and a site
    answers no such question."""
    smallest_count: Count = 10
    """Smallest count, above none, that may leave of this site alone: that of its training rows must be as large. Figures of test
    rows of which a class has fewer do not leave. Above 1, figures need a channel that hides, for a histogram has cells of single
    rows."""
    small_classes: Literal["refuse", "withhold"] = "refuse"
    """Where a class has fewer rows in a split than `smallest_count`, and a job asks for figures by site: `refuse` it; or
    `withhold` these counts and figures and take part. The sum of all sites less what the others release tells them then."""

    def suppressed(self, counts: Mapping[str, int]) -> dict[str, int | None]:
        """Counts as they may leave: small ones become None, and with a single one also the next, which would give it away."""
        small = [name for name, count in counts.items() if 0 < count < self.smallest_count]
        if len(small) == 1:
            others = [name for name, count in counts.items() if count and name not in small]
            small += sorted(others, key=lambda name: (counts[name], name))[:1]
        return {name: None if name in small else count for name, count in counts.items()}

    def let_go(self, found: SiteFigures, judged: Judged) -> SiteFigures:
        """A site's figures as they may leave: without small counts, and without figures that come of a class with few rows."""
        from wardround.federation.by_site import SiteFigures, small
        from wardround.training.label_tables import LabelTable

        several = isinstance(judged.table, LabelTable)
        shown: dict[str, list[int | None]] = {}
        for split, row in found.counts.items():
            known = [0 if count is None else count for count in row]
            if several:  # each label divides the rows
                total = found.rows[split] or 0
                shown[split] = [self.suppressed({"with": n, "without": total - n})["with"] for n in known]
            else:
                shown[split] = list(self.suppressed({str(k): n for k, n in enumerate(known)}).values())
        # a total is as telling as a count where it is small, or where it is that of the one class that is not shown
        alone = {split for split, row in shown.items() if not several and row.count(None) == 1}
        rows = {
            split: None if split in alone or 0 < (total or 0) < self.smallest_count else total
            for split, total in found.rows.items()
        }
        few = small(judged.table, self.smallest_count)
        hidden = few or any(None in row for row in (*shown.values(), [*rows.values()]))
        reason = f"release.smallest_count is {self.smallest_count}, and a class has fewer rows here" if hidden else ""
        blocks = {name: None if few else getattr(found, name) for name in ("figures", "majority", "gain")}
        return SiteFigures(counts=shown, rows=rows, withheld=reason, **blocks)


class Limits(Strict):
    """What a job may use up."""

    rounds: Count = 200
    """`training.rounds`."""
    local_epochs: Count = 20
    """`training.local_epochs`."""
    local_steps: Count = 10_000
    """`training.local_steps`."""
    finetuning_epochs: Annotated[int, Field(ge=0)] = 20
    """`finetuning.epochs`."""
    seconds_a_task: Count = 3600
    """Seconds that one request may take."""
    hours_a_run: Count = 72
    """Hours from the first time that a job is let run to the last."""
    message_megabytes: Count = 1024
    """Longest message, in units of 10^6 bytes."""
    memory_megabytes: Count | None = None
    """Memory that the site process may allocate, in units of 10^6 bytes; null: no limit."""
    threads: Count = 1
    """CPU threads."""
    device: str = "cpu"
    """Where training runs here, whatever the job says."""


class Schedule(Strict):
    """When tasks are taken; outside of it they wait."""

    days: list[Day] = Field(default_factory=lambda: [*_DAYS])
    """Days on which a window begins."""
    hours: str | None = None
    """`20:00-06:00`; null: all day. A window may end on the next day."""
    timezone: str = "UTC"
    """Name of the time zone (IANA), `Europe/Vienna`, say."""

    @field_validator("hours")
    @classmethod
    def _hours(cls, value: str | None) -> str | None:
        if value is not None and (_HOURS.fullmatch(value) is None or value[:5] == value[6:]):
            raise ValueError("expected two different times such as 20:00-06:00, or null for all day")
        return value

    @field_validator("timezone")
    @classmethod
    def _timezone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ValueError("no such time zone here: expected a name such as Europe/Vienna") from error
        return value

    @field_validator("days")
    @classmethod
    def _some_day(cls, value: list[Day]) -> list[Day]:
        if not value:
            raise ValueError("expected at least one day")
        return value

    def is_open(self, moment: datetime) -> bool:
        """Whether tasks are taken at a moment (with its offset from UTC)."""
        local = moment.astimezone(ZoneInfo(self.timezone))
        today, yesterday = _DAYS[local.weekday()], _DAYS[local.weekday() - 1]
        if self.hours is None:
            return today in self.days
        begins, ends = self.hours[:5], self.hours[6:]
        clock = f"{local.hour:02}:{local.minute:02}"
        if begins < ends:
            return today in self.days and begins <= clock < ends
        return (today in self.days and clock >= begins) or (yesterday in self.days and clock < ends)

    def next_open(self, moment: datetime) -> datetime:
        """The first whole minute, from a moment on, at which tasks are taken; the moment itself where they are."""
        if self.is_open(moment):
            return moment
        at = moment.replace(second=0, microsecond=0)
        for _ in range(8 * 24 * 60):
            at += timedelta(minutes=1)
            if self.is_open(at):
                return at
        raise ConfigError(f"schedule: no window opens within eight days of {moment}")


class AutoRule(Strict):
    """Jobs that need no administrator. All of its conditions must hold."""

    name: str
    """What approved it, in the log."""
    submitters: Annotated[list[str], Field(min_length=1)]
    """Whose jobs."""
    models: list[str] | None = None
    """Only these; null: any that are allowed."""
    algorithms: list[str] | None = None
    """Only these; null: any that are allowed."""
    datasets: list[str] | None = None
    """Only these; null: any that are bound."""
    rounds: Count | None = None
    """At most so many rounds."""
    like_last: bool = True
    """Whether it must be as the last job that was approved by hand, but for `may_differ`, and with the same sites."""
    may_differ: list[str] = Field(default_factory=lambda: ["name", "seed"])
    """Keys in which it may differ from that job: `training.rounds`, `algorithm`."""

    @field_validator("name")
    @classmethod
    def _name(cls, value: str) -> str:
        if not is_name(value):
            raise ValueError("expected a-z, 0-9, _ and -")
        return value


class ApprovalSpec(Strict):
    """Who lets a job run that the policy allows."""

    auto: list[AutoRule] = Field(default_factory=list)
    """Rules, of which one must match; without one an administrator decides (`wardround deploy site review`)."""
    days: Count = 30
    """How long an approval holds."""


class SitePolicy(Strict):
    """All of `site.yaml`."""

    data: dict[str, Binding] = Field(default_factory=dict)
    """A job's `data.dataset` -> what it means here. None is bound to begin with, so nothing runs."""
    allow: Allow = Allow()
    privacy: PrivacyFloor = PrivacyFloor()
    cohort: Cohort = Cohort()
    release: Release = Release()
    limits: Limits = Limits()
    schedule: Schedule = Schedule()
    approval: ApprovalSpec = ApprovalSpec()
    plugins: dict[str, str] = Field(default_factory=dict)
    """`module:Class` -> SHA-256 of `plugins/module.py`, as the administrator read and approved it."""
    weights: list[str] = Field(default_factory=list)
    """SHA-256 of files that `model.pretrained` may name; it must say its own."""

    @model_validator(mode="after")
    def _sound(self) -> SitePolicy:
        for reference, digest in self.plugins.items():
            if _REFERENCE.fullmatch(reference) is None or _DIGEST.fullmatch(digest) is None:
                raise ValueError(f"plugins: {reference!r}: {digest!r}: expected module:Class and 64 hexadecimal digits")
        for digest in self.weights:
            if _DIGEST.fullmatch(digest) is None:
                raise ValueError(f"weights: {digest!r:.100}: expected 64 hexadecimal digits")
        for name, binding in self.data.items():
            if ":" in binding.dataset and binding.dataset not in self.plugins:
                raise ValueError(
                    f"data.{name}.dataset = {binding.dataset!r} is a plug-in that is not under plugins: add its hash"
                )
        names = [rule.name for rule in self.approval.auto]
        if len(set(names)) < len(names):
            raise ValueError("approval.auto has two rules of one name")
        return self

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of the policy's values, hexadecimal; comments and order do not matter."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def judge(self, job: Job, facts: Facts | None, asked: Asked) -> Verdict:
        """Whether the site may run a job.

        Args:
            job: what was asked, whose signature was checked.
            facts: of the site's records; None: not known, which is refused.
            asked: who submitted it, which sites it needs, which plug-ins it names.
        """
        case = _Case(policy=self, job=job, facts=facts, asked=asked)
        reasons = [reason for rule in _RULES for reason in rule(case)]
        return Verdict(
            allowed=not reasons, reasons=[str(reason) for reason in reasons],
            keys=sorted({".".join(reason.key.split(".")[:2]) for reason in reasons}),
            tightened=None if reasons else self.tighten(job), policy=self.digest, facts=facts, release=self.release,
        )  # fmt: skip

    def tighten(self, job: Job) -> Job:
        """The job as this site runs it: its own records, device and threads, and nothing of single rows."""
        binding = self.data[job.data.dataset]
        given = {name: value for name, value in job.data.options.items() if name in binding.from_job}
        threads = self.limits.threads
        return changed(
            job,
            {
                "data.dataset": binding.dataset,
                "data.options": {**binding.options, **given},
                "engine.device": self.limits.device,
                "engine.threads": min(job.engine.threads or threads, threads),
                "engine.workers": 1,
                "engine.executor": "sequential",  # there is one site: nothing to stack
                "engine.compile": False,
                "evaluation.release_scores": bool(self.release.row_scores and job.evaluation.release_scores),
                "evaluation.maps": 0,
            },
        )


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What the judge is told of the site's records; it stays at the site.

    Attributes:
        rows: training rows.
        classes: class name -> rows over all splits.
        splits: split -> rows of each class, or with and without each label; {}: not known.
    """

    rows: int
    classes: Mapping[str, int]
    splits: Mapping[str, Sequence[int]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What surrounds a job.

    Attributes:
        submitter: who signed it.
        sites: the sites that it needs.
        plugins: `module:Class` -> SHA-256, as the job says.
        folder: of this site's plug-in files; None: there is none.
    """

    submitter: str
    sites: Sequence[str]
    plugins: Mapping[str, str]
    folder: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a policy says of a job.

    Attributes:
        allowed: whether it may run, once it is approved.
        reasons: why not: each names key, value, and what the policy wants.
        keys: the job's keys behind the reasons, two levels deep, for the audit log.
        tightened: the job as this site runs it, where it is allowed.
        policy: digest of the policy.
        facts: what it was judged by; they stay at the site.
        release: which figures the policy lets go.
    """

    allowed: bool
    reasons: list[str]
    keys: list[str]
    tightened: Job | None
    policy: str
    facts: Facts | None = None
    release: Release | None = None


@dataclass(frozen=True, kw_only=True)
class _Reason:
    key: str
    value: Json
    wanted: str

    def __str__(self) -> str:
        return f"{self.key} = {self.value!r:.200}: {self.wanted}"


@dataclass(frozen=True, kw_only=True)
class _Case:
    policy: SitePolicy
    job: Job
    facts: Facts | None
    asked: Asked


Reasons = Iterator[_Reason]


def _keys(case: _Case) -> Reasons:
    for key, value in case.job.model_dump(mode="json").items():
        members = KNOWN.get(key)
        if members is None:
            yield _Reason(
                key=key, value=value, wanted="this version's policy does not know the key: update wardround here"
            )
            continue
        for member in value if isinstance(value, dict) else ():
            if member not in members:
                name = f"{key}.{member}"
                yield _Reason(
                    key=name,
                    value=value[member],
                    wanted="this version's policy does not know the key: update wardround here",
                )


def _names(case: _Case) -> Reasons:
    allow = case.policy.allow
    for key, value, allowed, where in (
        ("submitter", case.asked.submitter, allow.submitters, "submitters"),
        ("model.name", case.job.model.name, allow.models, "models"),
        ("algorithm.name", case.job.algorithm.name, allow.algorithms, "algorithms"),
        ("algorithm.server.name", case.job.algorithm.server.name, allow.servers, "servers"),
        ("privacy.channel.kind", case.job.privacy.channel.kind, allow.channels, "channels"),
        ("aggregation.rule", case.job.aggregation.rule, allow.aggregation, "aggregation"),
    ):
        if value not in allowed:
            yield _Reason(key=key, value=value, wanted=f"allow.{where} has {', '.join(allowed) or 'none'}")


def _data(case: _Case) -> Reasons:
    binding = case.policy.data.get(case.job.data.dataset)
    if binding is None:
        known = ", ".join(case.policy.data) or "none"
        yield _Reason(key="data.dataset", value=case.job.data.dataset, wanted=f"data binds {known}")
    else:
        for name, value in case.job.data.options.items():
            if name not in binding.from_job:
                wanted = (
                    f"data.{case.job.data.dataset}.from_job has {', '.join(binding.from_job) or 'none'}: leave it out"
                )
                yield _Reason(key="data.options", value={name: value}, wanted=wanted)
            elif name in dict(named_files(case.job)):
                wanted = "its content: a job names no file of this site"
                yield _Reason(key="data.options", value={name: value}, wanted=wanted)
    if case.job.partition.kind != "natural":
        yield _Reason(
            key="partition.kind", value=case.job.partition.kind, wanted="a hospital's records are not dealt: natural"
        )
    elif case.job.partition.features != type(case.job.partition.features)():
        value = case.job.partition.features.model_dump(mode="json", exclude_defaults=True)
        yield _Reason(
            key="partition.features", value=value, wanted="a hospital's records are not changed: leave it out"
        )
    if "centralized" in case.job.evaluation.baselines:
        value = list(case.job.evaluation.baselines)
        yield _Reason(key="evaluation.baselines", value=value, wanted="records are not merged: leave centralized out")


def _code(case: _Case) -> Reasons:
    bound = case.job.data.dataset in case.policy.data  # then it is a name here, and what it names is the site's own
    for key, reference in references(case.job):
        if not (bound and key == "data.dataset"):
            yield from _plugin(case, key, reference)
    for reference in sorted({binding.dataset for binding in case.policy.data.values() if ":" in binding.dataset}):
        yield from _approved_file(case.policy, "data.dataset", reference, case.asked.folder)
    spec = case.job.model.pretrained
    if spec is not None:
        digest = spec.sha256 if isinstance(spec, PretrainedSpec) else None
        if digest not in case.policy.weights:
            value = digest or (spec.weights if isinstance(spec, PretrainedSpec) else spec)
            wanted = "weights has no such file: give its sha256, which the administrator approves"
            yield _Reason(key="model.pretrained", value=value, wanted=wanted)


def _plugin(case: _Case, key: str, reference: str) -> Reasons:
    approved, named = case.policy.plugins.get(reference), case.asked.plugins.get(reference)
    if approved is None:
        yield _Reason(
            key=key, value=reference, wanted="plugins has no such plug-in: the administrator has not approved it"
        )
    elif named != approved:
        yield _Reason(
            key=key, value=reference, wanted=f"plugins approves the file {approved}, and the job means {named}"
        )
    else:
        yield from _approved_file(case.policy, key, reference, case.asked.folder)


def _approved_file(policy: SitePolicy, key: str, reference: str, folder: Path | None) -> Reasons:
    try:
        found = None if folder is None else plugin_hash(folder, reference)
    except WardroundError as error:
        yield _Reason(key=key, value=reference, wanted=str(error))
        return
    if found != policy.plugins[reference]:
        wanted = f"plugins approves the file {policy.plugins[reference]}, and here lies {found}"
        yield _Reason(key=key, value=reference, wanted=wanted)


def _privacy(case: _Case) -> Reasons:
    floor, release, channel = case.policy.privacy, case.policy.release, case.job.privacy.channel
    hides = channel.kind in HIDING
    if floor.hiding_channel and not hides:
        wanted = f"privacy.hiding_channel wants one of {', '.join(HIDING)}"
        yield _Reason(key="privacy.channel.kind", value=channel.kind, wanted=wanted)
    for name, value in floor.channel_options.items():
        if channel.options.get(name) != value:
            wanted = f"privacy.channel_options wants {name}: {value!r}"
            yield _Reason(key="privacy.channel.options", value={name: channel.options.get(name)}, wanted=wanted)
    if floor.differential_privacy and case.job.privacy.dp is None:
        yield _Reason(key="privacy.dp", value=None, wanted="privacy.differential_privacy wants noise")
    if not hides and not release.site_figures:
        wanted = f"release.site_figures is false: figures leave in sums alone, on {', '.join(HIDING)}"
        yield _Reason(key="privacy.channel.kind", value=channel.kind, wanted=wanted)
    elif not hides and release.smallest_count > 1:
        wanted = f"release.smallest_count is {release.smallest_count}, and histograms show single rows but on {', '.join(HIDING)}"
        yield _Reason(key="privacy.channel.kind", value=channel.kind, wanted=wanted)
    if case.job.evaluation.release_scores and not release.row_scores:
        yield _Reason(key="evaluation.release_scores", value=True, wanted="release.row_scores is false")
    if case.job.evaluation.maps:
        yield _Reason(key="evaluation.maps", value=case.job.evaluation.maps, wanted="pictures of patients stay here: 0")


def _by_site(case: _Case) -> Reasons:
    """Figures of this site alone. One site that withheld them among others that do not would be known by subtraction."""
    release, spec = case.policy.release, case.job.evaluation
    for name in spec.baselines:
        if name not in case.policy.allow.baselines and name != "centralized":
            allowed = ", ".join(case.policy.allow.baselines) or "none"
            yield _Reason(key="evaluation.baselines", value=name, wanted=f"allow.baselines has {allowed}")
    if not spec.site_figures:
        return
    if not release.site_figures:
        wanted = "release.site_figures is false: figures of this site leave in sums alone; false"
        yield _Reason(key="evaluation.site_figures", value=True, wanted=wanted)
    elif case.facts is None or (release.smallest_count > 1 and not case.facts.splits):
        yield _Reason(key="evaluation.site_figures", value=True, wanted="the site's rows were not counted")
    elif release.small_classes == "refuse" and any(
        0 < count < release.smallest_count for row in case.facts.splits.values() for count in row
    ):
        wanted = (
            f"release.smallest_count is {release.smallest_count}, and a class has fewer rows in a split here, which the sum of "
            "all sites less the others' would tell; false, or release.small_classes: withhold here"
        )
        yield _Reason(key="evaluation.site_figures", value=True, wanted=wanted)


def _cohort(case: _Case) -> Reasons:
    cohort, allow, spec = case.policy.cohort, case.policy.allow, case.job.participation
    sites = len(set(case.asked.sites) - set(case.job.evaluation.held_out))  # those are in no sum
    wanted_sites = sites_asked(case.job, sites)
    if wanted_sites > sites:
        yield _Reason(key="participation.count", value=spec.count, wanted=f"at most {sites}, for so many sites train")
    asked = min(wanted_sites, sites)
    groups = case.job.privacy.channel.options.get("groups", 1)
    least = asked // groups if type(groups) is int and groups > 0 else 0
    if least < cohort.minimum_sites:
        wanted = f"cohort.minimum_sites is {cohort.minimum_sites} a sum"
        value = f"{asked} of {sites} asked in {groups} group(s)"
        yield _Reason(key="participation", value=value, wanted=wanted)
    quorum = spec.quorum if spec.quorum is not None else min(2, asked)
    if quorum > asked:
        yield _Reason(key="participation.quorum", value=quorum, wanted=f"at most {asked}, for so many sites are asked")
    if quorum < cohort.minimum_quorum:
        yield _Reason(
            key="participation.quorum", value=quorum, wanted=f"cohort.minimum_quorum is {cohort.minimum_quorum}"
        )
    if allow.peers is not None:
        for name in sorted(set(case.asked.sites) - set(allow.peers)):
            yield _Reason(key="sites", value=name, wanted=f"allow.peers has {', '.join(allow.peers)}")
    if case.facts is None:
        yield _Reason(key="data.dataset", value=case.job.data.dataset, wanted="the site's rows were not counted")
    elif case.facts.rows < case.policy.release.smallest_count:  # a site tells the number of its training rows
        wanted = (
            f"release.smallest_count is {case.policy.release.smallest_count}, and this site has fewer rows for training"
        )
        yield _Reason(key="data.dataset", value=case.job.data.dataset, wanted=wanted)
    elif case.facts.rows < cohort.minimum_rows:
        wanted = f"cohort.minimum_rows is {cohort.minimum_rows}, and this site has fewer for training"
        yield _Reason(key="data.dataset", value=case.job.data.dataset, wanted=wanted)


def _limits(case: _Case) -> Reasons:
    limits, training = case.policy.limits, case.job.training
    steps, epochs = training.work
    for key, value, limit, where in (
        ("training.rounds", training.rounds, limits.rounds, "rounds"),
        ("training.local_steps", highest(steps) if steps else 0, limits.local_steps, "local_steps"),
        ("training.local_epochs", highest(epochs) if epochs else 0, limits.local_epochs, "local_epochs"),
        ("finetuning.epochs", case.job.finetuning.epochs, limits.finetuning_epochs, "finetuning_epochs"),
    ):
        if value > limit:
            yield _Reason(key=key, value=value, wanted=f"limits.{where} is {limit}")


_RULES: tuple[Callable[[_Case], Reasons], ...] = (_keys, _names, _data, _code, _privacy, _by_site, _cohort, _limits)


def read_policy(path: Path) -> SitePolicy:
    """Read `site.yaml`: each time, since an administrator may change it at any moment; what is the same is not parsed again.

    Raises:
        ConfigError: absent, not YAML, an unknown key, or a value that it does not take: nothing runs then.
    """
    return _policy_of(read_settings(path, "a site's policy"), str(path))


@functools.lru_cache(maxsize=16)
def _policy_of(text: str, where: str) -> SitePolicy:
    return strict_from(parse_yaml(text, where), SitePolicy, where)


def apply_limits(limits: Limits) -> list[str]:
    """Bound this process, for good: memory, and no core dump, which would hold records. Returns what could not be bounded."""
    if sys.platform == "win32":
        return ["memory_megabytes", "core dumps"]
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if limits.memory_megabytes is None:
        return []
    wanted = limits.memory_megabytes * 10**6
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    bound = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
    try:
        resource.setrlimit(resource.RLIMIT_DATA, (bound, bound))
    except (ValueError, OSError):
        return ["memory_megabytes"]
    return []


TEMPLATE = """\
# What this site allows. Nothing runs until a dataset is bound and names are listed: see docs/deploy/policy.md.
data: {}
#  heart: {dataset: custom, options: {schema: /data/heart/schema.yaml}}
allow:
  submitters: []
  models: []
  algorithms: []
  channels: [secagg, he]
privacy:
  hiding_channel: true
cohort:
  minimum_sites: 3
  minimum_quorum: 3
  minimum_rows: 50
release:
  site_figures: false
  row_scores: false
  smallest_count: 10
limits:
  rounds: 200
  seconds_a_task: 3600
  hours_a_run: 72
  threads: 1
schedule:
  timezone: UTC
approval:
  auto: []
"""

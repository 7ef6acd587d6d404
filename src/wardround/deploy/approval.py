"""Jobs that came to a site: pending, approved, denied or refused, on its disk; an approval is for one job under one policy.

jobs/ID/job.json       the signed job as it came
jobs/ID/decision.json  what was decided, by whom or by which rule, under which policy
"""

from __future__ import annotations

import difflib
import getpass
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from wardround.config.job import Job
from wardround.config.load import difference, dump
from wardround.deploy import canonical
from wardround.deploy.audit import AuditLog
from wardround.deploy.jobs import SignedJob, references
from wardround.deploy.names import check_name, is_name
from wardround.deploy.policy import HIDING, AutoRule, Facts, SitePolicy, Verdict
from wardround.errors import ConfigError, MessageError, Refused, RunError
from wardround.federation.baselines import sites_asked
from wardround.store import atomic

Status = Literal["pending", "approved", "denied", "refused"]
MOST_PENDING = 100
"""Jobs that may wait for an administrator; more are refused, so that nobody fills the disk."""
MOST_REFUSED = 1000
"""Jobs that the policy refused and that are kept; the oldest give way."""
_NOTE, _LOCK_SECONDS = 200, 30.0


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What was decided of a job.

    Attributes:
        status: `pending` (an administrator decides), `approved`, `denied` (by an administrator), `refused` (by the policy).
        job: the run's id.
        digest: of the signed job, hexadecimal.
        policy: digest of the policy under which it was decided.
        time: when.
        by: the user of this machine, `rule:NAME`, or `policy`.
        note: the administrator's.
        reasons: the policy's, where it refused.
        number: of the decision at this site: the later, the higher.
    """

    status: Status
    job: str
    digest: str
    policy: str
    time: str
    by: str
    note: str = ""
    reasons: list[str] = field(default_factory=list)
    number: int = 0


class Approvals:
    """The jobs of one site.

    Args:
        folder: of the jobs.
        policy: reads the site's policy as it stands; called at each decision, so that an edit counts at once.
        log: where decisions are noted.
    """

    def __init__(self, folder: Path, policy: Callable[[], SitePolicy], log: AuditLog) -> None:
        self._folder, self._policy, self._log = folder, policy, log

    def receive(self, signed: SignedJob, verdict: Verdict, *, now: datetime | None = None) -> Decision:
        """Keep a job whose signature was checked, and decide what can be decided without an administrator.

        A job that was decided before is judged again: a policy that became stricter takes an approval back, and one that
        changed in any way asks again.

        Args:
            signed: the job.
            verdict: of the policy; where it allows the job, its facts are kept for a later review.
            now: the time here.

        Raises:
            Refused: too many jobs are waiting.
        """
        with self._locked():
            return self._received(signed, verdict, now or canonical.now())

    def _received(self, signed: SignedJob, verdict: Verdict, here: datetime) -> Decision:
        self._note_judged(signed, verdict)
        policy = self._policy()
        known = self.decision(signed.id)
        same = known is not None and known.digest == signed.digest
        if known is not None and same and known.status == "denied":
            return known
        if verdict.allowed and verdict.facts is not None:
            atomic.make_folder(self._folder / signed.id)
            atomic.write_json(self._folder / signed.id / "facts.json", asdict(verdict.facts))
        if not verdict.allowed:
            return self._decide(signed, "refused", policy, by="policy", reasons=verdict.reasons, now=here)
        if known is not None and same and known.status == "approved" and not _lapsed(known, policy, here):
            return known
        rule = next((one for one in policy.approval.auto if self._matches(one, signed)), None)
        if rule is not None:
            return self._decide(signed, "approved", policy, by=f"rule:{rule.name}", now=here)
        if known is None and len([one for one in self.decisions() if one.status == "pending"]) >= MOST_PENDING:
            raise Refused(f"{MOST_PENDING} jobs are waiting at this site: its administrator must decide some first")
        return self._decide(signed, "pending", policy, by="policy", now=here)

    def check(self, signed: SignedJob, verdict: Verdict, *, now: datetime | None = None) -> None:
        """Whether a job may run now: at its start, and whenever it goes on.

        The first time is noted as the job's beginning.

        Raises:
            Refused: not approved, denied, approved under another policy or too long ago, not allowed any more, or begun longer
                than `limits.hours_a_run` ago.
        """
        if not verdict.allowed:
            raise Refused(f"job {signed.id} is not allowed here: {'; '.join(verdict.reasons)}")
        known, policy = self.decision(signed.id), self._policy()
        if known is None or known.digest != signed.digest or known.status != "approved":
            status = "unknown here" if known is None else known.status
            raise Refused(f"job {signed.id} is {status}: `wardround deploy site review` and approve it, or not")
        here = now or canonical.now()
        why = _lapsed(known, policy, here)
        if why:
            raise Refused(f"the approval of job {signed.id} holds no longer: {why}; review it again")
        hours = (here - self._begun(signed.id, here)).total_seconds() / 3600
        if hours > policy.limits.hours_a_run:
            raise Refused(
                f"job {signed.id} began {hours:.1f} h ago, and limits.hours_a_run is {policy.limits.hours_a_run}"
            )

    def approve(self, job: str, verdict: Verdict, *, note: str = "", now: datetime | None = None) -> Decision:
        """An administrator's yes.

        Raises:
            ConfigError: no such job.
            Refused: the policy does not allow it: change the policy, not the decision.
        """
        signed = self.signed(job)
        if not verdict.allowed:
            raise Refused(
                f"job {job} is not allowed by site.yaml, so it cannot be approved: {'; '.join(verdict.reasons)}"
            )
        with self._locked():
            return self._decide(signed, "approved", self._policy(), by=_user(), note=note, now=now)

    def deny(self, job: str, *, note: str = "", now: datetime | None = None) -> Decision:
        """An administrator's no; it also ends an approval.

        Raises:
            ConfigError: no such job.
        """
        with self._locked():
            return self._decide(self.signed(job), "denied", self._policy(), by=_user(), note=note, now=now)

    def decision(self, job: str) -> Decision | None:
        """What was decided of a job; None where it never came."""
        path = self._folder / check_name(job, "job") / "decision.json"
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        try:
            return Decision(**canonical.parse(data, "the decision"))
        except (MessageError, TypeError) as error:
            raise RunError(f"{path} is damaged: {error}; delete its folder, and have the job sent again") from error

    def decisions(self) -> list[Decision]:
        """All of them, the latest last."""
        found = [self.decision(name) for name in atomic.names(self._folder) if is_name(name)]
        return sorted((one for one in found if one is not None), key=lambda one: one.number)

    def signed(self, job: str) -> SignedJob:
        """The job as it came.

        Raises:
            ConfigError: no such job.
            RunError: its file is not the job that was decided upon.
        """
        path = self._folder / check_name(job, "job") / "job.json"
        try:
            found = SignedJob.from_bytes(path.read_bytes())
        except FileNotFoundError as error:
            known = ", ".join(one.job for one in self.decisions()) or "none"
            raise ConfigError(f"there is no job {job} at this site: known are {known}") from error
        except MessageError as error:
            raise RunError(f"{path} is damaged: {error}; delete its folder, and have the job sent again") from error
        known_as = self.decision(job)
        if found.id != job or (known_as is not None and known_as.digest != found.digest):
            raise RunError(
                f"{path} holds another job than the one that came as {job}: delete its folder, and have it sent again"
            )
        return found

    def facts(self, job: str) -> Facts | None:
        """What was known of the site's records when the job came; None where nothing was."""
        path = self._folder / check_name(job, "job") / "facts.json"
        try:
            return Facts(**json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError) as error:
            raise RunError(f"{path} is damaged: {error}; delete it, and have the job sent again") from error

    def last_approved(self, before: str, *, by_hand: bool = False) -> SignedJob | None:
        """The job that was approved last, other than `before`; None where there is none."""
        for one in reversed(self.decisions()):
            if one.status == "approved" and one.job != before and not (by_hand and one.by.startswith("rule:")):
                return self.signed(one.job)
        return None

    def review(self, job: str, verdict: Verdict) -> str:
        """What an administrator reads: the job in plain words, what the policy says, and what is new since the last one."""
        signed = self.signed(job)
        last = self.last_approved(job)
        return review(signed, verdict, last, self.decision(job))

    def _begun(self, job: str, here: datetime) -> datetime:
        path = self._folder / check_name(job, "job") / "begun"
        if not path.exists():
            atomic.write_text(path, canonical.time_text(here))
        try:
            return canonical.time_from(path.read_text(encoding="ascii"), "the job's beginning")
        except (MessageError, UnicodeDecodeError) as error:
            raise RunError(f"{path} is damaged: {error}; delete it, and the job's hours are counted anew") from error

    def _matches(self, rule: AutoRule, signed: SignedJob) -> bool:
        job = signed.job
        plain = (
            signed.submitter in rule.submitters
            and (rule.models is None or job.model.name in rule.models)
            and (rule.algorithms is None or job.algorithm.name in rule.algorithms)
            and (rule.datasets is None or job.data.dataset in rule.datasets)
            and (rule.rounds is None or job.training.rounds <= rule.rounds)
        )
        if not plain or not rule.like_last:
            return plain
        last = self.last_approved(signed.id, by_hand=True)
        if last is None or (last.sites, last.plugins, last.submitter) != (
            signed.sites,
            signed.plugins,
            signed.submitter,
        ):
            return False
        keys = [line.partition(": ")[0] for line in difference(last.job, job)]
        return all(any(key == may or key.startswith(f"{may}.") for may in rule.may_differ) for key in keys)

    def _decide(
        self, signed: SignedJob, status: Status, policy: SitePolicy, *, by: str, note: str = "",
        reasons: list[str] | None = None, now: datetime | None = None,
    ) -> Decision:  # fmt: skip
        number = max((one.number for one in self.decisions()), default=0) + 1
        decision = Decision(
            status=status, job=signed.id, digest=signed.digest, policy=policy.digest,
            time=canonical.time_text(now or canonical.now()), by=by, note=note[:_NOTE], reasons=reasons or [], number=number,
        )  # fmt: skip
        folder = self._folder / signed.id
        atomic.make_folder(folder)
        # the log first: what is not noted is not allowed
        if status == "approved":
            self._log.append("job-approved", job=signed.id, digest=signed.digest, policy=policy.digest, **_who(by))
        elif status == "denied":
            self._log.append("job-denied", job=signed.id, digest=signed.digest, **_who(by))
        atomic.write_bytes(folder / "job.json", signed.to_bytes())
        atomic.write_bytes(folder / "decision.json", canonical.encode(asdict(decision)))
        if status == "refused":
            for old in [one for one in self.decisions() if one.status == "refused"][:-MOST_REFUSED]:
                atomic.remove_tree(self._folder / old.job)
        return decision

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One decision at a time, by the site's process or by a command."""
        atomic.make_folder(self._folder)
        try:
            with FileLock(str(self._folder / ".lock"), timeout=_LOCK_SECONDS):
                yield
        except Timeout as error:
            raise RunError(f"{self._folder} is held by another decision: wait for it, then try again") from error

    def _note_judged(self, signed: SignedJob, verdict: Verdict) -> None:
        self._log.append(
            "job-judged", job=signed.id, submitter=signed.submitter, digest=signed.digest, allowed=verdict.allowed,
            policy=verdict.policy, keys=verdict.keys,
        )  # fmt: skip


def review(signed: SignedJob, verdict: Verdict, last: SignedJob | None, decision: Decision | None = None) -> str:
    """A job in plain words, the policy's verdict, and a unified difference to the last approved job."""
    job = signed.job
    lines = [f"job {signed.id}", f"  submitted by  {signed.submitter}, {signed.created}"]
    if decision is not None:
        lines.append(f"  status        {decision.status}, by {decision.by}, {decision.time}{_noted(decision.note)}")
    lines += [f"  {name:<13} {text}" for name, text in _summary(signed, job).items()]
    lines += ["  sites         " + f"{mark}  {name}" for name, mark in sorted(signed.sites.items())]
    lines += ["  plug-in       " + f"{digest}  {name}" for name, digest in sorted(signed.plugins.items())]
    if verdict.allowed:
        lines.append("site.yaml allows it.")
        if verdict.tightened is not None:
            lines += [f"  here: {line}" for line in difference(job, verdict.tightened)]
    else:
        lines += ["site.yaml does NOT allow it:", *(f"  {reason}" for reason in verdict.reasons)]
    if last is None:
        lines += ["No job was approved here before. All of it:", dump(job).rstrip()]
    else:
        old, new = _text(last), _text(signed)
        changed = list(difflib.unified_diff(old, new, fromfile=last.id, tofile=signed.id, lineterm="", n=2))
        lines += changed or [f"The same job as {last.id}, which was approved."]
    return "\n".join(_plain(line) for line in lines) + "\n"


def _summary(signed: SignedJob, job: Job) -> Mapping[str, str]:
    sites = len(signed.sites)
    training = job.training
    steps, epochs = training.work
    work = f"{steps} steps" if steps else f"{epochs} epochs"
    hides = job.privacy.channel.kind in HIDING
    found = {
        "data": job.data.dataset,
        "model": job.model.name + (", stays here: " + ", ".join(job.model.local) if job.model.local else ""),
        "algorithm": f"{job.algorithm.name}, server {job.algorithm.server.name}",
        "training": f"{training.rounds} rounds of {work}, {training.optimizer.name}, batches of {training.batch_size}",
        "cohort": f"{sites_asked(job, sites)} of {sites} sites a round, quorum {job.participation.quorum or 'by default'}",
        "channel": f"{job.privacy.channel.kind}: the coordinator sees {'sums alone' if hides else 'WHAT THIS SITE SENDS'}",
        "figures": f"row scores {'LEAVE' if job.evaluation.release_scores else 'stay'}, every {job.evaluation.every} rounds",
    }
    code = sorted({reference for _, reference in references(job)})
    return {**found, "code": ", ".join(code) if code else "none but the installed wardround"}


def _text(signed: SignedJob) -> list[str]:
    sites = [f"site {name}: {mark}" for name, mark in sorted(signed.sites.items())]
    plugins = [f"plug-in {name}: {digest}" for name, digest in sorted(signed.plugins.items())]
    return [*dump(signed.job).splitlines(), f"submitter: {signed.submitter}", *sites, *plugins]


def _plain(line: str) -> str:
    """Without control characters, by which a job could forge what the terminal shows."""
    return "\n".join("".join(c if c.isprintable() else "?" for c in part) for part in line.split("\n"))


def _lapsed(decision: Decision, policy: SitePolicy, here: datetime) -> str:
    """Why an approval holds no longer; "" where it does."""
    if decision.policy != policy.digest:
        return "site.yaml was changed since"
    age = here - canonical.time_from(decision.time, "the decision")
    if age > timedelta(days=policy.approval.days):
        return f"it is {age.days} days old, and approval.days is {policy.approval.days}"
    return ""


def _noted(note: str) -> str:
    return f": {note}" if note else ""


def _who(by: str) -> dict[str, Any]:
    kind, _, name = by.partition(":")
    return (
        {"rule": name}
        if kind == "rule"
        else {"user": "".join(c if c.isascii() and c.isalnum() else "-" for c in by)[:80]}
    )


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return "unknown"

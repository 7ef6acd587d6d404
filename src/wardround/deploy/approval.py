"""Jobs that came to a site: pending, approved, denied or refused, on its disk; an approval is for one job under one policy.

jobs/ID/job.json       the signed job as it came
jobs/ID/decision.json  what was decided, by whom or by which rule, under which policy

A decision is signed by the site, and names the entry of the audit log that says the same. So a yes that somebody else wrote, or
that came back from a backup after a no, is none: the job is pending again, and the log says so.
"""

from __future__ import annotations

import difflib
import getpass
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from wardround.config.job import Job
from wardround.config.load import difference, dump
from wardround.deploy import canonical
from wardround.deploy.audit import AuditLog
from wardround.deploy.identity import Identity, verify_raw
from wardround.deploy.jobs import SignedJob, references
from wardround.deploy.names import is_name, within
from wardround.deploy.policy import HIDING, AutoRule, Facts, SitePolicy, Verdict
from wardround.errors import ConfigError, MessageError, Refused, RunError
from wardround.federation.baselines import sites_asked
from wardround.plain import plain, plain_lines
from wardround.store import atomic

Status = Literal["pending", "approved", "denied", "refused"]
MOST_PENDING = 100
"""Jobs that may wait for an administrator; more are refused, so that nobody fills the disk."""
MOST_REFUSED = 1000
"""Jobs that the policy refused and that are kept; the oldest give way."""
_NOTE, _LOCK_SECONDS = 200, 30.0
_LABEL = b"wardround/decision/1\x00"
_DECIDED = {"job-approved": "approved", "job-denied": "denied"}
"""Kind of an entry in the audit log -> what it says of a job."""
_FAULTS = {
    "job": "the decision that lies there is on another job",
    "signature": "this site's present key did not sign the decision that lies there",
    "log": "the audit log's last word on it is another than the decision that lies there, which may be from a backup",
}
_SIGNATURE = re.compile(r"[0-9a-f]{128}")


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
        entry: hash of the audit log's entry on an approval or a denial; else "".
        signature: the site's over all of this, hexadecimal.
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
    entry: str = ""
    signature: str = ""

    def signed(self) -> bytes:
        """What the signature is over."""
        return _LABEL + canonical.encode({name: value for name, value in asdict(self).items() if name != "signature"})


class Approvals:
    """The jobs of one site.

    Args:
        folder: of the jobs.
        policy: reads the site's policy as it stands; called at each decision, so that an edit counts at once.
        log: where decisions are noted.
        identity: the site's, which signs them.
    """

    def __init__(self, folder: Path, policy: Callable[[], SitePolicy], log: AuditLog, identity: Identity) -> None:
        self._folder, self._policy, self._log, self._identity = folder, policy, log, identity
        self._noted = _Noted(log)

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
        known = self._trusted(signed, here)
        same = known is not None and known.digest == signed.digest
        if known is not None and same and known.status == "denied":
            return known
        if verdict.allowed and verdict.facts is not None:
            folder = within(self._folder, signed.id, "job")
            atomic.make_folder(folder)
            atomic.write_json(folder / "facts.json", asdict(verdict.facts))
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
        (known, fault), policy = self._read(signed.id), self._policy()
        if fault:
            with self._locked():
                known = self._trusted(signed, now or canonical.now())
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
        """What was decided of a job; None where it never came. One that does not hold is pending, and its reasons say why."""
        found, fault = self._read(job)
        return replace(found, status="pending", reasons=[_FAULTS[fault]]) if found is not None and fault else found

    def _read(self, job: str) -> tuple[Decision | None, str]:
        """What lies there, and why it is not this site's last decision: a key of `_FAULTS`, or "" where it holds."""
        path = within(self._folder, job, "job") / "decision.json"
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None, ""
        try:
            found = Decision(**canonical.parse(data, "the decision"))
        except (MessageError, TypeError) as error:
            raise RunError(f"{path} is damaged: {error}; delete its folder, and have the job sent again") from error
        if found.job != job:
            return found, "job"
        if found.status not in _DECIDED.values():  # it allows nothing, and forbids nothing for good
            return found, ""
        signature = bytes.fromhex(found.signature) if _fits(_SIGNATURE, found.signature) else b""
        if not signature or not verify_raw(self._identity.public, found.signed(), signature):
            return found, "signature"
        last = self._noted.last(job)
        return found, "" if last is not None and last.hash == found.entry else "log"

    def _trusted(self, signed: SignedJob, here: datetime) -> Decision | None:
        """The decision on a job; one that does not hold is noted, and made anew. What the log denies stays denied."""
        known, fault = self._read(signed.id)
        if fault:
            self._log.append("decision-refused", job=signed.id, digest=signed.digest, reason=fault)
        last = self._noted.last(signed.id)
        if (fault or known is None) and last is not None and (last.status, last.digest) == ("denied", signed.digest):
            return self._written(signed, "denied", self._policy(), by=last.by, now=here, entry=last.hash)
        return self._written(signed, "pending", self._policy(), by="policy", now=here) if fault else known

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
        path = within(self._folder, job, "job") / "job.json"
        try:
            found = SignedJob.from_bytes(path.read_bytes())
        except FileNotFoundError as error:
            known = ", ".join(one.job for one in self.decisions()) or "none"
            raise ConfigError(f"there is no job {job} at this site: known are {known}") from error
        except MessageError as error:
            raise RunError(f"{path} is damaged: {error}; delete its folder, and have the job sent again") from error
        known_as, fault = self._read(job)
        if found.id != job or (known_as is not None and not fault and known_as.digest != found.digest):
            raise RunError(
                f"{path} holds another job than the one that came as {job}: delete its folder, and have it sent again"
            )
        return found

    def facts(self, job: str) -> Facts | None:
        """What was known of the site's records when the job came; None where nothing was."""
        path = within(self._folder, job, "job") / "facts.json"
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
        path = within(self._folder, job, "job") / "begun"
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
        # the log first: what is not noted is not allowed
        entry: Mapping[str, Any] = {}
        if status == "approved":
            entry = self._log.append(
                "job-approved", job=signed.id, digest=signed.digest, policy=policy.digest, **_who(by)
            )
        elif status == "denied":
            entry = self._log.append("job-denied", job=signed.id, digest=signed.digest, **_who(by))
        decision = self._written(
            signed, status, policy, by=by, note=note, reasons=reasons, now=now, entry=str(entry.get("hash", ""))
        )
        if status == "refused":
            for old in [one for one in self.decisions() if one.status == "refused"][:-MOST_REFUSED]:
                atomic.remove_tree(self._folder / old.job)
        return decision

    def _written(
        self, signed: SignedJob, status: Status, policy: SitePolicy, *, by: str, note: str = "",
        reasons: list[str] | None = None, now: datetime | None = None, entry: str = "",
    ) -> Decision:  # fmt: skip
        number = max((one.number for one in self.decisions()), default=0) + 1
        unsigned = Decision(
            status=status, job=signed.id, digest=signed.digest, policy=policy.digest,
            time=canonical.time_text(now or canonical.now()), by=by, note=note[:_NOTE], reasons=reasons or [], number=number,
            entry=entry,
        )  # fmt: skip
        decision = replace(unsigned, signature=self._identity.sign(unsigned.signed()).hex())
        folder = within(self._folder, signed.id, "job")
        atomic.make_folder(folder)
        atomic.write_bytes(folder / "job.json", signed.to_bytes())
        atomic.write_bytes(folder / "decision.json", canonical.encode(asdict(decision)))
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


@dataclass(frozen=True, kw_only=True)
class _Entry:
    """The last entry of the log on a job."""

    status: str
    hash: str
    digest: str
    by: str


class _Noted:
    """What the audit log says was decided: it is read once, and then only what was added."""

    def __init__(self, log: AuditLog) -> None:
        self._log, self._at, self._last = log, 0, dict[str, _Entry]()

    def last(self, job: str) -> _Entry | None:
        """The last approval or denial of a job."""
        entries, self._at = self._log.since(self._at, _DECIDED)
        if entries is None:  # another log lies there now
            self._last.clear()
            entries, self._at = self._log.since(0, _DECIDED)
        for one in entries or ():
            by = f"rule:{one['rule']}" if "rule" in one else str(one.get("user"))
            self._last[str(one.get("job"))] = _Entry(
                status=_DECIDED[str(one["kind"])], hash=str(one.get("hash")), digest=str(one.get("digest")), by=by
            )
        return self._last.get(job)


def review(signed: SignedJob, verdict: Verdict, last: SignedJob | None, decision: Decision | None = None) -> str:
    """A job in plain words, the policy's verdict, and a unified difference to the last approved job."""
    job = signed.job
    lines = [f"job {signed.id}", f"  submitted by  {signed.submitter}, {signed.created}"]
    if decision is not None:
        lines.append(f"  status        {decision.status}, by {decision.by}, {decision.time}{_noted(decision.note)}")
    lines += [f"  {name:<13} {plain(text)}" for name, text in _summary(signed, job).items()]
    lines += ["  sites         " + f"{mark}  {name}" for name, mark in sorted(signed.sites.items())]
    lines += ["  plug-in       " + f"{digest}  {name}" for name, digest in sorted(signed.plugins.items())]
    if verdict.allowed:
        lines.append("site.yaml allows it.")
        if verdict.tightened is not None:
            lines += [f"  here: {line}" for line in difference(job, verdict.tightened)]
            lines += [f"  leaves: {line}" for line in _leaves(job, verdict)]
    else:
        lines += ["site.yaml does NOT allow it:", *(f"  {plain(reason)}" for reason in verdict.reasons)]
    if last is None:
        lines += ["No job was approved here before. All of it:", dump(job).rstrip()]
    else:
        old, new = _text(last), _text(signed)
        changed = list(difflib.unified_diff(old, new, fromfile=last.id, tofile=signed.id, lineterm="", n=2))
        lines += changed or [f"The same job as {last.id}, which was approved."]
    return "\n".join(plain_lines(line) for line in lines) + "\n"


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
        "figures": f"row scores {'LEAVE' if job.evaluation.release_scores else 'stay'}, every {job.evaluation.every} rounds; "
        + ("THIS SITE'S OWN LEAVE, see below" if job.evaluation.site_figures else "of this site alone none leave"),
    }
    if "local" in job.evaluation.baselines:
        found["alone"] = f"this site also trains a model alone, {training.rounds} rounds, which stays here"
    code = sorted({reference for _, reference in references(job)})
    return {**found, "code": ", ".join(code) if code else "none but the installed wardround"}


def _leaves(job: Job, verdict: Verdict) -> list[str]:
    """What of this site alone leaves at the end of a job, in words."""
    if not job.evaluation.site_figures or verdict.facts is None or verdict.release is None:
        return []
    smallest = verdict.release.smallest_count
    few = {split for split, row in verdict.facts.splits.items() if any(0 < count < smallest for count in row)}
    models = " and of the one that it trains alone" if "local" in job.evaluation.baselines else ""
    told = [
        f"once, of the kept model{models}: rows of each class in training, validation and test rows",
        "figures on test rows (AUROC, accuracy, calibration and so on, with intervals): names in docs/figures.md",
    ]
    if "test" in few:
        told[1] = f"no figure on test rows: a class has fewer than {smallest}"
    if few:
        told += [
            f"not the counts of classes of {', '.join(sorted(few))} rows, of which one is below {smallest}; but THE SUM OF ALL "
            "SITES less what the others release may tell them"
        ]
    return told


def _text(signed: SignedJob) -> list[str]:
    sites = [f"site {name}: {mark}" for name, mark in sorted(signed.sites.items())]
    plugins = [f"plug-in {name}: {digest}" for name, digest in sorted(signed.plugins.items())]
    return [*dump(signed.job).splitlines(), f"submitter: {signed.submitter}", *sites, *plugins]


def _lapsed(decision: Decision, policy: SitePolicy, here: datetime) -> str:
    """Why an approval holds no longer; "" where it does."""
    if decision.policy != policy.digest:
        return "site.yaml was changed since"
    age = here - canonical.time_from(decision.time, "the decision")
    if age > timedelta(days=policy.approval.days):
        return f"it is {age.days} days old, and approval.days is {policy.approval.days}"
    return ""


def _fits(form: re.Pattern[str], value: object) -> bool:
    return isinstance(value, str) and form.fullmatch(value) is not None


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

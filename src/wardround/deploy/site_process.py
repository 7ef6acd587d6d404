"""A hospital's process: it holds torch, the records, the state and the keys, and answers what its policy allows.

The relay beside it speaks Flower and has none of these. Requests are worked off one at a time; a thread answers the
coordinator's questions about how far they are. What must outlive this process is in `runs/RUN`: the site's state, the
`prepare` message, and the channel's keys.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from wardround import __version__, wire
from wardround.config.job import Job
from wardround.content import Content
from wardround.deploy.approval import Approvals, Decision
from wardround.deploy.audit import Head
from wardround.deploy.envelope import Envelope, EnvelopeRefused
from wardround.deploy.jobs import SignedJob, approved_plugins
from wardround.deploy.kit import PartyFolder, party_folder
from wardround.deploy.names import within
from wardround.deploy.policy import Asked, Facts, SitePolicy, Verdict, apply_limits, read_policy
from wardround.deploy.questions import Bounds, QuestionRefused, Questions
from wardround.deploy.sealing import Sealer, word
from wardround.deploy.supervise import Child
from wardround.errors import IdentityError, MessageError, Refused, RunError, StorageError, WardroundError
from wardround.federation import messages
from wardround.federation.engines.flower.engine import ASK, FACTS, REPLY, SILENT, STACKED, request_of, unstacked
from wardround.federation.engines.flower.relay import Frame
from wardround.federation.engines.flower.transfer import Inbox, Parcel, Taken, items_of
from wardround.store import atomic
from wardround.training import memory
from wardround.types import Description, Json, Message, SiteData

JOB, END, WITNESS, VERDICT, REFUSED, NOTED = "job", "end", "witness", "verdict", "refused", "noted"
"""Kinds of messages beside those of the loop: a job for judgement, a run's end, a log's head, and their answers."""
STATE, PREPARED = "state", "prepare.message"
_NO_RUN = "none"
_SHORT = 2**20
_TICK = 0.5
_SIGN = 20.0
"""Seconds after which a process that waits says in its status that it is there."""


class OverTime(Refused):
    """A task took longer than the site's policy gives it."""


class Ending(Refused):
    """This process is to stop: what came is not answered, and the coordinator asks again."""


def _with_approved_plugins(work: Callable[[SiteProcess, Taken], Parcel]) -> Callable[[SiteProcess, Taken], Parcel]:
    """While a request is worked on, the code of a plug-in is what this site's policy approves then."""

    def worked(self: SiteProcess, taken: Taken) -> Parcel:
        with approved_plugins(self.folder.plugins, lambda: self._read_policy().plugins):
            return work(self, taken)

    return worked


@dataclass
class _Active:
    """The run that is worked on."""

    id: str
    signed: SignedJob
    job: Job
    host: Any
    folder: Path
    policy: str
    questions: Callable[[str | None], Questions]


class SiteProcess:
    """One site.

    Args:
        folder: the site's folder.
        wait: seconds to wait for another process of this site to end.
    """

    def __init__(self, folder: Path, *, wait: float = 0.0) -> None:
        self.folder: PartyFolder = party_folder(folder)
        if self.folder.role != "site":
            raise RunError(f"{folder} belongs to {self.folder.name}, a {self.folder.role}: a site's folder is needed")
        self.name = self.folder.name
        self._state = folder / STATE
        atomic.make_folder(self._state)
        self._lock = FileLock(str(self._state / "lock"))
        try:
            self._lock.acquire(timeout=wait)
        except Timeout as error:
            raise RunError(f"{folder}: site {self.name} is running already: stop it first") from error
        self._policy = read_policy(self.folder.policy_path)
        identity = self.folder.identity()
        self._log = self.folder.audit()
        self._sealer = Sealer(identity, self.folder.pins, self.folder.seen(), self._log)
        self._approvals = Approvals(self.folder.path / "jobs", self._read_policy, self._log, identity)
        self._coordinator = self.folder.roster().coordinator.name
        self._limit = self._policy.limits.message_megabytes * 10**6
        self._inbox = Inbox(self._limit, self._state)
        self._stopping = threading.Event()
        self._active: _Active | None = None
        self._verdicts: dict[tuple[str, str], Verdict] = {}
        self._connected, self._answered = False, 0
        self._joined, self._dialled = 0, ("", b"")
        self._child = Child(
            "site", self._options, home=self._state / "flower", log=self._state / "relay.log", take=self._taken
        )

    # ------------------------------------------------------------------------------------------------ life

    def run(self) -> None:
        """Serve until stopped by SIGTERM or SIGINT."""
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, self._stop)
        apply_limits(self._policy.limits)
        import torch

        torch.set_num_threads(self._policy.limits.threads)
        self._log.append("started", what="site", version=__version__)
        atomic.write_text(self._state / "pid", str(os.getpid()))
        status, cause = "done", "none"
        try:
            self._child.start()
            self._tell("waiting")
            while not self._stopping.is_set():
                taken = self._inbox.take(_TICK)
                try:
                    self._follow()
                    self._note_refusals()
                    if taken is not None:
                        memory.give_back()  # of the answer before
                        self._inbox.answer(taken.number, self._worked(taken))
                        memory.give_back()
                        self._answered += 1
                        self._tell("waiting")
                    elif time.monotonic() - self._told > _SIGN:
                        self._tell(None, self._cause)
                except (WardroundError, OSError) as error:
                    # what cannot be noted in the audit log is not answered: the coordinator asks again, or goes on without
                    self._print(f"{type(error).__name__}: {error}")
                    if taken is not None:
                        self._inbox.forget(taken.number)
                    self._stopping.wait(1.0)
        except BaseException as error:
            status, cause = "failed", type(error).__name__
            raise
        finally:
            self._child.stop()
            self._close_active()
            self._log.append("stopped", what="site", status=status, cause=word(cause))
            self._tell("stopped")
            with contextlib.suppress(OSError):
                (self._state / "pid").unlink()
            self._lock.release()

    def _follow(self) -> None:
        """Connect anew where a newly joined roster has another address or authority: the relay reads them at its start."""
        with contextlib.suppress(OSError):
            moment = (self.folder.path / "roster.json").stat().st_mtime_ns
            if moment == self._joined:
                return
            way = self._way()
            if self._joined and way != self._dialled:
                self._print(f"the coordinator is at {way[0]}: connecting anew")
                self._child.kick()
            self._joined, self._dialled = moment, way

    def _way(self) -> tuple[str, bytes]:
        return self.folder.address, self.folder.authority.read_bytes()

    def _stop(self, *_: object) -> None:
        if self._stopping.is_set():
            raise KeyboardInterrupt
        self._stopping.set()
        self._inbox.close()

    def _options(self) -> dict[str, Any]:
        authority, key = str(self.folder.authority.resolve()), str(self.folder.node_key.resolve())
        return {"address": self.folder.address, "authority": authority, "key": key}

    def _taken(self, frame: Frame) -> None:
        """Called from the relay's thread."""
        head, payload = frame
        op = head.get("op")
        if op == "datagram":
            self._child.send({"key": head["key"]}, self._inbox.handle(payload))
        elif op == "refused" and head.get("what") == "bundle":
            digest = str(head.get("bundle"))
            facts: dict[str, Any] = {"digest": digest} if len(digest) == 64 else {}
            self._log.append("bundle-refused", reason="unknown-bundle", **facts)
        elif op == "refused":
            self._log.append("connection-refused", reason="message", cause="malformed", claimed="?")
        elif op in ("up", "down", "ended"):
            self._connected = op == "up"
            self._tell(None, cause=str(head.get("cause", ""))[:300])

    def _note_refusals(self) -> None:
        while self._inbox.refusals:
            reason, size = self._inbox.refusals.pop(0)
            self._log.append("message-refused", run="?", claimed="?", reason=reason, bytes=max(size, 0))

    _doing, _cause, _told = "waiting", "", 0.0

    def _tell(self, doing: str | None, cause: str = "") -> None:
        """What the site does, for `status`."""
        self._doing, self._cause, self._told = doing or self._doing, cause, time.monotonic()
        with contextlib.suppress(StorageError):
            self._write_status(cause)

    def _write_status(self, cause: str) -> None:
        atomic.write_json(
            self._state / "status.json",
            {
                "site": self.name, "pid": os.getpid(), "doing": self._doing, "connected": self._connected,
                "run": self._active.id if self._active else None, "answered": self._answered, "cause": cause,
                "relay_restarts": max(self._child.restarts, 0), "time": datetime.now(UTC).isoformat(timespec="seconds"),
            },
        )  # fmt: skip

    # ------------------------------------------------------------------------------------------------ one request

    @_with_approved_plugins
    def _worked(self, taken: Taken) -> Parcel:
        """The answer to a request; whatever goes wrong is an answer too, and never the end of the process."""
        run = _NO_RUN
        try:
            items = items_of(taken.data)
            first = self._sealer.open(items[0] if items else b"", sender=self._coordinator, run=None, limit=self._limit)
            # whatever is longer, but for ASK, is cut, and refused as malformed
            run, body = first.run, bytes(first.body.read(0, _SHORT))
            if first.kind == FACTS and len(items) == 2:
                return self._asked(run, json.loads(body), items[1])
            if first.kind == JOB:
                return self._sealed(run, [(VERDICT, _json(self._judged(body)))])
            if first.kind == WITNESS:
                return self._sealed(run, [(NOTED, _json(self._witnessed(body)))])
            if first.kind == END:
                self._ended(run, body)
                return self._sealed(run, [(NOTED, _json(self._witnessed(body)))])
            raise MessageError(
                f"a message of kind {first.kind!r} is unknown here: the coordinator runs another version"
            )
        except Ending:
            raise
        except (MessageError, IdentityError) as error:
            self._print(f"refused a message: {error}")
            # an answer of another run would be refused in its turn, and its cause not be known there
            run = getattr(error, "run", None) or run
            return self._sealed(run, [(REFUSED, _json({"cause": str(error)}))])
        except Exception as error:  # noqa: BLE001 - a site answers, whatever its records or its disk do
            self._print(f"could not answer: {type(error).__name__}: {error}")
            with contextlib.suppress(WardroundError):
                self._log.append("limit", run=run, what="task", cause=type(error).__name__)
            # the text of an error may quote records, so the class alone leaves, but for what was written for the other side
            said = str(error) if isinstance(error, (Refused, OverTime)) else type(error).__name__
            return self._sealed(run, [(SILENT, _json({"cause": said}))])

    def _sealed(
        self, run: str, answers: Sequence[tuple[str, bytes | Content]], about: Mapping[str, Any] | None = None
    ) -> Parcel:
        return Parcel(
            [[self._sealer.head(self._coordinator, run, kind, body, about=about), body] for kind, body in answers]
        )

    def _asked(self, run: str, facts: Json, item: Content) -> Parcel:
        found, message = self._opened(run, facts, item)
        active = self._run(run)  # what may not run does not wait either
        if self._waited():
            active = self._run(run)
        about = _about(message)
        arm, request = messages.without_arm(request_of(message, self.name, facts))
        try:
            questions = active.questions(arm)
            if message.stage == messages.CONTRIBUTE:  # the stages of a channel name the task as well
                self._check_not_behind(active, message.meta, facts)
            questions.admit(request.message)
        except (QuestionRefused, MessageError) as error:
            self._log.append(
                "message-refused", run=run, claimed=self._coordinator, reason=getattr(error, "reason", "malformed"),
                cause=type(error).__name__, bytes=found.body.size, digest=found.digest, **about,
            )  # fmt: skip
            if isinstance(error, MessageError):
                raise
            self._print(f"refused a question: {error}")
            return self._sealed(run, [(SILENT, _json({"cause": str(error)}))], about)
        self._tell(" ".join(str(about[name]) for name in ("stage", "task", "round") if name in about))
        with self._timed(self._read_policy().limits.seconds_a_task):
            replies = list(active.host.answer(request_of(message, self.name, facts), (self.name,)))
        if message.stage == messages.PREPARE:
            home = _home(active.folder, message.meta.get(messages.ARM))
            atomic.write_pieces(home / PREPARED, found.body.chunks())
        answers = [(STACKED if one.stacked else REPLY, Content(*wire.pieces(unstacked(one)))) for one in replies]
        return self._sealed(run, answers or [(SILENT, _json({"cause": "an old request"}))], about)

    def _opened(self, run: str, facts: Json, item: Content) -> tuple[Envelope, Message]:
        """The request, and the message in it; the facts that came with it say that they belong to it.

        Raises:
            MessageError: it is no request, or the facts are those of another one.
        """
        read: list[Message] = []

        def about(envelope: Envelope) -> Mapping[str, Any]:
            if envelope.kind != ASK:
                raise MessageError(f"a {envelope.kind} message came where the request was expected")
            if not isinstance(facts, dict) or facts.pop(ASK, None) != envelope.digest:
                raise EnvelopeRefused("pair", "the facts for this site are those of another request")
            read.append(wire.decode(envelope.body))
            return _about(read[0])

        return self._sealer.open(item, sender=self._coordinator, run=run, limit=self._limit, about=about), read[0]

    def _check_not_behind(self, active: _Active, meta: Mapping[str, Json], facts: Mapping[str, Json]) -> None:
        """Whether the coordinator still knows which rounds it has told this site that it was counted in.

        Raises:
            EnvelopeRefused: it is an older copy of the one that did. Its model and this site's state do not belong together.
        """
        if meta.get("task") != messages.TRAIN:
            return
        arm = meta.get(messages.ARM)
        host = active.host if arm is None else active.host.arm(arm)
        told, known = facts.get(messages.COUNTED, -1), host.states.counted_round((self.name,))
        if told >= known:
            return
        raise EnvelopeRefused(
            "behind", f"{self.name} was counted in round {known} of run {active.id}, and this coordinator knows of "
            f"{f'round {told}' if told >= 0 else 'none'}: it is an older copy of the one that ran; let that one go on, or submit "
            "the job anew"
        )  # fmt: skip

    def _waited(self) -> bool:
        """Wait until the policy takes tasks; whether that took time. Raises Ending where this process is to stop."""
        waited = False
        while not self._stopping.is_set() and not self._read_policy().schedule.is_open(datetime.now(UTC)):
            waited = True
            self._tell("waiting for the schedule")
            self._stopping.wait(5.0)
        if self._stopping.is_set():
            raise Ending(f"{self.name} is to stop: the request is left for the next process")
        return waited

    @contextlib.contextmanager
    def _timed(self, seconds: float) -> Iterator[None]:
        def over(*_: object) -> None:
            raise OverTime(f"a task takes at most {seconds:g} s at {self.name}")

        before = signal.signal(signal.SIGALRM, over)
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    # ------------------------------------------------------------------------------------------------ jobs

    def _read_policy(self) -> SitePolicy:
        return read_policy(self.folder.policy_path)

    def _judged(self, body: bytes) -> dict[str, Json]:
        signed = SignedJob.from_bytes(body)
        pins = self.folder.pins()
        try:
            signed.verify(pins, me=self.name)
            decision = self._approvals.receive(signed, self._verdict(signed))
        except (IdentityError, Refused) as error:
            reason = getattr(error, "reason", "refused")
            self._log.append(
                "job-refused", job=signed.id, submitter=signed.submitter, reason=word(reason), cause=type(error).__name__,
                digest=signed.digest,
            )  # fmt: skip
            self._print(f"job {signed.id} refused: {error}")
            return {"status": "refused", "reasons": [str(error)]}
        self._print(f"job {signed.id} by {signed.submitter}: {decision.status}")
        return _verdict_json(decision)

    def _verdict(self, signed: SignedJob) -> Verdict:
        """What the policy says of a job, of records that are counted once, and again at each start of its run."""
        key = (signed.digest, self._read_policy().digest)
        if key not in self._verdicts:
            found = self._without_records(signed)
            if found.allowed:
                found = self._with_records(signed, self._records(self._read_policy().tighten(signed.job)))
            if not found.allowed:  # records may be mended
                return found
            self._verdicts[key] = found
        return self._verdicts[key]

    def _without_records(self, signed: SignedJob) -> Verdict:
        """What the policy says where the records are not counted yet."""
        return self._read_policy().judge(
            signed.job, Facts(rows=2**62, classes={}, splits={"train": (2**62,)}), self._about_job(signed)
        )

    def _with_records(self, signed: SignedJob, records: Any) -> Verdict:
        return self._read_policy().judge(signed.job, self._facts(records), self._about_job(signed))

    def _about_job(self, signed: SignedJob) -> Asked:
        return Asked(
            submitter=signed.submitter, sites=tuple(signed.sites), plugins=signed.plugins, folder=self.folder.plugins
        )

    def _facts(self, records: Any) -> Facts:
        counts = records.class_counts(self.name)
        names = records.description.classes
        totals = {name: sum(counts[split][k] for split in counts) for k, name in enumerate(names)}
        rows = {split: int(records.count((self.name,), split)[0]) for split in counts}
        if records.description.multilabel:
            counts = {split: [*own, *(rows[split] - count for count in own)] for split, own in counts.items()}
        return Facts(rows=rows["train"], classes=totals, splits=counts)

    def _records(self, job: Job) -> Any:
        from wardround.federation.records import Records

        description, data = own_records(job, self.name)
        return Records(description, {self.name: data}, grouped=job.evaluation.aggregate != "none")

    def _run(self, run: str) -> _Active:
        """The run's host, from the disk where this process does not have it yet, or where the policy is another since.

        Raises:
            Refused: no approval holds.
            IdentityError: who signed the job is trusted no longer.
        """
        try:
            active = self._active
            if active is not None and active.id == run and active.policy == self._read_policy().digest:
                self._verified(active.signed)
                self._approvals.check(active.signed, self._verdict(active.signed))
                return active
            self._close_active()
            signed = self._approvals.signed(run)
            self._verified(signed)
            self._approvals.check(signed, self._without_records(signed))
            self._active = self._begun(run, signed)
        except WardroundError:
            self._close_active()
            raise
        return self._active

    def _verified(self, signed: SignedJob) -> None:
        """Whether its submitter and all its sites are trusted now."""
        try:
            signed.verify(self.folder.pins(), me=self.name)
        except (IdentityError, Refused) as error:
            self._log.append(
                "job-refused", job=signed.id, submitter=signed.submitter, reason=word(getattr(error, "reason", "refused")),
                cause=type(error).__name__, digest=signed.digest,
            )  # fmt: skip
            raise

    def _begun(self, run: str, signed: SignedJob) -> _Active:
        from wardround.deploy.release import SiteRelease
        from wardround.federation.baselines import alone_elsewhere
        from wardround.federation.site import Host, Seen

        policy = self._read_policy()
        job = policy.tighten(signed.job)
        folder = within(self.folder.path / "runs", run, "run")
        records = self._records(job)
        # the rows that are there now, which are those that are used
        verdict = self._with_records(signed, records)
        self._approvals.check(signed, verdict)
        self._verdicts[(signed.digest, policy.digest)] = verdict
        release = SiteRelease(run, folder, self._read_policy, self._log)
        seen: Seen = {}

        def further(name: str) -> Host:
            """The host of a model beside the federation's, which the job must ask for."""
            if name not in job.evaluation.baselines:
                raise Refused(f"the job asks for no model {name!r:.80}")
            of_its_own = _home(folder, name)
            return Host(
                alone_elsewhere(job), records.unprepared(), *self._kept_in(of_its_own, job, signed), release=release,
                seen=seen, tasks=(messages.TRAIN, messages.EVALUATE),
            )  # fmt: skip

        host = Host(
            job, records, *self._kept_in(folder, job, signed), release=release, seen=seen, arms=further, light=True
        )
        for home in (folder, *(_home(folder, name) for name in job.evaluation.baselines)):
            if (home / PREPARED).exists():
                message = wire.decode((home / PREPARED).read_bytes())
                for _ in host.answer(request_of(message, self.name, {}), (self.name,)):
                    pass
        self._log.append("run-started", run=run, job=signed.id, digest=signed.digest)
        questions = self._questions(signed, job, folder, records)
        return _Active(
            id=run, signed=signed, job=job, host=host, folder=folder, policy=policy.digest, questions=questions
        )

    def _questions(self, signed: SignedJob, job: Job, folder: Path, records: Any) -> Callable[[str | None], Questions]:
        """What may be asked of each model of a run."""
        from wardround.federation.baselines import alone_elsewhere

        rows, bounds = int(records.count((self.name,), "train")[0]), Bounds.of(self._read_policy(), job)
        made: dict[str | None, Questions] = {}

        def of(arm: str | None) -> Questions:
            if arm is not None and arm not in job.evaluation.baselines:
                raise QuestionRefused("task", f"the approved job asks for no model {arm!r:.80}")
            if arm not in made:
                made[arm] = Questions(
                    _home(folder, arm), job if arm is None else alone_elsewhere(job), site=self.name, sites=signed.sites,
                    rows=rows, tasks=_tasks(job, records.description) if arm is None else (messages.TRAIN, messages.EVALUATE),
                    bounds=bounds,
                )  # fmt: skip
            return made[arm]

        return of

    def _kept_in(self, folder: Path, job: Job, signed: SignedJob) -> tuple[Any, Any, Any]:
        """A model's states and half of the channel, which outlive this process in a folder, and the device."""
        from wardround.channels import registry as channels
        from wardround.channels.home import Home
        from wardround.experiment import device_of
        from wardround.store.states import StateFile

        for path in (folder, folder / "channel"):
            atomic.make_folder(path)
        channel: Any = channels.build(job.privacy, sites=len(signed.sites), remote=True)
        if hasattr(channel, "half_at"):
            pins = self.folder.pins()
            known = {name: pins.key(name) for name in signed.sites}
            least = Bounds.of(self._read_policy(), job).least
            home = Home(
                identities={self.name: self._sealer.identity.private}, pins=known, folder=folder / "channel",
                minimum=least,
            )  # fmt: skip
            half = channel.half_at(home)
        else:
            half = channel.site_half((self.name,))
        return StateFile(folder / "state", self.name), half, device_of(job.engine.device)

    def _ended(self, run: str, body: bytes) -> None:
        told = json.loads(body)
        if self._active is not None and self._active.id == run:
            self._close_active()
        self._log.append("run-ended", run=run, status=word(str(told.get("status"))), cause=word(str(told.get("cause"))))

    def _close_active(self) -> None:
        if self._active is not None:
            self._active.host.close()
            self._active = None

    def _witnessed(self, body: bytes) -> dict[str, Json]:
        """The coordinator's head is noted here and signed, and this site's own head goes back for the same."""
        told, pins = json.loads(body), self.folder.pins()
        found: dict[str, Json] = {}
        if told.get("head"):
            found["signature"] = self._log.countersign(Head.from_json(told["head"]), pins)
        if told.get("signature") and told.get("signed"):
            head = Head.from_json(told["signed"])
            self._log.countersigned(head, self._coordinator, str(told["signature"]), pins)
        head_now = self._log.head()
        return {**found, "head": head_now.to_json() if head_now else None}

    def _print(self, text: str) -> None:
        line = json.dumps({"time": datetime.now(UTC).isoformat(timespec="seconds"), "site": self.name, "text": text})
        with contextlib.suppress(OSError):
            print(line, flush=True)  # noqa: T201 - the process's own log


def _home(folder: Path, model: str | None) -> Path:
    """Where a run keeps what belongs to one of its models.

    Raises:
        MessageError: a model that there cannot be.
    """
    if model is None:
        return folder
    if model not in messages.MODELS:
        raise MessageError(f"a message is for the model {model!r:.80}: expected one of {', '.join(messages.MODELS)}")
    return folder / "further" / model


def own_records(job: Job, site: str) -> tuple[Description, SiteData]:
    """The description of the bound dataset and this site's records, divided as a simulation of all sites divides them."""
    from wardround.data import registry as datasets
    from wardround.data.check import check_groups, check_records
    from wardround.data.split import split_sites

    dataset = datasets.build(job.data)
    description = dataset.describe()
    # a table of one hospital has one site, whatever it is called there
    own = site if site in description.sites or len(description.sites) > 1 else description.sites[0]
    raw = {site: dataset.load(own)}
    check_records(description, raw)
    if job.evaluation.aggregate != "none":
        check_groups(description, raw)
    return description, split_sites(raw, job.data.split, seed=job.seed)[site]


def _tasks(job: Job, description: Description) -> tuple[str, ...]:
    """Additive tasks of the federation's own loop."""
    spec, found = job.data.preprocessing, [messages.TRAIN, messages.EVALUATE, messages.OVERLAY]
    if description.columns or spec.pictures != "none":
        found.append(messages.STATISTICS)
    if job.training.loss.class_weights == "balanced":
        found.append(messages.CLASSES)
    return tuple(found)


def _about(message: Message) -> dict[str, Any]:
    """What was asked, for the log: stage, task, and the round where it has one."""
    given, task = message.meta.get("round"), message.meta.get("task")
    index = given.get("index") if isinstance(given, dict) else None
    return {
        "stage": word(message.stage),
        **({"task": word(task)} if isinstance(task, str) else {}),
        **({"round": index} if type(index) is int and index >= 0 else {}),
    }


def _verdict_json(decision: Decision) -> dict[str, Json]:
    return {"status": decision.status, "reasons": list(decision.reasons), "by": decision.by}


def _json(value: Json) -> bytes:
    return json.dumps(value, sort_keys=True).encode()


def wait_for(path: Path, seconds: float) -> bool:
    """Whether a file is there within some seconds."""
    end = time.monotonic() + seconds
    while not path.exists():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True

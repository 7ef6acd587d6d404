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
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from wardround import __version__, wire
from wardround.config.job import Job
from wardround.deploy.approval import Approvals, Decision
from wardround.deploy.audit import Head
from wardround.deploy.jobs import SignedJob
from wardround.deploy.kit import PartyFolder, party_folder
from wardround.deploy.policy import Asked, Facts, SitePolicy, Verdict, apply_limits, read_policy
from wardround.deploy.sealing import Sealer, word
from wardround.deploy.supervise import Child
from wardround.errors import IdentityError, MessageError, Refused, RunError, StorageError, WardroundError
from wardround.federation import messages
from wardround.federation.engines.flower.engine import ASK, FACTS, REPLY, SILENT, STACKED, request_of, unstacked
from wardround.federation.engines.flower.relay import Frame
from wardround.federation.engines.flower.transfer import Inbox, Parcel, Taken, items_of
from wardround.store import atomic
from wardround.types import Description, Json, Message, SiteData

JOB, END, WITNESS, VERDICT, REFUSED, NOTED = "job", "end", "witness", "verdict", "refused", "noted"
"""Kinds of messages beside those of the loop: a job for judgement, a run's end, a log's head, and their answers."""
STATE = "state"
_NO_RUN = "none"
_SHORT = 2**20
_TICK = 0.5


class OverTime(Refused):
    """A task took longer than the site's policy gives it."""


@dataclass
class _Active:
    """The run that is worked on."""

    id: str
    signed: SignedJob
    job: Job
    host: Any
    folder: Path


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
        self._approvals = Approvals(self.folder.path / "jobs", self._read_policy, self._log)
        self._coordinator = self.folder.roster().coordinator.name
        self._limit = self._policy.limits.message_megabytes * 10**6
        self._inbox = Inbox(self._limit)
        self._stopping = threading.Event()
        self._active: _Active | None = None
        self._verdicts: dict[tuple[str, str], Verdict] = {}
        self._connected, self._answered = False, 0
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
                    self._note_refusals()
                    if taken is not None:
                        self._inbox.answer(taken.number, self._worked(taken))
                        self._answered += 1
                        self._tell("waiting")
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

    _doing = "waiting"

    def _tell(self, doing: str | None, cause: str = "") -> None:
        """What the site does, for `status`."""
        self._doing = doing or self._doing
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

    def _worked(self, taken: Taken) -> Parcel:
        """The answer to a request; whatever goes wrong is an answer too, and never the end of the process."""
        run = _NO_RUN
        try:
            items = items_of(taken.data)
            taken.data = bytearray()
            first = self._sealer.open(items[0] if items else b"", sender=self._coordinator, run=None, limit=self._limit)
            # whatever is longer, but for ASK, is cut, and refused as malformed
            run, body = first.run, bytes(first.body[:_SHORT])
            if first.kind == FACTS and len(items) == 2:
                return self._asked(run, json.loads(body), *self._request(run, items))
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
        except (MessageError, IdentityError) as error:
            self._print(f"refused a message: {error}")
            return self._sealed(run, [(REFUSED, _json({"cause": str(error)}))])
        except Exception as error:  # noqa: BLE001 - a site answers, whatever its records or its disk do
            self._print(f"could not answer: {type(error).__name__}: {error}")
            with contextlib.suppress(WardroundError):
                self._log.append("limit", run=run, what="task", cause=type(error).__name__)
            # the text of an error may quote records, so the class alone leaves, but for what was written for the other side
            said = str(error) if isinstance(error, (Refused, OverTime)) else type(error).__name__
            return self._sealed(run, [(SILENT, _json({"cause": said}))])

    def _request(self, run: str, items: list[memoryview]) -> tuple[Message, bytes]:
        """The request that is the last of `items`, and its bytes where they must be kept; nothing else holds on to these."""
        item = items.pop()
        items.clear()  # each is a view of all of them
        found = self._sealer.open(item, sender=self._coordinator, run=run, limit=self._limit)
        if found.kind != ASK:
            raise MessageError(f"a {found.kind} message came where the request was expected")
        message = wire.decode(found.body)
        return message, bytes(found.body) if message.stage == messages.PREPARE else b""

    def _sealed(self, run: str, answers: list[tuple[str, bytes]], round: int | None = None) -> Parcel:
        return Parcel(
            [[self._sealer.head(self._coordinator, run, kind, body, round=round), body] for kind, body in answers]
        )

    def _asked(self, run: str, facts: dict[str, Json], message: Message, kept: bytes) -> Parcel:
        active = self._run(run)
        meta = message.meta.get("round")
        index = meta.get("index") if isinstance(meta, dict) else None
        round = index if type(index) is int and index >= 0 else None
        self._await_window()
        self._tell(
            f"{message.stage} {message.meta.get('task', '')}".strip() + (f" {round}" if round is not None else "")
        )
        with self._timed(self._read_policy().limits.seconds_a_task):
            replies = list(active.host.answer(request_of(message, self.name, facts), (self.name,)))
        if message.stage == messages.PREPARE:
            atomic.write_bytes(active.folder / "prepare.message", kept)
        message.arrays.clear()  # a model, which nobody needs any more, beside two of the answer
        answers = [(STACKED if one.stacked else REPLY, wire.encode(unstacked(one))) for one in replies]
        return self._sealed(run, answers or [(SILENT, _json({"cause": "an old request"}))], round)

    def _await_window(self) -> None:
        while not self._stopping.is_set() and not self._read_policy().schedule.is_open(datetime.now(UTC)):
            self._tell("waiting for the schedule")
            self._stopping.wait(5.0)

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
        policy = self._read_policy()
        key = (signed.digest, policy.digest)
        if key not in self._verdicts:
            asked = Asked(
                submitter=signed.submitter,
                sites=tuple(signed.sites),
                plugins=signed.plugins,
                folder=self.folder.plugins,
            )
            first = policy.judge(signed.job, Facts(rows=2**62, classes={}), asked)
            facts = self._facts(policy.tighten(signed.job)) if first.allowed else None
            self._verdicts[key] = policy.judge(signed.job, facts, asked) if first.allowed else first
        return self._verdicts[key]

    def _facts(self, job: Job) -> Facts:
        records = self._records(job)
        counts = records.class_counts(self.name)
        names = records.description.classes
        totals = {name: sum(counts[split][k] for split in counts) for k, name in enumerate(names)}
        return Facts(rows=int(records.count((self.name,), "train")[0]), classes=totals)

    def _records(self, job: Job) -> Any:
        from wardround.federation.records import Records

        description, data = own_records(job, self.name)
        return Records(description, {self.name: data}, grouped=job.evaluation.aggregate != "none")

    def _run(self, run: str) -> _Active:
        """The run's host, from the disk where this process does not have it yet.

        Raises:
            Refused: no approval holds.
        """
        if self._active is None or self._active.id != run:
            self._close_active()
            signed = self._approvals.signed(run)
            signed.verify(self.folder.pins(), me=self.name)
            self._approvals.check(signed, self._verdict(signed))
            self._active = self._begun(run, signed)
        else:
            self._approvals.check(self._active.signed, self._verdict(self._active.signed))
        return self._active

    def _begun(self, run: str, signed: SignedJob) -> _Active:
        from wardround.channels import registry as channels
        from wardround.channels.home import Home
        from wardround.experiment import device_of
        from wardround.federation.site import Host
        from wardround.store.states import StateFile

        job = self._read_policy().tighten(signed.job)
        self._verdict(signed)
        folder = self.folder.path / "runs" / run
        for path in (folder, folder / "channel"):
            atomic.make_folder(path)
        channel: Any = channels.build(job.privacy, sites=len(signed.sites), remote=True)
        if hasattr(channel, "half_at"):
            pins = self.folder.pins()
            known = {name: pins.key(name) for name in signed.sites}
            home = Home(identities={self.name: self._sealer.identity.private}, pins=known, folder=folder / "channel")
            half = channel.half_at(home)
        else:
            half = channel.site_half((self.name,))
        states = StateFile(folder / "state", self.name)
        host = Host(job, self._records(job), states, half, device_of(job.engine.device))
        prepared = folder / "prepare.message"
        if prepared.exists():
            for _ in host.answer(request_of(wire.decode(prepared.read_bytes()), self.name, {}), (self.name,)):
                pass
        self._log.append("run-started", run=run, job=signed.id, digest=signed.digest)
        return _Active(id=run, signed=signed, job=job, host=host, folder=folder)

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

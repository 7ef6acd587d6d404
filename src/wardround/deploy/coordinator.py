"""The coordinator's process: it keeps Flower alive, takes signed jobs from its inbox and runs them, one at a time.

    DIR/inbox/ID.json       signed jobs that wait
    DIR/runs/ID/            a run's folder, as on a laptop; ID.json beside it is the job, ID.outcome.json how it ended
    DIR/state/              pid, status.json, metrics.prom, logs

A coordinator that was killed goes on with its run from the last committed round, under the same id.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from wardround import __version__
from wardround.content import Buffer, Content
from wardround.deploy.audit import Head
from wardround.deploy.jobs import LIMIT as JOB_LIMIT
from wardround.deploy.jobs import SignedJob, approved_plugins, check_plugins, named_files
from wardround.deploy.kit import CoordinatorFolder, coordinator_folder
from wardround.deploy.metrics import Metrics
from wardround.deploy.names import within
from wardround.deploy.progress import Progress
from wardround.deploy.sealing import Sealer, word
from wardround.deploy.site_process import END, JOB, NOTED, WITNESS
from wardround.deploy.supervise import Child, Events
from wardround.errors import (
    ConfigError,
    DataError,
    IdentityError,
    MessageError,
    QuorumLost,
    Refused,
    RunError,
    StorageError,
    WardroundError,
)
from wardround.federation.engines.flower.engine import ASK, LIMIT, Event, FlowerEngine
from wardround.federation.engines.flower.relay import Frame
from wardround.federation.messages import FEDERATED
from wardround.plain import plain
from wardround.store import atomic
from wardround.training import memory
from wardround.types import Json

STATE, INBOX, RUNS = "state", "inbox", "runs"
SIGNED, OUTCOME = "job.signed.json", "outcome.json"
_ASKING, _DECISION = 30.0, 3.0
"""Seconds that sites have to answer a question outside of rounds, and between two questions whether a job was approved."""
_TICK, _REFRESH = 0.5, 2.0
_CONNECTIONS = frozenset({"online", "up", "down", "ended"})
"""What the relay tells of connections, not of a datagram."""
_ROUNDS_A_WITNESS = 10
_KNOCKS, _KNOCKS_A_DAY = 20, 500
"""Refused connections that are noted in a minute, and in a day: the audit log is kept for ever."""
_SAID, _LONGEST = 400, 4000
"""Characters of a site's words that are kept: in a notice, and of why it does not run a job."""
_ANSWERS, _ANSWER = {"plain": 8, "secagg": 8, "he": 8}, 64
"""How often the longest request of a run so far an answer may be, by channel: a plug-in may answer with much more."""
_NOTICES = frozenset(
    ["again", "dropped", "lost", "malformed", "refused", "silent", "weight", "witness", "executor", "nonsense"]
)
"""What notices of sites are counted under in the metrics, where labels must be few."""


class Stopped(BaseException):
    """The process was told to stop: like an interruption, it ends a run that can go on later."""


@dataclass
class _Seen:
    """What the coordinator knows now; written to status.json."""

    sites: dict[str, str] = field(default_factory=dict)
    connected: bool = False
    run: str | None = None
    phase: str = "idle"
    round: int = 0
    rounds: int = 0
    waiting: list[str] = field(default_factory=list)
    seen: dict[str, str] = field(default_factory=dict)
    """When a site was online last."""
    cause: str = ""


class RelayPost:
    """The engine's post: datagrams through the coordinator's relay.

    Args:
        events: what the relay brings.
        stopping: set once the process is to end.
        told: called again and again while a round waits for sites, with whether something about connections was told.
    """

    def __init__(self, events: Events, stopping: threading.Event, told: Callable[[bool], None]) -> None:
        self._events, self._stopping, self._told = events, stopping, told

    def send(self, site: str, key: str, data: bytes) -> None:
        """Hand a datagram to the relay; lost where it is not running, and then sent again later."""
        child = self._events.child
        if child is None or not child.send({"op": "post", "key": key, "site": site}, data):
            return

    def wait(self, timeout: float) -> Event | None:
        """What came. Raises Stopped once the process is to end."""
        if self._stopping.is_set():
            raise Stopped
        frame = self._events.get(timeout)
        self._told(frame is not None and frame[0].get("op") in _CONNECTIONS)
        if frame is None:
            return None
        head, payload = frame
        return Event(op=str(head.get("op")), site=str(head.get("site", "")), key=str(head.get("key", "")), data=payload)


class RunSeals:
    """Seals of one run, for the engine."""

    def __init__(self, sealer: Sealer, run: str) -> None:
        self._sealer, self._run = sealer, run
        self.round: int | None = None

    def head(self, site: str, kind: str, body: Buffer | Content) -> bytes:
        """See `Seals.head`."""
        return self._sealer.head(site, self._run, kind, body, round=self.round if kind == ASK else None)

    def open(self, site: str, data: Content) -> tuple[str, Content]:
        """See `Seals.open`."""
        found = self._sealer.open(data, sender=site, run=self._run, limit=LIMIT)
        return found.kind, found.body


class Coordinator:
    """One coordinator.

    Args:
        folder: the coordinator's folder.
        listen: HOST:PORT on which the SuperLink listens; None: where sites dial, on all addresses unless that is a loopback.
        once: end when no job waits and none runs.
        report: whether runs get a report page.
    """

    def __init__(self, folder: Path, *, listen: str | None = None, once: bool = False, report: bool = True) -> None:
        self.folder: CoordinatorFolder = coordinator_folder(folder)
        self.folder.settled()
        self._state, self._once, self._report = folder / STATE, once, report
        for path in (self._state, folder / INBOX, folder / RUNS):
            atomic.make_folder(path)
        self._lock = FileLock(str(self._state / "lock"))
        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise RunError(f"{folder}: a coordinator is running already: stop it first") from error
        spec = self.folder.project.coordinator
        host, _, port = (listen or _listen(spec.addresses[0], spec.port)).rpartition(":")
        self._host, self._port, self._dialled = host.strip("[]"), int(port), spec.addresses[0]
        self._secret = secrets.token_hex(32)
        self._log = self.folder.audit()
        self._sealer = Sealer(self.folder.identity(), self.folder.pins, self.folder.seen(), self._log)
        self._stopping = threading.Event()
        self._now, self._due = _Seen(), 0.0
        self._progress = Progress(self._log)
        self._engine: FlowerEngine | None = None
        self.metrics = Metrics(self._state / "metrics.prom")
        self._events = Events()
        self._knocks: list[float] = []
        self._knocked_today = (datetime.now(UTC).date(), 0)
        self._said: dict[str, str] = {}  # what sites answered instead, since the last round
        self._superlink = self._new_child("superlink", self._superlink_options)
        self._relay = self._new_child("coordinator", self._relay_options)
        self._events.child = self._relay
        self._roster = self.folder.roster().digest

    def _new_child(self, kind: str, options: Any) -> Child:
        return Child(
            kind, options, home=self._state / f"flower-{kind}", log=self._state / f"{kind}.log", take=self._taken
        )

    # ------------------------------------------------------------------------------------------------ life

    def run(self) -> None:
        """Serve until stopped by SIGTERM or SIGINT."""
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, self._stop)
        import torch

        torch.set_num_threads(1)
        memory.keep_nothing()
        self._log.append("started", what="coordinator", version=__version__)
        atomic.write_text(self._state / "pid", str(os.getpid()))
        status, cause = "done", "none"
        try:
            self._superlink.start()
            self._relay.start()
            self._serve()
        except Stopped:
            status = "interrupted"
        except BaseException as error:
            status, cause = "failed", type(error).__name__
            raise
        finally:
            for child in (self._relay, self._superlink):
                child.stop()
            self._log.append("stopped", what="coordinator", status=status, cause=word(cause))
            self._now.phase, self._now.connected = "stopped", False
            self._write_status()
            with contextlib.suppress(OSError):
                (self._state / "pid").unlink()
            self._lock.release()

    def _stop(self, *_: object) -> None:
        if self._stopping.is_set():
            raise KeyboardInterrupt
        self._stopping.set()

    def _serve(self) -> None:
        while not self._stopping.is_set():
            signed = self._next()
            if signed is None:
                if self._once and not any((self.folder.path / INBOX).iterdir()):
                    return
                self._idle()
                continue
            self._job(signed)
        raise Stopped

    def _idle(self) -> None:
        self._events.get(_TICK)
        digest = self.folder.roster().digest
        if digest != self._roster:  # somebody was enrolled, rotated or revoked: the relay registers keys at its start
            self._roster = digest
            self._relay.kick()
        self._write_status()

    def _taken(self, frame: Frame) -> None:
        """Called from the children's threads."""
        head = frame[0]
        op = head.get("op")
        if op == "online":
            online = set(head["sites"])
            self._note_seen()
            self._now.sites = {name: "online" if name in online else "offline" for name in self.folder.node_keys()}
        elif op in ("up", "down", "ended") and head.get("kind") != "superlink":
            self._now.connected = op == "up"
            self._now.cause = str(head.get("cause", ""))[:300]
            if op != "up":
                self._note_seen()
                self._now.sites = dict.fromkeys(self._now.sites, "unknown")
        if op == "guard":
            self._knocked(head)
            return
        if op == "ended":
            self.metrics.add("restarts_total", kind=str(head.get("kind")))
        self._events.put(frame)

    def _note_seen(self) -> None:
        here = datetime.now(UTC).isoformat(timespec="seconds")
        there = (name for name, state in self._now.sites.items() if state == "online")
        # a new one: another thread may look at the old
        self._now.seen = {**self._now.seen, **dict.fromkeys(there, here)}

    def _knocked(self, head: Mapping[str, Json]) -> None:
        """Note whom the guard refused; of many, a few a minute, so that nobody fills the log."""
        count = head.get("count", 1)
        self.metrics.add("refused_total", count if type(count) is int else 1, what=str(head.get("what")))
        if head.get("event") == "refusals":
            return
        now = time.monotonic()
        self._knocks = [at for at in self._knocks if now - at < 60.0]
        if len(self._knocks) < _KNOCKS:
            self._knocks.append(now)
            day, count = self._knocked_today
            today = datetime.now(UTC).date()
            self._knocked_today = (today, count + 1 if day == today else 1)
            if self._knocked_today[1] > _KNOCKS_A_DAY:
                return
            mark = str(head.get("key") or "")
            facts: dict[str, Any] = {"fingerprint": mark} if mark else {}
            with contextlib.suppress(WardroundError):
                # what was asked for is a stranger's text: it is in the SuperLink's log
                self._log.append("connection-refused", claimed="?", reason=word(str(head.get("what"))), **facts)

    def _superlink_options(self) -> Mapping[str, Any]:
        certificate, key = self.folder.server
        return {
            "host": self._host, "port": self._port, "certificate": str(certificate.resolve()), "key": str(key.resolve()),
            "authority": str(self.folder.authority.resolve()), "secret": self._secret,
        }  # fmt: skip

    def _relay_options(self) -> Mapping[str, Any]:
        here = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self._host, self._host)
        sites = {name: path.read_text(encoding="ascii") for name, path in self.folder.node_keys().items()}
        return {
            "address": f"[{here}]:{self._port}" if ":" in here else f"{here}:{self._port}", "name": self._dialled,
            "authority": str(self.folder.authority.resolve()), "secret": self._secret, "sites": sites,
        }  # fmt: skip

    # ------------------------------------------------------------------------------------------------ jobs

    def _next(self) -> SignedJob | None:
        """A run that was begun and has no outcome, else the oldest job of the inbox."""
        for name in atomic.names(self.folder.path / RUNS):
            run = self.folder.path / RUNS / name
            if (run.parent / f"{name}.json").exists() and not (run.parent / f"{name}.{OUTCOME}").exists():
                return SignedJob.from_bytes((run.parent / f"{name}.json").read_bytes())
        inbox = self.folder.path / INBOX
        for path in sorted(inbox.glob("*.json"), key=lambda one: one.lstat().st_mtime):
            try:
                signed = _read_job(path)
                signed.verify(self.folder.pins())
                check_plugins(signed, self.folder.plugins, self.folder.approved_plugins())
                folder = within(self.folder.path / RUNS, signed.id, "run")
            except (MessageError, IdentityError, Refused, ConfigError, DataError) as error:
                self._refused(path, error)
                continue
            self._log.append("job-submitted", job=signed.id, submitter=signed.submitter, digest=signed.digest)
            atomic.make_folder(folder)
            atomic.write_bytes(folder.with_name(f"{signed.id}.json"), signed.to_bytes())
            path.unlink()
            return signed
        return None

    def _refused(self, path: Path, error: WardroundError) -> None:
        reason = word(str(getattr(error, "reason", "refused")))
        self._log.append("job-refused", reason=reason, cause=type(error).__name__)
        self._print(f"{path.name} refused: {error}")
        atomic.make_folder(self.folder.path / INBOX / "refused")
        path.replace(self.folder.path / INBOX / "refused" / path.name)

    def _job(self, signed: SignedJob) -> None:
        """Run one job to its terminal status."""
        began = time.monotonic()
        self._now.run, self._now.round, self._now.cause = signed.id, 0, ""
        self._said.clear()
        self._progress.begin(signed.id)
        self._phase("starting")
        seals = RunSeals(self._sealer, signed.id)
        post = RelayPost(self._events, self._stopping, self._refresh)
        kind = signed.job.privacy.channel.kind
        engine = FlowerEngine(
            tuple(signed.sites), post, seals, notice=self._notice, folder=self._state, times=_ANSWERS.get(kind, _ANSWER),
        )  # fmt: skip
        self._engine = engine
        status, cause = "done", ""
        try:
            self._log.append("run-started", run=signed.id, job=signed.id, digest=signed.digest)
            check_plugins(signed, self.folder.plugins, self.folder.approved_plugins())
            self._offer(signed, engine)
            self._train(signed, engine, seals)
        except Stopped:
            self._print(
                f"run {signed.id} is interrupted at round {self._now.round}: it goes on when the coordinator does"
            )
            raise
        except Exception as error:  # noqa: BLE001 - whatever ended the run is its cause
            said = "".join(f"; {site} {text}" for site, text in sorted(self._said.items()))
            status, cause = "failed", f"{type(error).__name__}: {error}{said if isinstance(error, QuorumLost) else ''}"
            self._print(f"run {signed.id} failed: {cause}")
        ended: dict[str, Json] = {"status": status, "cause": cause.partition(":")[0] or "none"}
        seconds = time.monotonic() - began
        self._log.append(
            "run-ended", run=signed.id, status=status, cause=word(str(ended["cause"])), round=self._now.round,
            seconds=round(seconds, 3),
        )  # fmt: skip
        atomic.write_json(
            self.folder.path / RUNS / f"{signed.id}.{OUTCOME}",
            {"run": signed.id, "status": status, "cause": cause, "seconds": seconds, "rounds": self._now.round},
        )
        with contextlib.suppress(WardroundError):
            self._witness(engine, END, ended)
        self.metrics.add("runs_total", status=status)
        self._now.run = self._engine = None
        self._progress.begin(None)
        self._phase("idle")

    def _offer(self, signed: SignedJob, engine: FlowerEngine) -> None:
        """Send the job to the sites that it needs, until all have approved it.

        Raises:
            Refused: a site's policy or administrator does not allow it.
        """
        open_, told = set(signed.sites), ""
        while open_:
            asked = dict.fromkeys(sorted(open_), signed.to_bytes())
            for site, _, verdict in engine.tell(JOB, asked, _ASKING):
                status = verdict.get("status")
                if status == "approved":
                    open_.discard(site)
                elif status != "pending":
                    given = verdict.get("reasons") or verdict.get("cause") or status
                    reasons = "; ".join(map(str, given if isinstance(given, list) else [given]))
                    raise Refused(plain(f"site {site} does not run job {signed.id}: {status}: {reasons}")[:_LONGEST])
            waits = f"waiting for {', '.join(sorted(open_))}"
            if open_:
                self._now.waiting = sorted(open_)
                self._phase(waits)
                if waits != told:
                    self._print(f"run {signed.id}: {waits} (connection or approval)")
                    told = waits
                self._pause(_DECISION)
        self._now.waiting = []

    def _pause(self, seconds: float) -> None:
        if self._stopping.wait(seconds):
            raise Stopped

    def _train(self, signed: SignedJob, engine: FlowerEngine, seals: RunSeals) -> None:
        from wardround.data import registry as datasets
        from wardround.experiment import run_between

        job = signed.job
        folder = self.folder.path / RUNS / signed.id
        resume = (folder / "run.json").exists()
        self._phase("training")
        self._now.rounds = job.training.rounds

        def listen(event: Mapping[str, Json]) -> None:
            kind = event.get("event")
            if kind == "setup":
                seals.round = 0
            elif kind == "round":
                self._round(signed.id, event, engine)
                seals.round = self._now.round
            elif kind == "retry":
                self._print(f"run {signed.id}: round {event.get('round')} is tried again: {event.get('cause')}")
                self.metrics.add("retries_total")
            elif kind == "site":
                self._notice(str(event["site"]), str(event["what"]), str(event["text"]))
            else:
                self._phase(str(kind))

        with approved_plugins(self.folder.plugins, self.folder.approved_plugins):
            result = run_between(
                job, folder, engine, datasets.build(job.data).describe(), {"run": signed.id}, resume=resume,
                report=self._report, listener=listen,
            )  # fmt: skip
        self._now.round = job.training.rounds  # also of a run that was whole before this process began
        self._print(f"run {signed.id} is done: selected round {result.get('selected_round')}")

    def _round(self, run: str, event: Mapping[str, Json], engine: FlowerEngine) -> None:
        index, missing = event["round"], list(event.get("missing") or [])
        further = {} if event["arm"] == FEDERATED else {"what": event["arm"]}
        asked = list(engine.sites) if event["cohort"] == "all" else list(event["cohort"])
        counted = [site for site in asked if site not in missing]
        self._now.round = index + 1
        self._said.clear()
        self._log.append("round", run=run, round=index, asked=asked, counted=counted, missing=missing, **further)
        self.metrics.add("rounds_total")
        self.metrics.put("round", index + 1)
        self.metrics.put("sites_counted", len(counted))
        self.metrics.put("bytes_up", event["bytes_up"])
        self.metrics.put("bytes_down", event["bytes_down"])
        loss = event.get("train_loss")
        self._print(
            f"run {run}: round {index + 1} of {event['rounds']}"
            + (", each alone" if further else "")
            + f", {len(counted)} of {len(asked)} sites"
            + (f", training loss {loss:.4f}" if isinstance(loss, float) else "")
            + (f", missing {', '.join(missing)}" if missing else "")
        )
        self._phase("training each alone" if further else "training")
        if (index + 1) % _ROUNDS_A_WITNESS == 0:
            self._witness(engine)

    def _tell_all(self, engine: FlowerEngine, kind: str, body: Mapping[str, Json]) -> dict[str, dict[str, Json]]:
        text = json.dumps(dict(body), sort_keys=True).encode()
        found: dict[str, dict[str, Json]] = {}
        for site, answer, said in engine.tell(kind, dict.fromkeys(engine.sites, text), _ASKING):
            if answer == NOTED:
                found[site] = said
            else:
                self._notice(site, answer, str(said.get("cause")))
        return found

    def _witness(self, engine: FlowerEngine, kind: str = WITNESS, more: Mapping[str, Json] | None = None) -> None:
        """Exchange heads of audit logs: each party notes and signs the others'."""
        head = self._log.head()
        if head is None:
            return
        pins = self.folder.pins()
        back: dict[str, bytes] = {}
        for site, found in self._tell_all(engine, kind, {**(more or {}), "head": head.to_json()}).items():
            try:
                self._log.countersigned(head, site, str(found.get("signature")), pins)
                own = found.get("head")
                if own:
                    theirs = Head.from_json(own)
                    if theirs.log != site:
                        raise MessageError(f"it gives the head of the log of {theirs.log}")
                    signature = self._log.countersign(theirs, pins)
                    back[site] = json.dumps(
                        {"signed": theirs.to_json(), "signature": signature}, sort_keys=True
                    ).encode()
            except (StorageError, RunError):
                raise  # this log's own disk or last line
            except WardroundError as error:
                self._notice(site, "witness", str(error))
        for _ in engine.tell(WITNESS, back, _ASKING):
            pass

    # ------------------------------------------------------------------------------------------------ telling

    def _notice(self, site: str, what: str, text: str) -> None:
        what, text = word(what), plain(text)[:_SAID]  # a site's own words
        known = what if what in _NOTICES else "other"
        self.metrics.add("site_events_total", site=site, what=known)
        self._said[site] = f"{what}: {text}"
        self._print(f"site {site}: {what}: {text}")

    def _phase(self, text: str) -> None:
        self._now.phase = text
        self._write_status()

    def _refresh(self, urgent: bool) -> None:
        """Write the status every few seconds; seldom where the disk is slow."""
        began = time.monotonic()
        if urgent or began > self._due:
            self._write_status()
            self._due = time.monotonic() + max(_REFRESH, 20 * (time.monotonic() - began))

    def _write_status(self) -> None:
        now = self._now
        self._note_seen()
        self._progress.look()
        each = self._progress.seconds
        for site, state in now.sites.items():
            self.metrics.put("site_online", float(state == "online"), site=site)
        self.metrics.put("connected", float(now.connected))
        self.metrics.write()
        atomic.write_json(
            self._state / "status.json",
            {
                "coordinator": self.folder.name, "pid": os.getpid(), "connected": now.connected, "sites": now.sites,
                "run": now.run, "phase": now.phase, "round": now.round, "rounds": now.rounds,
                "waiting": now.waiting or list(self._engine.waiting if self._engine else ()),
                "seen": now.seen, "parts": self._progress.parts(), "seconds_a_round": each,
                "seconds_left": None if each is None else each * max(now.rounds - now.round, 0),
                "cause": now.cause, "restarts": {c.kind: max(c.restarts, 0) for c in (self._superlink, self._relay)},
                "pids": {c.kind: c.pid for c in (self._superlink, self._relay)},
                "inbox": sorted(p.stem for p in (self.folder.path / INBOX).glob("*.json")),
                "time": datetime.now(UTC).isoformat(timespec="seconds"),
            },
        )  # fmt: skip

    def _print(self, text: str) -> None:
        line = json.dumps({"time": datetime.now(UTC).isoformat(timespec="seconds"), "text": text})
        with contextlib.suppress(OSError):
            print(line, flush=True)  # noqa: T201 - the process's own log


def _read_job(path: Path) -> SignedJob:
    """A signed job of the inbox: a file that lies there, and no link, folder or pipe.

    Raises:
        MessageError: it is none, or cannot be read.
        Refused: it names files of this machine.
    """
    if path.is_symlink() or not path.is_file():
        raise MessageError(f"{path} is no file")
    try:
        with path.open("rb") as file:
            signed = SignedJob.from_bytes(file.read(JOB_LIMIT + 1))
    except OSError as error:
        raise MessageError(f"{path} cannot be read: {error.strerror or error}") from error
    for name, value in named_files(signed.job):
        raise Refused(f"data.options.{name} = {value!r:.100}: a job names no file, for each site has its own")
    return signed


def _listen(address: str, port: int) -> str:
    loopback = address in ("localhost", "::1") or address.startswith("127.")
    return f"{'127.0.0.1' if loopback else '0.0.0.0'}:{port}"

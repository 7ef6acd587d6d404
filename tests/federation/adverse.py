"""An engine as far from one process as a test can be, and everything that goes wrong on the way.

Each site is its own host with its own state file, preprocessing and half of the channel. Requests and replies cross as
bytes, and a site knows nothing but the bytes it got and the files it wrote. Faults are a pure function of the call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

import torch

from wardround import streams, wire
from wardround.config.job import Job
from wardround.content import Content
from wardround.errors import MessageError, Refused
from wardround.federation import messages
from wardround.federation.baselines import alone_elsewhere
from wardround.federation.records import Records
from wardround.federation.site import Host, Release, Seen
from wardround.store.states import SiteStates, StateFile
from wardround.types import Arrays, Channel, Description, Message, Reply, Request, SiteData, SiteHalf

Fault = Literal["lost", "late", "duplicated", "late copy", "later copy", "asked twice", "crash before", "crash after"]
"""What happens to one call.

`lost`: the site answers, and nobody hears it. `late`: its answer comes during the next ask. `late copy`: it comes in time
and again during the next ask; `later copy`: during the one after that. `asked twice`: the request itself is delivered
twice. `crash before`: the site's process dies before it has done anything. `crash after`: it dies once its answer is sent,
and comes back from its disk.
"""


@dataclass(frozen=True, kw_only=True)
class Call:
    """One request to one site; task, index and attempt are '' and 0 for direct questions."""

    site: str
    stage: str
    task: str = ""
    index: int = 0
    attempt: int = 0


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One reply as it crossed; `stacked` is the engine's envelope, since the message does not say it."""

    call: Call
    stacked: bool
    data: bytes


Plan = Callable[[Call], frozenset[Fault]]
Tamper = Callable[[Call, Message], Message]
Halves = Callable[[Path, str], SiteHalf]


def peaceful(call: Call) -> frozenset[Fault]:
    """Nothing goes wrong."""
    return frozenset()


def seeded(seed: int, rates: Mapping[Fault, float], task: str | None = None) -> Plan:
    """Each fault strikes each call (of one task, where it is given) with its own probability, drawn from the call's name."""

    def plan(call: Call) -> frozenset[Fault]:
        if task is not None and call.task != task:
            return frozenset()
        name = (call.site, call.stage, call.task, call.index, call.attempt)
        struck = {
            fault for fault, rate in rates.items() if streams.generator("fault", seed, fault, *name).random() < rate
        }
        return frozenset(struck)

    return plan


def scripted(faults: Mapping[tuple[int, int, str], set[Fault]], task: str = messages.TRAIN) -> Plan:
    """The faults of one task's contributions by (round, attempt, site)."""

    def plan(call: Call) -> frozenset[Fault]:
        if call.task != task or call.stage != messages.CONTRIBUTE:
            return frozenset()
        return frozenset(faults.get((call.index, call.attempt, call.site), set()))

    return plan


class Hospital:
    """One site's process: what survives a crash is in `folder`."""

    def __init__(
        self, folder: Path, site: str, job: Job, description: Description, data: SiteData, half: Halves,
        states: Callable[[Path, str], SiteStates], releases: Callable[[Path], Release] | None,
    ) -> None:  # fmt: skip
        self._releases = releases
        self._folder, self.site, self._states = folder, site, states
        self._job, self._description, self._data, self._half = job, description, data, half
        self._host: Host | None = None
        self.refusals: list[str] = []
        folder.mkdir(parents=True)

    def _home(self, arm: str | None) -> Path:
        return self._folder if arm is None else self._folder / arm

    def _made(self, job: Job, home: Path, **more: Any) -> Host:
        home.mkdir(parents=True, exist_ok=True)
        records = Records(self._description, {self.site: self._data})
        states, half = self._states(home / "state", self.site), self._half(home, self.site)
        release = None if self._releases is None else self._releases(self._folder)
        return Host(job, records, states, half, torch.device("cpu"), release=release, **more)

    def host(self) -> Host:
        """The running process, or a new one from the disk."""
        if self._host is None:
            seen: Seen = {}
            self._host = self._made(
                self._job, self._folder, seen=seen, light=True,
                arms=lambda name: self._made(
                    alone_elsewhere(self._job), self._home(name), seen=seen, tasks=(messages.TRAIN, messages.EVALUATE)
                ),
            )  # fmt: skip
            for arm in (None, messages.ALONE):
                prepared = self._home(arm) / "prepare.message"
                if prepared.exists():
                    list(self._host.answer(self._received(prepared.read_bytes()), (self.site,)))
        return self._host

    def crash(self) -> None:
        """Whatever was in memory is gone."""
        self._host = None

    def answer(self, data: bytes) -> list[tuple[bool, bytes]]:
        """Answer the request in `data`; a site that cannot make sense of it stays silent, and notes why."""
        request = self._received(data)
        host = self.host()
        try:
            replies = list(host.answer(request, (self.site,)))
        except (MessageError, Refused) as error:
            self.refusals.append(str(error))
            return []
        if request.message.stage == messages.PREPARE:
            (self._home(request.message.meta.get(messages.ARM)) / "prepare.message").write_bytes(data)
        return [(reply.stacked, self._sent(reply)) for reply in replies]

    def _received(self, data: bytes) -> Request:
        """The request that crossed, with this site's own facts: the inverse of `messages.for_site`; read as a long one is."""
        with patch.object(wire, "LONG", 1):
            message = wire.decode(Content(data))
        meta = dict(message.meta)
        facts: Mapping[str, Any] = meta.pop("facts", {})
        return Request(
            message=replace(message, meta=meta), facts={name: {self.site: own} for name, own in facts.items()}
        )

    def _sent(self, reply: Reply) -> bytes:
        """One site has no axis to stack."""
        message = reply.message
        if reply.stacked:
            message = replace(message, arrays={name: value[0] for name, value in message.arrays.items()})
        return wire.encode(message)


class AdverseEngine:
    """Hospitals behind bytes.

    Args:
        folder: where the sites keep their disks, one folder each.
        job, description, data, channel: as for a run.
        plan: what goes wrong with which call.
        tamper: changes a reply on its way.
        seed: of the order in which replies arrive.
        states: makes a site's store, so that a test can show what another one would do.
        halves: makes a site's side of the channel, from its folder and name; None: as the channel makes it for one site.
        releases: makes what decides on a site's own figures, from its folder; None: all leave.

    Attributes:
        answers: every reply that a site sent, also where nobody heard it.
        up, down: bytes that crossed.
    """

    def __init__(
        self, folder: Path, job: Job, description: Description, data: Mapping[str, SiteData], channel: Channel,
        *, plan: Plan = peaceful, tamper: Tamper = lambda call, message: message, seed: int = 0,
        states: Callable[[Path, str], SiteStates] = StateFile, halves: Halves | None = None,
        releases: Callable[[Path], Release] | None = None,
    ) -> None:  # fmt: skip
        half: Halves = halves or (lambda folder, site: channel.site_half((site,)))
        self._plan, self._tamper, self._seed, self._asks = plan, tamper, seed, 0
        self.hospitals = {
            site: Hospital(folder / site, site, job, description, data[site], half, states, releases)
            for site in sorted(data)
        }
        self._late: list[Answer] = []
        self._later: list[Answer] = []
        self.answers: list[Answer] = []
        self.up = self.down = 0

    @property
    def sites(self) -> tuple[str, ...]:
        """The roster."""
        return tuple(self.hospitals)

    def ask(self, request: Request, sites: Sequence[str], deadline: float | None) -> Iterator[Reply]:
        """Every reply that is heard before the deadline, in an order of nobody's choosing."""
        heard, self._late, self._later = self._late, self._later, []
        for site in sites:
            heard += self._call(request, self.hospitals[site])
        self._asks += 1
        order = sorted(range(len(heard)), key=lambda i: streams.key("arrival", self._seed, self._asks, i))
        for i in order:
            answer = heard[i]
            message = self._tamper(answer.call, wire.decode(answer.data))
            if answer.stacked:
                message = replace(message, arrays={name: v.unsqueeze(0) for name, v in message.arrays.items()})
            self.up += len(answer.data)
            yield Reply(sites=(answer.call.site,), message=message, stacked=answer.stacked)

    def _call(self, request: Request, hospital: Hospital) -> list[Answer]:
        data = wire.encode(messages.for_site(request, hospital.site))
        meta = request.message.meta
        round = meta.get("round", {"index": 0, "attempt": 0})
        call = Call(
            site=hospital.site, stage=request.message.stage, task=meta.get("task", ""),
            index=round["index"], attempt=round["attempt"],
        )  # fmt: skip
        faults = self._plan(call)
        self.down += len(data)
        if "crash before" in faults:
            hospital.crash()
            return []
        for _ in range(2 if "asked twice" in faults else 1):
            answers = [Answer(call=call, stacked=stacked, data=data) for stacked, data in hospital.answer(data)]
        self.answers += answers
        if "crash after" in faults:
            hospital.crash()
        if faults & {"late", "late copy"}:
            self._late += answers
        if "later copy" in faults:
            self._later += answers
        if faults & {"lost", "late"}:
            return []
        return answers * 2 if "duplicated" in faults else answers

    def journal(self, index: int, sites: Sequence[str]) -> tuple[tuple[str, ...], Arrays]:
        """Sites keep their own."""
        return (), {}

    def restore(self, sites: Sequence[str], states: Arrays) -> None:
        """Sites keep their own."""

    def close(self) -> None:
        """Nothing to release."""

    def state(self, site: str) -> Arrays:
        """What a site keeps, [1, ...], from its disk."""
        hospital = self.hospitals[site]
        hospital.crash()
        host = hospital.host()
        return host.states.read((site,), host.network.initial_state)

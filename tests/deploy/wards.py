"""Hospitals in this process, each a real `SiteProcess` with keys, policy and logs, and a coordinator that may lie to them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from deploy.parties import SUBMITTER, enrolled
from wardround import wire
from wardround.config import load
from wardround.content import Content
from wardround.deploy import operate
from wardround.deploy.jobs import sign_job
from wardround.deploy.sealing import Sealer
from wardround.deploy.site_process import JOB, SiteProcess
from wardround.federation.engines.flower.engine import ASK, FACTS, REPLY, STACKED
from wardround.federation.engines.flower.transfer import Parcel, Taken, items_of
from wardround.types import Arrays, Column, Description, Json, Message, Reply, Request, SiteData

SITES = ("aachen", "basel", "cork", "delft", "evora")
POLICY: Mapping[str, Any] = {
    "data": {"wards": {"dataset": "wards"}},
    "allow": {
        "submitters": [SUBMITTER],
        "models": ["logistic", "mlp"],
        "algorithms": ["fedavg", "fedbn", "scaffold"],
        "channels": ["secagg", "he"],
        "baselines": ["local"],
    },
    "limits": {"rounds": 5, "local_epochs": 1},
    "approval": {"auto": [{"name": "test", "submitters": [SUBMITTER], "like_last": False}]},
}
JOB_YAML = """
name: heart
data: {dataset: wards}
model: {name: logistic}
training: {rounds: 2, local_epochs: 1, batch_size: 16}
participation: {quorum: 3, attempts: 2}
privacy: {channel: {kind: secagg, options: {active: true}}}
evaluation: {bootstrap: 0, baselines: []}
"""


class Wards:
    """A table of two columns, 100 rows a hospital; `rows` is how many there are now."""

    sites: tuple[str, ...] = SITES
    rows = 100

    def describe(self) -> Description:
        return Description(
            name="wards", title="Wards", source="made up", licence="none", sites=self.sites,
            columns=(Column(name="age"), Column(name="lactate")), natural=True,
        )  # fmt: skip

    def load(self, site: str) -> SiteData:
        rng = np.random.default_rng(sorted(self.sites).index(site))
        labels = np.arange(100) % 2
        features = np.stack([rng.integers(20, 95, 100).astype(float), rng.normal(2 + labels, 1, 100)], 1)
        kept = np.arange(self.rows)
        return SiteData(features=features[kept], labels=labels[kept], patients=kept)


class World:
    """Hospitals, a job that all have approved, and the coordinator's keys.

    Args:
        folder: an empty one.
        sites: names.
        job: as YAML.
        policy: of every site.

    Attributes:
        prepared: digest of what sites were prepared with.
    """

    prepared = ""

    def __init__(
        self, folder: Path, sites: Sequence[str] = SITES, job: str = JOB_YAML, policy: Mapping[str, Any] = POLICY
    ) -> None:
        Wards.sites, Wards.rows = tuple(sites), 100
        self.folder, self.sites = folder, tuple(sorted(sites))
        self.parties = enrolled(folder, self.sites)
        self.allow(policy)
        (folder / "job.yaml").write_text(job)
        self.job = operate.between(load(folder / "job.yaml", []))
        self.signed = sign_job(self.parties.submitter.identity(), self.job, self.parties.fingerprints())
        own = self.parties.coordinator
        self.sealer = Sealer(own.identity(), own.pins, own.seen(), own.audit())
        self.processes = {site: SiteProcess(self.parties.sites[site].path) for site in self.sites}
        for site in self.sites:
            assert self.offer(site)["status"] == "approved"

    def allow(self, policy: Mapping[str, Any], *sites: str) -> None:
        """Write the policy of some sites, or of all."""
        for site in sites or self.sites:
            self.parties.sites[site].policy_path.write_text(yaml.safe_dump(dict(policy)))

    def offer(self, site: str) -> dict[str, Any]:
        """Send the job, and what the site says of it."""
        verdict: dict[str, Any] = self.raw(site, [self.item(site, JOB, self.signed.to_bytes())])[0][1]
        return verdict

    def item(self, site: str, kind: str, body: bytes) -> bytes:
        return self.sealer.head(site, self.signed.id, kind, body) + body

    def raw(self, site: str, items: Sequence[bytes]) -> list[tuple[str, Any]]:
        """Kind and content of what a site answers."""
        parcel = Parcel([[item] for item in items])
        data = Content(b"".join(parcel.part(k) for k in range(parcel.parts)))
        answer = self.processes[site]._worked(Taken("x", data))
        raw = b"".join(answer.part(k) for k in range(answer.parts))
        found = []
        for item in items_of(Content(raw)):
            envelope = bytes(item)
            at = 8 + int.from_bytes(envelope[4:8], "big")
            header, body = json.loads(envelope[8:at]), envelope[at + 64 :]
            found.append(
                (header["kind"], wire.decode(body) if header["kind"].startswith("reply") else json.loads(body))
            )
        return found

    def pair(self, site: str, message: Message, facts: Mapping[str, Json] | None = None) -> list[bytes]:
        """A site's facts, and what all are asked."""
        body = wire.encode(message)
        told = json.dumps({**(facts or {}), ASK: Content(body).digest}).encode()
        return [self.item(site, FACTS, told), self.item(site, ASK, body)]

    def ask(self, site: str, message: Message, facts: Mapping[str, Json] | None = None) -> list[tuple[str, Any]]:
        return self.raw(site, self.pair(site, message, facts))

    def restart(self, site: str) -> None:
        """A process that knows what lies on the disk."""
        self.processes[site]._close_active()
        self.processes[site]._lock.release()
        self.processes[site] = SiteProcess(self.parties.sites[site].path)

    def entries(self, site: str, kind: str) -> list[dict[str, Any]]:
        """Entries of a site's audit log."""
        lines = self.parties.sites[site].audit_path.read_text().splitlines()
        return [entry for entry in map(json.loads, lines) if entry["kind"] == kind]

    def reasons(self, site: str) -> list[str]:
        """Why a site refused messages."""
        return [entry["reason"] for entry in self.entries(site, "message-refused")]

    def close(self) -> None:
        for process in self.processes.values():
            process._close_active()
            process._lock.release()


Twist = Callable[[str, Message], Message | None]


class Wire:
    """An engine that reaches the sites of a world.

    Args:
        world: them.
        twist: what a coordinator that lies tells a site instead of a message; None: nothing, and its answer is lost.
    """

    merges = False
    remote = True

    def __init__(self, world: World, twist: Twist = lambda site, message: message) -> None:
        self.world, self.twist = world, twist
        self.refused: list[tuple[str, str, Any]] = []

    @property
    def sites(self) -> tuple[str, ...]:
        return self.world.sites

    def ask(self, request: Request, sites: Sequence[str], deadline: float | None) -> Iterator[Reply]:
        for site in sites:
            message = self.twist(site, request.message)
            if message is None:
                continue
            for kind, found in self.world.ask(site, message, request.for_site(site)):
                if kind not in (REPLY, STACKED):
                    self.refused.append((site, request.message.stage, found))
                    continue
                if kind == STACKED:
                    arrays: Arrays = {name: value.unsqueeze(0) for name, value in found.arrays.items()}
                    yield Reply(sites=(site,), message=replace(found, arrays=arrays), stacked=True)
                else:
                    yield Reply(sites=(site,), message=found)

    def journal(self, index: int, sites: Sequence[str]) -> tuple[tuple[str, ...], Arrays]:
        return (), {}

    def restore(self, sites: Sequence[str], states: Arrays) -> None:
        return

    def close(self) -> None:
        return


def model(fill: float = 0.0) -> Arrays:
    """A logistic model of the wards' two columns."""
    return {"params/linear.weight": torch.full((1, 2), fill), "params/linear.bias": torch.zeros(1)}


def make_worlds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., World]]:
    """What makes worlds, which are closed at the end."""
    import sys

    from wardround.data import registry

    monkeypatch.setitem(registry.DATASETS, "wards", "deploy.wards:Wards")
    monkeypatch.setenv("WARDROUND_FLOWER_PYTHON", sys.executable)
    made: list[World] = []

    def make(*args: Any, **kwargs: Any) -> World:
        folder = tmp_path / f"world{len(made)}"
        folder.mkdir()
        made.append(World(folder, *args, **kwargs))
        return made[-1]

    yield make
    for world in made:
        world.close()

"""A project whose parties are all enrolled, in folders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from wardround.deploy import enrolling
from wardround.deploy.kit import CoordinatorFolder, PartyFolder

SITES = ("budapest", "cleveland", "zurich")
SUBMITTER = "dr-smith"


@dataclass(frozen=True, kw_only=True)
class Parties:
    """The folders of all."""

    coordinator: CoordinatorFolder
    sites: dict[str, PartyFolder]
    submitter: PartyFolder

    @property
    def roster_file(self) -> Path:
        return self.coordinator.path / "roster.json"

    def fingerprints(self) -> dict[str, str]:
        roster = self.coordinator.roster()
        return {entry.name: entry.fingerprint for entry in roster.entries if entry.role == "site"}


def write_project(path: Path, sites: Sequence[str] = SITES, **changes: Any) -> Path:
    tree = {
        "project": "heart",
        "coordinator": {"addresses": ["localhost", "127.0.0.1"], "port": 8443},
        "sites": list(sites),
        "submitters": [SUBMITTER],
        **changes,
    }
    path.write_text(yaml.safe_dump(tree))
    return path


def provisioned(folder: Path, sites: Sequence[str] = SITES, **changes: Any) -> CoordinatorFolder:
    folder.mkdir(parents=True, exist_ok=True)
    return enrolling.provision(write_project(folder / "project.yaml", sites, **changes), folder / "coordinator")


def initialised(folder: Path, coordinator: CoordinatorFolder, names: Sequence[str]) -> dict[str, PartyFolder]:
    return {
        name: enrolling.init_party(coordinator.path / "enrolments" / f"{name}.json", folder / name) for name in names
    }


def enrolled(folder: Path, sites: Sequence[str] = SITES) -> Parties:
    """All keys made, requests taken, the roster joined."""
    coordinator = provisioned(folder, sites)
    parties = initialised(folder, coordinator, [*sites, SUBMITTER])
    roster = enrolling.enrol(coordinator.path, [party.path / "request.json" for party in parties.values()])
    for party in parties.values():
        enrolling.join(party.path, coordinator.path / "roster.json", roster.code)
    submitter = parties.pop(SUBMITTER)
    return Parties(coordinator=coordinator, sites=parties, submitter=submitter)

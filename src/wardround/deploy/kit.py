"""The folders of a coordinator, a site and a submitter.

A coordinator's folder:

    project.yaml  identity.pem  authority.pem  authority.key  server.pem  server.key  roster.json  tokens.json
    enrolments/NAME.json  nodes/NAME.pub  audit.jsonl  seen.db  plugins.yaml  plugins/

A site's folder (a submitter's has neither node key nor policy):

    enrolment.json  identity.pem  node.key  node.pub  authority.pem  request.json  roster.json  site.yaml
    plugins/  jobs/  next/  revoked.json  audit.jsonl  seen.db

Private keys, tokens and enrolment files are readable by their owner alone. Keys never leave the folder they were made in.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from wardround.deploy.audit import AuditLog
from wardround.deploy.enrolment import Enrolment, Roster, dialled
from wardround.deploy.envelope import Seen
from wardround.deploy.identity import Identity, Pins, read_secret
from wardround.deploy.project import Project, read_project
from wardround.errors import ConfigError, IdentityError, RunError
from wardround.store import atomic

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from wardround.deploy.approval import Approvals
    from wardround.deploy.jobs import SignedJob
    from wardround.deploy.policy import Facts, SitePolicy, Verdict

_LOCK_SECONDS = 10.0


class _Folder:
    """What both kinds of folder have."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def audit_path(self) -> Path:
        """The audit log."""
        return self.path / "audit.jsonl"

    def audit(self) -> AuditLog:
        """The audit log, with the key that signs its heads."""
        return AuditLog(self.audit_path, self.identity())

    def seen(self) -> Seen:
        """The numbers of messages that were taken."""
        return Seen(self.path / "seen.db")

    @property
    def name(self) -> str:
        """The party's name."""
        raise NotImplementedError

    def identity(self) -> Identity:
        """The private key, a new session each time: a process loads it once."""
        return Identity.load(self.name, self.path / "identity.pem")

    def roster(self) -> Roster:
        """The pinned roster.

        Raises:
            IdentityError: none was joined yet.
        """
        path = self.path / "roster.json"
        try:
            data = path.read_bytes()
        except FileNotFoundError as error:
            raise IdentityError(
                f"{self.path} has no roster yet: send request.json to the coordinator, and `wardround deploy site join DIR "
                "ROSTER` what comes back"
            ) from error
        return Roster.from_bytes(data)

    def pins(self) -> Pins:
        """The keys that are trusted here."""
        return self.roster().pins(self.revoked_here())

    def revoked_here(self) -> frozenset[str]:
        """Fingerprints that this party revoked by itself."""
        path = self.path / "revoked.json"
        if not path.exists():
            return frozenset()
        try:
            return frozenset(str(mark) for mark in json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise IdentityError(f"{path} is damaged: {error}; restore it from a backup") from error

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One command at a time changes the folder."""
        try:
            with FileLock(str(self.path / ".lock"), timeout=_LOCK_SECONDS):
                yield
        except Timeout as error:
            raise RunError(f"{self.path} is being changed by another command: wait for it, then try again") from error


class CoordinatorFolder(_Folder):
    """A coordinator's folder that is there."""

    @property
    def project(self) -> Project:
        """Its project."""
        return read_project(self.path / "project.yaml")

    @property
    def name(self) -> str:
        """The coordinator's name."""
        return self.project.coordinator.name

    @property
    def authority(self) -> Path:
        """Certificates of the project's authority."""
        return self.path / "authority.pem"

    @property
    def server(self) -> tuple[Path, Path]:
        """The TLS certificate and its key."""
        return self.path / "server.pem", self.path / "server.key"

    def settled(self) -> str:
        """HOST:PORT that sites dial, which is where project.yaml says that the coordinator is.

        Raises:
            ConfigError: it was edited, and neither certificate nor roster was made anew.
        """
        spec, roster = self.project.coordinator, self.roster()
        if (tuple(spec.addresses), spec.port) != (roster.addresses, roster.port):
            raise ConfigError(
                f"{self.path / 'project.yaml'} names {', '.join(spec.addresses)} and port {spec.port}, and the roster "
                f"{', '.join(roster.addresses)} and port {roster.port}: `wardround deploy move DIR` makes certificate and roster "
                "for the new ones, or undo the edit"
            )
        return roster.dialled

    def node_keys(self) -> dict[str, Path]:
        """Site -> file with its public node key, for Flower to register."""
        return {entry.name: self.path / "nodes" / f"{entry.name}.pub" for entry in self.roster().entries if entry.node}

    def identity(self) -> Identity:
        """The private key; the next one from the moment that the roster has it."""
        following = self.path / "next" / "identity.pem"
        if following.exists() and Identity.load(self.name, following).public.hex() == self.roster().coordinator.public:
            atomic.move(following, self.path / "identity.pem")
        return super().identity()

    def tokens(self) -> dict[str, str]:
        """Name -> token of those who may still enrol."""
        tree = json.loads(read_secret(self.path / "tokens.json"))
        return {str(name): str(token) for name, token in tree.items()}

    @property
    def plugins(self) -> Path:
        """Files of the plug-ins that may run here."""
        return self.path / "plugins"

    def approved_plugins(self) -> dict[str, str]:
        """`module:Class` -> SHA-256, as plugins.yaml has them; {} without that file. Raises ConfigError."""
        from wardround.deploy.jobs import read_approved

        return read_approved(self.path / "plugins.yaml")

    def write_roster(self, roster: Roster) -> None:
        """Put a roster into force: node keys first, so that a crash between leaves none without its file."""
        nodes = self.path / "nodes"
        for entry in roster.entries:
            if entry.node:
                atomic.write_text(nodes / f"{entry.name}.pub", entry.node + "\n")
        atomic.write_bytes(self.path / "roster.json", roster.to_bytes())
        kept = {f"{entry.name}.pub" for entry in roster.entries if entry.node}
        for name in atomic.names(nodes):
            if name not in kept:
                atomic.remove(nodes / name)
        self.audit().append("roster", serial=roster.serial, digest=roster.digest)


class PartyFolder(_Folder):
    """A site's or a submitter's folder that is there."""

    @property
    def enrolment(self) -> Enrolment:
        """What the party began with."""
        return Enrolment.from_bytes(read_secret(self.path / "enrolment.json"))

    @property
    def name(self) -> str:
        """The party's name."""
        return self.enrolment.name

    @property
    def role(self) -> str:
        """`site` or `submitter`."""
        return self.enrolment.role

    @property
    def authority(self) -> Path:
        """Certificates that the coordinator's TLS certificate may come from."""
        return self.path / "authority.pem"

    @property
    def node_key(self) -> Path:
        """The private node key, in the form that Flower takes."""
        return self.path / "node.key"

    @property
    def policy_path(self) -> Path:
        """The site's policy."""
        return self.path / "site.yaml"

    @property
    def plugins(self) -> Path:
        """Files of the plug-ins that the administrator approved."""
        return self.path / "plugins"

    def policy(self) -> SitePolicy:
        """The policy as it stands.

        Raises:
            ConfigError: malformed, and then nothing runs.
        """
        from wardround.deploy.policy import read_policy

        return read_policy(self.policy_path)

    def approvals(self) -> Approvals:
        """The jobs that came, and what was decided of them."""
        from wardround.deploy.approval import Approvals

        identity = self.identity()
        return Approvals(self.path / "jobs", self.policy, AuditLog(self.audit_path, identity), identity)

    def judge(self, signed: SignedJob, facts: Facts | None, *, now: datetime | None = None) -> Verdict:
        """What the policy says of a job, once its signature and its sites are those that are pinned here.

        Raises:
            IdentityRefused, Refused: as `SignedJob.verify`.
            ConfigError: a malformed policy, or a job that this version does not know.
        """
        from wardround.deploy.policy import Asked

        signed.verify(self.pins(), me=self.name, now=now)
        asked = Asked(
            submitter=signed.submitter, sites=tuple(signed.sites), plugins=signed.plugins, folder=self.plugins
        )  # fmt: skip
        return self.policy().judge(signed.job, facts, asked)

    @property
    def address(self) -> str:
        """HOST:PORT of the coordinator."""
        roster = self.path / "roster.json"
        known = self.roster() if roster.exists() else self.enrolment
        return dialled(known.addresses, known.port)


def open_folder(path: Path) -> CoordinatorFolder | PartyFolder:
    """The folder at `path`, of whatever kind it is.

    Raises:
        ConfigError: it is none.
    """
    if (path / "project.yaml").exists():
        return CoordinatorFolder(path)
    if (path / "enrolment.json").exists():
        return PartyFolder(path)
    raise ConfigError(
        f"{path} is neither a coordinator's folder nor a site's: `wardround deploy provision` makes the one, "
        "`wardround deploy site init` the other"
    )


def coordinator_folder(path: Path) -> CoordinatorFolder:
    """The coordinator's folder at `path`. Raises ConfigError where it is none."""
    found = open_folder(path)
    if not isinstance(found, CoordinatorFolder):
        raise ConfigError(f"{path} belongs to {found.name}, a {found.role}: this needs the coordinator's folder")
    return found


def party_folder(path: Path) -> PartyFolder:
    """The site's or submitter's folder at `path`. Raises ConfigError where it is none."""
    found = open_folder(path)
    if not isinstance(found, PartyFolder):
        raise ConfigError(f"{path} is the coordinator's folder: this needs a site's or a submitter's")
    return found

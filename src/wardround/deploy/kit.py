"""The folders of a coordinator, a site and a submitter: what is made, enrolled, joined, rotated and revoked in them.

A coordinator's folder:

    project.yaml  identity.pem  authority.pem  authority.key  server.pem  server.key  roster.json  tokens.json
    enrolments/NAME.json  nodes/NAME.pub  audit.jsonl  seen.db

A site's folder (a submitter's has neither node key nor policy):

    enrolment.json  identity.pem  node.key  node.pub  authority.pem  request.json  roster.json  site.yaml
    plugins/  jobs/  next/  revoked.json  audit.jsonl  seen.db

Private keys, tokens and enrolment files are readable by their owner alone. Keys never leave the folder they were made in.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from filelock import FileLock, Timeout

from wardround.deploy import canonical, pki
from wardround.deploy.audit import AuditLog
from wardround.deploy.enrolment import (
    Change,
    Enrolment,
    Entry,
    Roster,
    Rotation,
    SigningRequest,
    changes,
    ends_after,
    new_token,
    same_code,
)
from wardround.deploy.envelope import Seen
from wardround.deploy.identity import Identity, Pins, fingerprint, read_secret, write_secret
from wardround.deploy.names import check_name
from wardround.deploy.project import Project, read_project
from wardround.errors import ConfigError, IdentityError, MessageError, Refused, RunError
from wardround.store import atomic
from wardround.types import Json

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from wardround.deploy.approval import Approvals
    from wardround.deploy.jobs import SignedJob
    from wardround.deploy.policy import Facts, SitePolicy, Verdict

_LOCK_SECONDS = 10.0
_MODE_PRIVATE = 0o700


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

        return Approvals(self.path / "jobs", self.policy, self.audit())

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
        host = known.addresses[0]
        return f"[{host}]:{known.port}" if ":" in host else f"{host}:{known.port}"


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


# -------------------------------------------------------------------------------------------------------- beginning


def provision(project_file: Path, out: Path) -> CoordinatorFolder:
    """Make a coordinator's folder: its keys, the project's authority, and an enrolment file for everybody else.

    Raises:
        ConfigError: a malformed project, or a folder that is not empty.
    """
    project = read_project(project_file)
    _make_empty(out)
    folder = CoordinatorFolder(out)
    spec, days = project.coordinator, project.validity
    identity = Identity.generate(spec.name)
    identity.save(out / "identity.pem")
    pki.make_authority(project.project, folder.authority, out / "authority.key", days=days.authority)
    pki.make_server(spec.addresses, folder.authority, out / "authority.key", *folder.server, days=days.server)
    for name in ("enrolments", "nodes"):
        _make_private(out / name)
    today = canonical.now()
    own = Entry(
        name=spec.name, role="coordinator", public=identity.public.hex(), node="", begins=canonical.time_text(today),
        ends=ends_after(days.identity, today),
    )  # fmt: skip
    roster = Roster(
        project=project.project, serial=0, made=canonical.time_text(today), addresses=tuple(spec.addresses), port=spec.port,
        authority=folder.authority.read_text(encoding="ascii"), entries=(own,), revoked={},
    )  # fmt: skip
    tokens = {name: new_token() for name, role in project.roles().items() if role != "coordinator"}
    _write_enrolments(folder, project, identity, tokens)
    # last: with it the folder is one
    atomic.write_bytes(out / "project.yaml", project_file.read_bytes())
    folder.write_roster(roster.sealed(identity))
    folder.audit().append("enrolled", party=own.name, role=own.role, fingerprint=own.fingerprint)
    return folder


def init_party(enrolment_file: Path, out: Path) -> PartyFolder:
    """Make a site's or a submitter's folder: its own keys, and the request to send to the coordinator.

    Raises:
        ConfigError: the enrolment cannot be read, or a folder that is not empty.
        MessageError: the enrolment was altered.
    """
    enrolment = Enrolment.from_bytes(_read(enrolment_file, "the enrolment file that the coordinator sent"))
    pki.parse_certificates(enrolment.authority.encode(), str(enrolment_file))
    _make_empty(out)
    identity = Identity.generate(enrolment.name)
    request = _request(enrolment, identity, out, None).with_token(enrolment.token)
    identity.save(out / "identity.pem")
    atomic.write_text(out / "authority.pem", enrolment.authority)
    atomic.write_bytes(out / "request.json", request.to_bytes())
    if enrolment.role == "site":
        for name in ("plugins", "jobs"):
            _make_private(out / name)
        from wardround.deploy.policy import TEMPLATE

        atomic.write_text(out / "site.yaml", TEMPLATE)
    write_secret(out / "enrolment.json", enrolment.to_bytes())
    folder = PartyFolder(out)
    folder.audit().append("enrolled", party=identity.name, role=enrolment.role, fingerprint=identity.fingerprint)
    return folder


# -------------------------------------------------------------------------------------------------------- enrolling


def enrol(path: Path, requests: Sequence[Path]) -> Roster:
    """Take parties' requests into the roster; all of them, or none.

    Names that were added to project.yaml since get their enrolment files.

    Raises:
        IdentityError: a request without the token or the old key's proof, with a key that is revoked or somebody else's, or
            for a name that is enrolled with another key.
        ConfigError: a name that the project does not have.
        MessageError: a file that is no request, or was altered.
    """
    folder = coordinator_folder(path)
    with folder.locked():
        project, roster, tokens = folder.project, folder.roster(), folder.tokens()
        today, taken = canonical.now(), []
        added = [name for name in project.roles() if name not in tokens and roster.entry(name) is None]
        if added:
            tokens |= {name: new_token() for name in added}
            _write_enrolments(folder, project, folder.identity(), tokens)
        for file in requests:
            request = SigningRequest.from_bytes(_read(file, "a signing request"))
            entry = _admit(request, project, roster, tokens, today)
            known = roster.entry(request.name)
            if entry == known:
                continue
            others = tuple(one for one in roster.entries if one.name != entry.name)
            revoked = dict(roster.revoked)
            if known is not None:  # a key that was rotated away is not used again
                revoked[known.fingerprint] = known.name
            roster = replace(roster, entries=_sorted((*others, entry)), revoked=revoked)
            taken.append((entry, known))
            tokens.pop(entry.name, None)
        if not taken:
            return roster
        roster = _reissued(folder, roster)
        folder.write_roster(roster)
        write_secret(folder.path / "tokens.json", canonical.encode(tokens))
        for entry, known in taken:
            atomic.remove(folder.path / "enrolments" / f"{entry.name}.json")
            facts: dict[str, Json] = {} if known is None else {"earlier": known.fingerprint}
            folder.audit().append("enrolled", party=entry.name, role=entry.role, fingerprint=entry.fingerprint, **facts)
        return roster


def _admit(request: SigningRequest, project: Project, roster: Roster, tokens: dict[str, str], today: Any) -> Entry:
    name, mark = request.name, fingerprint(bytes.fromhex(request.public))
    if request.project != project.project:
        raise ConfigError(f"the request of {name} is for project {request.project}, and this is {project.project}")
    role = project.roles().get(name)
    if role != request.role:
        raise ConfigError(
            f"the request is of {name} as a {request.role}, and the project has {f'it as a {role}' if role else 'no such name'}: "
            "see project.yaml"
        )
    if mark in roster.revoked:
        raise IdentityError(
            f"the request of {name} has a key that was revoked ({mark}): they need a new one (site init)"
        )
    same = next((entry for entry in roster.entries if entry.public == request.public and entry.name != name), None)
    if same is not None:
        raise IdentityError(f"the request of {name} has the key of {same.name} ({mark}): each party makes its own")
    known = roster.entry(name)
    if known is not None and known.public == request.public:
        return known
    rotations: tuple[Rotation, ...] = ()
    if known is not None:
        rotation = request.rotation
        right = rotation is not None and (rotation.name, rotation.old, rotation.new) == (
            name,
            known.public,
            request.public,
        )
        if rotation is None or not right or not rotation.holds():
            raise IdentityError(
                f"{name} is enrolled with {known.fingerprint}, and the request for {mark} is not signed with that key: "
                f"if the old one is lost, `wardround deploy revoke DIR {name}` and send the new enrolment file"
            )
        roster.pins().key(name, now=today)  # an expired key vouches for nothing
        rotations = (*known.rotations, rotation)
    elif name not in tokens or not request.by_token(tokens[name]):
        raise IdentityError(
            f"the request of {name} ({mark}) does not prove that it has the enrolment file: it is by somebody else, or from an "
            "older file"
        )
    return Entry(
        name=name, role=request.role, public=request.public, node=request.node, begins=canonical.time_text(today),
        ends=ends_after(project.validity.identity, today), rotations=rotations,
    )  # fmt: skip


def join(path: Path, roster_file: Path, code: str | None = None) -> list[Change]:
    """Pin a roster.

    Args:
        path: of a site's or a submitter's folder.
        roster_file: what the coordinator sent.
        code: as administrators read it to each other; needed where the roster has new names or unproved keys.

    Raises:
        Refused: a code is needed; the message tells it, to be compared by telephone, with what is new.
        IdentityError: another code or coordinator, an older roster, another key for this party than its own, or none.
        MessageError: not a roster, or altered.
    """
    folder = party_folder(path)
    with folder.locked():
        roster = Roster.from_bytes(_read(roster_file, "the roster that the coordinator sent"))
        enrolment = folder.enrolment
        if roster.project != enrolment.project:
            raise IdentityError(
                f"the roster is of project {roster.project}, and this folder belongs to {enrolment.project}"
            )
        old = folder.roster() if (path / "roster.json").exists() else None
        pinned = enrolment.public if old is None else old.coordinator.public
        found = changes(old, roster, coordinator=pinned, revoked=folder.revoked_here())
        mine = _own_key(folder, roster)
        if code is not None and not same_code(code, roster.code):
            raise IdentityError(
                f"the code given is not this roster's ({roster.code}): the others have another roster than this one; do not "
                "join, and talk to the coordinator"
            )
        unproved = [change.text for change in found if not change.proved]
        if code is None and unproved:
            raise Refused(
                f"this roster has {len(unproved)} keys that nobody vouches for but the coordinator: {'; '.join(unproved)}. Its "
                f"code is {roster.code}: compare it with the other sites by telephone, then join again with --code"
            )
        if mine == "next":
            for name in ("node.key", "node.pub", "identity.pem"):
                if (path / "next" / name).exists():
                    atomic.move(path / "next" / name, path / name)
            atomic.remove_tree(path / "next")
        pki.parse_certificates(roster.authority.encode(), str(roster_file))
        atomic.write_text(path / "authority.pem", roster.authority)
        atomic.write_bytes(path / "roster.json", roster.to_bytes())
        folder.audit().append("roster", serial=roster.serial, digest=roster.digest)
        return found


def _own_key(folder: PartyFolder, roster: Roster) -> Literal["present", "next"]:
    """Which of this party's keys the roster has."""
    entry = roster.entry(folder.name)
    if entry is None:
        raise IdentityError(
            f"the roster has no {folder.name}: the coordinator has not enrolled request.json yet, or has revoked this party"
        )
    if entry.role != folder.role:
        raise IdentityError(f"the roster has {folder.name} as a {entry.role}, and its enrolment says {folder.role}")
    if entry.public == folder.identity().public.hex():
        return "present"
    following = folder.path / "next" / "identity.pem"
    if following.exists() and entry.public == Identity.load(folder.name, following).public.hex():
        return "next"
    raise IdentityError(
        f"the roster has another key for {folder.name} ({entry.fingerprint}) than this folder ({folder.identity().fingerprint}): "
        "somebody enrolled in its place; do not join, and tell the coordinator by telephone"
    )


# --------------------------------------------------------------------------------------------- rotation, revocation


def rotate_party(path: Path) -> Path:
    """Make a site's or a submitter's next keys, and return the request to send.

    They take effect once the coordinator has enrolled it and the roster that comes back is joined. A second call before that
    begins anew.
    """
    folder = party_folder(path)
    with folder.locked():
        enrolment, present = folder.enrolment, folder.identity()
        pins = folder.pins()
        pins.key(folder.name)  # a revoked or expired key cannot vouch for the next
        following = path / "next"
        atomic.remove_tree(following)
        _make_private(following)
        identity = Identity.generate(folder.name)
        request = _request(enrolment, identity, following, Rotation.make(present, identity.public))
        identity.save(following / "identity.pem")
        atomic.write_bytes(following / "request.json", request.to_bytes())
    return following / "request.json"


def rotate_coordinator(path: Path, what: Literal["server", "identity", "authority"]) -> Roster:
    """Renew what a coordinator has.

    `server`: the TLS certificate and its key, by the newest authority. `identity`: the signing key; the old one vouches for
    the new one in the roster, which all must join. `authority`: a new one beside the old, in the roster; rotate `server` once
    all have joined it.
    """
    folder = coordinator_folder(path)
    with folder.locked():
        project, roster = folder.project, folder.roster()
        if what == "server":
            days = project.validity.server
            pki.make_server(
                project.coordinator.addresses, folder.authority, path / "authority.key", *folder.server, days=days
            )
            return roster
        if what == "authority":
            old = folder.authority.read_text(encoding="ascii")
            atomic.make_folder(path / "next")
            pki.make_authority(
                project.project,
                path / "next" / "authority.pem",
                path / "next" / "authority.key",
                days=project.validity.authority,
            )
            new = (path / "next" / "authority.pem").read_text(encoding="ascii")
            atomic.write_text(folder.authority, new + old)
            atomic.move(path / "next" / "authority.key", path / "authority.key")
            atomic.remove_tree(path / "next")
            roster = _reissued(folder, replace(roster, authority=new + old))
            folder.write_roster(roster)
            return roster
        return _new_identity(folder, project, roster)


def _new_identity(folder: CoordinatorFolder, project: Project, roster: Roster) -> Roster:
    present, identity, today = folder.identity(), Identity.generate(folder.name), canonical.now()
    known = roster.coordinator
    rotation = Rotation.make(present, identity.public)
    entry = replace(
        known, public=identity.public.hex(), begins=canonical.time_text(today),
        ends=ends_after(project.validity.identity, today), rotations=(*known.rotations, rotation),
    )  # fmt: skip
    others = tuple(one for one in roster.entries if one.name != known.name)
    revoked = {**roster.revoked, known.fingerprint: known.name}
    roster = _reissued(folder, replace(roster, entries=_sorted((*others, entry)), revoked=revoked), identity)
    atomic.make_folder(folder.path / "next")
    identity.save(folder.path / "next" / "identity.pem")
    folder.write_roster(roster)
    _write_enrolments(folder, project, identity, folder.tokens())
    folder.audit().append(
        "enrolled", party=entry.name, role=entry.role, fingerprint=entry.fingerprint, earlier=known.fingerprint
    )
    return roster


def revoke(path: Path, name: str) -> Roster:
    """At the coordinator: end the trust in a party's key, and write a new enrolment file, should it come back with a new one.

    Raises:
        ConfigError: not enrolled, or the coordinator itself.
    """
    folder = coordinator_folder(path)
    check_name(name, "the name to revoke")
    with folder.locked():
        project, roster = folder.project, folder.roster()
        entry = roster.entry(name)
        if entry is None:
            raise ConfigError(f"{name} is not enrolled: known are {', '.join(one.name for one in roster.entries)}")
        if entry.role == "coordinator":
            raise ConfigError(
                f"{name} is the coordinator: rotate its identity, or provision the project anew if its key was stolen"
            )
        others = tuple(one for one in roster.entries if one.name != name)
        roster = _reissued(folder, replace(roster, entries=others, revoked={**roster.revoked, entry.fingerprint: name}))
        folder.write_roster(roster)
        folder.audit().append("revoked", party=name, fingerprint=entry.fingerprint)
        if name in project.roles():
            _write_enrolments(folder, project, folder.identity(), {**folder.tokens(), name: new_token()})
        return roster


def revoke_here(path: Path, name: str) -> str:
    """At a site: trust a party's present key no longer, whatever the coordinator says. Returns the fingerprint."""
    folder = party_folder(path)
    with folder.locked():
        entry = folder.roster().entry(check_name(name, "the name to revoke"))
        if entry is None:
            raise ConfigError(f"{name} is not in the roster of {path}")
        marks = sorted({*folder.revoked_here(), entry.fingerprint})
        atomic.write_json(path / "revoked.json", marks)
        folder.audit().append("revoked", party=name, fingerprint=entry.fingerprint)
        return entry.fingerprint


# ---------------------------------------------------------------------------------------------------------- looking


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of `deploy check`.

    Attributes:
        level: `ok`, `warning` or `error`.
        what: about whom or which file.
        text: in words.
    """

    level: Literal["ok", "warning", "error"]
    what: str
    text: str


def check(path: Path) -> list[Finding]:
    """What holds, what ends soon and what is wrong in a folder."""
    folder = open_folder(path)
    days = folder.project.validity.warning if isinstance(folder, CoordinatorFolder) else 30
    found = [_tried("identity", lambda: folder.identity().fingerprint)]
    ca = pki.read_certificates(folder.authority)
    found += [_until("authority", one.not_valid_after_utc, days, "rotate --authority") for one in ca[:1]]
    if isinstance(folder, CoordinatorFolder):
        certificate, _ = folder.server
        held = pki.validity(certificate)
        found.append(_until("server", held.ends, days, "rotate --server", " for " + ", ".join(held.addresses)))
        found.append(_tried("server", lambda: pki.check_issued(certificate, folder.authority)))
        found += [
            Finding(level="warning", what=name, text="not enrolled yet: their request is awaited")
            for name in folder.project.roles()
            if folder.roster().entry(name) is None
        ]
    elif folder.role == "site":
        found.append(_tried("node key", lambda: pki.sign_with_node_key(folder.node_key, b"check") and "readable"))
        found.append(_tried("policy", lambda: _policy_text(folder)))
    try:
        roster, pins = folder.roster(), folder.pins()
    except (IdentityError, MessageError) as error:
        return [*found, Finding(level="error", what="roster", text=str(error))]
    found.append(Finding(level="ok", what="roster", text=f"serial {roster.serial}, code {roster.code}"))
    for entry in roster.entries:
        if entry.fingerprint in pins.revoked:
            found.append(
                Finding(level="warning", what=entry.name, text=f"{entry.role}, {entry.fingerprint}, revoked here")
            )
            continue
        ends = canonical.time_from(entry.ends, "the roster")
        found.append(_until(entry.name, ends, days, "rotate", f", {entry.role}, {entry.fingerprint}"))
    own = roster.entry(folder.name)
    if own is None or own.public != folder.identity().public.hex():
        found.append(
            Finding(level="error", what="roster", text="has another key for this party than identity.pem: join again")
        )
    found += [
        Finding(
            level="error", what=sender, text=f"was active in two places in run {run}; `--clear {sender}` once it is not"
        )
        for sender, run in _contested(folder)
    ]
    return found


def clear(path: Path, sender: str) -> int:
    """Take messages by a sender again that was active in two places; how many runs it was held in."""
    seen = open_folder(path).seen()
    try:
        return seen.clear(sender)
    finally:
        seen.close()


def _contested(folder: _Folder) -> list[tuple[str, str]]:
    if not (folder.path / "seen.db").exists():
        return []
    seen = folder.seen()
    try:
        return seen.contested()
    finally:
        seen.close()


def _policy_text(folder: PartyFolder) -> str:
    policy = folder.policy()
    return f"{len(policy.data)} datasets bound, version {policy.digest[:12]}"


def _until(what: str, ends: Any, days: int, remedy: str, more: str = "") -> Finding:
    left = ends - canonical.now()
    text = f"holds until {ends:%Y-%m-%d}{more}"
    if left <= timedelta():
        return Finding(level="error", what=what, text=f"EXPIRED on {ends:%Y-%m-%d}{more}: {remedy}")
    if left <= timedelta(days=days):
        return Finding(level="warning", what=what, text=f"{text}: {left.days} days are left, {remedy}")
    return Finding(level="ok", what=what, text=text)


def _tried(what: str, look: Any) -> Finding:
    try:
        return Finding(level="ok", what=what, text=str(look()))
    except (IdentityError, ConfigError, MessageError) as error:
        return Finding(level="error", what=what, text=str(error))


# ------------------------------------------------------------------------------------------------------------ parts


def _request(enrolment: Enrolment, identity: Identity, folder: Path, rotation: Rotation | None) -> SigningRequest:
    node = pki.make_node_key(folder / "node.key") if enrolment.role == "site" else ""
    request = SigningRequest(
        project=enrolment.project, name=enrolment.name, role=enrolment.role, public=identity.public.hex(), node=node,
        made=canonical.time_text(canonical.now()), rotation=rotation,
    )  # fmt: skip
    proof = pki.sign_with_node_key(folder / "node.key", request.core()) if node else ""
    return replace(request, node_proof=proof, signature=identity.sign(request.core()).hex())


def _write_enrolments(
    folder: CoordinatorFolder, project: Project, identity: Identity, tokens: Mapping[str, str]
) -> None:
    """The enrolment files of those who may enrol, and their tokens; a name whose token is replaced needs the new file."""
    roles = project.roles()
    for name, token in tokens.items():
        enrolment = Enrolment(
            project=project.project, name=name, role=roles[name], coordinator=project.coordinator.name,
            public=identity.public.hex(), addresses=tuple(project.coordinator.addresses), port=project.coordinator.port,
            authority=folder.authority.read_text(encoding="ascii"), token=token, made=canonical.time_text(canonical.now()),
        )  # fmt: skip
        write_secret(folder.path / "enrolments" / f"{name}.json", enrolment.sealed(identity).to_bytes())
    write_secret(folder.path / "tokens.json", canonical.encode(dict(tokens)))


def _reissued(folder: CoordinatorFolder, roster: Roster, identity: Identity | None = None) -> Roster:
    spec = folder.project.coordinator
    next_one = replace(
        roster,
        serial=roster.serial + 1,
        made=canonical.time_text(canonical.now()),
        addresses=tuple(spec.addresses),
        port=spec.port,
    )
    return next_one.sealed(identity or folder.identity())


def _sorted(entries: Sequence[Entry]) -> tuple[Entry, ...]:
    return tuple(sorted(entries, key=lambda entry: entry.name))


def _read(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}: give the path of {what}") from error


def _make_empty(path: Path) -> None:
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ConfigError(f"{path} is not an empty folder: choose another --out, so that no keys are overwritten")
    _make_private(path)


def _make_private(path: Path) -> None:
    atomic.make_folder(path)
    path.chmod(_MODE_PRIVATE)

"""What is made in the folders, and how keys get into the roster and out of it: provision, enrol, join, rotate, move, revoke."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Literal

from wardround.deploy import canonical, pki
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
from wardround.deploy.identity import Identity, fingerprint, write_secret
from wardround.deploy.kit import CoordinatorFolder, PartyFolder, coordinator_folder, party_folder
from wardround.deploy.names import check_name
from wardround.deploy.policy import TEMPLATE
from wardround.deploy.project import Project, read_project
from wardround.errors import ConfigError, IdentityError, Refused
from wardround.store import atomic
from wardround.types import Json

_MODE_PRIVATE = 0o700


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


def _admit(request: SigningRequest, project: Project, roster: Roster, tokens: dict[str, str], today: datetime) -> Entry:
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


def move(path: Path) -> Roster:
    """Make the TLS certificate, the enrolment files and the roster for the addresses that project.yaml names now.

    The roster is last: until it is there, a second call does all of it again.

    Raises:
        ConfigError: project.yaml names the addresses that the roster has.
    """
    folder = coordinator_folder(path)
    with folder.locked():
        project, roster, spec = folder.project, folder.roster(), folder.project.coordinator
        if (tuple(spec.addresses), spec.port) == (roster.addresses, roster.port):
            raise ConfigError(
                f"{path / 'project.yaml'} names {', '.join(spec.addresses)} and port {spec.port}, as the roster does: edit "
                "coordinator.addresses or coordinator.port there first"
            )
        _new_server(folder, project)
        _write_enrolments(folder, project, folder.identity(), folder.tokens())
        roster = _reissued(folder, replace(roster, addresses=tuple(spec.addresses), port=spec.port))
        folder.write_roster(roster)
        return roster


def _new_server(folder: CoordinatorFolder, project: Project) -> None:
    pki.make_server(
        project.coordinator.addresses, folder.authority, folder.path / "authority.key", *folder.server,
        days=project.validity.server,
    )  # fmt: skip


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
            folder.settled()
            _new_server(folder, project)
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
    tokens = {name: token for name, token in tokens.items() if name in roles}  # a name may have left project.yaml since
    for name, token in tokens.items():
        enrolment = Enrolment(
            project=project.project, name=name, role=roles[name], coordinator=project.coordinator.name,
            public=identity.public.hex(), addresses=tuple(project.coordinator.addresses), port=project.coordinator.port,
            authority=folder.authority.read_text(encoding="ascii"), token=token, made=canonical.time_text(canonical.now()),
        )  # fmt: skip
        write_secret(folder.path / "enrolments" / f"{name}.json", enrolment.sealed(identity).to_bytes())
    write_secret(folder.path / "tokens.json", canonical.encode(dict(tokens)))


def _reissued(folder: CoordinatorFolder, roster: Roster, identity: Identity | None = None) -> Roster:
    next_one = replace(roster, serial=roster.serial + 1, made=canonical.time_text(canonical.now()))
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

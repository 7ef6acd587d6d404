"""How parties come to know each other's keys: enrolment files, signing requests, and the roster of all.

    coordinator --enrolment file (with a token)--> party, which makes its own keys
    party --signing request (signed, and proved with the token)--> coordinator
    coordinator --roster: all names and keys, signed--> every party, which pins them

The coordinator is not believed about the others' keys: a roster has a code, and administrators compare it by telephone. A
later roster needs no code where each change is proved: a new key by a signature with the old one.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

from wardround.deploy import canonical, pki
from wardround.deploy.identity import (
    KEY_BYTES,
    SIGNATURE_BYTES,
    Identity,
    IdentityRefused,
    Pins,
    fingerprint,
    verify_raw,
)
from wardround.deploy.names import is_name
from wardround.deploy.project import is_address
from wardround.errors import IdentityError, MessageError
from wardround.types import Json

FORMAT = 1
LIMIT = 4 * 2**20
"""Longest file of any of these in bytes."""
TOKEN_BYTES = 32
ROLES = ("coordinator", "site", "submitter")
_ENROLMENT, _REQUEST = b"wardround/enrolment/1\x00", b"wardround/request/1\x00"
_ROTATION, _ROSTER, _CODE = b"wardround/rotation/1\x00", b"wardround/roster/1\x00", b"wardround/roster-code/1\x00"
_CODE_BYTES = 20
_NODE = re.compile(r"ecdsa-sha2-nistp384 [A-Za-z0-9+/=]{1,400}")
_HEX = re.compile(r"(?:[0-9a-f]{2})*")


@dataclass(frozen=True, kw_only=True)
class Enrolment:
    """What a party gets to begin with; it travels where others cannot read it, for the token.

    Attributes:
        project, name, role: who it is for.
        coordinator: the coordinator's name.
        public: the coordinator's key, hexadecimal.
        addresses, port: where to reach it.
        authority: certificates that its TLS certificate comes from, PEM.
        token: proves that a request is by who got this file; hexadecimal.
        made: when.
        signature: the coordinator's, hexadecimal.
    """

    project: str
    name: str
    role: str
    coordinator: str
    public: str
    addresses: tuple[str, ...]
    port: int
    authority: str
    token: str
    made: str
    signature: str = ""

    def sealed(self, identity: Identity) -> Enrolment:
        """The same, signed."""
        return replace(self, signature=identity.sign(self._signed()).hex())

    def _signed(self) -> bytes:
        return _ENROLMENT + canonical.encode(_unsigned(self))

    def to_bytes(self) -> bytes:
        """As it travels."""
        return _file(self)

    @classmethod
    def from_bytes(cls, data: bytes) -> Enrolment:
        """The enrolment in `data`, whole as it was made.

        Raises:
            MessageError: of another form, or altered.
        """
        what = "an enrolment file"
        tree = _tree(data, what, cls)
        found = cls(
            **{**tree, "addresses": _texts(tree, "addresses", what), "port": canonical.member(tree, "port", int, what)}
        )
        canonical.time_from(found.made, what)
        sound = (
            all(is_name(name) for name in (found.project, found.name, found.coordinator))
            and found.role in ROLES[1:]
            and 0 < found.port < 65536
            and found.addresses
            and all(is_address(one) for one in found.addresses)
        )
        if not sound:
            raise MessageError(f"{what} has members of another form: it was made by another version, or by hand")
        _bytes(found.token, TOKEN_BYTES, what)
        signature = _bytes(found.signature, SIGNATURE_BYTES, what)
        if not verify_raw(_bytes(found.public, KEY_BYTES, what), found._signed(), signature):
            raise MessageError(f"{what} was altered after it was made: ask the coordinator for it again")
        return found


@dataclass(frozen=True, kw_only=True)
class Rotation:
    """One key follows another: signed with the old one, hexadecimal all."""

    name: str
    old: str
    new: str
    made: str
    signature: str = ""

    @classmethod
    def make(cls, identity: Identity, public: bytes) -> Rotation:
        """By the holder of the old key."""
        unsigned = cls(
            name=identity.name, old=identity.public.hex(), new=public.hex(), made=canonical.time_text(canonical.now())
        )
        return replace(unsigned, signature=identity.sign(unsigned._signed()).hex())

    def _signed(self) -> bytes:
        return _ROTATION + canonical.encode(_unsigned(self))

    def holds(self) -> bool:
        """Whether the old key signed it."""
        return verify_raw(bytes.fromhex(self.old), self._signed(), bytes.fromhex(self.signature))

    @classmethod
    def from_json(cls, tree: Json) -> Rotation:
        """The rotation in a parsed file. Raises MessageError."""
        what = "a rotation"
        found = _members(tree, cls, what)
        rotation = cls(**found)
        for text, length in (
            (rotation.old, KEY_BYTES),
            (rotation.new, KEY_BYTES),
            (rotation.signature, SIGNATURE_BYTES),
        ):
            _bytes(text, length, what)
        return rotation


@dataclass(frozen=True, kw_only=True)
class SigningRequest:
    """A party's keys, for the coordinator to enrol.

    Attributes:
        project, name, role: who asks.
        public: the key, hexadecimal.
        node: the public node key, one OpenSSH line; "" for a submitter, who runs no node.
        made: when.
        rotation: proof by the key that is enrolled now, or None at the first time.
        mac: HMAC-SHA-256 with the enrolment's token, hexadecimal; "" with a rotation.
        node_proof: signature with the node key, hexadecimal.
        signature: with the key itself, hexadecimal.
    """

    project: str
    name: str
    role: str
    public: str
    node: str
    made: str
    rotation: Rotation | None = None
    mac: str = ""
    node_proof: str = ""
    signature: str = ""

    def core(self) -> bytes:
        """What token, node key and identity each vouch for."""
        core = {"project": self.project, "name": self.name, "role": self.role, "public": self.public, "node": self.node}
        return _REQUEST + canonical.encode({**core, "made": self.made})

    def with_token(self, token: str) -> SigningRequest:
        """The same, proved with the enrolment's token."""
        return replace(self, mac=_mac(token, self.core()))

    def by_token(self, token: str) -> bool:
        """Whether it is by who has the token."""
        return hmac.compare_digest(self.mac, _mac(token, self.core()))

    def to_bytes(self) -> bytes:
        """As it travels."""
        return _file(self)

    @classmethod
    def from_bytes(cls, data: bytes) -> SigningRequest:
        """The request in `data`; its keys signed it.

        Raises:
            MessageError: of another form.
            IdentityError: one of its keys did not sign it.
        """
        what = "a signing request"
        tree = _tree(data, what, cls)
        rotation = None if tree["rotation"] is None else Rotation.from_json(tree["rotation"])
        found = cls(**{**tree, "rotation": rotation})
        if not (is_name(found.project) and is_name(found.name) and found.role in ROLES[1:]):
            raise MessageError(f"{what} is for {found.name!r:.80} of {found.project!r:.80}: that is no name")
        public, signature = _bytes(found.public, KEY_BYTES, what), _bytes(found.signature, SIGNATURE_BYTES, what)
        if not verify_raw(public, found.core(), signature):
            raise IdentityError(
                f"the request of {found.name} is not signed with the key in it: it was altered; ask for it again"
            )
        if found.role == "site":
            _check_node(found.node, what)
            pki.verify_node_signature(found.node, found.core(), found.node_proof)
        elif found.node:
            raise MessageError(f"{what} of {found.name}, a {found.role}, has a node key")
        return found


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One enrolled party.

    Attributes:
        name, role: who.
        public: key, hexadecimal.
        node: public node key, one OpenSSH line, or "".
        begins, ends: when the key holds.
        rotations: how the key followed from earlier ones, in order.
    """

    name: str
    role: str
    public: str
    node: str
    begins: str
    ends: str
    rotations: tuple[Rotation, ...] = ()

    @property
    def fingerprint(self) -> str:
        """Of the key."""
        return fingerprint(bytes.fromhex(self.public))

    def follows(self, old: str) -> bool:
        """Whether a chain of rotations leads from the key `old`, hexadecimal, to this one."""
        at = old
        for rotation in self.rotations:
            if rotation.old == at and rotation.name == self.name and rotation.holds():
                at = rotation.new
        return at == self.public


@dataclass(frozen=True, kw_only=True)
class Roster:
    """Everybody's keys, signed by the coordinator.

    Attributes:
        project: name.
        serial: grows with each change; an older one is never taken.
        made: when.
        addresses, port: where the coordinator is.
        authority: certificates that its TLS certificate may come from, PEM, newest first.
        entries: the parties, by name.
        revoked: fingerprint -> name; never fewer.
        signature: the coordinator's, hexadecimal.
    """

    project: str
    serial: int
    made: str
    addresses: tuple[str, ...]
    port: int
    authority: str
    entries: tuple[Entry, ...]
    revoked: Mapping[str, str]
    signature: str = ""

    @property
    def coordinator(self) -> Entry:
        """The coordinator's entry."""
        return next(entry for entry in self.entries if entry.role == "coordinator")

    def entry(self, name: str) -> Entry | None:
        """A party's entry."""
        return next((entry for entry in self.entries if entry.name == name), None)

    @property
    def dialled(self) -> str:
        """HOST:PORT that sites dial."""
        return dialled(self.addresses, self.port)

    @property
    def code(self) -> str:
        """What administrators compare by telephone: 160 bits of SHA-256 over all names, roles and keys, in groups of four."""
        parties = sorted([entry.name, entry.role, entry.public] for entry in self.entries)
        digest = hashlib.sha256(_CODE + canonical.encode({"project": self.project, "parties": parties})).digest()
        text = base64.b32encode(digest[:_CODE_BYTES]).decode()
        return "-".join(text[at : at + 4] for at in range(0, len(text), 4))

    @property
    def digest(self) -> str:
        """SHA-256 of the file, hexadecimal."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    def pins(self, revoked: frozenset[str] = frozenset()) -> Pins:
        """The keys to check signatures against.

        Args:
            revoked: fingerprints that this party revoked by itself.
        """
        return Pins(
            keys={entry.name: bytes.fromhex(entry.public) for entry in self.entries},
            revoked=frozenset(self.revoked) | revoked,
            roles={entry.name: entry.role for entry in self.entries},
            expires={entry.name: canonical.time_from(entry.ends, "the roster") for entry in self.entries},
            earlier={
                entry.name: tuple(bytes.fromhex(one.old) for one in entry.rotations if entry.follows(one.old))
                for entry in self.entries
            },
        )

    def sealed(self, identity: Identity) -> Roster:
        """The same, signed."""
        return replace(self, signature=identity.sign(self._signed()).hex())

    def _signed(self) -> bytes:
        return _ROSTER + canonical.encode(_unsigned(self))

    def to_bytes(self) -> bytes:
        """As it travels."""
        return _file(self)

    @classmethod
    def from_bytes(cls, data: bytes) -> Roster:
        """The roster in `data`, signed by the coordinator that it names.

        Raises:
            MessageError: of another form.
            IdentityError: not signed by the coordinator that it names.
        """
        what = "a roster"
        tree = _tree(data, what, cls)
        entries = tuple(_entry(one) for one in canonical.member(tree, "entries", list, what))
        found = cls(
            **{**tree, "addresses": _texts(tree, "addresses", what), "entries": entries},
        )
        names, keys = [entry.name for entry in entries], [entry.public for entry in entries]
        if [entry.role for entry in entries].count("coordinator") != 1 or len(set(names)) < len(names):
            raise MessageError("a roster names a party twice, or not exactly one coordinator")
        if len(set(keys)) < len(keys):
            raise IdentityError(
                "a roster gives one key to two parties: it is refused, for one party would count as two"
            )
        _int(found.serial, found.port, what=what)
        if not all(isinstance(mark, str) and is_name(name) for mark, name in found.revoked.items()):
            raise MessageError("a roster's revoked keys are of another form")
        if not is_name(found.project) or not found.addresses or not all(is_address(one) for one in found.addresses):
            raise MessageError("a roster's project or addresses are of another form")
        canonical.time_from(found.made, what)
        signature = _bytes(found.signature, SIGNATURE_BYTES, what)
        if not verify_raw(bytes.fromhex(found.coordinator.public), found._signed(), signature):
            raise IdentityError("a roster is not signed by the coordinator it names: it was altered; ask for it again")
        return found


@dataclass(frozen=True, kw_only=True)
class Change:
    """What a new roster changes.

    Attributes:
        name: of the party.
        what: `new`, `key`, `role`, `gone`, `revoked`, `term` or `address`.
        proved: whether the change needs nobody's word: a key that follows from the pinned one, or less trust than before.
        text: in words.
    """

    name: str
    what: str
    proved: bool
    text: str


def changes(
    old: Roster | None, new: Roster, *, coordinator: str, revoked: frozenset[str] = frozenset()
) -> list[Change]:
    """What differs between the pinned roster and a new one.

    Args:
        old: pinned; None at the first.
        new: checked by `Roster.from_bytes`.
        coordinator: the pinned key of the coordinator, hexadecimal, from the enrolment file where there is no roster yet.
        revoked: fingerprints that this party revoked by itself: they vouch for nothing.

    Raises:
        IdentityRefused: a coordinator whose key was revoked here, another coordinator, an older roster, or one in which a
            revocation was taken back.
    """
    mark = fingerprint(bytes.fromhex(coordinator))
    if {mark, new.coordinator.fingerprint} & revoked:
        raise IdentityRefused(
            "revoked", f"the coordinator's key ({mark}) was revoked here, so nothing vouches for its rosters: begin anew, with "
            "another enrolment file"
        )  # fmt: skip
    if new.coordinator.public != coordinator and not new.coordinator.follows(coordinator):
        raise IdentityRefused(
            "unknown", f"the roster is signed by another coordinator ({new.coordinator.fingerprint}) than the pinned one "
            f"({mark}), whose key does not vouch for it: it is not taken"
        )  # fmt: skip
    if old is None:
        return [
            Change(name=entry.name, what="new", proved=False, text=f"{entry.role} {entry.name}: {entry.fingerprint}")
            for entry in new.entries
        ]
    if new.serial < old.serial or (new.serial == old.serial and new.to_bytes() != old.to_bytes()):
        raise IdentityRefused(
            "unknown", f"the roster has serial {new.serial}, and {old.serial} is pinned: an older or forked one is not taken; "
            "ask for the newest"
        )  # fmt: skip
    back = sorted(set(old.revoked) - set(new.revoked))
    if back:
        raise IdentityRefused("revoked", f"the roster takes the revocation of {', '.join(back)} back: it is not taken")
    found = []
    # who signed the roster may say where it is; what answers there must show a certificate as well
    if new.dialled != old.dialled:
        text = f"{new.coordinator.name} moves: {old.dialled} -> {new.dialled}"
        found.append(Change(name=new.coordinator.name, what="address", proved=True, text=text))
    for name in sorted({entry.name for entry in (*old.entries, *new.entries)}):
        found += _party_changes(name, old.entry(name), new.entry(name), revoked)
    found += [
        Change(name=name, what="revoked", proved=True, text=f"{name}: {mark} was revoked")
        for mark, name in sorted(new.revoked.items())
        if mark not in old.revoked
    ]
    return found


def _party_changes(name: str, old: Entry | None, new: Entry | None, revoked: frozenset[str]) -> list[Change]:
    if old is None and new is not None:
        return [Change(name=name, what="new", proved=False, text=f"{new.role} {name}: {new.fingerprint}")]
    if old is None or new is None:
        return [Change(name=name, what="gone", proved=True, text=f"{name} is gone")]
    found = []
    if new.role != old.role:
        found.append(Change(name=name, what="role", proved=False, text=f"{name} was {old.role} and is {new.role}"))
    if new.public != old.public:
        proved = new.follows(old.public) and old.fingerprint not in revoked
        how = "proved with the old key" if proved else "NOT proved with the old key"
        text = f"{name}: {old.fingerprint} -> {new.fingerprint}, {how}"
        found.append(Change(name=name, what="key", proved=proved, text=text))
    elif new.ends != old.ends:
        found.append(Change(name=name, what="term", proved=True, text=f"{name}: its key holds until {new.ends}"))
    return found


def dialled(addresses: Sequence[str], port: int) -> str:
    """HOST:PORT of the first address."""
    host = addresses[0]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def new_token() -> str:
    """A fresh token, hexadecimal."""
    return secrets.token_hex(TOKEN_BYTES)


def same_code(given: str, code: str) -> bool:
    """Whether what was typed is the code, whatever its case and dashes."""
    return hmac.compare_digest(re.sub(r"[\s-]", "", given).upper().encode(), code.replace("-", "").encode())


def ends_after(days: int, start: datetime) -> str:
    """When a key that is enrolled at `start` ends."""
    from datetime import timedelta

    return canonical.time_text(start + timedelta(days=days))


# ----------------------------------------------------------------------------------------------------------- form


def _unsigned(record: Any) -> dict[str, Json]:
    tree: dict[str, Json] = asdict(record)
    del tree["signature"]
    return tree


def _file(record: Any) -> bytes:
    return canonical.encode({"format": FORMAT, "kind": type(record).__name__.lower(), **asdict(record)}) + b"\n"


def _tree(data: bytes, what: str, kind: type) -> dict[str, Any]:
    if len(data) > LIMIT:
        raise MessageError(f"{what} of {len(data)} bytes, and at most {LIMIT} are taken")
    tree = canonical.parse(data.removesuffix(b"\n"), what)
    given = tree.pop("format", None), tree.pop("kind", None)
    if given != (FORMAT, kind.__name__.lower()):
        raise MessageError(
            f"{what}: its format and kind are {given}, expected {(FORMAT, kind.__name__.lower())}: it is another file"
        )
    return _members(tree, kind, what)


_KINDS: Mapping[str, type | tuple[type, ...]] = {
    "addresses": list, "entries": list, "rotations": list, "revoked": dict, "serial": int, "port": int,
    "rotation": (dict, type(None)),
}  # fmt: skip
"""Members that are not texts."""


def _members(tree: Json, kind: type, what: str) -> dict[str, Any]:
    names = set(kind.__dataclass_fields__)  # type: ignore[attr-defined]
    if not isinstance(tree, dict) or tree.keys() != names:
        raise MessageError(f"{what} has other members than {', '.join(sorted(names))}: it was made by another version")
    return {name: canonical.member(tree, name, _KINDS.get(name, str), what) for name in names}


def _entry(tree: Json) -> Entry:
    what = "an entry of a roster"
    found = _members(tree, Entry, what)
    entry = Entry(**{**found, "rotations": tuple(Rotation.from_json(one) for one in found["rotations"])})
    if not is_name(entry.name) or entry.role not in ROLES:
        raise MessageError(f"{what} is for {entry.name!r:.80}, {entry.role!r:.80}: that is no name or no role")
    _bytes(entry.public, KEY_BYTES, what)
    canonical.time_from(entry.begins, what)
    canonical.time_from(entry.ends, what)
    if entry.role == "site":
        _check_node(entry.node, what)
    elif entry.node:
        raise MessageError(f"{what} gives {entry.name}, a {entry.role}, a node key")
    return entry


def _check_node(line: str, what: str) -> None:
    if _NODE.fullmatch(line) is None:
        raise MessageError(f"{what}: its node key is {line!r:.60}, expected one line ecdsa-sha2-nistp384 ...")


def _bytes(text: str, length: int, what: str) -> bytes:
    if len(text) != 2 * length or _HEX.fullmatch(text) is None:
        raise MessageError(f"{what}: {text!r:.80} is not {2 * length} hexadecimal digits")
    return bytes.fromhex(text)


def _texts(tree: Mapping[str, Any], key: str, what: str) -> tuple[str, ...]:
    value: Sequence[Any] = canonical.member(tree, key, list, what)
    if not all(isinstance(one, str) for one in value):
        raise MessageError(f"{what}: '{key}' is not a list of texts")
    return tuple(value)


def _int(serial: int, port: int, *, what: str) -> None:
    if serial < 0 or not 0 < port < 65536:
        raise MessageError(f"{what}: serial {serial} or port {port} is out of range")


def _mac(token: str, core: bytes) -> str:
    return hmac.new(bytes.fromhex(token), core, hashlib.sha256).hexdigest()

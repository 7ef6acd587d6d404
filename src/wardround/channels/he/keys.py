"""The group's key: made at one site, sealed to each of the others, and never at the server, which only carries boxes.

Three stages. `he-keys`: a site advertises a fresh X25519 key, signed with its Ed25519 identity, or says that it holds the key.
`he-make`: one site checks the others' signatures against its pins, makes the key unless it holds it, and returns a box for each
of them, signed. `he-take`: a site checks the maker's signature against its pin and opens its box.

Everything is bound to the run, the names of all its sites, the parameter set and the exchange in which it is sent. Another set
of sites is another key.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from wardround.channels.exchange import Exchange
from wardround.channels.he.bfv import SEED, Cipher
from wardround.channels.he.parameters import Parameters
from wardround.channels.he.ring import ring_of
from wardround.channels.home import Home
from wardround.channels.secagg.primitives import (
    SIZE,
    Agreement,
    canonical,
    close_box,
    derive,
    open_box,
    public_of,
    sign,
    signed_by,
)
from wardround.errors import ConfigError, IdentityError, MessageError
from wardround.store import atomic
from wardround.types import Json

_PRIVATE = 0o600


@dataclass(frozen=True, kw_only=True)
class Group:
    """What a key belongs to.

    Attributes:
        run: the run's id.
        sites: all sites of the federation, in canonical order.
        parameters: the set.
    """

    run: str
    sites: tuple[str, ...]
    parameters: Parameters

    def digest(self) -> bytes:
        """32 bytes that name the group."""
        about = {"run": self.run, "sites": list(self.sites), "parameters": self.parameters.to_json()}
        return hashlib.sha256(canonical(about)).digest()


@dataclass(frozen=True, kw_only=True)
class GroupKey:
    """The key of a group, from which all else is derived.

    Attributes:
        group: whose it is.
        secret: 32 bytes.
    """

    group: Group
    secret: bytes = field(repr=False)

    @cached_property
    def id(self) -> str:
        """A public name of the key."""
        return self._derived("he/id").hex()

    @cached_property
    def tags(self) -> bytes:
        """The key of the tags."""
        return self._derived("he/tags")

    @cached_property
    def cipher(self) -> Cipher:
        """The secret key of BFV, in use."""
        halves = [self._derived(f"he/seed/{half}") for half in range(SEED // SIZE)]
        return Cipher(ring_of(self.group.parameters), b"".join(halves))

    def _derived(self, purpose: str) -> bytes:
        return derive(self.secret, self.group.digest(), purpose)


class Keys:
    """The keys of the sites of one process, by site.

    Args:
        home: who they are, whom they trust, and where keys outlive a restart.
        parameters: the set that this process uses; a key of another one is forgotten.
    """

    def __init__(self, home: Home, parameters: Parameters) -> None:
        self._home, self._parameters = home, parameters
        self._held: dict[str, GroupKey] = {}
        self._pairs: dict[str, bytes] = {}
        for site in home.identities:
            stored = self._stored(site)
            if stored is not None:
                self._held[site] = stored

    def of(self, site: str, run: str) -> GroupKey:
        """The key that a site holds for a run.

        Raises:
            MessageError: it holds none.
        """
        held = self._held.get(site)
        if held is None or held.group.run != run:
            raise MessageError(
                f"site '{site}' holds no key of run {run!r}: the server must distribute it first (stage he-keys)"
            )
        return held

    def held(self, site: str, group: Group) -> GroupKey | None:
        """The key that a site holds for a group, or None."""
        held = self._held.get(site)
        return held if held is not None and held.group == group else None

    def advertise(self, site: str, group: Group, exchange: Exchange) -> dict[str, str]:
        """A fresh key to which a box may be sealed, signed. A key of another group is forgotten."""
        self._held.pop(site, None)
        self._pairs[site] = secrets.token_bytes(SIZE)
        public = public_of(self._pairs[site])
        signature = sign(self._home.identities[site], _advertisement(site, public, group, exchange))
        return {"public": _text(public), "signature": _text(signature)}

    def make(
        self, maker: str, group: Group, exchange: Exchange, adverts: Json
    ) -> tuple[str, dict[str, dict[str, str]]]:
        """The id of the group's key, made here unless `maker` holds it, and a signed box for each advertisement.

        Raises:
            IdentityError: an advertisement is not signed by the identity that is pinned to its site, or by no site of the group.
                No box was made.
            MessageError: the advertisements are malformed.
        """
        if not isinstance(adverts, dict):
            raise MessageError(f"advertisements of keys are {type(adverts).__name__}, expected an object by site")
        publics: dict[str, bytes] = {}
        for site, advert in adverts.items():
            public, signature = _bytes(advert, "public", site), _bytes(advert, "signature", site)
            self._verify(
                site, group, signature, _advertisement(site, public, group, exchange), f"the key advertised by '{site}'"
            )
            publics[site] = public
        key = self.held(maker, group) or GroupKey(group=group, secret=secrets.token_bytes(SIZE))
        self._pairs.pop(maker, None)
        self._keep(maker, key)
        return key.id, {site: self._box(maker, site, public, key, exchange) for site, public in publics.items()}

    def take(self, site: str, group: Group, exchange: Exchange, maker: Json, given: Json) -> str:
        """Open a box and keep the key; gives its id.

        Raises:
            IdentityError: the box is not signed by the maker's pinned identity.
            MessageError: it is malformed, sealed to another key than was advertised last, or its key is not the one it names.
        """
        if not isinstance(maker, str):
            raise MessageError(f"the maker of a key is {maker!r}, expected a site's name")
        box, signature = _bytes(given, "box", site), _bytes(given, "signature", site)
        pair = self._pairs.get(site)
        if pair is None:
            raise MessageError(
                f"site '{site}' has advertised no key, or has taken a box already: the server must ask again"
            )
        about = _boxed(maker, site, public_of(pair), group, exchange)
        self._verify(maker, group, signature, about + box, f"the box for '{site}' from '{maker}'")
        sender, content = box[:SIZE], box[SIZE:]
        opened = (
            open_box(_box_key(pair, sender, maker, sender, public_of(pair)), content, about)
            if len(sender) == SIZE
            else None
        )
        if opened is None or len(opened) != 2 * SIZE:
            raise MessageError(
                f"the box for '{site}' from '{maker}' does not open: it was sealed to another key, or altered"
            )
        key = GroupKey(group=group, secret=opened[:SIZE])
        if key.cipher.fingerprint != opened[SIZE:]:
            raise MessageError(
                f"the key from '{maker}' makes another secret key at '{site}': the two have releases of tenseal that derive keys "
                "in different ways; install the same one"
            )
        del self._pairs[site]
        self._keep(site, key)
        return key.id

    def _box(self, maker: str, site: str, public: bytes, key: GroupKey, exchange: Exchange) -> dict[str, str]:
        once = secrets.token_bytes(SIZE)
        sender = public_of(once)
        about = _boxed(maker, site, public, key.group, exchange)
        content = close_box(_box_key(once, public, site, sender, public), key.secret + key.cipher.fingerprint, about)
        box = sender + content
        return {"box": _text(box), "signature": _text(sign(self._home.identities[maker], about + box))}

    def _verify(self, site: str, group: Group, signature: bytes, content: bytes, what: str) -> None:
        pin = self._home.pins.get(site)
        if site not in group.sites or pin is None:
            raise IdentityError(
                f"{what}: '{site}' is not a site that is known here; pin its public key, or leave it out"
            )
        if not signed_by(pin, signature, content):
            raise IdentityError(
                f"{what} is not signed by the identity that is pinned to '{site}' here: somebody on the way replaced it, or the "
                "pin is old; compare the site's public key with its owner"
            )

    def _keep(self, site: str, key: GroupKey) -> None:
        if self._held.get(site) == key:
            return
        self._held[site] = key
        path = self._path(site)
        if path is None:
            return
        group = key.group
        _write_private(path, canonical({
            "run": group.run, "sites": list(group.sites), "parameters": group.parameters.to_json(), "secret": _text(key.secret),
        }))  # fmt: skip

    def _stored(self, site: str) -> GroupKey | None:
        path = self._path(site)
        if path is None or not path.exists():
            return None
        try:
            stored = _object(path.read_bytes())
            parameters = Parameters.from_options(stored["parameters"])
            group = Group(run=str(stored["run"]), sites=tuple(map(str, stored["sites"])), parameters=parameters)
            key = GroupKey(group=group, secret=base64.b64decode(stored["secret"], validate=True))
        except (ValueError, KeyError, TypeError, ConfigError) as error:
            raise IdentityError(
                f"{path}, the key of site '{site}', is damaged: delete it, and the site is given the key again"
            ) from error
        return key if parameters == self._parameters and len(key.secret) == SIZE else None

    def _path(self, site: str) -> Path | None:
        return None if self._home.folder is None else self._home.folder / f"he-key-{file_name(site)}.json"


def file_name(site: str) -> str:
    """A name for a site's file, whatever characters its own name has."""
    return hashlib.sha256(site.encode()).hexdigest()[:16]


def _advertisement(site: str, public: bytes, group: Group, exchange: Exchange) -> bytes:
    return canonical({
        "wardround": "he-keys", "site": site, "public": public.hex(), "group": group.digest().hex(),
        "exchange": exchange.to_meta(),
    })  # fmt: skip


def _boxed(maker: str, site: str, public: bytes, group: Group, exchange: Exchange) -> bytes:
    return canonical({
        "wardround": "he-box", "maker": maker, "site": site, "public": public.hex(), "group": group.digest().hex(),
        "exchange": exchange.to_meta(),
    })  # fmt: skip


def _box_key(secret: bytes, public: bytes, owner: str, sender: bytes, receiver: bytes) -> bytes:
    return derive(Agreement(secret).with_key(public, owner), b"", "he/box", sender, receiver)


def _write_private(path: Path, data: bytes) -> None:
    """Write a file that only its owner may read, whole or not at all."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    atomic.make_folder(path.parent)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), _PRIVATE)
    with open(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    atomic.move(temporary, path)


def _object(data: bytes) -> dict[str, Any]:
    found = json.loads(data)
    if not isinstance(found, dict):
        raise ValueError("not an object")
    return found


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(given: Json, name: str, site: str) -> bytes:
    value = given.get(name) if isinstance(given, dict) else None
    try:
        if isinstance(value, str):
            return base64.b64decode(value, validate=True)
    except ValueError:
        pass
    raise MessageError(f"what came for '{site}' holds no {name} in base 64")

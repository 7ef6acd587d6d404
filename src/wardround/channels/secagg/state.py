"""What a site remembers of its masks: keys that were not used yet, or an upload whose masks may still be taken off.

Keys become an upload in one step, which is on the disk before anything masked leaves, and the upload holds no secret of the
site's own any more: nothing that is kept can draw the same mask again. A folder restored from a backup could; do not.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from wardround.channels.secagg.directory import Advert, Directory, decoded, encoded
from wardround.channels.secagg.keys import seed_seal
from wardround.channels.secagg.primitives import SIZE, canonical, fresh_secret, public_of
from wardround.channels.secagg.shamir import SHARE
from wardround.errors import MessageError, RunError, StorageError
from wardround.store import atomic
from wardround.types import Json

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

VERSION = 2

Halves = tuple[bytes, bytes]
"""A share of the key of a site's pairwise masks, and one of the seed of its own mask."""


@dataclass(frozen=True, kw_only=True)
class Keys:
    """Keys for one use, not used yet.

    Attributes:
        run: for which they were made.
        advert: what was advertised of them.
        share, mask, seed: the secrets, 32 bytes each.
        directory: under which shares were sent, once they were.
        own: the site's own share of its seed, once there is one.
        agreed: site -> what the `share` key agreed on with its; in memory only, it can be found again.
    """

    run: str
    advert: Advert
    share: bytes = field(repr=False)
    mask: bytes = field(repr=False)
    seed: bytes = field(repr=False)
    directory: Directory | None = None
    own: bytes = field(default=b"", repr=False)
    agreed: Mapping[str, bytes] = field(default_factory=dict, repr=False)

    @classmethod
    def fresh(cls, identity: Ed25519PrivateKey, run: str, site: str, serial: int) -> Keys:
        """From the operating system's randomness."""
        share, mask, seed = fresh_secret(), fresh_secret(), secrets.token_bytes(SIZE)
        advert = Advert.signed(
            identity, run, site=site, serial=serial, share=public_of(share), mask=public_of(mask),
            seal=seed_seal(run, site, serial, seed),
        )  # fmt: skip
        return cls(run=run, advert=advert, share=share, mask=mask, seed=seed)


@dataclass(frozen=True, kw_only=True)
class Upload:
    """A masked contribution that may have left.

    Attributes:
        label: of the exchange.
        asked: what was asked in it, as this site read it (`asked_of`).
        abstained: whether the site's part is nothing.
        directory: whose masks are on it.
        members: of the site's group, sorted: between whom masks are.
        held: site -> the halves of its secrets that this one holds; of its own, the seed's only.
        signed: the survivors that this site put its name to, or None.
    """

    label: str
    asked: bytes
    abstained: bool
    directory: Directory
    members: tuple[str, ...]
    held: Mapping[str, Halves] = field(repr=False)
    signed: tuple[str, ...] | None = None


@dataclass(kw_only=True)
class ChannelState:
    """One site's memory.

    Attributes:
        site: whose.
        serial: of the last keys that were made.
        keys: not used yet.
        upload: whose masks were not taken off yet.
        population: (run, digest of its population): groups stay what they are.
        path: where it is kept; None: in memory.
    """

    site: str
    serial: int = 0
    keys: Keys | None = None
    upload: Upload | None = None
    population: tuple[str, str] | None = None
    path: Path | None = None

    @classmethod
    def at(cls, folder: Path | None, site: str) -> ChannelState:
        """The site's state in a folder; an empty one where there is none.

        Raises:
            RunError: the file is damaged.
            StorageError: it cannot be read.
        """
        if folder is None:
            return cls(site=site)
        path = folder / f"masks-{hashlib.sha256(site.encode()).hexdigest()[:16]}.json"
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return cls(site=site, path=path)
        except OSError as error:
            raise StorageError(
                f"{path} could not be read: {error.strerror or error}; see to the disk, then try again"
            ) from error
        try:
            return _state_from(json.loads(data), site, path)
        except (ValueError, KeyError, TypeError, MessageError) as error:
            raise RunError(
                f"{path} is damaged or not the state of site '{site}': {type(error).__name__}: {error}; remove it, and the site "
                "takes part again from the next exchange on"
            ) from error

    def make_keys(self, identity: Ed25519PrivateKey, run: str) -> Keys:
        """Fresh keys in the place of any that are here."""
        self.serial += 1
        self.keys = Keys.fresh(identity, run, self.site, self.serial)
        return self.keys

    def sent_shares(self, directory: Directory, own: bytes, agreed: Mapping[str, bytes]) -> None:
        """Note that shares of the keys' secrets go out under a directory: to no other from now on."""
        if self.keys is not None:
            self.keys = replace(self.keys, directory=directory, own=own, agreed=agreed)

    def signed(self, survivors: tuple[str, ...]) -> None:
        """Note that this site signs a set of survivors: no other from now on."""
        if self.upload is not None:
            self.upload = replace(self.upload, signed=survivors)

    def save(self) -> None:
        """Keep it, durably and readable by this user alone, where there is a folder."""
        if self.path is not None:
            atomic.make_folder(self.path.parent)
            atomic.write_bytes(self.path, canonical(_state_json(self)), private=True)


def _state_json(state: ChannelState) -> Json:
    return {
        "version": VERSION,
        "site": state.site,
        "serial": state.serial,
        "keys": None if state.keys is None else _keys_json(state.keys),
        "upload": None if state.upload is None else _upload_json(state.upload),
        "population": None if state.population is None else list(state.population),
    }


def _state_from(given: Json, site: str, path: Path) -> ChannelState:
    if given["version"] != VERSION or given["site"] != site:
        raise ValueError(f"version {given['version']} of site '{given['site']}', expected {VERSION} of '{site}'")
    return ChannelState(
        site=site,
        serial=int(given["serial"]),
        keys=None if given["keys"] is None else _keys_from(given["keys"]),
        upload=None if given["upload"] is None else _upload_from(given["upload"]),
        population=None if given["population"] is None else (given["population"][0], given["population"][1]),
        path=path,
    )


def _keys_json(keys: Keys) -> Json:
    return {
        "run": keys.run,
        "advert": keys.advert.to_json(),
        "secrets": [encoded(keys.share), encoded(keys.mask), encoded(keys.seed)],
        "directory": None if keys.directory is None else keys.directory.to_json(),
        "own": encoded(keys.own),
    }


def _keys_from(given: Json) -> Keys:
    share, mask, seed = (decoded(secret, SIZE) for secret in given["secrets"])
    directory = None if given["directory"] is None else Directory.from_json(given["directory"])
    own = decoded(given["own"], 0 if directory is None else SHARE)
    advert = Advert.from_json(given["advert"])
    return Keys(run=given["run"], advert=advert, share=share, mask=mask, seed=seed, directory=directory, own=own)


def _upload_json(upload: Upload) -> Json:
    return {
        "label": upload.label,
        "asked": encoded(upload.asked),
        "abstained": upload.abstained,
        "directory": upload.directory.to_json(),
        "members": list(upload.members),
        "held": {site: [encoded(half) for half in halves] for site, halves in upload.held.items()},
        "signed": None if upload.signed is None else list(upload.signed),
    }


def _upload_from(given: Json) -> Upload:
    directory = Directory.from_json(given["directory"])
    held = {}
    for site, (mask, seed) in given["held"].items():
        held[site] = (decoded(mask, SHARE) if mask else b"", decoded(seed, SHARE))
    signed = None if given["signed"] is None else tuple(given["signed"])
    return Upload(
        label=given["label"], asked=decoded(given["asked"], SIZE), abstained=bool(given["abstained"]), directory=directory,
        members=tuple(given["members"]), held=held, signed=signed,
    )  # fmt: skip

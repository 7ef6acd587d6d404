"""Who somebody is: an Ed25519 key (RFC 8032) that signs, and the pinned keys that signatures are checked against.

A fingerprint is `SHA256:` and the base64 of the SHA-256 of the raw 32-byte public key, without padding.
"""

from __future__ import annotations

import base64
import hashlib
import os
import secrets
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from wardround.deploy import canonical
from wardround.deploy.names import check_name
from wardround.errors import IdentityError, StorageError, missing_extra

try:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
        PublicFormat,
        load_pem_private_key,
    )

    from wardround.channels.secagg.primitives import signed_by
except ImportError as error:
    raise missing_extra("cryptography", "flower") from error

KEY_BYTES, SIGNATURE_BYTES = 32, 64


class IdentityRefused(IdentityError):
    """A signature or its signer was refused.

    Attributes:
        reason: one word for the audit log: `unknown`, `role`, `revoked`, `expired`, `signature`, `second-place`, `sender`.
        run: of a signed message that was refused for its signer's sake, where it is known.
    """

    def __init__(self, reason: str, text: str, *, run: str | None = None) -> None:
        super().__init__(text)
        self.reason, self.run = reason, run


def fingerprint(public: bytes) -> str:
    """The fingerprint of a raw public key [32 bytes]."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(public).digest()).decode().rstrip("=")


def verify_raw(public: bytes, data: bytes, signature: bytes) -> bool:
    """Whether `signature` [64 bytes] over `data` is by the holder of `public` [32 bytes]."""
    return signed_by(public, signature, data)


class Identity:
    """A private key and whose it is.

    Attributes:
        name: of the party.
        session: 16 hexadecimal digits, anew for each object: one process's use of the identity.
    """

    def __init__(self, name: str, private: Ed25519PrivateKey) -> None:
        self.name = check_name(name, "name")
        self.session = secrets.token_hex(8)
        self._private = private

    @classmethod
    def generate(cls, name: str) -> Identity:
        """A fresh key from the operating system's randomness."""
        return cls(name, Ed25519PrivateKey.generate())

    @classmethod
    def load(cls, name: str, path: Path) -> Identity:
        """Read a key.

        Raises:
            IdentityError: absent, of another kind, or readable by others than its owner.
        """
        key = _load_private(path)
        if not isinstance(key, Ed25519PrivateKey):
            raise IdentityError(f"{path} holds a {type(key).__name__}, expected an Ed25519 private key: restore it")
        return cls(name, key)

    def save(self, path: Path) -> None:
        """Write the key, PEM (PKCS #8), readable by its owner alone; an earlier one is replaced.

        Raises:
            StorageError: the disk cannot be written.
        """
        write_secret(path, self._private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))

    @property
    def private(self) -> Ed25519PrivateKey:
        """The key itself, for the channel's own signatures."""
        return self._private

    @property
    def public(self) -> bytes:
        """The raw public key, 32 bytes."""
        return self._private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the public key."""
        return fingerprint(self.public)

    def sign(self, data: bytes) -> bytes:
        """The signature of `data`, 64 bytes. Callers put what the signature is for in front of what it is over."""
        return self._private.sign(data)


@dataclass(frozen=True, kw_only=True)
class Pins:
    """The keys that this party trusts.

    Attributes:
        keys: name -> raw public key.
        revoked: fingerprints that are trusted no longer, also where a name still has them.
        roles: name -> `coordinator`, `site` or `submitter`.
        expires: name -> when its key ends; a name without one does not expire.
        earlier: name -> raw public keys that it had before, for what was signed then.
    """

    keys: Mapping[str, bytes]
    revoked: frozenset[str] = frozenset()
    roles: Mapping[str, str] = field(default_factory=dict)
    expires: Mapping[str, datetime] = field(default_factory=dict)
    earlier: Mapping[str, tuple[bytes, ...]] = field(default_factory=dict)

    def verify(self, name: str, data: bytes, signature: bytes, *, now: datetime | None = None) -> None:
        """Check that `name` signed `data`.

        Raises:
            IdentityRefused: an unknown name, a revoked or an expired key, or a signature that is not by this key.
        """
        public = self.key(name, now=now)
        if not verify_raw(public, data, signature):
            raise IdentityRefused(
                "signature", f"the signature is not by {name} ({fingerprint(public)}): what was signed was altered, or "
                "somebody else signed it"
            )  # fmt: skip

    def key(self, name: str, *, now: datetime | None = None) -> bytes:
        """The key that `name` has and may use now.

        Raises:
            IdentityRefused: an unknown name, or a revoked or an expired key.
        """
        public = self.keys.get(name)
        if public is None:
            raise IdentityRefused(
                "unknown", f"no pinned key for {name!r:.80}: known are {', '.join(sorted(self.keys)) or 'none'}; "
                "join the newest roster if they were enrolled since"
            )  # fmt: skip
        mark = fingerprint(public)
        if mark in self.revoked:
            raise IdentityRefused(
                "revoked", f"the key of {name} ({mark}) was revoked: they need a new one, enrolled anew"
            )
        ends, today = self.expires.get(name), now or canonical.now()
        if ends is not None and today >= ends:
            raise IdentityRefused(
                "expired", f"the key of {name} ({mark}) expired on {canonical.time_text(ends)}, and it is "
                f"{canonical.time_text(today)} here: rotate it, or set this clock"
            )  # fmt: skip
        return public

    def signed_once(self, name: str, data: bytes, signature: bytes) -> bool:
        """Whether `name` signed `data` with a key that it has or had, revoked and expired ones too: for evidence alone."""
        keys = [*self.earlier.get(name, ()), *([self.keys[name]] if name in self.keys else [])]
        return any(verify_raw(public, data, signature) for public in keys)

    def check_role(self, name: str, *roles: str) -> None:
        """Whether a name has one of `roles`.

        Raises:
            IdentityRefused: it has another, or none.
        """
        role = self.roles.get(name)
        if role not in roles:
            raise IdentityRefused("role", f"{name} is enrolled as {role}, expected {' or '.join(roles)}")


# ---------------------------------------------------------------------------------------------------------- files


def write_secret(path: Path, data: bytes) -> None:
    """Replace a file that only its owner may read, atomically and durably.

    Raises:
        StorageError: the disk cannot be written; the earlier content is intact.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise StorageError(
            f"{path} could not be written: {error.strerror or error}; its earlier content, if any, is intact; see to the disk "
            "and to this user's rights, then try again"
        ) from error


def read_secret(path: Path) -> bytes:
    """What `write_secret` wrote.

    Raises:
        IdentityError: absent, or readable by others than its owner.
    """
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise IdentityError(f"{path} is absent: it is made by `wardround deploy`; restore it from a backup") from error
    except OSError as error:
        raise IdentityError(f"{path} cannot be read: {error.strerror or error}") from error
    if os.name == "posix" and mode & 0o077:
        raise IdentityError(
            f"{path} has mode {mode:04o}, so others than its owner can read a secret: chmod 600 it, and rotate the key if "
            "somebody may have read it"
        )
    return data


def _load_private(path: Path) -> object:
    try:
        return load_pem_private_key(read_secret(path), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise IdentityError(f"{path} is not a private key in PEM form: {error}; restore it from a backup") from error

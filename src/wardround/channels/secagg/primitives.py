"""The few cryptographic functions that the protocol is made of, from the library `cryptography`.

Agreement is X25519 (RFC 7748), derivation HKDF-SHA256 (RFC 5869), boxes are ChaCha20-Poly1305 (RFC 8439), signatures Ed25519
(RFC 8032), key streams AES-256 in counter mode (NIST SP 800-38A). Keys and seeds are 32 bytes, from the operating system.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from typing import TYPE_CHECKING

from wardround.errors import MessageError, missing_extra
from wardround.types import Json

try:
    from cryptography.exceptions import InvalidSignature, InvalidTag
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
    from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
    from cryptography.hazmat.primitives.ciphers.algorithms import AES256
    from cryptography.hazmat.primitives.ciphers.modes import CTR
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF
except ModuleNotFoundError as error:
    raise missing_extra("cryptography", "secure") from error

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

SIZE = 32
"""Bytes of a key, a seed, a digest."""
SIGNATURE = 64
TAG = 16
_NONCE = bytes(12)


def canonical(value: Json) -> bytes:
    """JSON in the one form that is hashed and signed."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def digest(purpose: str, *parts: bytes) -> bytes:
    """SHA-256 of parts, each with its length, under a name that keeps purposes apart."""
    whole = hashlib.sha256()
    for part in (f"wardround/secagg/1/{purpose}".encode(), *parts):
        whole.update(len(part).to_bytes(8, "big") + part)
    return whole.digest()


def fresh_secret() -> bytes:
    """A secret key for X25519, in the one form of those that make the same public key (`is_whole`)."""
    return _clamped(secrets.token_bytes(SIZE))


def is_whole(secret: bytes) -> bool:
    """Whether a secret has that form. Another one would agree alike and yet be another number, of other shares."""
    return secret == _clamped(secret)


def _clamped(secret: bytes) -> bytes:
    return bytes([secret[0] & 248, *secret[1:-1], secret[-1] & 127 | 64])


def public_of(secret: bytes) -> bytes:
    """The public key of an X25519 secret."""
    return X25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()


class Agreement:
    """The secret half of an X25519 key."""

    def __init__(self, secret: bytes) -> None:
        self._key = X25519PrivateKey.from_private_bytes(secret)

    def with_key(self, public: bytes, owner: str) -> bytes:
        """What the two keys agree on: the input of `derive`, never a key itself.

        Raises:
            MessageError: the public key is one of the few that give everybody the same.
        """
        try:
            return self._key.exchange(X25519PublicKey.from_public_bytes(public))
        except ValueError as error:
            raise MessageError(f"the public key of '{owner}' is of small order: it agrees on nothing secret") from error


def derive(agreed: bytes, salt: bytes, purpose: str, *parts: bytes) -> bytes:
    """A key for one purpose."""
    return HKDF(algorithm=SHA256(), length=SIZE, salt=salt, info=digest(purpose, *parts)).derive(agreed)


def close_box(key: bytes, content: bytes, about: bytes) -> bytes:
    """Seal under a key that seals nothing else: hence the constant nonce."""
    return ChaCha20Poly1305(key).encrypt(_NONCE, content, about)


def open_box(key: bytes, box: bytes, about: bytes) -> bytes | None:
    """The content of a box, or None where it was sealed under another key, for another purpose, or altered since."""
    try:
        return ChaCha20Poly1305(key).decrypt(_NONCE, box, about)
    except InvalidTag:
        return None


def sign(identity: Ed25519PrivateKey, content: bytes) -> bytes:
    """A signature, 64 bytes."""
    return identity.sign(content)


def signed_by(public: bytes, signature: bytes, content: bytes) -> bool:
    """Whether a signature over `content` is that of the raw public key."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, content)
    except (InvalidSignature, ValueError):
        return False
    return True


def key_stream(key: bytes) -> CipherContext:
    """AES-256 in counter mode, from counter 0: what it makes of zeros is the stream."""
    return Cipher(AES256(key), CTR(bytes(16))).encryptor()

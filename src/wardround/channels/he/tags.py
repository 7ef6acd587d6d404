"""Tags: what an opener checks a sum by.

Every ciphertext carries, in slots kept for it, numbers that only holders of the group's key can compute: a pseudorandom
function of the exchange, what the site was asked, whether it abstained, the site and the ciphertext's place. They add up with
the rest, so the sum of the messages of given sites has exactly one tag: the sum of theirs. `docs/he.md` says what that proves
and what it does not.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from wardround.channels.he.ring import TAGS
from wardround.channels.secagg.primitives import derive, key_stream

_WORD = 8


class Tags:
    """The tags of one site in one exchange, ciphertext after ciphertext.

    AES-256 in counter mode under a key of HKDF-SHA256; a 64-bit word modulo t, whose least likely and most likely values
    differ by at most t / 2^64 of their probability.

    Args:
        key: of the group, 32 bytes.
        label: of the exchange and of what the site was asked in it (`Exchange.bound`).
        site: whose tags.
        modulus: t, below 2^60.
        abstained: whether the message is nothing: such a one has other tags.
    """

    def __init__(self, key: bytes, label: bytes, site: str, modulus: int, *, abstained: bool = False) -> None:
        purpose = "he/tag of nothing" if abstained else "he/tag"
        self._stream = key_stream(derive(key, label, purpose, site.encode()))
        self._modulus = np.uint64(modulus)

    def next(self, count: int) -> NDArray[np.uint64]:
        """Tags of the next `count` ciphertexts, [count, TAGS], each below the modulus."""
        words = np.frombuffer(self._stream.update(bytes(count * TAGS * _WORD)), dtype="<u8")
        return words.reshape(count, TAGS) % self._modulus


class SumOfTags:
    """The tag that the sum of given sites' messages must have.

    Args:
        key, label, modulus: as of `Tags`.
        members: the sites, each once.
        abstained: those of them whose message is nothing.
    """

    def __init__(
        self, key: bytes, label: bytes, members: tuple[str, ...], modulus: int, abstained: Collection[str] = ()
    ) -> None:
        self._tags = [Tags(key, label, site, modulus, abstained=site in abstained) for site in members]
        self._modulus = np.uint64(modulus)

    def next(self) -> NDArray[np.uint64]:
        """The tag of the next ciphertext, [TAGS]."""
        total = np.zeros(TAGS, dtype=np.uint64)
        for tags in self._tags:
            total = (total + tags.next(1)[0]) % self._modulus
        return total

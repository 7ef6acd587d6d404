"""Counter-based random streams for simulation, named (seed, purpose, site, round) and independent of scheduling.

Every number is a pure function of its name: whoever draws it, in whatever chunk or process, draws the same. The mixing
function is the finaliser of splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, OOPSLA 2014).
Not for privacy: noise, masks and keys come from a secret of the site or from the operating system.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)

Keys = NDArray[np.uint64]


def _mix(value: Keys) -> Keys:
    value = (value ^ (value >> np.uint64(30))) * _MIX_1
    value = (value ^ (value >> np.uint64(27))) * _MIX_2
    return value ^ (value >> np.uint64(31))


def key(*name: str | int) -> int:
    """A 64-bit key of a name; stable over platforms, processes and versions of Python."""
    text = "\x1f".join(str(part) for part in name)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def site_keys(sites: tuple[str, ...]) -> Keys:
    """The sites' keys, uint64 [K]. They depend on names alone, so removing a site changes no other's stream."""
    return np.array([key("site", site) for site in sites], dtype=np.uint64)


def uniform_bits(keys: Keys, purpose: int | Keys, count: int) -> Keys:
    """Random 64-bit words, uint64 [K, count]: word j of a stream is a hash of (keys[k], purpose, j).

    Args:
        keys: uint64 [K].
        purpose: a key from `key("batches", seed, round, epoch)`, say; or one a stream, uint64 [K].
        count: words a stream, 0 or more.
    """
    base = _mix(keys ^ _mix(np.atleast_1d(np.asarray(purpose, dtype=np.uint64))))
    counter = np.arange(1, count + 1, dtype=np.uint64) * _GOLDEN
    return _mix(base[:, None] + counter[None, :])


def generator(*name: str | int) -> np.random.Generator:
    """A NumPy generator for one named purpose (a partition, a bootstrap), where a counter hash is not needed."""
    return np.random.Generator(np.random.Philox(key=key(*name)))


def cohort(sites: tuple[str, ...], keys: Keys, size: int, *, seed: int, round: int) -> tuple[str, ...]:
    """The `size` sites of lowest hash rank this round, in canonical order.

    A retried attempt asks the same sites. A rank depends on the site's own name, so removing one site from the
    federation does not reshuffle the others.
    """
    if size >= len(sites):
        return sites
    rank: NDArray[Any] = uniform_bits(keys, key("cohort", seed, round), 1)[:, 0]
    chosen = np.sort(np.argpartition(rank, size)[:size])
    return tuple(sites[i] for i in chosen)

"""Shamir's secret sharing (1979) over the prime field of 2^256 + 297 elements.

A secret f(0) is the constant of a random polynomial f of degree t - 1; the share of the holder at x is f(x). Any t shares
give the secret, t - 1 give nothing.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from itertools import combinations

PRIME = 2**256 + 297
"""The least prime above 2^256, so that any 32 bytes are an element."""
SHARE = 33
"""Bytes of a share."""
_TRIES = 500
"""Sets of shares that `join` tries before it gives up."""


def split(secret: int, threshold: int, holders: Sequence[int]) -> list[int]:
    """A share for each of `holders` (distinct numbers from 1 on); any `threshold` of them give the secret."""
    polynomial = [secrets.randbelow(PRIME) for _ in range(threshold - 1)]
    polynomial.append(secret)
    return [_value(polynomial, x) for x in holders]


def to_bytes(share: int) -> bytes:
    """A share as `SHARE` bytes."""
    return share.to_bytes(SHARE, "big")


def from_bytes(data: bytes) -> int | None:
    """The share, or None where the bytes are not an element of the field."""
    value = int.from_bytes(data, "big")
    return value if len(data) == SHARE and value < PRIME else None


class Joiner:
    """Joins shares of many secrets, remembering who altered one, and coefficients that recur.

    Attributes:
        liars: holders who altered a share. Named are only those of whom it is certain as long as no more than half of the
            shares beyond the threshold were altered: then one polynomial alone is on so many of them, and errors that liars
            agreed on cannot point to others.
    """

    def __init__(self) -> None:
        self.liars: set[int] = set()
        self._doubted: set[int] = set()
        self._known: dict[tuple[int, tuple[int, ...]], list[int]] = {}

    def join(self, shares: Mapping[int, int], threshold: int, right: Callable[[int], bool]) -> int | None:
        """The secret that passes the check `right`, or None where no set of `threshold` shares that was tried gives it.

        Args:
            shares: holder -> share.
            threshold: how many are needed.
            right: whether a secret is the one that was shared.
        """
        tried: set[tuple[int, ...]] = set()
        for chosen in self._sets(sorted(shares, key=lambda x: (x in self._doubted, x)), threshold):
            if chosen in tried:
                continue
            if len(tried) == _TRIES:
                return None
            tried.add(chosen)
            secret = self._at(0, chosen, shares)
            if right(secret):
                if len(tried) > 1 or not self._doubted.isdisjoint(shares):
                    self._accuse(chosen, shares)
                return secret
        return None

    def _accuse(self, chosen: tuple[int, ...], shares: Mapping[int, int]) -> None:
        off = {x for x in shares.keys() - set(chosen) if self._at(x, chosen, shares) != shares[x]}
        self._doubted |= off
        if 2 * len(off) <= len(shares) - len(chosen):
            self.liars |= off

    def _at(self, place: int, chosen: tuple[int, ...], shares: Mapping[int, int]) -> int:
        if (place, chosen) not in self._known:
            self._known[place, chosen] = _coefficients(place, chosen)
        return sum(c * shares[x] for c, x in zip(self._known[place, chosen], chosen, strict=True)) % PRIME

    @staticmethod
    def _sets(holders: Sequence[int], threshold: int) -> Iterator[tuple[int, ...]]:
        """Sets of holders: without nobody, without one, without two."""
        for left_out in range(len(holders) - threshold + 1):
            for without in combinations(reversed(holders), left_out):
                gone: Set[int] = set(without)
                yield tuple([x for x in holders if x not in gone][:threshold])


def _value(polynomial: Sequence[int], x: int) -> int:
    total = 0
    for coefficient in polynomial:
        total = (total * x + coefficient) % PRIME
    return total


def _coefficients(place: int, holders: Sequence[int]) -> list[int]:
    """Lagrange's coefficients of the value at `place`."""
    found = []
    for x in holders:
        above = below = 1
        for other in holders:
            if other != x:
                above = above * (place - other) % PRIME
                below = below * (x - other) % PRIME
        found.append(above * pow(below, -1, PRIME) % PRIME)
    return found

"""How many different values a stream holds, and how often some of them come, in bounded memory.

Distinct sampling: a value is kept while its hash ends in `level` zero bits; when too many are kept, `level` rises and half
of them leave. What is kept has exact counts, and is a uniform sample of the different values.

Source: P. Gibbons, Distinct Sampling for Highly-Accurate Answers to Distinct Values Queries, VLDB 2001.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable

import numpy as np
from numpy.typing import NDArray

CAPACITY = 20_000
"""Different values that are kept."""


class DistinctSample:
    """Values with their numbers of rows; exact up to `capacity` different values.

    Attributes:
        counts: value -> rows, of the values that are kept.
        level: 0 while every value is kept.
    """

    def __init__(self, capacity: int = CAPACITY) -> None:
        self.counts: dict[Hashable, int] = {}
        self.level = 0
        self._hashes: dict[Hashable, int] = {}
        self._capacity = capacity

    def add(self, values: Iterable[Hashable], rows: NDArray[np.int64], hashes: NDArray[np.uint64]) -> None:
        """Count `rows` [n] of each of n values with their 64-bit `hashes`."""
        for value, number, code in zip(values, rows.tolist(), hashes.tolist(), strict=True):
            if code & ((1 << self.level) - 1):
                continue
            known = self.counts.get(value)
            self.counts[value] = number if known is None else known + number
            if known is None:
                self._hashes[value] = code
                while len(self.counts) > self._capacity:
                    self._rise()

    def _rise(self) -> None:
        self.level += 1
        mask = (1 << self.level) - 1
        self._hashes = {value: code for value, code in self._hashes.items() if not code & mask}
        self.counts = {value: self.counts[value] for value in self._hashes}

    @property
    def exact(self) -> bool:
        """Whether every value is kept."""
        return self.level == 0

    @property
    def distinct(self) -> int:
        """The number of different values; an estimate (relative error about 1 %) where not exact."""
        return len(self.counts) << self.level

    @property
    def repeated(self) -> int:
        """Rows beyond the first of each value; an estimate where not exact."""
        return sum(number - 1 for number in self.counts.values()) << self.level


def mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Spread 64-bit values over all bits (the finaliser of splitmix64), element by element."""
    with np.errstate(over="ignore"):
        values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed_values: NDArray[np.uint64] = values ^ (values >> np.uint64(31))
    return mixed_values

"""What carries the elements of a sum from sites to the server: in the clear as words, or as ciphertexts."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from wardround.channels.exchange import Talk
from wardround.encoding.field import Field
from wardround.errors import MessageError
from wardround.types import Arrays, Request, StageMethod

Elements = NDArray[np.uint64]
"""Elements of a ring, [n], each below its modulus."""


class Accumulator(Protocol):
    """A running sum at the server."""

    def add(self, arrays: Arrays) -> None:
        """Add one site's message. Raises MessageError where it is not one of this length and form; the sum is then unchanged."""
        ...


class Carrier(Protocol):
    """The server's side. `modulus` is that of the ring in which elements add up."""

    modulus: int

    def per_element(self, field: Field) -> int:
        """Digits that one element holds, 1 or more. Raises ConfigError where not even one fits."""
        ...

    def setup(self, talk: Talk, sites: Sequence[str]) -> None:
        """What must be agreed among sites before they contribute (a key, say)."""
        ...

    def accumulator(self, length: int) -> Accumulator:
        """An empty sum of `length` elements."""
        ...

    def open(
        self,
        talk: Talk,
        sums: Mapping[int, Accumulator],
        members: Mapping[int, Sequence[str]],
        abstained: Collection[str] = (),
    ) -> Mapping[int, Elements]:
        """The elements of each group's sum, [length], reduced below `modulus`.

        Args:
            talk: the exchange; a carrier that the server cannot open asks the sites.
            sums: group -> its sum.
            members: group -> the sites whose messages were added.
            abstained: those of them who said that theirs is nothing.

        Raises:
            QuorumLost: nobody opened it.
        """
        ...


class SiteCarrier(Protocol):
    """The sites' side."""

    def seal(self, site: str, elements: Elements, request: Request, asked: bytes, *, abstained: bool = False) -> Arrays:
        """What a site sends for its elements.

        Args:
            site: whose.
            elements: below the modulus.
            request: the server's.
            asked: `asked_of` its message, as this site read it.
            abstained: whether the elements are nothing, which is then said in a way that the server cannot change.

        Raises:
            MessageError: it lacks a key.
        """
        ...

    def stages(self) -> Mapping[str, StageMethod]:
        """Further stages, by name."""
        ...


@runtime_checkable
class Bounded(Protocol):
    """A channel that cannot sum any number of sites."""

    def check(self, sites: int) -> None:
        """Raises Refused or ConfigError where a round may not ask so many."""
        ...


WORD = 64
_NAME = "words"


class Words:
    """The ring of integers modulo 2^64, sent as they are: what masks hide."""

    modulus = 2**WORD

    def per_element(self, field: Field) -> int:
        """As many digits as fit."""
        return field.per(WORD)

    def setup(self, talk: Talk, sites: Sequence[str]) -> None:
        """Nothing to agree on."""

    def accumulator(self, length: int) -> WordSum:
        """An empty sum."""
        return WordSum(length)

    def open(
        self,
        talk: Talk,
        sums: Mapping[int, Accumulator],
        members: Mapping[int, Sequence[str]],
        abstained: Collection[str] = (),
    ) -> Mapping[int, Elements]:
        """The words lie open."""
        return {group: total.words for group, total in sums.items() if isinstance(total, WordSum)}


class WordSum:
    """A sum of words."""

    def __init__(self, length: int) -> None:
        self.words: Elements = np.zeros(length, dtype=np.uint64)

    def add(self, arrays: Arrays) -> None:
        """See `Accumulator.add`."""
        self.words += words_from(arrays, len(self.words))


class SiteWords:
    """The site's side of `Words`."""

    def seal(self, site: str, elements: Elements, request: Request, asked: bytes, *, abstained: bool = False) -> Arrays:
        """The elements themselves."""
        return {_NAME: torch.from_numpy(elements.view(np.int64))}

    def stages(self) -> Mapping[str, StageMethod]:
        """None."""
        return {}


def words_from(arrays: Arrays, length: int) -> Elements:
    """The words of a message. Raises MessageError where they are of another form."""
    value = arrays.get(_NAME)
    if value is None or value.dtype != torch.int64 or tuple(value.shape) != (length,):
        found = "none" if value is None else f"{value.dtype} {list(value.shape)}"
        raise MessageError(f"array 'words' is {found}, expected torch.int64 [{length}]")
    return value.numpy().view(np.uint64)

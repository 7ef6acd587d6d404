"""The server's side of homomorphic encryption: it routes sealed keys, adds ciphertexts, and asks a site to open the sum.

Nothing here can decrypt: neither this module nor what it imports makes a key.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from wardround.channels.carrier import Accumulator
from wardround.channels.exchange import Talk
from wardround.channels.he.parameters import Parameters, choose
from wardround.channels.he.ring import Ring, ring_of
from wardround.channels.he.stages import (
    ABSTAINED,
    ASKED,
    BOX,
    DEFAULT_SITES,
    ELEMENTS,
    GROUP,
    KEYS,
    LEAST_MEMBERS,
    MAKE,
    REVEAL,
    TAKE,
)
from wardround.encoding.field import Field
from wardround.errors import ConfigError, IdentityError, MessageError, QuorumLost, Refused
from wardround.types import Arrays, Json, Reply

_TRIES = 3


class BfvCarrier:
    """Carries elements as BFV ciphertexts.

    Args:
        bits: of one site's digit.
        sites: the most sites of a sum.
        parameters: a parameter set of the user's, or None for the shortest that holds these digits.
        minimum: the fewest sites of a sum that is opened, 3 or more; the sites insist on theirs.

    Raises:
        ConfigError: the set is below 128 bits of security, or does not hold the digits; tenseal is not installed.
    """

    def __init__(
        self,
        *,
        bits: int,
        sites: int = DEFAULT_SITES,
        parameters: Parameters | None = None,
        minimum: int = LEAST_MEMBERS,
    ) -> None:
        self._field = Field(bits=bits, sites=sites)
        self.parameters = parameters or choose(self._field)
        self.ring: Ring = ring_of(self.parameters)
        self.modulus = self.ring.modulus
        self._minimum = minimum
        self._roster: tuple[str, ...] = ()
        self._key = ""
        self._sure: set[str] = set()
        self._unproved: set[str] = set()
        self.per_element(self._field)

    def per_element(self, field: Field) -> int:
        """Digits that a slot holds.

        Raises:
            ConfigError: none fits, or `field` sums more sites than this carrier is made for.
        """
        if field.sites > self._field.sites:
            raise ConfigError(
                f"a sum over {field.sites} sites, and this encryption is made for {self._field.sites}: tell it how many there "
                "are (sites)"
            )
        return field.per(self.parameters.payload)

    def setup(self, talk: Talk, sites: Sequence[str]) -> None:
        """See that each of `sites` holds the key of this roster: nothing is sent where all are known to.

        A site is asked again if the last exchange that wanted it ended without its message in a sum: it may have lost the key.

        Raises:
            IdentityError: a site found another's signature false.
        """
        roster = tuple(talk.engine.sites)
        if roster != self._roster:
            self._roster, self._key, self._sure, self._unproved = roster, "", set(), set()
        self._sure -= self._unproved
        self._unproved = set(sites)
        for _ in range(_TRIES):
            asked = [site for site in sites if site not in self._sure]
            if not asked or self._distributed(talk, asked):
                return

    def _distributed(self, talk: Talk, asked: Sequence[str]) -> bool:
        """One pass over the three stages; False where another is needed: a key got lost, or sites hold different ones."""
        meta = {**self._about(), "key": self._key}
        answers = {reply.sites[0]: reply.message.meta for reply in talk.ask(KEYS, asked, meta=meta) if _single(reply)}
        held = Counter(str(said.get("holds") or "") for said in answers.values())
        del held[""]
        if not self._key and held:
            self._key = held.most_common(1)[0][0]
        holders = {site for site, said in answers.items() if said.get("holds")}
        alike = {site for site in holders if answers[site]["holds"] == self._key}
        self._sure |= alike
        adverts: dict[str, Json] = {site: said["advert"] for site, said in answers.items() if said.get("advert")}
        if not adverts:
            return holders == alike
        makers = [site for site in self._roster if site in self._sure] if self._key else list(adverts)
        for maker in makers:
            others = {site: advert for site, advert in adverts.items() if site != maker}
            meta = {**self._about(), "key": self._key, "adverts": others}
            for reply in talk.ask(MAKE, [maker], meta=meta):
                made = reply.message.meta
                if made.get("key"):
                    self._hand_out(talk, maker, str(made["key"]), made.get("boxes"))
                    return holders == alike
                self._sure.discard(maker)
        self._key, self._sure = "", set()
        return False

    def _hand_out(self, talk: Talk, maker: str, key: str, boxes: Json) -> None:
        self._key = key
        self._sure.add(maker)
        if not isinstance(boxes, dict) or not boxes:
            return
        meta = {**self._about(), "maker": maker}
        for reply in talk.ask(TAKE, [site for site in self._roster if site in boxes], meta=meta, facts={BOX: boxes}):
            if _single(reply) and reply.message.meta.get("key") == key:
                self._sure.add(reply.sites[0])

    def _about(self) -> dict[str, Json]:
        return {GROUP: {"sites": list(self._roster), "parameters": self.parameters.to_json()}}

    def accumulator(self, length: int) -> CipherSum:
        """An empty sum."""
        return CipherSum(self.ring, length)

    def open(
        self,
        talk: Talk,
        sums: Mapping[int, Accumulator],
        members: Mapping[int, Sequence[str]],
        abstained: Collection[str] = (),
    ) -> Mapping[int, NDArray[np.uint64]]:
        """Ask one member after the other, in canonical order, until one opens a group's sum.

        Raises:
            QuorumLost: nobody did; why is in the message.
        """
        opened = {}
        for group, total in sums.items():
            if isinstance(total, CipherSum):
                opened[group] = self._opened(talk, total, tuple(members[group]), abstained)
                self._unproved -= set(members[group])
        return opened

    def _opened(
        self, talk: Talk, total: CipherSum, members: tuple[str, ...], abstained: Collection[str]
    ) -> NDArray[np.uint64]:
        if len(members) < self._minimum:
            raise QuorumLost(
                f"{len(members)} sites are in an encrypted sum ({', '.join(members)}), and no site opens one of fewer than "
                f"{self._minimum}: bring sites back"
            )
        idle = [site for site in members if site in abstained]
        said = {"members": list(members), "length": total.length, ASKED: talk.asked.hex(), ABSTAINED: idle}
        meta, arrays = {**self._about(), **said}, total.message()
        reasons: dict[str, str] = {}
        for site in members:
            reasons[site] = "no reply"
            try:
                for reply in talk.ask(REVEAL, [site], meta=meta, arrays=arrays):
                    return self._elements(reply, total.length)
            except (MessageError, Refused, IdentityError) as error:
                reasons[site] = str(error)
        named = "; ".join(f"{site}: {why}" for site, why in list(reasons.items())[:5])
        raise QuorumLost(f"no site opened the encrypted sum of {len(members)} sites: {named}")

    def _elements(self, reply: Reply, length: int) -> NDArray[np.uint64]:
        value = reply.message.arrays.get(ELEMENTS)
        if value is None or value.dtype != torch.int64 or tuple(value.shape) != (length,):
            raise MessageError(f"the opened sum is not torch.int64 [{length}]")
        elements = value.numpy().view(np.uint64)
        if length and int(elements.max()) >= self.modulus:
            raise MessageError(f"the opened sum holds {int(elements.max())}, expected less than {self.modulus}")
        return elements


class CipherSum:
    """A running sum of ciphertexts: two polynomials each, in memory.

    Args:
        ring: of the ciphertexts.
        length: elements.
    """

    def __init__(self, ring: Ring, length: int) -> None:
        self.length = length
        self._ring = ring
        self._sums: list[Any] | None = None

    def add(self, arrays: Arrays) -> None:
        """Add one site's message, a ciphertext at a time.

        Raises:
            MessageError: it is cut off, malformed, or of other parameters. The sum is what it was.
        """
        parts = self._ring.read(arrays, self.length)
        if self._sums is None:
            self._sums = list(parts)
            return
        done = 0
        try:
            for part in parts:
                self._sums[done] = self._ring.plus(self._sums[done], part)
                done += 1
        except MessageError:
            # residues add and subtract exactly, so taking away what was added gives the bits from before
            for index, part in zip(range(done), self._ring.read(arrays, self.length), strict=False):
                self._sums[index] = self._ring.minus(self._sums[index], part)
            raise

    def message(self) -> Arrays:
        """The sum as arrays."""
        sums = self._sums or []
        return self._ring.write(sums, len(sums), fresh=False)


def _single(reply: Reply) -> bool:
    return len(reply.sites) == 1

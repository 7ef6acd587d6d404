"""The sites' side of homomorphic encryption: they seal, and one of them opens a sum whose members it can check."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from wardround.channels.exchange import answer, exchange_of
from wardround.channels.he import bfv
from wardround.channels.he.keys import Group, Keys
from wardround.channels.he.openings import Openings
from wardround.channels.he.parameters import Parameters, choose
from wardround.channels.he.ring import ring_of
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
from wardround.channels.he.tags import SumOfTags, Tags
from wardround.channels.home import Home
from wardround.channels.secagg.primitives import SIZE
from wardround.encoding.field import Field
from wardround.errors import ConfigError, IdentityError, MessageError, Refused
from wardround.types import Arrays, Json, Reply, Request, StageMethod


class SiteBfv:
    """Seals with the group's key, and opens sums with it.

    Args:
        home: the sites of this process.
        bits: of one site's digit.
        sites: the most sites of a sum.
        parameters: a set of the user's, or None for the one that the server chooses as well.
        minimum: the fewest sites of a sum that is opened, 3 or more.

    Raises:
        ConfigError: the known-answer test of the set fails, or it is below 128 bits of security; tenseal is not installed.
    """

    def __init__(
        self, home: Home, *, bits: int, sites: int = DEFAULT_SITES, parameters: Parameters | None = None,
        minimum: int = LEAST_MEMBERS,
    ) -> None:  # fmt: skip
        if minimum < LEAST_MEMBERS:
            raise ConfigError(
                f"a sum of {minimum} sites: expected {LEAST_MEMBERS} or more, or one site knows another's part"
            )
        field = Field(bits=bits, sites=sites)
        self._home, self._most, self._minimum = home, sites, minimum
        self._parameters = parameters or choose(field)
        bfv.check(self._parameters, field)
        self._ring = ring_of(self._parameters)
        self._keys = Keys(home, self._parameters)
        self._openings = Openings(home.folder)

    def stages(self) -> Mapping[str, StageMethod]:
        """Three for the key, one for the sum."""
        return {KEYS: self._advertise, MAKE: self._make, TAKE: self._take, REVEAL: self._reveal}

    def seal(
        self, site: str, elements: NDArray[np.uint64], request: Request, asked: bytes, *, abstained: bool = False
    ) -> Arrays:
        """The elements as seeded ciphertexts, tagged for this site, exchange and question; see `SiteCarrier.seal`.

        Raises:
            MessageError: the site holds no key of this run, or an element is not below the modulus.
        """
        exchange = exchange_of(request.message)
        key = self._keys.of(site, exchange.run)
        if len(elements) and int(elements.max()) >= self._ring.modulus:
            raise MessageError(
                f"an element is {int(elements.max())}, expected less than the modulus {self._ring.modulus}"
            )
        tags = Tags(key.tags, exchange.bound(asked), site, self._ring.modulus, abstained=abstained)
        return key.cipher.encrypt(elements, tags)

    def _advertise(self, sites: tuple[str, ...], request: Request) -> Iterator[Reply]:
        exchange = exchange_of(request.message)
        for site in sites:
            group = self._group(site, request)
            held = self._keys.held(site, group)
            wanted = request.message.meta.get("key")
            if held is None or (wanted and held.id != wanted):
                yield Reply(sites=(site,), message=answer(request, advert=self._keys.advertise(site, group, exchange)))
            else:
                yield Reply(sites=(site,), message=answer(request, holds=held.id))

    def _make(self, sites: tuple[str, ...], request: Request) -> Iterator[Reply]:
        exchange, meta = exchange_of(request.message), request.message.meta
        for site in sites:
            group = self._group(site, request)
            held = self._keys.held(site, group)
            wanted = meta.get("key")
            if wanted and (held is None or held.id != wanted):
                yield Reply(sites=(site,), message=answer(request, key=""))
                continue
            key, boxes = self._keys.make(site, group, exchange, meta.get("adverts"))
            yield Reply(sites=(site,), message=answer(request, key=key, boxes=boxes))

    def _take(self, sites: tuple[str, ...], request: Request) -> Iterator[Reply]:
        exchange = exchange_of(request.message)
        for site in sites:
            group = self._group(site, request)
            box = request.for_site(site).get(BOX)
            key = self._keys.take(site, group, exchange, request.message.meta.get("maker"), box)
            yield Reply(sites=(site,), message=answer(request, key=key))

    def _reveal(self, sites: tuple[str, ...], request: Request) -> Iterator[Reply]:
        exchange, message = exchange_of(request.message), request.message
        for site in sites:
            key = self._keys.of(site, exchange.run)
            members = self._members(key.group, message.meta.get("members"))
            idle = self._idle(members, message.meta.get(ABSTAINED))
            label = exchange.bound(_asked(message.meta.get(ASKED)))
            length = message.meta.get("length")
            if type(length) is not int or length < 0:
                raise MessageError(f"a sum of {length!r} elements: expected a whole number of them")
            self._openings.check(site, exchange, members, message.arrays)
            expected = SumOfTags(key.tags, label, members, self._ring.modulus, idle)
            elements = key.cipher.open(message.arrays, length, expected, len(members))
            self._openings.note(site, exchange, members, message.arrays)
            arrays = {ELEMENTS: torch.from_numpy(elements.view(np.int64))}
            yield Reply(sites=(site,), message=answer(request, arrays))

    def _members(self, group: Group, given: Json) -> tuple[str, ...]:
        if (
            not isinstance(given, list)
            or not all(isinstance(name, str) for name in given)
            or len(set(given)) != len(given)
        ):
            raise MessageError("the members of a sum are not a list of different names")
        strangers = sorted(set(given) - set(group.sites))
        if strangers:
            raise Refused(f"a sum claims {', '.join(strangers[:5])}, which the group's key was not made for")
        if not self._minimum <= len(given) <= self._most:
            raise Refused(
                f"a sum of {len(given)} sites is not opened, expected {self._minimum} to {self._most}: of fewer, a site could "
                "tell another's part, and of more, digits would run over"
            )
        return tuple(given)

    def _idle(self, members: tuple[str, ...], given: Json) -> frozenset[str]:
        """Members whose part is nothing. The server says who; the tags say whether it is true."""
        if not isinstance(given, list) or not all(isinstance(name, str) for name in given):
            raise MessageError("who of a sum abstained is not a list of names")
        gave = len(set(members) - set(given))
        if gave < self._minimum:
            raise Refused(
                f"{gave} of the {len(members)} sites of a sum gave something, and one is opened where {self._minimum} did"
            )
        return frozenset(given)

    def _group(self, site: str, request: Request) -> Group:
        """The group that a request names, as far as this site can check it: its own name, pins, the parameter set."""
        given = request.message.meta.get(GROUP)
        if (
            not isinstance(given, dict)
            or given.keys() != {"sites", "parameters"}
            or not isinstance(given["sites"], list)
        ):
            raise MessageError("a request for keys names no group: server and site differ in their channel or version")
        if given["parameters"] != self._parameters.to_json():
            raise MessageError(
                f"the server announces BFV parameters {given['parameters']!r}, and this site's job gives "
                f"{self._parameters.to_json()!r}"
            )
        names = given["sites"]
        if not all(isinstance(name, str) for name in names) or len(set(names)) != len(names) or site not in names:
            raise MessageError(f"the group's sites are no list of different names with '{site}' among them")
        if len(names) < self._minimum:
            raise Refused(f"a group of {len(names)} sites: expected {self._minimum} or more")
        unknown = [name for name in names if name not in self._home.pins]
        if unknown:
            raise IdentityError(
                f"the group names {', '.join(unknown[:5])}, whose public key is not pinned at '{site}': pin it, or leave the "
                "site out"
            )
        run = exchange_of(request.message).run
        return Group(run=run, sites=tuple(names), parameters=self._parameters)


def _asked(given: Json) -> bytes:
    try:
        found = bytes.fromhex(given) if isinstance(given, str) else b""
    except ValueError:
        found = b""
    if len(found) != SIZE:
        raise MessageError(
            "a request to open a sum does not say what its members were asked: expected 64 hexadecimal digits"
        )
    return found

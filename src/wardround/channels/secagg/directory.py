"""The signed keys of those who take part in an exchange, and what follows from them: groups, neighbours, thresholds.

A site advertises keys for one use. The server gathers advertisements in a directory; every site checks it against its own
pins and its own parameters, and everything that is agreed afterwards is bound to the directory's digest.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

from wardround.channels.secagg.graph import groups_of, neighbours_of
from wardround.channels.secagg.primitives import SIGNATURE, SIZE, canonical, digest, sign, signed_by
from wardround.channels.secagg.spec import MaskSpec, Rule, rule_of
from wardround.errors import ConfigError, MessageError
from wardround.types import Json

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

KEY = "masks"
"""Key, in a message's meta, of what the masks say."""
SERIAL = 16
"""Hexadecimal digits of a serial number, all of them written, so that messages do not grow with it."""


@dataclass(frozen=True, kw_only=True)
class Advert:
    """What a site advertises.

    Attributes:
        site, serial: whose keys, and the how many-th that it ever made; a key is for one use.
        share: X25519 public key for the boxes in which shares travel.
        mask: X25519 public key of the pairwise masks.
        seal: `seed_seal` of the seed of its own mask.
        signature: of the site's identity over all of this and the run.
    """

    site: str
    serial: int
    share: bytes
    mask: bytes
    seal: bytes
    signature: bytes

    @classmethod
    def signed(
        cls, identity: Ed25519PrivateKey, run: str, *, site: str, serial: int, share: bytes, mask: bytes, seal: bytes
    ) -> Advert:
        """An advertisement for `run`."""
        bare = cls(site=site, serial=serial, share=share, mask=mask, seal=seal, signature=b"")
        return cls(
            site=site, serial=serial, share=share, mask=mask, seal=seal, signature=sign(identity, bare._content(run))
        )

    def by(self, public: bytes, run: str) -> bool:
        """Whether the identity with this raw public key signed it for `run`."""
        return signed_by(public, self.signature, self._content(run))

    def to_json(self) -> list[Json]:
        """As JSON."""
        keys = (self.share, self.mask, self.seal, self.signature)
        return [self.site, f"{self.serial:0{SERIAL}x}", *(encoded(key) for key in keys)]

    @classmethod
    def from_json(cls, given: Json) -> Advert:
        """Raises MessageError for anything that `to_json` does not give."""
        if not isinstance(given, list) or len(given) != 6 or not all(isinstance(part, str) for part in given):
            raise MessageError(
                "an advertisement of keys is not a list of 6 texts: site and server run different versions"
            )
        site, serial, share, mask, seal, signature = given
        if len(serial) != SERIAL or set(serial) - set("0123456789abcdef"):
            raise MessageError(
                f"the serial number of {site!r}'s keys is {serial!r}, expected {SERIAL} hexadecimal digits"
            )
        return cls(
            site=site,
            serial=int(serial, 16),
            share=decoded(share, SIZE),
            mask=decoded(mask, SIZE),
            seal=decoded(seal, SIZE),
            signature=decoded(signature, SIGNATURE),
        )

    def _content(self, run: str) -> bytes:
        parts = (run.encode(), self.site.encode(), self.serial.to_bytes(SERIAL // 2, "big"))
        return digest("advert", *parts, self.share, self.mask, self.seal)


@dataclass(frozen=True, kw_only=True)
class Directory:
    """The keys of an exchange.

    Attributes:
        run: of which run.
        label: of the exchange in which shares are sent under it: the one that it serves, or the one before.
        population: all sites of the run, sorted, where they are divided into groups; else ().
        divisions: into how many groups the run is divided.
        adverts: sorted by site.
        rules: group -> its rule, of the groups that `adverts` make.
    """

    run: str
    label: str
    population: tuple[str, ...]
    divisions: int
    adverts: tuple[Advert, ...]
    rules: Mapping[int, Rule]

    @cached_property
    def sites(self) -> tuple[str, ...]:
        """Sorted names."""
        return tuple(advert.site for advert in self.adverts)

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of all that it says."""
        return digest("directory", canonical(self.to_json()))

    @cached_property
    def by_site(self) -> Mapping[str, Advert]:
        """Site -> advertisement."""
        return {advert.site: advert for advert in self.adverts}

    @cached_property
    def place(self) -> Mapping[str, int]:
        """Site -> the number, from 1 on, at which it holds shares."""
        return {site: i + 1 for i, site in enumerate(self.sites)}

    @cached_property
    def group_of(self) -> Mapping[str, int]:
        """Site -> group."""
        if self.divisions == 1:
            return dict.fromkeys(self.sites, 0)
        drawn = groups_of(self.run, self.population, self.divisions)
        return {site: drawn[site] for site in self.sites}

    @cached_property
    def groups(self) -> Mapping[int, tuple[str, ...]]:
        """Group -> its sites, sorted."""
        found: dict[int, list[str]] = {}
        for site in self.sites:
            found.setdefault(self.group_of[site], []).append(site)
        return {group: tuple(names) for group, names in sorted(found.items())}

    @cached_property
    def neighbours(self) -> Mapping[str, tuple[str, ...]]:
        """Site -> with whom it shares masks and secrets, sorted."""
        found: dict[str, tuple[str, ...]] = {}
        for group, names in self.groups.items():
            found |= neighbours_of(names, self.rules[group].degree, self.digest)
        return found

    @cached_property
    def holders(self) -> Mapping[str, tuple[str, ...]]:
        """Site -> its closed neighbourhood: who holds shares of its secrets, itself included, sorted."""
        return {site: tuple(sorted((site, *others))) for site, others in self.neighbours.items()}

    def to_json(self) -> Json:
        """As JSON."""
        return {
            "run": self.run,
            "label": self.label,
            "population": list(self.population),
            "divisions": self.divisions,
            "adverts": [advert.to_json() for advert in self.adverts],
            "rules": [[g, r.degree, r.threshold, r.survivors] for g, r in sorted(self.rules.items())],
        }

    @classmethod
    def from_json(cls, given: Json) -> Directory:
        """Raises MessageError for anything that `to_json` does not give."""
        kinds = {"run": str, "label": str, "population": list, "divisions": int, "adverts": list, "rules": list}
        if not isinstance(given, dict) or {name: type(value) for name, value in given.items()} != kinds:
            raise MessageError(f"a directory of keys is not one: expected {sorted(kinds)}")
        rules = given["rules"]
        if not all(isinstance(r, list) and len(r) == 4 and all(type(n) is int for n in r) for r in rules):
            raise MessageError("the rules of a directory of keys are not lists of 4 numbers")
        if not all(isinstance(site, str) for site in given["population"]):
            raise MessageError("the population of a directory of keys is not a list of names")
        return cls(
            run=given["run"],
            label=given["label"],
            population=tuple(given["population"]),
            divisions=given["divisions"],
            adverts=tuple(Advert.from_json(advert) for advert in given["adverts"]),
            rules={g: Rule(degree=k, threshold=t, survivors=s) for g, k, t, s in rules},
        )

    def check(self, pins: Mapping[str, bytes], spec: MaskSpec) -> None:
        """Refuse a directory that this process cannot trust.

        Raises:
            MessageError: a name that is not pinned or whose signature fails, a group below the minimum, a rule other than the
                one that follows from `spec`.
        """
        _distinct(self.sites, "directory of keys")
        _distinct(self.population, "population")
        unknown = [site for site in (*self.sites, *self.population) if site not in pins]
        if unknown:
            raise MessageError(
                f"the directory of keys names {_some(unknown)}, to whose name no key is pinned here: pin one if it is to be "
                "trusted"
            )
        for advert in self.adverts:
            if not advert.by(pins[advert.site], self.run):
                raise MessageError(
                    f"the keys of {advert.site!r} are not signed by the identity that is pinned to its name: it has another "
                    "identity than was agreed, or somebody swapped its keys"
                )
        self._check_groups(spec)
        for group, names in self.groups.items():
            self._check_rule(group, len(names), spec)
        if self.rules.keys() != self.groups.keys():
            raise MessageError("the directory of keys has rules for groups without sites")

    def _check_groups(self, spec: MaskSpec) -> None:
        if self.divisions != spec.groups:
            raise MessageError(f"the server divides sites into {self.divisions} groups, and the job says {spec.groups}")
        if spec.groups == 1:
            if self.population:
                raise MessageError("the directory of keys has a population, and there is one group")
            return
        if len(self.population) // spec.groups < spec.minimum:
            raise MessageError(
                f"{len(self.population)} sites are divided into {spec.groups} groups: expected {spec.minimum} or more in each"
            )
        strangers = sorted(set(self.sites) - set(self.population))
        if strangers:
            raise MessageError(f"the directory of keys names {_some(strangers)}, not of the population")

    def _check_rule(self, group: int, size: int, spec: MaskSpec) -> None:
        if size < spec.minimum:
            raise MessageError(
                f"group {group} has {size} sites, expected at least {spec.minimum}: a smaller sum tells too much of each"
            )
        try:
            rule = rule_of(spec, size)
        except ConfigError as error:
            raise MessageError(str(error)) from error
        given = self.rules.get(group)
        if given is None:
            raise MessageError(f"the directory of keys has no rule for group {group}")
        if given != rule:
            raise MessageError(
                f"group {group} of {size} sites is to go by threshold {given.threshold}, {given.degree} neighbours, "
                f"{given.survivors} survivors, and the job says {rule.threshold}, {rule.degree}, {rule.survivors}"
            )


def encoded(data: bytes) -> str:
    """Bytes as text."""
    return base64.b64encode(data).decode()


def decoded(text: Json, size: int) -> bytes:
    """The bytes of a text. Raises MessageError where they are not `size` bytes."""
    try:
        data = base64.b64decode(text, validate=True) if isinstance(text, str) else b""
    except (binascii.Error, ValueError):
        data = b""
    if len(data) != size:
        raise MessageError(f"a key, share or signature is {str(text)[:80]!r}, expected {size} bytes in base64")
    return data


def names_from(given: Json, what: str) -> tuple[str, ...]:
    """A sorted list of distinct names. Raises MessageError for anything else."""
    if not isinstance(given, list) or not all(isinstance(name, str) for name in given):
        raise MessageError(f"the {what} are not a list of names")
    _distinct(given, what)
    return tuple(given)


def _distinct(names: Sequence[str], what: str) -> None:
    if any(one >= other for one, other in pairwise(names)):
        raise MessageError(f"the {what}: names are not sorted, or one is there twice")


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(repr(name) for name in names[:5]) + more

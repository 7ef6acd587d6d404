"""The server's half of the masks: it passes keys and sealed shares on, and takes off what is left on a sum.

Who sees what: the server sees public keys, boxes that it cannot open, masked elements that look random one by one, and of each
site one secret: the seed of its own mask where it survived, the key of its pairwise masks where it dropped. With one of
the two, what a site sent stays masked. Bonawitz et al. 2017 is the protocol, Bell et al. 2020 the ring for many sites.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wardround.channels.exchange import Talk
from wardround.channels.secagg.directory import KEY, Advert, Directory, decoded, encoded
from wardround.channels.secagg.graph import groups_of
from wardround.channels.secagg.opening import Opening, Shares, Unopened, boxes_from, shares_from
from wardround.channels.secagg.primitives import SIGNATURE
from wardround.channels.secagg.shamir import Joiner
from wardround.channels.secagg.site import CHECK, KEYS, REVEAL, SHARES
from wardround.channels.secagg.spec import MaskSpec, Rule, rule_of
from wardround.channels.secagg.streams import add_masks
from wardround.errors import ConfigError, MessageError, QuorumLost
from wardround.types import Arrays, Json, Message

__all__ = ["MaskServer", "MaskSpec", "Roster"]

_NAMED = 10
"""Reasons that an error lists."""


@dataclass(frozen=True, kw_only=True)
class Roster:
    """Who takes part in an exchange, and what rides on the request to contribute.

    Attributes:
        members: sites to ask, in the order in which they were given.
        groups: group -> its members, in that order.
        meta, arrays, facts: for the request.
        directory: the members' keys; None without masks.
    """

    members: tuple[str, ...]
    groups: Mapping[int, tuple[str, ...]]
    meta: dict[str, Json]
    arrays: Arrays
    facts: dict[str, dict[str, Json]]
    directory: Directory | None = None


@dataclass(frozen=True, kw_only=True)
class _Ready:
    """Keys and boxes for an exchange: sender -> recipient -> box."""

    directory: Directory
    boxes: Mapping[str, Mapping[str, bytes]]


class MaskServer:
    """The server's half.

    Args:
        spec: how masks are agreed on.
        pins: site -> raw public key, where the server knows them: a site with another identity is then left out, instead of
            being refused by all the others.

    Attributes:
        faults: site -> why it is not in the sums of the last exchange, or which of its answers was wrong.
    """

    def __init__(self, spec: MaskSpec, pins: Mapping[str, bytes] | None = None) -> None:
        self.spec = spec
        self.faults: dict[str, str] = {}
        self._pins = pins
        self._ready: _Ready | None = None
        self._asked: tuple[str, ...] = ()
        self._heard: dict[str, Advert] = {}

    def begin(self, talk: Talk, sites: Sequence[str], quorum: int) -> Roster:
        """Keys and shares of an exchange: those that came with the exchange before, or else two stages of their own.

        Raises:
            ConfigError: no rule fits so many sites.
            QuorumLost: fewer than `quorum` sites take part, or no group has enough.
        """
        ready, self._ready = self._ready, None
        self.faults, self._heard, self._asked = {}, {}, tuple(sites)
        self.spec.check(len(sites if self.spec.groups == 1 else talk.engine.sites))
        if ready is None or ready.directory.run != talk.exchange.run or ready.boxes.keys() != set(sites):
            ready = self._agreed(talk, sites)
        roster = self._roster(ready, sites)
        if len(roster.members) < quorum or not roster.groups:
            raise self._lost(f"{len(roster.members)} of {len(sites)} sites agreed on masks, and {quorum} are needed")
        return roster

    def heard(self, talk: Talk, site: str, message: Message) -> None:
        """Take the keys for the next exchange from a contribution; what is malformed is noted, and the next one begins anew."""
        try:
            self._heard[site] = self._advert(talk, site, _said(message).get("next"))
        except MessageError as error:
            self.faults[site] = f"its keys for the next exchange: {error}"

    def net(
        self, talk: Talk, roster: Roster, came: Sequence[str], length: int, modulus: int
    ) -> dict[int, NDArray[np.uint64]]:
        """What is left of the masks on each group's sum.

        Args:
            talk: the exchange, with what was asked in it.
            roster: as `begin` gave it.
            came: the sites whose masked elements are in the sums; no message of any other may be.
            length: elements of each.
            modulus: of their ring.

        Returns:
            group -> uint64 [length], to be subtracted from the sum of the group's sites in `came`. A group that lost too many
            is not there; `faults` says so of its sites.

        Raises:
            QuorumLost: no group is left. Where the reason is that too few survived, nothing was asked of them.
        """
        directory = roster.directory
        if directory is None:
            raise ValueError("a roster without keys: it was not made by MaskServer.begin")
        survivors = self._survivors(roster, directory, came)
        signatures = self._signatures(talk, directory, survivors) if self.spec.active else {}
        shares = self._shares(talk, roster, directory, survivors, signatures)
        joiner, found = Joiner(), {}
        for group, names in survivors.items():
            opening = Opening(
                directory=directory, label=talk.bound(), members=sorted(roster.groups[group]), survivors=names,
                shares=shares, joiner=joiner,
            )  # fmt: skip
            try:
                masks = opening.masks()
            except Unopened as why:
                self._leave_out(group, names, str(why))
                continue
            found[group] = np.zeros(length, dtype=np.uint64)
            add_masks(found[group], masks, modulus)
        self.faults |= {directory.sites[place - 1]: "it revealed shares that it had altered" for place in joiner.liars}
        if not found:
            raise self._lost("the masks of no group could be taken off")
        return found

    # ------------------------------------------------------------------------------------------------ agreeing

    def _agreed(self, talk: Talk, sites: Sequence[str]) -> _Ready:
        adverts: dict[str, Advert] = {}
        for site, message in self._answers(talk, KEYS, sites):
            try:
                adverts[site] = self._advert(talk, site, _said(message).get("advert"))
            except MessageError as error:
                self.faults[site] = str(error)
        directory = self._directory(talk, adverts)
        boxes: dict[str, Mapping[str, bytes]] = {}
        asked = [site for site in sites if site in directory.by_site]
        for site, message in self._answers(talk, SHARES, asked, {"directory": directory.to_json()}) if asked else ():
            try:
                boxes[site] = boxes_from(directory, site, message.arrays)
            except MessageError as error:
                self.faults[site] = str(error)
        return _Ready(directory=directory, boxes=boxes)

    def _advert(self, talk: Talk, site: str, given: Json) -> Advert:
        advert = Advert.from_json(given)
        if advert.site != site:
            raise MessageError(f"it advertised the keys of {advert.site!r}")
        if self._pins is not None and not (site in self._pins and advert.by(self._pins[site], talk.exchange.run)):
            raise MessageError("its keys are not signed by the identity that is pinned to its name")
        return advert

    def _directory(self, talk: Talk, adverts: Mapping[str, Advert]) -> Directory:
        """Of the groups that have enough sites; those of the others are noted."""
        population = tuple(sorted(talk.engine.sites)) if self.spec.groups > 1 else ()
        group_of = dict.fromkeys(adverts, 0)
        if population:
            group_of = groups_of(talk.exchange.run, population, self.spec.groups)
        kept: list[str] = []
        rules: dict[int, Rule] = {}
        for group in range(self.spec.groups):
            members = [site for site in adverts if group_of[site] == group]
            try:
                rules[group] = rule_of(self.spec, len(members))
                kept += members
            except ConfigError as error:
                self._leave_out(group, members, str(error))
        return Directory(
            run=talk.exchange.run,
            label=talk.exchange.label().decode(),
            population=population,
            divisions=self.spec.groups,
            adverts=tuple(adverts[site] for site in sorted(kept)),
            rules=rules,
        )

    def _roster(self, ready: _Ready, sites: Sequence[str]) -> Roster:
        directory = ready.directory
        groups: dict[int, tuple[str, ...]] = {}
        for group, names in directory.groups.items():
            members = tuple(site for site in sites if site in ready.boxes and directory.group_of.get(site) == group)
            if len(members) >= directory.rules[group].survivors:
                groups[group] = members
            else:
                self._leave_out(group, names, f"{len(members)} of its {len(names)} sites sent shares")
        there = {site for members in groups.values() for site in members}
        said = {
            "directory": directory.digest.hex(),
            "members": {str(group): sorted(members) for group, members in groups.items()},
        }
        boxes = {
            site: encoded(b"".join(ready.boxes[other][site] for other in directory.neighbours[site] if other in there))
            for site in sites
            if site in there
        }
        return Roster(
            members=tuple(site for site in sites if site in there), groups=groups, meta={KEY: said}, arrays={},
            facts={KEY: boxes}, directory=directory,
        )  # fmt: skip

    # ------------------------------------------------------------------------------------------------ taking off

    def _survivors(self, roster: Roster, directory: Directory, came: Sequence[str]) -> dict[int, tuple[str, ...]]:
        """Group -> its sites in the sum, sorted, of the groups that may be opened."""
        here, found = set(came), {}
        for group, members in roster.groups.items():
            left, least = tuple(sorted(here & set(members))), directory.rules[group].survivors
            if len(left) >= least:
                found[group] = left
            else:
                self._leave_out(
                    group, members, f"{len(left)} of its {len(members)} sites are in the sum, and {least} must be"
                )
        return found

    def _signatures(
        self, talk: Talk, directory: Directory, survivors: dict[int, tuple[str, ...]]
    ) -> dict[int, dict[str, str]]:
        """What survivors sign; groups where too few do are taken out of `survivors`."""
        asked = [site for names in survivors.values() for site in names]
        said: dict[str, str] = {}
        named = {"survivors": _by_group(survivors)}
        for site, message in self._answers(talk, CHECK, asked, named) if asked else ():
            try:
                said[site] = encoded(decoded(_said(message).get("signature"), SIGNATURE))
            except MessageError as error:
                self.faults[site] = str(error)
        found: dict[int, dict[str, str]] = {}
        for group, names in list(survivors.items()):
            found[group] = {site: said[site] for site in names if site in said}
            least = directory.rules[group].threshold
            if len(found[group]) < least:
                del survivors[group]
                self._leave_out(group, names, f"{len(found.pop(group))} sites signed who survived, and {least} must")
        return found

    def _shares(
        self, talk: Talk, roster: Roster, directory: Directory, survivors: Mapping[int, tuple[str, ...]],
        signatures: Mapping[int, Mapping[str, str]],
    ) -> Shares:  # fmt: skip
        """Whose secret -> holder -> share, and boxes for the next exchange where all asked sites can take part in it."""
        asked = [site for names in survivors.values() for site in names]
        following = self._directory(talk, self._heard) if self._heard.keys() == set(self._asked) == set(asked) else None
        said: dict[str, Json] = {"survivors": _by_group(survivors), "signatures": _by_group(signatures)}
        if following is not None:
            said["next"] = following.to_json()
        found: dict[str, dict[str, int]] = {}
        boxes: dict[str, Mapping[str, bytes]] = {}
        members = {site for names in roster.groups.values() for site in names}
        for site, message in self._answers(talk, REVEAL, asked, said) if asked else ():
            try:
                owners = [owner for owner in directory.holders[site] if owner in members]
                for owner, share in shares_from(owners, message.arrays).items():
                    found.setdefault(owner, {})[site] = share
                if following is not None:
                    boxes[site] = boxes_from(following, site, message.arrays)
            except MessageError as error:
                self.faults[site] = str(_said(message).get("refused", error))
        self._ready = None if following is None else _Ready(directory=following, boxes=boxes)
        return found

    # ------------------------------------------------------------------------------------------------ talking

    def _answers(
        self, talk: Talk, stage: str, sites: Sequence[str], said: Mapping[str, Json] | None = None
    ) -> Iterator[tuple[str, Message]]:
        """Each site's answer; one that refuses is noted, with its reason."""
        for reply in talk.ask(stage, sites, meta={} if said is None else {KEY: dict(said)}):
            if len(reply.sites) != 1:
                self.faults |= dict.fromkeys(reply.sites, f"its answer in stage '{stage}' is not of one site")
                continue
            site, refused = reply.sites[0], _said(reply.message).get("refused")
            if refused is not None and not reply.message.arrays:
                self.faults[site] = f"it refused stage '{stage}': {str(refused)[:500]}"
                continue
            yield site, reply.message

    def _leave_out(self, group: int, sites: Sequence[str], why: str) -> None:
        reason = f"group {group} is left out: {why}" if self.spec.groups > 1 else why
        self.faults |= {site: reason for site in sites if site not in self.faults}

    def _lost(self, what: str) -> QuorumLost:
        named = "".join(f"; {site}: {why}" for site, why in list(self.faults.items())[:_NAMED])
        silent = [site for site in self._asked if site not in self.faults]
        return QuorumLost(f"{what}{named}: bring sites back{f' ({len(silent)} gave no reason)' if silent else ''}")


def _said(message: Message) -> Mapping[str, Json]:
    given = message.meta.get(KEY, {})
    return given if isinstance(given, dict) else {}


def _by_group(given: Mapping[int, Sequence[str] | Mapping[str, str]]) -> dict[str, Json]:
    return {str(g): dict(value) if isinstance(value, Mapping) else list(value) for g, value in given.items()}

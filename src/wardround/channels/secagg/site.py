"""The sites' half of the masks.

A site does what the server asks only as long as its own rules hold, and says no more than the reason where they do not: it
trusts its pins and its job, not the server. What it keeps: `wardround.channels.secagg.state`.

    mask-keys     advertise keys for one use
    mask-shares   check everybody's, and send shares of the secrets to neighbours, sealed
    (contribute)  open the shares of others; mask; keys for the next exchange ride along
    mask-check    (active) sign who survived
    mask-reveal   for each neighbour one half: of the mask key where it dropped, of the seed where it survived;
                  shares for the next exchange ride along
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from wardround.channels.exchange import Exchange, answer, exchange_of
from wardround.channels.home import Home
from wardround.channels.secagg import shamir
from wardround.channels.secagg.directory import KEY, Directory, decoded, encoded, names_from
from wardround.channels.secagg.keys import box_about, box_key, pair_key, self_key, survivors_content
from wardround.channels.secagg.primitives import (
    SIGNATURE,
    TAG,
    Agreement,
    canonical,
    close_box,
    digest,
    open_box,
    sign,
    signed_by,
)
from wardround.channels.secagg.shamir import SHARE
from wardround.channels.secagg.spec import MaskSpec
from wardround.channels.secagg.state import ChannelState, Halves, Keys, Upload
from wardround.channels.secagg.streams import add_masks
from wardround.errors import MessageError
from wardround.store import atomic
from wardround.types import Arrays, Json, Message, Reply, Request, StageMethod

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

KEYS, SHARES, CHECK, REVEAL = "mask-keys", "mask-shares", "mask-check", "mask-reveal"
BOX = 2 * SHARE + TAG
"""Bytes of a sealed pair of shares."""

Observer = Callable[[str, bytes, int], None]
"""Told of each stream that a site is about to draw: site, key, number of elements."""


class MaskSite:
    """The sites of one process.

    Args:
        home: their identities, whom they trust, where their state is kept.
        spec: how masks are agreed on; from the job, never from the server.
        observe: for tests.
    """

    def __init__(self, home: Home, spec: MaskSpec, observe: Observer | None = None) -> None:
        self._home, self._spec, self._observe = home, spec, observe
        self._states: dict[str, ChannelState] = {}
        if home.folder is not None:
            atomic.sweep(home.folder)

    def stages(self) -> Mapping[str, StageMethod]:
        """The stages beside `contribute`."""
        checked: dict[str, StageMethod] = {CHECK: self._check} if self._spec.active else {}
        return {KEYS: self._keys, SHARES: self._shares, REVEAL: self._reveal, **checked}

    def mask(
        self,
        site: str,
        elements: NDArray[np.uint64],
        modulus: int,
        request: Request,
        asked: bytes,
        *,
        abstained: bool = False,
    ) -> tuple[Arrays, dict[str, Json]]:
        """Add a site's masks to its elements, in place.

        Args:
            site: whose.
            elements: uint64 [n], each below `modulus`.
            modulus: 2^64, or 2 to 2^62.
            request: the server's, with who takes part and the shares for this site.
            asked: `asked_of` its message, as this site read it: with a site that was asked something else, masks do not cancel.
            abstained: whether the elements are nothing, which the site's signature under the survivors then says.

        Returns:
            What rides on the reply: arrays, and meta with keys for the next exchange.

        Raises:
            MessageError: the site must not send this: its keys are not those of the directory, or were used before; a share
                that was sealed for it does not open; too few take part. Nothing was added then.
        """
        exchange, state = exchange_of(request.message), self._state(site)
        directory, keys = self._ready(state, exchange, request)
        members = self._members(directory, site, request)
        held = _opened_boxes(keys, directory, site, members, request.for_site(site).get(KEY))
        masks = list(_masks(keys, directory, site, members, exchange.bound(asked)))
        # from here on these keys are gone: on the disk before a mask is drawn
        state.upload = Upload(
            label=exchange.label().decode(), asked=asked, abstained=abstained, directory=directory, members=members,
            held=held,
        )  # fmt: skip
        fresh = state.make_keys(self._identity(site), exchange.run)
        state.save()
        if self._observe is not None:
            for key, _ in masks:
                self._observe(site, key, len(elements))
        add_masks(elements, masks, modulus)
        return {}, {KEY: {"next": fresh.advert.to_json()}}

    # ------------------------------------------------------------------------------------------------ stages

    def _keys(self, sites: tuple[str, ...], request: Request) -> Iterator[Reply]:
        return self._each(sites, request, self.advertise)

    def _shares(self, sites: tuple[str, ...], request: Request) -> Iterator[Reply]:
        try:
            exchange = exchange_of(request.message)
            directory = self._checked(_said(request).get("directory"), exchange)
        except MessageError as error:
            yield from (_refusal(site, request, error) for site in sites)
            return

        def share(site: str, request: Request) -> Message:
            return _say(request, {}, self.share(site, directory))

        yield from self._each(sites, request, share)

    def _check(self, sites: tuple[str, ...], request: Request) -> Iterator[Reply]:
        return self._each(sites, request, self.sign)

    def _reveal(self, sites: tuple[str, ...], request: Request) -> Iterator[Reply]:
        following: Directory | MessageError | None = None
        given = _said(request).get("next")
        if given is not None:
            try:
                following = self._checked(given, exchange_of(request.message))
            except MessageError as error:
                following = error

        def reveal(site: str, request: Request) -> Message:
            return self.reveal(site, request, following)

        yield from self._each(sites, request, reveal)

    @staticmethod
    def _each(sites: Sequence[str], request: Request, method: Callable[[str, Request], Message]) -> Iterator[Reply]:
        for site in sites:
            try:
                yield Reply(sites=(site,), message=method(site, request))
            except MessageError as error:
                yield _refusal(site, request, error)

    # ------------------------------------------------------------------------------------------------ one site's

    def advertise(self, site: str, request: Request) -> Message:
        """Fresh keys; what was left of an earlier exchange is forgotten.

        Raises:
            MessageError: a site that is not of this process.
        """
        state = self._state(site)
        state.upload = None
        keys = state.make_keys(self._identity(site), exchange_of(request.message).run)
        state.save()
        return _say(request, {"advert": keys.advert.to_json()})

    def share(self, site: str, directory: Directory) -> Arrays:
        """Sealed shares of the site's two secrets, for each neighbour under a directory that was checked.

        Returns:
            `boxes`: uint8 [neighbours, BOX], in the order of `Directory.neighbours`.

        Raises:
            MessageError: the site's keys are not in the directory as it sent them, or went out under another one.
        """
        state = self._state(site)
        keys = state.keys
        if keys is None or keys.run != directory.run or directory.by_site.get(site) != keys.advert:
            raise MessageError(f"the keys of '{site}' are not in the directory as it advertised them")
        if keys.directory is not None:
            raise MessageError(f"'{site}' sent shares of these keys before: they go out under one directory only")
        together = len(directory.groups[directory.group_of[site]])
        if together < self._home.minimum:
            raise MessageError(
                f"'{site}' takes part in sums of {self._home.minimum} sites or more, and this one is of {together}"
            )
        self._settle_population(state, directory)
        holders, rule = directory.holders[site], directory.rules[directory.group_of[site]]
        places = [directory.place[holder] for holder in holders]
        split = [
            [shamir.to_bytes(share) for share in shamir.split(int.from_bytes(secret, "big"), rule.threshold, places)]
            for secret in (keys.mask, keys.seed)
        ]
        secret_half = Agreement(keys.share)
        boxes, agreed, own = [], {}, b""
        for holder, mask_share, seed_share in zip(holders, *split, strict=True):
            if holder == site:
                own = seed_share
                continue
            agreed[holder] = secret_half.with_key(directory.by_site[holder].share, holder)
            key = box_key(agreed[holder], directory.digest, site, holder)
            about = box_about(directory.label, directory.digest, site, holder)
            boxes.append(close_box(key, mask_share + seed_share, about))
        state.sent_shares(directory, own, agreed)
        state.save()
        return {"boxes": torch.frombuffer(bytearray(b"".join(boxes)), dtype=torch.uint8).reshape(len(boxes), BOX)}

    def sign(self, site: str, request: Request) -> Message:
        """The site's signature under the survivors that the server names.

        Raises:
            MessageError: see `reveal`; or it signed others before.
        """
        state, upload = self._uploaded(site, request)
        group, survivors = upload.directory.group_of[site], self._survivors(site, upload, request)
        if upload.signed is not None and upload.signed != survivors:
            raise MessageError(f"'{site}' signed other survivors of this exchange before")
        state.signed(survivors)
        state.save()
        content = _signable(upload, group, survivors, abstained=upload.abstained)
        return _say(request, {"signature": encoded(sign(self._identity(site), content))})

    def reveal(self, site: str, request: Request, following: Directory | MessageError | None = None) -> Message:
        """One half of the secrets of each member of the neighbourhood, once.

        Args:
            site: who answers.
            request: with the survivors, and their signatures where `active`.
            following: the directory of the next exchange, checked, or why it was refused; None where there is none.

        Raises:
            MessageError: it uploaded nothing in this exchange, or revealed already; survivors that are not members, too few,
                or without this site; too few signatures, or one that fails.
        """
        state, upload = self._uploaded(site, request)
        survivors = self._survivors(site, upload, request)
        if self._spec.active:
            self._check_signatures(site, upload, survivors, request)
        there = set(survivors)
        # a survivor's seed, a dropped member's key, in the order of the neighbourhood
        halves = [upload.held[one][one in there] for one in upload.directory.holders[site] if one in upload.held]
        state.upload = None
        state.save()
        arrays = {
            "shares": torch.frombuffer(bytearray(b"".join(halves)), dtype=torch.uint8).reshape(len(halves), SHARE)
        }
        if following is None:
            return _say(request, {}, arrays)
        try:
            if isinstance(following, MessageError):
                raise following
            return _say(request, {}, arrays | self.share(site, following))
        except MessageError as error:
            return _say(request, {"refused": str(error)}, arrays)

    # ------------------------------------------------------------------------------------------------ rules

    def _state(self, site: str) -> ChannelState:
        if site not in self._states:
            self._identity(site)
            self._states[site] = ChannelState.at(self._home.folder, site)
        return self._states[site]

    def _identity(self, site: str) -> Ed25519PrivateKey:
        if site not in self._home.identities:
            raise MessageError(
                f"site '{site}' has no identity here: this process signs for {sorted(self._home.identities)[:5]}"
            )
        return self._home.identities[site]

    def _checked(self, given: Json, exchange: Exchange) -> Directory:
        directory = Directory.from_json(given)
        if directory.run != exchange.run or directory.label != exchange.label().decode():
            raise MessageError("the directory of keys belongs to another run or exchange")
        directory.check(self._home.pins, self._spec)
        return directory

    def _settle_population(self, state: ChannelState, directory: Directory) -> None:
        """Groups are drawn from the population, so it stays: the difference of two sums could be a single site's part."""
        if self._spec.groups == 1:
            return
        found = directory.run, digest("population", canonical(list(directory.population))).hex()
        if state.population is not None and state.population[0] == found[0] and state.population != found:
            raise MessageError(
                f"the population of the run is not what it was when '{state.site}' first took part: groups stay as they are; "
                "begin a new run with the new sites"
            )
        state.population = found

    def _ready(self, state: ChannelState, exchange: Exchange, request: Request) -> tuple[Directory, Keys]:
        """The keys to mask with, and their directory, which is the one that the server names."""
        keys, named = state.keys, _said(request).get("directory")
        if keys is None or keys.directory is None or keys.run != exchange.run:
            raise MessageError(
                f"'{state.site}' has no unused keys whose shares were sent: it used them, or its process began anew since"
            )
        if keys.directory.digest.hex() != named:
            raise MessageError(f"'{state.site}' agreed on other keys than those of the directory that the server names")
        return keys.directory, keys

    def _members(self, directory: Directory, site: str, request: Request) -> tuple[str, ...]:
        """The members of the site's group: those whose shares came."""
        group = directory.group_of[site]
        members = names_from(_of_group(_said(request).get("members"), group), "members of the group")
        least = max(directory.rules[group].survivors, self._home.minimum)
        if site not in members or not set(members) <= set(directory.groups[group]) or len(members) < least:
            raise MessageError(
                f"the server names {len(members)} members of group {group}: expected at least {least} of the directory's, and "
                f"'{site}' among them"
            )
        return members

    def _uploaded(self, site: str, request: Request) -> tuple[ChannelState, Upload]:
        state, label = self._state(site), exchange_of(request.message).label().decode()
        if state.upload is None or state.upload.label != label:
            raise MessageError(
                f"'{site}' has nothing to say of this exchange: it sent nothing in it, or said it before"
            )
        return state, state.upload

    def _survivors(self, site: str, upload: Upload, request: Request) -> tuple[str, ...]:
        group = upload.directory.group_of[site]
        rule = upload.directory.rules[group]
        survivors = names_from(_of_group(_said(request).get("survivors"), group), "survivors")
        there = set(survivors)
        if not there <= set(upload.members):
            raise MessageError("the server names survivors that are not members of the group")
        if site not in there:
            raise MessageError(f"the server asks '{site}' as a survivor and does not name it as one")
        near = sum(holder in there for holder in upload.directory.holders[site])
        least = max(rule.survivors, self._home.minimum)
        if len(survivors) < least or near < rule.threshold:
            raise MessageError(
                f"{len(survivors)} survivors, {near} of them near '{site}': expected at least {least} and "
                f"{rule.threshold}, so that no smaller sum is opened"
            )
        return survivors

    def _check_signatures(self, site: str, upload: Upload, survivors: tuple[str, ...], request: Request) -> None:
        group = upload.directory.group_of[site]
        if upload.signed != survivors:
            raise MessageError(f"'{site}' did not sign these survivors")
        given = _of_group(_said(request).get("signatures"), group)
        if not isinstance(given, dict) or not given.keys() <= set(survivors):
            raise MessageError("the signatures of survivors are not a table of survivors")
        gave = 0
        contents = [_signable(upload, group, survivors, abstained=nothing) for nothing in (False, True)]
        for signer, signature in given.items():
            pin, signed = self._home.pins[signer], decoded(signature, SIGNATURE)
            if signed_by(pin, signed, contents[0]):
                gave += 1
            elif not signed_by(pin, signed, contents[1]):
                raise MessageError(
                    f"the signature of '{signer}' is not over these survivors and this question: the server shows others to "
                    "others, or asks them something else"
                )
        least = upload.directory.rules[group].threshold
        if len(given) < least:
            raise MessageError(f"{len(given)} survivors signed, expected at least {least}")
        fewest = max(self._spec.minimum, self._home.minimum)
        if gave < fewest:
            raise MessageError(
                f"{gave} survivors signed that they gave something, expected at least {fewest}: the sum would be of fewer"
            )


def _signable(upload: Upload, group: int, survivors: tuple[str, ...], *, abstained: bool) -> bytes:
    label = upload.label.encode() + upload.asked
    return survivors_content(label, upload.directory.digest, group, upload.members, survivors, abstained=abstained)


def _masks(
    keys: Keys, directory: Directory, site: str, members: tuple[str, ...], label: bytes
) -> Iterator[tuple[bytes, bool]]:
    """Streams to add, and whether to subtract: the site's own, and one for each neighbour that is a member."""
    there, secret_half = set(members), Agreement(keys.mask)
    yield self_key(keys.seed, directory.digest, label, site), False
    for other in directory.neighbours[site]:
        if other in there:
            agreed = secret_half.with_key(directory.by_site[other].mask, other)
            yield pair_key(agreed, directory.digest, label, site, other), site > other


def _opened_boxes(
    keys: Keys, directory: Directory, site: str, members: tuple[str, ...], given: Json
) -> Mapping[str, Halves]:
    """Shares that the members near a site sealed for it, and its own. Raises MessageError, naming whose box does not open."""
    there = set(members)
    senders = [other for other in directory.neighbours[site] if other in there]
    data = decoded(given, len(senders) * BOX)
    secret_half = Agreement(keys.share)
    held: dict[str, Halves] = {site: (b"", keys.own)}
    bad = []
    for i, sender in enumerate(senders):
        agreed = keys.agreed.get(sender) or secret_half.with_key(directory.by_site[sender].share, sender)
        key = box_key(agreed, directory.digest, sender, site)
        about = box_about(directory.label, directory.digest, sender, site)
        content = open_box(key, data[i * BOX : (i + 1) * BOX], about)
        halves = b"" if content is None else content
        pair = halves[:SHARE], halves[SHARE:]
        if any(shamir.from_bytes(half) is None for half in pair):
            bad.append(sender)
        held[sender] = pair
    if bad:
        raise MessageError(
            f"the shares that {', '.join(repr(name) for name in bad)} sealed for '{site}' do not open: they were altered, or "
            "sealed under another directory of keys"
        )
    return held


def _said(request: Request) -> Mapping[str, Json]:
    given = request.message.meta.get(KEY, {})
    return given if isinstance(given, dict) else {}


def _say(request: Request, said: Mapping[str, Json], arrays: Arrays | None = None) -> Message:
    meta: dict[str, Json] = {KEY: dict(said)}
    return answer(request, arrays, **meta)


def _of_group(given: Json, group: int) -> Json:
    return given.get(str(group)) if isinstance(given, dict) else None


def _refusal(site: str, request: Request, error: MessageError) -> Reply:
    return Reply(sites=(site,), message=_say(request, {"refused": str(error)}))

"""A server that lies, and sites that do: what they ask for is refused, by name, and what they send is found."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from channels.secagg.harness import (
    RUN,
    Ward,
    collect,
    draw,
    exact,
    exchange,
    names,
    ward,
    with_masks,
)
from wardround.channels.exchange import EXCHANGE
from wardround.channels.home import Home
from wardround.channels.secagg.directory import Advert, Directory
from wardround.channels.secagg.server import MaskServer, MaskSpec
from wardround.channels.secagg.shamir import PRIME, to_bytes
from wardround.channels.secagg.site import MaskSite
from wardround.channels.secagg.spec import Rule
from wardround.channels.secagg.state import Keys
from wardround.errors import MessageError, QuorumLost
from wardround.types import Message, Reply, Request

ACTIVE = MaskSpec(active=True)


def small(count: int = 6, spec: MaskSpec | None = None) -> Ward:
    here = ward(count, spec)
    draw(here, 8)
    return here


def asked(here: Ward, stage: str) -> Request:
    """The last request of a stage."""
    return [request for request in here.requests if request.message.stage == stage][-1]


def uploads(here: Ward) -> list[str]:
    return [reply.sites[0] for reply in here.received if reply.message.stage == "contribute"]


def refused_by_all(here: Ward, pattern: str, server: MaskServer | None = None) -> None:
    """Every site refuses with these words before it sent anything masked, and the exchange is lost."""
    with pytest.raises(QuorumLost):
        collect(here, server or MaskServer(here.spec))
    assert set(here.refused) == set(here.sites)
    for why in here.refused.values():
        assert re.search(pattern, why), why
    assert not uploads(here)


def altered_directory(change: Callable[[dict[str, Any]], dict[str, Any]], sites: set[str] | None = None) -> Any:
    """What sends a changed directory to some sites, or to all."""

    def alter(request: Request, site: str) -> Request:
        if request.message.stage != "mask-shares" or (sites is not None and site not in sites):
            return request
        return with_masks(request, directory=change(dict(request.message.meta["masks"]["directory"])))

    return alter


# ---------------------------------------------------------------------------------------------------------- directories


def test_two_directories_do_not_open_each_others_shares() -> None:
    """Both are signed throughout: in one of them, a site's keys are those that it advertised before."""
    here = small()
    server = MaskServer(here.spec)
    collect(here, server, here.sites[1:])
    old = asked(here, "mask-shares").message.meta["masks"]["directory"]["adverts"][-1]
    some, others = here.sites[:3], here.sites[3:]
    digests = {}
    tell = altered_directory(lambda given: {**given, "adverts": [*given["adverts"][:-1], old]}, set(some))

    def alter(request: Request, site: str) -> Request:
        changed = tell(request, site)
        if request.message.stage == "mask-shares":
            digests[site] = Directory.from_json(changed.message.meta["masks"]["directory"]).digest.hex()
        # the server names to each the directory that it told it
        return with_masks(changed, directory=digests[site]) if request.message.stage == "contribute" else changed

    here.alter = alter
    here.received.clear()
    with pytest.raises(QuorumLost):
        collect(here, server)
    assert len(set(digests.values())) == 2
    assert not uploads(here)
    for these, those in ((some, others), (others, some)):
        for site in these:
            for other in those:
                assert repr(other) in here.refused[site]
            assert "do not open" in here.refused[site]


def test_shares_sealed_under_another_directory_are_named() -> None:
    here = small()
    tapes: dict[str, dict[str, str]] = {}

    def alter(request: Request, site: str) -> Request:
        # the boxes of the exchange before, under its directory, instead of those of this one
        if request.message.stage != "contribute":
            return request
        facts = request.facts["masks"]
        if not tapes:
            tapes["first"] = dict(facts)
            return request
        return replace(request, facts={"masks": tapes["first"]})

    here.alter = alter
    server = MaskServer(here.spec)
    collect(here, server)
    with pytest.raises(QuorumLost):
        collect(here, server)
    assert "that 'hospital-001', 'hospital-002'" in here.refused[here.sites[0]]
    assert "do not open" in here.refused[here.sites[0]]


def test_a_directory_of_another_exchange_or_run_is_refused() -> None:
    for change in ({"label": exchange().label().decode()}, {"run": "run-2"}):
        here = small()
        here.alter = altered_directory(lambda given, change=change: {**given, **change})
        refused_by_all(here, "another run or exchange")


def test_a_swapped_key_is_refused_by_everybody() -> None:
    here = small()
    server_side = Keys.fresh(
        next(iter(Home.simulated(["x"]).identities.values())), RUN, here.sites[2], 1
    ).advert.to_json()

    def swap(given: dict[str, Any]) -> dict[str, Any]:
        adverts = [advert if advert[0] != here.sites[2] else server_side for advert in given["adverts"]]
        return {**given, "adverts": adverts}

    here.alter = altered_directory(swap)
    refused_by_all(here, "keys of 'hospital-002' are not signed by the identity")


@pytest.mark.parametrize("part", [1, 2, 3, 4, 5])
def test_any_part_of_an_advertisement_is_signed(part: int) -> None:
    here = small()

    def spoil(given: dict[str, Any]) -> dict[str, Any]:
        adverts = [list(advert) for advert in given["adverts"]]
        text = adverts[2][part]
        adverts[2][part] = ("1" if text[0] != "1" else "2") + text[1:]
        return {**given, "adverts": adverts}

    here.alter = altered_directory(spoil)
    refused_by_all(here, "keys of 'hospital-002' are not signed by the identity")


def test_old_keys_of_a_site_are_refused_by_it_and_open_nothing_elsewhere() -> None:
    """The server once rebuilt a site's mask key; to offer it again, it would need boxes that only the site can seal."""
    here = small()
    server = MaskServer(here.spec)
    here.mute = {("contribute", here.sites[0])}
    collect(here, server)
    old = asked(here, "mask-shares").message.meta["masks"]["directory"]["adverts"][0]
    here.mute.clear()

    def replay(given: dict[str, Any]) -> dict[str, Any]:
        return {**given, "adverts": [old, *given["adverts"][1:]]}

    here.alter = altered_directory(replay)
    with pytest.raises(QuorumLost):
        collect(here, server)
    assert "not in the directory as it advertised them" in here.refused[here.sites[0]]
    assert uploads(here).count(here.sites[0]) == 0


def test_sybils_are_refused() -> None:
    here = small()
    strangers = Home.simulated(["zz-1", "zz-2"])

    def add(given: dict[str, Any]) -> dict[str, Any]:
        more = [Keys.fresh(key, RUN, site, 1).advert.to_json() for site, key in strangers.identities.items()]
        return {**given, "adverts": given["adverts"] + more, "rules": [[0, 7, 5, 5]]}

    here.alter = altered_directory(add)
    refused_by_all(here, "'zz-1', 'zz-2', to whose name no key is pinned here")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"rules": [[0, 5, 3, 3]]}, "threshold 3, 5 neighbours, 3 survivors, and the job says 4, 5, 4"),
        ({"rules": [[0, 5, 4, 2]]}, "2 survivors, and the job says"),
        ({"rules": [[0, 2, 4, 4]]}, "2 neighbours"),
        ({"rules": []}, "no rule for group 0"),
        ({"rules": [[0, 5, 4, 4], [1, 5, 4, 4]]}, "rules for groups without sites"),
        ({"rules": [[0, 5, 4]]}, "not lists of 4 numbers"),
        ({"divisions": 2}, "into 2 groups, and the job says 1"),
        ({"population": ["hospital-000"]}, "has a population, and there is one group"),
        ({"population": [1]}, "not a list of names"),
        ({"adverts": "none"}, "directory of keys is not one"),
        ({"adverts": [["hospital-000"]]}, "not a list of 6 texts"),
        ({"more": 1}, "directory of keys is not one"),
    ],
)
def test_a_directory_that_is_not_what_the_job_says_is_refused(change: dict[str, Any], why: str) -> None:
    here = small()
    here.alter = altered_directory(lambda given: {**given, **change})
    refused_by_all(here, why)


def test_fewer_than_the_minimum_are_refused() -> None:
    here = small()
    here.alter = altered_directory(lambda given: {**given, "adverts": given["adverts"][:2], "rules": [[0, 1, 2, 2]]})
    refused_by_all(here, "group 0 has 2 sites, expected at least 3")


@pytest.mark.parametrize("change", [lambda a: a[::-1], lambda a: [*a, a[-1]]])
def test_a_directory_names_everybody_once(change: Callable[[list[Any]], list[Any]]) -> None:
    here = small()
    here.alter = altered_directory(lambda given: {**given, "adverts": change(given["adverts"])})
    refused_by_all(here, "not sorted, or one is there twice")


def test_a_site_sends_its_shares_once() -> None:
    here = small()
    collect(here, MaskServer(here.spec))
    here.site = here.fresh()
    server = MaskServer(here.spec)
    collect(here, server, index=1)
    twice = list(here.site.stages()["mask-shares"]((here.sites[0],), asked(here, "mask-shares")))
    assert "not in the directory as it advertised them" in twice[0].message.meta["masks"]["refused"]
    here.deaf = {("contribute", site) for site in here.sites}
    with pytest.raises(QuorumLost):
        collect(here, server, [*here.sites[:5]], index=2)  # shares are out, and nothing is uploaded
    again = list(here.site.stages()["mask-shares"]((here.sites[0],), asked(here, "mask-shares")))
    assert "sent shares of these keys before" in again[0].message.meta["masks"]["refused"]
    assert not again[0].message.arrays


def test_a_key_of_small_order_is_named() -> None:
    here = small()
    bad = here.sites[1]

    def advertise(reply: Reply) -> Reply:
        if reply.sites != (bad,) or reply.message.stage != "mask-keys":
            return reply
        state = here.site._states[bad]
        assert state.keys is not None
        forged = Advert.signed(
            here.home.identities[bad],
            RUN,
            site=bad,
            serial=1,
            share=bytes(32),
            mask=bytes(32),
            seal=state.keys.advert.seal,
        )
        state.keys = replace(state.keys, advert=forged)
        message = replace(reply.message, meta={**reply.message.meta, "masks": {"advert": forged.to_json()}})
        return replace(reply, message=message)

    here.spoil = advertise
    with pytest.raises(QuorumLost):
        collect(here, MaskServer(here.spec))
    assert "public key of 'hospital-001' is of small order" in here.refused[here.sites[0]]
    assert not uploads(here)


@settings(max_examples=200, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=6)
            | st.dictionaries(
                st.sampled_from(["run", "label", "population", "divisions", "adverts", "rules"]), inner, max_size=6
            )
        ),
        max_leaves=12,
    )
)
def test_what_is_no_directory_is_a_message_error(given_: Any) -> None:
    with pytest.raises(MessageError):
        Directory.from_json(given_).check({}, MaskSpec())


# ---------------------------------------------------------------------------------------------------------- groups


def test_groups_cannot_be_drawn_again_within_a_run() -> None:
    here = small(9, MaskSpec(groups=2))
    server = MaskServer(here.spec)
    whole = collect(here, server)
    gone = here.sites[8]
    smaller = replace(here, home=replace(here.home, identities=dict(list(here.home.identities.items())[:8])))
    smaller.site, smaller.values = here.site, here.values
    with pytest.raises(QuorumLost):
        collect(smaller, MaskServer(here.spec), index=1)
    assert all("population of the run is not what it was" in why for why in smaller.refused.values())
    assert len(smaller.refused) == 8
    # the same population without that site in the cohort is fine, and groups stay
    outcome = collect(here, MaskServer(here.spec), here.sites[:8], index=2)
    assert exact(here, outcome)
    for group, members in outcome.counted.items():
        assert members == [site for site in whole.counted[group] if site != gone]


def test_a_population_of_sybils_is_refused() -> None:
    here = small(6, MaskSpec(groups=2))
    for population, why in (
        ([*here.sites, "zz"], "'zz', to whose name no key is pinned"),
        (list(here.sites[:5]), "5 sites are divided into 2 groups"),
        (list(reversed(here.sites)), "not sorted"),
    ):
        here.refused.clear()
        here.alter = altered_directory(lambda given, population=population: {**given, "population": population})
        refused_by_all(here, why)


# ---------------------------------------------------------------------------------------------------------- uploads


def test_a_replayed_request_to_contribute_is_refused_and_draws_no_mask() -> None:
    here = small()
    collect(here, MaskServer(here.spec))
    drawn = len(here.uses)
    request, other = asked(here, "contribute"), here.values[here.sites[0]].copy()
    before = other.copy()
    with pytest.raises(MessageError, match="agreed on other keys"):
        here.site.mask(here.sites[0], other, here.modulus, request, bytes(32))
    np.testing.assert_array_equal(other, before)
    assert len(here.uses) == drawn


def test_the_same_directory_in_another_exchange_is_refused() -> None:
    here = small()
    collect(here, MaskServer(here.spec))
    request = asked(here, "contribute")
    meta = {**request.message.meta, EXCHANGE: exchange(index=1).to_meta()}
    with pytest.raises(MessageError, match="agreed on other keys"):
        here.site.mask(here.sites[0], here.values[here.sites[0]].copy(), here.modulus,
                       replace(request, message=replace(request.message, meta=meta)), bytes(32))  # fmt: skip


def test_keys_of_another_run_are_refused() -> None:
    here = small()
    here.deaf = {("contribute", site) for site in here.sites}
    with pytest.raises(QuorumLost):
        collect(here, MaskServer(here.spec))
    request = asked(here, "contribute")
    meta = {**request.message.meta, EXCHANGE: exchange(run="run-2").to_meta()}
    elsewhere = replace(request, message=replace(request.message, meta=meta))
    with pytest.raises(MessageError, match="has no unused keys"):
        here.site.mask(here.sites[0], here.values[here.sites[0]].copy(), here.modulus, elsewhere, bytes(32))
    here.site.mask(here.sites[0], here.values[here.sites[0]].copy(), here.modulus, request, bytes(32))


@pytest.mark.parametrize(
    ("members", "why"),
    [(["hospital-000", "hospital-001", "hospital-002"], "3 members of group 0: expected at least 4"),
     (names(6)[1:], "and 'hospital-000' among them"), ([*names(6), "zz"], "of the directory's"),
     (names(6)[::-1], "not sorted"), (names(6) + names(6)[-1:], "twice"), ("all", "not a list of names"),
     ([1, 2, 3, 4], "not a list of names")],
)  # fmt: skip
def test_members_are_of_the_directory_and_enough(members: Any, why: str) -> None:
    here = small()

    def alter(request: Request, site: str) -> Request:
        if request.message.stage != "contribute" or site != here.sites[0]:
            return request
        return with_masks(request, members={"0": members})

    here.alter = alter
    collect(here, MaskServer(here.spec))
    assert why in here.refused[here.sites[0]]
    assert here.sites[0] not in uploads(here)
    assert not [site for site, _, _ in here.uses if site == here.sites[0]]


def test_an_altered_box_is_refused_by_its_sender_s_name() -> None:
    here = small()

    def alter(request: Request, site: str) -> Request:
        if request.message.stage != "contribute" or site != here.sites[0]:
            return request
        boxes = bytearray(base64.b64decode(request.facts["masks"][site]))
        boxes[2 * 82 + 5] ^= 1  # the third of hospital-000's neighbours
        return replace(request, facts={"masks": {site: base64.b64encode(boxes).decode()}})

    here.alter = alter
    outcome = collect(here, MaskServer(here.spec))
    assert here.refused == {
        "hospital-000": here.refused["hospital-000"],
    }
    assert "that 'hospital-003' sealed for 'hospital-000' do not open" in here.refused["hospital-000"]
    assert exact(here, outcome)


def test_a_box_for_another_site_does_not_open() -> None:
    here = small()

    def alter(request: Request, site: str) -> Request:
        if request.message.stage != "contribute":
            return request
        facts = dict(request.facts["masks"])
        facts[site] = facts[here.sites[1] if site == here.sites[0] else site]
        return replace(request, facts={"masks": facts})

    here.alter = alter
    collect(here, MaskServer(here.spec))
    assert set(here.refused) == {here.sites[0]}
    assert "do not open" in here.refused[here.sites[0]]


# ---------------------------------------------------------------------------------------------------------- revealing


def after_upload(spec: MaskSpec | None = None, count: int = 7) -> tuple[Ward, Request]:
    """Sites that uploaded, and a request to reveal with all of them as survivors that was not delivered."""
    here = small(count, spec)
    stage = "mask-check" if here.spec.active else "mask-reveal"
    here.deaf = {(stage, site) for site in here.sites}
    with pytest.raises(QuorumLost):
        collect(here, MaskServer(here.spec))
    return here, asked(here, stage)


def reveal(here: Ward, site: str, request: Request, **said: object) -> Message:
    (reply,) = here.site.stages()["mask-reveal"]((site,), with_masks(request, next=None, **said))
    return reply.message


def refusal(message: Message) -> str:
    assert not message.arrays
    return str(message.meta["masks"]["refused"])


def test_revealing_happens_once() -> None:
    here, request = after_upload()
    site = here.sites[0]
    assert reveal(here, site, request).arrays["shares"].shape == (7, 33)
    assert "said it before" in refusal(reveal(here, site, request))
    others = {"0": list(here.sites[:6])}
    assert "said it before" in refusal(reveal(here, site, request, survivors=others))


@pytest.mark.parametrize(
    ("survivors", "why"),
    [(names(3), "3 survivors, 3 of them near 'hospital-000': expected at least 4"), (names(7)[1:], "does not name it"),
     ([*names(7), "zz"], "not members"), (names(7) + names(7)[-1:], "twice"), (names(7)[::-1], "not sorted"),
     (None, "not a list of names"), ("hospital-000", "not a list of names"), ([0] * 7, "not a list of names")],
)  # fmt: skip
def test_survivors_are_members_and_enough(survivors: Any, why: str) -> None:
    here, request = after_upload()
    assert why in refusal(reveal(here, here.sites[0], request, survivors={"0": survivors}))
    assert reveal(here, here.sites[0], request).arrays  # a refusal uses nothing up


def test_a_site_reveals_nothing_of_an_exchange_in_which_it_sent_nothing() -> None:
    here = small(7)
    late = here.sites[0]
    here.deaf = {("contribute", late)}
    collect(here, MaskServer(here.spec))
    request = asked(here, "mask-reveal")
    assert "it sent nothing in it" in refusal(reveal(here, late, request, survivors={"0": list(here.sites)}))
    other = replace(
        request, message=replace(request.message, meta={**request.message.meta, EXCHANGE: exchange().to_meta()})
    )
    assert "nothing to say of this exchange" in refusal(reveal(here, here.sites[1], other))


def test_a_site_reveals_in_the_exchange_of_its_upload_only() -> None:
    here, request = after_upload()
    meta = {**request.message.meta, EXCHANGE: exchange(attempt=1).to_meta()}
    other = replace(request, message=replace(request.message, meta=meta))
    assert "nothing to say of this exchange" in refusal(reveal(here, here.sites[0], other))
    assert reveal(here, here.sites[0], request).arrays


def both_halves(here: Ward, request: Request, victim: str, *, sets: dict[str, list[str]]) -> tuple[int, int]:
    """How many shares of a victim's mask key and seed a server gets that shows each site a set of its own."""
    keys = seeds = 0
    for site, survivors in sets.items():
        message = reveal(here, site, request, survivors={"0": survivors})
        if message.arrays:
            assert len(message.arrays["shares"]) == 7
            keys, seeds = keys + (victim not in survivors), seeds + (victim in survivors)
    return keys, seeds


def test_different_survivors_for_different_sites_do_not_give_both_halves() -> None:
    here, request = after_upload()
    victim = here.sites[6]
    without, whole = list(here.sites[:6]), list(here.sites)
    for first in range(8):
        here, request = after_upload()
        sets = {site: without if i < first else whole for i, site in enumerate(here.sites)}
        keys, seeds = both_halves(here, request, victim, sets=sets)
        assert not (keys >= 4 and seeds >= 4)
    assert max(keys, seeds) >= 4


def test_active_sites_sign_one_set_of_survivors_and_reveal_for_no_other() -> None:
    here, request = after_upload(ACTIVE)
    rule = Rule(degree=6, threshold=5, survivors=5)
    whole, some = list(here.sites), list(here.sites[:6])
    stages = here.site.stages()

    def signature(site: str, survivors: list[str]) -> Message:
        (reply,) = stages["mask-check"]((site,), with_masks(request, survivors={"0": survivors}))
        return reply.message

    signed = {site: signature(site, whole).meta["masks"]["signature"] for site in here.sites}
    assert signature(here.sites[0], whole).meta["masks"]["signature"] == signed[here.sites[0]]
    assert "signed other survivors" in refusal(signature(here.sites[0], some))

    def said(site: str, survivors: list[str], signatures: dict[str, str] | None) -> Message:
        return reveal(here, site, request, survivors={"0": survivors}, signatures={"0": signatures})

    site = here.sites[0]
    assert "did not sign these survivors" in refusal(said(site, some, signed))
    few = dict(list(signed.items())[: rule.threshold - 1])
    assert "4 survivors signed, expected at least 5" in refusal(said(site, whole, few))
    assert "not a table of survivors" in refusal(said(site, whole, None))
    assert "not a table of survivors" in refusal(said(site, whole, {**signed, "zz": signed[site]}))
    forged = {**signed, here.sites[3]: signed[here.sites[4]]}
    assert "signature of 'hospital-003' is not over these" in refusal(said(site, whole, forged))
    assert "expected 64 bytes" in refusal(said(site, whole, {**signed, here.sites[3]: "?"}))
    assert said(site, whole, signed).arrays


def test_an_active_server_that_shows_two_sets_gets_no_signatures_for_either() -> None:
    here = small(7, ACTIVE)
    without, whole = {"0": list(here.sites[:6])}, {"0": list(here.sites)}

    def alter(request: Request, site: str) -> Request:
        if request.message.stage in ("mask-check", "mask-reveal"):
            return with_masks(request, survivors=without if site in here.sites[:3] else whole)
        return request

    here.alter = alter
    with pytest.raises(QuorumLost):
        collect(here, MaskServer(here.spec))
    assert not any(r.message.arrays.get("shares") is not None for r in here.received)


def test_without_active_nobody_is_asked_to_sign() -> None:
    home = Home.simulated(names(3))
    assert set(MaskSite(home, MaskSpec()).stages()) == {"mask-keys", "mask-shares", "mask-reveal"}
    assert set(MaskSite(home, ACTIVE).stages()) == {"mask-keys", "mask-shares", "mask-check", "mask-reveal"}


def test_a_directory_for_the_next_exchange_is_checked_as_any_other() -> None:
    here = small()
    server = MaskServer(here.spec)

    def alter(request: Request, site: str) -> Request:
        if request.message.stage != "mask-reveal":
            return request
        following = dict(request.message.meta["masks"]["next"])
        return with_masks(request, next={**following, "rules": [[0, 5, 3, 3]]})

    here.alter = alter
    assert exact(here, collect(here, server))  # this one's masks come off all the same
    assert all("and the job says" in why for why in here.refused.values())
    assert len(here.refused) == 6
    assert all("and the job says" in why for why in server.faults.values())
    here.alter = None
    here.stages.clear()
    assert exact(here, collect(here, server, index=1))
    assert here.stages[:2] == ["mask-keys", "mask-shares"]


# ---------------------------------------------------------------------------------------------------------- sites that lie


def spoil(stage: str, sites: set[str], change: Callable[[Message], Message]) -> Callable[[Reply], Reply]:
    def spoiled(reply: Reply) -> Reply:
        if reply.message.stage != stage or reply.sites[0] not in sites:
            return reply
        return replace(reply, message=change(reply.message))

    return spoiled


def other_shares(message: Message) -> Message:
    shares = message.arrays["shares"].clone()
    shares[:, -1] ^= 1
    return replace(message, arrays={**message.arrays, "shares": shares})


@pytest.mark.parametrize(("dropped", "lying"), [(0, 2), (0, 1), (1, 1), (2, 1)])
def test_an_altered_share_is_found_and_done_without(dropped: int, lying: int) -> None:
    here = small(9)  # threshold 5; a share that was not needed is not looked at
    here.mute = {("contribute", site) for site in here.sites[:dropped]}
    liars = {here.sites[2], here.sites[5]} if lying == 2 else {here.sites[2]}
    here.spoil = spoil("mask-reveal", liars, other_shares)
    server = MaskServer(here.spec)
    assert exact(here, collect(here, server))
    assert {site for site, why in server.faults.items() if "altered" in why} == liars


def test_a_share_that_leads_to_another_form_of_the_same_key_is_altered() -> None:
    """X25519 passes over a key's 256th bit: a secret with it set makes the same public key, and is not the secret."""
    here = small(9)  # threshold 5; the first dropped, so places 2 to 6 are joined
    here.mute = {("contribute", here.sites[0])}
    weight = 1
    for other in (2, 3, 5, 6):
        weight = weight * other * pow(other - 4, -1, PRIME) % PRIME

    def shift(message: Message) -> Message:
        shares = message.arrays["shares"].clone()
        moved = (int.from_bytes(bytes(shares[0].numpy()), "big") + 128 * pow(weight, -1, PRIME)) % PRIME
        shares[0] = torch.frombuffer(bytearray(to_bytes(moved)), dtype=torch.uint8)
        return replace(message, arrays={**message.arrays, "shares": shares})

    here.spoil = spoil("mask-reveal", {here.sites[3]}, shift)
    server = MaskServer(here.spec)
    assert exact(here, collect(here, server))
    assert server.faults[here.sites[3]] == "it revealed shares that it had altered"


def test_too_many_altered_shares_open_nothing() -> None:
    here = small(9)
    here.spoil = spoil("mask-reveal", set(here.sites[:5]), other_shares)
    with pytest.raises(QuorumLost, match="do not give what it advertised: some were altered"):
        collect(here, MaskServer(here.spec))


MALFORMED: list[tuple[str, Callable[[Message], Message], str]] = [
    ("mask-keys", lambda m: replace(m, meta={**m.meta, "masks": 3}), "not a list of 6 texts"),
    ("mask-keys", lambda m: replace(m, meta={**m.meta, "masks": {"advert": ["a"] * 6}}), "16 hexadecimal digits"),
    ("mask-shares", lambda m: replace(m, arrays={}), "array 'boxes' is none"),
    ("mask-shares", lambda m: replace(m, arrays={"boxes": m.arrays["boxes"][1:]}), "expected torch.uint8 [6, 82]"),
    ("mask-shares", lambda m: replace(m, arrays={"boxes": m.arrays["boxes"].long()}), "torch.int64"),
    ("mask-reveal", lambda m: replace(m, arrays={}), "array 'shares' is none"),
    (
        "mask-reveal",
        lambda m: replace(m, arrays={"shares": torch.full((7, 33), 255, dtype=torch.uint8)}),
        "of the field",
    ),
]


@pytest.mark.parametrize(("stage", "change", "why"), MALFORMED)
def test_a_malformed_answer_is_named_and_the_others_go_on(stage: str, change: Any, why: str) -> None:
    here = small(7)
    bad = here.sites[4]
    here.spoil = spoil(stage, {bad}, change)
    server = MaskServer(here.spec)
    outcome = collect(here, server)
    assert exact(here, outcome)
    assert why in server.faults[bad]
    assert set(server.faults) == {bad}
    assert (bad in outcome.counted[0]) == (stage == "mask-reveal")


def test_malformed_keys_for_the_next_exchange_cost_two_stages() -> None:
    here = small()
    bad = here.sites[1]
    here.spoil = spoil("contribute", {bad}, lambda m: replace(m, meta={**m.meta, "masks": {"next": ["?"]}}))
    server = MaskServer(here.spec)
    assert exact(here, collect(here, server))
    assert "its keys for the next exchange" in server.faults[bad]
    here.stages.clear()
    assert exact(here, collect(here, server, index=1))
    assert here.stages[0] == "mask-keys"


def test_a_site_cannot_advertise_for_another() -> None:
    here = small()
    bad = here.sites[1]

    def steal(message: Message) -> Message:
        (theirs,) = here.site.stages()["mask-keys"]((here.sites[0],), asked(here, "mask-keys"))
        return replace(message, meta={**message.meta, "masks": theirs.message.meta["masks"]})

    here.spoil = spoil("mask-keys", {bad}, steal)
    server = MaskServer(here.spec)
    collect(here, server)
    assert server.faults[bad] == "it advertised the keys of 'hospital-000'"


def test_a_server_with_pins_leaves_a_site_with_another_identity_out() -> None:
    here = small()
    bad = here.sites[1]
    stranger = next(iter(Home.simulated(["x"]).identities.values()))

    def advertise(message: Message) -> Message:
        advert = Keys.fresh(stranger, RUN, bad, 1).advert.to_json()
        return replace(message, meta={**message.meta, "masks": {"advert": advert}})

    here.spoil = spoil("mask-keys", {bad}, advertise)
    refused_by_all(here, "keys of 'hospital-001' are not signed")
    server = MaskServer(here.spec, pins=here.home.pins)
    outcome = collect(here, server)
    assert exact(here, outcome)
    assert len(outcome.counted[0]) == 5
    assert "not signed by the identity" in server.faults[bad]


def test_an_answer_for_several_sites_is_of_none() -> None:
    here = small()

    def join(reply: Reply) -> Reply:
        if reply.message.stage == "mask-keys" and reply.sites == (here.sites[0],):
            return replace(reply, sites=here.sites[:2])
        return reply

    here.spoil = join
    here.mute = {("mask-keys", here.sites[1])}
    server = MaskServer(here.spec)
    outcome = collect(here, server)
    assert exact(here, outcome)
    assert here.sites[0] not in outcome.counted[0]
    assert "not of one site" in server.faults[here.sites[0]]


def test_a_site_without_an_identity_here_is_refused() -> None:
    here = small()
    collect(here, MaskServer(here.spec))
    (reply,) = here.site.stages()["mask-keys"](("zz",), asked(here, "mask-keys"))
    assert "site 'zz' has no identity here" in reply.message.meta["masks"]["refused"]


# ---------------------------------------------------------------------------------------------------------- what is asked


def test_a_site_that_was_asked_something_else_shares_no_mask_with_anybody() -> None:
    # also where the server keeps its signature from the others, so that they do reveal: nothing it gets takes the masks off
    for active in (False, True):
        here = small(spec=MaskSpec(active=active))
        victim = here.sites[0]

        def lie(request: Request, site: str, victim: str = victim) -> Request:
            if request.message.stage == "contribute" and site != victim:
                return replace(request, message=replace(request.message, meta={**request.message.meta, "note": 1}))
            signatures = request.message.meta.get("masks", {}).get("signatures")
            if signatures and site != victim:
                given = {group: {k: v for k, v in of.items() if k != victim} for group, of in signatures.items()}
                return with_masks(request, signatures=given)
            return request

        here.alter = lie
        with suppress(QuorumLost):
            assert not exact(here, collect(here, MaskServer(here.spec)))
        assert "mask-reveal" in here.stages
        drawn: dict[str, set[bytes]] = {}
        for site, key, _ in here.uses:
            drawn.setdefault(site, set()).add(key)
        others = [keys for site, keys in drawn.items() if site != victim]
        assert all(drawn[victim].isdisjoint(keys) for keys in others)
        assert len(drawn[victim]) == len(here.sites)  # its own, and one that nobody has for each of the others
        for k, one in enumerate(others):
            assert all(len(one & other) == 1 for other in others[k + 1 :])


def test_a_survivor_asked_something_else_is_found_by_its_signature() -> None:
    here = small(spec=MaskSpec(active=True))
    victim = here.sites[0]

    def lie(request: Request, site: str) -> Request:
        if request.message.stage != "contribute" or site == victim:
            return request
        return replace(request, message=replace(request.message, meta={**request.message.meta, "note": 1}))

    here.alter = lie
    with pytest.raises(QuorumLost):
        collect(here, MaskServer(here.spec))
    assert set(here.refused) == set(here.sites)
    assert all("is not over these survivors and this question" in why for why in here.refused.values())


def test_active_sites_reveal_only_where_enough_signed_that_they_gave_something() -> None:
    here = small(5, spec=MaskSpec(active=True))
    here.idle = set(here.sites[:2])
    assert exact(here, collect(here, MaskServer(here.spec)))
    here.idle = set(here.sites[:3])
    with pytest.raises(QuorumLost, match="2 survivors signed that they gave something, expected at least 3"):
        collect(here, MaskServer(here.spec), index=1)


@pytest.mark.parametrize("active", [False, True])
def test_a_home_sets_the_fewest_sites_of_a_sum(active: bool) -> None:
    spec = MaskSpec(active=active, colluders=0)
    here = small(5, spec=spec)
    here.home = replace(here.home, minimum=5)
    here.restart()
    assert exact(here, collect(here, MaskServer(spec)))
    here.deaf = {("contribute", here.sites[4])}  # four survive, which the spec allows
    with pytest.raises(QuorumLost):
        collect(here, MaskServer(spec), index=1)
    assert any("4 survivors" in why and "at least 5" in why for why in here.refused.values())
    here.deaf, here.refused = {("mask-shares", here.sites[4])}, {}
    with pytest.raises(QuorumLost):
        collect(here, MaskServer(spec), index=2)
    assert any("names 4 members" in why and "at least 5" in why for why in here.refused.values())
    here.deaf, here.refused = {("mask-keys", here.sites[4])}, {}
    with pytest.raises(QuorumLost):
        collect(here, MaskServer(spec), index=3)
    assert all("takes part in sums of 5 sites or more, and this one is of 4" in why for why in here.refused.values())
    assert len(here.refused) == 4

"""The one property: what comes out is the plain sum of those who are counted, bit for bit, or nothing at all."""

from __future__ import annotations

import time
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from channels.secagg.harness import (
    PRIME,
    RING,
    STAGES,
    collect,
    draw,
    exact,
    exchange,
    once_each,
    ward,
)
from wardround.channels.exchange import Talk
from wardround.channels.secagg.server import MaskServer, MaskSpec
from wardround.errors import ConfigError, QuorumLost

SPECS = [MaskSpec(), MaskSpec(active=True), MaskSpec(minimum=2), MaskSpec(threshold=0.8), MaskSpec(groups=2, minimum=2)]


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(4, 40), spec=st.sampled_from(SPECS), modulus=st.sampled_from([RING, PRIME]),
    length=st.integers(0, 40), data=st.data(),
)  # fmt: skip
def test_sums_are_exact_whoever_drops_out_and_whenever(
    count: int, spec: MaskSpec, modulus: int, length: int, data: st.DataObject
) -> None:
    here = ward(count, spec, modulus=modulus)
    draw(here, length, seed=count, bound=min(modulus, 2**63))
    server = MaskServer(spec)
    dropping = st.sets(st.tuples(st.sampled_from(STAGES), st.sampled_from(here.sites)), max_size=count // 3)
    for index in range(3):
        here.deaf, here.mute = data.draw(dropping), data.draw(dropping)
        asked = here.sites if data.draw(st.booleans()) else data.draw(st.permutations(here.sites))[: count - 1]
        outcome = None
        with suppress(QuorumLost, ConfigError):
            outcome = collect(here, server, asked, index=index)
        event(f"exchange {index} {'is lost' if outcome is None else 'comes out'}")
        if outcome is None:  # never without a reason: somebody dropped, or was not asked
            assert here.deaf or here.mute or len(asked) < count
            continue
        assert exact(here, outcome)
        for group, counted in outcome.counted.items():
            assert len(counted) >= outcome.roster.directory.rules[group].survivors  # type: ignore[union-attr]
    assert once_each(here.uses)


@pytest.mark.parametrize("modulus", [RING, PRIME])
@pytest.mark.parametrize("count", [3, 4, 5, 17])
def test_with_everybody_there_two_stages_are_enough_from_the_second_exchange_on(count: int, modulus: int) -> None:
    here = ward(count, modulus=modulus)
    draw(here, 50)
    server = MaskServer(here.spec)
    for index in range(3):
        assert exact(here, collect(here, server, index=index, quorum=count))
    two = ["contribute", "mask-reveal"]
    assert here.stages == ["mask-keys", "mask-shares", *two, *two, *two]
    assert not server.faults
    assert once_each(here.uses)
    assert len(here.uses) == 3 * count * count  # its own mask and one a partner, each exchange


def test_active_takes_one_stage_more() -> None:
    here = ward(6, MaskSpec(active=True))
    draw(here, 50)
    server = MaskServer(here.spec)
    for index in range(2):
        assert exact(here, collect(here, server, index=index))
    three = ["contribute", "mask-check", "mask-reveal"]
    assert here.stages == ["mask-keys", "mask-shares", *three, *three]


def test_what_is_sent_differs_from_the_value_in_every_word() -> None:
    here = ward(4)
    draw(here, 1000)
    collect(here, MaskServer(here.spec))
    for reply in here.received:
        if reply.message.stage == "contribute":
            sent = reply.message.arrays["words"].numpy().view(np.uint64)
            assert not (sent == here.values[reply.sites[0]]).any()
            assert np.median(sent) > 2**60  # the values are below 2^20


def test_another_cohort_takes_keys_of_its_own_and_the_same_again_is_ready() -> None:
    here = ward(8)
    draw(here, 10)
    server = MaskServer(here.spec)
    some, others = here.sites[:6], here.sites[2:]
    for index, sites in enumerate([some, some, others, others, some]):
        here.stages.clear()
        assert exact(here, collect(here, server, sites, index=index))
        assert ("mask-keys" in here.stages) == (index in (0, 2, 4))
    assert once_each(here.uses)


def test_after_a_drop_out_keys_are_agreed_anew() -> None:
    here = ward(6)
    draw(here, 10)
    server = MaskServer(here.spec)
    collect(here, server)
    here.mute = {("contribute", here.sites[1])}
    outcome = collect(here, server, index=1)
    assert exact(here, outcome)
    assert here.sites[1] not in outcome.counted[0]
    here.mute.clear()
    here.stages.clear()
    assert exact(here, collect(here, server, index=2))
    assert here.stages[0] == "mask-keys"
    assert once_each(here.uses)


@pytest.mark.parametrize(
    ("stage", "lost", "why"),
    # of 6 sites; the threshold is 4, but where 2 advertise, who are no group
    [("mask-keys", 4, "2 sites in a group"), ("mask-shares", 3, "3 of its 6 sites sent shares"),
     ("contribute", 3, "3 of its 6 sites are in the sum"), ("mask-reveal", 3, "3 shares of a secret")],
)  # fmt: skip
def test_too_few_at_a_stage_open_nothing(stage: str, lost: int, why: str) -> None:
    here = ward(6)
    draw(here, 10)
    here.deaf = {(stage, site) for site in here.sites[:lost]}
    with pytest.raises(QuorumLost, match=why):
        collect(here, MaskServer(here.spec))
    assert here.stages[-1] == stage  # nothing was asked after it


def test_the_quorum_counts_sites_that_agreed_on_masks() -> None:
    here = ward(6)
    draw(here, 10)
    here.deaf = {("mask-keys", here.sites[0])}
    assert exact(here, collect(here, MaskServer(here.spec), quorum=5))
    with pytest.raises(QuorumLost, match="5 of 6 sites agreed on masks, and 6 are needed"):
        collect(here, MaskServer(here.spec), quorum=6)


def test_three_sites_are_summed_together_or_not_at_all() -> None:
    here = ward(3)
    draw(here, 10)
    here.mute = {("contribute", here.sites[2])}
    with pytest.raises(QuorumLost, match="2 of its 3 sites are in the sum, and 3 must be"):
        collect(here, MaskServer(here.spec))
    two = ward(3, MaskSpec(minimum=2))
    draw(two, 10)
    two.mute = here.mute
    assert exact(two, collect(two, MaskServer(two.spec)))


def test_a_group_that_lost_too_many_is_left_out_and_named() -> None:
    here = ward(10, MaskSpec(groups=2))
    draw(here, 10)
    server = MaskServer(here.spec)
    whole = collect(here, server)
    assert exact(here, whole)
    assert sorted(len(members) for members in whole.counted.values()) == [5, 5]
    gone = whole.counted[1][:3]
    here.mute = {("contribute", site) for site in gone}
    here.received.clear()
    outcome = collect(here, server, index=1)
    assert exact(here, outcome)
    assert outcome.counted.keys() == {0}
    assert outcome.counted[0] == whole.counted[0]  # groups stay what they are
    assert all("group 1 is left out: 2 of its 5 sites" in server.faults[site] for site in whole.counted[1])
    asked = {reply.sites[0] for reply in here.received if reply.message.stage == "mask-reveal"}
    assert asked == set(whole.counted[0])
    here.mute = {("contribute", site) for site in (*gone, *whole.counted[0][:3])}
    with pytest.raises(QuorumLost, match=r"group 1 is left out"):
        collect(here, server, index=2)


def test_keys_of_an_exchange_that_was_begun_serve_no_other() -> None:
    here = ward(5)
    draw(here, 10)
    server = MaskServer(here.spec)
    collect(here, server)
    here.stages.clear()
    server.begin(Talk(engine=here, exchange=exchange(1), deadline=None), here.sites, 5)
    assert not here.stages
    assert exact(here, collect(here, server, index=1, attempt=1))
    assert here.stages[0] == "mask-keys"


def test_another_run_begins_with_keys_of_its_own() -> None:
    here = ward(5)
    draw(here, 10)
    server = MaskServer(here.spec)
    collect(here, server)
    here.stages.clear()
    assert exact(here, collect(here, server, run="run-2"))
    assert here.stages[0] == "mask-keys"
    assert once_each(here.uses)


def test_neighbours_on_a_ring_mask_with_each_other_alone() -> None:
    here = ward(24, MaskSpec(neighbours=18))
    draw(here, 10)
    server = MaskServer(here.spec)
    outcome = collect(here, server)
    assert exact(here, outcome)
    assert len(here.uses) == 24 * 19
    here.mute = {("contribute", site) for site in here.sites[3:9]}
    assert exact(here, collect(here, server, index=1))
    here.mute = {("contribute", site) for site in here.sites[3:12]}  # more than a third
    with pytest.raises(QuorumLost, match="15 of its 24 sites are in the sum, and 16 must be"):
        collect(here, server, index=2)


@pytest.mark.long
def test_a_hundred_sites_run_twenty_rounds() -> None:
    here = ward(100)
    draw(here, 2000)
    server = MaskServer(here.spec)
    generator = np.random.default_rng(5)
    began = time.monotonic()
    for index in range(20):
        late = generator.choice(100, size=10, replace=False) if index % 5 == 4 else ()
        here.mute = {("contribute", here.sites[i]) for i in late}
        here.received.clear()
        here.requests.clear()
        outcome = collect(here, server, index=index)
        assert exact(here, outcome)
        assert len(outcome.counted[0]) == 100 - len(late)
    assert outcome.roster.directory is not None
    assert outcome.roster.directory.rules[0].degree == 30
    assert once_each(here.uses)
    assert time.monotonic() - began < 240


def test_no_rule_for_so_many_sites_is_said_before_anybody_is_asked() -> None:
    here = ward(5, MaskSpec(colluders=3))
    draw(here, 10)
    with pytest.raises(ConfigError, match="colluders = 3 of 5"):
        collect(here, MaskServer(here.spec))
    assert not here.stages

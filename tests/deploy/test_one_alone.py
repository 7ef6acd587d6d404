"""A coordinator that wants one hospital's own values, from real sites with the default policy: it asks others something else."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from deploy.test_questions import facts, prepared
from deploy.wards import JOB_YAML, Twist, Wire, World, make_worlds, model
from wardround.channels import registry as channels
from wardround.channels import secure
from wardround.errors import QuorumLost
from wardround.federation import messages
from wardround.types import Arrays, Message, Total

Make = Callable[..., World]
SITES = ("cleveland", "hungarian", "va")
VICTIM = "va"
ACTIVE = "{kind: secagg, options: {active: true}}"
CHANNELS = [ACTIVE, "{kind: secagg}", "{kind: he}", "{kind: he, options: {masks: false}}"]


@pytest.fixture
def worlds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Make]:
    yield from make_worlds(monkeypatch, tmp_path)


def lying(twist: Callable[[Message], Message], task: str) -> Twist:
    """To all but one, in every stage of a task."""

    def told(site: str, message: Message) -> Message:
        return twist(message) if message.meta.get("task") == task and site != VICTIM else message

    return told


def asked(world: World, engine: Wire, task: str, arrays: Arrays, index: int) -> Total:
    channel = channels.build(world.job.privacy, sites=len(world.sites), remote=True)
    channel.bind(world.signed.id, None)
    more = {"prepared": world.prepared} if world.prepared else {}
    request = messages.ask_for(task, facts(world, index), arrays, {}, **more)
    (total,) = channel.collect(engine, request, world.sites, None, 1)
    return total


def own(world: World) -> torch.Tensor:
    """What the victim gives to the sum of its steps."""
    active = world.processes[VICTIM]._active
    assert active is not None
    kept = active.host.states.staged_reply(0)
    assert kept is not None
    return (
        kept.arrays["step/array/linear.weight"][0] * float(kept.arrays["step/weights"][0]) / facts(world, 0).max_weight
    )


def vanishing(message: Message) -> Message:
    return replace(message, meta={**message.meta, "round": {**message.meta["round"], "max_weight": 1e30}})


@pytest.mark.parametrize("kind", CHANNELS)
def test_another_bound_for_the_others_gives_no_sum(worlds: Make, kind: str) -> None:
    world = prepared(worlds(sites=SITES, job=JOB_YAML.replace(ACTIVE, kind)))
    with pytest.raises(QuorumLost, match=r"this question|is not the sum|no site opened the encrypted sum"):
        asked(world, Wire(world, lying(vanishing, messages.TRAIN)), messages.TRAIN, model(), 0)


def test_on_sites_that_do_not_bind_masks_to_the_question_it_is_the_victims_own(
    worlds: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secure, "asked_of", lambda message: bytes(32))
    world = prepared(worlds(sites=SITES))
    found = asked(world, Wire(world, lying(vanishing, messages.TRAIN)), messages.TRAIN, model(), 0)
    assert found.survivors == SITES
    assert torch.allclose(found.sums["step"]["linear.weight"].double(), own(world).double(), atol=1e-4)


def test_what_is_not_finite_for_the_others_is_refused_by_them(worlds: Make) -> None:
    def spoiled(message: Message) -> Message:
        return replace(message, arrays={name: value * math.nan for name, value in message.arrays.items()})

    world = worlds(sites=SITES)
    mean = {"mean": torch.zeros(2, dtype=torch.float64)}
    engine = Wire(world, lying(spoiled, messages.STATISTICS))
    with pytest.raises(QuorumLost):
        asked(world, engine, messages.STATISTICS, mean, -1)
    other = prepared(worlds(sites=SITES))
    trained = Wire(other, lying(spoiled, messages.TRAIN))
    with pytest.raises(QuorumLost):
        asked(other, trained, messages.TRAIN, {**model(), "params/linear.bias": torch.ones(1)}, 0)
    for found in (engine, trained):
        assert {site for site, _, cause in found.refused if "is not finite" in str(cause)} == set(SITES) - {VICTIM}


def test_sites_that_were_prepared_differently_give_no_sum(worlds: Make) -> None:
    def wide(site: str, message: Message) -> Message:
        if message.stage != messages.PREPARE or site == VICTIM:
            return message
        stored: dict[str, Any] = {**message.meta["preprocessing"], "scale": [1e300, 1e300]}
        return replace(message, meta={"preprocessing": stored})

    world = worlds(sites=SITES)
    ask = world.ask
    world.ask = lambda site, message, told=None: ask(site, wide(site, message), told)  # type: ignore[method-assign]
    prepared(world)
    engine = Wire(world)
    with pytest.raises(QuorumLost):
        asked(world, engine, messages.TRAIN, model(), 0)
    assert {site for site, _, cause in engine.refused if "prepared with" in str(cause)} == set(SITES) - {VICTIM}

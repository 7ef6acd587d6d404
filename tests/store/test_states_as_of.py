"""A site goes back to its state as of the round that is kept: the protocol with all that may befall it, and each crash."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from wardround.errors import StorageError
from wardround.store.states import SiteStates, StateFile, StateTable
from wardround.types import Arrays

INITIAL: Arrays = {"c": torch.tensor([7.0, 8.0])}
FIRST = -1.0


def state(value: float) -> Arrays:
    return {"c": torch.full((1, 2), value)}


def value(states: SiteStates, site: str) -> float:
    """The committed state of a site as one number; FIRST where it is the initial one."""
    read = states.read([site], INITIAL)["c"][0]
    if torch.equal(read, INITIAL["c"]):
        return FIRST
    assert read[0] == read[1]
    return float(read[0])


def trained(before: float, index: int, site: str) -> float:
    """A state that depends on all rounds it came from, exactly representable."""
    return (31 * before + 1000 * index + 7 * ord(site[0])) % 65536


# ---------------------------------------------------------------------------------------------------- crashes


class Crash(BaseException):
    """The process is gone."""


@contextmanager
def crash(at: int, when: Literal["before", "after"]) -> Iterator[list[str]]:
    """The process dies just before or just after its `at`-th change of a folder; gives the changes."""
    changes: list[str] = []
    whole = {"replace": os.replace, "unlink": os.unlink}

    def changing(name: str) -> Callable[..., None]:
        def change(path: object, *rest: object) -> None:
            changes.append(f"{name} {Path(str(path)).name}")
            if len(changes) - 1 == at and when == "before":
                raise Crash
            whole[name](path, *rest)  # type: ignore[operator]
            if len(changes) - 1 == at:
                raise Crash

        return change

    with pytest.MonkeyPatch.context() as patch:
        for name in whole:
            patch.setattr(os, name, changing(name))
        yield changes


def names(path: Path) -> list[str]:
    return sorted(file.name for file in path.glob("*"))


def site_with(path: Path, committed: Mapping[int, float], pending: tuple[int, float] | None) -> None:
    """A site with counted rounds and a pending one, whose earlier states are all kept."""
    kept = StateFile(path, "north")
    for index, number in committed.items():
        kept.stage(index, ["north"], state(number))
        os.rename(path / "pending.safetensors", path / f"state-{index + 1:05d}.safetensors")
        kept = StateFile(path, "north")
    if pending is not None:
        kept.stage(pending[0], ["north"], state(pending[1]))


@dataclass(frozen=True, kw_only=True)
class Settling:
    """What a site has, what it is told, and the rounds completed of the states that are then left."""

    committed: Mapping[int, float]
    pending: tuple[int, float] | None
    counted: int
    best: int | None
    left: tuple[int, ...]


SETTLINGS = [
    Settling(committed={}, pending=None, counted=-1, best=None, left=()),
    Settling(committed={}, pending=(0, 1.0), counted=0, best=None, left=(1,)),
    Settling(committed={}, pending=(0, 1.0), counted=0, best=0, left=(1,)),
    Settling(committed={0: 1.0}, pending=(1, 2.0), counted=1, best=None, left=(2,)),
    Settling(committed={0: 1.0}, pending=(1, 2.0), counted=1, best=1, left=(1, 2)),
    Settling(committed={0: 1.0}, pending=(1, 2.0), counted=0, best=1, left=(1,)),
    Settling(committed={0: 1.0, 3: 2.0}, pending=(5, 3.0), counted=5, best=2, left=(1, 6)),
    Settling(committed={0: 1.0, 3: 2.0}, pending=(5, 3.0), counted=5, best=5, left=(4, 6)),
    Settling(committed={0: 1.0, 3: 2.0}, pending=(5, 3.0), counted=5, best=8, left=(6,)),
    Settling(committed={0: 1.0, 3: 2.0}, pending=(5, 3.0), counted=3, best=4, left=(4,)),
    Settling(committed={0: 1.0, 3: 2.0}, pending=(5, 3.0), counted=3, best=3, left=(1, 4)),
    Settling(committed={3: 2.0}, pending=(5, 3.0), counted=5, best=3, left=(6,)),
]


@pytest.mark.parametrize("case", SETTLINGS)
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("at", range(4))
def test_a_crash_anywhere_in_settling_leaves_a_whole_state_and_the_next_request_does_the_rest(
    case: Settling, when: Literal["before", "after"], at: int, tmp_path: Path
) -> None:
    site_with(tmp_path, case.committed, case.pending)
    before = max(case.committed, default=None)
    old = FIRST if before is None else case.committed[before]
    new = case.pending[1] if case.pending is not None and case.pending[0] == case.counted else old
    told = {"north": case.counted} if case.counted >= 0 else {}
    with crash(at, when) as changes:
        try:
            StateFile(tmp_path, "north").settle(["north"], told, 9, case.best)
        except Crash:
            assert len(changes) == at + 1
        else:
            assert len(changes) <= at
    assert value(StateFile(tmp_path, "north"), "north") in (old, new)
    StateFile(tmp_path, "north").settle(["north"], told, 9, case.best)
    assert value(StateFile(tmp_path, "north"), "north") == new
    assert names(tmp_path) == [f"state-{number:05d}.safetensors" for number in case.left]


@pytest.mark.parametrize(
    ("completed", "expected"), [(0, FIRST), (1, 1.0), (3, 1.0), (4, 2.0), (5, 2.0), (6, 3.0), (9, 3.0)]
)
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("at", range(4))
def test_a_crash_on_the_way_back_is_made_up_for_by_the_same_request(
    completed: int, expected: float, when: Literal["before", "after"], at: int, tmp_path: Path
) -> None:
    site_with(tmp_path, {0: 1.0, 3: 2.0, 5: 3.0}, None)
    with crash(at, when):
        try:
            StateFile(tmp_path, "north").rewind(["north"], completed)
        except Crash:
            assert value(StateFile(tmp_path, "north"), "north") in (FIRST, 1.0, 2.0, 3.0)
    for _ in range(2):  # who is asked twice goes back once
        StateFile(tmp_path, "north").rewind(["north"], completed)
        assert value(StateFile(tmp_path, "north"), "north") == expected
        assert len(names(tmp_path)) == (expected != FIRST)


def test_going_back_drops_what_is_pending(tmp_path: Path) -> None:
    site_with(tmp_path, {0: 1.0}, (4, 2.0))
    StateFile(tmp_path, "north").rewind(["north"], 9)
    StateFile(tmp_path, "north").settle(["north"], {"north": 4}, 5)
    assert value(StateFile(tmp_path, "north"), "north") == 1.0


def test_a_disk_that_fails_once_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site_with(tmp_path, {0: 1.0}, (1, 2.0))
    kept = StateFile(tmp_path, "north")

    def failing(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", failing)
        with pytest.raises(StorageError, match="No space left"):
            kept.settle(["north"], {"north": 1}, 2, 1)
    assert value(kept, "north") == 1.0
    kept.settle(["north"], {"north": 1}, 2, 1)
    assert value(kept, "north") == 2.0
    kept.rewind(["north"], 1)
    assert value(kept, "north") == 1.0


def test_a_table_is_taken_back_by_its_engine_alone() -> None:
    table = StateTable(["north", "south"])
    table.restore(["north"], state(4.0))
    table.rewind(["north", "south"], 0)
    assert value(table, "north") == 4.0


# ---------------------------------------------------------------------------------------------------- the protocol

SITES = ("east", "north", "west")
Fate = Literal["counted", "lost", "away", "crash", "crash before", "asked twice"]
FATES: tuple[Fate, ...] = ("counted", "lost", "away", "crash", "crash before", "asked twice")
"""What becomes of one request to one site.

`counted`: it is answered, and the answer is heard. `lost`: nobody hears the answer. `away`: it never comes. `crash`: the
site's process dies at a change of its folder. `crash before`: it was restarted; `asked twice`: it comes two times.
"""


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One exchange: each site's fate, and where it crashes; None is outside the cohort.

    With `late` a request of an earlier exchange comes once more, after the present one. An attempt that is followed by
    another in its round did not count: too few answered, or the coordinator died before it had committed the round.
    """

    fates: tuple[Fate | None, ...]
    at: int = 0
    when: Literal["before", "after"] = "before"
    late: bool = False


@dataclass(frozen=True, kw_only=True)
class Story:
    """A run: for each round its attempts and the loss of the model that it received; then the last evaluation."""

    rounds: tuple[tuple[tuple[Attempt, ...], int], ...]
    every: int
    end: tuple[Attempt, ...]
    loss: int


attempts = st.builds(
    Attempt,
    fates=st.tuples(*[st.sampled_from([*FATES, None]) for _ in SITES]),
    at=st.integers(0, 3),
    when=st.sampled_from(["before", "after"]),
    late=st.booleans(),
)
stories = st.builds(
    Story,
    rounds=st.lists(
        st.tuples(st.lists(attempts, min_size=1, max_size=3).map(tuple), st.integers(0, 3)), min_size=1, max_size=7
    ).map(tuple),
    every=st.integers(1, 3),
    end=st.lists(attempts, min_size=1, max_size=3).map(tuple),
    loss=st.integers(0, 3),
)


@dataclass
class Protocol:
    """The server, the sites on their disks, and beside them the table of a simulation with its journal."""

    folder: Path
    every: int
    table: StateTable = field(default_factory=lambda: StateTable(SITES))
    journal: list[dict[str, float]] = field(default_factory=list)
    counted: dict[str, int] = field(default_factory=dict)
    losses: list[tuple[int, int]] = field(default_factory=list)
    late: Callable[[], None] = lambda: None

    @property
    def best(self) -> int | None:
        return min(self.losses)[1] if self.losses else None

    def site(self, name: str) -> StateFile:
        """A process that has just begun: nothing but the disk outlives a request."""
        return StateFile(self.folder / name, name)

    def heard(self, name: str, attempt: Attempt, fate: Fate, request: Callable[[], None]) -> bool:
        """Whether a site's answer to `request` reaches the server."""
        if fate == "away":
            return False
        if fate == "crash":
            with crash(attempt.at, attempt.when):
                try:
                    request()
                except Crash:
                    return False
        for _ in range(2 if fate == "asked twice" else 1):
            request()
        return fate != "lost"

    def train(self, name: str, index: int) -> Callable[[], None]:
        """The request of round `index`, with what the server says when it is sent."""
        counted = {name: self.counted[name]} if name in self.counted else {}
        best = self.best

        def request() -> None:
            kept = self.site(name)
            if index < kept.earliest_round([name]):
                return
            kept.settle([name], counted, index, best)
            assert sum(file.startswith("state-") for file in names(self.folder / name)) <= 2
            if not kept.journal(index, [name])[0]:
                kept.stage(index, [name], state(trained(value(kept, name), index, name)))

        return request

    def round(self, index: int, tries: tuple[Attempt, ...], loss: int) -> None:
        """One round: the last of its attempts counts whoever was heard, maybe nobody."""
        survivors: set[str] = set()
        for attempt in tries:
            survivors = set()
            for name, fate in zip(SITES, attempt.fates, strict=True):
                request = self.train(name, index)
                if fate is not None and self.heard(name, attempt, fate, request):
                    survivors.add(name)
                if attempt.late:
                    self.late()
                self.late = request
        self.simulated(index, survivors)
        if index % self.every == 0 and index > 0:
            self.losses.append((loss, index))
        self.counted |= dict.fromkeys(survivors, index)

    def simulated(self, index: int, survivors: set[str]) -> None:
        """The same round in one process: who was counted moves, and the journal has everybody's state after each round."""
        self.table.settle(SITES, self.counted, index)
        for name in survivors:
            self.table.stage(index, [name], state(trained(value(self.table, name), index, name)))
        self.table.settle(SITES, dict.fromkeys(survivors, index), index + 1)
        self.journal.append({name: value(self.table, name) for name in SITES})

    def selected(self, rounds: int) -> None:
        """Go back, in both worlds, and compare."""
        completed = rounds if self.best is None else self.best
        states = self.journal[completed - 1] if completed else dict.fromkeys(SITES, FIRST)
        restored = {name: number for name, number in states.items() if number != FIRST}
        stacked = {"c": torch.cat([state(number)["c"] for number in restored.values()])} if restored else {}
        self.table.restore(list(restored), stacked)
        for name in SITES:
            told = {name: self.counted[name]} if name in self.counted else {}
            for _ in range(2):
                kept = self.site(name)
                kept.settle([name], told, -1, completed)
                kept.rewind([name], completed)
                assert value(self.site(name), name) == value(self.table, name)
                assert len(names(self.folder / name)) <= 1
                self.late()
            assert value(self.site(name), name) == value(self.table, name)


CALM = Attempt(fates=("counted", "counted", "counted"))
AWAY = Attempt(fates=("lost", "away", "crash"))


@settings(max_examples=150, deadline=None)
@given(stories)
@example(Story(rounds=(((CALM,), 0), ((CALM,), 1), ((CALM,), 0), ((CALM,), 2)), every=1, end=(CALM,), loss=3))
@example(Story(rounds=(((AWAY,), 0), ((CALM,), 1), ((CALM,), 2)), every=1, end=(CALM,), loss=3))
def test_sites_on_their_own_disks_go_back_as_a_simulation_does(
    tmp_path_factory: pytest.TempPathFactory, story: Story
) -> None:
    run = Protocol(folder=tmp_path_factory.mktemp("sites"), every=story.every)
    for index, (tries, loss) in enumerate(story.rounds):
        run.round(index, tries, loss)
    total = len(story.rounds)
    for attempt in story.end:
        for name, fate in zip(SITES, attempt.fates, strict=True):
            counted = {name: run.counted[name]} if name in run.counted else {}

            def request(name: str = name, counted: dict[str, int] = counted, best: int | None = run.best) -> None:
                run.site(name).settle([name], counted, -1, best)

            run.heard(name, attempt, fate or "away", request)
        if attempt.late:
            run.late()
    run.losses.append((story.loss, total))
    run.selected(total)

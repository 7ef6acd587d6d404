import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wardround import wire
from wardround.errors import RunError, WardroundError
from wardround.store.states import SiteStates, StateFile, StateTable
from wardround.types import Arrays, Message

SITE = "north"
INITIAL: Arrays = {"c": torch.tensor([7.0, 8.0]), "n": torch.tensor(3, dtype=torch.int64)}


def state(value: float) -> Arrays:
    return {"c": torch.full((1, 2), float(value)), "n": torch.full((1,), int(value), dtype=torch.int64)}


def value(states: SiteStates) -> float:
    """The committed state of SITE as one number; -1 where it never committed."""
    read = states.read([SITE], INITIAL)
    if torch.equal(read["c"], INITIAL["c"][None]):
        assert read["n"].tolist() == [3]
        return -1.0
    assert read["c"][0, 0] == read["c"][0, 1] == read["n"][0]
    return float(read["c"][0, 0])


@pytest.fixture(params=["table", "large table", "file", "reopened file"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], SiteStates]:
    """A function that gives the states' keeper before each use; `reopened file` crashes between all calls."""
    if request.param == "reopened file":
        return lambda: StateFile(tmp_path, SITE)
    kept: SiteStates
    if request.param == "file":
        kept = StateFile(tmp_path, SITE)
    elif request.param == "table":
        kept = StateTable([SITE])
    else:
        kept = StateTable(["west", SITE, "east"])
        kept.stage(0, ["east", "west"], {name: torch.cat([v, v]) for name, v in state(99).items()})
    return lambda: kept


def test_a_site_without_a_state_gets_the_initial_one(make: Callable[[], SiteStates]) -> None:
    assert value(make()) == -1.0


def test_what_is_read_may_be_changed(make: Callable[[], SiteStates]) -> None:
    make().read([SITE], INITIAL)["c"].zero_()
    assert value(make()) == -1.0
    make().restore([SITE], state(5))
    make().read([SITE], INITIAL)["c"].zero_()
    assert value(make()) == 5.0


def test_a_staged_state_counts_only_once_it_was_counted(make: Callable[[], SiteStates]) -> None:
    new = state(1)
    make().stage(4, [SITE], new)
    new["c"].zero_()
    assert value(make()) == -1.0
    make().settle([SITE], {SITE: 4}, 5)
    assert value(make()) == 1.0
    assert make().journal(4, [SITE]) == ((), {})


@pytest.mark.parametrize("counted", [{}, {SITE: 3}, {"elsewhere": 4}])
def test_a_state_that_was_not_counted_is_dropped(make: Callable[[], SiteStates], counted: dict[str, int]) -> None:
    make().stage(4, [SITE], state(1))
    make().settle([SITE], counted, 5)
    assert make().journal(4, [SITE]) == ((), {})
    make().settle([SITE], {SITE: 4}, 6)
    assert value(make()) == -1.0


def test_a_retried_round_keeps_what_is_pending(make: Callable[[], SiteStates]) -> None:
    make().stage(4, [SITE], state(1))
    make().settle([SITE], {SITE: 2}, 4)
    assert value(make()) == -1.0
    make().settle([SITE], {SITE: 4}, 5)
    assert value(make()) == 1.0


def test_staging_again_replaces_what_is_pending(make: Callable[[], SiteStates]) -> None:
    make().stage(4, [SITE], state(1))
    make().stage(5, [SITE], state(2))
    make().settle([SITE], {SITE: 4}, 5)
    assert value(make()) == -1.0
    make().settle([SITE], {SITE: 5}, 6)
    assert value(make()) == 2.0


def test_the_journal_gives_what_is_pending(make: Callable[[], SiteStates]) -> None:
    make().stage(4, [SITE], state(1))
    sites, states = make().journal(4, [SITE])
    assert sites == (SITE,)
    assert states["c"].tolist() == [[1.0, 1.0]]
    assert states["n"].tolist() == [1]
    assert make().journal(3, [SITE]) == ((), {})
    assert make().journal(-1, [SITE]) == ((), {})
    assert make().journal(4, []) == ((), {})


def test_restoring_drops_everything_else(make: Callable[[], SiteStates]) -> None:
    make().stage(3, [SITE], state(1))
    make().settle([SITE], {SITE: 3}, 4)
    make().stage(4, [SITE], state(2))
    make().restore([SITE], state(9))
    make().settle([SITE], {SITE: 4}, 5)
    assert value(make()) == 9.0
    make().restore([], {})
    assert value(make()) == -1.0


def test_an_empty_state_is_legal_everywhere(make: Callable[[], SiteStates]) -> None:
    make().restore([SITE], {})
    make().stage(0, [SITE], {})
    assert make().journal(0, [SITE]) == ((SITE,), {})
    make().settle([SITE], {SITE: 0}, 1)
    assert make().read([SITE], {}) == {}
    assert make().journal(0, [SITE]) == ((), {})


def test_no_sites_at_all(make: Callable[[], SiteStates]) -> None:
    make().stage(0, [], {"c": torch.empty(0, 2), "n": torch.empty(0, dtype=torch.int64)})
    make().settle([], {}, 1)
    assert make().read([], INITIAL)["c"].shape == (0, 2)
    assert value(make()) == -1.0


def test_an_unknown_site_is_an_error(make: Callable[[], SiteStates]) -> None:
    for act in (
        lambda: make().read(["nowhere"], INITIAL),
        lambda: make().stage(0, ["nowhere"], state(1)),
        lambda: make().settle(["nowhere"], {}, 0),
        lambda: make().journal(0, ["nowhere"]),
        lambda: make().restore(["nowhere"], state(1)),
    ):
        with pytest.raises(WardroundError, match="'nowhere'"):
            act()


def test_states_must_have_the_site_axis(make: Callable[[], SiteStates]) -> None:
    for states in ({"c": torch.ones(2, 2)}, {"c": torch.tensor(1.0)}):
        with pytest.raises(WardroundError, match="leading axis of 1 sites"):
            make().stage(0, [SITE], states)
        with pytest.raises(WardroundError, match="leading axis of 1 sites"):
            make().restore([SITE], states)
    with pytest.raises(WardroundError, match="round -1"):
        make().stage(-1, [SITE], state(1))


@pytest.mark.parametrize(
    "initial", [{}, {"c": INITIAL["c"]}, INITIAL | {"c": torch.ones(3)}, INITIAL | {"c": INITIAL["c"].double()}]
)
def test_states_of_another_model_are_not_read(make: Callable[[], SiteStates], initial: Arrays) -> None:
    make().restore([SITE], state(1))
    with pytest.raises(WardroundError, match="belong"):
        make().read([SITE], initial)


actions = st.lists(
    st.one_of(
        st.tuples(st.just("stage"), st.integers(0, 3)),
        st.tuples(st.just("settle"), st.integers(-1, 3), st.integers(0, 3), st.none() | st.integers(0, 3)),
        st.tuples(st.just("restore"), st.booleans()),
    ),
    max_size=8,
)


@settings(max_examples=60, deadline=None)
@given(actions)
def test_the_table_the_file_and_the_rule_on_paper_agree(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[object, ...]]
) -> None:
    path = tmp_path_factory.mktemp("site")
    table = StateTable(["east", SITE])
    committed, pending = -1.0, (-1, -1.0)
    first = 0  # rounds rise: one that counted is not asked for again
    for number, (act, *rest) in enumerate(steps, start=10):
        keepers: list[SiteStates] = [table, StateFile(path, SITE)]
        if act == "stage":
            pending = (first + int(str(rest[0])), float(number))
            for kept in keepers:
                kept.stage(pending[0], [SITE], state(number))
        elif act == "settle":
            counted, current = first + int(str(rest[0])), first + int(str(rest[1]))
            best = None if rest[2] is None else int(str(rest[2]))
            for kept in keepers:
                kept.settle([SITE], {SITE: counted} if counted >= 0 else {}, current, best)
            if pending[0] >= 0 and pending[0] == counted:
                committed, pending, first = pending[1], (-1, -1.0), pending[0] + 1
            elif pending[0] != current:
                pending = (-1, -1.0)
        else:
            sites = [SITE] if rest[0] else []
            committed, pending, first = float(number) if sites else -1.0, (-1, -1.0), 0
            for kept in keepers:
                kept.restore(sites, state(number) if sites else {})
        for kept in (table, StateFile(path, SITE)):
            assert value(kept) == committed
            assert [kept.journal(index, [SITE])[0] for index in range(first + 4)] == [
                (SITE,) if index == pending[0] else () for index in range(first + 4)
            ]


# ---------------------------------------------------------------------------------------------------- many sites


def test_each_site_of_a_table_is_settled_by_its_own_rule() -> None:
    table = StateTable(["d", "b", "a", "c"])
    table.stage(1, ["a", "b", "c"], {"x": torch.tensor([1.0, 2.0, 3.0])})
    table.stage(2, ["d"], {"x": torch.tensor([4.0])})
    assert table.journal(1, ["c", "d", "a"])[0] == ("a", "c")
    assert table.journal(1, ["c", "d", "a"])[1]["x"].tolist() == [1.0, 3.0]
    # a was counted in 1; b was not and the round goes on to 2: dropped; d's round 2 is the current one: kept
    table.settle(["a", "b", "d"], {"a": 1, "b": 0}, 2)
    everyone = ["a", "b", "c", "d"]
    assert table.read(everyone, {"x": torch.tensor(-1.0)})["x"].tolist() == [1.0, -1.0, -1.0, -1.0]
    assert table.journal(1, everyone)[0] == ("c",)
    assert table.journal(2, everyone)[0] == ("d",)


def test_row_numbers_serve_as_names_do() -> None:
    table = StateTable(["b", "a", "c"])
    rows = table.rows(["c", "a"])
    assert rows.tolist() == [2, 1]
    table.stage(0, rows, {"x": torch.tensor([3.0, 1.0])})
    assert table.journal(0, table.rows(table.sites))[0] == ("a", "c")
    table.settle(rows, {"a": 0, "c": 0}, 1)
    assert table.read(table.rows(["a", "b", "c"]), {"x": torch.tensor(0.0)})["x"].tolist() == [1.0, 0.0, 3.0]
    table.restore(rows, {"x": torch.tensor([30.0, 10.0])})
    assert table.read(["a", "b", "c"], {"x": torch.tensor(0.0)})["x"].tolist() == [10.0, 0.0, 30.0]
    with pytest.raises(WardroundError, match=r"outside 0\.\.2"):
        table.rows(np.array([3]))


def test_a_table_names_each_site_once() -> None:
    with pytest.raises(WardroundError, match="repeated"):
        StateTable(["a", "a"])


def test_sites_of_a_table_keep_the_same_names() -> None:
    table = StateTable(["a", "b"])
    table.stage(0, ["a"], {})
    with pytest.raises(WardroundError, match="another rule"):
        table.stage(0, ["b"], {"x": torch.ones(1)})


def test_memory_comes_with_the_first_stage() -> None:
    table = StateTable([str(site) for site in range(1000)])
    table.read(["5"], {"x": torch.ones(10)})
    assert table._pending == table._committed == {}


def test_ten_thousand_sites_take_no_loop() -> None:
    sites = tuple(f"site-{number:05d}" for number in range(10_000))
    table = StateTable(sites)
    rows = table.rows(sites)
    counted = dict.fromkeys(sites, 0)
    start = time.perf_counter()
    for index in range(10):
        states = table.read(rows, {"x": torch.zeros(30)})
        table.stage(index, rows, states)
        table.settle(rows, dict.fromkeys(counted, index), index + 1)
    # Each round moves 4 x 1.2 MB and looks up 10,000 names: some milliseconds. A loop over tensors takes seconds.
    assert time.perf_counter() - start < 2.0


# ---------------------------------------------------------------------------------------------------- the disk


def test_a_retried_attempt_finds_the_bytes_that_were_sent(tmp_path: Path) -> None:
    reply = Message(stage="fit", meta={"site": "Süd"}, arrays={"b": torch.ones(2), "a": torch.tensor([1, 2])})
    StateFile(tmp_path, SITE).stage(4, [SITE], state(1), reply)
    again = StateFile(tmp_path, SITE)
    kept = again.staged_reply(4)
    assert kept is not None
    assert wire.encode(kept) == wire.encode(reply)
    assert again.staged_reply(3) is None
    assert set(again.journal(4, [SITE])[1]) == {"c", "n"}
    again.settle([SITE], {SITE: 4}, 5)
    assert again.staged_reply(4) is None
    assert value(again) == 1.0


def test_a_reply_may_come_with_an_empty_state(tmp_path: Path) -> None:
    StateFile(tmp_path, SITE).stage(0, [SITE], {}, Message(stage="fit"))
    assert StateFile(tmp_path, SITE).staged_reply(0) == Message(stage="fit")
    StateFile(tmp_path, SITE).stage(1, [SITE], {})
    assert StateFile(tmp_path, SITE).staged_reply(1) is None


def test_a_table_keeps_no_reply() -> None:
    table = StateTable([SITE])
    table.stage(0, [SITE], {}, Message(stage="fit"))
    assert table.staged_reply(0) is None


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    StateFile(tmp_path, SITE).stage(0, [SITE], state(1))
    file = tmp_path / "pending.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(RunError, match=r"pending\.safetensors is damaged"):
        StateFile(tmp_path, SITE)


def test_a_folder_belongs_to_one_site(tmp_path: Path) -> None:
    StateFile(tmp_path, SITE).stage(0, [SITE], state(1))
    with pytest.raises(RunError, match="'north', expected 'south'"):
        StateFile(tmp_path, "south")


def test_what_is_pending_is_not_to_be_forgotten_for_an_earlier_round(make: Callable[[], SiteStates]) -> None:
    assert make().earliest_round([SITE]) == 0
    make().stage(4, [SITE], state(1))
    assert make().earliest_round([SITE]) == 4
    make().settle([SITE], {}, 5)
    assert make().earliest_round([SITE]) == 0


def test_a_round_that_counted_is_not_asked_for_again(tmp_path: Path) -> None:
    StateFile(tmp_path, SITE).stage(4, [SITE], state(1))
    StateFile(tmp_path, SITE).settle([SITE], {SITE: 4}, 5)
    assert StateFile(tmp_path, SITE).earliest_round([SITE]) == 5
    StateFile(tmp_path, SITE).stage(7, [SITE], state(2))
    assert StateFile(tmp_path, SITE).earliest_round([SITE]) == 7
    assert StateFile(tmp_path, SITE).earliest_round([]) == 0

"""Group commit: what waits is as if it had been written, whenever it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wardround.config import Job
from wardround.errors import RunError, StorageError
from wardround.store import atomic
from wardround.store.group import GroupCommit
from wardround.store.run import Run
from wardround.types import Arrays, ModelState, Server

NEVER = 1e9


def server(value: float) -> Server:
    return Server(model=ModelState(params={"w": torch.full((2,), value)}, buffers={}))


def states(completed: int, sites: Sequence[str]) -> Arrays:
    return {"c": torch.full((len(sites), 2), float(completed))} if sites else {}


def add(group: GroupCommit, completed: int, sites: Sequence[str], keep: Sequence[int] = ()) -> None:
    group.add(completed, {"n": completed}, server(completed), tuple(sites), states(completed, sites), keep=keep)


def found(run: Run, completed: int | None = None) -> tuple[float, dict[str, float]]:
    restored, sites, kept = run.restore(completed)
    values = kept["c"][:, 0].tolist() if sites else []
    return float(restored.model.params["w"][0]), dict(zip(sites, values, strict=True))


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    with Run.create(tmp_path / "run", Job(name="test"), {}) as made:
        made.commit(0, [{"n": 0}], server(0), (), {})
        yield made


def test_rounds_wait_until_they_are_flushed(run: Run) -> None:
    group = GroupCommit(run, NEVER)
    add(group, 1, ["a", "b"])
    add(group, 2, ["b"])
    assert run.completed == 0
    group.flush()
    assert run.completed == 2
    assert run.records == [{"n": 0}, {"n": 1}, {"n": 2}]
    assert found(run) == (2.0, {"a": 1.0, "b": 2.0})
    assert run.verify() == 2
    group.flush()
    assert run.completed == 2


def test_no_time_to_wait_writes_each(run: Run) -> None:
    group = GroupCommit(run, 0.0)
    for completed in (1, 2):
        add(group, completed, ["a"])
        assert run.completed == completed


def test_a_round_that_is_kept_is_a_commit_of_its_own(run: Run) -> None:
    group = GroupCommit(run, NEVER)
    add(group, 1, ["a"])
    add(group, 2, ["a", "b"], keep=[1])
    add(group, 3, ["b"], keep=[2])
    add(group, 4, ["a"], keep=[2])
    group.flush()
    assert run.kept == (2, 4)
    assert found(run, 2) == (2.0, {"a": 2.0, "b": 2.0})
    assert found(run, 4) == (4.0, {"a": 4.0, "b": 3.0})


def test_what_the_disk_refuses_still_waits(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    group = GroupCommit(run, NEVER)
    add(group, 1, ["a"])
    add(group, 2, ["a"], keep=[1])

    def full(*arguments: object) -> None:
        raise StorageError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(atomic, "write_pieces", full)
        with pytest.raises(StorageError):
            group.flush()
    assert run.completed == 0
    group.flush()
    assert run.records == [{"n": 0}, {"n": 1}, {"n": 2}]
    assert found(run, 1) == (1.0, {"a": 1.0})


ROUNDS = st.lists(st.tuples(st.sets(st.sampled_from("abcd")), st.booleans(), st.booleans()), min_size=1, max_size=8)


@settings(max_examples=40, deadline=None)
@given(ROUNDS)
def test_any_grouping_ends_as_single_commits_do(
    tmp_path_factory: pytest.TempPathFactory, rounds: list[tuple[set[str], bool, bool]]
) -> None:
    folder = tmp_path_factory.mktemp("runs")
    with (
        Run.create(folder / "one", Job(name="test"), {}) as one,
        Run.create(folder / "two", Job(name="test"), {}) as two,
    ):
        single, grouped = GroupCommit(one, 0.0), GroupCommit(two, NEVER)
        best: int | None = None
        for completed, (sites, better, flush) in enumerate(rounds):
            for group in (single, grouped):
                add(group, completed, sorted(sites), keep=() if best is None else (best,))
            if flush:
                grouped.flush()
            best = completed if better else best
        grouped.flush()
        assert one.records == two.records
        assert one.kept == two.kept
        assert all(found(one, number) == found(two, number) for number in one.kept)
        assert two.verify() <= one.verify()


def test_a_round_whose_writing_was_cut_short_is_not_written_twice(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    group = GroupCommit(run, NEVER)
    add(group, 1, ["a"])
    commit = run.commit

    def interrupted(*given: object, **more: object) -> None:
        commit(*given, **more)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(run, "commit", interrupted)
        with pytest.raises(KeyboardInterrupt):
            group.flush()
    with pytest.raises(RunError, match="completed = 1: expected more than 1"):
        group.flush()
    assert run.records == [{"n": 0}, {"n": 1}]

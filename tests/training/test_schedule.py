"""Batches: every epoch is a permutation, and a plan depends on names alone."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from small_federation import make_round, names_of
from wardround import streams
from wardround.training.schedule import Plan, plan, step_counts

counts_of_sites = st.lists(st.integers(0, 40), min_size=1, max_size=6)


def drawn(counts: list[int], *, join_single: bool = False, sites: list[int] | None = None, **facts: Any) -> Plan:
    """The plan of some of the sites."""
    chosen = list(range(len(counts))) if sites is None else sites
    keys = streams.site_keys(names_of(len(counts)))[chosen]
    return plan(keys, np.array(counts, dtype=np.int64)[chosen], make_round(**facts), join_single=join_single)


def batches(found: Plan, site: int) -> list[list[int]]:
    """The rows of each of a site's batches."""
    sizes = found.counts[: found.steps[site], site]
    return [found.rows[t, site, :size].tolist() for t, size in enumerate(sizes)]


def sizes(found: Plan, site: int) -> list[int]:
    """Rows in each of a site's batches."""
    return [len(batch) for batch in batches(found, site)]


def expected_sizes(count: int, batch_size: int, join_single: bool) -> list[int]:
    """One epoch's batch sizes, in words: full ones, then the rest, which joins them if it is a lone row."""
    full, rest = divmod(count, batch_size)
    one_epoch = [batch_size] * full + ([rest] if rest else [])
    if join_single and batch_size > 1 and rest == 1 and full:
        one_epoch[-2:] = [batch_size + 1]
    return one_epoch


@given(counts=counts_of_sites, batch_size=st.integers(1, 9), epochs=st.integers(1, 3), join_single=st.booleans())
def test_every_epoch_is_a_permutation(counts: list[int], batch_size: int, epochs: int, join_single: bool) -> None:
    found = drawn(counts, join_single=join_single, batch_size=batch_size, epochs=epochs)
    assert found.rows.dtype == found.counts.dtype == found.steps.dtype == np.int64
    assert found.rows.shape[:2] == found.counts.shape == (int(found.steps.max()), len(counts))
    for site, count in enumerate(counts):
        wanted = expected_sizes(count, batch_size, join_single)
        assert sizes(found, site) == wanted * epochs
        rows = [row for batch in batches(found, site) for row in batch]
        for epoch in range(epochs):
            assert sorted(rows[epoch * count : (epoch + 1) * count]) == list(range(count))
        assert (found.counts[found.steps[site] :, site] == 0).all()


@given(counts=counts_of_sites, batch_size=st.integers(1, 9), steps=st.integers(1, 12), join_single=st.booleans())
def test_steps_continue_into_the_next_epoch(counts: list[int], batch_size: int, steps: int, join_single: bool) -> None:
    found = drawn(counts, join_single=join_single, batch_size=batch_size, steps=steps)
    for site, count in enumerate(counts):
        assert found.steps[site] == (steps if count else 0)
        if not count:
            continue
        epochs = -(-steps // len(expected_sizes(count, batch_size, join_single)))
        whole = drawn(counts, join_single=join_single, batch_size=batch_size, epochs=epochs)
        assert batches(found, site) == batches(whole, site)[:steps]


@given(counts=counts_of_sites, batch_size=st.integers(1, 9), data=st.data())
def test_a_site_draws_the_same_in_any_chunk(counts: list[int], batch_size: int, data: st.DataObject) -> None:
    work = data.draw(st.sampled_from([{"epochs": 2}, {"steps": 7}]))
    whole = drawn(counts, batch_size=batch_size, **work)
    chunk = data.draw(st.permutations(range(len(counts))))[: data.draw(st.integers(1, len(counts)))]
    part = drawn(counts, batch_size=batch_size, sites=chunk, **work)
    for place, site in enumerate(chunk):
        assert batches(part, place) == batches(whole, site)


def test_places_without_a_row_hold_row_zero() -> None:
    found = drawn([3, 20], batch_size=8)
    outside = np.arange(found.rows.shape[2]) >= found.counts[:, :, None]
    assert outside.any()
    assert (found.rows[outside] == 0).all()


def test_the_order_changes_with_epoch_round_seed_and_site() -> None:
    first = drawn([30, 30], batch_size=30, epochs=2)
    one = first.rows[0, 0].tolist()
    assert one != list(range(30))
    assert one != first.rows[1, 0].tolist()
    assert one != first.rows[0, 1].tolist()
    assert one != drawn([30, 30], batch_size=30, index=1).rows[0, 0].tolist()
    assert one != drawn([30, 30], batch_size=30, seed=6).rows[0, 0].tolist()


def test_a_retried_attempt_draws_the_same_batches() -> None:
    keys, count, round = streams.site_keys(names_of(2)), np.array([9, 12]), make_round(epochs=2)
    first, again = (plan(keys, count, r, join_single=False) for r in (round, round.retried()))
    assert np.array_equal(first.rows, again.rows)


def test_all_orders_of_three_rows_are_equally_likely() -> None:
    # 6000 sites draw one of 3! = 6 orders: 1000 of each, give or take a binomial deviation of 29; 150 are five of them
    sites = tuple(f"s{k}" for k in range(6000))
    found = plan(streams.site_keys(sites), np.full(6000, 3), make_round(batch_size=3), join_single=False)
    orders, number = np.unique(found.rows[0], axis=0, return_counts=True)
    assert len(orders) == 6
    assert np.abs(number - 1000).max() < 150


@pytest.mark.parametrize(
    ("count", "batch_size", "expected"),
    [
        (17, 8, [8, 9]),
        (9, 8, [9]),
        (16, 8, [8, 8]),
        (18, 8, [8, 8, 2]),
        # nothing to join: a site of one row, and batches of one row by choice
        (1, 8, [1]),
        (3, 1, [1, 1, 1]),
    ],
)
def test_a_lone_last_row_joins_the_batch_before_it(count: int, batch_size: int, expected: list[int]) -> None:
    assert sizes(drawn([count], batch_size=batch_size, join_single=True), 0) == expected


def test_a_lone_last_row_stays_alone_where_rows_are_independent() -> None:
    assert sizes(drawn([17], join_single=False), 0) == [8, 8, 1]


# ------------------------------------------------------------------------------------------------ a number for each site


def test_a_range_gives_each_site_and_round_its_own_steps() -> None:
    found = drawn([30, 0, 30, 7], steps=(2, 9))
    assert (found.steps[[0, 2, 3]] >= 2).all()
    assert (found.steps <= 9).all()
    assert found.steps[1] == 0
    rounds = np.stack([drawn([30] * 4, steps=(2, 9), index=i).steps for i in range(20)])
    assert {len(set(site)) > 3 for site in rounds.T.tolist()} == {True}
    assert (
        rounds.tolist() != np.stack([drawn([30] * 4, steps=(2, 9), index=i, seed=6).steps for i in range(20)]).tolist()
    )


def test_a_range_of_epochs_is_in_whole_passes() -> None:
    for index in range(5):
        found = drawn([30, 7, 16], epochs=(1, 4), index=index)
        for site, per_epoch in enumerate((4, 1, 2)):
            assert found.steps[site] / per_epoch in (1, 2, 3, 4)


@given(counts=counts_of_sites, data=st.data())
def test_a_site_draws_the_same_work_and_batches_in_any_chunk(counts: list[int], data: st.DataObject) -> None:
    whole = drawn(counts, steps=(1, 6))
    chunk = data.draw(st.permutations(range(len(counts))))[: data.draw(st.integers(1, len(counts)))]
    alone = drawn(counts, sites=chunk, steps=(1, 6))
    for place, site in enumerate(chunk):
        steps = int(whole.steps[site])
        assert batches(alone, place) == batches(whole, site)
        assert batches(whole, site) == batches(drawn(counts, steps=max(steps, 1)), site)[:steps]


def test_all_numbers_of_a_range_are_equally_likely() -> None:
    # 6000 draws of 2 .. 7: 1000 of each, give or take a binomial deviation of 29; 150 are five of them
    keys = streams.site_keys(tuple(f"s{k}" for k in range(6000)))
    found = step_counts(keys, np.full(6000, 3), make_round(steps=(2, 7)), join_single=False)
    values, number = np.unique(found, return_counts=True)
    assert values.tolist() == [2, 3, 4, 5, 6, 7]
    assert np.abs(number - 1000).max() < 150


@pytest.mark.parametrize("counts", [[0], [0, 0, 0]])
@pytest.mark.parametrize("work", [{"epochs": 2}, {"steps": 3}])
def test_sites_without_rows_have_no_steps(counts: list[int], work: dict[str, int]) -> None:
    found = drawn(counts, **work)
    assert found.steps.tolist() == counts
    assert found.rows.shape == (0, len(counts), 0)
    assert found.counts.shape == (0, len(counts))


@pytest.mark.parametrize("work", [{"epochs": 1}, {"steps": 400}])
def test_a_tiny_site_does_not_make_the_large_ones_draw_more_epochs(work: dict[str, int]) -> None:
    # site 1 passes over its 16 rows 400 times while site 0 passes once over 6400: drawing 400 permutations of 6400 rows
    # for both takes seconds
    start = time.process_time()
    drawn([6400, 16, 0], batch_size=16, **work)
    assert time.process_time() - start < 0.5

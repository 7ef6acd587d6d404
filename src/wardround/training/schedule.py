"""Which rows make which batch, for K sites at once.

Each epoch of a site is a permutation of its rows drawn from the stream (seed, site, round, epoch), cut into batches of
`batch_size`; the last one may be smaller. Under BatchNorm a last batch of one row joins the one before it, since one row
has no variance. Where the round's work is a range, each site draws its own number of steps or epochs. The plan is a pure
function of names: a chunk, a worker and a lone hospital draw the same batches.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wardround import streams
from wardround.types import Round

Ints = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Batches of K sites.

    Attributes:
        rows: int64 [T, K, B], the row (0 .. n_k - 1) that fills each place; 0 where there is none.
        counts: int64 [T, K], rows in the batch of site k at step t; 0 after its last step.
        steps: int64 [K], steps of each site.
    """

    rows: Ints
    counts: Ints
    steps: Ints


def plan(keys: NDArray[np.uint64], count: Ints, round: Round, *, join_single: bool) -> Plan:
    """The batches of one round.

    Args:
        keys: uint64 [K], stream keys.
        count: int64 [K], rows of each site; a site with none has no steps.
        round: budget, seed and index.
        join_single: whether a last batch of one row joins the one before it.
    """
    batch, sites = round.work.batch_size, len(count)
    per_epoch = _batches(count, batch, join_single=join_single)
    steps = step_counts(keys, count, round, join_single=join_single)
    total = int(steps.max(initial=0))
    if total == 0:
        rows, counts = np.zeros((0, sites, 0), dtype=np.int64), np.zeros((0, sites), dtype=np.int64)
        return Plan(rows=rows, counts=counts, steps=steps)

    time = np.arange(total, dtype=np.int64)[:, None]
    safe = np.maximum(per_epoch, 1)
    epoch, place = np.where(time < steps, time // safe, -1), time % safe
    first = place * batch
    last = np.where(place == per_epoch - 1, count, first + batch)
    counts = np.where(time < steps, last - first, 0)

    width = int(counts.max())
    rows = np.zeros((total, sites, width), dtype=np.int64)
    for number in range(int(epoch.max()) + 1):
        at, site = np.nonzero(epoch == number)
        members = np.flatnonzero((epoch == number).any(0))
        order, start = _orders(keys[members], count[members], number, round)
        position = (start[np.searchsorted(members, site)] + first[at, site])[:, None] + np.arange(width)
        valid = np.arange(width) < counts[at, site][:, None]
        rows[at, site] = np.where(valid, order[np.minimum(position, len(order) - 1)], 0)
    return Plan(rows=rows, counts=counts, steps=steps)


def step_counts(keys: NDArray[np.uint64], count: Ints, round: Round, *, join_single: bool) -> Ints:
    """Steps that `plan` gives each site, int64 [K], without drawing its batches."""
    if round.work.epochs is not None:
        return _batches(count, round.work.batch_size, join_single=join_single) * _drawn(round.work.epochs, keys, round)
    return np.where(count > 0, _drawn(round.work.steps or 0, keys, round), 0).astype(np.int64)


def _drawn(budget: int | tuple[int, int], keys: NDArray[np.uint64], round: Round) -> int | Ints:
    """Each site's own number, int64 [K], from the stream (seed, site, round); one number for all where there is no range."""
    if isinstance(budget, int):
        return budget
    low, high = budget
    bits = streams.uniform_bits(keys, streams.key("work", round.seed, round.index), 1)[:, 0]
    return low + (bits % np.uint64(high - low + 1)).astype(np.int64)


def _batches(count: Ints, batch: int, *, join_single: bool) -> Ints:
    """Batches of an epoch, int64 [K]."""
    whole: Ints = -(-count // batch)
    return whole - ((count % batch == 1) & (whole > 1)) if join_single and batch > 1 else whole


def _orders(keys: NDArray[np.uint64], count: Ints, epoch: int, round: Round) -> tuple[Ints, Ints]:
    """One epoch's permutations, int64 [rows of all sites], site after site, and where each site's begins, int64 [K]."""
    start = np.cumsum(count) - count
    order = np.empty(int(count.sum()), dtype=np.int64)
    purpose = streams.key("batches", round.seed, round.index, epoch)
    size = np.frexp(count)[1]
    for alike in np.flatnonzero(
        np.bincount(size)
    ):  # padded to the longest of those less than twice as long, not of all
        sites = np.flatnonzero(size == alike)
        places = np.arange(count[sites].max())
        bits = streams.uniform_bits(keys[sites], purpose, len(places))
        bits >>= np.uint64(1)  # leaves the largest word free to sort padding behind every real row
        real = places < count[sites][:, None]
        bits[~real] = np.uint64(2**64 - 1)
        order[(start[sites][:, None] + places)[real]] = np.argsort(bits, axis=1)[real]
    return order, start

"""Which rows make which batch, for K sites at once.

Each epoch of a site is a permutation of its rows drawn from the stream (seed, site, round, epoch), cut into batches of
`batch_size`; the last one may be smaller. Balanced sampling fills batches of the same sizes: each place draws one of the
site's classes, all alike, and one of its rows, with replacement. Under BatchNorm a last batch of one row joins the one
before it, since one row has no variance. Where the round's work is a range, each site draws its own number of steps or
epochs. The plan is a pure function of names: a chunk, a worker and a lone hospital draw the same batches.
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


def plan(keys: NDArray[np.uint64], count: Ints, round: Round, *, join_single: bool, labels: Ints | None = None) -> Plan:
    """The batches of one round.

    Args:
        keys: uint64 [K], stream keys.
        count: int64 [K], rows of each site; a site with none has no steps.
        round: budget, seed and index.
        join_single: whether a last batch of one row joins the one before it.
        labels: int64 [rows of all sites], site after site, for balanced sampling; None takes each row once an epoch.
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
    if labels is not None:
        return Plan(rows=_balanced(keys, count, labels, counts, round), counts=counts, steps=steps)
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


def _balanced(keys: NDArray[np.uint64], count: Ints, labels: Ints, counts: Ints, round: Round) -> Ints:
    """Rows int64 [T, K, B], drawn from the classes of each site alike; 0 where `counts` [T, K] says that there is none."""
    total, sites = counts.shape
    width, stride = int(counts.max()), round.work.batch_size + 1  # a joined row makes a batch one longer
    owner = np.repeat(np.arange(sites), count)
    start = np.cumsum(count) - count
    order = np.lexsort((labels, owner)) - start[owner]
    classes = int(labels.max(initial=0)) + 1
    held = np.bincount(owner * classes + labels, minlength=sites * classes).reshape(sites, classes)
    first = np.cumsum(held, axis=1) - held
    present = np.argsort(held == 0, axis=1, kind="stable")  # a site's own classes, then those that it has not
    number = np.maximum((held > 0).sum(1), 1)

    purpose = streams.key("balanced", round.seed, round.index)
    bits = streams.uniform_bits(keys, purpose, total * stride * 2).reshape(sites, total, stride, 2)[:, :, :width]
    drawn = (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53
    site = np.arange(sites)[:, None, None]
    label = present[site, (drawn[..., 0] * number[:, None, None]).astype(np.int64)]
    place = first[site, label] + (drawn[..., 1] * held[site, label]).astype(np.int64)
    rows = order[np.minimum(start[:, None, None] + place, len(order) - 1)].transpose(1, 0, 2)
    return np.where(np.arange(width) < counts[:, :, None], rows, 0)


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

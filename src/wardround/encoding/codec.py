"""A contribution as digits that can be summed, and the sum of digits as sums of terms.

Digits are made and read in blocks, and arrays in pieces that stay in the processor's cache, so that neither side holds the
whole vector of digits. The weight goes on here, as a fraction of its public maximum; bounds, rotation and head-room follow.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from wardround import streams
from wardround.encoding import exponents, rotation, scaled, wide
from wardround.encoding.field import Field
from wardround.encoding.layout import BINS, CODEC, EXPONENT, FINE, RANGED, WEIGHT, Entry, Layout
from wardround.errors import MessageError
from wardround.types import Arrays, Contribution, Term

Rounding = Literal["nearest", "stochastic"]
Digits = NDArray[np.uint32]
Sums = NDArray[np.uint64]
Values = NDArray[np.float64]

BLOCK = 65520
"""Digits a block: a multiple of 1 to 8, so that no element of so many digits straddles two; about 2^16."""

_PIECE = 2**15
_WIDE_PIECE = 2**12
_MOST_FINE = 62


def encode(
    contribution: Contribution, k: int, layout: Layout, field: Field, scales: Mapping[str, int], *,
    rounding: Rounding, seed: int, signs: int,
) -> Iterator[Digits]:  # fmt: skip
    """The digits of site k, uint32, in blocks of BLOCK, the last shorter.

    Args:
        contribution: of K sites; site k's arrays are read once, in pieces.
        k: which site, 0 to K - 1.
        layout: what `layout_of` gives for this contribution.
        field: width of a digit.
        scales: `term/name` of each scaled array -> exponent e of its bound: values lie in [-2^e, 2^e], others are clipped.
            Not looked at where the part is `measure`.
        rounding: of scaled values.
        seed: of stochastic rounding; each site draws from a stream of its own.
        signs: public seed of the rotation, the same at every site.

    Raises:
        MessageError: the layout is of another contribution, a weight is not in 0..maximum, a value is not finite or too large,
            or a scaled array has no scale. The term and array are named. Nothing of this site may then be sent.
    """
    block = np.empty(min(BLOCK, layout.size), dtype=np.uint32)
    have = done = 0
    site = _Site(contribution, k, layout, field, scales, rounding, seed, signs)
    for digits in site.digits():
        taken = 0
        while taken < len(digits):
            count = min(len(digits) - taken, len(block) - have)
            block[have : have + count] = digits[taken : taken + count]
            taken, have = taken + count, have + count
            if have == len(block):
                yield block
                done += have
                have, block = 0, np.empty(min(BLOCK, layout.size - done), dtype=np.uint32)


class _Site:
    """One site's arrays on their way to digits."""

    def __init__(
        self, contribution: Contribution, k: int, layout: Layout, field: Field, scales: Mapping[str, int],
        rounding: Rounding, seed: int, signs: int,
    ) -> None:  # fmt: skip
        _check_fit(layout, field)
        _check_whole(contribution, layout)
        self._terms, self._k, self._layout, self._field = contribution.terms, k, layout, field
        self._scales, self._signs = scales, signs
        name = contribution.sites[k]
        self._draw = streams.generator("rounding", seed, name) if rounding == "stochastic" else None
        self._fractions = {term: _fraction(term, content, k) for term, content in contribution.terms.items()}
        self._peaks: dict[str, float] = {}
        self._clipped = 0
        longest = rotation.LONGEST if layout.rotated else _PIECE
        self._scratch = torch.empty(longest, dtype=torch.float64)
        self._draws = np.empty(longest if self._draw else 0, dtype=np.float32)

    def digits(self) -> Iterator[Digits]:
        for entry in self._layout.entries:
            if entry.coding == "wide":
                yield from self._wide(entry)
            elif entry.coding == "scaled":
                yield from self._scaled(entry)
            elif entry.coding == "fine":
                yield from self._fine(entry)
            else:
                yield exponents.one_hot(self._peak(entry))

    def _wide(self, entry: Entry) -> Iterator[Digits]:
        limbs, bound = wide.limbs(self._field.bits), wide.bound(self._field.sites)
        if entry.term == CODEC:
            yield wide.to_digits(np.array([float(self._clipped)]), limbs)
            return
        if entry.name == WEIGHT:
            yield wide.to_digits(np.array([self._fractions[entry.term]]), limbs)
            return
        for _, values, peak in self._pieces(entry, rotated=False):
            if peak >= bound:
                value = values[np.abs(values).argmax()]
                raise MessageError(
                    f"'{entry.flat}' holds {value:g}, expected a magnitude below {bound:g}: a sum over "
                    f"{self._field.sites} sites might not fit"
                )
            yield wide.to_digits(values, limbs)

    def _scaled(self, entry: Entry) -> Iterator[Digits]:
        exponent = _scale(self._scales, entry)
        largest = 0.0
        for _, values, peak in self._pieces(entry, rotated=self._layout.rotated):
            largest = max(largest, peak)
            draws = None
            if self._draw is not None:
                draws = self._draws[: len(values)]
                self._draw.random(dtype=np.float32, out=draws)
            digits, clipped = scaled.quantise(values, peak, exponent, self._field.bits, draws)
            self._clipped += clipped
            yield digits
        self._peaks[entry.flat] = largest

    def _fine(self, entry: Entry) -> Iterator[Digits]:
        exponent, largest = _scale(self._scales, entry), 0.0
        for _, values, peak in self._pieces(entry, rotated=False):
            largest = max(largest, peak)
            digits, clipped = scaled.quantise_fine(values, peak, exponent, self._field.bits)
            self._clipped += clipped
            yield digits
        self._peaks[entry.flat] = largest

    def _peak(self, entry: Entry) -> float:
        """The largest magnitude of an exponent's array: known where it was coded, found where the part is `measure`."""
        name = entry.name.removeprefix(EXPONENT)
        flat = f"{entry.term}/{name}"
        if flat not in self._peaks:
            value = self._array(entry.term, name)
            array = Entry(
                term=entry.term,
                name=name,
                shape=tuple(value.shape),
                dtype="float64",
                coding="scaled",
                start=0,
                digits=0,
            )
            rotated = self._layout.rotated and not self._terms[entry.term].accumulates
            pieces = self._pieces(array, rotated=rotated)
            self._peaks[flat] = max((peak for _, _, peak in pieces), default=0.0)
        return self._peaks[flat]

    def _pieces(self, entry: Entry, *, rotated: bool) -> Iterator[tuple[int, Values, float]]:
        """Fraction x array, rotated where asked: first element, values (scratch, float64), largest magnitude."""
        array = self._array(entry.term, entry.name)
        if tuple(array.shape) != entry.shape:
            raise MessageError(f"array '{entry.flat}' is {list(array.shape)}, and the layout has {list(entry.shape)}")
        flat, fraction = array.detach().reshape(-1), self._fractions[entry.term]
        for start, stop in _spans(entry, rotated=rotated):
            piece = self._scratch[: stop - start]
            piece.copy_(flat[start:stop])
            values = piece.numpy()
            peak = _largest(values, entry) * fraction
            values *= fraction
            if rotated:
                values = rotation.rotate(values, start, self._signs, entry.flat)
                peak = _largest(values, entry)
            yield start, values, peak

    def _array(self, term: str, name: str) -> torch.Tensor:
        content = self._terms.get(term)
        if content is None or name not in content.arrays:
            raise MessageError(f"the layout has '{term}/{name}', and this contribution has not: they differ")
        return content.arrays[name][self._k]


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """What a sum of digits says.

    Attributes:
        arrays: `term/name` -> sum over sites of fraction x array, and the sums of fractions under `term/.weight`.
        exponents: `term/name` of each scaled array -> the largest exponent of any site's values, rotated where they were.
        clipped: entries of scaled arrays that were clipped, over all sites.
        entries: entries of scaled arrays, over all sites.
    """

    arrays: Arrays
    exponents: dict[str, int]
    clipped: int
    entries: int


class Decoder:
    """Reads a sum of digits, block by block.

    Args:
        layout: that of every site in the sum.
        field: width of a digit.
        scales: as they were given to `encode`.
        count: number of sites in the sum.
        signs: public seed of the rotation.

    Raises:
        MessageError: more sites than the field has head-room for, or none; a layout for digits of another width; or a scaled
            array has no scale.
    """

    def __init__(self, layout: Layout, field: Field, scales: Mapping[str, int], count: int, *, signs: int) -> None:
        if not 1 <= count <= field.sites:
            raise MessageError(f"a sum over {count} sites, and its digits have head-room for 1 to {field.sites}")
        _check_fit(layout, field)
        self._layout, self._field, self._count, self._signs = layout, field, count, signs
        self._scales = {entry.flat: _scale(scales, entry) for entry in layout.entries if entry.coding in RANGED}
        self._arrays: Arrays = {}
        self._exponents: dict[str, int] = {}
        self._clipped = 0.0
        self._plan = self._pieces()
        self._due = next(self._plan, None)
        self._gathered = np.empty(0, dtype=np.uint64)
        self._have = 0

    def feed(self, block: Sums) -> None:
        """Take the next digits, uint64, any number of them.

        Raises:
            MessageError: more digits than the layout has, or digits that no sum of so many sites has: they are damaged, or
                masks and keys do not match.
        """
        taken = 0
        while taken < len(block):
            if self._due is None:
                raise MessageError(f"more digits came than the layout's {self._layout.size}")
            entry, start, stop, size = self._due
            if self._have == 0 and len(block) - taken >= size:
                self._read(entry, start, stop, block[taken : taken + size])
                taken += size
                self._due = next(self._plan, None)
                continue
            count = min(size - self._have, len(block) - taken)
            if len(self._gathered) < size:
                self._gathered = np.empty(size, dtype=np.uint64)
            self._gathered[self._have : self._have + count] = block[taken : taken + count]
            taken, self._have = taken + count, self._have + count
            if self._have == size:
                self._read(entry, start, stop, self._gathered[:size])
                self._have = 0
                self._due = next(self._plan, None)

    def result(self) -> Decoded:
        """Everything, once all digits were fed. Raises MessageError before that."""
        if self._due is not None:
            raise MessageError(f"digits end within '{self._due[0].flat}': the layout has {self._layout.size}")
        arrays, entries = {}, 0
        for entry in self._layout.entries:
            if entry.coding in RANGED:
                entries += entry.size * self._count
            if entry.coding != "count" and entry.term != CODEC:
                arrays[entry.flat] = self._target(entry).view(entry.shape)
        clipped = int(self._clipped)
        if clipped != self._clipped or not 0 <= clipped <= entries:
            raise MessageError(f"{self._clipped} of {entries} entries are said to be clipped: the sum is damaged")
        return Decoded(arrays=arrays, exponents=dict(self._exponents), clipped=clipped, entries=entries)

    def _pieces(self) -> Iterator[tuple[Entry, int, int, int]]:
        """Entry, first and past the last element, digits: of each piece, in order."""
        for entry in self._layout.entries:
            if entry.coding == "count":
                yield entry, 0, BINS, BINS
                continue
            width = {"wide": wide.limbs(self._field.bits), "fine": FINE}.get(entry.coding, 1)
            rotated = self._layout.rotated and entry.coding == "scaled"
            for start, stop in _spans(entry, rotated=rotated):
                yield entry, start, stop, (stop - start) * width

    def _read(self, entry: Entry, start: int, stop: int, sums: Sums) -> None:
        limbs = wide.limbs(self._field.bits)
        bits = {"wide": 128 // limbs, "count": 1}.get(entry.coding, self._field.bits)
        most = self._count * (2**bits - 1)
        if int(sums.max()) > most:
            raise MessageError(
                f"a digit of '{entry.flat}' sums to {int(sums.max())}, and {self._count} sites give at most {most}: the sum is "
                "damaged, or keys and masks do not match"
            )
        if entry.coding == "count":
            if int(sums.sum()) != self._count:
                raise MessageError(
                    f"'{entry.flat}' counts {int(sums.sum())} sites, expected {self._count}: the sum is damaged"
                )
            self._exponents[f"{entry.term}/{entry.name.removeprefix(EXPONENT)}"] = exponents.largest(sums)
            return
        if entry.coding == "wide":
            values = wide.from_sums(sums, limbs, self._count)
        elif entry.coding == "fine":
            values = scaled.dequantise_fine(sums, self._count, self._scales[entry.flat], self._field.bits)
        else:
            values = scaled.dequantise(sums, self._count, self._scales[entry.flat], self._field.bits)
            if self._layout.rotated:
                values = rotation.restore(values, start, self._signs, entry.flat)
        if entry.term == CODEC:
            self._clipped = float(values[0])
            return
        self._target(entry)[start:stop].copy_(torch.from_numpy(values))

    def _target(self, entry: Entry) -> torch.Tensor:
        """The flat array that an entry is decoded into."""
        if entry.flat not in self._arrays:
            self._arrays[entry.flat] = torch.empty(entry.size, dtype=getattr(torch, entry.dtype))
        return self._arrays[entry.flat]


def _spans(entry: Entry, *, rotated: bool) -> Iterator[tuple[int, int]]:
    """(first, past the last) element of each piece of an entry."""
    if rotated:
        return rotation.spans(entry.size)
    step = _WIDE_PIECE if entry.coding == "wide" else _PIECE
    return ((start, min(start + step, entry.size)) for start in range(0, entry.size, step))


def _check_fit(layout: Layout, field: Field) -> None:
    """Raise MessageError where a layout was made for limbs of another width."""
    limbs = wide.limbs(field.bits)
    for entry in layout.entries:
        if entry.coding == "fine" and 2 * field.bits + field.head > _MOST_FINE:
            raise MessageError(
                f"'{entry.flat}' needs {2 * field.bits} bits and {field.head} of head-room, and {_MOST_FINE} are there: take "
                "fewer privacy.encoding.bits"
            )
        if entry.coding == "wide" and entry.digits != entry.size * limbs:
            raise MessageError(
                f"the layout gives '{entry.flat}' {entry.digits} digits, and {field.bits} bits a digit make it "
                f"{entry.size * limbs}: server and site differ in privacy.encoding.bits"
            )


def _check_whole(contribution: Contribution, layout: Layout) -> None:
    """Raise MessageError where the contribution has more than the layout, which would silently stay behind."""
    if layout.part == "measure":
        there = sum(entry.coding == "count" for entry in layout.entries)
        expected = sum(len(term.arrays) for term in contribution.terms.values() if not term.exact)
    else:
        there = sum(entry.coding != "count" and entry.term != CODEC for entry in layout.entries)
        expected = sum(len(term.arrays) + 1 for term in contribution.terms.values())
    if there != expected:
        raise MessageError(f"the layout has {there} arrays and weights, and this contribution {expected}: they differ")


def _fraction(name: str, term: Term, k: int) -> float:
    weight = float(term.weights[k])
    fraction = weight / term.maximum if term.maximum > 0 else math.nan
    if not 0.0 <= fraction <= 1.0:
        raise MessageError(f"term '{name}' weighs {weight:g}, expected 0 to its public maximum {term.maximum:g}")
    return fraction


def _largest(values: Values, entry: Entry) -> float:
    """The largest magnitude. Raises MessageError where a value is not finite."""
    low, high = float(values.min()), float(values.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise MessageError(f"a non-finite value in '{entry.flat}'")
    return max(-low, high)


def _scale(scales: Mapping[str, int], entry: Entry) -> int:
    exponent = scales.get(entry.flat)
    if exponent is None:
        raise MessageError(f"no scale for '{entry.flat}': measure its exponents first")
    if type(exponent) is not int or not scaled.LEAST_EXPONENT <= exponent <= scaled.MOST_EXPONENT:
        raise MessageError(
            f"the scale of '{entry.flat}' is {exponent!r}, expected a whole number from {scaled.LEAST_EXPONENT} to "
            f"{scaled.MOST_EXPONENT}"
        )
    return exponent

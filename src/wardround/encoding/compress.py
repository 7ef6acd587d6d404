"""Smaller updates for a server that may see each site's own: quantised, sparsified, or both.

An array v of n values becomes the `top_k` fraction of them, the largest by magnitude (Stich, Cordonnier and Jaggi, Sparsified
SGD with memory, NeurIPS 2018; Lin et al., Deep gradient compression, ICLR 2018), and each kept value a code of b bits on a
grid of the array's own range:

    code = round(v / s (2^(b-1) - 1)) + 2^(b-1),    s = max |v|

with rounding to the nearest, or stochastic rounding, which is unbiased (Alistarh et al., QSGD, NeurIPS 2017). Codes are packed
bit by bit. Everything is a pure function of the values, the round and the site's name, so that a site knows what the server
will read, and a retried attempt sends the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from wardround import streams
from wardround.config.job import EncodingSpec
from wardround.encoding import rotation
from wardround.errors import ConfigError, MessageError

UNBIASED_BELOW = 16
"""Bits below which `rounding: auto` is stochastic."""

_PIECE = 2**14
_LARGEST = float(np.finfo(np.float32).max)

Values = NDArray[np.float64]
Bytes = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Packet:
    """K sites' values of one array, compressed.

    Attributes:
        codes: uint8 [K, bytes], where values are quantised.
        scales: float32 [K], their ranges.
        indices: int32 [K, m], ascending, where only some are kept.
        values: float32 [K, m], where they are kept as they are.
    """

    codes: torch.Tensor | None = None
    scales: torch.Tensor | None = None
    indices: torch.Tensor | None = None
    values: torch.Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Compression:
    """How arrays are compressed.

    Attributes:
        bits: of a code, 8 to 24; None keeps float32.
        stochastic: whether codes are rounded without bias.
        rotation: whether arrays are rotated first, so that one large value does not widen the grid of all.
        top_k: fraction of the values that is sent; None for all.
        feedback: whether what is left out is added to the next update; without it, what accumulates is not compressed.

    Raises:
        ConfigError: neither bits nor top_k, or a rotation that would be of no use.
    """

    bits: int | None = None
    stochastic: bool = False
    rotation: bool = False
    top_k: float | None = None
    feedback: bool = False

    def __post_init__(self) -> None:
        if self.bits is None and self.top_k is None:
            raise ConfigError("a compression needs privacy.encoding.bits, privacy.encoding.top_k, or both")
        if self.rotation and (self.bits is None or self.top_k is not None):
            raise ConfigError(
                "privacy.encoding.rotation helps rounding alone: on the plain channel set privacy.encoding.bits, and leave "
                "privacy.encoding.top_k out"
            )

    def kept(self, size: int) -> int:
        """How many of `size` values are sent: at least one of any."""
        return size if self.top_k is None else min(size, math.ceil(self.top_k * size))

    def code_bytes(self, size: int) -> int:
        """Bytes of the codes of an array of `size` values."""
        return 0 if self.bits is None else -(-self.kept(size) * self.bits // 8)

    def compress(self, values: torch.Tensor, name: str, seed: int, keys: NDArray[np.uint64]) -> Packet:
        """Compress one array of K sites.

        Args:
            values: [K, ...], finite.
            name: of the array.
            seed: the round's, the same at every site and the server.
            keys: uint64 [K], the sites' stream keys, for stochastic rounding.
        """
        flat = values.detach().cpu().reshape(len(values), values[0].numel())
        flat = flat if flat.dtype in (torch.float32, torch.float64) else flat.float()
        indices = None
        if self.top_k is not None:
            chosen = torch.topk(flat.abs(), self.kept(flat.shape[1]), dim=1, sorted=False).indices
            chosen = chosen.sort(dim=1).values
            flat, indices = flat.gather(1, chosen), chosen.int()
        if self.bits is None:
            return Packet(indices=indices, values=flat.float())
        numbers = _rotated(flat.numpy().astype(np.float64), name, seed) if self.rotation else flat.numpy()
        scales = _scales(numbers)
        codes = np.empty((len(flat), self.code_bytes(values[0].numel())), dtype=np.uint8)
        for start, stop in _pieces(flat.shape[1]):
            draws = None
            if self.stochastic:
                purpose = streams.key("rounding", seed, name, start)
                draws = (streams.uniform_bits(keys, purpose, stop - start) >> np.uint64(40)).astype(
                    np.float64
                ) * 2.0**-24
            digits = _quantised(numbers[:, start:stop].astype(np.float64), scales, self.bits, draws)
            codes[:, start * self.bits // 8 : -(-stop * self.bits // 8)] = _packed(digits, self.bits)
        return Packet(codes=torch.from_numpy(codes), scales=torch.from_numpy(scales), indices=indices)

    def expand(self, packet: Packet, size: int, dtype: torch.dtype, name: str, seed: int) -> torch.Tensor:
        """What the packet says: [K, size], 0 where nothing was sent.

        Raises:
            MessageError: it is not a packet that `compress` makes for an array of this size.
        """
        self._check(packet, size, name)
        if packet.codes is None or packet.scales is None or self.bits is None:
            found = torch.empty(0) if packet.values is None else packet.values.to(dtype)
        else:
            found = torch.empty(len(packet.codes), self.kept(size), dtype=torch.float64 if self.rotation else dtype)
            codes, scales = packet.codes.numpy(), packet.scales.numpy().astype(np.float64)
            for start, stop in _pieces(found.shape[1]):
                part = codes[:, start * self.bits // 8 : -(-stop * self.bits // 8)]
                found[:, start:stop] = torch.from_numpy(_numbers(part, scales, self.bits, stop - start))
            if self.rotation:
                found = torch.from_numpy(_restored(found.numpy(), name, seed)).to(dtype)
        if packet.indices is None:
            return found
        return torch.zeros(len(found), size, dtype=dtype).scatter_(1, packet.indices.long(), found)

    def _check(self, packet: Packet, size: int, name: str) -> None:
        kept = self.kept(size)
        expected: dict[str, tuple[torch.dtype, int | None]] = {}
        if self.bits is None:
            expected["values"] = torch.float32, kept
        else:
            expected |= {"codes": (torch.uint8, self.code_bytes(size)), "scales": (torch.float32, None)}
        if self.top_k is not None:
            expected["indices"] = torch.int32, kept
        sites = set()
        for field in ("codes", "scales", "indices", "values"):
            found = getattr(packet, field)
            form = None if found is None else (found.dtype, *found.shape[1:])
            wanted = expected.get(field)
            if form != (None if wanted is None else tuple(part for part in wanted if part is not None)):
                raise MessageError(
                    f"the {field} of '{name}' are {form}, expected {wanted}: server and site differ in privacy.encoding"
                )
            sites |= set() if found is None else {len(found)}
        if len(sites) != 1:
            raise MessageError(f"the parts of '{name}' speak for {sorted(sites)} sites, expected one number")
        if packet.scales is not None and not bool((packet.scales.isfinite() & (packet.scales >= 0)).all()):
            raise MessageError(f"a range of '{name}' is not a finite number of 0 or more")
        if packet.values is not None and not bool(packet.values.isfinite().all()):
            raise MessageError(f"a non-finite value in '{name}'")
        if packet.indices is not None and kept:
            ascending = bool((packet.indices[:, 1:] > packet.indices[:, :-1]).all())
            if not ascending or int(packet.indices.min()) < 0 or int(packet.indices.max()) >= size:
                raise MessageError(f"the indices of '{name}' are not ascending numbers below {size}")


def compression_of(spec: EncodingSpec) -> Compression | None:
    """The compression that `privacy.encoding` asks for on the plain channel; None where updates travel as they are.

    Raises:
        ConfigError: a rotation or feedback without anything that is rounded or left out.
    """
    if spec.bits is None and spec.top_k is None:
        idle = [name for name in ("rotation", "feedback") if getattr(spec, name)]
        if idle:
            raise ConfigError(
                f"privacy.encoding.{idle[0]} = true, and nothing is rounded or left out on the plain channel: set "
                "privacy.encoding.bits or privacy.encoding.top_k, or leave it out"
            )
        return None
    stochastic = spec.rounding == "stochastic" or (
        spec.rounding == "auto" and spec.bits is not None and spec.bits < UNBIASED_BELOW
    )
    return Compression(
        bits=spec.bits, stochastic=stochastic, rotation=spec.rotation, top_k=spec.top_k, feedback=spec.feedback
    )


# a piece is fixed in length, so that neither the number of sites nor their chunk changes what is drawn for a value
def _pieces(size: int) -> Iterator[tuple[int, int]]:
    return ((start, min(start + _PIECE, size)) for start in range(0, size, _PIECE))


def _scales(values: NDArray[np.floating]) -> NDArray[np.float32]:
    """The least float32 that bounds each row's magnitudes, [K]."""
    peaks = np.abs(values).max(axis=1, initial=0.0).astype(np.float64)
    scales: NDArray[np.float32] = np.minimum(peaks, _LARGEST).astype(np.float32)
    low = scales < peaks
    scales[low] = np.nextafter(scales[low], np.float32(_LARGEST))
    return scales


def _quantised(values: Values, scales: NDArray[np.float32], bits: int, draws: Values | None) -> NDArray[np.uint32]:
    """Digits, uint32 [K, n]; `values` is spent. A row of zeros is all 2^(bits-1)."""
    top = (1 << (bits - 1)) - 1
    wide = scales.astype(np.float64)[:, None]
    values /= np.where(wide > 0, wide, 1.0)
    values *= top
    np.clip(values, -top, top, out=values)
    if draws is None:
        np.rint(values, out=values)
    else:
        values += draws
        np.floor(values, out=values)
    values += top + 1
    return values.astype(np.uint32)


def _numbers(codes: Bytes, scales: Values, bits: int, count: int) -> Values:
    """Values of codes [K, bytes], float64 [K, count]."""
    top = (1 << (bits - 1)) - 1
    values = _unpacked(codes, bits, count).astype(np.float64)
    values -= top + 1
    values *= scales[:, None] / top
    return values


def _packed(digits: NDArray[np.uint32], bits: int) -> Bytes:
    """Digits [K, n] below 2^bits side by side, the lowest bit first, uint8 [K, ceil(n bits / 8)]."""
    each = digits.astype("<u4")[..., None].view(np.uint8)
    if bits % 8 == 0:
        return each[..., : bits // 8].reshape(len(digits), -1)
    single = np.unpackbits(each, axis=-1, bitorder="little")[..., :bits]
    return np.packbits(single.reshape(len(digits), -1), axis=1, bitorder="little")


def _unpacked(codes: Bytes, bits: int, count: int) -> NDArray[np.uint32]:
    """The inverse of `_packed`: uint32 [K, count]."""
    each = np.zeros((len(codes), count, 4), dtype=np.uint8)
    if bits % 8 == 0:
        each[..., : bits // 8] = codes.reshape(len(codes), count, bits // 8)
    else:
        single = np.unpackbits(codes, axis=1, count=count * bits, bitorder="little").reshape(len(codes), count, bits)
        packed = np.packbits(single, axis=-1, bitorder="little")
        each[..., : packed.shape[-1]] = packed
    return each.view("<u4")[..., 0].astype(np.uint32)


def _rotated(values: Values, name: str, seed: int) -> Values:
    for start, stop in rotation.spans(values.shape[1]):
        values[:, start:stop] = rotation.rotate(values[:, start:stop].copy(), start, seed, name)
    return values


def _restored(values: Values, name: str, seed: int) -> Values:
    for start, stop in rotation.spans(values.shape[1]):
        values[:, start:stop] = rotation.restore(values[:, start:stop].copy(), start, seed, name)
    return values

"""The compressed arrays of K sites as a few tensors of one message, each site's share a row."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch

from wardround import streams
from wardround.encoding.compress import Compression, Packet
from wardround.errors import MessageError
from wardround.types import Arrays, Contribution, Json, Term

PARTS = {"codes": torch.uint8, "scales": torch.float32, "indices": torch.int32, "values": torch.float32}
"""Names of the tensors, each with a dot before it, and their dtypes."""

_DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32, "float64": torch.float64}


def round_seed(round: Mapping[str, Json]) -> int:
    """What rounding and rotation draw from in one round; a retried attempt draws the same."""
    return streams.key("compression", int(round["seed"]), int(round["index"]))


def travels_whole(term: Term, compression: Compression) -> bool:
    """Whether a term is not compressed: it must be exact, or it accumulates and no feedback makes up for what is left out."""
    return term.exact or (term.accumulates and not compression.feedback)


def compressible(contribution: Contribution, compression: Compression) -> Arrays:
    """`term/name` -> [K, ...] of the arrays that are compressed."""
    return {
        f"{term}/{name}": value if value.is_floating_point() else value.double()
        for term, content in contribution.terms.items()
        if not travels_whole(content, compression)
        for name, value in content.arrays.items()
    }


def packed(arrays: Arrays, sites: tuple[str, ...], compression: Compression, seed: int) -> tuple[Arrays, Json]:
    """Tensors `.codes`, `.scales`, `.indices` and `.values` [K, ...], as far as there are any, and what they hold.

    Args:
        arrays: `term/name` -> [K, ...], K at least 1.
        sites: K names.
        compression: how.
        seed: of the round.
    """
    keys = streams.site_keys(sites)
    rows: dict[str, list[torch.Tensor]] = {part: [] for part in PARTS}
    for name, value in arrays.items():
        packet = compression.compress(value, name, seed, keys)
        for part, kept in rows.items():
            found = getattr(packet, part)
            if found is not None:
                kept.append(found if found.dim() == 2 else found[:, None])
    tensors = {f".{part}": torch.cat(kept, dim=1) for part, kept in rows.items() if kept}
    return tensors, [[name, _name(value.dtype), list(value.shape[1:])] for name, value in arrays.items()]


def opened(
    arrays: Mapping[str, torch.Tensor], contents: Json, sites: int, compression: Compression, seed: int
) -> Iterator[tuple[str, torch.Tensor]]:
    """`term/name`, [K, ...] of each array, in the order in which it was packed.

    Args:
        arrays: a message's; others than a parcel's are passed over.
        contents: what `packed` says that they hold.
        sites: K.
        compression: how they were compressed.
        seed: of the round.

    Raises:
        MessageError: not a parcel that `packed` makes for K sites.
    """
    tensors = {part: arrays[f".{part}"] for part in PARTS if f".{part}" in arrays}
    for part, value in tensors.items():
        if value.dtype != PARTS[part] or value.dim() != 2 or len(value) != sites:
            raise MessageError(f"'.{part}' is {value.dtype} {list(value.shape)}, expected {PARTS[part]} [{sites}, n]")
    done = dict.fromkeys(tensors, 0)
    for content in _contents(contents):
        size = math.prod(content.shape)
        kept = compression.kept(size)
        widths = {"codes": compression.code_bytes(size), "scales": 1, "indices": kept, "values": kept}
        mine: dict[str, torch.Tensor] = {}
        for part, value in tensors.items():
            if done[part] + widths[part] > value.shape[1]:
                raise MessageError(f"'.{part}' ends within '{content.name}'")
            mine[part] = value[:, done[part] : done[part] + widths[part]]
            done[part] += widths[part]
        packet = Packet(
            codes=mine.get("codes"), scales=mine["scales"][:, 0] if "scales" in mine else None,
            indices=mine.get("indices"), values=mine.get("values"),
        )  # fmt: skip
        found = compression.expand(packet, size, _DTYPES[content.dtype], content.name, seed)
        yield content.name, found.reshape(sites, *content.shape)
    for part, value in tensors.items():
        if done[part] != value.shape[1]:
            raise MessageError(f"'.{part}' has {value.shape[1]} columns, and its arrays take {done[part]}")


def sent(contribution: Contribution, compression: Compression, seed: int) -> Arrays:
    """`term/name` -> [K, ...]: what the server will read of the arrays that are compressed."""
    keys, found = streams.site_keys(contribution.sites), {}
    for name, value in compressible(contribution, compression).items():
        packet = compression.compress(value, name, seed, keys)
        read = compression.expand(packet, value[0].numel(), value.dtype, name, seed)
        found[name] = read.reshape(value.shape).to(value.device)
    return found


@dataclass(frozen=True, kw_only=True)
class _Content:
    name: str
    dtype: str
    shape: tuple[int, ...]


def _contents(given: Json) -> Iterator[_Content]:
    """What a message says that its parcel holds. Raises MessageError where that is malformed."""
    if not isinstance(given, list):
        raise MessageError(f"a parcel's contents are {str(given)[:80]!r}, expected a list")
    seen: set[str] = set()
    for one in given:
        fields: list[Json] = one if isinstance(one, list) and len(one) == 3 else ["", "", []]
        name, dtype, shape = fields
        named = isinstance(name, str) and "/" in name and name not in seen
        sizes = shape if isinstance(shape, list) and len(shape) <= 32 else [-1]
        shaped = all(type(size) is int and 0 <= size < 2**31 for size in sizes) and math.prod(sizes) < 2**31
        if not named or not isinstance(dtype, str) or dtype not in _DTYPES or not shaped:
            raise MessageError(f"a parcel holds {str(one)[:80]!r}, expected [term/name, dtype, shape], each name once")
        seen.add(name)
        yield _Content(name=name, dtype=dtype, shape=tuple(sizes))


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")

"""Messages as bytes: safetensors with a JSON header, never pickle.

Layout (https://github.com/huggingface/safetensors#format): 8 bytes, the header's length N, little-endian; N bytes of
JSON, padded with spaces to a multiple of 8; the tensors' bytes, little-endian, row-major. The header maps each name to
its dtype, shape and offsets, and `__metadata__` to texts. It keeps the order of the names; the payload is ordered by
item size, so that every tensor is aligned.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, NoReturn, cast

from wardround.content import Content
from wardround.errors import MessageError
from wardround.types import Arrays, Json, Message

if TYPE_CHECKING:
    import torch
    from torch import Tensor

HEADER_LIMIT = 16 * 2**20
"""Longest JSON header in bytes; a longer one is refused before it is parsed."""
LONG = 2**20
"""Bytes from which on the arrays of a message are read one by one, as they are asked for."""

_METADATA = "__metadata__"
_PREFIX = 8

_Signature = tuple[tuple[str, "torch.dtype", tuple[int, ...]], ...]


def encode(message: Message) -> bytes:
    """The message as bytes; the same message always gives the same bytes.

    Tensors may be of any shape, on any device and not contiguous; gradients do not travel.

    Raises:
        MessageError: `meta` is not JSON (NaN, say), a dtype has no wire form, or the header is above HEADER_LIMIT.
    """
    return pack(message.arrays, _metadata(message))


def pieces(message: Message) -> list[Any]:
    """`encode` as buffers to be written one after another: those of contiguous tensors on the CPU are no copies."""
    return packed(message.arrays, _metadata(message))


def stream(message: Message) -> Iterator[Any]:
    """`encode` as buffers, each made when it is asked for: of `Stored` arrays one is in memory at a time."""
    return _packed(message.arrays, _metadata(message))


def decode(data: bytes | bytearray | memoryview | Content) -> Message:
    """The message in `data`, its tensors on the CPU, names in the sender's order.

    Of a `Content` of LONG bytes or more, the arrays are `Stored`.

    Raises:
        MessageError: anything that `encode` does not produce.
    """
    arrays, metadata = unpack(data)
    if metadata.keys() != {"stage", "meta"}:
        _malformed(f"its metadata are {sorted(metadata)}, expected 'meta' and 'stage'")
    meta = _parse(metadata["meta"], "meta")
    if not isinstance(meta, dict):
        _malformed(f"its meta is a {type(meta).__name__}, expected an object")
    return Message(stage=metadata["stage"], meta=meta, arrays=arrays)


def size(message: Message) -> int:
    """Bytes of `encode(message)`, without copying the arrays."""
    return _size(_plan(_signature(message.arrays)), _metadata(message))


def size_without_axis(message: Message) -> int:
    """Bytes of the message with each array's leading axis taken away: one site's share of a reply that stacks K sites.

    Raises:
        MessageError: an array has no axis.
    """
    signature = _signature(message.arrays)
    for name, _, shape in signature:
        if not shape:
            raise MessageError(f"array '{name}' has no axis: only a reply that stacks sites has a size for one of them")
    return _size(_plan(tuple((name, dtype, shape[1:]) for name, dtype, shape in signature)), _metadata(message))


def pack(arrays: Arrays, metadata: Mapping[str, str]) -> bytes:
    """Named tensors and texts as a safetensors file.

    Raises:
        MessageError: a dtype has no wire form, a name is not text, or the header is above HEADER_LIMIT.
    """
    return b"".join(packed(arrays, metadata))


def packed(arrays: Arrays, metadata: Mapping[str, str]) -> list[Any]:
    """`pack` as buffers; see `pieces`."""
    return list(_packed(arrays, metadata))


def _packed(arrays: Arrays, metadata: Mapping[str, str]) -> Iterator[Any]:
    plan = _plan(_signature(arrays))
    header = b'{"__metadata__":' + _text(dict(metadata)) + plan.entries + b"}"
    header += b" " * (-len(header) % _PREFIX)
    if len(header) > HEADER_LIMIT:
        raise MessageError(f"the header takes {len(header)} bytes, expected at most {HEADER_LIMIT}: send fewer facts")
    yield len(header).to_bytes(_PREFIX, "little")
    yield header
    yield from (_payload(name, arrays[name]) for name in plan.layout)


def unpack(data: bytes | bytearray | memoryview | Content) -> tuple[Arrays, dict[str, str]]:
    """The tensors (on the CPU, in the header's order) and the texts of a safetensors file; see `decode`.

    Raises:
        MessageError: truncated, altered so that it no longer parses, or of a dtype that this package does not send.
    """
    content = data if isinstance(data, Content) else Content(data)
    start, header = _header(content)
    metadata = header.pop(_METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        _malformed(f"'{_METADATA}' is not a mapping of texts")
    stored = Stored(content.cut(start), _entries(header, content.size - start))
    stored.check()
    whole = not isinstance(data, Content) or data.size < LONG
    return (dict(stored) if whole else cast("Arrays", stored)), metadata


@dataclass(frozen=True, kw_only=True)
class _Entry:
    """One array in the payload: its dtype and shape, and its first byte and end there."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    end: int


class Stored(Mapping[str, "Tensor"]):
    """Arrays that lie in a file: each is read anew whenever it is asked for, so that memory is taken by those in use.

    It stands for `Arrays` where nothing is put into them.
    """

    def __init__(self, payload: Content, entries: Mapping[str, _Entry]) -> None:
        self._payload, self._entries = payload, entries

    def __getitem__(self, name: str) -> Tensor:
        import torch

        entry = self._entries[name]
        if entry.start == entry.end:
            return torch.empty(entry.shape, dtype=entry.dtype)
        return torch.frombuffer(self._payload.read(entry.start, entry.end), dtype=entry.dtype).reshape(entry.shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def under(self, prefix: str) -> Arrays:
        """Those whose names begin with a prefix, which is taken off."""
        found = {name[len(prefix) :]: entry for name, entry in self._entries.items() if name.startswith(prefix)}
        return cast("Arrays", Stored(self._payload, found))

    def check(self) -> None:
        """Raises MessageError where a boolean array holds another byte than 0 and 1.

        PyTorch's kernels assume these two, and give nonsense for anything else.
        """
        import torch

        for name, entry in self._entries.items():
            if entry.dtype == torch.bool and self._payload.read(entry.start, entry.end).translate(None, b"\x00\x01"):
                _malformed(f"array '{name}' is boolean and holds a byte other than 0 and 1")

    @property
    def signature(self) -> _Signature:
        """Name, dtype and shape of each array, none of which is read."""
        return tuple((name, entry.dtype, entry.shape) for name, entry in self._entries.items())


def under(arrays: Arrays, prefix: str) -> Arrays:
    """The arrays whose names begin with a prefix, which is taken off."""
    if isinstance(arrays, Stored):
        return arrays.under(prefix)
    return {name[len(prefix) :]: value for name, value in arrays.items() if name.startswith(prefix)}


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """What the header says of the tensors: the part that depends on names, dtypes and shapes alone.

    Attributes:
        entries: a leading comma and the JSON members, or nothing.
        layout: names in the order of their bytes.
        payload: bytes of all tensors.
    """

    entries: bytes
    layout: tuple[str, ...]
    payload: int


def _signature(arrays: Arrays) -> _Signature:
    if isinstance(arrays, Stored):
        return arrays.signature
    return tuple((name, value.dtype, tuple(value.shape)) for name, value in arrays.items())


@lru_cache(maxsize=1024)
def _plan(signature: _Signature) -> _Plan:
    codes = _codes()
    for name, dtype, _ in signature:
        if name == _METADATA or not isinstance(name, str):
            raise MessageError(f"an array cannot be named {name!r}: choose another name")
        if dtype not in codes:
            raise MessageError(f"array '{name}' is {dtype}, which has no wire form: expected one of {list(codes)}")
    layout = sorted(signature, key=lambda item: (-item[1].itemsize, item[0]))
    offsets: dict[str, tuple[int, int]] = {}
    end = 0
    for name, dtype, shape in layout:
        start, end = end, end + math.prod(shape) * dtype.itemsize
        offsets[name] = (start, end)
    entries = [
        b","
        + _text(name)
        + b":"
        + _text({"dtype": codes[dtype], "shape": list(shape), "data_offsets": list(offsets[name])})
        for name, dtype, shape in signature
    ]
    return _Plan(entries=b"".join(entries), layout=tuple(name for name, _, _ in layout), payload=end)


def _size(plan: _Plan, metadata: Mapping[str, str]) -> int:
    header = len('{"__metadata__":') + len(_text(metadata)) + len(plan.entries) + len("}")
    return _PREFIX + header + -header % _PREFIX + plan.payload


@cache
def _codes() -> dict[torch.dtype, str]:
    import torch

    return {
        torch.float64: "F64",
        torch.float32: "F32",
        torch.float16: "F16",
        torch.bfloat16: "BF16",
        torch.int64: "I64",
        torch.int32: "I32",
        torch.int16: "I16",
        torch.int8: "I8",
        torch.uint64: "U64",
        torch.uint32: "U32",
        torch.uint16: "U16",
        torch.uint8: "U8",
        torch.bool: "BOOL",
    }


@cache
def _dtypes() -> dict[str, torch.dtype]:
    return {code: dtype for dtype, code in _codes().items()}


def _metadata(message: Message) -> dict[str, str]:
    if not isinstance(message.stage, str):
        raise MessageError(f"stage = {message.stage!r}: expected a text")
    try:
        meta = json.dumps(
            dict(message.meta), sort_keys=True, allow_nan=False, ensure_ascii=False, separators=(",", ":")
        )
    except (TypeError, ValueError, RecursionError) as error:
        raise MessageError(f"the meta of stage '{message.stage}' is not JSON: {error}") from error
    return {"stage": message.stage, "meta": meta}


def _text(value: Json) -> bytes:
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError as error:
        raise MessageError(f"a text is not valid Unicode: {error}") from error


def _payload(name: str, value: Tensor) -> Any:
    """The tensor's bytes as a buffer, copied only where it is not contiguous or not on the CPU."""
    import torch

    if value.layout != torch.strided:
        raise MessageError(f"array '{name}' has layout {value.layout}, expected a dense tensor: call to_dense()")
    if not value.numel():  # whose strides may be anything
        return b""
    return value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()


def _header(data: Content) -> tuple[int, dict[str, Any]]:
    """Where the payload begins, and the header."""
    if data.size < _PREFIX:
        _malformed(f"it has {data.size} bytes, expected at least {_PREFIX}")
    length = int.from_bytes(data.read(0, _PREFIX), "little")
    if length > HEADER_LIMIT:
        _malformed(f"its header claims {length} bytes, expected at most {HEADER_LIMIT}")
    if length > data.size - _PREFIX:
        _malformed(f"its header claims {length} bytes, and {data.size - _PREFIX} are there")
    try:
        text = data.read(_PREFIX, _PREFIX + length).decode()
    except UnicodeDecodeError as error:
        raise MessageError(f"not a message: its header is not UTF-8: {error}") from error
    header = _parse(text, "header")
    if not isinstance(header, dict):
        _malformed(f"its header is a {type(header).__name__}, expected an object")
    return _PREFIX + length, header


def _entries(header: Mapping[str, Json], payload: int) -> dict[str, _Entry]:
    """The arrays that a header names: they must fill the payload, without gaps or overlaps."""
    found = {name: _entry(name, stated) for name, stated in header.items()}
    end = 0
    for name, entry in sorted(found.items(), key=lambda item: (item[1].start, item[1].end)):
        if entry.start != end:
            _malformed(
                f"array '{name}' begins at byte {entry.start} of the payload, expected {end}: a gap or an overlap"
            )
        end = entry.end
    if end != payload:
        _malformed(f"its arrays take {end} bytes, and {payload} are there: it was cut, or a name is given twice")
    return found


def _entry(name: str, stated: Json) -> _Entry:
    dtype, shape, offsets = (
        (stated["dtype"], stated["shape"], stated["data_offsets"])
        if isinstance(stated, dict) and stated.keys() == {"dtype", "shape", "data_offsets"}
        else _malformed(f"array '{name}' is not described by dtype, shape and data_offsets")
    )
    kind = _dtypes().get(dtype) if isinstance(dtype, str) else None
    if kind is None:
        _malformed(f"array '{name}' is of dtype {dtype!r:.40}, expected one of {sorted(_dtypes())}")
    if not _counts(shape) or not _counts(offsets) or len(offsets) != 2:
        _malformed(f"array '{name}' has a shape or offsets that are no lists of counts")
    start, end = offsets
    if end - start != math.prod(shape) * kind.itemsize or not _possible(shape):
        _malformed(f"array '{name}' has bytes {start} to {end}, which is not {shape!r:.100} of {dtype}")
    return _Entry(dtype=kind, shape=tuple(shape), start=start, end=end)


def _possible(shape: list[int]) -> bool:
    """Whether there can be a tensor of a shape: without a single element, its axes may be of any length but for this."""
    import torch

    try:
        torch.empty(shape, device="meta")
    except (RuntimeError, TypeError, OverflowError):
        return False
    return True


def _counts(value: Json) -> bool:
    return isinstance(value, list) and all(type(n) is int and n >= 0 for n in value)


def _parse(text: str, what: str) -> Json:
    try:
        value = json.loads(text, parse_constant=_no_constant)
        if "\\u" in text:
            # An escaped half of a surrogate pair parses, but no text with it can ever be written again.
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise MessageError(f"not a message: its {what} is not JSON: {error}") from error
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _malformed(reason: str) -> NoReturn:
    raise MessageError(f"not a message: {reason}")

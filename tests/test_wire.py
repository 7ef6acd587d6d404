import json
import math
import subprocess
import sys

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wardround import wire
from wardround.errors import MessageError
from wardround.types import Message

DTYPES = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.uint64,
    torch.bool,
]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
names = st.text(min_size=0, max_size=8).filter(lambda name: name != "__metadata__")


@st.composite
def tensors(draw: st.DrawFn, min_axes: int = 0) -> torch.Tensor:
    shape = draw(st.lists(st.integers(0, 4), min_size=min_axes, max_size=3))
    dtype = draw(st.sampled_from(DTYPES))
    raw = draw(st.binary(min_size=math.prod(shape) * 8, max_size=math.prod(shape) * 8))
    words = torch.frombuffer(bytearray(raw), dtype=torch.int64) if raw else torch.empty(0, dtype=torch.int64)
    value = (words % 7).to(dtype).reshape(shape)
    if draw(st.booleans()) and value.ndim > 1:
        value = value.transpose(0, 1)
    return value


def messages(min_axes: int = 0) -> st.SearchStrategy[Message]:
    return st.builds(
        lambda stage, meta, arrays: Message(stage=stage, meta=meta, arrays=arrays),
        st.text(max_size=6),
        st.dictionaries(st.text(), json_values, max_size=3),
        st.dictionaries(names, tensors(min_axes), max_size=4),
    )


def same(left: Message, right: Message) -> bool:
    return (
        left.stage == right.stage
        and left.meta == right.meta
        and list(left.arrays) == list(right.arrays)
        and all(
            value.dtype == right.arrays[name].dtype
            and value.shape == right.arrays[name].shape
            and torch.equal(value, right.arrays[name])
            for name, value in left.arrays.items()
        )
    )


@settings(max_examples=150, deadline=None)
@given(messages())
def test_a_message_comes_back_as_it_was_and_its_size_is_known_beforehand(message: Message) -> None:
    data = wire.encode(message)
    assert wire.size(message) == len(data)
    assert same(message, wire.decode(data))
    assert wire.encode(wire.decode(data)) == data


@settings(max_examples=60, deadline=None)
@given(messages(min_axes=1))
def test_the_size_without_axis_is_that_of_one_site(message: Message) -> None:
    one = Message(
        stage=message.stage,
        meta=message.meta,
        arrays={name: value.new_zeros(value.shape[1:]) for name, value in message.arrays.items()},
    )
    assert wire.size_without_axis(message) == len(wire.encode(one))


def test_pieces_are_the_bytes_of_a_message_and_share_its_memory() -> None:
    value = torch.arange(6.0)
    arrays = {"v": value, "turned": torch.ones(2, 3).T, "none": torch.empty(0)}
    message = Message(stage="x", meta={"a": 1}, arrays=arrays)
    pieces = wire.pieces(message)
    assert b"".join(pieces) == wire.encode(message)
    value[0] = 7.0
    assert wire.decode(b"".join(pieces)).arrays["v"][0] == 7.0


def test_a_scalar_has_no_axis_to_lose() -> None:
    with pytest.raises(MessageError, match="'loss' has no axis"):
        wire.size_without_axis(Message(stage="fit", arrays={"loss": torch.tensor(1.0)}))


def test_the_reference_library_reads_it_with_every_tensor_aligned() -> None:
    # The one-byte mask comes first in the message: laid out in that order, the float64 would begin at byte 3.
    arrays = {"mask": torch.tensor([True, False, True]), "weight": torch.arange(4, dtype=torch.float64)}
    data = wire.encode(Message(stage="fit", arrays=arrays))
    length = int.from_bytes(data[:8], "little")
    assert length % 8 == 0
    assert json.loads(data[8 : 8 + length])["weight"]["data_offsets"] == [0, 32]
    loaded = safetensors.torch.load(data)
    assert all(torch.equal(loaded[name], value) for name, value in arrays.items())


def test_the_reference_library_writes_what_is_read() -> None:
    value = torch.arange(6, dtype=torch.float32).reshape(2, 3)
    data = safetensors.torch.save({"w": value}, {"stage": "fit", "meta": '{"round":3}'})
    message = wire.decode(data)
    assert (message.stage, message.meta) == ("fit", {"round": 3})
    assert torch.equal(message.arrays["w"], value)


def test_the_order_of_meta_does_not_matter_to_the_bytes() -> None:
    left = Message(stage="fit", meta={"a": 1, "b": {"c": 2, "d": 3}})
    right = Message(stage="fit", meta={"b": {"d": 3, "c": 2}, "a": 1})
    assert wire.encode(left) == wire.encode(right)


def test_gradients_do_not_travel() -> None:
    value = torch.ones(2, requires_grad=True)
    assert not wire.decode(wire.encode(Message(stage="fit", arrays={"w": value}))).arrays["w"].requires_grad


def test_decoded_tensors_may_be_changed() -> None:
    data = wire.encode(Message(stage="fit", arrays={"w": torch.ones(2)}))
    wire.decode(data).arrays["w"].add_(1)
    assert wire.decode(data).arrays["w"].tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    "message",
    [
        Message(stage="fit", meta={"loss": float("nan")}),
        Message(stage="fit", meta={"what": {1, 2}}),
        Message(stage="fit", meta={"half": "\ud800"}),
        Message(stage="\ud800"),
        Message(stage=3),  # type: ignore[arg-type]
        Message(stage="fit", arrays={"z": torch.zeros(1, dtype=torch.complex64)}),
        Message(stage="fit", arrays={"z": torch.eye(2).to_sparse()}),
        Message(stage="fit", arrays={"__metadata__": torch.zeros(1)}),
        Message(stage="fit", meta={"long": "x" * (wire.HEADER_LIMIT + 1)}),
    ],
    ids=["nan", "set", "surrogate", "surrogate stage", "stage", "complex", "sparse", "reserved name", "long header"],
)
def test_what_has_no_wire_form_is_refused(message: Message) -> None:
    with pytest.raises(MessageError):
        wire.encode(message)


def raw(header: object, payload: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + payload


META = {"stage": "fit", "meta": "{}"}


def entry(dtype: str = "U8", shape: object = (1,), offsets: object = (0, 1)) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"1234567",
        (2**63).to_bytes(8, "little") + b"{}",
        (wire.HEADER_LIMIT + 1).to_bytes(8, "little") + b" " * (wire.HEADER_LIMIT + 1),
        raw(b"{}")[:-1],
        raw(b"\xff\xfe"),
        raw(b"{"),
        raw([1]),
        raw({}),
        raw(b"[" * 100_000),
        raw({"__metadata__": 3}),
        raw({"__metadata__": {"stage": "fit"}}),
        raw({"__metadata__": META | {"more": "x"}}),
        raw({"__metadata__": META | {"stage": 3}}),
        raw({"__metadata__": META | {"meta": "[]"}}),
        raw({"__metadata__": META | {"meta": "{"}}),
        raw({"__metadata__": META | {"meta": '{"a":NaN}'}}),
        raw({"__metadata__": META | {"meta": '{"a":"\\ud800"}'}}),
        raw({"__metadata__": META | {"meta": "[" * 100_000}}),
        raw({"__metadata__": META, "w": entry()}),
        raw({"__metadata__": META, "w": entry()}, b"\0\0"),
        raw({"__metadata__": META, "w": entry(shape=[2])}, b"\0"),
        raw({"__metadata__": META, "w": entry(shape=[-1])}, b"\0"),
        raw({"__metadata__": META, "w": entry(shape=[2**64])}, b"\0"),
        raw({"__metadata__": META, "w": entry(shape=[0, 2**63], offsets=[0, 0])}),
        raw({"__metadata__": META, "w": entry(offsets=[1, 0])}, b"\0"),
        raw({"__metadata__": META, "w": entry(), "v": entry()}, b"\0"),
        raw({"__metadata__": META, "w": entry(dtype="PICKLE")}, b"\0"),
        raw({"__metadata__": META, "w": entry(dtype="F8_E5M2")}, b"\0"),
        raw({"__metadata__": META, "w": entry(dtype="BOOL")}, b"\2"),
        raw({"__metadata__": META, "w": 3}),
    ],
)
def test_malformed_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(MessageError, match="not a message"):
        wire.decode(data)


@settings(max_examples=150, deadline=None)
@given(messages(), st.data())
def test_damaged_bytes_give_a_message_or_are_refused_and_nothing_else(message: Message, data: st.DataObject) -> None:
    damaged = bytearray(wire.encode(message))
    place = data.draw(st.integers(0, len(damaged) - 1))
    damaged[place] ^= data.draw(st.integers(1, 255))
    try:
        decoded = wire.decode(bytes(damaged))
    except MessageError:
        return
    assert isinstance(decoded, Message)


@settings(max_examples=40, deadline=None)
@given(messages(), st.data())
def test_truncated_bytes_are_refused(message: Message, data: st.DataObject) -> None:
    whole = wire.encode(message)
    with pytest.raises(MessageError):
        wire.decode(whole[: data.draw(st.integers(0, len(whole) - 1))])


def test_packed_texts_come_back() -> None:
    arrays, metadata = wire.unpack(wire.pack({"w": torch.ones(2)}, {"name": "Klinik Süd"}))
    assert metadata == {"name": "Klinik Süd"}
    assert arrays["w"].tolist() == [1.0, 1.0]
    assert wire.unpack(wire.pack({}, {})) == ({}, {})


@pytest.mark.parametrize("module", ["wardround.wire", "wardround.store.run", "wardround.store.states"])
def test_importing_it_does_not_import_torch(module: str) -> None:
    code = f"import {module}, sys; sys.exit('torch' in sys.modules or 'safetensors' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

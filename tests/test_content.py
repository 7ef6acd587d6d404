"""Bytes in pieces, in memory and in files, are the bytes they would be in one piece."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wardround import wire
from wardround.content import Content, Spool, of_file
from wardround.errors import MessageError, StorageError
from wardround.types import Message

pieces = st.lists(st.tuples(st.binary(max_size=40), st.booleans()), max_size=6)
places = st.integers(0, 250)


def made(parts: list[tuple[bytes, bool]]) -> tuple[Content, bytes]:
    found: list[object] = []
    for data, in_file in parts:
        if in_file:
            spool = Spool()
            spool.write(data[:7])
            spool.write(data[7:])
            found.append(spool)
        else:
            found.append(memoryview(data))
    return Content(*found), b"".join(data for data, _ in parts)


@given(pieces, places, places, places, places)
def test_any_part_of_any_part_is_that_of_the_whole(
    parts: list[tuple[bytes, bool]], a: int, b: int, c: int, d: int
) -> None:
    content, whole = made(parts)
    assert (len(content), bytes(content), b"".join(content.chunks())) == (len(whole), whole, whole)
    assert content.digest == hashlib.sha256(whole).hexdigest()
    assert content.read(a, b) == whole[a:b]
    own, cut = content.cut(a, b), whole[a:b]
    assert (own.size, bytes(own), own.digest) == (len(cut), cut, hashlib.sha256(cut).hexdigest())
    assert own.read(c, d) == cut[c:d]
    assert bytes(own.cut(c)) == cut[c:]
    assert bytes(Content(own, b"!", content)) == cut + b"!" + whole


def test_a_long_file_is_read_a_little_at_a_time(tmp_path: Path) -> None:
    data = bytes(range(256)) * 9000
    (tmp_path / "file").write_bytes(data)
    content = of_file(tmp_path / "file")
    assert content.stored
    chunks = [len(chunk) for chunk in content.chunks()]
    assert sum(chunks) == len(data)
    assert max(chunks) <= 2**20
    assert content.cut(5, 300).read(0, 10**6) == data[5:300]
    assert content.digest == hashlib.sha256(data).hexdigest()


def test_a_spool_has_no_name_and_is_gone_with_its_user(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.write(b"x" * 10**6)
    assert list(tmp_path.iterdir()) == []
    assert Content(spool).read(10**6 - 2, 10**6 + 5) == b"xx"


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="absent"):
        Spool(tmp_path / "absent")


def test_a_file_that_was_cut_short_is_named(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    content = of_file(path)
    path.write_bytes(b"1")
    with pytest.raises(StorageError, match="cut short"):
        content.read(0, 5)


def long_message() -> Message:
    arrays = {
        "params/w": torch.arange(300_000, dtype=torch.float32).reshape(300, 1000),
        "params/b": torch.tensor(1.5, dtype=torch.float64),
        "buffers/n": torch.empty(0, 3),
        "other": torch.tensor([True, False]),
    }
    return Message(stage="s", meta={"a": [1]}, arrays=arrays)


def test_arrays_of_a_long_message_are_read_as_they_are_asked_for(tmp_path: Path) -> None:
    message, path = long_message(), tmp_path / "message"
    path.write_bytes(wire.encode(message))
    found = wire.decode(of_file(path))
    assert isinstance(found.arrays, wire.Stored)
    assert (found.stage, found.meta, list(found.arrays)) == (message.stage, message.meta, list(message.arrays))
    assert all(torch.equal(found.arrays[name], value) for name, value in message.arrays.items())
    assert wire.size(found) == path.stat().st_size
    assert wire.encode(found) == path.read_bytes()
    first = found.arrays["params/w"].zero_()  # memory of its own
    assert first.sum() != found.arrays["params/w"].sum()
    mine = wire.under(found.arrays, "params/")
    assert list(mine) == ["w", "b"] == list(wire.under(message.arrays, "params/"))
    assert torch.equal(mine["w"], message.arrays["params/w"])


def test_a_damaged_long_message_is_refused_before_any_array_is_read(tmp_path: Path) -> None:
    data = wire.encode(long_message())
    for damaged in (data[:-1], data + b"\0", data[:-1] + b"\7"):
        path = tmp_path / "message"
        path.write_bytes(damaged)
        with pytest.raises(MessageError, match="not a message"):
            wire.decode(of_file(path))

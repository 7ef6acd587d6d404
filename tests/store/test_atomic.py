import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from wardround.errors import StorageError
from wardround.store import atomic

HELLO = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"  # SHA-256 of "hello", FIPS 180-4


def test_a_file_is_replaced_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    atomic.write_text(path, "früher")
    atomic.write_bytes(path, b"hello")
    assert path.read_bytes() == b"hello"
    assert atomic.sha256(path) == HELLO
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_content_in_pieces_is_written_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, bytes(data[:3])))
    atomic.write_pieces(tmp_path / "a", [b"01234", b"", memoryview(b"5678"), bytearray(b"9")])
    assert (tmp_path / "a").read_bytes() == b"0123456789"


def test_json_refuses_nan_and_leaves_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    atomic.write_json(path, {"é": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        atomic.write_json(path, float("nan"))
    assert path.read_text(encoding="utf-8") == '{\n  "é": 1\n}\n'


@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
def test_a_full_disk_leaves_the_old_content_and_no_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "a"
    atomic.write_bytes(path, b"old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(StorageError, match=r"a could not be written: No space.*intact; free space") as caught:
            atomic.write_bytes(path, b"new")
    assert str(path) in str(caught.value)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a"]


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: whole(descriptor, data[:3]))
    atomic.write_bytes(tmp_path / "a", b"0123456789")
    atomic.append_line(tmp_path / "a", "next")
    assert (tmp_path / "a").read_bytes() == b"0123456789next\n"


def test_a_failed_line_is_cut_off_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "journal"
    atomic.append_line(path, "one")
    whole, calls = os.write, []

    def full_after_two_bytes(descriptor: int, data: memoryview) -> int:
        calls.append(data)
        if len(calls) > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return whole(descriptor, data[:2])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full_after_two_bytes)
        with pytest.raises(StorageError, match="earlier lines are intact"):
            atomic.append_line(path, "two")
    assert path.read_bytes() == b"one\n"
    atomic.append_line(path, "two")
    assert path.read_bytes() == b"one\ntwo\n"


def test_a_line_has_no_line_break(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="line break"):
        atomic.append_line(tmp_path / "journal", "a\nb")


def test_a_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for act in (
        lambda: atomic.write_bytes(tmp_path / "file" / "a", b""),
        lambda: atomic.append_line(tmp_path / "file" / "a", ""),
        lambda: atomic.make_folder(tmp_path / "file" / "a"),
        lambda: atomic.make_folder(tmp_path / "file"),
        lambda: atomic.names(tmp_path / "file"),
    ):
        with pytest.raises(StorageError, match="file"):
            act()


def test_a_folder_that_cannot_be_flushed_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = os.fsync

    def only_files(descriptor: int) -> None:
        if os.path.isdir(f"/dev/fd/{descriptor}"):
            raise OSError(errno.EINVAL, "Invalid argument")
        whole(descriptor)

    monkeypatch.setattr(os, "fsync", only_files)
    atomic.write_bytes(tmp_path / "a", b"x")
    assert (tmp_path / "a").read_bytes() == b"x"


def test_sweeping_takes_interrupted_writes_alone(tmp_path: Path) -> None:
    for name in (".a.json.0123abcd.tmp", "a.tmp", ".hidden", ".lock"):
        (tmp_path / name).write_text("x")
    atomic.sweep(tmp_path)
    assert atomic.names(tmp_path) == [".hidden", ".lock", "a.tmp"]
    atomic.sweep(tmp_path / "absent")
    atomic.remove(tmp_path / "absent")


@pytest.mark.skipif(os.name != "posix", reason="file size limits are POSIX")
def test_a_file_size_limit_leaves_the_old_content(tmp_path: Path) -> None:
    code = """
import resource, sys
from pathlib import Path
from wardround.errors import StorageError
from wardround.store import atomic
path = Path(sys.argv[1])
atomic.write_bytes(path, b"old")
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    atomic.write_bytes(path, bytes(2000))
except StorageError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a")], capture_output=True, text=True, check=True)
    assert "ulimit -f" in done.stdout
    assert (tmp_path / "a").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a"]

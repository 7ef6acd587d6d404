"""Files that are either the old ones or the new ones, whole, after a crash at any time.

A new content goes to a temporary file in the same folder, is flushed to the disk, and takes the old one's name in one
step.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

from wardround.errors import StorageError
from wardround.types import Json

_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.tmp")
_BINARY = getattr(os, "O_BINARY", 0)
_NO_SUCH_CALL = {errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES, errno.EPERM, errno.EISDIR}


def write_bytes(path: Path, data: bytes, *, private: bool = False) -> None:
    """Replace the content of `path` atomically and durably; its folder must exist.

    Args:
        path: the file.
        data: its new content.
        private: whether only this user may read it, from its first byte on.

    Raises:
        StorageError: the disk is full, read-only or not ours. The earlier content is intact.
    """
    write_pieces(path, [data], private=private)


def write_pieces(path: Path, pieces: Iterable[Any], *, private: bool = False) -> None:
    """Like `write_bytes`, for a content that lies in several buffers."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    state = "its earlier content, if any, is intact"
    try:
        try:
            _write(temporary, pieces, os.O_CREAT | os.O_EXCL, 0o600 if private else 0o666)
            os.replace(temporary, path)
        except BaseException:
            _forget(temporary)
            raise
        state = "its new content is in place, but may not survive a power cut"
        _sync_folder(path.parent)
    except OSError as error:
        _refuse(path, "written", error, state)


def write_text(path: Path, text: str) -> None:
    """Like `write_bytes`, in UTF-8."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Json) -> None:
    """Like `write_bytes`, as indented JSON.

    Raises:
        ValueError, TypeError: `value` is not JSON (NaN, say).
        StorageError: as `write_bytes`.
    """
    write_text(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def append_line(path: Path, text: str) -> None:
    """Append one line durably; on failure the file is cut back to what it was.

    Raises:
        StorageError: as `write_bytes`; the earlier lines are intact.
    """
    if "\n" in text:
        raise ValueError("a line of a journal holds no line break")
    before: int | None = None
    try:
        before = path.stat().st_size if path.exists() else 0
        _write(path, [text.encode() + b"\n"], os.O_CREAT | os.O_APPEND)
    except OSError as error:
        if before is not None:
            _cut_back(path, before)
        _refuse(path, "extended", error, "its earlier lines are intact")


def cut(path: Path, length: int) -> None:
    """Shorten a file to `length` bytes, durably: what an interrupted `append_line` left is taken away.

    Raises:
        StorageError: the file cannot be changed.
    """
    try:
        _truncate(path, length)
    except OSError as error:
        _refuse(path, "repaired", error, "its earlier lines are intact")


def move(source: Path, target: Path) -> None:
    """Give a file another name in the same folder, replacing what had it, in one step.

    Raises:
        StorageError: the folder cannot be changed.
    """
    try:
        os.replace(source, target)
        _sync_folder(target.parent)
    except OSError as error:
        _refuse(target, "replaced", error, "either its earlier or its new content is there, whole")


def remove(path: Path) -> None:
    """Delete a file; nothing happens where there is none.

    Raises:
        StorageError: the folder cannot be changed.
    """
    try:
        os.unlink(path)
        _sync_folder(path.parent)
    except FileNotFoundError:
        return
    except OSError as error:
        _refuse(path, "deleted", error, "nothing else was changed")


def remove_tree(path: Path) -> None:
    """Delete a file, or a folder with all that is in it; nothing happens where there is none.

    Raises:
        StorageError: some of it cannot be deleted.
    """
    if path.is_symlink() or not path.is_dir():
        remove(path)
        return
    try:
        shutil.rmtree(path)
    except OSError as error:
        _refuse(path, "deleted", error, "some of it may be gone")


def remove_folder(path: Path) -> None:
    """Delete an empty folder; one that is not, or that cannot be deleted, stays."""
    try:
        path.rmdir()
    except OSError:
        return


def make_folder(path: Path) -> None:
    """Make a folder and those above it; nothing happens where it is there.

    Raises:
        StorageError: it cannot be made.
    """
    try:
        if not path.is_dir():
            path.mkdir(parents=True, exist_ok=True)
            _sync_folder(path.parent)
    except OSError as error:
        _refuse(path, "made", error, "nothing was written")


def is_temporary(name: str) -> bool:
    """Whether a file's name is that of an interrupted write."""
    return _TEMPORARY.fullmatch(name) is not None


def sweep(folder: Path) -> None:
    """Delete what interrupted writes left in `folder`; for the folder's only writer.

    Raises:
        StorageError: the folder cannot be read or changed.
    """
    for name in names(folder):
        if is_temporary(name):
            remove(folder / name)


def names(folder: Path) -> list[str]:
    """Names in a folder, sorted; [] where there is none.

    Raises:
        StorageError: it cannot be read.
    """
    try:
        return sorted(os.listdir(folder))
    except FileNotFoundError:
        return []
    except OSError as error:
        _refuse(folder, "listed", error, "nothing was changed")


def sha256(path: Path) -> str:
    """The SHA-256 of a file's content, 64 hexadecimal digits.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write(path: Path, pieces: Iterable[Any], flags: int, mode: int = 0o666) -> None:
    descriptor = os.open(path, os.O_WRONLY | _BINARY | flags, mode)
    try:
        for piece in pieces:
            rest = memoryview(piece)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _truncate(path: Path, length: int) -> None:
    descriptor = os.open(path, os.O_RDWR | _BINARY)
    try:
        os.ftruncate(descriptor, length)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _cut_back(path: Path, length: int) -> None:
    # On the way out of a failure, which is what the caller must hear of; an unfinished line is ignored by its reader.
    try:
        if path.exists():
            _truncate(path, length)
    except OSError:
        return


def _forget(temporary: Path) -> None:
    # On the way out of a failure, which is what the caller must hear of; `sweep` takes what is left here.
    try:
        os.unlink(temporary)
    except OSError:
        return


def _sync_folder(folder: Path) -> None:
    """Make a name in `folder` durable, where the operating system lets a folder be opened and flushed."""
    if os.name == "nt":
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:
        # A folder that may be written but not listed cannot be opened.
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SUCH_CALL:
            raise
    finally:
        os.close(descriptor)


def _refuse(path: Path, verb: str, error: OSError, state: str) -> NoReturn:
    what_to_do = {
        errno.ENOSPC: "free space on this disk, then try again",
        errno.EDQUOT: "free space within this user's quota, then try again",
        errno.EFBIG: "the system limits the size of a file: raise the limit (ulimit -f), then try again",
        errno.EACCES: "give this user the right to write there, or choose another folder",
        errno.EPERM: "give this user the right to write there, or choose another folder",
        errno.EROFS: "this disk is read-only: choose another folder",
        errno.ENOENT: "make its folder, or choose another one",
        errno.ENOTDIR: "a part of this path is a file: choose another folder",
        errno.EEXIST: "a file has this name already: choose another one",
    }.get(error.errno or 0, "see to the disk, then try again")
    raise StorageError(f"{path} could not be {verb}: {error.strerror or error}; {state}; {what_to_do}") from error

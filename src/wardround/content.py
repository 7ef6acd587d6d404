"""Bytes that need not lie in one piece, nor in memory: what a long message is made of, and what came of one."""

from __future__ import annotations

import hashlib
import os
import tempfile
import threading
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from wardround.errors import StorageError

Buffer = bytes | bytearray | memoryview
_CHUNK = 2**20


class Spool:
    """A file without a name, which is gone with whoever holds it.

    Args:
        folder: where its bytes lie; None: where the system keeps temporary files.

    Raises:
        StorageError: here and below, where the disk cannot be used.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._where = f"a temporary file in {folder or tempfile.gettempdir()}"
        self._lock, self.size = threading.Lock(), 0
        try:
            # not buffered: what was written can be read
            self._file: Any = tempfile.TemporaryFile(dir=folder, prefix="spool-", buffering=0)  # noqa: SIM115
        except OSError as error:
            raise self._unusable(error) from error

    @classmethod
    def of(cls, path: Path) -> Spool:
        """A file that is there, to be read. Raises OSError."""
        found = cls.__new__(cls)
        found._where, found._lock = str(path), threading.Lock()
        found._file = path.open("rb", buffering=0)
        found.size = os.fstat(found._file.fileno()).st_size
        return found

    def __del__(self) -> None:
        file = getattr(self, "_file", None)
        if file is not None:
            file.close()

    def write(self, data: Buffer) -> None:
        """Append bytes."""
        with self._lock:
            try:
                self._file.seek(self.size)
                view = memoryview(data)
                while view:
                    view = view[self._file.write(view) :]
            except OSError as error:
                raise self._unusable(error) from error
            self.size += len(data)

    def read_into(self, place: memoryview, start: int) -> None:
        """Fill `place` with the bytes from `start` on."""
        with self._lock:
            try:
                self._file.seek(start)
                while place:
                    count = self._file.readinto(place)
                    if not count:
                        raise StorageError(f"{self._where} was cut short while it was read: see to the disk")
                    place = place[count:]
            except OSError as error:
                raise self._unusable(error) from error

    def _unusable(self, error: OSError) -> StorageError:
        return StorageError(f"{self._where} cannot be used: {error.strerror or error}; see to the disk, then try again")


class Content:
    """Bytes of a known number, in pieces that are not copied together.

    Args:
        pieces: buffers, spools and other contents, one after the other; nobody may change them as long as this is used.
    """

    def __init__(self, *pieces: Any) -> None:
        self._pieces: list[tuple[memoryview | Spool, int, int]] = []  # source, first byte, end
        for piece in pieces:
            if isinstance(piece, Content):
                self._pieces += piece._pieces
            elif isinstance(piece, Spool):
                self._pieces.append((piece, 0, piece.size))
            else:
                view = memoryview(piece).cast("B")
                self._pieces.append((view, 0, len(view)))
        self._pieces = [piece for piece in self._pieces if piece[1] < piece[2]]
        self.size = sum(end - start for _, start, end in self._pieces)

    def __len__(self) -> int:
        return self.size

    def __bytes__(self) -> bytes:
        return bytes(self.read(0, self.size))

    @property
    def stored(self) -> bool:
        """Whether some of it lies in a file."""
        return any(isinstance(source, Spool) for source, _, _ in self._pieces)

    def cut(self, start: int, end: int | None = None) -> Content:
        """The bytes from `start` to before `end`, of which there may be fewer."""
        found, end = Content(), self.size if end is None else min(end, self.size)
        for source, first, _, place in self._between(start, end):
            found._pieces.append((source, first, first + place.stop - place.start))
        found.size = max(end - start, 0)
        return found

    def read(self, start: int, end: int) -> bytearray:
        """A copy of the bytes from `start` to before `end`, of which there may be fewer."""
        end = min(end, self.size)
        found = bytearray(max(end - start, 0))
        view = memoryview(found)
        for source, first, last, place in self._between(start, end):
            if isinstance(source, Spool):
                source.read_into(view[place], first)
            else:
                view[place] = source[first:last]
        view.release()
        return found

    def chunks(self) -> Iterator[Buffer]:
        """All bytes, in order; of a file a little at a time."""
        for source, first, last in self._pieces:
            if isinstance(source, Spool):
                whole = Content(source).cut(first, last)
                yield from (whole.read(at, at + _CHUNK) for at in range(0, whole.size, _CHUNK))
            else:
                yield source[first:last]

    @cached_property
    def digest(self) -> str:
        """SHA-256, hexadecimal."""
        return digest_of(self.chunks())

    def _between(self, start: int, end: int) -> Iterator[tuple[memoryview | Spool, int, int, slice]]:
        """Each piece between two places: its source, where in that, and where in what is asked for."""
        offset = 0
        for source, first, last in self._pieces:
            low, high = max(start, offset), min(end, offset + last - first)
            if low < high:
                yield source, first + low - offset, first + high - offset, slice(low - start, high - start)
            offset += last - first


def of_file(path: Path) -> Content:
    """The bytes of a file as it is now, read as they are needed; it must not be changed. Raises OSError."""
    return Content(Spool.of(path))


def digest_of(chunks: Iterable[Buffer]) -> str:
    """SHA-256 of bytes that come one after another, hexadecimal."""
    found = hashlib.sha256()
    for chunk in chunks:
        found.update(chunk)
    return found.hexdigest()

"""Where SEAL writes and reads, for it knows only paths: a file in memory, without a name on any disk, where there is one.

Nothing but ciphertexts ever goes there; keys are derived, not stored.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

_MEMORY = Path("/dev/shm")


class Scratch:
    """One file for one message at a time; gone on leaving the context.

    Linux gives a file in memory (memfd). Elsewhere the file lies in a temporary folder of mode 0700, in a memory-backed file
    system where there is one.
    """

    def __enter__(self) -> Self:
        """Make the file."""
        self._folder: Path | None = None
        if sys.platform == "linux":
            self._file = os.memfd_create("ciphertext")
            self.path = f"/proc/self/fd/{self._file}"
            if os.path.exists(self.path):
                return self
            os.close(self._file)
        parent = _MEMORY if _MEMORY.is_dir() and os.access(_MEMORY, os.W_OK) else None
        self._folder = Path(tempfile.mkdtemp(prefix="wardround-", dir=parent))
        self.path = str(self._folder / "ciphertext")
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o600)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove it."""
        os.close(self._file)
        if self._folder is not None:
            shutil.rmtree(self._folder)

    def put(self, data: memoryview) -> None:
        """Make `data` the file's content."""
        os.ftruncate(self._file, 0)
        os.lseek(self._file, 0, os.SEEK_SET)
        while data:
            data = data[os.write(self._file, data) :]

    def take(self, into: memoryview) -> int:
        """Copy the content to the front of `into`; gives its length.

        Raises:
            ValueError: it is longer than `into`.
        """
        size = os.fstat(self._file).st_size
        if size > len(into):
            raise ValueError(f"a ciphertext of {size} bytes, and room for {len(into)}")
        os.lseek(self._file, 0, os.SEEK_SET)
        with open(self._file, "rb", buffering=0, closefd=False) as file:
            done = 0
            while done < size:
                done += file.readinto(into[done:size]) or 0
        return size

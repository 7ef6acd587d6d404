"""What a hospital keeps to itself: a secret, and which pseudonym stands for which record number.

Pseudonyms are random (45 CFR 164.514(c) forbids codes that are derived from the person's own information) and lie in a
file. UIDs and shifts of dates are keyed hashes of the secret (HMAC-SHA-256), so that many processes agree without asking.
Whoever has the folder can undo the pseudonyms: it never goes where the cleaned files go.
"""

from __future__ import annotations

import csv
import hashlib
import hmac
import io
import os
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock

from wardround.errors import DataError, StorageError
from wardround.store import atomic

_SECRET, _NUMBERS, _LOCK = "secret.key", "record-numbers.csv", ".lock"
_MOST_DAYS = 3650
_HEADER = ("kind", "original", "pseudonym")


@dataclass(frozen=True, kw_only=True)
class Held:
    """Secrets of one hospital, shared by all processes that clean its files.

    Attributes:
        folder: where they lie, for the owner's eyes only.
        secret: 32 random bytes.
    """

    folder: Path
    secret: bytes = field(repr=False)
    _known: dict[tuple[str, str], str] = field(default_factory=dict, repr=False, compare=False)
    _read: list[int] = field(default_factory=lambda: [0], repr=False, compare=False)

    @classmethod
    def open(cls, folder: Path) -> Held:
        """Read the secrets of `folder`, or make the folder with new ones.

        Raises:
            DataError: the secret is damaged.
            StorageError: the folder cannot be read or written.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with FileLock(folder / _LOCK, mode=0o600):
                path = folder / _SECRET
                if not path.exists():
                    atomic.write_text(path, secrets.token_hex(32) + "\n")
                    path.chmod(0o600)
                text = path.read_text(encoding="ascii").strip()
        except OSError as error:
            raise StorageError(f"{folder}, which holds a hospital's pseudonyms, cannot be used: {error}") from error
        try:
            secret = bytes.fromhex(text)
        except ValueError:
            secret = b""
        if len(secret) != 32:
            raise DataError(
                f"{folder / _SECRET} is damaged: expected 64 hexadecimal digits. Restore it from a backup: "
                "with another secret, UIDs and dates no longer agree with files cleaned before"
            )
        return cls(folder=folder, secret=secret)

    def pseudonym(self, original: str, kind: str = "patient") -> str:
        """The random name of one record number; see `pseudonyms`."""
        return self.pseudonyms([original], kind)[original.strip()]

    def pseudonyms(self, originals: Iterable[str], kind: str = "patient") -> dict[str, str]:
        """Record number without blanks around it -> its random name such as `patient-5f0c...` (64 bits).

        A name is drawn at the first use and stays. The same number of another `kind` (`encounter`) has another name.

        Raises:
            StorageError: the mapping cannot be written.
            DataError: the mapping is damaged.
        """
        wanted = dict.fromkeys(original.strip() for original in originals)
        if any((kind, original) not in self._known for original in wanted):
            try:
                with FileLock(self.folder / _LOCK, mode=0o600):
                    self._reload()
                    self._append([(kind, o) for o in wanted if (kind, o) not in self._known])
            except OSError as error:
                raise StorageError(f"{self.folder / _NUMBERS} cannot be written: {error}") from error
        return {original: self._known[kind, original] for original in wanted}

    def originals(self) -> tuple[str, ...]:
        """All record numbers that have a pseudonym."""
        self._reload()
        return tuple(original for _, original in self._known)

    def uid(self, original: str) -> str:
        """A UID under 2.25 (a UUID as a number, PS3.5 B.2): the same for the same original, and not to be traced back."""
        digest = bytearray(self._digest("uid", original.strip())[:16])
        digest[6], digest[8] = digest[6] & 0x0F | 0x80, digest[8] & 0x3F | 0x80
        return f"2.25.{int.from_bytes(digest, 'big')}"

    def shift(self, patient: str) -> int:
        """Days to add to all dates of a patient: -3650 to -1, the same for the same patient."""
        return -1 - int.from_bytes(self._digest("shift", patient.strip())[:8], "big") % _MOST_DAYS

    def _digest(self, what: str, text: str) -> bytes:
        return hmac.new(self.secret, f"{what}\0{text}".encode(), hashlib.sha256).digest()

    def _reload(self) -> None:
        """Take in what other processes have added since."""
        path = self.folder / _NUMBERS
        if not path.exists():
            return
        with path.open("rb") as file:
            file.seek(self._read[0])
            added = file.read()
        rows = list(csv.reader(io.StringIO(added.decode("utf-8"), newline="")))
        if self._read[0] == 0 and (not rows or tuple(rows.pop(0)) != _HEADER):
            raise DataError(f"{path} is damaged: expected the header {','.join(_HEADER)}. Restore it from a backup")
        if any(len(row) != 3 for row in rows):
            raise DataError(f"{path} is damaged: expected 3 cells a line. Restore it from a backup")
        self._known.update({(kind, original): name for kind, original, name in rows})
        self._read[0] += len(added)

    def _append(self, keys: Sequence[tuple[str, str]]) -> None:
        if not keys:
            return
        path = self.folder / _NUMBERS
        named = {key: f"{key[0]}-{secrets.token_hex(8)}" for key in keys}
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        rows.writerows([] if path.exists() else [_HEADER])
        rows.writerows((*key, name) for key, name in named.items())
        data = text.getvalue().encode()
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        self._known.update(named)
        self._read[0] += len(data)

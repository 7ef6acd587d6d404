"""Pictures are decoded once: a folder of memory-mapped arrays, named by what went into it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from wardround.errors import DataError, StorageError
from wardround.store import atomic
from wardround.types import Json

VARIABLE = "WARDROUND_CACHE"
MANIFEST = "manifest.json"
_FORMAT = 1


def cache_root() -> Path:
    """The folder in WARDROUND_CACHE, else `wardround` in the user's cache folder."""
    value = os.environ.get(VARIABLE, "")
    if value:
        return Path(value).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").expanduser() / "wardround"


def once(
    name: str, settings: Json, files: Sequence[Path], build: Callable[[Path], Mapping[str, Json]]
) -> tuple[Path, dict[str, Any]]:
    """A folder that `build` filled, from an earlier call where settings and files are the same.

    A file is the same if path, size and time of change are; nothing of it is read to find out. A build that fails or is
    killed leaves no folder under the final name, and two at once do no harm.

    Args:
        name: begins the folder's name.
        settings: what else the content depends on; JSON.
        files: the sources.
        build: fills an empty folder, and returns what the manifest says of it.

    Returns:
        The folder, and its manifest.

    Raises:
        DataError: a source cannot be looked at, or `build` raises it.
        StorageError: the cache cannot be written.
    """
    digest = hashlib.sha256(json.dumps([_FORMAT, settings], sort_keys=True).encode())
    for path in files:
        try:
            found = path.stat()
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
        digest.update(f"{path}\0{found.st_size}\0{found.st_mtime_ns}\n".encode())
    folder = cache_root() / f"{name}-{digest.hexdigest()[:24]}"
    if not (folder / MANIFEST).is_file():
        _fill(folder, build)
    manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    return folder, manifest


def _fill(folder: Path, build: Callable[[Path], Mapping[str, Json]]) -> None:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise StorageError(
            f"{folder.parent} cannot be written ({error.strerror or error}): set {VARIABLE} to a folder with room"
        ) from error
    try:
        atomic.write_json(fresh / MANIFEST, dict(build(fresh)))
        try:
            fresh.rename(folder)
        except OSError:
            if not (folder / MANIFEST).is_file():
                raise
    except OSError as error:
        raise StorageError(
            f"{folder.parent} cannot be written ({error.strerror or error}): set {VARIABLE} to a folder with room"
        ) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)

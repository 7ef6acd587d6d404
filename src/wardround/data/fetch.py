"""Getting a dataset's official files: from the web, resumed where it broke off, or from a folder; verified either way.

Nothing appears under its final name before it was verified. What is under way lies beside it as `.NAME.part`; files
without a known checksum are shown, and once accepted they are remembered in `SHA256SUMS`, which `sha256sum -c` reads.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
import stat
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Literal
from urllib.parse import urlsplit

from wardround.data import trees
from wardround.data.sources import Download, File, Source, Tree
from wardround.errors import DataError
from wardround.store import atomic

SUMS = "SHA256SUMS"
_BLOCK = 2**18
_ATTEMPTS = 4
_TIMEOUT = 30.0
_LARGEST = 2**34

State = Literal["absent", "verified", "unknown", "differs"]
Accept = Callable[[str, int, str], bool]
Progress = Callable[[str, int, int | None], None]


@dataclass(frozen=True, kw_only=True)
class Found:
    """One file of a dataset, as it lies in the data folder.

    Attributes:
        name: of the file.
        path: where it is, or would be.
        state: `verified` by a known or remembered checksum; `unknown`: there, and nothing to compare it with.
        sha256: as computed; '' where it is absent.
        size: bytes; 0 where it is absent.
    """

    name: str
    path: Path
    state: State
    sha256: str = ""
    size: int = 0


def look(source: Source, root: Path) -> list[Found]:
    """What of a dataset lies under `root`.

    Raises:
        DataError: a file is there and cannot be read.
    """
    files = [_look(source, file, root) for file in source.files]
    if source.choice:
        files = [found for found in files if found.state != "absent"]
    return files + [_look_tree(tree, root / source.folder) for tree in source.trees]


def _look_tree(tree: Tree, home: Path) -> Found:
    there = all((home / name).exists() for name in tree.holds)
    return Found(name=tree.name, path=home, state="unknown" if there else "absent")


def fetch(
    source: Source,
    root: Path,
    *,
    folder: Path | None = None,
    accept: Accept = lambda name, size, sha256: False,
    overwrite: bool = False,
    only: Sequence[str] = (),
    progress: Progress = lambda name, done, total: None,
    pause: Callable[[float], None] = time.sleep,
) -> list[Found]:
    """Put a dataset's files into `root`; those that are there already and right are left alone.

    Args:
        source: the dataset.
        root: the data folder; made where it does not exist.
        folder: take the files, or the archive that holds them, from this folder instead of the web.
        accept: asked with name, bytes and SHA-256 where no checksum is known; False refuses the file.
        overwrite: replace files that differ.
        only: names of the files to fetch; needed where each is a dataset by itself.
        progress: told a download's name, the bytes so far and the bytes in all where known.
        pause: waits some seconds before a broken connection is tried again.

    Raises:
        DataError: a file cannot be got, is not the official one, or was not accepted.
        StorageError: the disk cannot be written.
    """
    home = root / source.folder
    wanted = []
    for file in _chosen(source, only):
        found = _look(source, file, root)
        if found.state == "differs" and not overwrite:
            raise DataError(
                f"{found.path} is not the official file: its SHA-256 is {found.sha256} ({found.size} bytes), expected "
                f"{_expected(source, file, root) or file.md5}: move it away, or replace it with --overwrite"
            )
        if found.state in ("absent", "differs") or (found.state == "unknown" and not _accepted(home, found, accept)):
            wanted.append(file)
    if wanted:
        atomic.make_folder(home)
    archives: dict[str, Path] = {}
    for file in wanted:
        if folder is not None:
            _from_folder(source, file, root, folder, accept)
            continue
        url = file.download.url
        if url not in archives:
            archives[url] = _download(file.download, home, progress, pause)
        _place(source, file, root, archives[url], accept)
    for part in archives.values():
        _forget(part)
    for tree in source.trees:
        _fetch_tree(tree, home, folder, accept, overwrite, progress, pause)
    return look(source, root)


def _chosen(source: Source, only: Sequence[str]) -> list[File]:
    names = [file.name for file in source.files]
    unknown = [name for name in only if name not in names]
    if unknown:
        close = difflib.get_close_matches(unknown[0], names, n=3) or names[:3]
        raise DataError(f"--only {unknown[0]}: there is no such file: did you mean {' or '.join(close)}?")
    if source.choice and not only:
        raise DataError(f"{source.folder} has {len(names)} files: name those you want, such as --only {names[0]}")
    return [file for file in source.files if not only or file.name in only]


def _fetch_tree(
    tree: Tree,
    home: Path,
    folder: Path | None,
    accept: Accept,
    overwrite: bool,
    progress: Progress,
    pause: Callable[[float], None],
) -> None:
    if _look_tree(tree, home).state != "absent" and not overwrite:
        return
    if folder is not None:
        if not folder.exists():
            raise DataError(f"--from {folder}: there is no such folder")
        trees.place_tree(tree, home, folder, accept)
    elif tree.kaggle:
        trees.place_tree(tree, home, trees.from_kaggle(tree), accept)
    elif tree.download is not None:
        atomic.make_folder(home)
        part = _download(tree.download, home, progress, pause)
        trees.place_tree(tree, home, part, accept)
        _forget(part)


def _look(source: Source, file: File, root: Path) -> Found:
    path = root / source.folder / file.name
    if not path.is_file():
        return Found(name=file.name, path=path, state="absent")
    try:
        size, digest = path.stat().st_size, atomic.sha256(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    expected = _expected(source, file, root)
    state: State = "unknown" if expected is None else "verified" if expected == digest else "differs"
    if expected is None and file.md5 is not None:
        state = "verified" if _md5(path) == file.md5 else "differs"
    return Found(name=file.name, path=path, state=state, sha256=digest, size=size)


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _expected(source: Source, file: File, root: Path) -> str | None:
    return file.sha256 or remembered(root / source.folder).get(file.name)


def remembered(home: Path) -> dict[str, str]:
    """File name -> SHA-256 of the files that were accepted in a dataset's folder."""
    path = home / SUMS
    if not path.is_file():
        return {}
    lines = path.read_text(encoding="utf-8").splitlines()
    return {found[2]: found[1] for line in lines if (found := re.fullmatch(r"([0-9a-f]{64})  (.+)", line))}


def _accepted(home: Path, found: Found, accept: Accept) -> bool:
    if not accept(found.name, found.size, found.sha256):
        raise DataError(
            f"{found.path} is there, and no checksum of it is known: its SHA-256 is {found.sha256} ({found.size} bytes). "
            f"If it is what you expect, say so with --accept {found.sha256}"
        )
    _remember(home, found.name, found.sha256)
    return True


def _remember(home: Path, name: str, digest: str) -> None:
    sums = remembered(home) | {name: digest}
    atomic.write_text(home / SUMS, "".join(f"{value}  {key}\n" for key, value in sorted(sums.items())))


# ------------------------------------------------------------------------------------------------------ from a folder


def _from_folder(source: Source, file: File, root: Path, folder: Path, accept: Accept) -> None:
    if not folder.exists():
        raise DataError(f"--from {folder}: there is no such folder")
    if folder.is_file():
        _place(source, file, root, folder, accept, packed=zipfile.is_zipfile(folder))
        return
    for name in (file.name, file.download.name, file.download.name.replace("+", " ")):
        hits = sorted(path for path in folder.rglob(name) if path.is_file())
        if len({atomic.sha256(path) for path in hits}) > 1:
            listed = ", ".join(map(str, hits))
            raise DataError(
                f"--from {folder}: several different files are called {name}: {listed}: name a smaller folder"
            )
        if hits:
            _place(source, file, root, hits[0], accept, packed=name != file.name and bool(file.member))
            return
    raise DataError(
        f"--from {folder}: there is neither {file.name} nor {file.download.name}: get them from {source.page}"
    )


# ------------------------------------------------------------------------------------------------------ verified, placed


def _place(source: Source, file: File, root: Path, got: Path, accept: Accept, *, packed: bool | None = None) -> None:
    """Verify a file, unpacked where it is one of an archive, and give it its final name."""
    home = root / source.folder
    target = home / file.name
    ready = home / f".{file.name}.ready"
    try:
        if file.member if packed is None else packed:
            with _member(got, file.member or file.name) as content:
                size, digest = _copy(content, ready)
        else:
            with got.open("rb") as content:
                size, digest = _copy(content, ready)
        expected = _expected(source, file, root)
        if expected is not None and digest != expected:
            raise DataError(
                f"{file.name} from {got if got.parent != home else file.download.url} is not the official file: "
                f"its SHA-256 is {digest} ({size} bytes), expected {expected}"
                + (f" ({file.size} bytes)" if file.size else "")
                + f": was it changed or cut? See {source.page}"
            )
        if expected is None and file.md5 is not None:
            if _md5(ready) != file.md5:
                raise DataError(
                    f"{file.name} from {got if got.parent != home else file.download.url} is not the official file: its MD5 "
                    f"is {_md5(ready)}, expected {file.md5}: was it changed or cut? See {source.page}"
                )
        elif expected is None:
            if not accept(file.name, size, digest):
                raise DataError(
                    f"{file.name}: no checksum of the official file is known. What came has {size} bytes and the SHA-256 "
                    f"{digest}: compare it with {source.page}, then say --accept {digest}"
                )
            _remember(home, file.name, digest)
        atomic.move(ready, target)
    except OSError as error:
        raise DataError(f"{got} cannot be read: {error.strerror or error}") from error
    finally:
        ready.unlink(missing_ok=True)


def _copy(content: IO[bytes], target: Path) -> tuple[int, str]:
    """Copy to a file, durably; bytes and SHA-256."""
    digest, size = hashlib.sha256(), 0
    with target.open("wb") as file:
        while block := content.read(_BLOCK):
            size += len(block)
            if size > _LARGEST:
                raise DataError(f"{target.name} is larger than {_LARGEST} bytes when unpacked: refused")
            digest.update(block)
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    return size, digest.hexdigest()


@contextmanager
def _member(archive: Path, name: str) -> Iterator[IO[bytes]]:
    """One file of a zip archive, by its name at any depth; nothing else of the archive is ever written.

    Raises:
        DataError: it is no zip archive, is damaged, or the file is not in it once, as a plain file.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            hits = [
                item
                for item in opened.infolist()
                if PurePosixPath(item.filename).name == name and "__MACOSX" not in PurePosixPath(item.filename).parts
            ]
            if len(hits) != 1 or hits[0].is_dir() or stat.S_ISLNK(hits[0].external_attr >> 16):
                raise DataError(f"{archive} holds {len(hits)} files called {name}, expected one plain file")
            with opened.open(hits[0]) as content:
                yield content
    except (zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError) as error:
        raise DataError(f"{archive} cannot be unpacked: {error}: fetch it again") from error


# ------------------------------------------------------------------------------------------------------ from the web


def _download(download: Download, home: Path, progress: Progress, pause: Callable[[float], None]) -> Path:
    """The path of a whole download, verified where its checksum is known; continued where an earlier one broke off."""
    if urlsplit(download.url).scheme not in ("http", "https"):
        raise DataError(f"{download.url}: expected an address that begins with https://")
    part = home / f".{download.name}.part"
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            _pull(download, part, progress)
            break
        except _Broken as error:
            if attempt == _ATTEMPTS:
                there = part.stat().st_size if part.exists() else 0
                state = f"broke off after {there} bytes" if there else "cannot be reached"
                raise DataError(
                    f"{download.url} {state} ({error}), in {_ATTEMPTS} attempts: "
                    + ("run the same command to go on from there" if there else "is this machine on line?")
                    + ", or take the files from a folder with --from"
                ) from error
            pause(2.0 ** (attempt - 1))
    digest = atomic.sha256(part)
    if download.sha256 is not None and digest != download.sha256:
        size = part.stat().st_size
        _forget(part)
        raise DataError(
            f"{download.url} is not the official file: its SHA-256 is {digest} ({size} bytes), expected "
            f"{download.sha256} ({download.size} bytes); it was deleted: try again, or use --from"
        )
    return part


class _Broken(Exception):
    """A connection that may be tried again."""


def _pull(download: Download, part: Path, progress: Progress) -> None:
    import http.client
    import urllib.error
    import urllib.request

    from wardround import __version__

    notes = _notes(part)
    there = part.stat().st_size if part.exists() else 0
    if notes.get("url") != download.url or (there and not notes.get("tag")):
        there = 0
    if there and notes.get("whole") == there:
        return
    headers = {"User-Agent": f"wardround/{__version__}", "Accept-Encoding": "identity"}
    if there:
        headers |= {"Range": f"bytes={there}-", "If-Range": str(notes["tag"])}
    request = urllib.request.Request(download.url, headers=headers)  # its scheme was checked
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:
            if answer.status != 206 or not _continues(answer.headers.get("Content-Range"), there):
                there = 0
            length = answer.headers.get("Content-Length")
            total = there + int(length) if length else download.size
            if total is not None and total > _LARGEST:
                raise DataError(f"{download.url} has {total} bytes, more than {_LARGEST}: refused")
            tag = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
            # a weak tag does not promise the same bytes
            _note(part, {"url": download.url, "tag": "" if tag.startswith("W/") else tag})
            with part.open("ab" if there else "wb") as file:
                while block := answer.read(_BLOCK):
                    file.write(block)
                    there += len(block)
                    progress(download.name, there, total)
                    if there > _LARGEST:
                        raise DataError(f"{download.url} has more than {_LARGEST} bytes: refused")
            if total is not None and there < total:
                raise _Broken(f"{there} of {total} bytes came")
    except urllib.error.HTTPError as error:
        if error.code == 416:
            _forget(part)
        if error.code in (408, 416, 425, 429, 500, 502, 503, 504):
            raise _Broken(f"the server answers {error.code} {error.reason}") from error
        raise DataError(
            f"{download.url}: the server answers {error.code} {error.reason}: has the file moved? Take it from a folder "
            "with --from"
        ) from error
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        raise _Broken(str(getattr(error, "reason", None) or error or type(error).__name__)) from error
    _note(part, {**_notes(part), "whole": there})


def _continues(header: str | None, there: int) -> bool:
    found = re.match(r"bytes (\d+)-", header or "")
    return found is not None and int(found[1]) == there


def _notes(part: Path) -> Mapping[str, str | int]:
    try:
        found = json.loads(part.with_name(part.name + ".json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _note(part: Path, notes: Mapping[str, str | int]) -> None:
    atomic.write_json(part.with_name(part.name + ".json"), dict(notes))


def _forget(part: Path) -> None:
    atomic.remove(part)
    atomic.remove(part.with_name(part.name + ".json"))

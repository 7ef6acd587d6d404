"""Getting a folder of many files: from Kaggle, from a zip archive on the web, or from a folder; shown, then taken whole.

Nobody publishes checksums of these. The digest of a tree is the SHA-256 of the lines that `sha256sum` would print for its
files, sorted; once accepted, the lines are in `SHA256SUMS` and `sha256sum -c` verifies every file.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from wardround.data.sources import Tree
from wardround.errors import ConfigError, DataError, StorageError
from wardround.store import atomic

_LARGEST = 2**38
Accept = Callable[[str, int, str], bool]


def place_tree(tree: Tree, home: Path, got: Path, accept: Accept) -> None:
    """Take the wanted folders and files of a tree from a folder or zip archive, wherever in it they lie.

    Zip archives among them are unpacked where they are.

    Args:
        tree: what is wanted.
        home: the dataset's folder.
        got: a folder, or an archive; it is left as it is.
        accept: asked with the tree's name, bytes and digest.

    Raises:
        DataError: it lacks something, or was not accepted.
        StorageError: the disk cannot be written.
    """
    atomic.make_folder(home)
    fresh = Path(tempfile.mkdtemp(prefix=".tree-", dir=home))
    try:
        if got.is_dir():
            _copy(tree, _base(tree, got), fresh)
        else:
            unpack(got, fresh / "all")
            base = _base(tree, fresh / "all")
            for name in tree.holds:
                (fresh / name).parent.mkdir(parents=True, exist_ok=True)
                (base / name).rename(fresh / name)
            shutil.rmtree(fresh / "all")
        for archive in sorted(fresh.rglob("*.zip")):
            unpack(archive, archive.parent)
            archive.unlink()
        sums = "".join(f"{digest}  {name}\n" for name, digest in _sums(fresh))
        size = sum(path.stat().st_size for path in fresh.rglob("*") if path.is_file())
        digest = hashlib.sha256(sums.encode()).hexdigest()
        if not accept(tree.name, size, digest):
            raise DataError(
                f"{tree.name}: no checksum of it is published. What came has {size} bytes in {sums.count(chr(10))} files and "
                f"the digest {digest}: if it is what you expect, say so with --accept {digest}"
            )
        for name in tree.holds:
            target = home / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.is_dir():
                shutil.rmtree(target)
            (fresh / name).rename(target)
        _remember(home, sums)
    except OSError as error:
        raise StorageError(f"{home} cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def from_kaggle(tree: Tree) -> Path:
    """The folder into which kagglehub downloaded a dataset, its cache; a download that broke off goes on.

    Raises:
        ConfigError: kagglehub is not installed.
        DataError: Kaggle refuses, or cannot be reached.
    """
    try:
        import kagglehub
    except ImportError as error:
        raise ConfigError(
            f'{tree.name} comes from Kaggle, which needs kagglehub: pip install "wardround[imaging]". Or download '
            f"https://www.kaggle.com/datasets/{tree.kaggle} yourself and take it with --from"
        ) from error
    try:
        return Path(kagglehub.dataset_download(tree.kaggle))
    except Exception as error:
        # kagglehub documents no exception of its own
        raise DataError(
            f"Kaggle does not hand out {tree.kaggle} ({type(error).__name__}: {error}): some datasets need an account "
            "(kagglehub.login(), or KAGGLE_USERNAME and KAGGLE_KEY), or a licence accepted on their page; or take it with "
            "--from"
        ) from error


def unpack(archive: Path, target: Path) -> None:
    """Unpack a zip archive's plain files under `target`; names that lead out of it, and links, are refused.

    Raises:
        DataError: it is no zip archive, is damaged, or holds more than 256 GiB.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            plain = [item for item in opened.infolist() if not item.is_dir()]
            if sum(item.file_size for item in plain) > _LARGEST:
                raise DataError(f"{archive} claims more than {_LARGEST} bytes: refused")
            for item in plain:
                parts = PurePosixPath(item.filename.replace("\\", "/")).parts
                if "__MACOSX" in parts:
                    continue
                if ".." in parts or item.filename.startswith(("/", "\\")) or ":" in parts[0]:
                    raise DataError(f"{archive} names {item.filename!r}, which leads out of it: refused")
                if stat.S_ISLNK(item.external_attr >> 16):
                    raise DataError(f"{archive} holds a link, {item.filename!r}: refused")
                path = target.joinpath(*parts)
                path.parent.mkdir(parents=True, exist_ok=True)
                with opened.open(item) as content, path.open("wb") as file:
                    shutil.copyfileobj(content, file)
    except (zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError) as error:
        raise DataError(f"{archive} cannot be unpacked: {error}: fetch it again") from error


def _base(tree: Tree, folder: Path) -> Path:
    """The folder, or the one below it, that holds all that is wanted."""
    for base in (folder, *sorted(path for path in folder.rglob("*") if path.is_dir())):
        if all((base / name).exists() for name in tree.holds):
            return base
    raise DataError(f"{folder} has no folder with {', '.join(tree.holds)}: is it {tree.name}?")


def _copy(tree: Tree, base: Path, target: Path) -> None:
    def put(source: str, into: str) -> str:
        try:
            os.link(source, into)  # without a second copy where the disk is the same
        except OSError:
            shutil.copyfile(source, into)
        return into

    for name in tree.holds:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        if (base / name).is_dir():
            shutil.copytree(base / name, target / name, copy_function=put)
        else:
            put(str(base / name), str(target / name))


def _sums(folder: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield path.relative_to(folder).as_posix(), atomic.sha256(path)


def _remember(home: Path, sums: str) -> None:
    path = home / "SHA256SUMS"
    known = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    lines = {
        line.split("  ", 1)[1]: line for line in [*known, *sums.splitlines()] if re.match(r"[0-9a-f]{64}  .", line)
    }
    atomic.write_text(path, "".join(f"{lines[name]}\n" for name in sorted(lines)))

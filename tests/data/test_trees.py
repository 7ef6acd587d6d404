"""Folders of files are taken whole, shown before they are kept, and nothing leads out of an archive."""

import hashlib
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from wardround.data.fetch import fetch, look
from wardround.data.sources import Source, Tree
from wardround.errors import ConfigError, DataError

TREE = Tree(name="slices", holds=("Training", "list.txt"), kaggle="owner/slices")
SOURCE = Source(title="", folder="set", page="https://a.org", licence="", citation="", trees=(TREE,))


@pytest.fixture
def download(tmp_path: Path) -> Path:
    base = tmp_path / "download" / "slices-master"
    (base / "Training" / "ill").mkdir(parents=True)
    (base / "Training" / "ill" / "1.png").write_bytes(b"one")
    (base / "list.txt").write_text("1.png\n")
    (base / "other.txt").write_text("not wanted")
    with zipfile.ZipFile(base / "Training" / "well.zip", "w") as archive:
        archive.writestr("well/2.png", b"two")
    return tmp_path / "download"


def everything(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


WANTED = {"Training/ill/1.png": b"one", "Training/well/2.png": b"two", "list.txt": b"1.png\n"}


def test_from_a_folder_at_any_depth_with_sums(download: Path, tmp_path: Path) -> None:
    shown = []

    def accept(name: str, size: int, digest: str) -> bool:
        shown.append((name, size, digest))
        return True

    root = tmp_path / "root"
    assert [found.state for found in look(SOURCE, root)] == ["absent"]
    assert [found.state for found in fetch(SOURCE, root, folder=download, accept=accept)] == ["unknown"]
    lines = "".join(f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in sorted(WANTED.items()))
    assert everything(root / "set") == WANTED | {"SHA256SUMS": lines.encode()}
    assert shown == [("slices", 12, hashlib.sha256(lines.encode()).hexdigest())]
    # what is there is left alone, and the source was not changed
    fetch(SOURCE, root, folder=tmp_path / "nowhere")
    assert (download / "slices-master" / "Training" / "well.zip").exists()


def test_what_nobody_accepts_leaves_nothing(download: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"12 bytes in 3 files and the digest [0-9a-f]{64}"):
        fetch(SOURCE, tmp_path / "root", folder=download)
    assert everything(tmp_path / "root") == {}
    (download / "slices-master" / "list.txt").unlink()
    with pytest.raises(DataError, match=r"no folder with Training, list\.txt"):
        fetch(SOURCE, tmp_path / "root", folder=download)


def test_from_an_archive(download: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for name, content in everything(download).items():
            archive.writestr(name, content)
    fetch(SOURCE, tmp_path / "root", folder=tmp_path / "all.zip", accept=lambda *_: True)
    assert {
        name: content for name, content in everything(tmp_path / "root" / "set").items() if "SUMS" not in name
    } == WANTED


@pytest.mark.parametrize("name", ["../evil.txt", "/evil.txt", "a/../../evil.txt", "..\\evil.txt"])
def test_names_that_lead_out_are_refused(name: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.writestr(name, b"evil")
    with pytest.raises(DataError, match="leads out of it"):
        fetch(SOURCE, tmp_path / "root", folder=tmp_path / "all.zip", accept=lambda *_: True)
    assert not list(tmp_path.rglob("evil.txt"))


def test_kaggle(download: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def give(handle: str) -> str:
        asked.append(handle)
        return str(download)

    monkeypatch.setitem(sys.modules, "kagglehub", SimpleNamespace(dataset_download=give))
    fetch(SOURCE, tmp_path / "root", accept=lambda *_: True)
    assert asked == ["owner/slices"]
    assert WANTED.items() <= everything(tmp_path / "root" / "set").items()

    def refuse(handle: str) -> str:
        raise ValueError("403 Client Error")

    monkeypatch.setitem(sys.modules, "kagglehub", SimpleNamespace(dataset_download=refuse))
    with pytest.raises(DataError, match=r"does not hand out owner/slices .*403.*--from"):
        fetch(SOURCE, tmp_path / "other")
    monkeypatch.setitem(sys.modules, "kagglehub", None)
    with pytest.raises(ConfigError, match=r'pip install "wardround\[imaging\]"'):
        fetch(SOURCE, tmp_path / "other")

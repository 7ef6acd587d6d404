import json
import os
from pathlib import Path

import pytest

from wardround.data.imaging import cache
from wardround.errors import DataError, StorageError


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WARDROUND_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "a.bin"
    path.write_bytes(b"one")
    return path


def test_it_is_built_once_and_again_when_file_or_settings_change(source: Path) -> None:
    built = []

    def build(folder: Path) -> dict[str, int]:
        built.append(folder)
        (folder / "copy").write_bytes(source.read_bytes())
        return {"rows": 3}

    folder, manifest = cache.once("set", {"size": 8}, [source], build)
    assert ((folder / "copy").read_bytes(), manifest) == (b"one", {"rows": 3})
    assert cache.once("set", {"size": 8}, [source], build)[0] == folder
    assert len(built) == 1
    assert cache.once("set", {"size": 9}, [source], build)[0] != folder
    source.write_bytes(b"two")
    os.utime(source, (1, 1))
    assert (cache.once("set", {"size": 8}, [source], build)[0] / "copy").read_bytes() == b"two"
    assert len(built) == 3


def test_a_build_that_fails_leaves_nothing(source: Path, tmp_path: Path) -> None:
    def build(folder: Path) -> dict[str, int]:
        (folder / "half").write_bytes(b"")
        raise DataError("no picture")

    with pytest.raises(DataError, match="no picture"):
        cache.once("set", {}, [source], build)
    assert list((tmp_path / "cache").iterdir()) == []


def test_two_at_once_do_no_harm(source: Path) -> None:
    def build(folder: Path) -> dict[str, int]:
        inner, _ = cache.once("set", {}, [source], lambda own: {"by": 2})
        assert json.loads((inner / cache.MANIFEST).read_text()) == {"by": 2}
        return {"by": 1}

    assert cache.once("set", {}, [source], build)[1] == {"by": 2}


def test_faults(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"gone\.bin cannot be read"):
        cache.once("set", {}, [tmp_path / "gone.bin"], lambda folder: {})
    monkeypatch.setenv("WARDROUND_CACHE", str(source / "below"))
    with pytest.raises(StorageError, match="set WARDROUND_CACHE"):
        cache.once("set", {}, [source], lambda folder: {})

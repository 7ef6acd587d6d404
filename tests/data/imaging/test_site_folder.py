"""A prepared folder: whole or not there, and vouched for by its manifest."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from wardround.data.imaging.site_folder import IMAGES, MANIFEST, RECORDS, Manifest, open_folder, write_folder
from wardround.errors import DataError, StorageError

PICTURES = np.arange(3 * 1 * 4 * 5, dtype=np.uint8).reshape(3, 1, 4, 5)
RECORD = {"patient": "p", "group": "", "label": "a", "split": "", "age": "", "sex": ""}
SAID = Manifest(
    site="north", modality="XR", shape=(1, 4, 5), dtype="uint8", scale=(0.0, 255.0), classes=("a", "b"),
    multilabel=False, rows=3,
)  # fmt: skip


def test_what_was_written_is_read_and_mapped(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "north", SAID, [PICTURES[:2], PICTURES[2]], [RECORD] * 3)
    images = folder.images()
    assert isinstance(images, np.memmap)
    assert not images.flags.writeable
    np.testing.assert_array_equal(images, PICTURES)
    assert folder.records["row"] == ["0", "1", "2"]
    assert replace(folder.manifest, hashes={}) == SAID
    folder.verify()


def test_a_failed_write_leaves_the_old_folder_and_nothing_else(tmp_path: Path) -> None:
    write_folder(tmp_path / "north", SAID, [PICTURES], [RECORD] * 3)
    with pytest.raises(ValueError, match="2 pictures"):
        write_folder(tmp_path / "north", SAID, [PICTURES[:2]], [RECORD] * 3)
    assert [path.name for path in tmp_path.iterdir()] == ["north"]
    np.testing.assert_array_equal(open_folder(tmp_path / "north").images(), PICTURES)


def test_no_room_is_told(tmp_path: Path) -> None:
    def full() -> object:
        yield PICTURES[:1]
        raise OSError(28, "No space left on device")

    with pytest.raises(StorageError, match="nothing half-written"):
        write_folder(tmp_path / "north", SAID, full(), [RECORD] * 3)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", [IMAGES, RECORDS])
def test_a_changed_file_is_noticed(tmp_path: Path, name: str) -> None:
    folder = write_folder(tmp_path / "north", SAID, [PICTURES], [RECORD] * 3)
    data = bytearray((folder.path / name).read_bytes())
    data[-1] ^= 1
    (folder.path / name).write_bytes(data)
    with pytest.raises(DataError, match=f"{name} was changed"):
        folder.verify()


def test_a_cut_array_is_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "north", SAID, [PICTURES], [RECORD] * 3)
    (folder.path / IMAGES).write_bytes((folder.path / IMAGES).read_bytes()[:-8])
    with pytest.raises(DataError, match="cannot be read"):
        folder.images()


@pytest.mark.parametrize(("key", "value"), [("format", 2), ("dtype", "int64"), ("scale", [1, 0]), ("shape", None)])
def test_a_damaged_manifest_is_refused(tmp_path: Path, key: str, value: object) -> None:
    folder = write_folder(tmp_path / "north", SAID, [PICTURES], [RECORD] * 3)
    tree = json.loads((folder.path / MANIFEST).read_text())
    (folder.path / MANIFEST).write_text(json.dumps(tree | {key: value}))
    with pytest.raises(DataError, match="prepare the site again"):
        open_folder(folder.path)

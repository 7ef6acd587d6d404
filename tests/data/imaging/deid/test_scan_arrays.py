"""The scanner on what `prepare` makes: arrays of pictures, and files too large to be read at once."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from wardround.data.imaging.deid import scan as module
from wardround.data.imaging.deid.scan import scan
from wardround.errors import DataError

NUMBER = "MRN-7754321"


def test_rows_of_an_array_with_text_are_named(tmp_path: Path) -> None:
    image = Image.new("L", (160, 96), 0)
    ImageDraw.Draw(image).text((10, 30), "QUACKENBUSH 77", font=ImageFont.load_default(size=14), fill=255)
    rows = np.zeros((3, 1, 96, 160), np.uint8)
    rows[1, 0] = np.asarray(image)
    np.save(tmp_path / "images.npy", rows)
    np.save(tmp_path / "table.npy", np.zeros((4, 4)))
    found = scan(tmp_path, [NUMBER], pixels=True)
    assert [(one.file, one.place) for one in found] == [("images.npy", "pixels of row 1")]


@pytest.mark.parametrize("at", [0, 4090, 4096, 8185, 20_000])
def test_a_file_too_large_for_memory_is_looked_through_in_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    monkeypatch.setattr(module, "_MOST", 5_000)
    monkeypatch.setattr(module, "_BLOCK", 4_096)
    monkeypatch.setattr(module, "_OVERLAP", 512)
    data = bytearray(30_000)
    data[at : at + len(NUMBER)] = NUMBER.lower().encode()
    (tmp_path / "images.npy").write_bytes(data)
    assert [(one.file, one.place) for one in scan(tmp_path, [NUMBER])] == [("images.npy", "bytes")]
    (tmp_path / "images.npy").write_bytes(bytes(30_000))
    assert scan(tmp_path, [NUMBER]) == []


def test_a_large_archive_is_not_passed_over_in_silence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST", 500)
    np.savez(tmp_path / "a.npz", np.zeros(2000))
    with pytest.raises(DataError, match="unpack it"):
        scan(tmp_path, [NUMBER])

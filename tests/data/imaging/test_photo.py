from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wardround.data.imaging.decode import Limits, Options, read
from wardround.errors import DataError

GREY = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
COLOUR = np.stack([GREY, GREY + 1, GREY + 2], axis=-1)


def test_colour_grey_palette_and_transparency(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(COLOUR).save(path)
    got = read(path, options=Options(modality="DERM"))
    assert np.array_equal(got.pixels, np.moveaxis(COLOUR, -1, 0))
    assert got.modality == "DERM"
    Image.fromarray(COLOUR).convert("RGBA").save(path)
    assert np.array_equal(read(path).pixels, np.moveaxis(COLOUR, -1, 0))
    Image.fromarray(GREY).convert("P").save(path)
    assert np.array_equal(read(path).pixels, np.stack([GREY] * 3))


def test_sixteen_bits_stay_sixteen(tmp_path: Path) -> None:
    values = GREY.astype(np.uint16) * 200
    Image.fromarray(values).save(tmp_path / "a.png")
    Image.fromarray(values).save(tmp_path / "a.tiff")
    for name in ("a.png", "a.tiff"):
        got = read(tmp_path / name)
        assert got.pixels.dtype == np.uint16
        assert np.array_equal(got.pixels[0], values)


def test_exif_turns_the_camera_upright(tmp_path: Path) -> None:
    wide = np.zeros((8, 16, 3), np.uint8)
    wide[:, :8] = 255
    image = Image.fromarray(wide)
    exif = image.getexif()
    exif[0x0112] = 6  # the camera was held on its side: turn by 90 degrees, clockwise
    image.save(tmp_path / "a.jpg", exif=exif, quality=95)
    got = read(tmp_path / "a.jpg").pixels
    assert got.shape == (3, 16, 8)
    assert got[:, :7].min() > 200
    assert got[:, 9:].max() < 50


def test_pages_of_a_tiff(tmp_path: Path) -> None:
    pages = [Image.fromarray(GREY + step) for step in range(3)]
    pages[0].save(tmp_path / "a.tiff", save_all=True, append_images=pages[1:])
    assert np.array_equal(read(tmp_path / "a.tiff").pixels[0], GREY + 1)
    assert read(tmp_path / "a.tiff", options=Options(frames="all")).pixels.shape == (1, 3, 3, 4)


def test_limits_and_damage(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(np.zeros((40, 30), np.uint8)).save(path)
    with pytest.raises(DataError, match="40 x 30 pixels, and the limit for a side is 39"):
        read(path, options=Options(limits=Limits(side=39)))
    noise = np.random.default_rng(0).integers(0, 256, (40, 30), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(DataError, match=r"a\.png cannot be read as a picture"):
        read(path)


def test_numpy_files(tmp_path: Path) -> None:
    tall = np.concatenate([COLOUR, COLOUR])
    np.savez(tmp_path / "a.npz", image=tall, mask=GREY)
    with pytest.raises(DataError, match="holds the arrays image, mask: name one"):
        read(tmp_path / "a.npz")
    with pytest.raises(DataError, match="holds no array 'x': it holds image, mask"):
        read(tmp_path / "a.npz", options=Options(array="x"))
    assert np.array_equal(read(tmp_path / "a.npz", options=Options(array="image")).pixels, np.moveaxis(tall, -1, 0))
    np.save(tmp_path / "v.npy", np.zeros((5, 6, 7)))
    got = read(tmp_path / "v.npy").pixels
    assert (got.shape, got.dtype) == ((1, 5, 6, 7), np.float32)
    np.save(tmp_path / "o.npy", np.array([[{}]], dtype=object))
    with pytest.raises(DataError, match="holds object: expected numbers"):
        read(tmp_path / "o.npy")


def test_a_numpy_header_is_not_believed(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((10, 10), np.uint8))
    lie = (tmp_path / "a.npy").read_bytes().replace(b"(10, 10), }", b"(99, 9999)}")
    (tmp_path / "a.npy").write_bytes(lie)
    with pytest.raises(DataError, match="is truncated: 100 of 989901 bytes"):
        read(tmp_path / "a.npy")
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", bytes(1 << 22))
    with pytest.raises(DataError, match="and the limit is 1048576"):
        read(tmp_path / "bomb.npz", options=Options(limits=Limits(bytes=1 << 20)))

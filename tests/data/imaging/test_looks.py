from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from data.imaging.slices import dataset, save
from wardround.data.imaging.decode import Picture, looks_like, read

RNG = np.random.default_rng(0)
HEIGHT, WIDTH = np.mgrid[-1:1:64j, -1:1:64j]
HEAD = np.where(HEIGHT**2 + WIDTH**2 < 0.7, 90 + 40 * np.sin(9 * WIDTH), 3).astype(np.uint8)


def picture(pixels: np.ndarray) -> Picture:
    return Picture(pixels=np.ascontiguousarray(pixels), modality="PHOTO", facts={"format": "PNG"})


def test_photographs_are_no_brain_mri() -> None:
    from sklearn.datasets import load_sample_images

    for image in load_sample_images().images:
        photo = np.moveaxis(image, -1, 0)
        assert "in colour" in (looks_like(picture(photo), "MR") or "")
    noise = RNG.normal(150, 25, (1, 64, 64)).clip(0, 255).astype(np.uint8)
    assert "no dark background" in (looks_like(picture(noise), "MR") or "")
    assert looks_like(picture(HEAD[None]), "MR") is None
    assert looks_like(picture(np.stack([HEAD] * 3)), "MR") is None


def test_masks_pages_and_grey_skin() -> None:
    mask = np.where(HEAD > 50, 255, 0).astype(np.uint8)[None]
    assert "2 levels" in (looks_like(picture(mask), "MR") or "")
    page = np.where(RNG.random((1, 64, 64)) < 0.2, RNG.integers(0, 200, (1, 64, 64)), 255).astype(np.uint8)
    assert "white, like a page" in (looks_like(picture(page), "XR") or "")
    assert "dermoscopy is in colour" in (looks_like(picture(np.stack([HEAD] * 3)), "DERM") or "")
    sea = np.stack([HEAD // 4, HEAD // 2, HEAD]) + np.array([20, 60, 120], np.uint8)[:, None, None]
    assert "blue" in (looks_like(picture(sea), "DERM") or "")
    assert looks_like(picture(sea), "PHOTO") is None


def test_headers_and_units(tmp_path: Path) -> None:
    stored = RNG.integers(0, 900, (64, 64)).astype(np.int16)
    raw = read(save(tmp_path / "a.dcm", dataset(stored)))
    assert "are they Hounsfield units?" in (looks_like(raw, "CT") or "")
    assert looks_like(raw, "MR") == "its header says CT, not MR"
    scaled = read(save(tmp_path / "b.dcm", dataset(stored, RescaleSlope=1, RescaleIntercept=-1024)))
    assert looks_like(scaled, "CT") is None


def test_real_files_pass_as_what_they_are() -> None:
    root = os.environ.get("WARDROUND_DATA")
    if not root or not (Path(root) / "ham10000_sites").exists():
        pytest.skip("WARDROUND_DATA names no folder with the images")
    for path in sorted((Path(root) / "ham10000_sites/images64").glob("*/*.jpg"))[::40]:
        assert looks_like(read(path), "DERM") is None, path
        assert looks_like(read(path), "CT") is not None, path
    with np.load(Path(root) / "pneumoniamnist/pneumoniamnist.npz") as arrays:
        assert all(looks_like(picture(image[None]), "XR") is None for image in arrays["test_images"])
    for name in (
        "693_UNCI",
        "CT_small",
        "MR2_UNCI",
        "MR_small",
        "US1_UNCI",
        "examples_rgb_color",
        "examples_ybr_color",
    ):
        real = read(Path(root) / f"dicom/{name}.dcm")
        assert looks_like(real, real.modality) is None, name


def exported(path: Path, pixels: np.ndarray, *, camera: bool) -> Path:
    """A grey JPEG, with the EXIF of a camera or of a workstation that names itself."""
    from PIL import Image

    exif = Image.Exif()
    exif[0x010F] = "Maker"
    if camera:
        exif.get_ifd(0x8769)[0x829A] = 0.01
    Image.fromarray(pixels).save(path, "JPEG", exif=exif)
    return path


def test_a_grey_photograph_with_a_dark_edge_is_told_by_its_exif_alone(tmp_path: Path) -> None:
    taken = read(exported(tmp_path / "taken.jpg", HEAD, camera=True))
    for modality in ("MR", "CT"):
        assert "exposure by a camera" in (looks_like(taken, modality) or "")
    for modality in ("XR", "US", "PHOTO"):
        assert looks_like(taken, modality) is None
    made = read(exported(tmp_path / "made.jpg", HEAD, camera=False))
    assert looks_like(made, "MR") is None


def test_a_ct_without_a_sign_has_no_hounsfield_units() -> None:
    from wardround.data.imaging.fit import Fit, fitted
    from wardround.data.imaging.looks import numbers_of
    from wardround.errors import DataError

    window, plain = Fit(size=(64, 64), channels=1, window=(0.0, 80.0)), Fit(size=(64, 64), channels=1)
    shown = Picture(pixels=HEAD[None], modality="CT")
    assert "no Hounsfield units" in numbers_of(shown, "CT")
    assert numbers_of(shown, "MR") == ""
    np.testing.assert_array_equal(fitted(shown, plain)[0], HEAD)
    with pytest.raises(DataError, match="no Hounsfield units"):
        fitted(shown, window)
    with pytest.raises(DataError, match="no Hounsfield units"):
        fitted(Picture(pixels=HEAD[None].astype(np.uint16), modality="CT"), plain)
    signed = Picture(pixels=HEAD[None].astype(np.int16), modality="CT")
    assert numbers_of(signed, "CT") == ""
    assert fitted(signed, window).max() == 255


def test_what_the_background_tells_of_grey_photographs() -> None:
    """The figures of docs/imaging/reading.md: most skin turned grey is no MR, photographs with a dark edge pass."""
    from sklearn.datasets import load_sample_images

    grey = [np.rint(image.mean(axis=2)).astype(np.uint8) for image in load_sample_images().images]
    assert [looks_like(picture(one[None]), "MR") for one in grey] == [None, None]
    root = Path(os.environ.get("WARDROUND_DATA", "")) / "ham10000_sites" / "images64"
    if not root.exists():
        pytest.skip("WARDROUND_DATA names no folder with the images")
    skin = [read(path).pixels.mean(axis=0, keepdims=True) for path in sorted(root.glob("*/*.jpg"))[::10]]
    flagged = sum(looks_like(picture(np.rint(one).astype(np.uint8)), "MR") is not None for one in skin)
    assert 0.9 * len(skin) < flagged < len(skin)

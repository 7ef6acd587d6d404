from __future__ import annotations

import gzip
from pathlib import Path

import nibabel
import numpy as np
import pytest

from wardround.data.imaging.decode import Limits, Options, read
from wardround.errors import DataError

VALUES = np.random.default_rng(0).integers(-500, 500, (5, 6, 7)).astype(np.int16)
# first axis to the left, second to the front, third to the head, 1 x 2 x 3 mm
LAS = np.array([[-1, 0, 0, 40], [0, 2, 0, -30], [0, 0, 3, 10], [0, 0, 0, 1]], dtype=np.float64)


@pytest.mark.parametrize(("kind", "name"), [(nibabel.Nifti1Image, "a.nii"), (nibabel.Nifti2Image, "a.nii.gz")])
def test_turned_to_ras_like_nibabel_does(tmp_path: Path, kind: type, name: str) -> None:
    image = kind(VALUES, LAS)
    image.to_filename(tmp_path / name)
    got = read(tmp_path / name, options=Options(orientation="RAS", modality="MR"))
    expected = nibabel.as_closest_canonical(image)
    assert np.array_equal(got.pixels[0], np.asarray(expected.dataobj))
    assert got.affine is not None
    assert np.allclose(got.affine, expected.affine)
    assert (got.modality, got.orientation, got.spacing) == ("MR", "RAS", (1.0, 2.0, 3.0))
    assert got.pixels.dtype == np.int16


def test_by_default_it_hangs_like_axial_slices(tmp_path: Path) -> None:
    nibabel.Nifti1Image(VALUES, LAS).to_filename(tmp_path / "a.nii")
    got = read(tmp_path / "a.nii")
    # D to the head is k, H to the back is j reversed, W to the left is i
    assert np.array_equal(got.pixels[0], VALUES.T[:, ::-1])
    assert (got.orientation, got.spacing) == ("SPL", (3.0, 2.0, 1.0))


def test_of_four_axes_one_volume_or_all_as_channels(tmp_path: Path) -> None:
    stored = np.stack([VALUES, VALUES + 1, VALUES + 2], axis=-1)
    image = nibabel.Nifti1Image(stored, LAS)
    image.to_filename(tmp_path / "a.nii.gz")
    path = tmp_path / "a.nii.gz"
    assert read(path).facts["volumes"] == 3
    plain = read(path, options=Options(volume=0, orientation=None)).pixels
    assert np.array_equal(plain[0], VALUES.T)
    assert np.array_equal(read(path, options=Options(volume=2, orientation=None)).pixels, plain + 2)
    assert read(path, options=Options(volume="channels")).pixels.shape == (3, 7, 6, 5)
    with pytest.raises(DataError, match="holds 3 volumes, and volume 3 was asked for"):
        read(path, options=Options(volume=3))


def test_rescaling_and_units_of_length(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(VALUES, LAS / 1000)
    image.header.set_xyzt_units("meter")
    image.header.set_slope_inter(0.5, 7)
    image.to_filename(tmp_path / "a.nii")
    got = read(tmp_path / "a.nii", options=Options(orientation=None))
    stored = np.asarray(nibabel.load(tmp_path / "a.nii").dataobj)
    assert got.pixels.dtype == np.float32
    assert np.allclose(got.pixels[0], stored.T)
    assert got.spacing == pytest.approx((3.0, 2.0, 1.0))


def test_without_an_affine_nothing_is_turned_or_claimed(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(VALUES, None)
    image.to_filename(tmp_path / "a.nii")
    got = read(tmp_path / "a.nii")
    assert np.array_equal(got.pixels[0], VALUES.T)
    assert (got.orientation, got.affine) == (None, None)


def test_a_single_slice_is_flat(tmp_path: Path) -> None:
    nibabel.Nifti1Image(VALUES[:, :, :1], LAS).to_filename(tmp_path / "a.nii")
    got = read(tmp_path / "a.nii")
    assert np.array_equal(got.pixels, VALUES[:, ::-1, 0].T[None])
    assert (got.orientation, got.spacing) == ("PL", (2.0, 1.0))


def test_claims_are_compared_with_what_is_there(tmp_path: Path) -> None:
    nibabel.Nifti1Image(VALUES, LAS).to_filename(tmp_path / "a.nii")
    data = (tmp_path / "a.nii").read_bytes()
    (tmp_path / "short.nii").write_bytes(data[:-100])
    with pytest.raises(DataError, match=r"short\.nii is truncated: it claims 420 bytes of voxels"):
        read(tmp_path / "short.nii")
    huge = bytearray(data)
    huge[42:48] = np.array([16000] * 3, "<i2").tobytes()
    (tmp_path / "huge.nii.gz").write_bytes(gzip.compress(bytes(huge)))
    with pytest.raises(DataError, match="the limit is 4 GiB"):
        read(tmp_path / "huge.nii.gz")
    with pytest.raises(DataError, match="cannot hold them"):
        read(tmp_path / "huge.nii.gz", options=Options(limits=Limits(bytes=1 << 50)))
    (tmp_path / "cut.nii.gz").write_bytes(gzip.compress(data)[:-60])
    with pytest.raises(DataError, match=r"cut\.nii\.gz cannot be read as NIfTI"):
        read(tmp_path / "cut.nii.gz")
    (tmp_path / "no.nii.gz").write_bytes(gzip.compress(b"x" * 400))
    with pytest.raises(DataError, match="is not NIfTI"):
        read(tmp_path / "no.nii.gz")

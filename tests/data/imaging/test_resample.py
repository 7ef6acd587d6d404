from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from data.imaging.slices import series
from wardround.data.imaging.decode import Picture, read
from wardround.data.imaging.resample import resample
from wardround.errors import ConfigError, DataError


def ramp(shape: tuple[int, ...], spacing: tuple[float, ...]) -> Picture:
    """Values that are the position along the last axis in mm, of each voxel's centre."""
    values = np.broadcast_to((np.arange(shape[-1]) + 0.5) * spacing[-1], shape).astype(np.float32)[None]
    return Picture(pixels=np.ascontiguousarray(values), modality="CT", spacing=spacing)


@pytest.mark.parametrize("step", [0.25, 0.5, 2.0, 3.0])
def test_positions_stay_where_they_are(step: float) -> None:
    got = resample(ramp((4, 12, 24), (5.0, 1.0, 1.0)), spacing=(5.0, 1.0, step))
    assert got.pixels.shape == (1, 4, 12, round(24 / step))
    assert got.spacing == (5.0, 1.0, step)
    centres = (np.arange(got.pixels.shape[-1]) + 0.5) * step
    inner = (centres > 5) & (centres < 19)
    assert np.allclose(got.pixels[0, 0, 0][inner], centres[inner], atol=1e-3)


def test_a_coarser_axis_is_smoothed_and_the_others_are_not() -> None:
    stripes = np.zeros((1, 32, 32), np.float32)
    stripes[..., ::2] = 1
    picture = Picture(pixels=stripes, modality="XR", spacing=(1.0, 1.0))
    across = resample(picture, size=(32, 8)).pixels
    assert np.abs(across[..., 1:-1] - 0.5).max() < 0.05
    along = resample(picture, size=(8, 32)).pixels
    assert np.array_equal(np.unique(along.round(5)), [0, 1])


def test_nothing_to_do_is_nothing_done() -> None:
    picture = ramp((6, 8), (1.0, 1.0))
    assert resample(picture, size=(6, 8)) is picture
    assert resample(picture) is picture


def test_a_tilted_volume_is_set_upright(tmp_path: Path) -> None:
    # a rod perpendicular to the slices: in tilted slices its row goes down by one each time
    volume = np.zeros((8, 32, 6), np.int16)
    for index in range(8):
        volume[index, 20 - index] = 1000
    picture = read(series(tmp_path / "s", volume, shift=(0, 0.5, 0), RescaleIntercept=0))
    got = resample(picture)
    assert "tilt" not in got.facts
    rows = got.pixels[0, :, :, 3].argmax(axis=1)
    assert len(set(rows[1:-1])) == 1
    assert got.affine is not None
    axes = got.affine[:3, :3] / np.linalg.norm(got.affine[:3, :3], axis=0)
    assert np.allclose(axes.T @ axes, np.eye(3), atol=1e-9)


def test_what_cannot_be_resampled_says_so() -> None:
    picture = ramp((6, 8), (1.0, 1.0))
    with pytest.raises(ConfigError, match="expected one of them"):
        resample(picture, spacing=(1, 1), size=(2, 2))
    with pytest.raises(ConfigError, match="size is"):
        resample(picture, size=(2, 0))
    with pytest.raises(DataError, match="spacing is not known"):
        resample(Picture(pixels=picture.pixels, modality="XR"), spacing=(1, 1))

"""Text in pixels, faces of heads: what is blanked, and that nothing else changes."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from wardround.data.imaging.deid import Policy, Rules, burned_in, clean, clean_picture, face
from wardround.data.imaging.picture import Picture
from wardround.errors import Refused

DATA = Path(os.environ.get("WARDROUND_DATA", "")) / "dicom"
real = pytest.mark.skipif(not (DATA / "US1_UNCI.dcm").exists(), reason="WARDROUND_DATA has no dicom folder")


def lettered(size=16, colour=255, background=0):
    image = Image.new("L", (320, 200), background)
    ImageDraw.Draw(image).text((20, 80), "QUACKENBUSH 7754", font=ImageFont.load_default(size=size), fill=colour)
    return np.asarray(image)


@pytest.mark.parametrize(("colour", "background"), [(255, 0), (0, 255), (200, 90)])
def test_a_line_of_text_on_a_quiet_ground_is_found(colour, background):
    grey = lettered(colour=colour, background=background)
    boxes = burned_in.find(grey)
    left = burned_in.blank(grey[None, ..., None].copy(), boxes, background)[0, ..., 0]
    assert boxes
    assert (left == colour).sum() <= 0.02 * (grey == colour).sum()


def test_noise_and_edges_are_not_text():
    rng = np.random.default_rng(0)
    assert burned_in.find(rng.integers(0, 255, (128, 128), dtype=np.uint8)) == []
    disc = (np.hypot(*np.indices((128, 128)) - 64) < 40).astype(np.uint8) * 200
    assert burned_in.find(disc) == []


def test_pictures_are_blanked_or_refused_and_nothing_else_changes(tmp_path):
    grey = lettered()
    grey = np.where(grey > 0, grey, np.arange(320, dtype=np.uint8)[None] // 8).astype(np.uint8)
    picture = Picture(pixels=grey[None], modality="XR")
    after, report = clean_picture(picture, Policy.open(tmp_path))
    inside = np.zeros(grey.shape, bool)
    for top, left, bottom, right in report.boxes:
        inside[top:bottom, left:right] = True
    assert inside.any()
    np.testing.assert_array_equal(after.pixels[0][~inside], grey[~inside])
    with pytest.raises(Refused, match="refuse"):
        clean_picture(picture, Policy.open(tmp_path, Rules(burned_in="refuse")))
    kept, _ = clean_picture(picture, Policy.open(tmp_path, Rules(burned_in="keep")))
    assert kept is picture


@real
@pytest.mark.parametrize(("name", "top"), [("US1_UNCI", 100), ("examples_rgb_color", 50)])
def test_the_header_band_of_real_ultrasound_is_blank_and_the_tissue_is_not(tmp_path, name, top):
    import pydicom

    source = pydicom.dcmread(DATA / f"{name}.dcm")
    after, report = clean(source, Policy.open(tmp_path))
    assert not after.pixel_array[:top].any()
    assert source.pixel_array[:top].max() > 250
    rows, columns = source.Rows, source.Columns
    tissue = (slice(rows * 3 // 5, rows * 7 // 10), slice(columns // 10, columns * 9 // 10))
    np.testing.assert_array_equal(after.pixel_array[tissue], source.pixel_array[tissue])
    assert burned_in.LOOK in report.warnings


@real
def test_regions_beyond_the_picture_are_not_trusted(tmp_path):
    import pydicom

    source = pydicom.dcmread(DATA / "examples_ybr_color.dcm")
    assert burned_in.regions(source, (source.Rows, source.Columns)) is None
    after, report = clean(source, Policy.open(tmp_path))
    frames = after.pixel_array
    assert not frames[:, :, :35].any()
    assert not frames[:, 225:].any()
    assert any("do not fit" in text for text in report.warnings)


@real
@pytest.mark.parametrize("name", ["US1_UNCI", "examples_rgb_color", "examples_ybr_color"])
def test_a_decoded_ultrasound_loses_what_is_written_beside_the_tissue(tmp_path, name):
    from wardround.data.imaging.decode import read

    picture = read(DATA / f"{name}.dcm")
    after, report = clean_picture(picture, Policy.open(tmp_path))
    rows, columns = picture.spatial
    # lines above and below the tissue, or the column of settings beside it
    beside = np.s_[:, : rows // 5] if name != "examples_ybr_color" else np.s_[:, :, columns * 11 // 12 :]
    assert picture.pixels[beside].max() > 100
    assert not after.pixels[beside].any()
    tissue = np.s_[:, rows * 3 // 5 : rows * 7 // 10, columns // 3 : columns // 2]
    np.testing.assert_array_equal(after.pixels[tissue], picture.pixels[tissue])
    assert burned_in.LOOK in report.warnings


@pytest.mark.parametrize(
    "facts", [{"kind": "Secondary Capture Image Storage"}, {"image_type": ("DERIVED", "SECONDARY", "SCREEN SAVE")}]
)
def test_captures_of_a_screen_are_looked_at_in_any_modality(tmp_path, facts):
    policy = Policy.open(tmp_path)
    plain = Picture(pixels=lettered()[None], modality="CT", facts={"kind": "CT Image Storage"})
    assert clean_picture(plain, policy)[0] is plain
    _, report = clean_picture(Picture(pixels=lettered()[None], modality="CT", facts=facts), policy)
    assert report.boxes


def test_regions_that_fit_are_trusted_and_others_are_not(tmp_path):
    pixels = np.zeros((1, 80, 120), np.uint8)
    pixels[:, 20:60, 20:70] = np.random.default_rng(0).integers(60, 200, (40, 50))
    pixels[:, 5:9, 90:110] = 255
    for fits, left in ((True, True), (False, False)):
        facts = {"cropped": (0, 0, 80, 120), "regions_fit": fits}
        after, _ = clean_picture(Picture(pixels=pixels, modality="US", facts=facts), Policy.open(tmp_path))
        assert bool(after.pixels[:, 5:9, 90:110].any()) is left
        np.testing.assert_array_equal(after.pixels[:, 25:55, 25:65], pixels[:, 25:55, 25:65])


def head():
    """An ellipsoid of 190 x 150 mm with a nose, at 3 mm, air above; axes grow to S, P, L."""
    z, y, x = np.indices((80, 80, 64), dtype=float) * 3.0
    skull = ((z - 130) / 95) ** 2 + ((y - 120) / 95) ** 2 + ((x - 96) / 75) ** 2 < 1
    nose = (np.abs(z - 105) < 18) & (np.abs(y - 24) < 18) & (np.abs(x - 96) < 15)
    brain = ((z - 155) / 55) ** 2 + ((y - 130) / 70) ** 2 + ((x - 96) / 60) ** 2 < 1
    return np.where(skull | nose, 40.0, -1000.0).astype(np.float32), nose, brain


def test_a_nose_is_removed_and_the_brain_is_not(tmp_path):
    volume, nose, brain = head()
    picture = Picture(pixels=volume[None], modality="CT", spacing=(3.0,) * 3, orientation="SPL")
    after, report = clean_picture(picture, Policy.open(tmp_path), head=True)
    changed = after.pixels[0] != volume
    assert changed[nose & (volume > 0)].mean() > 0.95
    assert changed[brain].mean() < 0.01
    assert report.counts() == {"defaced": 1}


@pytest.mark.parametrize(("orientation", "turn"), [("ILA", (0, 2, 1)), ("LPI", (2, 1, 0))])
def test_the_face_is_the_same_in_any_orientation(orientation, turn):
    volume, _, _ = head()
    mask, _ = face.region(volume, "SPL", (3.0,) * 3)
    flips = tuple(slice(None, None, -1 if letter in "IAR" else 1) for letter in orientation)
    turned, why = face.region(volume.transpose(turn)[flips], orientation, (3.0,) * 3)
    assert why is None
    np.testing.assert_array_equal(turned, mask.transpose(turn)[flips])


def test_a_head_without_vertex_orientation_or_volume_is_warned_of(tmp_path):
    volume, _, _ = head()
    policy = Policy.open(tmp_path)
    for pixels, orientation, why in [
        (volume[:50], "SPL", "vertex"),
        (volume, None, "orientation"),
        (volume[40:43], "SPL", "slab"),
    ]:
        picture = Picture(pixels=pixels[None], modality="CT", spacing=(3.0,) * 3, orientation=orientation)
        after, report = clean_picture(picture, policy, head=True)
        assert after is picture
        assert why in report.warnings[0]

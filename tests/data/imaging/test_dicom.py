from __future__ import annotations

import io
import zlib
from pathlib import Path

import numpy as np
import pytest
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)

from data.imaging.slices import AXIAL, dataset, items, save
from wardround.data.imaging.decode import Limits, Options, Picture, Table, Window, read
from wardround.data.imaging.pixels import apply_window
from wardround.errors import DataError

RAMP = np.arange(32 * 24, dtype=np.int16).reshape(32, 24)
WIDE = np.arange(80 * 64, dtype=np.uint16).reshape(80, 64) % 4096


def picture(tmp_path: Path, made: object, **options: object) -> Picture:
    return read(save(tmp_path / "a.dcm", made), options=Options(**options))  # type: ignore[arg-type]


def test_ct_comes_in_hounsfield_units_with_its_spacing(tmp_path: Path) -> None:
    made = dataset(
        RAMP,
        RescaleSlope=1,
        RescaleIntercept=-1024,
        PixelSpacing=[0.5, 0.7],
        ImagePositionPatient=[0, 0, 0],
        ImageOrientationPatient=list(AXIAL),
    )
    got = picture(tmp_path, made)
    assert got.pixels.dtype == np.int16
    assert np.array_equal(got.pixels[0], RAMP - 1024)
    assert (got.modality, got.spacing, got.orientation) == ("CT", (0.5, 0.7), "PL")


def test_a_broken_slope_makes_floats(tmp_path: Path) -> None:
    got = picture(tmp_path, dataset(RAMP, Modality="PT", RescaleSlope=0.25, RescaleIntercept=3))
    assert got.pixels.dtype == np.float32
    assert np.array_equal(got.pixels[0], RAMP * np.float32(0.25) + 3)
    assert got.modality == "OT"


def test_hounsfield_units_are_cut_to_int16(tmp_path: Path) -> None:
    made = dataset(np.full((4, 4), -32768, np.int16), RescaleSlope=1, RescaleIntercept=-1024)
    assert set(np.unique(picture(tmp_path, made).pixels)) == {-32768}


def test_padding_becomes_air(tmp_path: Path) -> None:
    stored = RAMP.copy()
    stored[:3] = -2000
    made = dataset(stored, RescaleSlope=1, RescaleIntercept=-1000)
    made.add_new("PixelPaddingValue", "SS", -2000)
    got = picture(tmp_path, made).pixels[0]
    assert set(np.unique(got[:3])) == {-1024}
    assert np.array_equal(got[3:], RAMP[3:] - 1000)


def test_monochrome1_is_mirrored_with_its_window_except_for_ct(tmp_path: Path) -> None:
    stored = (RAMP % 4096).astype(np.uint16)
    tags = {
        "PhotometricInterpretation": "MONOCHROME1",
        "BitsStored": 12,
        "HighBit": 11,
        "WindowCenter": 300,
        "WindowWidth": 101,
    }
    got = picture(tmp_path, dataset(stored, Modality="DX", **tags))
    assert np.array_equal(got.pixels[0], 4095 - stored)
    # what was black is white: both windows must show the complement
    assert isinstance(got.voi, Window)
    plain = apply_window(stored, Window(centre=300, width=101))
    assert np.allclose(apply_window(got.pixels[0], got.voi), 1 - plain, atol=1e-6)
    assert np.array_equal(picture(tmp_path, dataset(stored, Modality="CT", **tags)).pixels[0], stored)


def test_monochrome1_mirrors_a_table(tmp_path: Path) -> None:
    stored = np.arange(256, dtype=np.uint8).reshape(16, 16)
    table = items({"LUTDescriptor": [4, 100, 8], "LUTData": bytes([0, 0, 50, 0, 200, 0, 255, 0])})
    made = dataset(stored, Modality="DX", PhotometricInterpretation="MONOCHROME1", VOILUTSequence=table)
    got = picture(tmp_path, made)
    assert isinstance(got.voi, Table)
    shown = apply_window(got.pixels[0], got.voi).ravel()
    forward = np.concatenate([np.zeros(101), [50 / 255, 200 / 255], np.ones(153)])
    assert np.allclose(shown, 1 - forward, atol=1e-6)


def test_modality_table(tmp_path: Path) -> None:
    table = items(
        {"LUTDescriptor": [4, 0, 16], "LUTData": np.array([10, 20, 40, 80], "<u2").tobytes(), "ModalityLUTType": "US"}
    )
    made = dataset(np.array([[0, 1], [2, 9]], np.uint8), Modality="DX", ModalityLUTSequence=table)
    assert picture(tmp_path, made).pixels.tolist() == [[[10, 20], [40, 80]]]


def test_palette_becomes_rgb(tmp_path: Path) -> None:
    made = dataset(np.array([[0, 1], [2, 3]], np.uint8), Modality="US", PhotometricInterpretation="PALETTE COLOR")
    for colour, values in zip(
        ("Red", "Green", "Blue"), ([0, 65535, 0, 0], [0, 0, 65535, 0], [0, 0, 0, 257]), strict=True
    ):
        setattr(made, f"{colour}PaletteColorLookupTableDescriptor", [4, 0, 16])
        setattr(made, f"{colour}PaletteColorLookupTableData", np.array(values, "<u2").tobytes())
    got = picture(tmp_path, made).pixels
    assert got.dtype == np.uint8
    assert got.reshape(3, 4).T.tolist() == [[0, 0, 0], [255, 0, 0], [0, 255, 0], [0, 0, 1]]


def test_ybr_becomes_rgb(tmp_path: Path) -> None:
    # pure red in YBR_FULL (PS3.3 C.7.6.3.1.2): Y = 0.2990 x 255, CB = 128 - 0.1687 x 255, CR = 128 + 0.5 x 255
    stored = np.tile(np.array([76, 85, 255], np.uint8), (4, 4, 1))
    made = dataset(stored, Modality="US", PhotometricInterpretation="YBR_FULL")
    red, green, blue = picture(tmp_path, made).pixels[:, 0, 0].tolist()
    assert red >= 253
    assert max(green, blue) <= 2


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, RLELossless])
def test_transfer_syntaxes_give_the_same_pixels(tmp_path: Path, syntax: str) -> None:
    made = dataset(RAMP, RescaleIntercept=-1024, RescaleSlope=1)
    if syntax == RLELossless:
        made.compress(RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)
    made.file_meta.TransferSyntaxUID = syntax
    assert np.array_equal(picture(tmp_path, made).pixels[0], RAMP - 1024)


def test_jpeg2000_lossless(tmp_path: Path) -> None:
    made = dataset(WIDE)
    made.compress(JPEG2000Lossless, encoding_plugin="pylibjpeg", generate_instance_uid=False)
    assert np.array_equal(picture(tmp_path, made).pixels[0], WIDE)


def test_a_codestream_larger_than_its_header_is_refused(tmp_path: Path) -> None:
    made = dataset(WIDE)
    made.compress(JPEG2000Lossless, encoding_plugin="pylibjpeg", generate_instance_uid=False)
    made.Rows, made.Columns = 8, 8
    with pytest.raises(DataError, match=r"codestream of frame 0 is 80 x 64 pixels, and the header says 8 x 8"):
        picture(tmp_path, made)


def test_a_cine_loop_gives_its_middle_frame_or_what_is_asked(tmp_path: Path) -> None:
    stored = np.arange(5, dtype=np.uint8)[:, None, None] * np.ones((5, 6, 7), np.uint8)
    made = dataset(stored, Modality="US")
    assert picture(tmp_path, made).pixels.tolist() == np.full((1, 6, 7), 2).tolist()
    assert int(picture(tmp_path, made, frames=4).pixels.max()) == 4
    assert picture(tmp_path, made, frames="all").pixels[0, :, 0, 0].tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(DataError, match="has 5 frames, and frame 5 was asked for"):
        picture(tmp_path, made, frames=5)


def test_ultrasound_is_cut_to_its_tissue(tmp_path: Path) -> None:
    stored = np.full((40, 60), 9, np.uint8)
    region = {
        "RegionSpatialFormat": 1,
        "RegionDataType": 1,
        "RegionLocationMinX0": 10,
        "RegionLocationMinY0": 5,
        "RegionLocationMaxX1": 49,
        "RegionLocationMaxY1": 1000,
        "PhysicalUnitsXDirection": 3,
        "PhysicalDeltaX": 0.05,
        "PhysicalDeltaY": 0.05,
    }
    made = dataset(stored, Modality="US", SequenceOfUltrasoundRegions=items(region))
    got = picture(tmp_path, made)
    assert got.pixels.shape == (1, 35, 40)
    assert got.spacing == (0.5, 0.5)
    assert picture(tmp_path, made, crop_ultrasound=False).pixels.shape == (1, 40, 60)


def enhanced(stored: np.ndarray, depths: list[float], slopes: list[float]) -> object:
    frames = items(
        *(
            {
                "PlanePositionSequence": items({"ImagePositionPatient": [0, 0, depth]}),
                "PixelValueTransformationSequence": items({"RescaleSlope": slope, "RescaleIntercept": 0}),
            }
            for depth, slope in zip(depths, slopes, strict=True)
        )
    )
    shared = items(
        {
            "PlaneOrientationSequence": items({"ImageOrientationPatient": list(AXIAL)}),
            "PixelMeasuresSequence": items({"PixelSpacing": [0.5, 0.7]}),
        }
    )
    return dataset(
        stored, Modality="MR", PerFrameFunctionalGroupsSequence=frames, SharedFunctionalGroupsSequence=shared
    )


def test_enhanced_frames_are_ordered_and_scaled_each(tmp_path: Path) -> None:
    stored = np.stack([np.full((3, 2), value, np.uint16) for value in (10, 20, 30)])
    got = picture(tmp_path, enhanced(stored, [4.0, 0.0, 2.0], [1.0, 2.0, 0.5]))
    assert got.pixels[0, :, 0, 0].tolist() == [40.0, 15.0, 10.0]
    assert got.spacing == pytest.approx((2.0, 0.5, 0.7))
    assert got.orientation == "SPL"


def test_enhanced_with_two_echoes_at_each_place(tmp_path: Path) -> None:
    stored = np.stack([np.full((3, 2), value, np.uint16) for value in (1, 2, 3, 4)])
    made = enhanced(stored, [0.0, 2.0, 0.0, 2.0], [1.0] * 4)
    assert picture(tmp_path, made).pixels[0, :, 0, 0].tolist() == [1, 2]
    assert picture(tmp_path, made, volume=1).pixels[0, :, 0, 0].tolist() == [3, 4]
    assert picture(tmp_path, made, volume="channels").pixels[:, :, 0, 0].tolist() == [[1, 2], [3, 4]]
    with pytest.raises(DataError, match="holds 2 volumes, and volume 2 was asked for"):
        picture(tmp_path, made, volume=2)


def test_what_cannot_be_read_says_why(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no pixel data: it is CT Image Storage"):
        picture(tmp_path, dataset(None))
    short = dataset(RAMP)
    short.PixelData = short.PixelData[:-10]
    with pytest.raises(DataError, match="is truncated: 1526 of 1536 bytes"):
        picture(tmp_path, short)
    noise = tmp_path / "noise.bin"
    noise.write_bytes(bytes(range(256)) * 8)
    with pytest.raises(DataError, match=r"noise\.bin"):
        read(noise)


def test_huge_claims_are_refused_before_pixels(tmp_path: Path) -> None:
    wide = dataset(RAMP)
    wide.Rows, wide.Columns = 60000, 60000
    with pytest.raises(DataError, match="60000 x 60000 pixels, and the limit for a side is 16384"):
        picture(tmp_path, wide)
    with pytest.raises(DataError, match="has 2000000000 frames, and the limit is 8192"):
        picture(tmp_path, dataset(RAMP, NumberOfFrames=2_000_000_000))
    with pytest.raises(DataError, match="GiB when decoded, and the limit is"):
        picture(tmp_path, dataset(RAMP, NumberOfFrames=8000, Rows=16000, Columns=16000))


def test_a_deflate_bomb_is_refused_while_it_grows(tmp_path: Path) -> None:
    made = dataset(np.zeros((16, 16), np.uint8), syntax=DeflatedExplicitVRLittleEndian)
    buffer = io.BytesIO()
    made.save_as(buffer, enforce_file_format=True)
    # preamble and magic, the element that holds the length of the group, the group
    data = buffer.getvalue()
    head = data[: 144 + int.from_bytes(data[140:144], "little")]
    squeezer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    body = squeezer.compress(bytes(1 << 24)) + squeezer.flush()
    path = tmp_path / "bomb.dcm"
    path.write_bytes(head + body)
    assert path.stat().st_size < 1 << 16
    with pytest.raises(DataError, match=r"bomb\.dcm is deflated and grows beyond 1 MiB, the limit"):
        read(path, options=Options(limits=Limits(bytes=1 << 20)))


def test_errors_and_facts_repeat_no_names(tmp_path: Path) -> None:
    tags = {"PatientName": "Planted^Name", "PatientID": "PLANTED-7", "InstitutionName": "Planted House"}
    got = picture(tmp_path, dataset(RAMP, **tags))
    assert "lanted" not in repr(dict(got.facts)).replace("PLANTED", "planted")
    bad = dataset(RAMP, **tags)
    bad.ImageOrientationPatient = ["1", "0", "0", "0", "1", "0"]
    path = save(tmp_path / "bad.dcm", bad)
    path.write_bytes(path.read_bytes().replace(b"CT\x08", b"CT\x09")[:300])
    with pytest.raises(DataError) as caught:
        read(path)
    assert "lanted" not in str(caught.value)


def test_jpeg_ls_and_big_endian_of_pydicoms_own_files() -> None:
    from pydicom.data import get_testdata_file

    small = read(Path(str(get_testdata_file("MR_small.dcm")))).pixels
    for name in ("MR_small_bigendian.dcm", "MR_small_RLE.dcm", "MR_small_jpeg_ls_lossless.dcm"):
        found = get_testdata_file(name, download=False)
        if found is not None:
            assert np.array_equal(read(Path(str(found))).pixels, small), name

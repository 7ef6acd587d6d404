from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from data.imaging.slices import dataset, save
from wardround.data.imaging.decode import Limits, Options, format_of, read
from wardround.errors import ConfigError, DataError

SQUARE = np.arange(20, dtype=np.uint8).reshape(4, 5)


def test_contents_decide_the_format_not_the_name(tmp_path: Path) -> None:
    from PIL import Image

    Image.fromarray(SQUARE).save(tmp_path / "really.png")
    (tmp_path / "really.png").rename(tmp_path / "a.dcm")
    save(tmp_path / "b.png", dataset(SQUARE))
    np.savez(tmp_path / "c.npz", SQUARE)
    assert [format_of(tmp_path / name) for name in ("a.dcm", "b.png", "c.npz")] == ["photo", "dicom", "array"]
    assert all(np.array_equal(read(tmp_path / name).pixels[0], SQUARE) for name in ("a.dcm", "b.png", "c.npz"))


def test_what_is_no_picture_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty.dcm").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "notes.txt").write_text("not a picture at all " * 40)
    os.mkfifo(tmp_path / "pipe")
    for name, reason in (
        ("empty.dcm", r"empty\.dcm is empty"),
        ("folder", "folder is not a file"),
        ("pipe", "pipe is not a file"),
        ("gone.png", r"gone\.png"),
        ("notes.txt", r"notes\.txt"),
    ):
        with pytest.raises(DataError, match=reason):
            read(tmp_path / name)
    with pytest.raises(DataError, match="and the limit for a file is 10 bytes"):
        read(tmp_path / "notes.txt", options=Options(limits=Limits(file_bytes=10)))
    with pytest.raises(DataError, match="series of no files"):
        read([])


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"modality": "XRAY"}, "modality is 'XRAY'"),
        ({"orientation": "RAR"}, "orientation is 'RAR'"),
        ({"orientation": "RA"}, "orientation is 'RA'"),
        ({"frames": "last"}, "frames is 'last'"),
        ({"volume": "all"}, "volume is 'all'"),
        ({"spacing_tolerance": float("nan")}, "spacing_tolerance is nan"),
    ],
)
def test_options_that_mean_nothing_are_refused(options: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        Options(**options)  # type: ignore[arg-type]


REAL = {
    "dicom/693_UNCI.dcm": ("CT", (1, 512, 512)),
    "dicom/CT_small.dcm": ("CT", (1, 128, 128)),
    "dicom/JPEG2000.dcm": ("OT", (1, 1024, 256)),
    "dicom/MR2_UNCI.dcm": ("MR", (1, 1024, 1024)),
    "dicom/MR_small_RLE.dcm": ("MR", (1, 64, 64)),
    "dicom/MR_small_bigendian.dcm": ("MR", (1, 64, 64)),
    "dicom/US1_UNCI.dcm": ("US", (3, 480, 640)),
    "dicom/emri_small.dcm": ("MR", (1, 64, 64)),
    "dicom/examples_rgb_color.dcm": ("US", (3, 240, 320)),
    "dicom/examples_ybr_color.dcm": ("US", (3, 209, 236)),
    "dicom/liver.dcm": ("OT", (1, 3, 512, 512)),
    "dicom/rtdose.dcm": ("OT", (1, 15, 10, 10)),
    "nifti/anatomical.nii": ("OT", (1, 25, 41, 33)),
    "nifti/functional.nii": ("OT", (1, 3, 21, 17)),
    "dicom/JPEG-lossy.dcm": "compressed pixels",
    "dicom/MR_truncated.dcm": "is truncated: 8130 of 8192 bytes",
    "dicom/badVR.dcm": r"cannot be read as DICOM \(ValueError\)",
    "dicom/no_meta_group_length.dcm": "no pixel data: it is RT Image Storage",
    "dicom/test-SR.dcm": "no pixel data: it is Comprehensive SR Storage",
    "dicom/waveform_ecg.dcm": "no pixel data: it is 12-lead ECG Waveform Storage",
}


@pytest.mark.parametrize("name", REAL)
def test_real_files(name: str) -> None:
    root = os.environ.get("WARDROUND_DATA")
    path = Path(root or ".") / name
    if not root or not path.exists():
        pytest.skip("WARDROUND_DATA names no folder with this file")
    expected = REAL[name]
    if isinstance(expected, str):
        with pytest.raises(DataError, match=expected):
            read(path)
        return
    got = read(path)
    assert (got.modality, got.pixels.shape) == expected
    assert got.pixels.flags.c_contiguous

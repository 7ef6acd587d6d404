"""Files and tables made to do harm, in the middle of a preparation: each is named, and nothing beyond the output is touched."""

from __future__ import annotations

import io
import os
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian

from data.imaging.slices import dataset, save
from wardround.data.imaging.decode import Limits, Options
from wardround.data.imaging.prepare import Wanted, prepare
from wardround.errors import ConfigError

RNG = np.random.default_rng(0)


def slices(folder: Path, count: int = 8, **tags: object) -> list[str]:
    """CT slices of noise; what they are called."""
    folder.mkdir(parents=True, exist_ok=True)
    names = []
    for number in range(count):
        pixels = RNG.integers(0, 400, (24, 24)).astype(np.int16)
        made = dataset(pixels, RescaleSlope=1, RescaleIntercept=-1024, PatientID=f"P{number}", **tags)
        names.append(save(folder / f"good-{number}.dcm", made).name)
    return names


def wanted(tmp_path: Path, names: list[str], **more: object) -> Wanted:
    table = tmp_path / "labels.csv"
    table.write_text("\n".join(["file,label", *(f"{name},{'ab'[i % 2]}" for i, name in enumerate(names))]) + "\n")
    given = {"source": tmp_path / "in", "out": tmp_path / "sites" / "out", "site": "north", "labels": table}
    return Wanted(**{**given, "modality": "CT", "max_skipped": 0.6, **more})  # type: ignore[arg-type]


def bomb(path: Path, size: int) -> None:
    """A deflated DICOM file that grows to `size` bytes of zeros."""
    made = dataset(np.zeros((16, 16), np.uint8), syntax=DeflatedExplicitVRLittleEndian)
    buffer = io.BytesIO()
    made.save_as(buffer, enforce_file_format=True)
    data = buffer.getvalue()
    head = data[: 144 + int.from_bytes(data[140:144], "little")]
    squeezer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    path.write_bytes(head + squeezer.compress(bytes(size)) + squeezer.flush())


@pytest.mark.parametrize("volumes", [False, True])
def test_bombs_are_named_and_the_rest_goes_on(tmp_path: Path, volumes: bool) -> None:
    folder = tmp_path / "in"
    names = slices(folder)
    ramp = np.arange(24 * 24, dtype=np.int16).reshape(24, 24)
    claims = {
        "wide.dcm": {"Rows": 60_000, "Columns": 60_000},
        "long.dcm": {"NumberOfFrames": 2_000_000_000},
        "both.dcm": {"NumberOfFrames": 8_000, "Rows": 16_000, "Columns": 16_000},
        "none.dcm": {"Rows": 0},
        "many.dcm": {"SamplesPerPixel": 65_535},
    }
    for number, (name, tags) in enumerate(claims.items()):
        save(folder / name, dataset(ramp, **{**tags, "SeriesInstanceUID": f"9.{number}"}))
    bomb(folder / "bomb.dcm", 1 << 26)
    bad = [*claims, "bomb.dcm"]
    began = time.monotonic()
    size = (4, 24, 24) if volumes else (24, 24)
    limits = Limits(bytes=1 << 24)
    asked = wanted(tmp_path, [*names, *bad], size=size, options=Options(limits=limits), max_skipped=1)
    made = prepare(asked)
    assert time.monotonic() - began < 60
    told = {one["name"]: one["why"] for one in made.tree["named"]["unreadable"]}
    assert {name: told.get(name, "") for name in bad if name not in told} == {}
    assert "60000 x 60000 pixels, and the limit for a side" in told["wide.dcm"]
    assert "2000000000 frames" in told["long.dcm"]
    assert "grows beyond 16 MiB" in told["bomb.dcm"]
    if not volumes:
        assert made.folder is not None
        assert made.folder.manifest.rows == len(names)


def test_names_that_lead_elsewhere_lead_nowhere(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    names = slices(folder)
    outside = tmp_path / "x"
    for number, patient in enumerate(("../../x", "/etc/cron.d/x", "a\\..\\x", "=cmd()", 'a,b"c', "x" * 300)):
        pixels = RNG.integers(0, 400, (24, 24)).astype(np.int16)
        made = dataset(pixels, RescaleSlope=1, RescaleIntercept=-1024)
        made.add_new("PatientID", "UT", patient)  # LO forbids some of it
        made.add_new("StudyInstanceUID", "UT", f"../{number}")
        names.append(save(folder / f"patient-{number}.dcm", made).name)
    keys = ["../../../etc/passwd", "/etc/passwd", "..\\..\\x.dcm", "..", "./", "a/\0/b", "in/../in/good-0.dcm"]
    made = prepare(wanted(tmp_path, names))
    assert made.folder is not None
    assert made.folder.manifest.rows == len(names)
    assert len(set(made.folder.records["patient"])) == len(names)
    written = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert {name for name in written if not name.startswith(("in/", "sites/out/", "sites/out.held/"))} == {"labels.csv"}
    assert not outside.exists()
    table = tmp_path / "labels.csv"
    table.write_text(table.read_text() + "".join(f'"{key}",a\n' for key in keys))
    again = prepare(wanted(tmp_path, names, labels=table, out=tmp_path / "sites" / "again"))
    assert again.tree["used"] == len(names)


@pytest.mark.parametrize("site", ["../x", "..", ".", "a/b", "a\\b", "", " ", "a\nb", "a\0b"])
def test_a_site_is_no_path(tmp_path: Path, site: str) -> None:
    names = slices(tmp_path / "in", 2)
    with pytest.raises(ConfigError, match="without slashes"):
        prepare(wanted(tmp_path, names, site=site))


def test_names_that_are_no_text_links_to_nowhere_and_pipes(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    names = slices(folder)
    for number in range(2):
        save(folder / "later.dcm", dataset(RNG.integers(0, 400, (24, 24)).astype(np.int16), RescaleIntercept=-1024))
        os.rename(folder / "later.dcm", os.fsencode(folder) + b"/caf\xe9%d.dcm" % number)
    (folder / "gone.dcm").symlink_to(tmp_path / "nowhere.dcm")
    (folder / "loop").symlink_to(folder)
    os.mkfifo(folder / "pipe.dcm")
    names += ["café0.dcm", "café1.dcm", "gone.dcm", "pipe.dcm"]
    made = prepare(wanted(tmp_path, names))
    assert made.folder is not None
    told = {one["name"]: one["why"] for files in made.tree["named"].values() for one in files}
    assert set(told) == {"gone.dcm", "pipe.dcm"}
    assert made.tree["used"] == 10

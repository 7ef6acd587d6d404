"""A hospital's export of DICOM, with all that lies in one, made to sites: what is used, what is told, what does not leave."""

from __future__ import annotations

import contextlib
import csv
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from pydicom import Dataset

from data.imaging.slices import dataset, save
from wardround.cli.exit import guarded
from wardround.data.imaging.deid.identifiers import harvest
from wardround.data.imaging.deid.scan import scan
from wardround.data.imaging.prepare import Prepared, Wanted, prepare
from wardround.errors import ConfigError

NAME, NUMBER, READER, HOUSE = "Quackenbush^Philippa", "MRN-7754321", "Umbridge", "Saint Eustace"
SECRETS = [NAME, NUMBER, READER, HOUSE, "1.2.826.0.1.3680043.99"]
RNG = np.random.default_rng(0)


def slice_of(number: int, modality: str, pixels: np.ndarray, **tags: object) -> Dataset:
    """A picture of one of many patients, who are all in its header and its file's name."""
    return dataset(
        pixels,
        Modality=modality, PatientID=f"{NUMBER}-{number}", PatientName=f"{NAME}^{number}", InstitutionName=HOUSE,
        SOPInstanceUID=f"1.2.826.0.1.3680043.99.{number}", SeriesInstanceUID=f"1.2.826.0.1.3680043.99.1.{number}", **tags,
    )  # fmt: skip


def written(side: tuple[int, int] = (160, 240)) -> np.ndarray:
    """An ultrasound without regions in its header: tissue in the middle, the hospital and the patient above it."""
    image = Image.new("L", side[::-1], 0)
    ImageDraw.Draw(image).text((8, 6), "SAINT EUSTACE 7754321", font=ImageFont.load_default(size=12), fill=255)
    pixels = np.repeat(np.asarray(image)[..., None], 3, axis=2).copy()
    pixels[60:150, 40:200] = RNG.integers(60, 200, (90, 160, 1), dtype=np.uint8)
    return pixels


def export(folder: Path) -> Path:
    """8 CT, 8 MR and 2 US of patients, a localiser, a truncated slice, a report without pixels; and the table of a hospital."""
    root = folder / "export of Quackenbush Philippa"
    root.mkdir(parents=True)
    rows = []
    for number in range(8):
        noise = RNG.integers(0, 400, (32, 32)).astype(np.int16)
        ct = slice_of(number, "CT", noise, RescaleSlope=1, RescaleIntercept=-1024)
        rows.append((save(root / f"Quackenbush-{number}.dcm", ct).name, "bleed" if number % 2 else "none"))
        mr = slice_of(50 + number, "MR", noise[::-1].copy())
        rows.append((save(root / f"mr-{number}.dcm", mr).name, "bleed" if number % 2 else "none"))
    for number in range(2):
        us = slice_of(70 + number, "US", written(), ImageType=["ORIGINAL", "PRIMARY"])
        rows.append((save(root / f"us-{number}.dcm", us).name, ("none", "bleed")[number]))
    scout = slice_of(
        80, "CT", RNG.integers(0, 9, (32, 32)).astype(np.int16), ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]
    )
    rows.append((save(root / "scout.dcm", scout).name, "none"))
    short = slice_of(81, "CT", RNG.integers(0, 9, (32, 32)).astype(np.int16))
    short.PixelData = short.PixelData[:-9]
    rows.append((save(root / "short.dcm", short).name, "none"))
    report = slice_of(82, "SR", RNG.integers(0, 9, (2, 2)).astype(np.int16))
    del report.PixelData, report.Rows, report.Columns
    rows.append((save(root / "report.dcm", report).name, "none"))
    table = folder / "labels.csv"
    with table.open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(("image", "label", "reader"))
        lines.writerows((*row, READER) for row in rows)
    return root


def wanted(tmp_path: Path, **more: object) -> Wanted:
    root = tmp_path / "export of Quackenbush Philippa"
    given = {"source": root, "out": tmp_path / "north", "site": "north", "labels": tmp_path / "labels.csv"}
    return Wanted(**{**given, **more})  # type: ignore[arg-type]


def test_a_mixture_is_refused_with_the_option_that_chooses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = export(tmp_path)
    with pytest.raises(ConfigError, match=r"mixes modalities \(10 CT, 8 MR, 2 US\).*--modality CT"):
        prepare(wanted(tmp_path))
    assert not list(tmp_path.glob(".*.work"))
    from wardround.cli.app import app

    line = ["data", "prepare", str(root), "--labels", str(tmp_path / "labels.csv"), "--site", "north", "--out"]
    assert guarded(app, [*line, str(tmp_path / "x"), "--size", "32", "--workers", "1"]) == 2
    assert "--modality CT" in capsys.readouterr().err.replace("\n", " ")


@pytest.mark.parametrize(
    ("modality", "used", "skipped"),
    [
        ("CT", 8, {"unreadable": 1, "modality": 11, "localiser": 1}),
        ("MR", 8, {"modality": 13}),
        ("US", 2, {"modality": 19}),
    ],
)
def test_each_modality_is_a_site_and_every_file_is_accounted_for(
    tmp_path: Path, modality: str, used: int, skipped: dict[str, int]
) -> None:
    root = export(tmp_path)
    made = prepare(wanted(tmp_path, modality=modality))
    assert made.folder is not None, made.refusal
    assert (made.tree["used"], made.tree["skipped"]) == (used, skipped)
    assert used + sum(len(files) for files in made.tree["named"].values()) == len(list(root.iterdir()))
    # what was passed over is none of what is left out
    assert made.tree["skipped_share"] == pytest.approx(1 / 9 if modality == "CT" else 0)
    assert {one.identifier for one in scan(root, SECRETS)} >= {0, 1, 3, 4}
    assert scan(tmp_path / "north", SECRETS) == []


def test_what_an_ultrasound_machine_writes_beside_the_tissue_is_blanked(tmp_path: Path) -> None:
    export(tmp_path)
    made = prepare(wanted(tmp_path, modality="US"))
    assert made.folder is not None
    pixels = made.folder.images()
    assert not pixels[:, :, :40].any()
    # the tissue itself is as it was: noise that no detector takes for text
    assert (pixels[:, :, 70:140, 60:180] >= 60).mean() > 0.95
    assert made.tree["blanked"] == 2


REAL = Path(os.environ.get("WARDROUND_DATA", "")) / "dicom"


@pytest.mark.skipif(not (REAL / "US1_UNCI.dcm").exists(), reason="WARDROUND_DATA has no dicom folder")
@pytest.mark.parametrize(("modality", "used"), [("CT", 11), ("MR", 20), ("US", 3), ("XR", 3)])
@pytest.mark.filterwarnings("ignore")
def test_a_real_folder_of_many_vendors(tmp_path: Path, modality: str, used: int) -> None:
    import pydicom

    files = [path for path in sorted(REAL.rglob("*")) if path.is_file() and path.name not in ("DICOMDIR", "README.txt")]
    table = tmp_path / "labels.csv"
    rows = [f"{path.relative_to(REAL).as_posix()},{'ab'[len(path.stem) % 2]}" for path in files]
    table.write_text("\n".join(["file,label", *rows]) + "\n")
    made: Prepared = prepare(
        Wanted(
            source=REAL, out=tmp_path / "out", site="north", labels=table, modality=modality, size=(64, 64),
            classes=("a", "b"), max_skipped=0.4,
        )
    )  # fmt: skip
    assert made.folder is not None, made.refusal
    skipped = made.tree["skipped"]
    duplicates = skipped.get("duplicate", 0) + skipped.get("conflict", 0)
    assert made.tree["used"] + duplicates == used + 3 * (modality == "MR")
    assert made.tree["used"] + sum(skipped.values()) == len(files) == 51
    secrets: set[str] = set()
    for path in files:
        with contextlib.suppress(TypeError, ValueError):  # one has letters where numbers belong
            head = pydicom.dcmread(path, force=True, stop_before_pixels=True)
            secrets |= {text for text in harvest(head, uids=True, device=True) if not set(text) <= set("0-")}
    assert len(secrets) > 50
    assert scan(tmp_path / "out", secrets) == []

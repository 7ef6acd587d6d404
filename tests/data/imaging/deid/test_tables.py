"""Tables: record numbers, dates, ages, names and remarks; and the scanner on everything that is no DICOM file."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image, PngImagePlugin

from wardround.data.imaging.deid import Policy, Rules
from wardround.data.imaging.deid.folder import clean_folder
from wardround.data.imaging.deid.scan import scan
from wardround.data.imaging.deid.tables import clean_table
from wardround.errors import ConfigError, DataError


@pytest.fixture
def table(tmp_path):
    rng = np.random.default_rng(0)
    rows = 60
    numbers = [f"P{7000 + i // 2}" for i in range(rows)]
    pd.DataFrame(
        {
            "patient_id": numbers,
            "surname": [f"Quackenbush{i}" for i in range(rows)],
            "phone": [f"0207946{i:04}" for i in range(rows)],
            "admitted": [f"2024-03-{1 + i % 2 * 9:02}" for i in range(rows)],
            "age": [95 if i % 10 == 0 else 50 + i % 30 for i in range(rows)],
            "creatinine": rng.normal(80, 9, rows).round(1),
            "ward": [f"near Quackenbush{i}" if i == 7 else "B2" for i in range(rows)],
            "remark": [f"seen on day {i} by the team of doctor Umbridge {i * 7}" for i in range(rows)],
            "died": [i % 2 for i in range(rows)],
        }
    ).to_csv(tmp_path / "Quackenbush ward.csv", index=False)
    return tmp_path / "Quackenbush ward.csv"


def test_a_table_keeps_what_trains_and_loses_what_names(tmp_path, table):
    policy = Policy.open(tmp_path / "held")
    report = clean_table(table, tmp_path / "clean.csv", policy)
    before, after = pd.read_csv(table), pd.read_csv(tmp_path / "clean.csv")
    assert not {"surname", "phone", "remark"} & set(after)
    # two rows a patient, 1 and 10 March
    assert after["admitted"].tolist() == [0, 9] * 30
    assert after["age"].tolist() == [min(age, 90) for age in before["age"]]
    assert after["creatinine"].tolist() == before["creatinine"].tolist()
    assert after["died"].tolist() == before["died"].tolist()
    assert (after["patient_id"].nunique(), after["patient_id"].nunique()) == (30, 30)
    assert after["patient_id"].str.fullmatch(r"patient-[0-9a-f]{16}").all()
    assert policy.held.pseudonym("P7000") == after["patient_id"][0]
    assert pd.isna(after["ward"][7])
    assert report.counts()["removed"] == 3


def test_the_policy_overrules_and_an_unknown_column_is_named(tmp_path, table):
    kept = Policy.open(tmp_path / "held", Rules(columns={"remark": "keep", "creatinine": "drop"}))
    clean_table(table, tmp_path / "clean.csv", kept)
    after = pd.read_csv(tmp_path / "clean.csv")
    assert "remark" in after
    assert "creatinine" not in after
    with pytest.raises(ConfigError, match=re.escape("columns.remarks")):
        clean_table(table, tmp_path / "c.csv", Policy.open(tmp_path / "held", Rules(columns={"remarks": "keep"})))
    assert not (tmp_path / "c.csv").exists()


def test_the_scanner_looks_into_every_kind_of_file(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    name = "Quackenbush, Philippa"
    np.save(folder / "a.npy", np.array(["none", "quackenbush philippa"]))
    np.savez_compressed(folder / "b.npz", x=np.array(["QUACKENBUSH^PHILIPPA"]))
    (folder / "c.csv").write_text("a\nQuackenbush Philippa\n")
    (folder / "d.json").write_text(json.dumps({"k": ["Quackenbush_Philippa"]}))
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Comment", name, zip=True)
    Image.new("L", (8, 8)).save(folder / "e.png", pnginfo=texts)
    exif = Image.Exif()
    exif[0x010E] = name
    Image.new("RGB", (8, 8)).save(folder / "f.jpg", exif=exif)
    (folder / "quackenbush-philippa.txt").write_text("")
    (folder / "g.txt").write_text("a Quackenbusher and Philippa")
    found = scan(folder, ["Quackenbush^Philippa"])
    assert {one.file for one in found} == {
        "a.npy", "b.npz", "c.csv", "d.json", "e.png", "f.jpg", "quackenbush-philippa.txt",
    }  # fmt: skip
    assert {"name", "bytes", "PNG text", "EXIF"} <= {one.place for one in found}
    with pytest.raises(DataError, match="fewer than 4"):
        scan(folder, ["Q^P"])


def test_photographs_lose_their_texts_and_keep_their_pixels(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    pixels = np.random.default_rng(0).integers(90, 110, (40, 40, 3), dtype=np.uint8)
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Comment", "Quackenbush Philippa")
    Image.fromarray(pixels).save(source / "Quackenbush.png", pnginfo=texts)
    assert {one.place for one in scan(source, ["Quackenbush"])} == {"name", "bytes", "PNG text"}
    result = clean_folder(source, tmp_path / "out", Policy.open(tmp_path / "held"))
    assert scan(tmp_path / "out", ["Quackenbush"]) == []
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out" / result.written[0][1])), pixels)


def test_secrets_never_lie_with_the_clean_files(tmp_path, table):
    with pytest.raises(ConfigError, match="not an empty folder"):
        clean_folder(table, tmp_path, Policy.open(tmp_path / "held"))
    (tmp_path / "link").symlink_to(tmp_path / "new", target_is_directory=True)
    policy = Policy.open(tmp_path / "new" / "held")
    with pytest.raises(ConfigError):
        clean_folder(table, tmp_path / "link", policy)

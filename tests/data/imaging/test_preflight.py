"""What is used of a source and what is left out: comparisons between studies, labels, and single pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wardround.data.imaging.fit import Fit, fitted, parse_window
from wardround.data.imaging.labels import Labels, Row, age_bin, read_labels, sex_of
from wardround.data.imaging.picture import Options, Picture
from wardround.data.imaging.preflight import Checks, Finding, examine, judge, units_of
from wardround.data.imaging.studies import Study
from wardround.errors import ConfigError, DataError

FIT = Fit(size=(32, 32), channels=3)


def study(name: str) -> Study:
    return Study(name=name, files=(f"/nowhere/{name}",))


def verdict(rows: dict[str, Row], digests: dict[str, str]) -> dict[str, str]:
    labels = Labels(rows=rows, classes=("a", "b"), multilabel=False)
    studies = [study(name) for name in rows]
    found = judge(studies, labels, [Finding(digest=digests.get(one.name, one.name)) for one in studies])
    return {one.name: finding.reason for one, finding in zip(studies, found.findings, strict=True)}


def test_of_equal_pictures_the_most_held_out_one_stays() -> None:
    rows = {
        name: Row(labels=("a",), split=split) for name, split in zip("xyz", ("train", "test", "train"), strict=True)
    }
    assert verdict(rows, dict.fromkeys("xyz", "same")) == {"x": "duplicate", "y": "", "z": "duplicate"}


def test_equal_pictures_with_different_labels_are_both_left_out() -> None:
    rows = {"x": Row(labels=("a",)), "y": Row(labels=("b",)), "z": Row(labels=("b",))}
    assert verdict(rows, {"x": "same", "y": "same"}) == {"x": "conflict", "y": "conflict", "z": ""}


def test_a_patient_in_two_splits_is_not_trained_on_even_through_a_lesion() -> None:
    rows = {
        "x": Row(labels=("a",), patient="1", group="l", split="train"),
        "y": Row(labels=("a",), patient="2", group="l", split="train"),
        "z": Row(labels=("a",), patient="2", split="test"),
        "w": Row(labels=("a",), patient="3", split="train"),
    }
    assert verdict(rows, {}) == {"x": "straddles", "y": "straddles", "z": "", "w": ""}


def test_units_are_connected_over_patients_and_groups() -> None:
    # rows 0-1 share a patient, 1-2 a group; "1" as patient and "1" as group are two things; rows without either stand alone
    assert units_of(["1", "1", "2", "3", "", ""], ["", "g", "g", "1", "", ""]) == [0, 0, 0, 3, 4, 5]


def write(path: Path, pixels: np.ndarray) -> Study:
    Image.fromarray(pixels.astype(np.uint8)).save(path)
    return Study(name=path.name, files=(str(path),))


def reason(one: Study, modality: str) -> str:
    checks = Checks(modality=modality)
    array, found = examine(one, Options(modality=modality), checks, FIT, None)
    assert array is None or (array.shape, array.dtype) == ((3, 32, 32), np.uint8)
    assert "/" not in found.detail
    return found.reason


def test_each_kind_of_bad_picture_has_its_reason(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    skin = np.clip(np.array([190, 140, 120]) + rng.normal(0, 20, (64, 80, 1)), 0, 255)
    (tmp_path / "text.png").write_text("no picture")
    assert reason(write(tmp_path / "skin.png", skin), "DERM") == ""
    assert reason(study("absent.png"), "DERM") == "unreadable"
    assert reason(Study(name="text.png", files=(str(tmp_path / "text.png"),)), "DERM") == "unreadable"
    assert reason(write(tmp_path / "small.png", skin[:9]), "DERM") == "small"
    assert reason(write(tmp_path / "blank.png", np.full((64, 64), 90)), "XR") == "blank"


def test_food_declared_as_a_brain_is_flagged(tmp_path: Path) -> None:
    across, down = np.meshgrid(np.linspace(0, 6, 96), np.linspace(0, 6, 96))
    plate = np.stack([150 + 90 * np.sin(across), 90 + 60 * np.cos(down), 40 + 30 * np.sin(across + down)], -1)
    one = write(tmp_path / "soup.png", plate)
    assert reason(one, "MR") == "looks"
    assert reason(one, "PHOTO") == ""
    kept, found = examine(one, Options(modality="MR"), Checks(modality="MR", looks=False), FIT, None)
    assert kept is not None
    assert found.reason == ""
    assert found.warnings


def test_labels_are_matched_by_the_ends_of_paths(tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("image,dx,age\nnorth/1.png,a,063Y\nsouth/1.png,b,95\n2,a,\nold/3.png,b,\n9.png,a,\n")
    found = read_labels(table, tmp_path, ["north/1.png", "south/1.png", "north/2.jpg", "north/3.png"])
    assert {file: row.labels for file, row in found.rows.items()} == {
        "north/1.png": ("a",), "south/1.png": ("b",), "north/2.jpg": ("a",), "north/3.png": ("b",),
    }  # fmt: skip
    assert (found.without_file, found.by_name) == (("9.png",), 1)
    assert found.columns == {"file": "image", "label": "dx", "age": "age"}
    assert [found.rows[f"{side}/1.png"].age for side in ("north", "south")] == ["60-69", "90+"]


def test_several_labels_and_one_column_a_class(tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("file,Finding Labels,A,B\nx.png,Mass|Nodule,1,0\ny.png,No Finding,0,1\nz.png,,1,2\n")
    files = ["x.png", "y.png", "z.png"]
    many = read_labels(table, tmp_path, files)
    assert (many.classes, many.multilabel) == (("Mass", "Nodule"), True)
    assert many.rows["y.png"].labels == ()
    assert many.rows["z.png"].problem == "its label is empty"
    single = read_labels(table, tmp_path, files, label=("A", "B"))
    assert (single.classes, single.multilabel, single.rows["y.png"].labels) == (("A", "B"), False, ("B",))
    assert "expected 0 or 1" in single.rows["z.png"].problem


def test_unknown_classes_and_rows_that_differ_are_told(tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("file,label\nx.png,a\nx.png,b\ny.png,c\n")
    found = read_labels(table, tmp_path, ["x.png", "y.png"], classes=("a", "b"))
    assert "differ" in found.rows["x.png"].problem
    assert "c is not among a, b" in found.rows["y.png"].problem
    with pytest.raises(DataError, match="no column names a file"):
        read_labels(table, tmp_path, ["q.png"])
    with pytest.raises(ConfigError, match="no column 'dx'"):
        read_labels(table, tmp_path, ["x.png"], label=("dx",))


@pytest.mark.parametrize(
    ("text", "expected"), [("9", "0-9"), ("18M", "0-9"), ("089", "80-89"), ("90", "90+"), ("x", "")]
)
def test_ages_are_binned(text: str, expected: str) -> None:
    assert age_bin(text) == expected
    assert [sex_of(one) for one in ("male", "F", "unknown", "X")] == ["M", "F", "", "other"]


def test_a_window_maps_hounsfield_units() -> None:
    units = np.array([[[-2000.0, 0.0], [40.0, 500.0]]], dtype=np.float32)
    fit = Fit(size=(2, 2), channels=1, window=parse_window("brain"))  # 0 to 80: 40 is the middle, 127.5
    assert fitted(Picture(pixels=units, modality="CT"), fit).ravel().tolist() == [0, 0, 128, 255]


@pytest.mark.parametrize(
    ("how", "dark"), [("pad", 32 * 16), ("crop", 0), ("stretch", 0)]
)  # fmt: skip
def test_proportions(how: str, dark: int) -> None:
    picture = Picture(pixels=np.full((1, 64, 128), 200, np.uint8), modality="XR")
    made = fitted(picture, Fit(size=(32, 32), channels=1, how=how))  # type: ignore[arg-type]
    assert int((made == 0).sum()) == dark


def test_volumes_and_flat_pictures_do_not_mix() -> None:
    volume = Picture(pixels=np.zeros((1, 5, 8, 8), np.uint8), modality="CT")
    with pytest.raises(DataError, match="it is a volume of 5 x 8 x 8"):
        fitted(volume, FIT)
    with pytest.raises(DataError, match="it is flat"):
        fitted(Picture(pixels=np.zeros((1, 8, 8), np.uint8), modality="CT"), Fit(size=(4, 8, 8), channels=1))

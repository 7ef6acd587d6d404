import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wardround.data.check import check_records
from wardround.data.datasets.medmnist import MedMNIST
from wardround.data.datasets.medmnist_sets import SETS
from wardround.errors import ConfigError, DataError
from wardround.types import SPLITS

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WARDROUND_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("WARDROUND_DATA", str(tmp_path))


def arrays(name: str, size: int = 28, rows: int = 6) -> dict[str, Any]:
    one = SETS[name]
    shape = (rows, *(size,) * one.spatial, *((3,) if one.channels == 3 else ()))
    made: dict[str, Any] = {}
    for part in ("train", "val", "test"):
        made[f"{part}_images"] = RNG.integers(0, 256, shape, dtype=np.uint8)
        labels = np.arange(rows)[:, None] % len(one.classes)
        made[f"{part}_labels"] = RNG.integers(0, 2, (rows, 14)) if one.multilabel else labels.astype(np.uint8)
    return made


def write(tmp_path: Path, file: str, made: dict[str, Any], folder: str = "medmnist") -> None:
    (tmp_path / folder).mkdir(exist_ok=True)
    np.savez_compressed(tmp_path / folder / file, **made)


@pytest.mark.parametrize(
    ("name", "size", "file", "shape"),
    [
        ("pneumoniamnist", 28, "pneumoniamnist.npz", (1, 28, 28)),
        ("bloodmnist", 64, "bloodmnist_64.npz", (3, 64, 64)),
        ("chestmnist", 28, "chestmnist.npz", (1, 28, 28)),
        ("nodulemnist3d", 28, "nodulemnist3d.npz", (1, 28, 28, 28)),
    ],
)
def test_official_layout(name: str, size: int, file: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    made = arrays(name, size, rows=8)
    write(tmp_path, file, made)
    dataset = MedMNIST(name, size)
    data = dataset.load(name)
    description = dataset.describe()
    assert description.shape == shape
    assert data.split is not None
    assert np.bincount(data.split).tolist() == [8, 8, 8]
    test = data.split == SPLITS.index("test")
    expected = made["test_images"]
    expected = np.moveaxis(expected, -1, 1) if shape[0] == 3 else expected[:, None]
    np.testing.assert_array_equal(data.features[test], expected)
    np.testing.assert_array_equal(
        data.labels[test], made["test_labels"] if name == "chestmnist" else expected_labels(made)
    )
    assert isinstance(data.features, np.memmap)
    assert description.multilabel is (name == "chestmnist")
    check_records(description, {name: data})


def expected_labels(made: dict[str, Any]) -> Any:
    return made["test_labels"][:, 0]


def test_a_picture_in_two_splits_leaves_the_one_that_learns(tmp_path: Path) -> None:
    made = arrays("pneumoniamnist")
    made["train_images"][[0, 1]] = made["val_images"][0]
    made["val_images"][1] = made["test_images"][5]
    made["train_images"][3] = made["train_images"][2]
    write(tmp_path, "pneumoniamnist.npz", made, "pneumoniamnist")
    dataset = MedMNIST()
    data = dataset.load("pneumoniamnist")
    assert dataset.left_out == {"train": 2, "validation": 1, "test": 0}
    assert np.bincount(data.split).tolist() == [4, 5, 6]
    # the two that are equal and both train are one patient
    np.testing.assert_array_equal(data.features[:4, 0], made["train_images"][2:])
    assert data.patients[0] == data.patients[1]
    assert len(set(data.patients.tolist())) == 14
    kept = MedMNIST(duplicates="keep").load("pneumoniamnist")
    assert len(kept.labels) == 18
    of_a_patient = {
        (patient, split) for patient, split in zip(kept.patients.tolist(), kept.split.tolist(), strict=True)
    }
    assert len(of_a_patient) == len({patient for patient, _ in of_a_patient})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_images": np.zeros((6, 14, 14), np.uint8)}, r"train_images: uint8 \[6, 14, 14\]"),
        ({"val_images": np.zeros((6, 28, 28), np.float32)}, "val_images: float32"),
        ({"test_labels": np.full((6, 1), 2, np.uint8)}, "test_labels: 2 to 2, expected 0 to 1"),
        ({"test_labels": np.zeros((5, 1), np.uint8)}, "18 pictures for 17 labels"),
        ({"test_labels": None}, "no array test_labels"),
        ({"train_labels": np.array([[None]] * 6, dtype=object)}, "expected a plain array"),
    ],
)
def test_faults_of_the_file(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    made = {key: value for key, value in (arrays("pneumoniamnist") | change).items() if value is not None}
    write(tmp_path, "pneumoniamnist.npz", made)
    with pytest.raises(DataError, match=message):
        MedMNIST().load("pneumoniamnist")


def test_other_faults(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data fetch medmnist --only pneumoniamnist_64\.npz"):
        MedMNIST(size=64).load("pneumoniamnist")
    (tmp_path / "medmnist").mkdir()
    (tmp_path / "medmnist" / "pneumoniamnist.npz").write_bytes(b"PK no zip")
    with pytest.raises(DataError, match="no npz archive"):
        MedMNIST().load("pneumoniamnist")
    with pytest.raises(DataError, match="has one site, 'pneumoniamnist'"):
        MedMNIST().load("pneumonia")
    with pytest.raises(ConfigError, match="expected one of pathmnist"):
        MedMNIST("mnist")
    with pytest.raises(ConfigError, match="nodulemnist3d has pictures of 28, 64 pixels"):
        MedMNIST("nodulemnist3d", 128)
    with pytest.raises(ConfigError, match="'drop' or 'keep'"):
        MedMNIST(duplicates="no")


REAL = Path(os.environ.get("WARDROUND_DATA", "/nowhere"))


@pytest.mark.skipif(not (REAL / "pneumoniamnist").is_dir(), reason="WARDROUND_DATA names no folder with pneumoniamnist")
def test_real_pneumonia_has_eight_pictures_in_two_splits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WARDROUND_DATA", str(REAL))
    dataset = MedMNIST()
    data = dataset.load("pneumoniamnist")
    # eight pictures of validation are in train, two of them twice
    assert dataset.left_out == {"train": 10, "validation": 0, "test": 0}
    assert np.bincount(data.split).tolist() == [4698, 524, 624]
    assert np.bincount(data.labels[data.split == SPLITS.index("test")]).tolist() == [234, 390]

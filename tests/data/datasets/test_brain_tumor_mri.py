from pathlib import Path

import numpy as np
import pytest

from picture_files import Painter
from wardround.data.datasets.brain_tumor_mri import BrainTumorMRI
from wardround.errors import DataError

KINDS = ("notumor", "glioma", "meningioma", "pituitary")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WARDROUND_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("WARDROUND_DATA", str(tmp_path))
    folder = tmp_path / "brain_tumor_mri"
    paint = Painter()
    for part, count in (("Training", 3), ("Testing", 2)):
        for kind in KINDS:
            for number in range(count):
                # one healthy slice is on both sides
                key = 1 if kind == "notumor" and number == 0 else None
                paint(folder / part / kind / f"Te-{number}.png", key)
    return folder


@pytest.mark.usefixtures("home")
def test_official_layout_and_what_is_on_both_sides() -> None:
    dataset = BrainTumorMRI(size=16)
    data = dataset.load("brain_tumor_mri")
    assert dataset.counts == {"rows": 19, "repeated": 1, "left_out": {"train": 1, "validation": 0, "test": 0}}
    assert data.split is not None
    assert np.bincount(data.split).tolist() == [11, 0, 8]
    assert np.bincount(data.labels).tolist() == [4, 5, 5, 5]
    drawn = BrainTumorMRI(size=16, label="tumour", split="drawn").load("brain_tumor_mri")
    assert (drawn.split, len(drawn.labels), len(set(drawn.patients.tolist()))) == (None, 20, 19)
    assert np.bincount(drawn.labels).tolist() == [5, 15]


def test_faults(home: Path) -> None:
    (home / "Testing").rename(home / "Test")
    with pytest.raises(DataError, match="has no Testing/notumor"):
        BrainTumorMRI().load("brain_tumor_mri")

import os
from pathlib import Path

import numpy as np
import pytest

from picture_files import Painter
from wardround.data.datasets.chestxray14 import FINDINGS, ChestXray14
from wardround.errors import ConfigError, DataError
from wardround.types import SPLITS

HEAD = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position\n"
ROWS = (
    "00000001_000.png,Cardiomegaly|Emphysema,0,1,058Y,M,PA\n"
    "00000001_001.png,No Finding,1,1,058Y,M,PA\n"
    "00000002_000.png,Hernia,0,2,081Y,M,AP\n"
    "00000003_000.png,Pleural_Thickening,0,3,074Y,F,PA\n"
)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WARDROUND_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("WARDROUND_DATA", str(tmp_path))
    folder = tmp_path / "chestxray14"
    paint = Painter()
    for number, row in enumerate(ROWS.splitlines()):
        paint(folder / f"images_{1 + number % 2:03d}" / "images" / row.split(",")[0])
    (folder / "Data_Entry_2017.csv").write_text(HEAD + ROWS)
    (folder / "train_val_list.txt").write_text("00000001_000.png\n00000001_001.png\n00000003_000.png")
    (folder / "test_list.txt").write_text("00000002_000.png\n")
    return folder


@pytest.mark.usefixtures("home")
def test_official_layout() -> None:
    dataset = ChestXray14(size=16)
    description, data = dataset.describe(), dataset.load("chestxray14")
    assert data.features.shape == (4, 1, 16, 16)
    assert [[FINDINGS[k] for k in np.flatnonzero(row)] for row in data.labels] == [
        ["Cardiomegaly", "Emphysema"],
        [],
        ["Hernia"],
        ["Pleural_Thickening"],
    ]
    assert (description.multilabel, len(description.classes), description.classes[12]) == (
        True,
        14,
        "pleural thickening",
    )
    assert data.split is not None
    assert [SPLITS[code] for code in data.split] == ["train", "train", "test", "train"]
    assert data.patients[0] == data.patients[1] != data.patients[2]
    assert ChestXray14(size=16, split="patients").load("chestxray14").split is None


def test_faults(home: Path) -> None:
    with pytest.raises(ConfigError, match="'official' or 'patients'"):
        ChestXray14(split="random")
    (home / "test_list.txt").write_text("00000002_000.png\n00000003_000.png")
    with pytest.raises(DataError, match=r"00000003_000\.png, one of 1, is in both"):
        ChestXray14().load("chestxray14")
    (home / "test_list.txt").write_text("")
    with pytest.raises(DataError, match=r"00000002_000\.png, one of 1, is in neither"):
        ChestXray14().load("chestxray14")
    (home / "Data_Entry_2017.csv").write_text(HEAD + ROWS.replace("Hernia", "Fracture"))
    with pytest.raises(DataError, match="finding 'Fracture'"):
        ChestXray14().load("chestxray14")


LABELS = Path(os.environ.get("WARDROUND_DATA", "/nowhere"), "chestxray14_labels", "sample_labels.csv")


@pytest.mark.skipif(not LABELS.is_file(), reason="WARDROUND_DATA has no chestxray14_labels/sample_labels.csv")
def test_real_labels_with_pictures_of_some(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WARDROUND_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("WARDROUND_DATA", str(tmp_path))
    home = tmp_path / "chestxray14"
    home.mkdir()
    (home / "sample_labels.csv").write_bytes(LABELS.read_bytes())
    paint = Painter()
    lines = LABELS.read_text().splitlines()[1:101]
    for line in lines:
        paint(home / "images" / line.split(",")[0])
    dataset = ChestXray14(size=8, split="patients", absent="skip")
    data = dataset.load("chestxray14")
    assert len(data.labels) == 100
    assert data.labels.sum() == sum(len(line.split(",")[1].split("|")) for line in lines if "No Finding" not in line)
    assert len(set(data.patients.tolist())) == len({line.split(",")[3] for line in lines})

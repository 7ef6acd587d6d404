from pathlib import Path

import numpy as np
import pytest

from picture_files import Painter
from wardround.data.datasets.covid_radiography import CovidRadiography
from wardround.errors import DataError

FOLDERS = ("Normal", "COVID", "Lung_Opacity", "Viral Pneumonia")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WARDROUND_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("WARDROUND_DATA", str(tmp_path))
    folder = tmp_path / "COVID-19_Radiography_Dataset"
    paint = Painter()
    for kind in FOLDERS:
        for number in range(3):
            paint(
                folder / kind / "images" / f"{kind}-{number}.png", key=7 if number == 2 and kind == "Normal" else None
            )
            paint(folder / kind / "masks" / f"{kind}-{number}.png")
    return folder


def test_official_layout_without_the_masks(home: Path) -> None:
    data = CovidRadiography(size=16).load("covid_radiography")
    assert data.features.shape == (12, 1, 16, 16)
    assert np.bincount(data.labels).tolist() == [3, 3, 3, 3]
    assert (
        CovidRadiography(size=16, label="covid").load("covid_radiography").labels.tolist()
        == [0] * 3 + [1] * 3 + [0] * 6
    )
    # a second copy joins the first
    Painter()(home / "Normal" / "images" / "Normal-9.png", key=7)
    again = CovidRadiography(size=16)
    patients = again.load("covid_radiography").patients
    assert again.counts["repeated"] == 1
    assert patients[2] == patients[3]


def test_faults(home: Path) -> None:
    (home / "Lung_Opacity").rename(home / "Opacity")
    with pytest.raises(DataError, match=r"has no Lung_Opacity/images.*data fetch covid_radiography"):
        CovidRadiography().load("covid_radiography")
    (home / "Opacity").rename(home / "Lung_Opacity")
    for path in (home / "COVID" / "images").iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"COVID/images has no JPEG or PNG"):
        CovidRadiography().load("covid_radiography")

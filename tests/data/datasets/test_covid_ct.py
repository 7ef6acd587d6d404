from pathlib import Path

import pytest

from picture_files import Painter
from wardround.data.datasets.covid_ct import CovidCT
from wardround.errors import DataError
from wardround.types import SPLITS

COVID = ("2020.01.24.919183-p27-132.png", "2020.01.24.919183-p27-133.png", "2020.02.10-p9-52%1.png", "x-p1-1.png")
OTHER = ("1.png", "2.png", "3.png")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WARDROUND_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("WARDROUND_DATA", str(tmp_path))
    folder = tmp_path / "COVID-CT"
    paint = Painter()
    for kind, names, parts in (("COVID", COVID, (2, 1, 1)), ("NonCOVID", OTHER, (1, 1, 1))):
        lists = folder / "Data-split" / kind
        lists.mkdir(parents=True)
        left = list(names)
        for name in names:
            paint(folder / "Images-processed" / f"CT_{kind}" / name)
        for part, count in zip(("train", "val", "test"), parts, strict=True):
            (lists / f"{part}CT_{kind}.txt").write_text("".join(f"{left.pop(0)}\n" for _ in range(count)))
    return folder


@pytest.mark.usefixtures("home")
def test_official_layout_and_split() -> None:
    data = CovidCT(size=16).load("covid_ct")
    assert data.features.shape == (7, 1, 16, 16)
    assert data.labels.tolist() == [0, 0, 0, 1, 1, 1, 1]
    assert data.split is not None
    assert [SPLITS[code][:2] for code in data.split] == ["tr", "va", "te", "tr", "tr", "va", "te"]


@pytest.mark.usefixtures("home")
def test_figures_of_one_paper_stay_together() -> None:
    data = CovidCT(size=16, split="papers").load("covid_ct")
    assert data.split is None
    assert data.patients[3] == data.patients[4]
    assert len(set(data.patients.tolist())) == 6


def test_faults(home: Path) -> None:
    path = home / "Data-split" / "NonCOVID" / "testCT_NonCOVID.txt"
    path.write_text("1.png\n")
    with pytest.raises(DataError, match=r"1\.png: it is in another list"):
        CovidCT().load("covid_ct")
    path.write_text("9.png\n")
    with pytest.raises(DataError, match=r"9\.png: no such picture"):
        CovidCT().load("covid_ct")
    path.write_text("")
    with pytest.raises(DataError, match=r"3\.png of CT_NonCOVID is in none"):
        CovidCT().load("covid_ct")

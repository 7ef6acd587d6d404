import os
from pathlib import Path

import numpy as np
import pytest

from picture_files import Painter
from wardround.data.check import check_records
from wardround.data.datasets.ham10000 import HAM10000
from wardround.errors import ConfigError, DataError

HEAD = "lesion_id,image_id,dx,dx_type,age,sex,localization,dataset\n"
ROWS = (
    "HAM_1,ISIC_1,bkl,histo,80.0,male,scalp,vidir_modern\n"
    "HAM_1,ISIC_2,bkl,histo,80.0,male,scalp,vidir_modern\n"
    "HAM_2,ISIC_3,mel,histo,,female,back,rosendahl\n"
    "HAM_3,ISIC_4,akiec,histo,50.0,male,face,rosendahl\n"
    "HAM_4,ISIC_5,nv,follow_up,30.0,male,back,vidir_molemax\n"
)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WARDROUND_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("WARDROUND_DATA", str(tmp_path))
    folder = tmp_path / "ham10000"
    folder.mkdir()
    (folder / "HAM10000_metadata.csv").write_text(HEAD + ROWS)
    paint = Painter()
    for number in range(1, 6):
        paint(folder / f"HAM10000_images_part_{1 + number % 2}" / f"ISIC_{number}.jpg")
    return folder


@pytest.mark.usefixtures("home")
def test_official_layout() -> None:
    dataset = HAM10000(size=16)
    description = dataset.describe()
    assert description.sites == ("rosendahl", "vidir_modern", "vidir_molemax")
    data = {site: dataset.load(site) for site in description.sites}
    assert {site: own.labels.tolist() for site, own in data.items()} == {
        "rosendahl": [4, 0],
        "vidir_modern": [2, 2],
        "vidir_molemax": [5],
    }
    assert data["rosendahl"].features.shape == (2, 3, 16, 16)
    # two pictures of one lesion
    assert len(set(data["vidir_modern"].patients.tolist())) == 1
    assert len(set(data["rosendahl"].patients.tolist())) == 2
    assert all(own.split is None for own in data.values())
    binary = HAM10000(size=16, label="malignant")
    check_records(binary.describe(), {site: binary.load(site) for site in description.sites})
    assert binary.load("rosendahl").labels.tolist() == [1, 1]
    assert binary.load("vidir_modern").labels.tolist() == [0, 0]
    assert HAM10000(size=16, sites=["rosendahl"]).describe().sites == ("rosendahl",)


def test_faults(home: Path) -> None:
    (home / "HAM10000_images_part_1" / "ISIC_2.jpg").unlink()
    with pytest.raises(DataError, match=r"1 of 5 pictures are not there.*ISIC_2\.jpg.*absent: skip"):
        HAM10000().load("rosendahl")
    assert len(HAM10000(absent="skip").load("vidir_modern").labels) == 1
    with pytest.raises(DataError, match="'ham10000' has rosendahl, vidir_modern"):
        HAM10000(absent="skip").load("vienna")
    with pytest.raises(DataError, match="has no vienna"):
        HAM10000(sites=["vienna"]).describe()
    with pytest.raises(ConfigError, match="'seven' or 'malignant'"):
        HAM10000(label="eight")
    (home / "HAM10000_metadata.csv").write_text(HEAD + ROWS.replace("bkl", "wart"))
    with pytest.raises(DataError, match="dx = 'wart'"):
        HAM10000().describe()
    (home / "HAM10000_metadata.csv").write_text("lesion_id,image_id,dx\n")
    with pytest.raises(DataError, match="no column 'dataset'"):
        HAM10000().describe()
    (home / "HAM10000_metadata.csv").unlink()
    with pytest.raises(DataError, match=r"has no HAM10000_metadata\.csv"):
        HAM10000().describe()


REAL = Path(os.environ.get("WARDROUND_DATA", "/nowhere"))


@pytest.mark.skipif(not (REAL / "ham10000_sites").is_dir(), reason="WARDROUND_DATA names no folder with ham10000_sites")
def test_real_sites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WARDROUND_DATA", str(REAL))
    monkeypatch.setenv("WARDROUND_CACHE", str(tmp_path))
    dataset = HAM10000()
    counts = {site: np.bincount(dataset.load(site).labels, minlength=7).tolist() for site in dataset.describe().sites}
    assert counts == {
        "rosendahl": [139, 134, 219, 10, 147, 356, 2],
        "vidir_modern": [10, 64, 161, 16, 211, 591, 24],
        "vidir_molemax": [0, 2, 65, 23, 14, 2383, 40],
    }
    assert dataset.counts["repeated"] == 0

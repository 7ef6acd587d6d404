from pathlib import Path

import pytest

from picture_files import Painter
from wardround.config.job import SplitSpec
from wardround.data.datasets.isic2019 import ISIC2019
from wardround.data.split import split_sites
from wardround.errors import ConfigError, DataError
from wardround.types import SPLITS

CODES = ("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC", "UNK")
# image, diagnosis, lesion, centre, fold
ROWS = (
    ("ISIC_1", "MEL", "BCN_1", 0, "train"),
    ("ISIC_2", "NV", "BCN_2", 0, "test"),
    ("ISIC_3", "NV", "BCN_2", 0, "train"),
    ("ISIC_4_downsampled", "SCC", "MSK4_1", 4, "train"),
    ("ISIC_5_downsampled", "BKL", "MSK4_2", 4, "test"),
    ("ISIC_6", "BCC", "", None, ""),
)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WARDROUND_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("WARDROUND_DATA", str(tmp_path))
    folder = tmp_path / "isic2019"
    paint = Painter()
    truth, metadata = [",".join(("image", *CODES))], ["image,age_approx,anatom_site_general,lesion_id,sex"]
    split = [",".join(("image", *CODES, "target,center,fold,fold2"))]
    for image, code, lesion, centre, fold in ROWS:
        paint(folder / "ISIC_2019_Training_Input" / f"{image}.jpg")
        hot = ",".join("1.0" if one == code else "0.0" for one in CODES)
        truth.append(f"{image},{hot}")
        metadata.append(f"{image},55.0,anterior torso,{lesion},female")
        if centre is not None:
            split.append(f"{image},{hot},{CODES.index(code)},{centre},{fold},{fold}_{centre}")
    for name, lines in (
        ("ISIC_2019_Training_GroundTruth.csv", truth),
        ("ISIC_2019_Training_Metadata.csv", metadata),
        ("train_test_split", split),
    ):
        (folder / name).write_text("\n".join(lines) + "\n")
    return folder


@pytest.mark.usefixtures("home")
def test_centres_and_lesions() -> None:
    dataset = ISIC2019(size=16)
    assert dataset.describe().sites == ("bcn", "msk")
    bcn = dataset.load("bcn")
    assert bcn.labels.tolist() == [0, 1, 1]
    assert (bcn.patients[1] == bcn.patients[2], bcn.patients[0] == bcn.patients[1]) == (True, False)
    assert dataset.load("msk").labels.tolist() == [7, 4]
    assert bcn.split is None


@pytest.mark.usefixtures("home")
def test_a_lesion_in_both_folds_keeps_what_is_in_test() -> None:
    dataset = ISIC2019(size=16, split="flamby")
    bcn = dataset.load("bcn")
    assert bcn.split is not None
    assert [SPLITS[code] for code in bcn.split] == ["train", "test"]
    assert dataset.counts["left_out"] == {"train": 1, "validation": 0, "test": 0}
    split_sites({site: dataset.load(site) for site in ("bcn", "msk")}, SplitSpec(), seed=0)


@pytest.mark.usefixtures("home")
def test_two_against_two_and_the_pool() -> None:
    dataset = ISIC2019(size=16, label="mel_bcc", centres="pool")
    data = dataset.load("isic2019")
    # MEL, NV, NV, BKL, BCC; the squamous cell carcinoma leaves
    assert data.labels.tolist() == [1, 0, 0, 0, 1]
    assert dataset.describe().natural is False
    assert len(dataset.describe().classes) == 2


def test_faults(home: Path) -> None:
    with pytest.raises(ConfigError, match="belong to its centres"):
        ISIC2019(split="flamby", centres="pool")
    with pytest.raises(ConfigError, match="'eight' or 'mel_bcc'"):
        ISIC2019(label="seven")
    truth = home / "ISIC_2019_Training_GroundTruth.csv"
    good = truth.read_text()
    truth.write_text(good.replace("ISIC_1,1.0,0.0", "ISIC_1,1.0,1.0"))
    with pytest.raises(DataError, match="ISIC_1 has 2 diagnoses"):
        ISIC2019().describe()
    truth.write_text("\n".join(good.splitlines()[:-2]) + "\n")
    with pytest.raises(DataError, match="ground truth has no ISIC_5_downsampled"):
        ISIC2019().describe()
    truth.write_text(good)
    (home / "train_test_split").write_text((home / "train_test_split").read_text().replace(",4,train", ",6,train"))
    with pytest.raises(DataError, match="center '6'"):
        ISIC2019().describe()

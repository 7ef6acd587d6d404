import csv
import os
from pathlib import Path
from typing import Any

import pytest

from wardround.data.datasets.tcga_brca import TCGABRCA
from wardround.errors import ConfigError, DataError
from wardround.types import SPLITS

REGIONS = ("northeast", "south", "west", "midwest", "europe", "canada")
NAMES = [column.name for column in TCGABRCA().describe().columns]
CENTERS = """TSS Code,Source Site,Country,State,Region
BH,University of Pittsburgh,USA,PA,Northeast
E1,Duke,USA,NC,South
PL,Institute of Human Virology Nigeria,Nigeria,Other,Other
"""
FIVE_YEARS = 5 * 365.25


def quoted(name: str) -> str:
    return f'"{name}"' if "," in name else name


def write(folder: Path, *patients: tuple[str, str, Any, Any]) -> Path:
    """The three files, of patients (bar code, fold2 or '' where the split leaves them out, E, T)."""
    place = folder / "tcga_brca"
    place.mkdir(exist_ok=True)
    lines = [",".join(["pid", *map(quoted, NAMES), "E", "T"])]
    for k, (code, _, event, days) in enumerate(patients):
        lines.append(",".join([code, str(50 + k), "1", *["0"] * 37, str(event), str(days)]))
    folds = [f"{code},{fold.split('_')[0]},{fold}" for code, fold, _, _ in patients if fold]
    (place / "brca.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (place / "train_test_split.csv").write_text("\n".join(["pid,fold,fold2", *folds]) + "\n", encoding="utf-8")
    (place / "centers.csv").write_text(CENTERS, encoding="utf-8")
    return place


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WARDROUND_DATA", str(tmp_path))
    return tmp_path


def test_thirty_nine_columns() -> None:
    description = TCGABRCA().describe()
    assert len(NAMES) == 39
    assert NAMES[0] == "age_at_index"
    assert all(column.levels == ("no", "yes") for column in description.columns[1:])
    assert description.sites == REGIONS


def test_follow_up_that_ended_early_is_no_label(root: Path) -> None:
    write(
        root,
        ("TCGA-BH-0001", "train_0", "1.0", "100.0"),  # died
        ("TCGA-BH-0002", "train_0", "0.0", "100.0"),  # lost from sight: unknown
        ("TCGA-BH-0003", "test_0", "0.0", f"{FIVE_YEARS + 1}"),  # alive for five years
        ("TCGA-BH-0004", "train_0", "1.0", f"{FIVE_YEARS + 1}"),  # died later
        ("TCGA-BH-0005", "train_0", "0.0", f"{FIVE_YEARS}"),  # alive on the day
    )
    data = TCGABRCA().load("northeast")
    assert data.patients.tolist() == ["TCGA-BH-0001", "TCGA-BH-0003", "TCGA-BH-0004", "TCGA-BH-0005"]
    assert data.labels.tolist() == [1, 0, 0, 0]
    assert data.features[:, :3].tolist() == [[50, 1, 0], [52, 1, 0], [53, 1, 0], [54, 1, 0]]
    assert data.split is None
    assert TCGABRCA(years=100 / 365.25).load("northeast").labels.tolist() == [0, 0, 0, 0, 0]


def test_the_published_split(root: Path) -> None:
    write(
        root,
        ("TCGA-BH-0001", "train_0", 1, 100),
        ("TCGA-E1-0002", "test_1", 1, 100),
        ("TCGA-BH-0003", "test_0", 1, 100),
        ("TCGA-PL-0004", "", 1, 100),  # of no region
    )
    split = TCGABRCA(split="flamby")
    north, south = split.load("northeast").split, split.load("south").split
    assert north is not None
    assert south is not None
    assert north.tolist() == [0, 2]
    assert south.tolist() == [2]
    assert sum(len(split.load(region).labels) for region in REGIONS) == 3


@pytest.mark.parametrize(
    ("patients", "message"),
    [
        (
            [("TCGA-BH-0001", "train_1", 1, 9)],
            r"TCGA-BH-0001 is in centre 1 \(south\), and centers\.csv has .*Northeast",
        ),
        ([("TCGA-XX-0001", "train_1", 1, 9)], "its source 'XX' in no region"),
        ([("TCGA-BH-0001", "train_6", 1, 9)], "fold2 = 'train_6': expected train_0 to train_5"),
        ([("TCGA-BH-0001", "train_0", 2, 9)], r"line 2, column 'E': '2'"),
        ([("TCGA-BH-0001", "train_0", 1, -9)], "row 1: expected an event E of 0 or 1 and days T of at least 0"),
        ([("TCGA-BH-0001", "train_0", 1, "")], "row 1: expected an event E"),
        ([("TCGA-BH-0001", "train_0", 1, 9), ("TCGA-BH-0001", "test_0", 1, 9)], "a patient has two rows"),
    ],
)
def test_files_that_contradict_themselves(root: Path, patients: list[Any], message: str) -> None:
    write(root, *patients)
    with pytest.raises(DataError, match=message):
        TCGABRCA().load("northeast")


def test_absent_files_patients_and_columns(root: Path) -> None:
    place = write(root, ("TCGA-BH-0001", "train_0", 1, 9))
    with pytest.raises(DataError, match="'asia'"):
        TCGABRCA().load("asia")
    (place / "train_test_split.csv").write_text("pid,fold2\nTCGA-BH-0009,train_0\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"lacks 1 patients of train_test_split\.csv, such as TCGA-BH-0009"):
        TCGABRCA().load("northeast")
    (place / "train_test_split.csv").write_text("pid,fold\nTCGA-BH-0009,train\n", encoding="utf-8")
    with pytest.raises(DataError, match="the column 'fold2' is missing"):
        TCGABRCA().load("northeast")
    (place / "centers.csv").unlink()
    with pytest.raises(DataError, match=r"no file .*centers\.csv.*FLamby"):
        TCGABRCA().load("northeast")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "official"}, "expected 'patients' or 'flamby'"),
        ({"years": 0}, "expected a number of years above 0"),
        ({"years": float("nan")}, "above 0"),
        ({"years": "five"}, "above 0"),
    ],
)
def test_options_that_mean_nothing(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TCGABRCA(**options)


# ------------------------------------------------------------------------------------------------ the real files

_REAL = Path(os.environ.get("WARDROUND_DATA", ""), "tcga_brca", "brca.csv")


@pytest.mark.skipif(
    not os.environ.get("WARDROUND_DATA") or not _REAL.is_file(), reason="WARDROUND_DATA names no folder with tcga_brca/"
)
def test_real_rows_deaths_and_split() -> None:
    dataset = TCGABRCA(split="flamby")
    data = {region: dataset.load(region) for region in REGIONS}
    assert [len(d.labels) for d in data.values()] == [131, 81, 60, 68, 9, 3]
    assert sum(int(d.labels.sum()) for d in data.values()) == 99
    with _REAL.with_name("train_test_split.csv").open(newline="") as file:
        folds = {row["pid"]: row["fold2"] for row in csv.DictReader(file)}
    for centre, (region, own) in enumerate(data.items()):
        assert own.split is not None, region
        parts = [f"{'test' if code == SPLITS.index('test') else 'train'}_{centre}" for code in own.split.tolist()]
        assert [folds[code] for code in own.patients.tolist()] == parts

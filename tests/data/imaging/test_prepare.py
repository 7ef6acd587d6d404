"""From a folder of pictures to a site that a federation trains from."""

from __future__ import annotations

import csv
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wardround import run
from wardround.cli.exit import guarded
from wardround.config.job import DataSpec, Job
from wardround.data.imaging import prepare as module
from wardround.data.imaging.prepare import Prepared, Wanted, prepare
from wardround.data.imaging.site_folder import open_folder
from wardround.data.registry import build
from wardround.errors import DataError, Refused
from wardround.experiment import records_of
from wardround.prediction import load_predictor
from wardround.training.metrics import ScoreTable, measure
from wardround.types import SPLITS

SIDE, EACH = 20, 15


def source(folder: Path, site: str = "north", seed: int = 0) -> Path:
    """Photographs of two classes, one brighter, two of each of 15 patients, and their table."""
    rng = np.random.default_rng(seed)
    (folder / site).mkdir(parents=True)
    rows = [("file", "label", "patient_id", "age", "sex")]
    for patient in range(EACH):
        for kind, mean in (("dull", 90), ("bright", 160)):
            pixels = np.clip(rng.normal(mean, 25, (SIDE, SIDE, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / site / f"{kind}-{patient}.png")
            rows.append((f"{kind}-{patient}.png", kind, f"Smith^{patient}", str(20 + 5 * patient), "F"))
    table = folder / f"{site}.csv"
    with table.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return table


def wanted(tmp_path: Path, site: str = "north", **more: object) -> Wanted:
    table = tmp_path / f"{site}.csv"
    if not table.exists():
        source(tmp_path, site, seed=len(site))
    given = {
        "source": tmp_path / site,
        "out": tmp_path / "sites" / site,
        "site": site,
        "labels": table,
        "modality": "PHOTO",
    }
    return Wanted(**{**given, **more})  # type: ignore[arg-type]


def content(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_a_site_is_made_and_holds_no_identifier(tmp_path: Path) -> None:
    made = prepare(wanted(tmp_path))
    assert made.folder is not None
    assert made.folder.images().shape == (2 * EACH, 3, SIDE, SIDE)
    name = made.folder.records["label"][0]
    row = np.asarray(Image.open(tmp_path / "north" / f"{name}-0.png")).transpose(2, 0, 1)
    np.testing.assert_array_equal(made.folder.images()[0], row)
    everything = b"".join(content(tmp_path / "sites" / "north").values())
    assert not [name for name in (b"Smith", b"bright-", b".png") if name in everything]
    assert len(set(made.folder.records["patient"])) == EACH
    assert {one for one in made.folder.records["age"] if one.endswith("+")} == {"90+"}
    held = tmp_path / "sites" / "north.held"
    mapping = next(file for file in held.iterdir() if b"Smith" in file.read_bytes())
    assert mapping.stat().st_mode & 0o077 == 0
    assert not [path for path in (tmp_path / "sites").iterdir() if path.name.startswith(".")]


def test_a_patient_who_comes_again_keeps_the_pseudonym(tmp_path: Path) -> None:
    first = prepare(wanted(tmp_path)).folder
    again = prepare(wanted(tmp_path), overwrite=True).folder
    assert first
    assert again
    assert first.records["patient"] == again.records["patient"]


def test_a_check_writes_nothing(tmp_path: Path) -> None:
    made = prepare(wanted(tmp_path), check=True)
    assert (made.folder, made.tree["used"], made.refusal) == (None, 2 * EACH, "")
    assert not (tmp_path / "sites").exists()


def test_bad_files_are_named_and_the_rest_goes_on(tmp_path: Path) -> None:
    asked = wanted(tmp_path)
    north = tmp_path / "north"
    (north / "dull-0.png").write_bytes((north / "dull-0.png").read_bytes()[:200])
    (north / "dull-1.png").write_bytes(b"")
    shutil.copy(north / "dull-3.png", north / "dull-2.png")
    (north / "stray.png").write_bytes((north / "dull-4.png").read_bytes())
    made = prepare(asked)
    assert made.tree["skipped"] == {"unreadable": 2, "unlabelled": 1, "duplicate": 1}
    assert [one["name"] for one in made.tree["named"]["unreadable"]] == ["dull-0.png", "dull-1.png"]
    assert made.folder is not None
    assert made.folder.manifest.rows == 2 * EACH - 3


def test_too_much_left_out_is_no_site(tmp_path: Path) -> None:
    asked = wanted(tmp_path, max_skipped=0.1)
    for number in range(4):
        (tmp_path / "north" / f"dull-{number}.png").write_bytes(b"broken")
    made = prepare(asked)
    assert "13% of the studies" in made.refusal
    assert not (tmp_path / "sites" / "north").exists()


def test_a_killed_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SHARD_ROWS", 4)
    whole = prepare(wanted(tmp_path, out=tmp_path / "whole")).folder
    fit, calls = module._fit_shard, []

    def killed(task: object) -> int:
        calls.append(task)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return fit(task)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "_fit_shard", killed)
    with pytest.raises(KeyboardInterrupt):
        prepare(wanted(tmp_path))
    assert not (tmp_path / "sites" / "north").exists()
    before = len(calls)
    resumed = prepare(wanted(tmp_path)).folder
    assert len(calls) - before == -(-2 * EACH // 4) - 3  # all shards but the three that were whole
    assert whole
    assert resumed
    np.testing.assert_array_equal(whole.images(), resumed.images())


def test_workers_make_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SHARD_ROWS", 8)
    one = prepare(wanted(tmp_path, out=tmp_path / "one"), workers=1).folder
    two = prepare(wanted(tmp_path, out=tmp_path / "two"), workers=2).folder
    assert one
    assert two
    assert one.manifest.hashes["images.npy"] == two.manifest.hashes["images.npy"]


def test_what_is_there_is_not_lost(tmp_path: Path) -> None:
    asked = wanted(tmp_path)
    (tmp_path / "sites" / "north").mkdir(parents=True)
    (tmp_path / "sites" / "north" / "thesis.txt").write_text("years")
    for overwrite in (False, True):
        with pytest.raises(Refused):
            prepare(asked, overwrite=overwrite)
    assert content(tmp_path / "sites") == {"north/thesis.txt": b"years"}
    with pytest.raises(Refused, match="keep pseudonyms elsewhere"):
        prepare(wanted(tmp_path, out=tmp_path / "new", held=tmp_path / "new" / "held"))


def test_an_archive_brings_labels_and_splits(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    arrays = {}
    for part, rows in (("train", 12), ("val", 6), ("test", 6)):
        arrays[f"{part}_images"] = rng.integers(0, 256, (rows, 28, 28), dtype=np.uint8)
        arrays[f"{part}_labels"] = (np.arange(rows) % 2)[:, None]
    arrays["train_images"][3] = arrays["test_images"][3]
    np.savez(tmp_path / "small.npz", **arrays)
    made = prepare(
        Wanted(source=tmp_path / "small.npz", out=tmp_path / "one", site="one", modality="XR", classes=("well", "ill"))
    )
    assert made.folder is not None
    assert made.tree["named"]["duplicate"] == [{"name": "train/03", "why": "the same pixels as test/3"}]
    data = build(DataSpec(dataset="images", options={"path": str(tmp_path / "one")})).load("one")
    assert data.split is not None
    assert np.bincount(data.split).tolist() == [11, 6, 6]
    assert isinstance(data.features, np.memmap)


def job(path: Path, **more: object) -> Job:
    return Job.model_validate(
        {
            "name": "x",
            "data": {"dataset": "images", "options": {"path": str(path)}},
            "model": {"name": "cnn", "options": {"width": 2}},
            "partition": {"kind": "natural"},
            "training": {"rounds": 2, "local_epochs": 1, "batch_size": 8, "optimizer": {"learning_rate": 0.05}},
            "evaluation": {"baselines": ["centralized"], "bootstrap": 0},
            **more,
        }
    )


@pytest.mark.filterwarnings("default")
def test_several_sites_train_from_the_disk_as_from_memory(tmp_path: Path) -> None:
    for site in ("north", "south"):
        prepare(wanted(tmp_path, site))
    mapped = run(job(tmp_path / "sites"), tmp_path / "run", report=False)
    assert mapped["federated"]["pooled"]["auroc"] > 0.9
    shared = run(job(tmp_path / "sites", engine={"workers": 2}), tmp_path / "run2", report=False)
    assert shared["federated"]["pooled"] == pytest.approx(mapped["federated"]["pooled"], abs=1e-4)


@pytest.mark.filterwarnings("default")
def test_the_model_scores_pixels_as_they_are_stored(tmp_path: Path) -> None:
    for site in ("north", "south"):
        prepare(wanted(tmp_path, site))
    result = run(job(tmp_path / "sites", evaluation={"baselines": [], "bootstrap": 0}), tmp_path / "run", report=False)
    model = load_predictor(tmp_path / "run")
    _, divided = records_of(job(tmp_path / "sites"))
    for site, data in divided.items():
        test = data.split == SPLITS.index("test")
        assert data.features.dtype == np.uint8
        found = measure(ScoreTable.from_rows(model.probabilities(data.features[test]), data.labels[test]), 0.5)
        assert found["brier"] == pytest.approx(result["federated"]["sites"][site]["brier"], abs=1e-6)


def test_sites_that_differ_are_refused(tmp_path: Path) -> None:
    prepare(wanted(tmp_path, "north"))
    prepare(wanted(tmp_path, "south", size=(16, 16)))
    with pytest.raises(DataError, match="same options"):
        build(DataSpec(dataset="images", options={"path": str(tmp_path / "sites")})).describe()


def test_the_command_writes_a_page_for_its_owner(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from wardround.cli.app import app

    table = source(tmp_path)
    line = ["data", "prepare", str(tmp_path / "north"), "--labels", str(table), "--site", "<north>", "--workers", "1"]
    assert guarded(app, [*line, "--out", str(tmp_path / "out"), "--modality", "PHOTO", "--quiet"]) == 0
    page = tmp_path / "out.preflight.html"
    assert page.stat().st_mode & 0o077 == 0
    assert "&lt;north&gt;" in page.read_text()
    assert "<north>" not in page.read_text()
    assert open_folder(tmp_path / "out").manifest.site == "<north>"
    assert guarded(app, [*line, "--out", str(tmp_path / "out2"), "--modality", "MR", "--quiet"]) == 3
    assert not (tmp_path / "out2").exists()
    assert "max_skipped" in capsys.readouterr().err or (tmp_path / "out2.preflight.html").exists()


HAM = Path(os.environ.get("WARDROUND_DATA", "")) / "ham10000_sites"


@pytest.mark.skipif(not (HAM / "labels.csv").exists(), reason="WARDROUND_DATA has no ham10000_sites")
def test_a_real_dermatoscopic_site(tmp_path: Path) -> None:
    site = "rosendahl"
    made: Prepared = prepare(
        Wanted(
            source=HAM / "images64" / site, out=tmp_path / site, site=site, labels=HAM / "labels.csv", modality="DERM",
            roles={}, deidentify=False,
        )
    )  # fmt: skip
    assert (made.tree["used"], made.tree["skipped"]) == (1007, {})
    assert made.tree["columns"] | {} == {
        "file": "image_id",
        "label": "dx",
        "group": "lesion_id",
        "age": "age",
        "sex": "sex",
    }

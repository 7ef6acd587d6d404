"""Volumes from disk to a federated model: one hospital with NIfTI files, one with a folder of DICOM slices a patient."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray

from data.imaging.slices import series
from wardround.cli.app import app
from wardround.cli.exit import guarded
from wardround.config.job import Job
from wardround.data.imaging.site_folder import open_folder
from wardround.errors import DataError
from wardround.experiment import run

DEPTH, HEIGHT, WIDTH = 8, 20, 20
EACH = 24
FAT, LESION = -60, 90
"""Hounsfield units of the body and of what is planted in every second one."""


def body(rng: np.random.Generator, ill: bool) -> NDArray[np.int16]:
    """CT [D, H, W] of a cylinder in air, with a bright ball of 3 voxels' radius somewhere in it where `ill`."""
    depth, height, width = np.indices((DEPTH, HEIGHT, WIDTH))
    volume = np.where((height - 9.5) ** 2 + (width - 9.5) ** 2 < 80, FAT, -1000) + rng.normal(0, 25, depth.shape)
    middle = rng.uniform((2, 7, 7), (DEPTH - 3, 12, 12))
    ball = sum((axis - at) ** 2 for axis, at in zip((depth, height, width), middle, strict=True)) < 9
    return np.where(ball & ill, LESION, volume).astype(np.int16)


def hospitals(folder: Path) -> dict[str, Path]:
    """Two sources and their tables `SITE.csv`: `nifti`, `dicom`."""
    rng = np.random.default_rng(0)
    tables = {site: ["study,label"] for site in ("nifti", "dicom")}
    (folder / "nifti").mkdir()
    (folder / "dicom").mkdir()
    for number in range(EACH):
        ill = number % 2 == 1
        label = ("well", "ill")[ill]
        # axes of NIfTI are x, y, z in RAS+: the mirror image of DICOM's columns and rows
        image = nibabel.Nifti1Image(body(rng, ill).transpose(2, 1, 0)[::-1, ::-1], np.diag([0.7, 0.5, 2.0, 1.0]))
        nibabel.save(image, folder / "nifti" / f"Smith-{number}.nii.gz")
        tables["nifti"].append(f"Smith-{number}.nii.gz,{label}")
        series(
            folder / "dicom" / f"Jones-{number}", body(rng, ill) + 1024, SeriesInstanceUID=f"1.2.3.{number}",
            StudyInstanceUID=f"1.2.{number}", PatientID=f"Jones-{number}", BodyPartExamined="ABDOMEN",
        )  # fmt: skip
        tables["dicom"].append(f"Jones-{number},{label}")
    for site, lines in tables.items():
        (folder / f"{site}.csv").write_text("\n".join(lines) + "\n")
    return {site: folder / site for site in tables}


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both sites made ready on the command line."""
    folder = tmp_path_factory.mktemp("volumes")
    for site, source in hospitals(folder).items():
        line = [
            "data",
            "prepare",
            str(source),
            "--labels",
            f"{source}.csv",
            "--site",
            site,
            "--modality",
            "CT",
            "--out",
        ]
        shape = ["--size", "8x20x20", "--window", "soft-tissue", "--classes", "well,ill", "--workers", "2", "-q"]
        assert guarded(app, [*line, str(folder / "sites" / site), *shape]) == 0
    return folder / "sites"


@pytest.mark.filterwarnings("default")
def test_volumes_of_two_formats_train_one_model_that_finds_the_lesion(tmp_path: Path, sites: Path) -> None:
    folders = {site: open_folder(sites / site) for site in ("nifti", "dicom")}
    for found in folders.values():
        assert found.images().shape == (EACH, 1, 8, 20, 20)
        assert b"Smith" not in b"".join(file.read_bytes() for file in found.path.iterdir())
        assert b"Jones" not in b"".join(file.read_bytes() for file in found.path.iterdir())
    # the same body in the same orientation and units, whichever format it came in: the lesion is white, fat mid-grey
    ill = {site: np.array(found.records["label"]) == "ill" for site, found in folders.items()}
    means = [found.images()[ill[site]].mean(axis=0) for site, found in folders.items()]
    assert np.abs(means[0] - means[1]).mean() < 12
    assert {
        int(found.images()[ill[site]][:, 0, 1:-1].max(axis=(1, 2, 3)).min() > 150) for site, found in folders.items()
    } == {1}
    result = run(job(sites, "cnn", rounds=12, epochs=2), tmp_path / "cnn", report=False)
    assert result["federated"]["pooled"]["auroc"] > 0.85


@pytest.mark.filterwarnings("default")
def test_the_command_line_trains_a_residual_network_on_volumes(tmp_path: Path, sites: Path) -> None:
    made = job(sites, "resnet18", rounds=1, epochs=1)
    path = tmp_path / "job.yaml"
    path.write_text(json.dumps(made.model_dump(mode="json")))
    assert guarded(app, ["run", str(path), "--out", str(tmp_path / "run"), "-q", "--no-report"]) == 0
    found = json.loads((tmp_path / "run" / "result.json").read_text())
    assert 0 <= found["federated"]["pooled"]["auroc"] <= 1


def job(sites: Path, model: str, rounds: int, epochs: int) -> Job:
    options = {"width": 4} if model == "cnn" else {}
    return Job.model_validate(
        {
            "name": "volumes",
            "data": {"dataset": "images", "options": {"path": str(sites)}},
            "model": {"name": model, "options": options},
            "partition": {"kind": "natural"},
            "training": {
                "rounds": rounds, "local_epochs": epochs, "batch_size": 4, "optimizer": {"learning_rate": 0.05},
            },
            "evaluation": {"baselines": [], "bootstrap": 0},
        }
    )  # fmt: skip


def test_slices_of_several_patients_under_one_uid_are_studies_of_their_own(tmp_path: Path) -> None:
    from wardround.data.imaging.studies import open_source

    rng = np.random.default_rng(1)
    for number in range(2):
        series(tmp_path / f"p{number}", body(rng, False) + 1024, PatientID=f"p{number}")
    scout = series(
        tmp_path / "scout", body(rng, False)[:2] + 1024, PatientID="p0", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]
    )
    studies = open_source(tmp_path, tmp_path, volumes=True).studies
    assert [(one.name, len(one.files)) for one in studies] == [
        ("p0/0.dcm", 8),
        ("p1/0.dcm", 8),
        ("scout/0.dcm", len(scout)),
    ]
    with pytest.raises(DataError, match="there is no"):
        open_source(tmp_path / "nowhere", tmp_path, volumes=True)

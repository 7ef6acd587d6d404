from __future__ import annotations

import random
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from data.imaging.slices import dataset, items, save, series
from wardround.data.imaging import dicomdir
from wardround.data.imaging.decode import Options, read
from wardround.data.imaging.dicom_series import group
from wardround.errors import DataError

VOLUME = np.random.default_rng(0).integers(0, 2000, (6, 8, 10)).astype(np.int16)


def rewritten(path: Path, **tags: object) -> None:
    made = dcmread(path)
    for name, value in tags.items():
        setattr(made, name, value)
    made.save_as(path)


def test_shuffled_slices_assemble_by_position(tmp_path: Path) -> None:
    paths = series(tmp_path / "s", VOLUME, names=[4, 0, 5, 2, 1, 3])
    random.Random(1).shuffle(paths)
    got = read(paths)
    assert got.pixels.dtype == np.int16
    assert np.array_equal(got.pixels[0], VOLUME - 1024)
    assert got.orientation == "SPL"
    assert got.spacing == pytest.approx((2.0, 0.5, 0.7))
    # DICOM's LPS corner (-10, -20, 30) in RAS
    assert got.affine is not None
    assert got.affine[:3, 3].tolist() == pytest.approx([10, 20, 30])


@pytest.mark.parametrize(
    ("cosines", "orientation"),
    [
        ((0, 1, 0, 0, 0, -1), "sagittal"),
        ((1, 0, 0, 0, 0, -1), "coronal"),
        ((-1, 0, 0, 0, 1, 0), "flipped"),
    ],
)
def test_every_voxel_stays_where_it_is_in_the_patient(
    tmp_path: Path, cosines: tuple[float, ...], orientation: str
) -> None:
    paths = series(tmp_path / orientation, VOLUME, cosines=cosines)
    kept, turned = read(paths, options=Options(orientation=None)), read(paths)
    assert turned.orientation == "SPL"
    assert np.array_equal(kept.pixels[0], VOLUME - 1024)
    assert kept.affine is not None
    assert turned.affine is not None
    for index in np.ndindex(VOLUME.shape):
        world = kept.affine @ [*index, 1.0]
        there = np.rint(np.linalg.solve(turned.affine, world)[:3]).astype(int)
        assert turned.pixels[(0, *there)] == VOLUME[index] - 1024


def test_orientation_and_units_agree_with_a_second_reader(tmp_path: Path) -> None:
    from monai.data import PydicomReader

    folder = tmp_path / "s"
    paths = series(folder, VOLUME, cosines=(0.6, 0.8, 0, 0, 0, -1))
    got = read(paths, options=Options(orientation=None))
    reader = PydicomReader(affine_lps_to_ras=True)
    values, meta = reader.get_data(reader.read(str(folder)))
    assert got.affine is not None
    for index in [(0, 0, 0), (5, 7, 9), (2, 3, 4)]:
        world = got.affine @ [*index, 1.0]
        there = np.rint(np.linalg.solve(np.asarray(meta["affine"]), world)[:3]).astype(int)
        assert values[tuple(there)] == got.pixels[(0, *index)]


def test_each_way_to_be_no_volume_has_its_reason(tmp_path: Path) -> None:
    def refused(paths: list[Path], reason: str) -> None:
        with pytest.raises(DataError, match=reason):
            read(paths)

    missing = series(tmp_path / "missing", VOLUME)
    refused(missing[:2] + missing[4:], r"2 of 6 slices are missing, the first after 32\.00 mm")
    refused(
        series(tmp_path / "uneven", VOLUME, gaps=[2, 2, 2.6, 2, 2]), "distance between slices varies from 2 to 2.6 mm"
    )

    twice = series(tmp_path / "twice", VOLUME)
    same = save(tmp_path / "twice" / "copy.dcm", dcmread(twice[3]))
    refused([*twice, same], r"copy\.dcm and 3\.dcm are duplicates: they share a SOPInstanceUID")
    rewritten(same, SOPInstanceUID="1.2.3.4.99")
    refused([*twice, same], r"2 slices lie at 36\.00 mm and 1 elsewhere")

    mixed = series(tmp_path / "mixed", VOLUME)
    rewritten(mixed[0], SeriesInstanceUID="1.9")
    refused(mixed, "belong to 2 series: expected one")
    kinds = series(tmp_path / "kinds", VOLUME)
    rewritten(kinds[0], Modality="MR")
    refused(kinds, "mixes the modalities CT, MR")
    sizes = [*series(tmp_path / "sizes", VOLUME[1:]), *series(tmp_path / "other", VOLUME[:1, :4])]
    refused(sizes, "mixes slices of 4 x 10, 8 x 10 pixels")
    oblique = series(tmp_path / "oblique", VOLUME)
    rewritten(oblique[0], ImageOrientationPatient=[0, 1, 0, 0, 0, -1])
    refused(oblique, "not parallel")
    lost = series(tmp_path / "lost", VOLUME)
    rewritten(lost[2], ImagePositionPatient=None)
    refused(lost, r"2\.dcm does not say where it lies")
    refused(series(tmp_path / "bent", VOLUME[:3], shift=(0, 0, 0))[:2] + bent(tmp_path), "do not lie on one line")


def bent(folder: Path) -> list[Path]:
    """A third slice 5 mm to the side."""
    paths = series(folder / "bend", VOLUME[:3])
    rewritten(paths[2], ImagePositionPatient=["-5", "-20", "34"])
    return paths[2:]


def test_a_tilted_gantry_is_told(tmp_path: Path) -> None:
    got = read(series(tmp_path / "s", VOLUME, shift=(0, 2 * np.tan(np.radians(15)), 0)))
    assert got.facts["tilt"] == pytest.approx(15, abs=0.01)


def test_two_echoes_of_one_series(tmp_path: Path) -> None:
    first = series(tmp_path / "a", VOLUME[:3], Modality="MR", EchoTime=20)
    second = series(tmp_path / "b", VOLUME[3:], Modality="MR", EchoTime=90)
    for index, path in enumerate(second):
        rewritten(path, SOPInstanceUID=f"1.2.3.5.{index}")
    got = read([*second, *first], options=Options(volume="channels"))
    assert np.array_equal(got.pixels, np.stack([VOLUME[:3], VOLUME[3:]]) - 1024)
    for path in second:
        rewritten(path, EchoTime=20)
    with pytest.raises(DataError, match="2 slices lie at every position, and none of EchoTime"):
        read([*second, *first])


def test_memory_stays_below_one_and_a_half_volumes(tmp_path: Path) -> None:
    volume = np.zeros((60, 96, 96), np.int16)
    paths = series(tmp_path / "s", volume)
    read(paths[:2])
    tracemalloc.start()
    got = read(paths[::-1])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # the headers of sixty small files are more than one of these slices
    assert peak < 1.5 * got.pixels.nbytes + (2 << 20)


def test_files_are_grouped_by_series_and_localisers_stand_apart(tmp_path: Path) -> None:
    paths = series(tmp_path / "a", VOLUME, ImageType=["ORIGINAL", "PRIMARY", "AXIAL"])
    scout = series(tmp_path / "scout", VOLUME[:1], ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    other = series(tmp_path / "b", VOLUME[:2], SeriesInstanceUID="1.2.9")
    broken = tmp_path / "broken.dcm"
    broken.write_bytes(b"\0" * 300)
    found, failed = group([*paths, *scout, *other, broken])
    assert sorted((len(one.members), one.is_volume) for one in found) == [(1, False), (2, True), (6, True)]
    assert list(failed) == [broken]


def listing(folder: Path, *entries: list[str]) -> Path:
    with warnings.catch_warnings():
        # `..` is no value for a file's name, which is why it must be tried
        warnings.simplefilter("ignore")
        records = items(*({"DirectoryRecordType": "IMAGE", "ReferencedFileID": entry} for entry in entries))
        made = dataset(None, DirectoryRecordSequence=records)
        del made.Modality
        made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.1.3.10"
        return save(folder / "DICOMDIR", made)


def test_a_dicomdir_leads_nowhere_else(tmp_path: Path) -> None:
    root = tmp_path / "cd"
    root.mkdir()
    inside = series(root / "A", VOLUME[:1])[0].rename(root / "A" / "0")
    secret = series(tmp_path / "secret", VOLUME[:1])[0]
    (root / "LINK").symlink_to(secret)
    path = listing(root, ["A", "0"], ["A", "0"], ["..", "secret", "0.dcm"], ["/etc", "passwd"], ["LINK"], ["A", "GONE"])
    found, refused = dicomdir.listed(path)
    assert found == [inside]
    assert {entry: reason.split(" cd")[0] for entry, reason in refused.items()} == {
        "../secret/0.dcm": "leads outside",
        "/etc/passwd": "leads outside",
        "LINK": "leads outside",
        "A/GONE": "is not there",
    }
    with pytest.raises(DataError, match="it is a DICOMDIR"):
        read(path)
    with pytest.raises(DataError, match="is not a DICOMDIR"):
        dicomdir.listed(inside)

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from picture_files import Painter
from wardround.data.imaging.gallery import Listing, Look, gather
from wardround.errors import ConfigError, DataError
from wardround.types import SPLITS

TRAIN, TEST = SPLITS.index("train"), SPLITS.index("test")


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WARDROUND_CACHE", str(tmp_path / "cache"))


def listing(paths: list[Path], **other: object) -> Listing:
    given = {
        "labels": np.zeros(len(paths), dtype=np.int64),
        "groups": np.arange(len(paths)),
        "sites": np.full(len(paths), "here"),
    } | other
    return Listing(paths=paths, **given)  # type: ignore[arg-type]


def one(path: Path, look: Look) -> np.ndarray:
    return np.array(gather("set", listing([path]), look).sites["here"].features[0])


def test_how_a_picture_becomes_a_square(tmp_path: Path) -> None:
    # 32 x 16: black, a white half in the middle
    pixels = np.zeros((16, 32, 3), dtype=np.uint8)
    pixels[:, 8:24] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    crop, stretch, pad = (one(tmp_path / "a.png", Look(size=16, fit=fit)) for fit in ("crop", "stretch", "pad"))
    assert crop.shape == (3, 16, 16)
    assert (crop == 255).all()
    np.testing.assert_array_equal(stretch[0, 0, [0, 2, 7, 13, 15]], [0, 0, 255, 0, 0])
    assert (pad[0, :3] == 0).all()
    np.testing.assert_array_equal(pad[0, 8, [0, 7, 15]], [0, 255, 0])


def test_grey_and_colour_and_pixels_as_they_are(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    np.testing.assert_array_equal(one(tmp_path / "a.png", Look(size=16)), np.moveaxis(pixels, -1, 0))
    grey = one(tmp_path / "a.png", Look(size=16, channels=1))
    np.testing.assert_array_equal(grey[0], np.asarray(Image.fromarray(pixels).convert("L")))


def test_rows_stay_with_their_labels_and_sites(tmp_path: Path) -> None:
    paths = [tmp_path / f"{i}.png" for i in range(40)]
    for i, path in enumerate(paths):
        Image.fromarray(np.full((8, 8, 3), i, dtype=np.uint8)).save(path)
    sites = np.where(np.arange(40) % 3 == 0, "b", "a")
    found = gather("set", listing(paths, labels=np.arange(40), sites=sites), Look(size=8)).sites
    assert [len(found[site].labels) for site in ("a", "b")] == [26, 14]
    for own in found.values():
        np.testing.assert_array_equal(own.features[:, 0, 0, 0], own.labels)


def test_equal_pictures_never_straddle(tmp_path: Path) -> None:
    paint = Painter()
    paths = [tmp_path / f"{i}.png" for i in range(5)]
    for path, key in zip(paths, (1, 2, 1, 3, 3), strict=True):
        paint(path, key)
    split = np.array([TRAIN, TRAIN, TEST, TRAIN, TRAIN], dtype=np.int8)
    with_split = gather("set", listing(paths, split=split), Look(size=8))
    assert with_split.counts == {"rows": 4, "repeated": 2, "left_out": {"train": 1, "validation": 0, "test": 0}}
    assert with_split.sites["here"].patients.tolist() == [1, 0, 3, 3]
    # at two sites, the second copy leaves, and with it what it belongs to
    sites = np.array(["a", "a", "b", "b", "b"])
    apart = gather("set", listing(paths, sites=sites, groups=np.array([0, 1, 2, 2, 4])), Look(size=8))
    assert {site: len(own.labels) for site, own in apart.sites.items()} == {"a": 2, "b": 0}
    assert apart.counts["left_out"] == 3


def test_faults(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"a\.png is no JPEG or PNG"):
        one(tmp_path / "a.png", Look(size=8))
    assert not list((tmp_path / "cache").glob("set*"))
    Image.fromarray(np.zeros((8, 8), dtype=np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(DataError, match="more than 8 bits"):
        one(tmp_path / "deep.png", Look(size=8))
    with pytest.raises(DataError, match="there is no picture"):
        gather("set", listing([]), Look(size=8))
    with pytest.raises(ConfigError, match="size = 4"):
        Look(size=4)
    with pytest.raises(ConfigError, match="fit = 'wide'"):
        Look(size=8, fit="wide")  # type: ignore[arg-type]

"""The command behind the figures of burned-in text counts what it says."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from benchmarks import burned_in as figures
from wardround.data.imaging.deid.burned_in import Box

BLACK = np.zeros((120, 320), np.uint8)


def test_letters_are_where_the_picture_changed() -> None:
    picture, letters = figures.planted(BLACK, figures.INKS[0], np.random.default_rng(0))
    assert letters.any()
    assert (picture[letters] > 127).all()
    assert (picture[~letters] <= 128).all()


def test_the_share_is_of_the_letters_pixels() -> None:
    letters = np.zeros((10, 10), dtype=bool)
    letters[2, 0:8] = True
    assert figures.covered(letters, []) == 0
    assert figures.covered(letters, [Box(corners=(0, 0, 5, 2), why=""), Box(corners=(2, 1, 3, 4), why="")]) == 0.5


def test_text_on_black_is_found_and_black_text_on_black_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    white, black = figures.INKS[1], figures.INKS[3]
    assert figures.found([BLACK], white, 6) >= 5
    assert figures.found([BLACK], black, 6) == 0
    monkeypatch.setattr(figures.burned_in, "find", lambda picture: [])
    assert figures.found([BLACK], white, 6) == 0


def test_without_pictures_it_says_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WARDROUND_DATA", str(tmp_path))
    with pytest.raises(SystemExit, match="WARDROUND_DATA"):
        figures.main([])


def test_the_page_has_both_blocks() -> None:
    text = figures.PAGE.read_text(encoding="utf-8")
    assert all(f"<!-- begin {name} -->" in text for name in ("planted-text", "false-alarms"))


@pytest.mark.skipif(not os.environ.get("WARDROUND_DATA"), reason="WARDROUND_DATA is not set")
def test_the_pages_false_alarms_are_those_of_the_quick_pictures() -> None:
    root = Path(os.environ["WARDROUND_DATA"])
    if not (root / "dicom").is_dir():
        pytest.skip("WARDROUND_DATA has no dicom folder")
    boxes = [figures.burned_in.find(picture) for picture in dict(figures.bare(root))["dermoscopy, 224 px"]()]
    line = f"| dermoscopy, 224 px | {sum(map(bool, boxes))} of {len(boxes)} |"
    assert line in figures.PAGE.read_text(encoding="utf-8")

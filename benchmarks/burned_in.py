"""How much burned-in text is found, and what is taken for text: counts over planted names, as Markdown tables.

    WARDROUND_DATA=... python -m benchmarks.burned_in --write

Names and numbers are drawn with Pillow's default font at places drawn from a fixed seed, into pictures as `burned_in.find` gets
them (uint8 [H, W]). A planting is *wholly found* where at least 90 % of its letters' pixels lie in boxes. Boxes that a picture
has without any text would count as well, so these are counted beside it. `--write` puts both tables into
docs/imaging/deidentification.md; the pictures come from the folders `dicom`, `ham10000_sites` and `pneumoniamnist`.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from benchmarks.tables import table, write_block
from wardround.data.imaging.decode import Options, read
from wardround.data.imaging.deid import burned_in

PAGE = Path(__file__).parent.parent / "docs" / "imaging" / "deidentification.md"
PLANTINGS, WHOLLY = 20, 0.9
NAMES = ("QUACKENBUSH", "Smith John", "ABDULLAH 12", "Garcia Lopez", "Nguyen T.", "MUELLER A.", "Kowalska", "O'Brien")

Grey = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Ink:
    """How text is drawn.

    Attributes:
        name: in words.
        size: height of the font in pixels.
        level: grey of 255.
    """

    name: str
    size: int
    level: int


INKS = (
    *(Ink(name=f"white {size}", size=size, level=255) for size in (12, 20, 32)),
    Ink(name="black 20", size=20, level=0),
    Ink(name="grey 20", size=20, level=140),
)


def planted(picture: Grey, ink: Ink, rng: np.random.Generator) -> tuple[Grey, NDArray[np.bool_]]:
    """The picture with a name and a number somewhere in it, and where the letters are, bool [H, W].

    The text loses letters from its end until it fits.
    """
    font = ImageFont.load_default(size=ink.size)
    text = f"{NAMES[rng.integers(len(NAMES))]} {rng.integers(10**5, 10**7)}"
    while len(text) > 4 and font.getbbox(text)[2] > picture.shape[1] - 4:
        text = text[:-1]
    _, _, width, height = (int(edge) for edge in font.getbbox(text))
    top = int(rng.integers(0, max(picture.shape[0] - height, 1)))
    left = int(rng.integers(0, max(picture.shape[1] - width, 1)))
    layer = Image.new("L", picture.shape[::-1], 0)
    ImageDraw.Draw(layer).text((left, top), text, font=font, fill=255)
    opacity = np.asarray(layer, dtype=np.float32) / 255
    drawn = np.rint(picture * (1 - opacity) + ink.level * opacity).astype(np.uint8)
    return drawn, opacity > 0.5


def covered(letters: NDArray[np.bool_], boxes: Sequence[burned_in.Box]) -> float:
    """The share of the letters' pixels that lie in boxes."""
    inside = np.zeros(letters.shape, dtype=bool)
    for box in boxes:
        top, left, bottom, right = box.corners
        inside[top:bottom, left:right] = True
    return float(inside[letters].mean())


def found(pictures: Sequence[Grey], ink: Ink, plantings: int) -> int:
    """How many of so many plantings, one picture after the other, are wholly found."""
    rng = np.random.default_rng(0)
    drawn = (planted(pictures[number % len(pictures)], ink, rng) for number in range(plantings))
    return sum(covered(letters, burned_in.find(picture)) >= WHOLLY for picture, letters in drawn)


def _dicom(root: Path, name: str) -> Grey:
    pixels = read(root / "dicom" / f"{name}.dcm", options=Options()).pixels
    return burned_in.to_grey(np.moveaxis(pixels, 0, -1))


def _photos(folder: Path, step: int = 1) -> list[Grey]:
    return [
        burned_in.to_grey(np.asarray(Image.open(path).convert("RGB"))) for path in sorted(folder.rglob("*.jpg"))[::step]
    ]


def _films(root: Path) -> list[Grey]:
    with np.load(root / "pneumoniamnist" / "pneumoniamnist.npz") as arrays:
        return list(arrays["test_images"][:300])


def grounds(root: Path) -> Mapping[str, list[Grey]]:
    """What text is planted into."""
    return {
        "head CT": [_dicom(root, "693_UNCI")],
        "MR of a shoulder": [_dicom(root, "MR2_UNCI")],
        "heart ultrasound, sector": [_dicom(root, "examples_ybr_color")],
        "ultrasound, lively tissue": [_dicom(root, "US1_UNCI")[110:330, 20:310]],
        "dermoscopy, 224 px": _photos(root / "ham10000_sites" / "originals224"),
    }


def bare(root: Path) -> Iterator[tuple[str, Callable[[], list[Grey]]]]:
    """Pictures in which nobody wrote anything."""
    yield "dermoscopy, 64 px", lambda: _photos(root / "ham10000_sites" / "images64", 9)
    yield "dermoscopy, 224 px", lambda: _photos(root / "ham10000_sites" / "originals224")
    yield "chest films, 28 px", lambda: _films(root)
    yield "head CT", lambda: [_dicom(root, "693_UNCI")]
    yield "MR of a shoulder", lambda: [_dicom(root, "MR2_UNCI")]


def text_table(root: Path, plantings: int) -> str:
    """Wholly found of planted, a line a picture."""
    rows = [
        [name, *(f"{found(pictures, ink, plantings)} of {plantings}" for ink in INKS)]
        for name, pictures in grounds(root).items()
    ]
    return table(["picture", *(ink.name for ink in INKS)], rows)


def alarm_table(root: Path) -> str:
    """Pictures without text in which something is taken for it."""
    rows = []
    for name, load in bare(root):
        boxes = [len(burned_in.find(picture)) for picture in load()]
        rows.append([name, f"{sum(map(bool, boxes)):,} of {len(boxes):,}", f"{sum(boxes):,}"])
    return table(["picture without text", "with a false alarm", "boxes"], rows)


def main(words: Sequence[str] | None = None) -> None:
    """Print both tables, and write them into the page where that is asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.burned_in", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--plantings", type=int, default=PLANTINGS, help="of each ink in each kind of picture")
    parser.add_argument("--write", action="store_true", help="put the tables into the page")
    given = parser.parse_args(words)
    if given.plantings < 1:
        parser.error("--plantings: expected 1 or more")
    root = Path(os.environ.get("WARDROUND_DATA", ""))
    if not (root / "dicom").is_dir():
        sys.exit(
            "WARDROUND_DATA names no folder with dicom, ham10000_sites and pneumoniamnist: set it to where they are"
        )
    for name, text in (("planted-text", text_table(root, given.plantings)), ("false-alarms", alarm_table(root))):
        print(f"{text}\n", flush=True)
        if given.write:
            write_block(PAGE, name, text)


if __name__ == "__main__":
    main()

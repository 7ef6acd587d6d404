"""Annotation burned into the pixels: found by what the header says, by ultrasound regions, and by looking like text.

Nothing here reads text. A glyph is a small connected area of nearly one brightness whose surroundings are quiet; glyphs of
like height side by side are a line of text. So handwriting, single letters, text upon lively tissue and text larger than
an eighth of the picture are missed, and a scale's ticks may be taken for text: figures are in
docs/imaging/deidentification.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wardround.errors import Refused

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_CONTRAST = 28
"""Grey levels of 255 that a glyph stands out by."""
_UNQUIET = 0.22
"""Deviation of a glyph's surroundings over its contrast."""
_LOOKED = frozenset(
    {
        "US",
        "XA",
        "RF",
        "CR",
        "DX",
        "MG",
        "IO",
        "PX",
        "SC",
        "OT",
        "ES",
        "XC",
        "GM",
        "SM",
        "OP",
        "NM",
        "PT",
        "IVUS",
        "ECG",
    }
)
"""Modalities whose pixels may hold text without a word in the header."""
_GAP = 1.5
"""Widest gap between glyphs of a line, in their height."""
_ALIKE = 0.75
"""Least brightness of a glyph beside its neighbour's."""
_FEWEST = 3
"""Glyphs of a line."""
_MARGIN = 3
LOOK = "annotation was found in the pixels and blanked: look at it, for text may be left"


@dataclass(frozen=True, kw_only=True)
class Box:
    """An area to blank.

    Attributes:
        corners: top, left, bottom, right in pixels; bottom and right excluded.
        why: `text-like`, `outside the ultrasound regions`.
        mask: bool [H, W] for an area that is no rectangle.
    """

    corners: tuple[int, int, int, int]
    why: str
    mask: NDArray[np.bool_] | None = None


def find_in(dataset: Dataset, frames: NDArray[Any]) -> tuple[list[Box], tuple[str, ...]]:
    """Areas of a DICOM picture to blank, the same in all frames, and what to warn of.

    Args:
        dataset: its header: modality, BurnedInAnnotation, SequenceOfUltrasoundRegions, ImageType.
        frames: [frames, H, W, samples] stored values.

    Raises:
        Refused: the header says that there is annotation, and nothing looks like it.
    """
    modality = str(dataset.get("Modality") or "").upper()
    said = str(dataset.get("BurnedInAnnotation") or "").upper()
    kind = [str(part).upper() for part in dataset.get("ImageType") or ()]
    capture = (
        "SECONDARY" in kind
        or "SCREEN SAVE" in kind
        or "Secondary Capture" in getattr(dataset.get("SOPClassUID"), "name", "")
    )
    segments = modality == "SEG" or int(dataset.get("BitsAllocated") or 8) == 1
    if segments or not (modality in _LOOKED or capture or said == "YES"):
        return [], ()
    grey = [to_grey(frame) for frame in chosen(frames)]
    boxes = [box for picture in grey for box in find(picture)]
    warnings: list[str] = []
    if modality == "US":
        inside = regions(dataset, frames.shape[1:3])
        if inside is None and "SequenceOfUltrasoundRegions" in dataset:
            warnings.append(
                "the ultrasound regions of the header do not fit the picture: the region was found by brightness"
            )
        why = "outside the ultrasound regions"
        if inside is None:
            inside, why = insonated(np.max(grey, axis=0), boxes), "outside the insonated area"
        if not inside.all():
            boxes.append(Box(corners=(0, 0, *inside.shape), why=why, mask=~inside))
    if said == "YES" and not boxes:
        raise Refused(
            "the header says that there is burned-in annotation (0028,0301), and none was found: leave it out"
        )
    if boxes:
        warnings.append(LOOK)
    return merged(boxes), tuple(warnings)


def find(grey: NDArray[np.uint8]) -> list[Box]:
    """Boxes around lines of text in a picture [H, W], bright on dark and dark on bright; none for tiny pictures."""
    if min(grey.shape) < 24:
        return []
    return [box for picture in (grey, 255 - grey) for box in _lines(picture)]


def blank(frames: NDArray[Any], boxes: list[Box], value: Any) -> NDArray[Any]:
    """A copy of [frames, H, W, samples] with the boxes set to `value`; the same array where there are none."""
    if not boxes:
        return frames
    frames = frames.copy()
    for box in boxes:
        if box.mask is not None:
            frames[:, box.mask] = value
        else:
            top, left, bottom, right = box.corners
            frames[:, top:bottom, left:right] = value
    return frames


def background(dataset: Dataset) -> Any:
    """The stored value of black (for MONOCHROME1 the largest, for native YBR 0, 128, 128)."""
    photometric = str(dataset.get("PhotometricInterpretation") or "")
    stored = int(dataset.get("BitsStored") or 8)
    signed = int(dataset.get("PixelRepresentation") or 0) == 1
    syntax = getattr(getattr(dataset, "file_meta", None), "TransferSyntaxUID", None)
    if photometric.startswith("YBR") and not (syntax is not None and syntax.is_compressed):
        return np.array([0, 128, 128])
    if photometric == "MONOCHROME1":
        return 2 ** (stored - signed) - 1
    return -(2 ** (stored - 1)) if signed else 0


def regions(dataset: Dataset, shape: tuple[int, ...]) -> NDArray[np.bool_] | None:
    """Where the header's ultrasound regions are (PS3.3 C.8.5.5), bool [H, W]; None for none or any beyond the picture."""
    inside = np.zeros(shape, dtype=bool)
    found = False
    for item in dataset.get("SequenceOfUltrasoundRegions") or ():
        corners = [item.get(f"RegionLocation{name}") for name in ("MinX0", "MinY0", "MaxX1", "MaxY1")]
        if None in corners:
            return None
        left, top, right, bottom = (int(corner) for corner in corners)
        if not (0 <= left < right < shape[1] + 1 and 0 <= top < bottom < shape[0] + 1):
            return None
        inside[top : bottom + 1, left : right + 1] = True
        found = True
    return inside if found else None


def insonated(grey: NDArray[np.uint8], text: list[Box]) -> NDArray[np.bool_]:
    """The largest bright area without the text around it, bool [H, W]: what the transducer saw, if no header says so.

    All True where nothing is bright.
    """
    from scipy import ndimage

    bright = grey > 12
    for box in text:
        top, left, bottom, right = box.corners
        bright[top:bottom, left:right] = False
    unit = max(1, min(grey.shape) // 120)
    bright = ndimage.binary_closing(bright, iterations=2 * unit)
    bright = ndimage.binary_opening(bright, structure=np.ones((4 * unit + 1,) * 2))
    labels, count = ndimage.label(bright)
    if not count:
        return np.ones(grey.shape, dtype=bool)
    sizes = np.bincount(labels.ravel())[1:]
    # islands of tissue belong to it where they lie within the box of the largest
    largest = labels == 1 + int(sizes.argmax())
    rows, columns = np.flatnonzero(largest.any(1)), np.flatnonzero(largest.any(0))
    frame = np.zeros_like(largest)
    frame[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
    for number, size in enumerate(sizes, start=1):
        part = labels == number if size > 0.02 * sizes.max() else None
        if part is not None and frame[part].all():
            largest |= part
    return np.asarray(ndimage.binary_fill_holes(_hull(largest)), dtype=bool)


def _hull(area: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The convex hull of an area."""
    from scipy.spatial import ConvexHull, QhullError

    points = np.argwhere(area)
    try:
        planes = ConvexHull(points).equations
    except (QhullError, ValueError):
        return area
    y, x = np.indices(area.shape, dtype=np.float32)
    inside = np.ones(area.shape, dtype=bool)
    for a, b, c in planes:
        inside &= a * y + b * x + c <= 0.5
    return inside


def to_grey(frame: NDArray[Any]) -> NDArray[np.uint8]:
    """[H, W, samples] as uint8 [H, W]: the largest of the samples, stretched between the 0.1 and 99.9 percentiles."""
    picture = frame.max(axis=-1).astype(np.float32)
    if frame.dtype == np.uint8:
        return np.asarray(picture, dtype=np.uint8)
    low, high = np.percentile(picture, (0.1, 99.9))
    return np.asarray(np.clip((picture - low) * (255 / max(high - low, 1e-6)), 0, 255), dtype=np.uint8)


def chosen(frames: NDArray[Any]) -> list[NDArray[Any]]:
    """The frame itself, or none; of several the least of all, where only what stands still is bright, and three of them."""
    if len(frames) <= 1:
        return list(frames)
    return [frames.min(axis=0), *(frames[i] for i in sorted({0, len(frames) // 2, len(frames) - 1}))]


def _lines(grey: NDArray[np.uint8]) -> list[Box]:
    from scipy import ndimage

    glyphs: list[_Glyph] = []
    tallest = max(12, grey.shape[0] // 8)
    for stroke in (7, 15) if min(grey.shape) >= 200 else (7,):
        hat = grey - ndimage.grey_opening(grey, size=(stroke, stroke))
        labels, _ = ndimage.label(hat > _CONTRAST, structure=np.ones((3, 3)))
        for number, where in enumerate(ndimage.find_objects(labels), start=1):
            height, width = (part.stop - part.start for part in where)
            if 4 <= height <= tallest and 1 <= width <= 3 * max(height, 8):
                peak = _stands_out(grey, labels, number, where)
                if peak is not None:
                    box = (where[0].start, where[1].start, where[0].stop, where[1].stop)
                    glyphs.append(_Glyph(box=box, peak=peak))
    return _grouped(glyphs, grey.shape)


@dataclass(frozen=True, kw_only=True)
class _Glyph:
    box: tuple[int, int, int, int]
    peak: float

    @property
    def height(self) -> int:
        return self.box[2] - self.box[0]


def _stands_out(
    grey: NDArray[np.uint8], labels: NDArray[np.int32], number: int, where: tuple[slice, ...]
) -> float | None:
    """Brightness of a component whose surroundings are quiet beside its contrast; None for others."""
    from scipy import ndimage

    around = tuple(slice(max(part.start - _MARGIN, 0), part.stop + _MARGIN) for part in where)
    own = labels[around] == number
    window = grey[around].astype(np.float32)
    square = np.ones((3, 3))
    near = ndimage.binary_dilation(own, structure=square)
    others = ndimage.binary_dilation((labels[around] != 0) & ~own, structure=square)
    ring = ~near & ~others
    if own.sum() < 4 or ring.sum() < 8:
        return None
    peak = float(np.percentile(window[own], 90))
    contrast = peak - float(np.median(window[ring]))
    quiet = contrast > _CONTRAST and float(window[ring].std()) < _UNQUIET * contrast
    return peak if quiet else None


def _grouped(glyphs: list[_Glyph], shape: tuple[int, ...]) -> list[Box]:
    """Lines of glyphs of like height and brightness side by side, with a margin."""
    glyphs = sorted({glyph.box: glyph for glyph in glyphs}.values(), key=lambda glyph: (glyph.box[1], glyph.box[0]))
    parent = list(range(len(glyphs)))

    def root(i: int) -> int:
        while parent[i] != i:
            i = parent[i]
        return i

    for i, one in enumerate(glyphs):
        for j in range(i + 1, len(glyphs)):
            other = glyphs[j]
            if other.box[1] - one.box[3] > _GAP * max(one.height, other.height, 8):
                if other.box[1] - one.box[1] > 6 * max(shape[0] // 8, 12):
                    break
                continue
            if _beside(one, other):
                parent[root(j)] = root(i)
    lines: dict[int, list[_Glyph]] = {}
    for i, glyph in enumerate(glyphs):
        lines.setdefault(root(i), []).append(glyph)
    return [_around(members, shape) for members in lines.values() if _is_line(members)]


def _beside(one: _Glyph, other: _Glyph) -> bool:
    low, high = sorted((one.height, other.height))
    overlap = min(one.box[2], other.box[2]) - max(one.box[0], other.box[0])
    dim, bright = sorted((one.peak, other.peak))
    return (
        overlap >= 0.6 * low
        and low >= 0.5 * high
        and other.box[1] - one.box[3] <= _GAP * high
        and dim >= _ALIKE * bright
    )


def _is_line(members: list[_Glyph]) -> bool:
    """At least three, most of them on one base or top line and narrower than one and a half times their height."""
    if len(members) < _FEWEST:
        return False
    boxes = np.array([glyph.box for glyph in members])
    height = float(np.median(boxes[:, 2] - boxes[:, 0]))
    slack = max(1.0, 0.15 * height)
    level = max(float((np.abs(boxes[:, k] - np.median(boxes[:, k])) <= slack).mean()) for k in (0, 2))
    tall = float(((boxes[:, 3] - boxes[:, 1]) <= 1.5 * height).mean())
    return level >= 0.6 and tall >= 0.6


def _around(members: list[_Glyph], shape: tuple[int, ...]) -> Box:
    tops, lefts, bottoms, rights = zip(*(glyph.box for glyph in members), strict=True)
    margin = max(2, (max(bottoms) - min(tops)) // 4)
    corners = (
        max(min(tops) - margin, 0),
        max(min(lefts) - 2 * margin, 0),
        min(max(bottoms) + margin, shape[0]),
        min(max(rights) + 2 * margin, shape[1]),
    )
    return Box(corners=corners, why="text-like")


def merged(boxes: list[Box]) -> list[Box]:
    """Without boxes within others."""
    unique = {(box.corners, box.why): box for box in boxes}
    return [
        box
        for box in unique.values()
        if box.mask is not None
        or not any(
            other is not box and other.mask is None and _within(box.corners, other.corners) for other in unique.values()
        )
    ]


def _within(inner: tuple[int, int, int, int], outer: tuple[int, int, int, int]) -> bool:
    return inner[0] >= outer[0] and inner[1] >= outer[1] and inner[2] <= outer[2] and inner[3] <= outer[3]

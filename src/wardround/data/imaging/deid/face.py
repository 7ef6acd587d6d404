"""The front of a head below the brow, found in a CT or MR volume by shape alone.

A shear plane takes away skin, eyes, nose and mouth: from the brow, 80 mm below the vertex on the head's front, it falls
backwards by half a millimetre a millimetre, to 75 mm behind the front, and everything in front of and below it goes (the
idea of Quickshear: Schimke and Hale, 2011, without its mask of the brain). The millimetres are those of an adult: it is
neither validated on patients nor fit for children. Ears, skull and teeth behind the plane remain, and the lowest frontal
lobe may be touched. It makes a face harder to draw; it does not prove that nobody can be recognised.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

UNKNOWN = "nobody knows whether this volume shows a head: if it does, the face is still in it"
LEFT = "the face is still in this head: {why}"
CAUTION = "the front of the head below the brow was removed by adult measures: look at it before it leaves the hospital"

_BROW, _DEPTH, _FALL = 80.0, 75.0, 0.5
_WIDEST, _SHORTEST = 280.0, 100.0
_HEAD = ("HEAD", "BRAIN", "SKULL", "FACE", "ORBIT", "SINUS", "CRANI", "NEURO", "CEREB", "IAC")
_ELSEWHERE = (
    "CHEST", "ABDOMEN", "PELVIS", "KNEE", "HIP", "SHOULDER", "LSPINE", "TSPINE", "BREAST", "HEART", "LIVER", "THORAX",
    "FOOT", "ANKLE", "HAND", "WRIST", "ELBOW", "PROSTATE", "EXTREMITY", "LUNG", "KIDNEY", "COLON",
)  # fmt: skip


def shows_head(dataset: Dataset) -> bool | None:
    """Whether a CT or MR data set says that it shows a head: True, False for another region or modality, None unsaid."""
    if str(dataset.get("Modality") or "").upper() not in ("CT", "MR"):
        return False
    keywords = ("BodyPartExamined", "StudyDescription", "SeriesDescription", "ProtocolName")
    said = [str(dataset.get(keyword) or "").upper() for keyword in keywords]
    if any(part in text for text in said for part in _HEAD):
        return True
    return False if any(part in said[0] for part in _ELSEWHERE) else None


def hindrance(shape: tuple[int, ...], orientation: str | None, spacing: tuple[float, ...] | None) -> str | None:
    """Why a volume cannot be defaced, None where it may be."""
    if len(shape) != 3 or min(shape) < 8:
        return "it is a slice or a thin slab, not a volume"
    if orientation is None or len(orientation) != 3:
        return "its orientation is not known"
    if spacing is None or len(spacing) != 3 or not all(s > 0 for s in spacing):
        return "its spacing is not known"
    return None


def region(
    volume: NDArray[Any], orientation: str, spacing: tuple[float, ...]
) -> tuple[NDArray[np.bool_] | None, str | None]:
    """Voxels to remove.

    Args:
        volume: [D, H, W], bright where there is tissue.
        orientation: the direction (L R A P S I) in which each axis grows.
        spacing: mm along D, H, W.

    Returns:
        bool [D, H, W] and None, or None and why the face was not found.
    """
    order = [next(i for i, letter in enumerate(orientation) if letter in pair) for pair in ("SI", "AP", "LR")]
    turned = volume.transpose(order)
    # from the vertex down, from the front backwards
    flips = tuple(slice(None, None, -1 if orientation[i] == end else 1) for i, end in zip(order[:2], "SA", strict=True))
    view = turned[flips]
    down, back, side = (spacing[i] for i in order)
    head = _head(view)
    levels = np.flatnonzero(head.any(axis=(1, 2)))
    if not len(levels):
        return None, "no head was found by brightness"
    top = int(levels[0])
    width = np.ptp(np.flatnonzero(head.any(axis=(0, 1)))) * side
    length = np.ptp(np.flatnonzero(head.any(axis=(0, 2)))) * back
    if not (_SHORTEST <= length <= _WIDEST and _SHORTEST <= width <= _WIDEST):
        return None, f"what is bright measures {length:.0f} x {width:.0f} mm, and an adult's head does not"
    crown = head[top].any(axis=0).sum() * side
    if top == 0 and crown > 0.5 * width:
        return None, "the vertex is not in the scan"
    brow = top + _BROW / down
    if brow >= view.shape[0]:
        return None, "the scan ends above the brow"
    upper = head[top : int(brow) + 1].any(axis=(0, 2))
    front = int(np.flatnonzero(upper)[0])
    level = (np.arange(view.shape[0]) - brow) * down
    depth = (np.arange(view.shape[1]) - front) * back
    plane = (level[:, None] >= _FALL * np.maximum(depth, 0.0)[None]) & (depth <= _DEPTH)[None]
    mask = np.zeros(volume.shape, dtype=bool)
    mask.transpose(order)[flips][...] = plane[:, :, None]
    return mask, None


def _head(volume: NDArray[Any]) -> NDArray[np.bool_]:
    """The largest connected area above the valley between air and tissue (Otsu, 1979), thin things opened away."""
    from scipy import ndimage

    low, high = np.percentile(volume[::2, ::2, ::2], (1, 99))
    counts, edges = np.histogram(np.clip(volume[::2, ::2, ::2], low, high), bins=256)
    middles = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)
    total, mass = below[-1], np.cumsum(counts * middles)
    with np.errstate(divide="ignore", invalid="ignore"):
        between = (mass[-1] * below / total - mass) ** 2 / (below * (total - below))
    threshold = middles[int(np.nanargmax(np.where(np.isfinite(between), between, 0.0)))]
    tissue = ndimage.binary_opening(volume > threshold, iterations=1)
    labels, count = ndimage.label(tissue)
    if not count:
        return np.zeros(volume.shape, dtype=bool)
    return np.asarray(labels == 1 + int(np.bincount(labels.ravel())[1:].argmax()), dtype=bool)

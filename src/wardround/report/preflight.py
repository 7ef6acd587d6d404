"""The page of a pre-flight: what was found in a folder of pictures, what is left out and why, how it looks."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wardround.data.imaging.preflight import REASONS, Verdict
from wardround.plots import small
from wardround.report.page import html
from wardround.types import Json

_SIDE = 96
"""Pixels of a thumbnail's longer side."""


def write(path: Path, tree: Mapping[str, Json], thumbnails: Mapping[int, NDArray[np.uint8]], verdict: Verdict) -> Path:
    """Write the page, for its owner's eyes only: it names files and shows pictures.

    Args:
        path: the file.
        tree: what the pre-flight found.
        thumbnails: bytes [H, W] or [H, W, 3] of some studies, by number.
        verdict: the same, study by study.

    Raises:
        StorageError: it could not be written.
    """
    from wardround.store import atomic

    atomic.make_folder(path.parent)
    atomic.write_text(path, page(tree, thumbnails, verdict))
    path.chmod(0o600)
    return path


def page(tree: Mapping[str, Json], thumbnails: Mapping[int, NDArray[np.uint8]], verdict: Verdict) -> str:
    """The page as HTML; every name that comes from data is escaped."""
    source = resources.files("wardround.report").joinpath("preflight.html.j2").read_text(encoding="utf-8")
    shown = [_shown(number, pixels, verdict) for number, pixels in thumbnails.items()]
    return html(
        source,
        {
            "tree": tree,
            "reasons": REASONS,
            "used": [one for one in shown if not one["reason"]],
            "odd": [one for one in shown if one["reason"]],
            "splits": sorted({split for counts in tree["by_class"].values() for split in counts}),
            "histograms": _histograms(tree),
            "demographics": [(name, _bars(tree[key])) for name, key in (("Age", "age"), ("Sex", "sex")) if tree[key]],
            "notes": _notes(tree),
        },
    )


def _shown(number: int, pixels: NDArray[np.uint8], verdict: Verdict) -> dict[str, Any]:
    row, found = verdict.rows[number], verdict.findings[number]
    return {
        "image": _png(pixels),
        "name": verdict.studies[number].name,
        "label": " | ".join(row.labels) if row else "",
        "reason": REASONS.get(found.reason, ""),
        "why": found.detail,
        "blanked": found.blanked,
    }


def _png(pixels: NDArray[np.uint8]) -> str:
    from PIL import Image

    image = Image.fromarray(pixels)
    image.thumbnail((_SIDE, _SIDE))
    data = io.BytesIO()
    image.save(data, format="PNG")
    return "data:image/png;base64," + base64.b64encode(data.getvalue()).decode("ascii")


def _histograms(tree: Mapping[str, Json]) -> list[tuple[str, Any]]:
    import markupsafe

    drawn = []
    for name, rows in tree["histograms"].items():
        low, high = tree["scale"]
        edges = np.linspace(low, high, len(rows) + 1).tolist()
        picture = small.histogram({"edges": edges, "rows": rows, "clipped": False}, 1)
        drawn.append((name, markupsafe.Markup(picture)))  # made of numbers alone
    return drawn


def _bars(counts: Mapping[str, int]) -> list[tuple[str, int, float]]:
    most = max(counts.values())
    return [(name, count, 100 * count / most) for name, count in counts.items()]


def _notes(tree: Mapping[str, Json]) -> Sequence[str]:
    notes = [f"No picture of class {name}." for name in tree["empty_classes"]]
    if missing := tree["labels_without_file"]:
        notes.append(
            f"{missing:,} rows of the label table name no file here, such as {tree['labels_without_file_examples'][0]}."
        )
    if matched := tree["matched_by_name"]:
        notes.append(f"{matched:,} files were matched by their name alone: their folders differ from the table's.")
    if blanked := tree["blanked"]:
        notes.append(f"{blanked:,} pictures had text-like areas, which were blanked: look at them.")
    if not tree["deidentified"]:
        notes.append("Pixels were not de-identified: text and faces are as they were.")
    notes += [f"{count:,} x {warning}." for warning, count in tree["warnings"].items()]
    if ignored := tree["ignored"]:
        notes.append(
            "Not looked at: " + ", ".join(f"{count:,} {suffix}" for suffix, count in sorted(ignored.items())) + "."
        )
    return notes

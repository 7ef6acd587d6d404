"""The evidence maps of a run: pictures of patients, which are there only where the job asked for them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from wardround import wire
from wardround.errors import MessageError
from wardround.plots.maps import maps
from wardround.report.figures import Picture, picture_of
from wardround.types import Json

MAPS = "maps.safetensors"
"""The file of a run folder that holds them."""
NAME = "maps"
"""The figure's file stem."""


def picture(folder: Path, result: Mapping[str, Json]) -> Picture | None:
    """The figure of the run's maps; None where the job asked for none, or their file is gone (somebody removed it)."""
    facts = result.get("maps") or ()
    if not facts:
        return None
    try:
        arrays, _ = wire.unpack((folder / MAPS).read_bytes())
    except (OSError, MessageError):
        return None
    text = "Validation images, and beside each where the model finds evidence for its decision."
    shown = arrays["pictures"].numpy(), arrays["maps"].numpy()
    return picture_of(NAME, text, partial(maps, facts, *shown))


def warning(result: Mapping[str, Json]) -> str:
    """What pictures of patients mean for whoever passes the page on; empty without them."""
    if not result.get("maps"):
        return ""
    return (
        "These are pictures of patients. They lie in this page, in figures/maps.png and in maps.safetensors because the job "
        "asked for them (evaluation.maps): remove all three, or run without maps, before the page leaves the hospital."
    )

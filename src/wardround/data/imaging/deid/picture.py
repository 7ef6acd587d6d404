"""A decoded picture made clean: text-like areas of its pixels, and the face of a head."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wardround.data.imaging.deid import burned_in, face
from wardround.data.imaging.deid.policy import Policy
from wardround.data.imaging.deid.report import Action, Report
from wardround.data.imaging.picture import Picture
from wardround.errors import Refused

_LOOKED = frozenset({"US", "XR", "DERM", "PHOTO", "OT"})
_WRITTEN = 32
"""Grey levels of 255 above which something is written beside an ultrasound's insonated area."""


def clean_picture(
    picture: Picture, policy: Policy, *, head: bool | None = None, annotated: bool | None = None
) -> tuple[Picture, Report]:
    """A picture without text-like areas and, for the volume of a head, without its face.

    Args:
        picture: pixels [C, H, W] or [C, D, H, W] in the units of the modality; it is not changed.
        policy: rules and secrets.
        head: whether it shows a head; None where nobody knows, which warns for CT and MR volumes.
        annotated: look for text whatever the modality (a header that says so); None looks for it in all but CT and MR, and in
            these where they are captures of a screen.

    Returns:
        the picture, and what was done to it. Its header facts are kept: they hold no identifiers by contract.

    Raises:
        Refused: text was found and the policy refuses it, or `annotated` and none was found.
    """
    report = Report()
    rules = policy.rules
    if rules.burned_in != "keep" and (_may_hold_text(picture) if annotated is None else annotated):
        picture, report = _without_text(picture, refuse=rules.burned_in == "refuse", said=bool(annotated))
    if picture.pixels.ndim == 4 and picture.modality in ("CT", "MR") and rules.face != "keep" and head is not False:
        cleaned, told = _without_face(picture, policy, head)
        return cleaned, report + told
    return picture, report


def _may_hold_text(picture: Picture) -> bool:
    words = picture.facts.get("image_type", ())
    capture = isinstance(words, tuple) and "SCREEN SAVE" in words
    return picture.modality in _LOOKED or capture or "Secondary Capture" in str(picture.facts.get("kind", ""))


def _without_text(picture: Picture, *, refuse: bool, said: bool) -> tuple[Picture, Report]:
    volume = picture.pixels if picture.pixels.ndim == 4 else picture.pixels[:, None]
    frames = np.moveaxis(volume, 0, -1)
    boxes = [box for frame in burned_in.chosen(frames) for box in burned_in.find(burned_in.to_grey(frame))]
    boxes = [*burned_in.merged(boxes), *_outside(picture, frames, boxes)]
    if said and not boxes:
        raise Refused(
            "the header says that there is burned-in annotation (0028,0301), and none was found: leave it out"
        )
    if not boxes:
        return picture, Report()
    if refuse:
        raise Refused(f"text-like areas in the pixels ({len(boxes)}), and the policy says burned_in: refuse")
    # dark text on a bright label leaves a bright hole otherwise; nothing of the modality is below its own minimum
    blanked = np.moveaxis(burned_in.blank(frames, boxes, picture.pixels.min()), -1, 0).reshape(picture.pixels.shape)
    report = Report(
        actions=tuple(Action(what="blanked", where="pixels", why=box.why) for box in boxes),
        warnings=(burned_in.LOOK,),
        boxes=tuple(box.corners for box in boxes),
    )
    return replace(picture, pixels=np.ascontiguousarray(blanked)), report


def _outside(picture: Picture, frames: NDArray[Any], text: list[burned_in.Box]) -> list[burned_in.Box]:
    """What an ultrasound machine writes beside the insonated area, unless the picture was cut to regions that fit."""
    if picture.modality != "US" or ("cropped" in picture.facts and picture.facts.get("regions_fit")):
        return []
    grey = np.max([burned_in.to_grey(frame) for frame in burned_in.chosen(frames)], axis=0)
    outside = ~burned_in.insonated(grey, text)
    if not (outside & (grey > _WRITTEN)).any():
        return []
    return [burned_in.Box(corners=(0, 0, *outside.shape), why="outside the insonated area", mask=outside)]


def _without_face(picture: Picture, policy: Policy, head: bool | None) -> tuple[Picture, Report]:
    if head is None:
        return picture, Report(warnings=(face.UNKNOWN,))
    if policy.rules.face == "warn":
        return picture, Report(warnings=(face.LEFT.format(why="the policy says face: warn"),))
    why = face.hindrance(picture.spatial, picture.orientation, picture.spacing)
    mask = None
    if why is None and picture.orientation and picture.spacing:
        mask, why = face.region(picture.pixels[0], picture.orientation, picture.spacing)
    if mask is None:
        return picture, Report(warnings=(face.LEFT.format(why=why),))
    pixels = picture.pixels.copy()
    pixels[:, mask] = picture.pixels.min()
    return replace(picture, pixels=pixels), Report(
        actions=(Action(what="defaced", where="pixels", why="front of the head below the brow"),),
        warnings=(face.CAUTION,),
    )

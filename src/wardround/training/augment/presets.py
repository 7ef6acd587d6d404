"""What may happen to an image of each modality without making it one that no scanner would give of a patient.

Flips are those that the anatomy and the way of looking at it allow. The organs of the chest and the abdomen lie left or
right, so X-rays and CT are not flipped; no orientation is certain of an MR series, so neither is it; an ultrasound probe may
be held either way, but echoes come from above; a lesion of the skin has no direction at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "xray": {
        "rotation": 7, "zoom": 0.1, "shear": 2, "shift": 0.05,
        "brightness": 0.3, "contrast": 0.25, "gamma": 0.25, "noise": 0.1, "blur": 0.8,
    },
    "ct": {
        "rotation": 10, "tilt": 5, "zoom": 0.1, "shear": 2, "shift": 0.05, "elastic": 0.015,
        "brightness": 0.05, "contrast": 0.05, "noise": 0.1, "blur": 0.8,
    },
    "mri": {
        "rotation": 10, "tilt": 5, "zoom": 0.1, "shear": 2, "shift": 0.05, "elastic": 0.015,
        "brightness": 0.2, "contrast": 0.3, "gamma": 0.3, "noise": 0.1, "blur": 0.8,
    },
    "ultrasound": {
        "flip": ("width",), "rotation": 7, "zoom": 0.1, "shift": 0.05, "elastic": 0.01,
        "brightness": 0.3, "contrast": 0.3, "gamma": 0.3, "noise": 0.15, "blur": 1.0,
    },
    "dermoscopy": {
        "flip": ("width", "height"), "turns": True, "rotation": 45, "zoom": 0.15, "shear": 5, "shift": 0.05,
        "padding": "reflection", "brightness": 0.3, "contrast": 0.25, "tint": 0.15, "noise": 0.05, "blur": 0.8,
    },
    "photo": {
        "flip": ("width",), "rotation": 10, "zoom": 0.15, "shear": 3, "shift": 0.08,
        "padding": "reflection", "brightness": 0.3, "contrast": 0.3, "tint": 0.15, "noise": 0.05, "blur": 0.8,
    },
}  # fmt: skip

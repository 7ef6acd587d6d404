"""Colours of the figures: the Okabe-Ito palette, which the colour-blind can tell apart, for light and for dark paper.

Source: Okabe and Ito, Color Universal Design (2008). Colour is never the only carrier: each model has its own marker
and line style too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, kw_only=True)
class Theme:
    """Colours, as `#rrggbb`.

    Attributes:
        name: `light` or `dark`.
        background: the paper; figures inlined in the page are transparent instead.
        ink: titles and what must be read.
        muted: ticks, axis titles, notes.
        grid: lines that guide the eye.
        models: model key -> colour.
        classes: colours of the classes, in label order; they repeat where there are more classes.
    """

    name: str
    background: str
    ink: str
    muted: str
    grid: str
    models: Mapping[str, str]
    classes: tuple[str, ...]

    def of_class(self, label: int) -> str:
        """The colour of a class."""
        return self.classes[label % len(self.classes)]

    @property
    def colours(self) -> tuple[str, ...]:
        """All of them, in an order that is the same in every theme."""
        return (self.background, self.ink, self.muted, self.grid, *self.models.values(), *self.classes)


LIGHT = Theme(
    name="light",
    background="#ffffff",
    ink="#1b1e21",
    muted="#596069",
    grid="#e3e6e9",
    models=MappingProxyType(
        {
            "federated": "#0072b2",
            "finetuned": "#cc79a7",
            "centralized": "#009e73",
            "local": "#d55e00",
            "majority": "#6b727a",
        }
    ),
    classes=("#56a0d3", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#0072b2", "#b8a900", "#4d545b"),
)

DARK = Theme(
    name="dark",
    background="#15181b",
    ink="#e8eaec",
    muted="#a3abb3",
    grid="#30363c",
    models=MappingProxyType(
        {
            "federated": "#56b4e9",
            "finetuned": "#d998bd",
            "centralized": "#2fc79a",
            "local": "#f08a3c",
            "majority": "#a3abb3",
        }
    ),
    classes=("#8ccbf0", "#f08a3c", "#2fc79a", "#d998bd", "#e6b53c", "#56b4e9", "#e8de5a", "#b9c0c7"),
)

"""What was done to one file. It never holds a value, so it may travel with the cleaned file."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal

from wardround.types import Json

Verb = Literal["removed", "emptied", "replaced", "remapped", "shifted", "binned", "blanked", "defaced", "kept"]


@dataclass(frozen=True, kw_only=True)
class Action:
    """One thing that was done.

    Attributes:
        what: the verb.
        where: keyword, column or area; elements within sequences as `Sequence/Keyword`.
        why: the rule: `X`, `U`, `private`, `free text`, `names an identifier`, ...
    """

    what: Verb
    where: str
    why: str


@dataclass(frozen=True, kw_only=True)
class Report:
    """What was done to one file.

    Attributes:
        actions: in the order of the file.
        warnings: what a person must look at or know: sentences.
        boxes: areas that were blanked, (top, left, bottom, right) in pixels, bottom and right excluded.
    """

    actions: tuple[Action, ...] = ()
    warnings: tuple[str, ...] = ()
    boxes: tuple[tuple[int, int, int, int], ...] = ()

    def __add__(self, other: Report) -> Report:
        """Both, one after the other."""
        return Report(
            actions=self.actions + other.actions,
            warnings=tuple(dict.fromkeys(self.warnings + other.warnings)),
            boxes=self.boxes + other.boxes,
        )

    def counts(self) -> dict[str, int]:
        """How often each verb occurs."""
        return dict(sorted(Counter(action.what for action in self.actions).items()))

    def to_json(self) -> dict[str, Json]:
        """The report as JSON; equal actions are one line with their number."""
        lines = Counter(self.actions)
        return {
            "counts": dict(self.counts()),
            "actions": [
                {"what": action.what, "where": action.where, "why": action.why, "times": times}
                for action, times in lines.items()
            ],
            "warnings": list(self.warnings),
            "blanked": [list(box) for box in self.boxes],
        }

"""The mean rule: groups add up. What it gives to a server rule is one Total over every survivor."""

from __future__ import annotations

from collections.abc import Iterable

from wardround.types import Arrays, Json, Total

ADDED = ("entries", "clipped")
"""Notes that add up over groups; any other is the same for all."""


class Mean:
    """Adds the Totals of all groups."""

    name = "mean"

    def combine(self, totals: Iterable[Total]) -> Total:
        """One Total with the sums, weights and survivors of all; an empty one where there is none."""
        sums: dict[str, Arrays] = {}
        weights: dict[str, float] = {}
        survivors: list[str] = []
        abstained: dict[str, str] = {}
        notes: dict[str, Json] = {}
        for total in totals:
            for term, arrays in total.sums.items():
                mine = sums.setdefault(term, {})
                for name, value in arrays.items():
                    mine[name] = mine[name] + value if name in mine else value
                weights[term] = weights.get(term, 0.0) + total.weights[term]
            survivors += total.survivors
            abstained |= total.abstained
            for name, value in total.notes.items():
                notes[name] = notes[name] + value if name in ADDED and name in notes else value
        return Total(sums=sums, weights=weights, survivors=tuple(sorted(survivors)), abstained=abstained, notes=notes)

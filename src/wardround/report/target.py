"""After how many rounds and bytes the federation reached its target, in a sentence."""

from __future__ import annotations

from collections.abc import Mapping

from wardround.plots.estimate import number
from wardround.plots.labels import LOWER_IS_BETTER, count_of, in_a_sentence, titles
from wardround.report import numbers
from wardround.types import Json


def target(result: Mapping[str, Json]) -> str:
    """Empty where the job names no target."""
    found = result.get("target") or {}
    if not found:
        return ""
    name, value = in_a_sentence(titles(result)[found["metric"]]), number(found.get("value"))
    if value is None:
        return (
            f"The target, a fraction of the centralised model's validation {name}, has no value: that model has none."
        )
    asked = ((result.get("job") or {}).get("evaluation") or {}).get("target") or {}
    fraction = number(asked.get("fraction"))
    of = f", {fraction:g} of the centralised model's" if fraction is not None else ""
    sign = "at most" if found["metric"] in LOWER_IS_BETTER else "at least"
    what = f"a validation {name} of {sign} {numbers.plain(value)}{of}"
    first, stays = found.get("first"), found.get("stays")
    if not first:
        best = numbers.plain(number(found.get("best")))
        return f"The federation did not reach {what}; the best of its rounds has {best}."
    text = f"The federation reached {what}, after {_cost(first)}"
    if stays and stays["completed"] == first["completed"]:
        return f"{text}, and stayed there."
    if stays:
        return f"{text}; it stayed there from round {stays['completed']} on ({_sent(stays)})."
    return f"{text}, but did not stay there to the last round."


def _cost(entry: Mapping[str, Json]) -> str:
    return f"{count_of(int(entry['completed']), 'round')} and {_sent(entry)}"


def _sent(entry: Mapping[str, Json]) -> str:
    up, down = (numbers.human_bytes(number(entry[way])) for way in ("bytes_up", "bytes_down"))
    return f"{up} up, {down} down"

"""What it takes to reach a figure: rounds, bytes and seconds until validation says so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from wardround.types import Json


def reached(
    history: Sequence[Mapping[str, Json]], metric: str, value: float, *, lower_is_better: bool = False
) -> dict[str, Json]:
    """When validation figures reach a target.

    Args:
        history: one entry a round, in order: `completed`, `bytes_up`, `bytes_down` and `seconds` so far, and `validation`,
            the figures of the model after it, or None.
        metric: of `validation`.
        value: the target.
        lower_is_better: whether to fall to it.

    Returns:
        `first`, the first round whose figure is at least as good, and `stays`, the first from which on every later figure is
        so too, each `completed`, `figure`, `bytes_up`, `bytes_down` and `seconds`, or None; `best`, the best figure of
        any round, or None without figures. Rounds without figures are passed over.
    """
    sign = -1.0 if lower_is_better else 1.0
    known = [entry for entry in history if metric in (entry["validation"] or {})]
    good = [sign * entry["validation"][metric] >= sign * value for entry in known]
    first = next((entry for entry, fine in zip(known, good, strict=True) if fine), None)
    last_bad = max((place for place, fine in enumerate(good) if not fine), default=-1)
    figures = [entry["validation"][metric] for entry in known]
    return {
        "first": None if first is None else _cost(first, metric),
        "stays": _cost(known[last_bad + 1], metric) if last_bad + 1 < len(known) else None,
        "best": (min if lower_is_better else max)(figures) if figures else None,
    }


def _cost(entry: Mapping[str, Json], metric: str) -> dict[str, Json]:
    spent = {key: entry[key] for key in ("completed", "bytes_up", "bytes_down", "seconds")}
    return {**spent, "figure": entry["validation"][metric]}

"""From the records of trials to what a comparison says: cells, means over seeds, paired differences."""

from __future__ import annotations

import math
import statistics as plain
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from wardround.comparison import words
from wardround.comparison.plan import BASELINES, PLAIN, Plan, algorithm_of, channel_of
from wardround.comparison.statistics import Mean, holm, mean
from wardround.comparison.trial import Record
from wardround.judgement import ALONE, CENTRALIZED

Result = dict[str, Any]
Cell = dict[str, Any]
Cells = dict[tuple[str, str, int], Cell]
"""(setting, method, seed) -> cell."""

NEARLY = 0.99
"""Fraction of the centralised model's validation figure that is the target where none is given."""
FIGURES = ("auroc", "auprc", "balanced_accuracy", "accuracy", "brier", "ece")
"""Of test rows, in tables; those that a dataset defines."""


def result_of(plan: Plan, records: Sequence[Record], refused: Mapping[str, str]) -> Result:
    """What `comparison.json` holds.

    Args:
        plan: what was asked.
        records: of all trials that ended.
        refused: method -> why it could not be had.
    """
    methods = [m for m in plan.methods if m not in refused]
    settings = [setting.label for setting in plan.settings]
    cells = _cells(plan, records)
    _add_costs(plan, cells)
    ratio = _ratio(records)
    of = {
        setting: {
            method: [cells[setting, method, seed] for seed in plan.seeds if (setting, method, seed) in cells]
            for method in methods
        }
        for setting in settings
    }
    differences = _differences(plan, cells, methods, ratio)
    result: Result = {
        "name": plan.job.name,
        "job": plan.job.model_dump(mode="json"),
        "metric": plan.metric,
        "methods": methods,
        "settings": settings,
        "seeds": list(plan.seeds),
        "budget": plan.budget,
        "channels": _channels(plan, cells, methods, ratio),
        "reference": plan.reference if plan.reference in methods else None,
        "refused": dict(refused),
        "rows": records[0]["rows"],
        "variance_ratio": ratio,
        "cells": [cells[k] for k in sorted(cells, key=lambda k: (settings.index(k[0]), methods.index(k[1]), k[2]))],
        "table": {
            setting: {method: _summary(found, ratio) for method, found in of[setting].items()} for setting in settings
        },
        "differences": differences,
        "preferred": {setting: _preferred(plan, of[setting]) for setting in settings},
    }
    result["sentences"] = words.conclusions(result)
    return result


def _cells(plan: Plan, records: Sequence[Record]) -> Cells:
    """The configuration of each cell that is best on validation rows; ties go to the lower loss, then the earlier one."""
    groups: dict[tuple[str, str, int], list[Record]] = {}
    for record in records:
        groups.setdefault((record["setting"], record["method"], record["seed"]), []).append(record)
    cells: Cells = {}
    for place, tried in groups.items():
        ended = [r for r in tried if r.get("validation", {}).get(plan.metric) is not None]
        if not ended:
            continue
        best = min(ended, key=lambda r: (-r["validation"][plan.metric], r["validation"]["loss"], r["number"]))
        setting, method, seed = place
        sites = {site: f[plan.metric] for site, f in best["test"]["sites"].items() if plan.metric in f}
        cells[place] = {
            "setting": setting,
            "method": method,
            "seed": seed,
            "configuration": best["configuration"],
            "tried": len(tried),
            "failed": sum("failed" in r for r in tried),
            "validation": best["validation"],
            "test": best["test"]["pooled"],
            "site_mean": best["test"]["site_mean"],
            "sites": sites,
            "worst": min(sites.values()) if sites else None,
            "spread": max(sites.values()) - min(sites.values()) if sites else None,
            "selected": best["selected"],
            "curve": best["curve"],
            "bytes": best["bytes_up"] + best["bytes_down"],
            "bytes_up": best["bytes_up"],
            "bytes_down": best["bytes_down"],
            "seconds": best["seconds"],
            "personalized": best["personalized"],
        }
    return cells


def _add_costs(plan: Plan, cells: Cells) -> None:
    """Rounds and bytes to the target, and at how many sites a method gains over that site alone."""
    for (setting, _, seed), cell in cells.items():
        pooled = cells.get((setting, CENTRALIZED, seed))
        target = plan.target
        if target is None and pooled is not None:
            target = NEARLY * pooled["validation"][plan.metric]
        reached = None
        if target is not None:
            reached = next((p for p in cell["curve"] if p.get(plan.metric, -math.inf) >= target), None)
        cell["target"] = target
        cell["rounds_to_target"] = reached["completed"] if reached else None
        cell["bytes_to_target"] = reached["bytes"] if reached else None
        lone = cells.get((setting, ALONE, seed), {}).get("sites", {})
        cell["gains"] = {site: value - lone[site] for site, value in cell["sites"].items() if site in lone}


def _ratio(records: Sequence[Record]) -> float:
    """Test rows / training rows; validation rows trained nobody."""
    return float(plain.mean(r["rows"]["test"] / max(r["rows"]["train"], 1) for r in records))


def _summary(cells: Sequence[Cell], ratio: float) -> dict[str, Any]:
    """Means over seeds of a method in one setting."""

    def over(values: Sequence[float | None]) -> dict[str, Any]:
        return asdict(mean([v for v in values if v is not None], ratio, (0.0, 1.0)))

    known = [name for name in FIGURES if any(name in cell["test"] for cell in cells)]
    gains = [list(cell["gains"].values()) for cell in cells if cell["gains"]]
    reached = [cell["rounds_to_target"] for cell in cells]
    return {
        "test": {name: over([cell["test"].get(name) for cell in cells]) for name in known},
        "site_mean": {name: over([cell["site_mean"].get(name) for cell in cells]) for name in known},
        "worst": over([cell["worst"] for cell in cells]),
        "spread": over([cell["spread"] for cell in cells]),
        "sites": {site: over([cell["sites"].get(site) for cell in cells]) for site in _sites(cells)},
        "sites_gaining": plain.mean(sum(g > 0 for g in each) / len(each) for each in gains) if gains else None,
        "sites_losing": plain.mean(sum(g < 0 for g in each) / len(each) for each in gains) if gains else None,
        "reached": sum(r is not None for r in reached),
        "rounds_to_target": _median([r for r in reached if r is not None]),
        "bytes_to_target": _median([c["bytes_to_target"] for c in cells if c["bytes_to_target"] is not None]),
        "bytes": _median([cell["bytes"] for cell in cells]),
        "bytes_up": _median([cell["bytes_up"] for cell in cells]),
        "bytes_down": _median([cell["bytes_down"] for cell in cells]),
        "seconds": _median([cell["seconds"] for cell in cells]),
        "seeds": len(cells),
        "failed": sum(cell["failed"] for cell in cells),
        "personalized": any(cell["personalized"] for cell in cells),
    }


def _sites(cells: Sequence[Cell]) -> list[str]:
    """Names of sites that define the metric in some seed."""
    return sorted({site for cell in cells for site in cell["sites"]})


def _median(values: Sequence[float]) -> float | None:
    return float(plain.median(values)) if values else None


def _differences(plan: Plan, cells: Cells, methods: Sequence[str], ratio: float) -> dict[str, Any]:
    """Setting -> other -> method -> paired difference on test rows, method minus other.

    The other is the reference, and each baseline. p-values against the reference are adjusted (Holm) over all methods and
    settings; so are those against each baseline.
    """
    settings = [setting.label for setting in plan.settings]
    others = [o for o in (plan.reference, *BASELINES) if o in methods]
    federated = [m for m in methods if m not in BASELINES]
    found: dict[str, Any] = {setting: {} for setting in settings}
    for other in others:
        raw: dict[tuple[str, str], Mean] = {}
        for setting in settings:
            for method in federated:
                pairs = [
                    (cells[setting, method, seed]["test"], cells[setting, other, seed]["test"])
                    for seed in plan.seeds
                    if method != other and (setting, method, seed) in cells and (setting, other, seed) in cells
                ]
                values = [a[plan.metric] - b[plan.metric] for a, b in pairs if plan.metric in a and plan.metric in b]
                if values:
                    raw[setting, method] = mean(values, ratio)
        adjusted = holm({f"{s}\0{m}": one.p for (s, m), one in raw.items()})
        for (setting, method), one in raw.items():
            row = asdict(one) | {"p_holm": adjusted[f"{setting}\0{method}"], "comparisons": len(raw)}
            found[setting].setdefault(other, {})[method] = row
    return found


def _channels(plan: Plan, cells: Cells, methods: Sequence[str], ratio: float) -> dict[str, Any]:
    """Setting -> method -> algorithm, channel, and the paired difference on test rows to the same algorithm in plain.

    {} where all methods go over one channel. No correction: these say what a channel costs, not which is better.
    """
    federated = [m for m in methods if m not in BASELINES]
    if {channel_of(method) for method in federated} <= {PLAIN}:
        return {}
    found: dict[str, Any] = {}
    for setting in (setting.label for setting in plan.settings):
        for method in federated:
            pairs = [
                (cells[setting, method, seed]["test"], cells[setting, algorithm_of(method), seed]["test"])
                for seed in plan.seeds
                if (setting, method, seed) in cells and (setting, algorithm_of(method), seed) in cells
            ]
            values = [a[plan.metric] - b[plan.metric] for a, b in pairs if plan.metric in a and plan.metric in b]
            found.setdefault(setting, {})[method] = {
                "algorithm": algorithm_of(method),
                "channel": channel_of(method),
                "minus_plain": asdict(mean(values, ratio)) if values and channel_of(method) != PLAIN else None,
                "largest": max(map(abs, values), default=None) if channel_of(method) != PLAIN else None,
            }
    return found


def _preferred(plan: Plan, of: Mapping[str, Sequence[Cell]]) -> str | None:
    """The federated method that validation rows prefer: test rows have no say in it."""
    scores = {
        method: plain.mean(cell["validation"][plan.metric] for cell in cells)
        for method, cells in of.items()
        if cells and method not in BASELINES
    }
    return max(scores, key=lambda m: scores[m]) if scores else None

"""The tables of a comparison, as rows of text: for the terminal, Markdown, the page, and CSV files."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import Any

from wardround.comparison import words
from wardround.plots.units import byte_unit

Table = tuple[list[str], list[list[str]]]
"""Header and rows."""
NONE = "-"
NATURAL = "natural"
"""The setting in which a hospital is the same in every seed."""
BALANCED = "balanced_accuracy"


def scores(result: Mapping[str, Any], metric: str | None = None, scope: str = "test") -> Table:
    """Method x setting: mean over seeds with its 95 % interval, of one metric of test rows.

    Args:
        result: what `comparison.json` holds.
        metric: default that of the comparison.
        scope: `test` for all rows pooled, `site_mean` for the mean of sites.
    """
    metric = metric or result["metric"]
    rows = [
        [words.name(m), *(_mean(_at(result, s, m).get(scope, {}).get(metric)) for s in result["settings"])]
        for m in result["methods"]
    ]
    return ["method", *result["settings"]], rows


def differences(result: Mapping[str, Any]) -> Table:
    """Method x setting: paired difference to the reference on test rows; `*` where it holds after Holm's correction."""
    reference = result["reference"]
    rows = []
    for method in result["methods"]:
        found = [result["differences"][s].get(reference, {}).get(method) for s in result["settings"]]
        if any(found):
            rows.append([words.name(method), *(_difference(one) for one in found)])
    return [f"minus {words.name(reference or '')}", *result["settings"]], rows


def fairness(result: Mapping[str, Any], setting: str) -> Table:
    """By method, for one setting: worst site, spread over sites, how many sites gain and lose over being alone."""
    header = ["method", "worst site", "best - worst site", "sites that gain / lose over alone"]
    rows = []
    for method in result["methods"]:
        row = _at(result, setting, method)
        if row:
            gaining, losing = row["sites_gaining"], row["sites_losing"]
            shown = NONE if gaining is None or method == "local" else f"{100 * gaining:.0f} % / {100 * losing:.0f} %"
            rows.append([words.name(method), _mean(row["worst"]), _mean(row["spread"]), shown])
    return header, rows


def by_site(result: Mapping[str, Any], setting: str) -> Table:
    """Method x hospital: mean over seeds of the metric on that hospital's own test rows, with its 95 % interval.

    Without rows where hospitals are simulated: those of one name are others in each seed.
    """
    summaries = {method: _at(result, setting, method) for method in result["methods"]}
    names = sorted({site for row in summaries.values() for site in row.get("sites", {})}) if setting == NATURAL else []
    rows = [
        [words.name(method), *(_mean(row["sites"].get(name)) for name in names)]
        for method, row in summaries.items()
        if row and names
    ]
    return ["method", *names], rows


def costs(result: Mapping[str, Any], setting: str) -> Table:
    """By method, for one setting: rounds and bytes to the target on validation rows, and in all; medians over seeds."""
    header = ["method", "reached in", "rounds to target", "bytes to target", "bytes in all"]
    rows = []
    for method in result["methods"]:
        row = _at(result, setting, method)
        if row and method not in ("local", "centralized"):
            rows.append(
                [
                    words.name(method), f"{row['reached']} of {row['seeds']} seeds", _whole(row["rounds_to_target"]),
                    _bytes(row["bytes_to_target"]), _bytes(row["bytes"]),
                ]
            )  # fmt: skip
    return header, rows


def channels(result: Mapping[str, Any], setting: str) -> Table:
    """By algorithm and channel, for one setting: what a channel does to the figure, and what it costs; medians over seeds.

    Without rows where all methods go over one channel.
    """
    metric = words.METRICS[result["metric"]]
    header = ["method", metric, "minus plain", "largest over seeds", "seconds", "bytes up", "bytes down"]
    rows = []
    for method, facts in result.get("channels", {}).get(setting, {}).items():
        row = _at(result, setting, method)
        if row:
            apart = facts["minus_plain"]
            rows.append(
                [
                    words.name(method), _mean(row["test"].get(result["metric"])),
                    NONE if apart is None else words.fine_difference(apart),
                    NONE if facts["largest"] is None else f"{facts['largest']:.4f}",
                    f"{row['seconds']:.3g}", _bytes(row["bytes_up"]), _bytes(row["bytes_down"]),
                ]
            )  # fmt: skip
    return header, rows


def chosen(result: Mapping[str, Any], setting: str) -> Table:
    """By method, for one setting: the hyper-parameters that each seed's validation rows chose."""
    header = ["method", *(f"seed {seed}" for seed in result["seeds"])]
    rows = []
    for method in result["methods"]:
        cells = {c["seed"]: c for c in result["cells"] if (c["setting"], c["method"]) == (setting, method)}
        rows.append([words.name(method), *(_configuration(cells.get(seed)) for seed in result["seeds"])])
    return header, rows


def _configuration(cell: Mapping[str, Any] | None) -> str:
    if cell is None:
        return NONE
    drawn = [
        f"{key.rpartition('.')[2].replace('learning_rate', 'rate')} {v:g}" for key, v in cell["configuration"].items()
    ]
    failed = [f"{cell['failed']} of {cell['tried']} failed"] if cell["failed"] else []
    return ", ".join(drawn + failed) or "the job's own"


def markdown(table: Table) -> str:
    """A table in Markdown."""
    header, rows = table
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cells_csv(result: Mapping[str, Any]) -> str:
    """Every cell's chosen configuration with its figures, one line each, as CSV."""
    metrics = sorted({name for cell in result["cells"] for name in cell["test"]})
    keys = sorted({name for cell in result["cells"] for name in cell["configuration"]})
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        ["setting", "method", "seed", *(f"test_{m}" for m in metrics), "worst_site", "spread", f"validation_{result['metric']}",
         "round_kept", "bytes", "seconds", "tried", "failed", *keys]
    )  # fmt: skip
    for cell in result["cells"]:
        writer.writerow(
            [cell["setting"], cell["method"], cell["seed"], *(cell["test"].get(m, "") for m in metrics), cell["worst"],
             cell["spread"], cell["validation"][result["metric"]], cell["selected"], cell["bytes"],
             round(cell["seconds"], 3), cell["tried"], cell["failed"], *(cell["configuration"].get(k, "") for k in keys)]
        )  # fmt: skip
    return out.getvalue()


def text(result: Mapping[str, Any]) -> str:
    """The whole comparison as Markdown."""
    metric = words.METRICS[result["metric"]]
    parts = [f"# {result['name']}: {metric} on test rows", markdown(scores(result))]
    if result["metric"] != BALANCED:
        parts += ["## Balanced accuracy on test rows", markdown(scores(result, BALANCED))]
    if len(differences(result)[1]):
        parts += ["## Paired differences", markdown(differences(result))]
    parts += ["## What this supports", "\n".join(f"- {line}" for line in result["sentences"])]
    for setting in result["settings"]:
        hospitals = by_site(result, setting)
        parts += [
            f"## Fairness and cost, {setting}",
            *([f"{metric} at each hospital:", markdown(hospitals)] if hospitals[1] else []),
            markdown(fairness(result, setting)),
            markdown(costs(result, setting)),
        ]
        if channels(result, setting)[1]:
            parts += [f"## Channels, {setting}", markdown(channels(result, setting))]
    return "\n\n".join(parts) + "\n"


def _at(result: Mapping[str, Any], setting: str, method: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = result["table"][setting].get(method, {})
    return found


def _mean(found: Mapping[str, Any] | None) -> str:
    if not found or found["value"] is None:
        return NONE
    if found["low"] is None:
        return f"{found['value']:.3f}"
    return f"{found['value']:.3f} [{found['low']:.3f}, {found['high']:.3f}]"


def _difference(row: Mapping[str, Any] | None) -> str:
    return NONE if row is None else words.difference(row) + (" *" if words.sure(row) else "")


def _whole(value: float | None) -> str:
    return NONE if value is None else f"{value:g}"


def _bytes(value: float | None) -> str:
    if value is None:
        return NONE
    divisor, unit = byte_unit(value)
    return f"{value / divisor:.3g} {unit}"

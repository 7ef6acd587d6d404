"""What the evidence supports, in plain sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wardround.comparison.plan import PLAIN, algorithm_of, channel_of
from wardround.judgement import ALONE, CENTRALIZED

SURE = 0.05
NAMES = {
    "fedavg": "FedAvg", "fedprox": "FedProx", "fednova": "FedNova", "scaffold": "SCAFFOLD", "fedbn": "FedBN",
    "qfedavg": "q-FedAvg", "fedavgm": "FedAvgM", "fedadam": "FedAdam", "fedyogi": "FedYogi", "fedadagrad": "FedAdagrad",
    CENTRALIZED: "centralised", ALONE: "each alone",
}  # fmt: skip
METRICS = {"auroc": "AUROC", "auprc": "AUPRC", "balanced_accuracy": "balanced accuracy", "accuracy": "accuracy",
           "brier": "Brier score", "ece": "calibration error"}  # fmt: skip


def name(method: str) -> str:
    """A method as people write it."""
    algorithm, channel = algorithm_of(method), channel_of(method)
    known = NAMES.get(algorithm, algorithm.partition(":")[2] or algorithm)
    return known if channel == PLAIN else f"{known}, {channel}"


def signed(value: float) -> str:
    """`+.012`."""
    return f"{round(value, 3) + 0.0:+.3f}"


def difference(row: Mapping[str, Any]) -> str:
    """`+0.012 [-0.004, +0.028]`."""
    if row["low"] is None:
        return signed(row["value"])
    return f"{signed(row['value'])} [{signed(row['low'])}, {signed(row['high'])}]"


def fine_difference(row: Mapping[str, Any]) -> str:
    """`+0.0001 [-0.0004, +0.0006]`: one decimal more, for what is meant to be small."""
    if row["low"] is None:
        return f"{row['value']:+.4f}"
    return f"{row['value']:+.4f} [{row['low']:+.4f}, {row['high']:+.4f}]"


def sure(row: Mapping[str, Any]) -> bool:
    """Whether a paired difference holds after Holm's correction."""
    return row["p_holm"] is not None and row["p_holm"] < SURE


def conclusions(result: Mapping[str, Any]) -> list[str]:
    """One sentence a question and setting, then what it all rests on."""
    lines: list[str] = []
    for setting in result["settings"]:
        lines += _methods(result, setting)
        lines += _against_baselines(result, setting)
    lines += _personalized(result)
    for method, why in result["refused"].items():
        lines.append(f"{_capital(name(method))} was not compared: {why}")
    lines.append(_basis(result))
    return lines


def _methods(result: Mapping[str, Any], setting: str) -> list[str]:
    reference = result["reference"]
    rows = result["differences"][setting].get(reference, {})
    if not rows:
        return []
    metric = METRICS[result["metric"]]
    clear = {m: r for m, r in rows.items() if sure(r)}
    if clear:
        parts = [f"{name(m)} is {'higher' if r['value'] > 0 else 'lower'} ({difference(r)})" for m, r in clear.items()]
        rest = len(rows) - len(clear)
        tail = f"; the other {rest} cannot be told apart from it" if rest > 1 else ""
        tail = tail or ("; the other cannot be told apart from it" if rest else "")
        return [f"{setting}: against {name(reference)}, in {metric}: {', '.join(parts)}{tail}."]
    widest = max(rows, key=lambda m: abs(rows[m]["value"]))
    return [
        f"{setting}: no method can be told apart from {name(reference)} in {metric}; the largest difference is that of "
        f"{name(widest)}, {difference(rows[widest])}."
    ]


def _against_baselines(result: Mapping[str, Any], setting: str) -> list[str]:
    preferred = result["preferred"][setting]
    if preferred is None:
        return []
    parts = []
    for baseline in (ALONE, CENTRALIZED):
        row = result["differences"][setting].get(baseline, {}).get(preferred)
        if row is None:
            continue
        verdict = "no clear difference" if not sure(row) else "higher" if row["value"] > 0 else "lower"
        parts.append(f"{difference(row)} against {name(baseline)} ({verdict})")
    return (
        [f"{setting}: validation rows prefer {name(preferred)}; on test rows it is {', '.join(parts)}."]
        if parts
        else []
    )


def _personalized(result: Mapping[str, Any]) -> list[str]:
    """A site's own model also knows how many of its patients are ill, which pooled figures reward."""
    own = list(
        dict.fromkeys(
            name(algorithm_of(m))  # over whatever channel
            for m in result["methods"]
            if any(result["table"][s].get(m, {}).get("personalized") for s in result["settings"])
        )
    )
    if not own:
        return []
    verb = "scores" if len(own) == 1 else "score"
    return [
        f"{_capital(' and '.join(own))} {verb} each row with its own site's model. Where hospitals differ in how many "
        "patients are ill, figures over all rows reward that knowledge; the mean of sites does not."
    ]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _basis(result: Mapping[str, Any]) -> str:
    seeds, budget = len(result["seeds"]), result["budget"]
    tuned = (
        f"every method chose among {budget} configurations on validation rows, anew in each setting and seed"
        if budget > 1
        else "nothing was tuned: every method has the job's own hyper-parameters"
    )
    drawn = "split and initial model" if result["settings"] == ["natural"] else "partition, split and initial model"
    return (
        f"Rests on {seeds} seeds ({drawn} drawn anew from the same patients); {tuned}. "
        "Intervals are 95 %, corrected for patients that seeds share (Nadeau and Bengio 2003); 'higher' and 'lower' hold "
        "after Holm's correction for all comparisons at once. They speak of these hospitals' patients, not of other hospitals."
    )

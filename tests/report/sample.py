"""Results as a run writes them, with plausible figures: one factory for the tests of plots and of the report."""

from __future__ import annotations

import math
import random
from typing import Any

from wardround.config.job import Job

METRICS = {
    "accuracy": 0.93,
    "auroc": 0.975,
    "auprc": 0.964,
    "balanced_accuracy": 0.92,
    "sensitivity": 0.89,
    "specificity": 0.95,
    "ppv": 0.91,
    "npv": 0.94,
    "f1": 0.90,
    "kappa": 0.85,
    "brier": 0.058,
    "ece": 0.031,
}
SHIFT = {"federated": 0.0, "centralized": 0.004, "local": -0.035}
HOSPITALS = ("Basel", "Cleveland", "Hungary", "Long Beach", "Zurich")


def sample_result(
    sites: int = 5,
    rounds: int = 20,
    *,
    seed: int = 7,
    classes: tuple[str, ...] = ("benign", "malignant"),
    **changes: Any,
) -> dict[str, Any]:
    """A result of `sites` sites and `rounds` rounds; `changes` replace top-level entries, None removes one."""
    draw = random.Random(seed)
    names = list(HOSPITALS[:sites]) if sites <= len(HOSPITALS) else [f"site {n:04d}" for n in range(sites)]
    result: dict[str, Any] = {
        "name": "wdbc fedavg",
        "job": Job(name="wdbc fedavg").model_dump(mode="json"),
        "dataset": {
            "name": "wdbc",
            "title": "Breast Cancer Wisconsin (Diagnostic)",
            "source": "UCI Machine Learning Repository, doi 10.24432/C5DW2B",
            "licence": "CC BY 4.0",
            "classes": list(classes),
            "natural": False,
        },
        "partition": {name: _rows(draw, len(classes)) for name in names},
        "personalized": False,
        "rounds": rounds,
        "selected_round": max(1, round(rounds * 0.7)),
        "seconds": 3.42,
        "bytes_up": 1_316 * sites * rounds,
        "bytes_down": 1_204 * sites * rounds,
        "executor": "stacked",
        "executor_reason": "the model's rows are independent and all sites fit into one chunk",
        "thresholds": {"federated": 0.5, "centralized": 0.5, "local": 0.5},
        "history": {model: _history(draw, model, sites, rounds) for model in SHIFT},
        "gain": {
            "local": _gain(draw, names, 0.035, 0.02),
            "centralized": _gain(draw, names, -0.004, 0.011),
        },
        "calibration": {model: _calibration(draw) for model in SHIFT},
        "roc": {model: _roc(power) for model, power in (("federated", 0.05), ("centralized", 0.045), ("local", 0.11))},
        "precision_recall": {model: _precision_recall(power) for model, power in (("federated", 0.3), ("local", 0.5))},
        "bands": {"roc": _band(0.05), "precision_recall": _band(-0.3)},
        "confusion": {model: _confusion(draw, len(classes)) for model in SHIFT},
        "operating_point": {model: _operating_point(draw, shift) for model, shift in SHIFT.items()},
        "target": {
            "metric": "auroc",
            "value": 0.95,
            "first": {"completed": 5, "bytes_up": 32_900, "bytes_down": 30_100, "seconds": 0.8, "figure": 0.953},
            "stays": {"completed": 7, "bytes_up": 46_060, "bytes_down": 42_140, "seconds": 1.1, "figure": 0.961},
            "best": 0.985,
        },
        "model": {"name": "logistic", "parameters": 62, "shared": 62, "local_names": []},
        "preprocessing": {"features": [f"{stem} {kind}" for stem in ("radius", "texture") for kind in ("mean", "se")]},
        "environment": {
            "wardround": "0.1.0",
            "torch": "2.8.0",
            "python": "3.12.3",
            "platform": "Linux-x86_64",
            "threads": 2,
            "device": "cpu",
            "chunk": sites,
        },
        "overlay_average": False,
    }
    for model, shift in SHIFT.items():
        result[model] = _figures(draw, names, shift)
    constant = {"accuracy": 0.63, "accuracy_low": 0.55, "accuracy_high": 0.70, "balanced_accuracy": 0.5}
    result["majority"] = {
        "pooled": constant,
        "site_mean": {"accuracy": 0.66},
        "sites": {name: {"accuracy": round(draw.uniform(0.5, 0.8), 3)} for name in names},
    }
    if len(classes) > 2:
        for model, shift in SHIFT.items():
            result[model]["classes"] = [_block(draw, shift, 0.05, 0.05) for _ in classes]
        for key in ("roc", "precision_recall"):
            result[key] = {model: {"classes": [curve] * len(classes)} for model, curve in result[key].items()}
        result |= {"bands": {}, "operating_point": {}, "thresholds": {}}
    result["fairness"] = _fairness(result)
    result |= changes
    return {key: value for key, value in result.items() if value is not None}


def _rows(draw: random.Random, classes: int) -> dict[str, list[int]]:
    size = draw.randint(20, 110)
    return {
        split: [max(1, round(size * part * draw.uniform(0.2, 1.0))) for _ in range(classes)]
        for split, part in (("train", 0.6), ("validation", 0.15), ("test", 0.25))
    }


def _block(draw: random.Random, shift: float, spread: float, width: float) -> dict[str, float]:
    block = {}
    for metric, centre in METRICS.items():
        sign = -1.0 if metric in ("brier", "ece") else 1.0
        value = min(1.0, max(0.0, centre + sign * shift + draw.gauss(0.0, spread)))
        block[metric] = round(value, 4)
        block[f"{metric}_low"] = round(max(0.0, value - width), 4)
        block[f"{metric}_high"] = round(min(1.0, value + 0.7 * width), 4)
    return block


def _figures(draw: random.Random, names: list[str], shift: float) -> dict[str, Any]:
    return {
        "pooled": _block(draw, shift, 0.002, 0.025),
        "site_mean": _block(draw, shift - 0.005, 0.002, 0.03),
        "sites": {name: _block(draw, shift, 0.015 - shift / 3, 0.06) for name in names},
    }


def _gain(draw: random.Random, names: list[str], centre: float, width: float) -> dict[str, Any]:
    def block(spread: float, width: float) -> dict[str, float]:
        figures = {}
        for metric in METRICS:
            value = (-centre if metric in ("brier", "ece") else centre) + draw.gauss(0.0, spread)
            figures |= {metric: value, f"{metric}_low": value - width, f"{metric}_high": value + width}
        return figures

    return {
        "pooled": block(0.002, width),
        "site_mean": block(0.002, width),
        "sites": {name: block(0.02, 3 * width) for name in names},
    }


def _history(draw: random.Random, model: str, sites: int, rounds: int) -> list[dict[str, Any]]:
    entries = []
    for completed in range(1, rounds + 1):
        loss = 0.09 - SHIFT[model] + 0.55 * math.exp(-completed / 4) + draw.gauss(0, 0.003)
        entries.append(
            {
                "completed": completed,
                "train_loss": loss - 0.02,
                "validation": {
                    "loss": loss,
                    "auroc": 0.985 + SHIFT[model] - 0.2 * math.exp(-completed / 3) + draw.gauss(0, 0.002),
                    "accuracy": 0.94 + SHIFT[model] - 0.2 * math.exp(-completed / 3),
                },
                "bytes_up": 1_316 * sites * completed,
                "bytes_down": 1_204 * sites * completed,
                "seconds": 0.16 * completed,
                "survivors": sites,
                "cohort": sites,
                "abstained": {},
            }
        )
    return entries


def _calibration(draw: random.Random) -> dict[str, list[float]]:
    predicted = [0.05 + 0.1 * step for step in range(10)]
    return {
        "predicted": predicted,
        "observed": [min(1.0, max(0.0, value + draw.gauss(0, 0.06))) for value in predicted],
        "count": [70, 12, 6, 4, 3, 4, 3, 6, 9, 41],
    }


def _roc(power: float) -> dict[str, list[float]]:
    rates = [step / 40 for step in range(41)]
    return {"false_positive_rate": rates, "true_positive_rate": [rate**power for rate in rates]}


def _precision_recall(power: float) -> dict[str, list[float]]:
    recall = [step / 40 for step in range(1, 41)]
    return {"recall": recall, "precision": [1.0 - 0.6 * r ** (1 / power) for r in recall]}


def _band(power: float) -> dict[str, list[float]]:
    at = [step / 20 for step in range(21)]
    middle = [rate**power if power > 0 else 1.0 - 0.6 * rate**3 for rate in at]
    return {"at": at, "low": [0.95 * y for y in middle], "high": [min(1.0, 1.05 * y) for y in middle]}


def _confusion(draw: random.Random, classes: int) -> list[list[float]]:
    return [
        [float(draw.randint(30, 60) if t == c else draw.randint(0, 9)) for c in range(classes)] for t in range(classes)
    ]


def _operating_point(draw: random.Random, shift: float) -> dict[str, Any]:
    block = _block(draw, shift, 0.01, 0.04)
    names = ("sensitivity", "specificity", "ppv", "npv")
    return {
        "threshold": 0.5,
        "validation": {name: METRICS[name] for name in names},
        "test": {key: value for key, value in block.items() if key.startswith(names)},
    }


def _fairness(result: dict[str, Any]) -> dict[str, Any]:
    """The very summary of the product, of the sample's figures."""
    from wardround.training.fairness import sides, spread

    shown = ("auroc", "auprc", "accuracy", "balanced_accuracy")
    found: dict[str, Any] = {
        model: {m: spread({site: block[m] for site, block in result[model]["sites"].items()}) for m in shown}
        for model in SHIFT
    }
    gains = {b: {m: sides(gain["sites"], m) for m in shown} for b, gain in result["gain"].items()}
    return {**found, "gain": gains}

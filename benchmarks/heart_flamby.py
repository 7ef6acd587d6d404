"""FLamby's Fed-Heart-Disease, five seeds, three ways: means of the test figures, as a Markdown table.

    WARDROUND_DATA=... python benchmarks/heart_flamby.py

Rows, test split and budget are FLamby's (15 rounds x 100 updates of batch 4, logistic model, seeds 42 to 46). Every model,
baselines included, has the same tuning budget: four learning rates, of which the one with the lowest mean validation loss
over the seeds is reported. No test row is looked at for it.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from typing import Any

from wardround import load, run

CONFIG = Path(__file__).parent.parent / "examples" / "heart-flamby.yaml"
SEEDS = range(42, 47)
LEARNING_RATES = (0.03, 0.1, 0.3, 1.0)
VARIANTS = {
    "an intercept a hospital (personalised)": [],
    "one shared model": ["model.local=[]"],
    "one shared model, FLamby's preprocessing": [
        "model.local=[]",
        "data.preprocessing={drop: [slope, ca, thal], standardize: site}",
        "data.options.zero_is_missing=false",
    ],
}
ARMS = ("federated", "centralized", "local", "majority")
METRICS = ("accuracy", "balanced_accuracy", "auroc")

Results = list[dict[str, Any]]


def results_of(overrides: list[str], learning_rate: float) -> Results:
    results = []
    for seed in SEEDS:
        rate = f"training.optimizer.learning_rate={learning_rate}"
        with tempfile.TemporaryDirectory() as folder:
            job = load(CONFIG, [f"seed={seed}", "evaluation.bootstrap=0", "engine.threads=1", rate, *overrides])
            results.append(run(job, Path(folder) / "run", report=False))
    return results


def validation_loss(results: Results, arm: str) -> float:
    """Mean over seeds of the kept round's validation loss."""
    return statistics.mean(min(entry["validation"]["loss"] for entry in result["history"][arm]) for result in results)


def cell(results: Results, arm: str, metric: str) -> str:
    shown = []
    for level in ("pooled", "site_mean"):
        values = [r[arm][level][metric] for r in results if metric in r[arm][level]]
        shown.append(f"{statistics.mean(values):.3f}" if values else "-")
    return " / ".join(shown)


def main() -> None:
    print("Pooled test figures / mean over sites, means of five seeds.\n")
    print("| variant | model | learning rate | accuracy | balanced accuracy | AUROC |")
    print("|---|---|---|---|---|---|")
    for variant, overrides in VARIANTS.items():
        tried = {rate: results_of(overrides, rate) for rate in LEARNING_RATES}
        for arm in ARMS:
            if arm == "majority":
                rate, results = "", tried[LEARNING_RATES[0]]
            else:
                best = min(LEARNING_RATES, key=lambda r: validation_loss(tried[r], arm))
                rate, results = f"{best:g}", tried[best]
            print(f"| {variant} | {arm} | {rate} | {' | '.join(cell(results, arm, m) for m in METRICS)} |", flush=True)


if __name__ == "__main__":
    main()

"""A site that never trained, on HAM10000: for each collection, the model of the other two, as a Markdown table.

    WARDROUND_DATA=... python -m benchmarks.leave_one_out

The held-out collection has no part in training, class weights or the choice of the round; all its rows are judged. Beside it
stands the pooled model of the same two, and the federation of all three on that collection's test rows.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wardround import Job, run
from wardround.data.datasets.ham10000 import HAM10000

JOB: dict[str, Any] = {
    "name": "leave-one-out",
    "data": {"dataset": "ham10000", "options": {"size": 32}, "augment": "dermoscopy"},
    "model": {"name": "cnn", "options": {"width": 16, "norm": "group"}},
    "algorithm": {
        "server": {"name": "adam", "beta1": 0.9, "beta2": 0.99, "learning_rate": 0.003, "epsilon": 1e-6},
    },
    "training": {"rounds": 400, "local_steps": 1, "batch_size": 64, "optimizer": {"learning_rate": 0.1}},
    "evaluation": {"select": "auroc", "every": 10, "bootstrap": 500},
}


def job(held_out: str | None, size: int, rounds: int, seed: int) -> Job:
    """The job without one collection, or with all."""
    tree = {**JOB, "seed": seed, "training": {**JOB["training"], "rounds": rounds}}
    tree["data"] = {**JOB["data"], "options": {"size": size}}
    tree["evaluation"] = {
        **JOB["evaluation"],
        "held_out": [held_out] if held_out else [],
        "baselines": ["centralized"] if held_out else [],
    }
    return Job.model_validate(tree)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=32, help="side in pixels (32)")
    parser.add_argument("--rounds", type=int, default=400, help="rounds (400)")
    parser.add_argument("--seed", type=int, default=0, help="seed (0)")
    asked = parser.parse_args()
    print("| site that never trained | rows | federated: macro AUROC | balanced accuracy | pooled others: macro AUROC |"
          " taking part: macro AUROC |")  # fmt: skip
    print("|---|---:|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:

        def figures(held_out: str | None) -> dict[str, Any]:
            print(f"training without {held_out}" if held_out else "training with all", file=sys.stderr)
            out = Path(folder) / (held_out or "all")
            return run(job(held_out, asked.size, asked.rounds, asked.seed), out, report=False)

        whole = figures(None)["federated"]["sites"]
        for site in HAM10000(size=asked.size).describe().sites:
            found = figures(site)["held_out"]
            own, pooled = found["federated"]["pooled"], found["centralized"]["pooled"]
            print(
                f"| {site} | {found['rows'][site]} | {_said(own, 'auroc')} | {_said(own, 'balanced_accuracy')} | "
                f"{_said(pooled, 'auroc')} | {_said(whole[site], 'auroc')} |",
                flush=True,
            )


def _said(block: Mapping[str, Any], metric: str) -> str:
    return f"{block[metric]:.3f} [{block[f'{metric}_low']:.3f}, {block[f'{metric}_high']:.3f}]"


if __name__ == "__main__":
    main()

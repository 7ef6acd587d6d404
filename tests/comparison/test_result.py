"""What a comparison makes of the records of its trials."""

from __future__ import annotations

from typing import Any

import pytest

from wardround.comparison import tables
from wardround.comparison.plan import Plan, plan
from wardround.comparison.result import Result, result_of
from wardround.config.load import from_mapping

JOB = from_mapping({"partition": {"kind": "iid", "sites": 2}, "training": {"rounds": 3}})
SEEDS = 5


def asked(**changes: Any) -> Plan:
    return plan(JOB, **{"algorithms": ("fedavg", "fedprox"), "seeds": SEEDS, "budget": 2, **changes})


def record(method: str, seed: int, number: int, validation: float, test: float, **more: Any) -> dict[str, Any]:
    return {
        "method": method, "setting": "IID", "seed": seed, "number": number,
        "configuration": {"training.optimizer.learning_rate": 0.1} if number else {},
        "rows": {"train": 60, "validation": 15, "test": 25}, "sites": 2,
        "validation": {"completed": 2, "auroc": validation, "loss": 1 - validation},
        "selected": 2, "threshold": 0.5,
        "test": {"pooled": {"auroc": test}, "site_mean": {"auroc": test},
                 "sites": {"a": {"auroc": test - 0.1}, "b": {"auroc": test}, "c": {}}},
        "curve": [{"completed": r, "bytes": 100 * r, "auroc": validation - 0.1 * (2 - r), "loss": 0.3} for r in (1, 2)],
        "bytes_up": 100, "bytes_down": 100, "seconds": 1.0, "personalized": method == "local", **more,
    }  # fmt: skip


def grid(gap: float = 0.0, **more: Any) -> list[dict[str, Any]]:
    """Two configurations of each method; the second is better on validation rows and worse on test rows."""
    found = []
    for seed in range(SEEDS):
        base = 0.80 + 0.01 * seed
        for method, shift in (("fedavg", 0.0), ("fedprox", gap), ("centralized", 0.05), ("local", -0.05)):
            found.append(record(method, seed, 0, base, base + shift + 0.1, **more))
            found.append(record(method, seed, 1, base + 0.02, base + shift + 0.0001 * (seed % 2), **more))
    return found


def judged(records: list[dict[str, Any]], **changes: Any) -> Result:
    return result_of(asked(**changes), records, {})


def test_validation_rows_choose_and_test_rows_do_not() -> None:
    result = judged(grid())
    assert {tuple(cell["configuration"]) for cell in result["cells"]} == {("training.optimizer.learning_rate",)}
    assert result["table"]["IID"]["fedavg"]["test"]["auroc"]["value"] == pytest.approx(0.82, abs=1e-3)


def test_ties_go_to_the_lower_loss_and_then_to_the_earlier_configuration() -> None:
    tied = [record("fedavg", s, n, 0.9, 0.9) for s in range(SEEDS) for n in (0, 1)]
    for one in tied:
        one["validation"]["loss"] = 0.2 if one["number"] else 0.3
    assert all(cell["configuration"] for cell in judged(tied)["cells"])
    for one in tied:
        one["validation"]["loss"] = 0.2
    assert not any(cell["configuration"] for cell in judged(tied)["cells"])


def test_a_steady_gap_is_supported_and_noise_is_not() -> None:
    steady = judged(grid(gap=0.03))
    row = steady["differences"]["IID"]["fedavg"]["fedprox"]
    assert row["value"] == pytest.approx(0.03)
    assert any("FedProx is higher (+0.030" in line for line in steady["sentences"])
    noise = grid()
    for one in noise:
        if one["method"] == "fedprox":
            one["test"]["pooled"]["auroc"] += 0.02 * (-1) ** one["seed"]
    assert any("no method can be told apart from FedAvg" in line for line in judged(noise)["sentences"])


def test_the_method_held_against_the_baselines_is_the_one_validation_prefers() -> None:
    records = grid(gap=0.1)  # fedprox is better on test rows
    for one in records:
        if one["method"] == "fedavg":
            one["validation"]["auroc"] += 0.01
    result = judged(records)
    assert result["preferred"] == {"IID": "fedavg"}
    assert any(
        "validation rows prefer FedAvg" in line and "against each alone (higher)" in line
        for line in result["sentences"]
    )


def test_rounds_and_bytes_to_the_target() -> None:
    cell = judged(grid(), target=0.80)["cells"][0]
    assert (cell["rounds_to_target"], cell["bytes_to_target"]) == (2, 200)
    unreached = judged(grid(), target=0.99)
    assert unreached["table"]["IID"]["fedavg"]["reached"] == 0
    assert ["FedAvg", f"0 of {SEEDS} seeds", "-", "-", "200 bytes"] in tables.costs(unreached, "IID")[1]


def test_fairness_counts_the_sites_that_have_the_figure() -> None:
    cell = judged(grid())["cells"][0]
    assert cell["spread"] == pytest.approx(0.1)
    assert cell["gains"] == pytest.approx({"a": 0.05, "b": 0.05})
    assert judged(grid())["table"]["IID"]["fedavg"]["sites_gaining"] == 1.0


def test_a_configuration_that_diverged_is_counted_and_never_chosen() -> None:
    records = grid()
    for one in records:
        if one["method"] == "fedavg" and one["number"] == 1:
            del one["validation"], one["test"]
            one["failed"] = "diverged"
    result = judged(records)
    assert all(not c["configuration"] for c in result["cells"] if c["method"] == "fedavg")
    assert result["table"]["IID"]["fedavg"]["failed"] == SEEDS


def test_a_models_of_sites_own_is_warned_of() -> None:
    assert any(line.startswith("Each alone scores each row") for line in judged(grid())["sentences"])


def test_what_was_refused_is_said() -> None:
    result = result_of(asked(), [r for r in grid() if r["method"] != "fedprox"], {"fedprox": "no such thing"})
    assert any(line.startswith("FedProx was not compared: no such thing") for line in result["sentences"])


def test_the_tables_are_markdown_and_csv() -> None:
    result = judged(grid(gap=0.03))
    text = tables.text(result)
    assert "| FedProx | 0.850 [" in text
    assert " * |" in text
    lines = tables.cells_csv(result).splitlines()
    assert len(lines) == 1 + 4 * SEEDS
    assert lines[0].startswith("setting,method,seed,test_auroc")


def natural(records: list[dict[str, Any]]) -> Result:
    """The same records of a federation whose hospitals are the dataset's."""
    job = from_mapping({"partition": {"kind": "natural"}})
    asked = plan(job, algorithms=("fedavg", "fedprox"), seeds=SEEDS, budget=2)
    return result_of(asked, [{**one, "setting": "natural"} for one in records], {})


def test_real_hospitals_have_a_column_each_and_simulated_ones_have_none() -> None:
    header, rows = tables.by_site(natural(grid()), "natural")
    assert header == ["method", "a", "b"]  # c defines no figure
    # test figures .80, .8101, .82, .8301, .84: their mean is .82004, and each site's lies .1 below it or on it
    assert [cell.partition(" ")[0] for cell in rows[0]] == ["FedAvg", "0.720", "0.820"]
    assert all("[" in cell for cell in rows[0][1:])
    assert tables.by_site(judged(grid()), "IID") == (["method"], [])
    assert "at each hospital" in tables.text(natural(grid()))
    assert "at each hospital" not in tables.text(judged(grid()))


def test_the_text_has_balanced_accuracy_with_its_interval() -> None:
    records = grid()
    for one in records:
        one["test"]["pooled"]["balanced_accuracy"] = 0.4 + 0.1 * (one["seed"] % 2)
    text = tables.text(judged(records))
    _, _, found = text.partition("## Balanced accuracy on test rows")
    # .4, .5, .4, .5, .4: mean .44, s^2 .003; half a width is t(4) sqrt(.003 (1/5 + 25/60)) = 2.7764 x .04301 = .1194
    assert "| FedAvg | 0.440 [0.321, 0.559] |" in found.partition("##")[0]
    for one in records:
        one["validation"]["balanced_accuracy"] = 0.5
    assert "## Balanced accuracy" not in tables.text(judged(records, metric="balanced_accuracy"))

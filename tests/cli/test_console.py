"""The closing table fits the terminal, and the lines below it say what the intervals say."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console as Terminal

from wardround.cli.console import Console, _sentences, _table, bytes_text

METRICS = ("accuracy", "balanced_accuracy", "auroc", "brier", "auprc")


def figures(value: float = 0.9) -> dict[str, float]:
    return {key: v for m in METRICS for key, v in ((m, value), (f"{m}_low", value - 0.1), (f"{m}_high", value + 0.1))}


def result(**changes: Any) -> dict[str, Any]:
    arm = {"pooled": figures(), "site_mean": figures(0.8), "sites": {}}
    majority = {"pooled": {"accuracy": 0.6}, "site_mean": {"accuracy": 0.6}, "sites": {}}
    gain = {"pooled": {"auroc": 0.02, "auroc_low": 0.01, "auroc_high": 0.03}}
    return {
        "name": "demo", "personalized": False, "federated": arm, "centralized": arm, "local": arm, "majority": majority,
        "gain": {"local": gain, "centralized": gain}, "selected_round": 3, "rounds": 4, "bytes_up": 1500, "bytes_down": 20,
        "seconds": 1.25, "executor": "stacked", **changes,
    }  # fmt: skip


def shown(width: int) -> list[str]:
    out = io.StringIO()
    Terminal(file=out, width=width).print(_table(result(), width))
    return [line.rstrip() for line in out.getvalue().splitlines()]


@pytest.mark.parametrize("width", [200, 110, 102, 101, 100, 80, 60, 40, 30])
def test_no_cell_is_cut_or_wrapped(width: int) -> None:
    lines = shown(width)
    assert max(map(len, lines)) <= width
    assert not any("…" in line for line in lines)
    beside = width >= 102
    row = next(line for line in lines if line.startswith("federated"))
    assert ("0.900 [0.800, 1.000]" in row) is beside
    metrics = {200: 5, 110: 4, 102: 4, 101: 5, 100: 5, 80: 4, 60: 2, 40: 1, 30: 1}[width]
    assert row.count("0.900") == metrics
    assert sum(line.count("[0.800, 1.000]") for line in lines) == 3 * metrics


def test_what_has_no_figure_has_a_dash() -> None:
    row = next(line for line in shown(110) if line.startswith("majority class"))
    assert row.split() == ["majority", "class", "0.600", "-", "-", "-"]


@pytest.mark.parametrize(
    ("low", "value", "high", "said"),
    [
        (0.01, 0.02, 0.03, "+0.020 [+0.010, +0.030], higher"),
        (-0.03, -0.02, -0.01, "-0.020 [-0.030, -0.010], lower"),
        (-0.03, -0.0004, 0.01, "+0.000 [-0.030, +0.010], no clear difference"),
    ],
)
def test_a_difference_is_said_as_its_interval_has_it(low: float, value: float, high: float, said: str) -> None:
    gain = {"local": {"pooled": {"auroc": value, "auroc_low": low, "auroc_high": high}}}
    lines = _sentences(result(gain=gain))
    assert lines[0] == f"AUROC, federated minus each alone: {said}"
    assert len(lines) == 2
    assert _sentences(result(gain={}))[0].startswith("round 3 of 4 kept")


def test_bytes_are_readable() -> None:
    assert [bytes_text(n) for n in (0, 999, 1000, 1_500_000, 2e9, 3e12)] == [
        "0 B", "999 B", "1.0 kB", "1.5 MB", "2.0 GB", "3000.0 GB",
    ]  # fmt: skip


def test_a_name_with_brackets_is_shown_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(as_json=False, quiet=False, folder=tmp_path / "[bold]")
    console.show(result())
    assert "majority class" in capsys.readouterr().out


def test_a_personalised_run_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Console(as_json=False, quiet=False, folder=tmp_path).show(result(personalized=True))
    assert "personalised: each row is scored with its own site's model" in capsys.readouterr().out


def test_a_retry_is_told_and_quiet_is_quiet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    event = {"event": "retry", "arm": "federated", "rounds": 4, "round": 1, "attempt": 1, "cause": "1 of 5 sites [x]"}
    with Console(as_json=False, quiet=False, folder=tmp_path) as console:
        console.listen(event)
    assert "federated, round 2: trying again: 1 of 5 sites [x]" in capsys.readouterr().err
    with Console(as_json=False, quiet=True, folder=tmp_path) as console:
        console.listen(event)
    assert capsys.readouterr().err == ""


def test_the_spread_over_sites_and_who_gains_is_one_line() -> None:
    over = {"sites": 4, "worst": 0.8, "worst_site": "va", "best": 0.95, "deviation": 0.05, "worst_tenth": 0.8}
    found = result(fairness={"federated": {"auroc": over}, "gain": {"local": {"auroc": {"gain": 3, "lose": 1}}}})
    assert "AUROC over 4 sites: 0.800 (va) to 0.950, sd 0.050; above each alone at 3, below at 1" in _sentences(found)
    found["fairness"]["federated"]["auroc"]["sites"] = 20
    assert any("worst tenth 0.800" in line for line in _sentences(found))


def test_a_point_that_was_asked_for_is_told_with_what_it_gives() -> None:
    test = {"sensitivity": 0.88, "sensitivity_low": 0.8, "sensitivity_high": 0.95, "specificity": 0.7, "ppv": 0.6}
    point = {"federated": {"threshold": 0.31, "validation": {}, "test": test}}
    job = {"evaluation": {"threshold": {"sensitivity": 0.9, "specificity": None}}}
    line = next(one for one in _sentences(result(operating_point=point, job=job)) if one.startswith("threshold"))
    assert line == (
        "threshold 0.310 for sensitivity 0.9 on validation rows; on test rows sensitivity 0.880 [0.800, 0.950], "
        "specificity 0.700, PPV 0.600, NPV -"
    )
    assert not any(one.startswith("threshold") for one in _sentences(result(operating_point=point)))


def test_three_classes_are_macro() -> None:
    found = result(dataset={"classes": ["a", "b", "c"]})
    assert _sentences(found)[0].startswith("macro AUROC, federated minus each alone")
    out = io.StringIO()
    Terminal(file=out, width=110).print(_table(found, 110))
    assert "macro AUROC" in out.getvalue()

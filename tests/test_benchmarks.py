"""The benchmarks run, and would notice if what they time had not done the same work."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import agreement, bare, fresh, machine, parts, product, startup, suite
from benchmarks.loop import one_round
from benchmarks.peers import __main__ as peers
from benchmarks.peers import draw_steps
from benchmarks.peers.steps import Steps
from benchmarks.peers.watch import SideFailed, watched
from benchmarks.tables import figure, spread, table, write_block
from benchmarks.workloads import Workload, counts, workload
from wardround import load, run

W1 = workload("W1", sites=4, rows=40, rounds=3)
W2 = workload("W2", sites=2, rows=40, rounds=2)
RAGGED = replace(W1, spread=1.0)


@pytest.mark.parametrize(
    ("given", "kind"),
    [(W1, product.BUILT_IN), (W1, product.ANY_MODULE), (RAGGED, product.BUILT_IN), (W2, product.ANY_MODULE)],
)
def test_product_and_bare_loop_take_the_same_steps(given: Workload, kind: str) -> None:
    found = product.train(given, product.job_for(given, kind, dtype="float64"))
    expected = bare.train(given, product.job_for(given, product.ANY_MODULE, dtype="float64"))
    agreement.check(found.weights, expected.weights, given.name, agreement.EXACT)
    assert len(found.marks) == len(expected.marks) == given.rounds + 1
    assert found.seconds_a_round > 0


@pytest.mark.parametrize(
    "other",
    [replace(W1, learning_rate=0.0501), replace(W1, batch=20), replace(W1, rounds=4), replace(W1, rows=39)],
    ids=["learning rate", "batch", "rounds", "rows"],
)
def test_other_steps_are_noticed(other: Workload) -> None:
    found, expected = (bare.train(w, product.job_for(w, product.ANY_MODULE, dtype="float64")) for w in (other, W1))
    with pytest.raises(agreement.WeightsDiffer, match="is off by"):
        agreement.check(found.weights, expected.weights, "W1", agreement.EXACT)


def test_weights_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(agreement.WeightsDiffer, match="expected"):
        agreement.difference({"b": np.ones(3)}, {"a": np.ones(3)})
    with pytest.raises(agreement.WeightsDiffer, match="not finite"):
        agreement.difference({"a": np.ones(3), "b": np.array([1.0, np.nan])}, {"a": np.zeros(3), "b": np.ones(2)})


def test_unequal_sites_have_as_many_rows_in_all() -> None:
    w3 = workload("W3", spread=1.0)
    rows = counts(w3)
    assert rows.sum() == w3.sites * w3.rows
    assert rows.min() >= 1
    assert rows.max() > 5 * w3.rows


def test_a_setting_that_this_version_lacks_is_reported() -> None:
    given = {"name": "W1", "sites": 2, "rounds": 2}
    found = product.measure(given, product.BUILT_IN, engine={"moon": True})
    assert found["refused"].startswith("engine.moon")


def test_the_parts_of_a_round_are_where_they_are_sought() -> None:
    found = parts.measure({"name": "W1", "sites": 4, "rounds": 3})
    assert {part for part, seconds in found.items() if seconds <= 0} == set()


def test_the_peers_file_holds_the_steps_of_the_product(tmp_path: Path) -> None:
    given = {"name": "W1", "sites": 4, "rows": 40, "rounds": 3}
    draw_steps.write(given, str(tmp_path / "steps.npz"), dtype="float64")
    steps = Steps.load(tmp_path / "steps.npz")
    module = steps.module()
    server = {n: p.detach().clone() for n, p in module.named_parameters()}
    for index in range(steps.rounds):
        batches = [steps.batches(index, k) for k in range(steps.sites)]
        rows = [steps.rows(k) for k in range(steps.sites)]
        server = one_round(module, server, rows, batches, [1 / steps.sites] * steps.sites, steps.learning_rate)
    found = product.train(W1, product.job_for(W1, product.ANY_MODULE, dtype="float64"))
    agreement.check(found.weights, server, "peers", agreement.EXACT)


def test_a_command_is_watched(tmp_path: Path) -> None:
    log, environment = tmp_path / "log", dict(os.environ)
    nested = (
        "import subprocess, sys, time; child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])"
    )
    seen = watched([sys.executable, "-c", f"{nested}; time.sleep(0.4)"], environment, log, limit=60)
    assert seen.processes == 2
    assert seen.peak > 2**20
    with pytest.raises(SideFailed, match=r"exit code 3\s+no luck"):
        watched([sys.executable, "-c", "print('no luck'); raise SystemExit(3)"], environment, log, limit=60)
    with pytest.raises(SideFailed, match="not at its end"):
        watched([sys.executable, "-c", "import time; time.sleep(60)"], environment, log, limit=0.3)


def test_the_start_up_job_runs(tmp_path: Path) -> None:
    result = run(load(startup.JOB, ["training.rounds=1"]), tmp_path / "run", report=False)
    assert result["executor"] == "stacked"
    assert sum(site["train"][0] + site["train"][1] for site in result["partition"].values()) == 50 * 100


def test_a_measurement_has_a_process_of_its_own() -> None:
    assert fresh.call("benchmarks.tables:figure", value=0.25) == "0.250"
    with pytest.raises(fresh.MeasurementFailed, match="no attribute 'absent'"):
        fresh.call("benchmarks.tables:absent")


def test_every_part_has_its_place_on_a_page(tmp_path: Path) -> None:
    for page, names in ((suite.PAGE, suite.PARTS), (peers.PAGE, tuple(peers.ABSENT))):
        copy = tmp_path / page.name
        copy.write_text(page.read_text(encoding="utf-8"), encoding="utf-8")
        for name in names:
            write_block(copy, name, f"figures of {name}")
        written = copy.read_text(encoding="utf-8")
        assert [name for name in names if f"figures of {name}" not in written] == []
        with pytest.raises(ValueError, match="no block"):
            write_block(copy, "absent", "")


def test_a_page_does_not_name_the_machine() -> None:
    facts = machine.facts()
    assert f"torch {torch.__version__}" in facts
    assert platform.node() not in facts
    assert str(Path.home()) not in facts


def test_figures_have_three_digits() -> None:
    assert [figure(v) for v in (0.0, 0.012345, 1.0, 99.96, 1234.5)] == ["0", "0.0123", "1.00", "100", "1,234"]
    assert spread([3.0, 1.0, 2.0], scale=10) == "20.0 (10.0 to 30.0)"
    assert table(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"

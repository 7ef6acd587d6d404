"""Curves have the areas that the metrics say, and bands lie round them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

from drawn_tables import tables
from wardround.errors import ConfigError
from wardround.training.bootstrap import bands
from wardround.training.curves import POINTS, calibration, precision_recall_curve, roc_curve
from wardround.training.metrics import ScoreTable, measure


@settings(max_examples=50, deadline=None)
@given(tables)
def test_the_area_under_the_curve_is_the_auroc(table: ScoreTable) -> None:
    curve = roc_curve(table)
    x, y = np.array(curve["false_positive_rate"]), np.array(curve["true_positive_rate"])
    auroc = measure(table, 0.5).get("auroc")
    if auroc is None:
        assert len(x) == len(y) == 0
        return
    assert ((x[1:] - x[:-1]) * (y[1:] + y[:-1])).sum() / 2 == pytest.approx(auroc)
    assert (x[0], y[0], x[-1], y[-1]) == (0.0, 0.0, 1.0, 1.0)


def test_the_curve_has_corners_only() -> None:
    # Two positives, then two negatives: up, then right.
    assert roc_curve(ScoreTable.from_rows([0.9, 0.8, 0.2, 0.1], [1, 1, 0, 0])) == {
        "false_positive_rate": [0.0, 0.0, 1.0],
        "true_positive_rate": [0.0, 1.0, 1.0],
    }


def test_calibration_by_hand() -> None:
    # Of five bins, [.2, .4) holds .2- and .3+, the last holds 1+ twice.
    diagram = calibration(ScoreTable(scores=[0.2, 0.3, 1.0], positives=[0, 1, 2], negatives=[1, 0, 0]), bins=5)
    assert diagram["predicted"] == pytest.approx([0.25, 1.0])
    assert diagram["observed"] == pytest.approx([0.5, 1.0])
    assert diagram["records"] == [2.0, 2.0]
    with pytest.raises(ConfigError, match="bins is 0"):
        calibration(ScoreTable.from_rows([], []), bins=0)


@settings(max_examples=50, deadline=None)
@given(tables)
def test_the_steps_of_precision_and_recall_have_the_area_auprc(table: ScoreTable) -> None:
    curve = precision_recall_curve(table)
    recall, precision = np.array(curve["recall"]), np.array(curve["precision"])
    auprc = measure(table, 0.5).get("auprc")
    if auprc is None:
        assert len(recall) == len(precision) == 0
        return
    assert (np.diff(recall, prepend=0.0) * precision).sum() == pytest.approx(auprc)
    assert recall[-1] == 1.0


def test_a_long_curve_is_thinned_and_keeps_its_ends() -> None:
    random = np.random.default_rng(0)
    scores = random.random(9000)
    table = ScoreTable.from_rows(scores, random.random(9000) < scores)
    curve = precision_recall_curve(table)
    assert len(curve["recall"]) == 1000
    assert (curve["recall"][0], curve["recall"][-1]) == (1 / table.positives.sum(), 1.0)


def test_a_band_holds_its_curve_and_narrows_with_rows() -> None:
    def made(rows: int) -> dict[str, ScoreTable]:
        random = np.random.default_rng(rows)
        labels = random.random(rows) < 0.4
        return {"a": ScoreTable.from_rows(1 / (1 + np.exp(-random.normal(2 * labels - 1.0))), labels)}

    widths = []
    for rows in (50, 2000):
        tables = made(rows)
        found = bands(tables, 200, seed=1)
        assert [len(found["roc"][end]) for end in ("at", "low", "high")] == [POINTS] * 3
        curve = roc_curve(tables["a"])
        own = np.interp(found["roc"]["at"], curve["false_positive_rate"], curve["true_positive_rate"])
        inside = (np.array(found["roc"]["low"]) <= own + 1e-9) & (own <= np.array(found["roc"]["high"]) + 1e-9)
        assert inside.mean() > 0.95
        widths.append(np.subtract(found["precision_recall"]["high"], found["precision_recall"]["low"]).mean())
    assert widths[1] < widths[0] / 3


def test_without_resamples_or_classes_there_is_no_band() -> None:
    table = ScoreTable.from_rows([0.2, 0.9], [0, 1])
    assert bands({"a": table}, 0, seed=1) == {}
    assert bands({"a": ScoreTable.from_rows([0.2, 0.9], [0, 0])}, 20, seed=1) == {}
    # every resample that has both rows ranks them right
    found = bands({"a": table}, 50, seed=1)
    assert set(found["roc"]["low"]) == set(found["precision_recall"]["low"]) == {1.0}

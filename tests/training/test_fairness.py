"""How figures spread over sites, and who gains."""

from __future__ import annotations

import pytest

from wardround.training.fairness import sides, spread


def test_spread_by_hand() -> None:
    found = spread({"a": 0.9, "b": 0.5, "c": 0.7, "d": 0.9})
    # mean .75; deviations .15, .25, .05, .15: squares .0225 + .0625 + .0025 + .0225 = .11, a quarter of it .0275
    assert found == pytest.approx(
        {
            **{"sites": 4, "mean": 0.75, "deviation": 0.0275**0.5, "spread": 0.4, "worst_tenth": 0.5},
            **{"worst": 0.5, "worst_site": "b", "best": 0.9, "best_site": "a"},
        }
    )


def test_the_worst_tenth_is_rounded_up() -> None:
    values = {f"s{k:02d}": float(k) for k in range(21)}
    # a tenth of 21 sites is 2.1, so three: 0, 1 and 2; or, where less is better, 18, 19 and 20
    assert spread(values)["worst_tenth"] == 1.0
    losses = spread(values, lower_is_better=True)
    assert (losses["worst_tenth"], losses["worst_site"], losses["best_site"]) == (19.0, "s20", "s00")


def test_nothing_and_one() -> None:
    assert spread({}) == {}
    one = spread({"a": 0.3})
    assert (one["spread"], one["deviation"], one["worst_tenth"]) == (0.0, 0.0, 0.3)
    assert sides({"a": {}}, "auroc") == {}


def test_sides_by_hand() -> None:
    gains = {
        "a": {"auroc": 0.1, "auroc_low": 0.05, "auroc_high": 0.2},
        "b": {"auroc": 0.1, "auroc_low": -0.05, "auroc_high": 0.2},
        "c": {"auroc": -0.3, "auroc_low": -0.4, "auroc_high": -0.1},
        "d": {"auroc": 0.0},
        "e": {"brier": 0.2},
    }
    assert sides(gains, "auroc") == pytest.approx(
        {
            **{"sites": 4, "gain": 2, "lose": 1, "equal": 1, "surely_gain": 1, "surely_lose": 1},
            **{"mean": -0.025, "worst": -0.3, "worst_site": "c"},
        }
    )


def test_a_smaller_loss_is_a_gain() -> None:
    gains = {"a": {"brier": -0.1, "brier_low": -0.2, "brier_high": -0.05}, "b": {"brier": 0.3}}
    found = sides(gains, "brier", lower_is_better=True)
    assert (found["gain"], found["lose"], found["surely_gain"], found["worst_site"]) == (1, 1, 1, "b")
    assert (found["mean"], found["worst"]) == (pytest.approx(0.1), pytest.approx(0.3))

"""The first round that reaches a figure, the first that stays there, and what both cost."""

from __future__ import annotations

from typing import Any

from wardround.training.target import reached


def history(figures: list[float | None], name: str = "auroc") -> list[dict[str, Any]]:
    return [
        {
            "completed": k,
            "bytes_up": 10 * k,
            "bytes_down": k,
            "seconds": k / 2,
            "validation": None if f is None else {name: f},
        }
        for k, f in enumerate(figures, start=1)
    ]


def test_reaching_and_staying_are_told_apart() -> None:
    found = reached(history([0.5, None, 0.9, 0.8, 0.9, 0.95]), "auroc", 0.9)
    assert found["first"] == {"completed": 3, "bytes_up": 30, "bytes_down": 3, "seconds": 1.5, "figure": 0.9}
    assert found["stays"] == {"completed": 5, "bytes_up": 50, "bytes_down": 5, "seconds": 2.5, "figure": 0.9}
    assert found["best"] == 0.95


def test_what_is_lost_at_the_end_does_not_stay() -> None:
    found = reached(history([0.9, 0.8]), "auroc", 0.9)
    assert found["first"]["completed"] == 1
    assert found["stays"] is None


def test_a_target_that_is_never_reached() -> None:
    assert reached(history([0.5, 0.6]), "auroc", 0.9) == {"first": None, "stays": None, "best": 0.6}
    assert reached(history([None]), "auroc", 0.9) == {"first": None, "stays": None, "best": None}
    assert reached([], "auroc", 0.9)["best"] is None


def test_a_loss_falls_to_its_target() -> None:
    found = reached(history([0.5, 0.3, 0.2], "loss"), "loss", 0.3, lower_is_better=True)
    assert (found["first"]["completed"], found["stays"]["completed"], found["best"]) == (2, 2, 0.2)

"""What a server takes of one site's direct answers."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from wardround.errors import MessageError
from wardround.federation.answers import MOST_TIMES, absurd, executor_of, heavy, rows_of
from wardround.types import Message, Reply


def enrol(rows: torch.Tensor | None, *, stacked: bool = True, **more: torch.Tensor) -> Reply:
    arrays = {**({} if rows is None else {"rows": rows}), **more}
    return Reply(sites=("a",), message=Message(stage="enrol", arrays=arrays), stacked=stacked)


def test_rows_are_one_count_a_site() -> None:
    assert rows_of(enrol(torch.tensor([7]))) == {"a": 7}
    for bad in (
        enrol(None), enrol(torch.tensor([2**62])), enrol(torch.tensor([-1])), enrol(torch.tensor([[1]])),
        enrol(torch.tensor([1, 2])), enrol(torch.tensor([1.0])), enrol(torch.tensor([float("inf")])),
        enrol(torch.tensor([True])), enrol(torch.tensor(1), stacked=False), enrol(torch.tensor([1]), more=torch.zeros(1)),
    ):  # fmt: skip
        with pytest.raises(MessageError):
            rows_of(bad)


def test_an_executor_is_a_known_one_and_its_reason_a_short_line() -> None:
    def prepared(**meta: Any) -> Reply:
        return Reply(sites=("a",), message=Message(stage="prepare", meta=meta))

    assert executor_of(prepared(executor="stacked", reason="x\x1b[31m\ny" + "z" * 999))[1].startswith("x?[31m?yzz")
    assert len(executor_of(prepared(executor="stacked", reason="z" * 999))[1]) == 500
    for meta in (
        {},
        {"executor": "stacked"},
        {"executor": "<b>", "reason": ""},
        {"executor": ["stacked"], "reason": ""},
    ):
        with pytest.raises(MessageError):
            executor_of(prepared(**meta))


def test_one_absurd_count_is_found_and_makes_no_honest_one_absurd() -> None:
    honest = {"a": 100, "b": 300, "c": 50_000}
    assert absurd(honest) == {}
    assert set(absurd({**honest, "d": 2**40})) == {"d"}
    assert set(absurd({**honest, "d": 0})) == set()
    assert set(absurd({**honest, "d": 300 * MOST_TIMES + 1})) == {"d"}
    assert set(absurd({"a": 5000, "b": 5000, "c": 1})) == set()
    assert absurd({"a": 10**9}) == {}


def test_a_site_above_half_of_all_rows_is_named() -> None:
    assert heavy({"a": 100, "b": 100, "c": 300}) == {
        "c": "it has 60 % of all rows, as it says: it alone outweighs the others"
    }
    assert heavy({"a": 100, "b": 100, "c": 200}) == {}
    assert heavy({"a": 0, "b": 0, "c": 0}) == {}

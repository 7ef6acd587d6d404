"""The mean rule adds groups."""

from __future__ import annotations

import pytest
import torch

from wardround.aggregation.mean import Mean
from wardround.aggregation.registry import RULES, build
from wardround.config.job import AggregationSpec
from wardround.errors import ConfigError
from wardround.types import Total


def tensor(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_groups_add_up() -> None:
    # (0.5 x 2 + 0.25 x 6 ...) is already weighed: sums 1 + 3 over weights 0.5 + 1.5 give a mean of 2
    first = Total(
        sums={"step": {"w": tensor(1.0, 0.0)}, "variate": {"w": tensor(1.0, 1.0)}},
        weights={"step": 0.5, "variate": 2.0},
        survivors=("c", "a"),
        abstained={"x": "no rows"},
    )
    second = Total(
        sums={"step": {"w": tensor(3.0, 2.0)}},
        weights={"step": 1.5},
        survivors=("b",),
        group=1,
        abstained={"y": "late"},
    )
    total = Mean().combine([first, second])
    assert total.sums["step"]["w"].tolist() == [4.0, 2.0]
    assert total.sums["variate"]["w"].tolist() == [1.0, 1.0]
    assert total.weights == {"step": 2.0, "variate": 2.0}
    assert total.mean("step")["w"].tolist() == [2.0, 1.0]
    assert total.survivors == ("a", "b", "c")
    assert total.abstained == {"x": "no rows", "y": "late"}


def test_the_groups_themselves_are_left_as_they_were() -> None:
    groups = [Total(sums={"step": {"w": tensor(1.0)}}, weights={"step": 1.0}, survivors=(s,)) for s in "ab"]
    Mean().combine(groups)
    assert [g.sums["step"]["w"].tolist() for g in groups] == [[1.0], [1.0]]


def test_one_group_is_itself_and_none_is_empty() -> None:
    one = Total(sums={"step": {"w": tensor(1.0)}}, weights={"step": 0.5}, survivors=("a",))
    assert Mean().combine(iter([one])).mean("step")["w"].tolist() == [2.0]
    nothing = Mean().combine([])
    assert (nothing.sums, nothing.weights, nothing.survivors) == ({}, {}, ())
    assert nothing.mean("step") == {}


@pytest.mark.parametrize("name", RULES)
def test_every_name_builds_a_rule_of_that_name(name: str) -> None:
    assert build(AggregationSpec(rule=name)).name == name


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"aggregation\.rule = 'meen': did you mean 'mean'"):
        build(AggregationSpec(rule="meen"))

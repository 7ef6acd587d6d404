"""The table of aggregation rules."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, cast

from wardround.config.job import AggregationSpec
from wardround.config.plugins import construct, resolve
from wardround.types import Total

RULES = {"mean": "wardround.aggregation.mean:Mean"}


class AggregationRule(Protocol):
    """A rule over Totals."""

    name: str

    def combine(self, totals: Iterable[Total]) -> Total:
        """One Total from those of the groups."""
        ...


def build(spec: AggregationSpec) -> AggregationRule:
    """The rule that `aggregation.rule` chooses."""
    return cast(AggregationRule, construct(resolve(spec.rule, RULES, "aggregation.rule"), {}, "aggregation"))

"""Where a round's time goes: functions of the product are wrapped from outside, and each second counts for the innermost."""

from __future__ import annotations

import functools
import importlib
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any
from unittest import mock

from benchmarks.fresh import call
from benchmarks.tables import figure, table

COMMIT, REST = "commit", "the rest"
PARTS: dict[str, tuple[str, ...]] = {
    "plan of batches": ("wardround.training.executors:plan",),
    "gather rows": ("wardround.training.executors:_gathered",),
    "forward and loss": ("wardround.training.executors:step",),
    "backward": ("torch.autograd:grad",),
    "optimiser": ("wardround.training.optimizers:start", "wardround.training.optimizers:step"),
    "copies of the weights": ("wardround.training.executors:_Executor._train",),
    "rule": (
        *(f"wardround.algorithms.fedavg:FedAvg.{method}" for method in ("start", "correct", "finish", "absorb")),
        "wardround.algorithms.server_average:Average.apply",
    ),
    "finite checks": ("wardround.federation.messages:without_non_finite", "wardround.channels.plain:all_finite"),
    "weighed sums": ("wardround.channels.plain:weighed_sum",),
    "metering": ("wardround.wire:size", "wardround.wire:size_without_axis"),
    COMMIT: ("wardround.store.group:GroupCommit.add", "wardround.store.group:GroupCommit.flush"),
}
HEADER = ("part", "W1, ms a round", "W1, %", "W3, ms a round", "W3, %")


def section(repeats: int, quick: bool) -> str:
    """The table."""
    columns = []
    for given in ({"name": "W1"}, {"name": "W3"}):
        runs = []
        for number in range(repeats):
            print(f"  parts of {given['name']}, {number + 1} of {repeats}", file=sys.stderr, flush=True)
            small = {"sites": 5, "rounds": 3} if quick else {}
            runs.append(call("benchmarks.parts:measure", given={**given, **small}))
        columns.append({part: statistics.median(run[part] for run in runs) for part in (*PARTS, REST)})
    totals = [sum(column.values()) for column in columns]
    lines = [
        [part, *(cell for c, t in zip(columns, totals, strict=True) for cell in _cells(c[part], t))]
        for part in columns[0]
    ]
    return table(HEADER, [*lines, ["all", *(cell for total in totals for cell in _cells(total, total))]])


def _cells(seconds: float, total: float) -> list[str]:
    return [figure(seconds * 1e3), f"{100 * seconds / total:.0f}"]


class Clock:
    """Seconds by part, each of them in the innermost part that was open."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._open = [REST]
        self._since = time.perf_counter()

    def switch(self) -> None:
        """Book the time until now."""
        now = time.perf_counter()
        self.seconds[self._open[-1]] += now - self._since
        self._since = now

    def restart(self) -> None:
        """Forget what was booked."""
        self.switch()
        self.seconds.clear()

    def wrapped(self, function: Callable[..., Any], part: str, then: Callable[[], None]) -> Callable[..., Any]:
        """The function, booked under `part`; `then` is called after it."""

        @functools.wraps(function)
        def timed(*given: Any, **more: Any) -> Any:
            self.switch()
            self._open.append(part)
            try:
                return function(*given, **more)
            finally:
                self.switch()
                self._open.pop()
                then()

        return timed


def measure(given: Mapping[str, Any]) -> dict[str, float]:
    """Seconds a round after the first, by part.

    Raises:
        AttributeError: the product has no function of a name in `PARTS` any more.
    """
    from benchmarks import product
    from benchmarks.workloads import workload

    clock, chosen = Clock(), workload(**given)
    at_commit: dict[str, float] = {}

    def committed() -> None:
        at_commit.update(clock.seconds)  # the last commit ends the rounds

    def listen(event: Mapping[str, Any]) -> None:
        if event["event"] == "round" and event["round"] == 0:
            clock.restart()

    with ExitStack() as patches:
        for part, names in PARTS.items():
            for name in names:
                owner, attribute = _owner(name)
                wrapper = clock.wrapped(getattr(owner, attribute), part, committed if part == COMMIT else _nothing)
                patches.enter_context(mock.patch.object(owner, attribute, wrapper))
        product.train(chosen, product.job_for(chosen, "built-in"), tell=listen)
    return {part: at_commit.get(part, 0.0) / (chosen.rounds - 1) for part in (*PARTS, REST)}


def _nothing() -> None: ...


def _owner(name: str) -> tuple[Any, str]:
    """The object that holds the function, and its attribute."""
    module, _, path = name.partition(":")
    *above, attribute = path.split(".")
    return functools.reduce(getattr, above, importlib.import_module(module)), attribute

"""A rule that loses the site axis would mix hospitals without a word, so it is refused at its first step."""

from __future__ import annotations

import pytest
import torch

from sample_plugins import Broken
from small_federation import make_round, make_rows
from wardround.algorithms.fedavg import FedAvg
from wardround.config.job import OptimizerSpec
from wardround.errors import ConfigError
from wardround.models.logistic import Logistic
from wardround.models.registry import state_of
from wardround.training.executors import Sequential, Stacked
from wardround.training.probe import probe
from wardround.types import Arrays, Progress, Server


class Summed(Broken):
    name = "summed"


class Forgetful(FedAvg):
    name = "forgetful"

    def correct(self, grads: Arrays, params: Arrays, context: Arrays, server: Server) -> Arrays:
        return {}


class Pooled(FedAvg):
    name = "pooled"

    def finish(
        self, params: Arrays, server: Server, states: Arrays, progress: Progress
    ) -> tuple[dict[str, Arrays], Arrays]:
        return {"sum": {"all": torch.zeros(7)}}, {}


@pytest.mark.parametrize("kind", [Stacked, Sequential])
@pytest.mark.parametrize(
    ("rule", "word"),
    [
        (Summed(), "summed: correct gives a gradient of shape"),
        (Forgetful(), "forgetful: correct gives nothing"),
        (Pooled(), "pooled: finish gives all"),
    ],
)
def test_it_is_named(kind: type[Stacked] | type[Sequential], rule: FedAvg, word: str) -> None:
    module = Logistic(inputs=3).double()
    executor = kind(module, OptimizerSpec(), probe(module, (3,)))
    with pytest.raises(ConfigError, match=word):
        executor.train(rule, Server(model=state_of(module)), {}, make_rows((5, 6), (3,)), make_round(steps=1))

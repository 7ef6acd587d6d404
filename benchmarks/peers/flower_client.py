"""Flower's client: what a simulated node does with a message. A worker process keeps steps and module between calls."""

from __future__ import annotations

import os
from functools import cache

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from torch import nn

from benchmarks.loop import local_training
from benchmarks.peers.steps import Steps

STEPS = "BENCHMARK_STEPS"
"""Variable of the environment that names the file of steps."""

app = ClientApp()


@cache
def _loaded() -> tuple[Steps, nn.Module]:
    torch.set_num_threads(1)
    steps = Steps.load(os.environ[STEPS])
    return steps, steps.module()


@app.train()
def train(message: Message, context: Context) -> Message:
    """One site's part of a round."""
    steps, module = _loaded()
    site = int(context.node_config["partition-id"])
    index = int(message.content["config"]["server-round"]) - 1
    module.load_state_dict(message.content["arrays"].to_torch_state_dict())
    local_training(module, steps.rows(site), steps.batches(index, site), steps.learning_rate)
    content = {
        "arrays": ArrayRecord(module.state_dict()),
        "metrics": MetricRecord({"num-examples": len(steps.labels[site])}),
    }
    return Message(content=RecordDict(content), reply_to=message)

"""Flower's simulation on Ray: a processor a client, as many clients at once as there are processors, nothing evaluated."""

from __future__ import annotations

import os

from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation

from benchmarks.peers import flower_client, outcome
from benchmarks.peers.steps import Steps


def main() -> None:
    given = outcome.arguments()
    os.environ[flower_client.STEPS] = str(given.steps)
    steps = Steps.load(given.steps)
    server = ServerApp()

    @server.main()
    def serve(grid: Grid, _context: Context) -> None:
        marks = outcome.Marks()
        strategy = FedAvg(
            fraction_train=1.0,
            fraction_evaluate=0.0,
            min_train_nodes=steps.sites,
            min_available_nodes=steps.sites,
        )
        result = strategy.start(
            grid=grid,
            initial_arrays=ArrayRecord(steps.module().state_dict()),
            num_rounds=steps.rounds,
            evaluate_fn=lambda index, arrays: marks.now(),  # called before the first round and after each
        )
        outcome.save(given.folder, marks, result.arrays.to_torch_state_dict())

    run_simulation(
        server_app=server,
        client_app=flower_client.app,
        num_supernodes=steps.sites,
        backend_config={
            "init_args": {"num_cpus": os.cpu_count()},
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
        },
    )


if __name__ == "__main__":
    main()

"""Apple's pfl: `SimulatedBackend` and `FederatedAveraging` in one process, nothing evaluated."""

from __future__ import annotations

import itertools
import os

os.environ.setdefault("PFL_PYTORCH_DEVICE", "cpu")

import torch
from pfl.aggregate.simulate import SimulatedBackend
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.callback.base import TrainingProcessCallback
from pfl.data.dataset import Dataset
from pfl.data.federated_dataset import FederatedDataset
from pfl.hyperparam.base import NNTrainHyperParams
from pfl.metrics import Metrics
from pfl.model.pytorch import PyTorchModel
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.peers import outcome
from benchmarks.peers.steps import Steps


class WithLoss(nn.Module):
    """The network with the two methods that pfl asks for."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(self.network(x), y)

    def metrics(self, x: Tensor, y: Tensor) -> dict[str, object]:
        return {}


class Watch(TrainingProcessCallback):
    """Marks the rounds."""

    def __init__(self, marks: outcome.Marks) -> None:
        self._marks = marks

    def on_train_begin(self, *, model: PyTorchModel) -> Metrics:
        self._marks.now()
        return Metrics()

    def after_central_iteration(
        self, aggregate_metrics: Metrics, model: PyTorchModel, *, central_iteration: int
    ) -> tuple[bool, Metrics]:
        self._marks.now()
        return False, Metrics()


def main() -> None:
    given = outcome.arguments()
    torch.set_num_threads(given.threads)
    steps = Steps.load(given.steps)
    network = steps.module()
    module = WithLoss(network)
    rows = [steps.rows(k) for k in range(steps.sites)]

    def dataset(call: int) -> Dataset:
        """The site's rows in the order of the round, for pfl cuts batches as they lie."""
        index, site = divmod(call, steps.sites)
        order = torch.from_numpy(steps.order[index, site])
        x, y = rows[site]
        return Dataset(raw_data=(x[order], y[order]), user_id=str(site))

    calls = itertools.count()  # every site in turn, round after round
    data = FederatedDataset(dataset, lambda: next(calls))
    marks = outcome.Marks()
    FederatedAveraging().run(
        algorithm_params=NNAlgorithmParams(
            central_num_iterations=steps.rounds,
            evaluation_frequency=10**6,
            train_cohort_size=steps.sites,
            val_cohort_size=0,
        ),
        backend=SimulatedBackend(training_data=data, val_data=data),
        model=PyTorchModel(module, torch.optim.SGD, torch.optim.SGD(module.parameters(), lr=1.0)),
        model_train_params=NNTrainHyperParams(
            local_num_epochs=1, local_learning_rate=steps.learning_rate, local_batch_size=steps.batch
        ),
        callbacks=[Watch(marks)],
    )
    outcome.save(given.folder, marks, {name: value.detach() for name, value in network.named_parameters()})


if __name__ == "__main__":
    main()

"""The job: one frozen tree that says what a run is. The YAML file and the Python API are the same objects.

Unknown keys are errors. Wherever a `name` (or `kind`) is chosen, `module:Class` names a plug-in and `options` are its
keyword arguments.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Name = Annotated[str, Field(min_length=1)]
Fraction = Annotated[float, Field(gt=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


class Node(BaseModel):
    """A node of the tree: frozen, and strict about its keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, validate_default=True)


class SplitSpec(Node):
    """How each site's patients are divided. Validation is carved from train; a patient is in one split only."""

    test: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.25
    """Fraction of a site's patients for the final figures, where the dataset has no official split."""
    validation: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.2
    """Fraction of the remaining patients for selection and thresholds."""


class PreprocessingSpec(Node):
    """What happens to raw columns; fitted on training rows from additive statistics that travel through the channel."""

    impute: Literal["mean", "none"] = "mean"
    """`mean`: numeric gaps take the federation's mean, categorical ones its most frequent level. `none`: a gap is an error."""
    indicators: bool = False
    """Add a 0/1 column 'was missing' for each column in which any training row has a gap."""
    standardize: Literal["global", "site", "none"] = "global"
    """`global`: the federation's mean and deviation; `site`: each site its own (the model is then personalised)."""
    drop: tuple[str, ...] = ()
    """Columns to leave out."""


class DataSpec(Node):
    """Which records."""

    dataset: Name = "wdbc"
    """A built-in name (`wdbc`, `heart`) or a plug-in `module:Class`."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the dataset."""
    split: SplitSpec = SplitSpec()
    preprocessing: PreprocessingSpec = PreprocessingSpec()


class PartitionSpec(Node):
    """How records are dealt to simulated sites, by patient. `natural` keeps the dataset's own hospitals."""

    kind: Literal["natural", "iid", "dirichlet"] = "natural"
    """`natural`, or the dataset's records pooled and dealt: `iid` evenly, `dirichlet` with uneven labels."""
    sites: Count = 5
    """Number of simulated sites (ignored by `natural`)."""
    alpha: Positive = 0.5
    """Concentration of the Dirichlet over labels (Hsu et al. 2019): small is very uneven, large is nearly IID."""
    min_rows: Count = 10
    """Fewest rows a simulated site may have; a Dirichlet draw is repeated until every site has them."""


class ModelSpec(Node):
    """The network."""

    name: Name = "logistic"
    """`logistic`, `mlp`, `cnn`, or a plug-in `module:Class` whose instance is an `nn.Module`."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the model; built-in models also get `inputs` and `outputs` from the data."""
    local: tuple[str, ...] = ()
    """What stays at a site: patterns of names (`head.bias`, `head.*`, `*`) or module types (`BatchNorm2d`)."""


class ServerSpec(Node):
    """The server's half of the algorithm."""

    name: Name = "average"
    """`average`, `adam`, or a plug-in `module:Class`."""
    learning_rate: Positive | None = None
    """Default 1 for `average`, 0.1 for `adam`."""
    beta1: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9
    """Decay of `adam`'s first moment."""
    beta2: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.99
    """Decay of `adam`'s second moment."""
    epsilon: Positive = 1e-3
    """Adaptivity of `adam` (tau in Reddi et al. 2021)."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of a plug-in."""


class AlgorithmSpec(Node):
    """The client's half of the algorithm, and its server."""

    name: Name = "fedavg"
    """`fedavg`, `fedprox`, `scaffold`, `fedbn`, or a plug-in `module:Class`."""
    mu: NonNegative | None = None
    """FedProx's proximal weight (default 0.01 there)."""
    server: ServerSpec = ServerSpec()
    weighting: Literal["samples", "uniform"] = "samples"
    """Weight of a site's step in the mean: its training rows, or the same for all."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of a plug-in."""


class OptimizerSpec(Node):
    """The local optimiser; a fresh one at every site and round."""

    name: Literal["sgd", "adam", "adamw"] = "sgd"
    """`sgd`, `adam`, or `adamw`, whose weight decay is apart from its gradient."""
    learning_rate: Positive = 0.05
    """Length of a local step, the same in every round."""
    momentum: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Of `sgd`, without dampening."""
    weight_decay: NonNegative = 0.0
    """Multiple of the parameters that joins their gradient; `adamw` takes it from the parameters instead."""
    beta1: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9
    """Decay of the first moment of `adam` and `adamw`."""
    beta2: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.999
    """Decay of their second moment."""
    epsilon: Positive = 1e-8
    """Added to their denominator."""

    @model_validator(mode="after")
    def _momentum_belongs_to_sgd(self) -> OptimizerSpec:
        if self.name != "sgd" and self.momentum:
            raise ValueError(f"momentum={self.momentum} belongs to sgd; {self.name} has beta1 instead")
        return self


class TrainingSpec(Node):
    """Rounds and local work."""

    rounds: Count = 20
    """Exchanges between the server and the sites."""
    local_steps: Count | None = None
    """SGD steps a site takes each round; or set `local_epochs`."""
    local_epochs: Count | None = None
    """Passes over a site's training rows each round (default 1 where neither is set)."""
    batch_size: Count = 16
    """Rows of a local step; a site's last batch of an epoch may be smaller."""
    optimizer: OptimizerSpec = OptimizerSpec()
    """The local optimiser."""
    dtype: Literal["float32", "float64"] = "float32"
    """Precision of parameters and features."""

    @model_validator(mode="after")
    def _steps_or_epochs(self) -> TrainingSpec:
        if self.local_steps is not None and self.local_epochs is not None:
            raise ValueError(
                f"local_steps={self.local_steps} and local_epochs={self.local_epochs} exclude each other: set one of them"
            )
        return self


class ParticipationSpec(Node):
    """Who is asked each round, and how many must answer."""

    fraction: Fraction = 1.0
    """Fraction of the sites asked each round (at least one)."""
    count: Count | None = None
    """Number of sites asked each round, instead of a fraction."""
    quorum: Count | None = None
    """Fewest sites whose contribution makes a round; default 2, or 1 where a single site is asked."""
    deadline_seconds: Positive = 600.0
    """How long the server waits for replies; sites in this process need none."""
    attempts: Count = 3
    """How often a round without quorum is tried before the run ends."""


class AggregationSpec(Node):
    """How Totals become one."""

    rule: Name = "mean"
    """`mean`, or a plug-in `module:Class`."""
    max_weight: Positive | None = None
    """Public upper bound of a site's rows. Default: the power of two above the largest count that sites report."""


class ChannelSpec(Node):
    """What carries contributions."""

    kind: Name = "plain"
    """`plain`, or a plug-in `module:Class`."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the channel."""


class PrivacySpec(Node):
    """What protects the patients beyond the fact that no record leaves a site."""

    channel: ChannelSpec = ChannelSpec()
    dp: None = None
    """Differential privacy; not available in this version, so only null is accepted."""


class EvaluationSpec(Node):
    """Figures."""

    baselines: tuple[Literal["centralized", "local"], ...] = ("centralized", "local")
    """Trained beside the federation. Refused where records cannot be merged."""
    bootstrap: Annotated[int, Field(ge=0)] = 1000
    """Resamples for 95 % intervals; 0 for none."""
    sites: bool = True
    """Report figures per site."""
    every: Count = 1
    """Rounds between validation figures."""
    select: Literal["loss", "auroc", "last"] = "loss"
    """What chooses the round whose model is kept, on validation rows only."""
    threshold: Annotated[float, Field(gt=0.0, lt=1.0)] | Literal["balanced", "accuracy"] = 0.5
    """Decision threshold: a probability, or chosen on validation to maximise balanced accuracy or accuracy."""
    bins: Annotated[int, Field(ge=10, le=100_000)] = 100
    """Bins of the additive score histograms."""
    release_scores: bool | None = None
    """Whether sites hand out scores and labels of test rows for exact pooled figures; default: only in one process.
    Without them figures are pooled alone, and the majority row is that of the whole federation."""


class EngineSpec(Node):
    """Where sites run."""

    kind: Name = "local"
    """`local`, or a plug-in `module:Class`."""
    device: Name = "cpu"
    """`cpu`, `cuda`, `cuda:1`, `mps` or `auto`."""
    executor: Literal["auto", "stacked", "sequential"] = "auto"
    """`stacked` trains a chunk's sites in one set of tensors, `sequential` one by one. `auto` stacks what can be stacked, but
    not convolutions of larger pictures on a CPU."""
    workers: Count | Literal["auto"] = "auto"
    """Processes of one thread each that share the sites of a chunk on a CPU; 1 trains in the run's own process. `auto` takes
    several for a long run whose sites train one by one, at most the threads that PyTorch may use. Recorded."""
    chunk: Count | Literal["auto"] = "auto"
    """Sites trained together."""
    commit_seconds: Annotated[float, Field(ge=0)] = 1.0
    """Simulated rounds that are quicker than this are written to the disk together; a crash repeats them. 0 writes each."""
    precision: Literal["full", "bf16"] = "full"
    """`bf16` trains in mixed precision: products of matrices and convolutions in bfloat16, weights and sums in full. Faster on
    a GPU, and on CPUs with instructions for it; figures are always of the full precision."""
    compile: bool = False
    """Train through `torch.compile`: the first round takes a minute longer, and wants a C++ compiler. Rarely worth it."""
    threads: Count | None = None
    """Threads of PyTorch; default its own choice. Recorded, since bits depend on it."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of a plug-in."""


class Job(Node):
    """One run, whole."""

    name: Annotated[str, Field(min_length=1, pattern=r"^[\w .+-]+$")] = "run"
    """Name of the run, and of its folder where none is given."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """What partition, split, initial weights, batches, cohorts and resamples are drawn from."""
    data: DataSpec = DataSpec()
    partition: PartitionSpec = PartitionSpec()
    model: ModelSpec = ModelSpec()
    algorithm: AlgorithmSpec = AlgorithmSpec()
    training: TrainingSpec = TrainingSpec()
    participation: ParticipationSpec = ParticipationSpec()
    aggregation: AggregationSpec = AggregationSpec()
    privacy: PrivacySpec = PrivacySpec()
    evaluation: EvaluationSpec = EvaluationSpec()
    engine: EngineSpec = EngineSpec()

    @model_validator(mode="after")
    def _meaningful(self) -> Job:
        if self.algorithm.name == "scaffold" and self.training.optimizer.name != "sgd":
            raise ValueError(
                f"algorithm scaffold with training.optimizer {self.training.optimizer.name} means nothing: the control "
                "variate is read from the length of plain SGD steps (option II); use optimizer sgd, or another algorithm"
            )
        if self.engine.precision == "bf16" and self.training.dtype == "float64":
            raise ValueError("engine.precision bf16 with training.dtype float64 contradict each other: choose one")
        if self.algorithm.mu is not None and self.algorithm.name != "fedprox" and ":" not in self.algorithm.name:
            raise ValueError(f"algorithm.mu belongs to fedprox, and algorithm.name is {self.algorithm.name}: remove mu")
        return self

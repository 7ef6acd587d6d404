"""The job: one frozen tree that says what a run is. The YAML file and the Python API are the same objects.

Unknown keys are errors. Wherever a `name` (or `kind`) is chosen, `module:Class` names a plug-in and `options` are its
keyword arguments.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Name = Annotated[str, Field(min_length=1)]
Fraction = Annotated[float, Field(gt=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Budget = Count | tuple[Count, Count]
"""A number for all sites, or a pair (low, high) of which each site draws its own every round."""


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
    pictures: Literal["none", "global", "site"] = "none"
    """How images and volumes are standardised, after augmentation: each channel by its mean and deviation over training rows,
    those of the federation (`global`) or each site's own (`site`: the model is then personalised). `none` leaves pixels as
    they are."""


Preset = Literal["xray", "ct", "mri", "ultrasound", "dermoscopy", "photo"]


class AugmentSpec(Node):
    """How training images are changed at random, each time anew. What is left out is off, or as the preset has it."""

    preset: Preset | None = None
    """A modality, whose [values](imaging/augmentation.md#presets) hold where none is given here."""
    flip: tuple[Literal["width", "height", "depth"], ...] = ()
    """Axes that are flipped, each in half of the rows."""
    turns: bool = False
    """Quarter turns in the plane; squares only."""
    rotation: Annotated[float, Field(ge=0.0, le=180.0)] = 0.0
    """Most degrees in the plane."""
    tilt: Annotated[float, Field(ge=0.0, le=180.0)] = 0.0
    """Most degrees out of the plane; volumes only."""
    zoom: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Greatest change of size: by a factor between 1 / (1 + zoom) and 1 + zoom."""
    shear: Annotated[float, Field(ge=0.0, le=45.0)] = 0.0
    """Most degrees that an axis leans."""
    shift: Annotated[float, Field(ge=0.0, le=0.5)] = 0.0
    """Greatest shift, as a fraction of each side."""
    elastic: Annotated[float, Field(ge=0.0, le=0.2)] = 0.0
    """Standard deviation of a smooth displacement, as a fraction of each side."""
    padding: Literal["border", "reflection"] = "border"
    """What lies beyond the image: its nearest pixel, or its mirror image."""
    brightness: NonNegative = 0.0
    """Most that is added or taken, in standard deviations of the image."""
    contrast: NonNegative = 0.0
    """Greatest change of the distance from the image's mean: by a factor between 1 / (1 + contrast) and 1 + contrast."""
    tint: NonNegative = 0.0
    """Most that is added to each channel by itself, in standard deviations of the image."""
    gamma: NonNegative = 0.0
    """Greatest change of the exponent between the image's least and greatest value, as for `contrast`."""
    noise: NonNegative = 0.0
    """Most noise, in standard deviations of the image."""
    blur: Annotated[float, Field(ge=0.0, le=10.0)] = 0.0
    """Most blur, a standard deviation in pixels."""
    probability: dict[
        Literal["affine", "elastic", "blur", "gamma", "jitter", "noise"], Annotated[float, Field(ge=0.0, le=1.0)]
    ] = Field(default_factory=dict)
    """Family -> probability that a row meets it; default `affine` 0.7 (rotation, tilt, zoom, shear and shift), `jitter` 0.3
    (brightness, contrast and tint), `elastic` and `gamma` 0.15, `noise` and `blur` 0.1."""


class DataSpec(Node):
    """Which records."""

    dataset: Name = "wdbc"
    """`wdbc`, `heart`, `pima`, `hypothyroid`, `readmission`, `tcga_brca`, `custom`, `medmnist`, `ham10000`, `isic2019`,
    `chestxray14`, `covid_radiography`, `covid_ct`, `brain_tumor_mri`, or a plug-in `module:Class`."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the dataset."""
    split: SplitSpec = SplitSpec()
    preprocessing: PreprocessingSpec = PreprocessingSpec()
    augment: AugmentSpec | Preset | None = None
    """Random changes of training images: the preset of a modality, or options. Validation and test rows stay as they are."""


class QuantitySpec(Node):
    """Sizes of simulated sites, in patients; for `quantity` and `combined` partitions."""

    law: Literal["power", "dirichlet", "proportions"] = "power"
    """`power`: the r-th largest site has a share proportional to r^-exponent, and at least `min_rows` patients; `dirichlet`:
    shares drawn from Dirichlet(alpha); `proportions`: as given."""
    exponent: NonNegative = 1.0
    """Of `power`: 0 is even, 1 is Zipf's law."""
    alpha: Positive = 0.5
    """Of `dirichlet`: small is very uneven."""
    proportions: tuple[Positive, ...] = ()
    """Of `proportions`: one number a site, in the order of the sites; their sum does not matter."""

    @model_validator(mode="after")
    def _proportions_are_given(self) -> QuantitySpec:
        if (self.law == "proportions") != bool(self.proportions):
            raise ValueError(
                f"law={self.law} with proportions={list(self.proportions)}: `law: proportions` needs one number a site, and "
                "other laws need none"
            )
        return self


class FeatureSkewSpec(Node):
    """How the features of sites differ, after any dealing (`natural` included) and before preprocessing."""

    noise: NonNegative = 0.0
    """Standard deviation of the Gaussian noise at the last site, in units of a column. Its variance grows evenly over the
    sites in their order (Li et al. 2022); numeric columns and pictures."""
    shift: NonNegative = 0.0
    """Standard deviation, over sites, of what a site adds to a column, in the column's units; numeric columns and pictures."""
    scale: NonNegative = 0.0
    """Standard deviation, over sites, of the logarithm of a site's factor, which stretches a column about its pooled mean;
    numeric columns and pictures."""
    missing: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Most entries that a site loses at random: its fraction is drawn evenly from 0 to this. Tables only."""
    unmeasured: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Fraction of the sites at which a column is never measured, drawn for each column anew; one site keeps it. Tables only."""
    columns: tuple[str, ...] = ()
    """Columns that are meant; default all."""
    units: dict[str, Positive] = Field(default_factory=dict)
    """Column -> size of its unit, `*` for all others; default the pooled standard deviation (of a channel, for pictures)."""
    effect: Name | None = None
    """What changes a site's features last: `scanner` for images, or a plug-in `module:Class`."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the effect."""


class PartitionSpec(Node):
    """How records are dealt to simulated sites, by patient. `natural` keeps the dataset's own hospitals."""

    kind: Name = "natural"
    """`natural`, or the dataset's records pooled and dealt: `iid` evenly, `dirichlet` with uneven labels, `pathological` with
    few classes a site, `quantity` with uneven sizes, `combined` with both; or a plug-in `module:Class`."""
    sites: Count = 5
    """Number of simulated sites (ignored by `natural`)."""
    alpha: Positive = 0.5
    """Concentration of the Dirichlet over labels (`dirichlet`, `combined`): small is very uneven, large is nearly IID."""
    classes_per_site: Count | None = None
    """Classes that a site has (`pathological`, default 2; `combined`, instead of `alpha`)."""
    shards: bool = False
    """`pathological` by shards of records sorted by label (McMahan et al. 2017): all sites of one size, about that many
    classes each."""
    min_rows: Count = 10
    """Fewest rows a simulated site may have; a draw is repeated until every site has them (ignored by `natural`)."""
    quantity: QuantitySpec = QuantitySpec()
    features: FeatureSkewSpec = FeatureSkewSpec()
    options: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of a plug-in."""

    @model_validator(mode="after")
    def _meaningful(self) -> PartitionSpec:
        given = len(self.quantity.proportions)
        if given and self.kind in ("quantity", "combined") and given != self.sites:
            raise ValueError(f"quantity.proportions has {given} numbers for sites={self.sites}: give one a site")
        if self.classes_per_site is not None and self.kind in ("iid", "dirichlet", "quantity"):
            raise ValueError(
                f"classes_per_site={self.classes_per_site} belongs to pathological and combined, and kind is {self.kind}: "
                "remove it, or choose one of them"
            )
        if self.shards and self.kind != "pathological":
            raise ValueError(f"shards belongs to pathological, and kind is {self.kind}: remove it")
        return self


class PretrainedSpec(Node):
    """Weights to begin with, and how they are fitted to the network."""

    weights: Name
    """`imagenet`, fetched where the [network has some](models.md#pretrained-weights); or the path of a `.safetensors` file, or
    of a `.pth` file of tensors."""
    stem: Literal["sum", "mean"] = "sum"
    """Where the rows have another number of channels: what of the first convolution's weights over the channels is kept."""
    head: Literal["auto", "new"] = "auto"
    """`auto` takes the file's last layer where it has as many outputs; `new` never does."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    """What the file's SHA-256 must be."""


class ModelSpec(Node):
    """The network."""

    name: Name = "logistic"
    """`logistic`, `mlp`, `cnn`, `resnet18`, `resnet50`, `densenet121`, `efficientnet_b0`, `vit_small`, or a plug-in
    `module:Class` whose instance is an `nn.Module` or a [Keras model](models.md)."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the model; built-in models also get `inputs` and `outputs` from the data."""
    local: tuple[str, ...] = ()
    """What stays at a site: patterns of names (`head.bias`, `head.*`, `*`) or module types (`BatchNorm2d`)."""
    pretrained: PretrainedSpec | Name | None = None
    """Weights to begin with: `imagenet`, a path, or options. Every site needs the same file."""
    freeze: tuple[str, ...] = ()
    """What neither trains nor travels: patterns as in `local`, in order; `!` before one lets go again what it names
    (`["*", "!fc"]` trains the last layer alone)."""


class ServerSpec(Node):
    """The server's half of the algorithm."""

    name: Name = "average"
    """`average`, `momentum`, `adam`, `yogi`, `adagrad`, or a plug-in `module:Class`."""
    learning_rate: Positive | None = None
    """Default 1 for `average` and `momentum`, 0.1 for the others."""
    beta1: Annotated[float, Field(ge=0.0, lt=1.0)] | None = None
    """Decay of the first moment; default 0.9 for `momentum`, `adam` and `yogi`, 0 for `adagrad`."""
    beta2: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.99
    """Decay of the second moment of `adam` and `yogi`."""
    epsilon: Positive = 1e-3
    """Adaptivity of `adam`, `yogi` and `adagrad` (tau in Reddi et al. 2021)."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of a plug-in."""


class AlgorithmSpec(Node):
    """The client's half of the algorithm, and its server."""

    name: Name = "fedavg"
    """`fedavg`, `fedprox`, `fednova`, `scaffold`, `fedbn`, `qfedavg`, or a plug-in `module:Class`."""
    mu: NonNegative | None = None
    """Proximal weight of `fedprox` (default 0.01) and `fednova` (default 0)."""
    q: NonNegative | None = None
    """Fairness of `qfedavg` (default 1): 0 is FedAvg, more gives weight to the sites that the model serves worst."""
    server: ServerSpec = ServerSpec()
    weighting: Literal["samples", "uniform"] = "samples"
    """Weight of a site's step in the mean: its training rows, or the same for all."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of a plug-in."""


class ScheduleSpec(Node):
    """How the local learning rate goes over rounds."""

    kind: Literal["constant", "step", "exponential", "cosine"] = "constant"
    """`step` multiplies by `factor` every `every` rounds, `exponential` each round; `cosine` falls along half a cosine until the
    last round."""
    factor: Fraction | None = None
    """Default 0.1 for `step`, 0.95 for `exponential`."""
    every: Count = 10
    """Rounds between two drops of `step`."""
    floor: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Fraction of the full rate below which it never falls; `cosine` ends there."""
    warmup: Annotated[int, Field(ge=0)] = 0
    """Rounds of a linear rise to the full rate, before the rest begins."""


class OptimizerSpec(Node):
    """The local optimiser; a fresh one at every site and round."""

    name: Literal["sgd", "adam", "adamw"] = "sgd"
    """`sgd`, `adam`, or `adamw`, whose weight decay is apart from its gradient."""
    learning_rate: Positive = 0.05
    """Length of a local step, before the schedule."""
    momentum: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Of `sgd`, without dampening."""
    weight_decay: NonNegative = 0.0
    """Multiple of the parameters that joins their gradient; `adamw` takes it from the parameters instead."""
    decay: Literal["all", "weights"] = "all"
    """What `weight_decay` shrinks: `weights` spares vectors, which are intercepts and the scales of a normalisation. Choose it
    where a class is rare: an intercept that decays draws every probability to one half, at each site anew."""
    beta1: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9
    """Decay of the first moment of `adam` and `adamw`."""
    beta2: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.999
    """Decay of their second moment."""
    epsilon: Positive = 1e-8
    """Added to their denominator."""
    schedule: ScheduleSpec = ScheduleSpec()
    """How the learning rate goes over rounds."""

    @model_validator(mode="after")
    def _momentum_belongs_to_sgd(self) -> OptimizerSpec:
        if self.name != "sgd" and self.momentum:
            raise ValueError(f"momentum={self.momentum} belongs to sgd; {self.name} has beta1 instead")
        return self


class LossSpec(Node):
    """What training minimises. Figures keep the plain cross-entropy, so that losses can be compared."""

    name: Literal["cross_entropy", "focal"] = "cross_entropy"
    """`focal` gives less to rows that are right already: (1 - p)^gamma times the cross-entropy -log p (Lin et al. 2017)."""
    gamma: NonNegative | None = None
    """Of `focal`, default 2; 0 is the cross-entropy."""
    class_weights: Literal["none", "balanced", "site"] | tuple[NonNegative, ...] = "none"
    """Factor of the rows of each class: `balanced` makes all classes weigh the same over the federation, from the sum of the
    sites' counts; `site` makes them weigh the same at each site, from its own; or one number a class."""

    @model_validator(mode="after")
    def _gamma_belongs_to_focal(self) -> LossSpec:
        if self.gamma is not None and self.name != "focal":
            raise ValueError(f"gamma={self.gamma} belongs to focal, and name is {self.name}: remove it")
        if isinstance(self.class_weights, tuple) and not any(self.class_weights):
            raise ValueError(f"class_weights={list(self.class_weights)}: at least one class must count")
        return self


class TrainingSpec(Node):
    """Rounds and local work."""

    rounds: Count = 20
    """Exchanges between the server and the sites."""
    local_steps: Budget | None = None
    """Optimiser steps a site takes each round, or `[low, high]`: each site draws its own number every round."""
    local_epochs: Budget | None = None
    """Passes over a site's training rows each round, or `[low, high]`; default 1 where `local_steps` is not set either."""
    batch_size: Count = 16
    """Rows of a local step; a site's last batch of an epoch may be smaller."""
    accumulate: Count = 1
    """Parts in which a step's batch goes through the network, one after another, for less memory: their gradients add up to the
    batch's. BatchNorm knows the rows of a part alone."""
    optimizer: OptimizerSpec = OptimizerSpec()
    """The local optimiser."""
    loss: LossSpec = LossSpec()
    """What training minimises."""
    sampling: Literal["shuffle", "balanced"] = "shuffle"
    """How an epoch of a site is drawn: `shuffle` takes each row once; `balanced` as many rows, with replacement, from the
    site's classes alike."""
    dtype: Literal["float32", "float64"] = "float32"
    """Precision of parameters and features."""

    @property
    def work(self) -> tuple[Budget | None, Budget | None]:
        """Steps and epochs a round, of which exactly one is None."""
        return self.local_steps, self.local_epochs or (None if self.local_steps else 1)

    def most_steps(self, rows: float) -> int:
        """Most steps that a site with that many training rows takes in a round."""
        steps, epochs = self.work
        return highest(steps) if steps else highest(epochs or 1) * math.ceil(rows / self.batch_size)

    @model_validator(mode="after")
    def _steps_or_epochs(self) -> TrainingSpec:
        for key in ("local_steps", "local_epochs"):
            asked = getattr(self, key)
            if isinstance(asked, tuple) and asked[0] > asked[1]:
                raise ValueError(f"{key} = {list(asked)}: expected [low, high] with low at most high")
        if self.local_steps is not None and self.local_epochs is not None:
            raise ValueError(
                f"local_steps={self.local_steps} and local_epochs={self.local_epochs} exclude each other: set one of them"
            )
        return self


def highest(budget: Budget) -> int:
    """The most that a site does."""
    return budget[1] if isinstance(budget, tuple) else budget


class FinetuningSpec(Node):
    """Personalisation after training: each site trains the kept model on, on its own training rows, and keeps what comes out."""

    epochs: Annotated[int, Field(ge=0)] = 0
    """Most passes over a site's training rows; how many count is chosen on validation rows (`evaluation.select`), the same for
    all sites and possibly none. 0: no fine-tuning."""
    layers: tuple[str, ...] = ("*",)
    """What trains: patterns as in `model.local`; all else stands still, and what stays at a site anyway trains too."""
    learning_rate: Positive | None = None
    """Default `training.optimizer.learning_rate`, without its schedule."""


class ParticipationSpec(Node):
    """Who is asked each round, and how many must answer."""

    fraction: Fraction = 1.0
    """Fraction of the sites asked each round (at least one)."""
    count: Count | None = None
    """Number of sites asked each round, instead of a fraction."""
    quorum: Count | None = None
    """Fewest sites whose contribution makes a round; default 2, or 1 where a single site is asked."""
    deadline_seconds: Positive = 600.0
    """How long the server waits for replies in a round; before rounds begin, while sites load their data, a minute at least.
    Sites in this process need none."""
    attempts: Count = 3
    """How often a round without quorum is tried before the run ends."""


class AggregationSpec(Node):
    """How Totals become one."""

    rule: Name = "mean"
    """`mean`, or a plug-in `module:Class`."""
    max_weight: Positive | None = None
    """Public upper bound of a site's rows. Default: the power of two above the largest count that sites report;
    between hospitals without a site that reports 1024 times those of the others, which is left out of the start and named."""


class ChannelSpec(Node):
    """What carries contributions."""

    kind: Name = "plain"
    """`plain`, `secagg` (masks that cancel in the sum), `he` (homomorphic encryption), or a plug-in `module:Class`."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the channel."""


class EncodingSpec(Node):
    """How the numbers of an update travel. Counts, losses and statistics are never made coarser."""

    bits: Annotated[int, Field(ge=8, le=24)] | None = None
    """Bits a value of an update. Default: floating point on the plain channel, 16 on a channel that hides."""
    rounding: Literal["auto", "nearest", "stochastic"] = "auto"
    """How a value is rounded; `auto`: to the nearest from 16 bits on, stochastically (without bias) below."""
    rotation: bool = False
    """Whether a randomised Hadamard rotation spreads each array before it is rounded, and is undone on the sum."""
    feedback: bool = False
    """Whether a site adds what rounding and `top_k` left out to its next update (error feedback). Plain channel only."""
    top_k: Fraction | None = None
    """Fraction of an update's values that is sent: the largest by magnitude. Plain channel only."""


class PrivacySpec(Node):
    """What protects the patients beyond the fact that no record leaves a site."""

    channel: ChannelSpec = ChannelSpec()
    encoding: EncodingSpec = EncodingSpec()
    secure: bool = False
    """Refuse to run on a channel on which the server sees what a single site sends."""
    dp: None = None
    """Differential privacy; not available in this version, so only null is accepted."""


class OperatingPointSpec(Node):
    """A point of the ROC curve that the decision threshold is to reach on validation rows: one of the two."""

    sensitivity: Fraction | None = None
    """Least sensitivity; of the thresholds that reach it, the one with the best specificity is taken."""
    specificity: Fraction | None = None
    """Least specificity; of the thresholds that reach it, the one with the best sensitivity is taken."""

    @model_validator(mode="after")
    def _one_of_them(self) -> OperatingPointSpec:
        if (self.sensitivity is None) == (self.specificity is None):
            raise ValueError(
                f"sensitivity={self.sensitivity} and specificity={self.specificity}: give exactly one of them to reach"
            )
        return self


class TargetSpec(Node):
    """A validation figure to reach; the report says after how many rounds and bytes the federation did."""

    metric: Literal["auroc", "auprc", "accuracy", "balanced_accuracy", "loss"] = "auroc"
    """Which figure; for `loss`, less is better."""
    value: Annotated[float, Field(allow_inf_nan=False)] | None = None
    """The figure itself; or give `fraction`."""
    fraction: Fraction | None = None
    """Fraction of the figure of the centralised model at its kept round; not for `loss`."""

    @model_validator(mode="after")
    def _one_of_them(self) -> TargetSpec:
        if (self.value is None) == (self.fraction is None):
            raise ValueError(f"value={self.value} and fraction={self.fraction}: give exactly one of them")
        if self.fraction is not None and self.metric == "loss":
            raise ValueError(f"fraction={self.fraction} of a loss would ask for less than the best: give a value")
        return self


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
    select: Literal["loss", "auroc", "auprc", "last"] = "loss"
    """What chooses the round whose model is kept, on validation rows only. With three classes or more, areas are macro."""
    threshold: Annotated[float, Field(gt=0.0, lt=1.0)] | Literal["balanced", "accuracy"] | OperatingPointSpec = 0.5
    """Decision threshold of two classes: a probability; or chosen on validation rows to maximise balanced accuracy or accuracy,
    or to reach `{sensitivity: 0.9}` or `{specificity: 0.95}`. Where rows may have several labels, each label's own."""
    target: TargetSpec | None = None
    """A validation figure to reach, `{metric: auroc, value: 0.9}` or `{metric: auroc, fraction: 0.98}` of the centralised
    model's: after how many rounds and bytes did the federation reach it?"""
    aggregate: Literal["none", "mean", "max"] = "none"
    """Judge lesions or patients instead of rows: the mean or the largest of the scores of a group's rows, whose label is the
    highest of theirs. Groups are the dataset's (a lesion, a study), else patients. The loss stays that of rows."""
    held_out: tuple[Name, ...] = ()
    """Sites that never train: their rows take no part in training, preprocessing or selection, and the kept model is judged
    on all of them at the end, as a stranger would use it."""
    maps: Annotated[int, Field(ge=0, le=64)] = 0
    """Validation images with [maps](imaging/evaluation.md#maps) of what the kept model looks at, in the report: these are
    pictures of patients, and are written only where they are asked for. Models with convolutions, in a simulation."""
    maps_by: Literal["grad_cam", "occlusion"] = "grad_cam"
    """How maps are made: `grad_cam` from the gradient at the last convolution, coarse and at once; `occlusion` by covering
    the image patch by patch, 121 times the work of a prediction and 343 times that of a volume."""
    bins: Annotated[int, Field(ge=10, le=100_000)] = 100
    """Bins of the additive score histograms."""
    release_scores: bool | None = None
    """Whether sites hand out scores and labels of test rows for exact pooled figures; default: only in one process.
    Without them figures are pooled alone, and the majority row is that of the whole federation."""
    site_figures: bool = False
    """Whether each site also works out the figures of its own rows and hands them over finished, without a row's score. Between
    hospitals each site's policy decides, before anything trains. Where scores are released, figures by site are there anyway."""


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
    finetuning: FinetuningSpec = FinetuningSpec()
    aggregation: AggregationSpec = AggregationSpec()
    privacy: PrivacySpec = PrivacySpec()
    evaluation: EvaluationSpec = EvaluationSpec()
    engine: EngineSpec = EngineSpec()

    @model_validator(mode="after")
    def _meaningful(self) -> Job:
        algorithm, optimizer = self.algorithm, self.training.optimizer
        needs_sgd = {
            "scaffold": "the control variate is read from the length of plain SGD steps (option II)",
            "fednova": "a step is divided by the accumulation of SGD steps",
        }
        if algorithm.name in needs_sgd and optimizer.name != "sgd":
            raise ValueError(
                f"algorithm {algorithm.name} with training.optimizer {optimizer.name} means nothing: "
                f"{needs_sgd[algorithm.name]}; use optimizer sgd, or another algorithm"
            )
        if algorithm.name == "fednova" and (algorithm.mu or 0.0) * optimizer.learning_rate >= 1.0:
            raise ValueError(
                f"algorithm.mu = {algorithm.mu} with learning_rate {optimizer.learning_rate}: the proximal pull alone "
                "overshoots the server's model; their product must be below 1"
            )
        if self.engine.precision == "bf16" and self.training.dtype == "float64":
            raise ValueError("engine.precision bf16 with training.dtype float64 contradict each other: choose one")
        for key, owners in {"mu": ("fedprox", "fednova"), "q": ("qfedavg",)}.items():
            if getattr(algorithm, key) is not None and algorithm.name not in owners and ":" not in algorithm.name:
                raise ValueError(
                    f"algorithm.{key} belongs to {' and '.join(owners)}, and algorithm.name is {algorithm.name}: remove {key}"
                )
        return self

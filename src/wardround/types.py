"""The vocabulary of the house: what crosses between packages, machines and rounds.

Every tensor on the training side carries a leading axis K, the sites trained together: a chunk of the cohort in one
process, 1 at a hospital. What a site sends is a `Contribution` of additive terms; what a server ever sees is a `Total`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor, nn

Arrays = dict[str, "Tensor"]
"""Named tensors: the only currency between packages."""

Json = Any
"""A value that JSON can hold; `Any` because it comes in as bytes."""

LOCAL = "local/"
"""Prefix, in a site's state, of the parameters and buffers that stay at the site."""

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


@dataclass(frozen=True, kw_only=True)
class Message:
    """What crosses a boundary.

    Attributes:
        stage: which step of a channel's or the engine's protocol this is; a site answers only stages it knows.
        meta: facts that JSON can hold.
        arrays: named tensors of any shape and dtype.
    """

    stage: str
    meta: Mapping[str, Json] = field(default_factory=dict)
    arrays: Arrays = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Work:
    """How much local work a site does in one round: exactly one of `steps` and `epochs` is set (both at least 1).

    A pair (low, high) means that each site draws its own number from low to high, both included, anew each round.
    """

    steps: int | tuple[int, int] | None
    epochs: int | tuple[int, int] | None
    batch_size: int
    learning_rate: float


@dataclass(frozen=True, kw_only=True)
class Round:
    """The same read-only facts of a round for everyone.

    Attributes:
        index: 0-based number of the round.
        attempt: 0 for the first try; a retried attempt draws the same random numbers.
        population: number of sites in the federation, whether they take part in this round or not.
        cohort: number of sites asked this round. Their names are the server's; a secure channel sends its roster itself.
        work: the local budget.
        seed: the run's seed, from which simulation streams are derived.
        max_weight: public upper bound of any site's aggregation weight (rows), so that a weight is a fraction.
        evaluate: whether sites add the figures of the incoming model to their contribution.
    """

    index: int
    attempt: int = 0
    population: int
    cohort: int
    work: Work
    seed: int
    max_weight: float
    evaluate: bool = True

    def retried(self) -> Round:
        """The next attempt of the same round."""
        return replace(self, attempt=self.attempt + 1)


@dataclass(frozen=True, kw_only=True)
class ModelState:
    """A model's trainable parameters and its buffers, kept apart.

    Buffers (BatchNorm statistics) are averaged and never meet a server optimiser or a control variate. Integer counters
    and frozen parameters are in neither: they stay in the module.
    """

    params: Arrays
    buffers: Arrays


@dataclass(frozen=True, kw_only=True)
class Server:
    """Everything the server keeps between rounds.

    Attributes:
        model: the global model; names that stay at the sites keep their initial value here.
        rule: what the local rule keeps at the server and broadcasts with the model (SCAFFOLD's c).
        optimizer: what the server rule keeps for itself and never sends (FedAdam's moments).
    """

    model: ModelState
    rule: Arrays = field(default_factory=dict)
    optimizer: Arrays = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Term:
    """One additive quantity of K sites.

    Attributes:
        arrays: name -> tensor [K, ...], unweighted.
        weights: float64 tensor [K], in 0..maximum.
        maximum: public bound of the weights; the weight is applied as the fraction weights / maximum.
        exact: True for figures (counts, losses, statistics), which an encoding keeps to full precision; False for arrays like
            updates, which it may quantise.
        accumulates: True for arrays that the server adds up over the rounds (control variates): in its memory whatever an
            encoding rounds or cuts off would add up as well, so it takes twice the bits for them.
    """

    arrays: Arrays
    weights: Tensor
    maximum: float
    exact: bool = False
    accumulates: bool = False


@dataclass(frozen=True, kw_only=True)
class Contribution:
    """What K sites give to a sum.

    Attributes:
        sites: K names, in canonical order.
        terms: term name -> Term. Terms may differ in weighting (n_k for the model's step, 1 for a control variate).
        abstained: site -> reason, for sites that were asked and give nothing (a non-finite update, say).
    """

    sites: tuple[str, ...]
    terms: Mapping[str, Term]
    abstained: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Total:
    """What the server may see: sums over the surviving sites of one group.

    Attributes:
        sums: term -> name -> sum over sites of (weight / maximum) x array.
        weights: term -> sum over sites of weight / maximum.
        survivors: names of the sites that the sums include.
        group: which group of sites this is; one group unless a robust rule asks for several.
        abstained: site -> reason, for those who were asked, answered, and are not in the sums.
        notes: what the channel says of this sum, for the run's records (bits, entries clipped); JSON.
    """

    sums: Mapping[str, Arrays]
    weights: Mapping[str, float]
    survivors: tuple[str, ...]
    group: int = 0
    abstained: Mapping[str, str] = field(default_factory=dict)
    notes: Mapping[str, Json] = field(default_factory=dict)

    def mean(self, term: str) -> Arrays:
        """The weighted mean of a term; empty where no site gave any weight."""
        weight = self.weights.get(term, 0.0)
        if weight <= 0.0:
            return {}
        return {name: value / weight for name, value in self.sums[term].items()}

    def drained(self, term: str) -> Iterator[tuple[str, Tensor]]:
        """The names and arrays of `mean`, one after another; each sum is gone once its mean is given."""
        weight, sums = self.weights.get(term, 0.0), self.sums.get(term, {})
        for name in list(sums) if weight > 0.0 else ():
            yield name, sums.pop(name) / weight


# --------------------------------------------------------------------------------------------------------- data


@dataclass(frozen=True, kw_only=True)
class Column:
    """One raw column of a clinical table.

    Attributes:
        name: the column's name.
        kind: `numeric`, or `categorical` with coded levels.
        levels: for categorical columns, the public list of codes, in order; the array holds the code's index.
        missing_codes: numeric values that mean 'not measured' (0 for a cholesterol); the dataset turns them into NaN.
    """

    name: str
    kind: Literal["numeric", "categorical"] = "numeric"
    levels: tuple[str, ...] = ()
    missing_codes: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Description:
    """What a dataset is, before any record is read by the federation.

    Attributes:
        name: registry name.
        title, source, licence: for the report and the model card.
        sites: names of the real sites; one name if the data come from one place and must be partitioned.
        columns: raw columns of a table, or () for arrays that need no tabular preprocessing (images).
        shape: shape of one row's features where `columns` is ().
        classes: class names in label order; class 1 is the positive one where there are two. Where `multilabel`, label names.
        multilabel: whether a row may have several of `classes`, or none.
        natural: whether `sites` are the data's own: real hospitals, or what stands for them (its title then says so).
        schema: how a raw table of it is read (`wardround.data.tables.schema.Schema`, as JSON); "" where `columns` say all.
        scale: (low, high) of stored pixels, which become 0 and 1 when a batch is made; None takes features as they are.
    """

    name: str
    title: str
    source: str
    licence: str
    sites: tuple[str, ...]
    columns: tuple[Column, ...] = ()
    shape: tuple[int, ...] = ()
    classes: tuple[str, ...] = ("negative", "positive")
    multilabel: bool = False
    natural: bool = False
    schema: str = ""
    scale: tuple[float, float] | None = None


@dataclass(frozen=True, kw_only=True)
class SiteData:
    """One site's records, raw.

    Attributes:
        features: float array [n, columns] (NaN = missing; categorical columns hold level indices), or [n, *shape] of any
            number, perhaps a memory map: it is read a batch at a time.
        labels: int64 array [n], 0..classes-1; where a dataset is multi-label, [n, classes] of 0 and 1.
        patients: array [n] of patient identifiers (any dtype that compares); they never leave the site.
        split: int8 array [n] with an index into SPLITS, or None where the split is still to be drawn.
        groups: array [n], which rows show the same thing (a lesion, a study; any dtype that compares), for
            `evaluation.aggregate`; None: the patient. They never leave the site.
    """

    features: NDArray[Any]
    labels: NDArray[np.int64]
    patients: NDArray[Any]
    split: NDArray[np.int8] | None = None
    groups: NDArray[Any] | None = None


class Dataset(Protocol):
    """A source of clinical records: one file each under `wardround.data.datasets`, or a plug-in `module:Class`."""

    def describe(self) -> Description:
        """The description, without reading records."""
        ...

    def load(self, site: str) -> SiteData:
        """One site's records. Raises DataError where files are absent or malformed."""
        ...


# --------------------------------------------------------------------------------------------------------- rules


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What the step knows of K sites while and after they train.

    Attributes:
        steps: float64 tensor [K], SGD steps taken.
        effective_steps: float64 tensor [K], the L1 norm of the optimiser's accumulation (equals `steps` without momentum),
            so that start - end = learning_rate x effective_steps x (weighted mean of the corrected gradients).
        learning_rate: the round's local learning rate.
        momentum: of the local SGD, 0 for other optimisers.
        incoming_loss: gives the mean loss of the server's model (with what stays at the site) over each site's training rows,
            float64 [K], 0 without rows. Each call is a forward pass over all rows.
    """

    steps: Tensor
    effective_steps: Tensor
    learning_rate: float
    momentum: float
    incoming_loss: Callable[[], Tensor]


SCALE = "scale"
"""Term with what a rule's `combine` needs to undo its scale: figures, a few numbers each."""
STEP_TERMS = ("step", SCALE, "buffers")
"""Terms that weigh a site's training rows (or 1 with uniform weighting); all others weigh 1."""


class LocalRule(Protocol):
    """The client half of an algorithm: pure functions over a leading site axis K."""

    name: str

    def local(self, name: str, module: nn.Module) -> bool:
        """Whether the parameter or buffer `name`, owned by `module`, stays at the site."""
        ...

    def initial(self, model: ModelState) -> Arrays:
        """One site's state before its first round, without a site axis; {} for a rule without memory."""
        ...

    def broadcast(self, model: ModelState) -> Arrays:
        """What the rule keeps at the server before the first round ({} for most)."""
        ...

    def start(self, server: Server, states: Arrays) -> Arrays:
        """Arrays [K, ...] that `correct` needs all round long, computed once ({} for most)."""
        ...

    def correct(self, grads: Arrays, params: Arrays, context: Arrays, server: Server) -> Arrays:
        """The gradients [k, ...] that the optimiser takes. Names that stay at the site are not in `server.model`."""
        ...

    def finish(
        self, params: Arrays, server: Server, states: Arrays, progress: Progress
    ) -> tuple[dict[str, Arrays], Arrays]:
        """Terms beside the model's own step, arrays [K, ...], and the sites' new states.

        Terms weigh 1, but for two: `step` replaces y_k - x, and `scale` is what `combine` needs to undo its scale. Both weigh
        as the model's step does.
        """
        ...

    def combine(self, total: Total, server: Server, round: Round) -> Total:
        """The Total that the server rule takes: the mean of its term `step` is the mean step; the identity for most."""
        ...

    def absorb(self, server: Server, total: Total, round: Round) -> Server:
        """The server's half of the rule's own terms (SCAFFOLD's c); the identity for most."""
        ...


class ServerRule(Protocol):
    """The server half of an algorithm: how the mean step moves the global model."""

    name: str

    def initial(self, model: ModelState) -> Arrays:
        """What the rule keeps for itself before the first round."""
        ...

    def apply(self, server: Server, total: Total, round: Round) -> Server:
        """The next server. A total without weight leaves the model as it is."""
        ...


# --------------------------------------------------------------------------------------------------------- boundaries


@dataclass(frozen=True, kw_only=True)
class Request:
    """One message for all, plus a few facts a site.

    Attributes:
        message: what every site receives.
        facts: fact name -> site -> any JSON; a site sees only its own (`counted`: the last round that included it).
    """

    message: Message
    facts: Mapping[str, Mapping[str, Json]] = field(default_factory=dict)

    def for_site(self, site: str) -> dict[str, Json]:
        """One site's facts."""
        return {name: values[site] for name, values in self.facts.items() if site in values}


@dataclass(frozen=True, kw_only=True)
class Reply:
    """An answer that covers one site, a chunk of sites, or their partial sum.

    Attributes:
        sites: the sites that this answer speaks for, canonical order.
        message: the answer.
        stacked: True where the arrays keep a leading site axis [len(sites), ...]; False for one site or a sum.
    """

    sites: tuple[str, ...]
    message: Message
    stacked: bool = False


class Engine(Protocol):
    """How requests reach sites: in this process, over Flower, through a folder."""

    @property
    def sites(self) -> tuple[str, ...]:
        """The roster, in canonical order."""
        ...

    def ask(self, request: Request, sites: Sequence[str], deadline: float | None) -> Iterator[Reply]:
        """Replies as they come, in any order, until all have answered or `deadline` seconds have passed.

        Replies may be late, duplicated or missing; whoever asks must cope.
        """
        ...

    def journal(self, index: int, sites: Sequence[str]) -> tuple[tuple[str, ...], Arrays]:
        """Where this engine holds simulated sites' states: those that `sites` staged in round `index`, [K, ...].

        ((), {}) where sites keep their own.
        """
        ...

    def restore(self, sites: Sequence[str], states: Arrays) -> None:
        """Give simulated sites their states back ([K, ...], aligned with `sites`), dropping everything else."""
        ...

    def close(self) -> None:
        """Release what the engine holds."""
        ...


class SiteHalf(Protocol):
    """The site's side of a channel: `contribute` for the stage that carries work, one method for any other stage."""

    def contribute(self, contribution: Contribution, request: Request) -> Iterator[Reply]:
        """Protect a contribution: weigh, then mask or encrypt."""
        ...

    def stages(self) -> Mapping[str, StageMethod]:
        """The other stages of the protocol, by name."""
        ...


class StageMethod(Protocol):
    """One stage of a channel at the sites."""

    def __call__(self, sites: tuple[str, ...], request: Request) -> Iterator[Reply]:
        """Answer for `sites`."""
        ...


class Channel(Protocol):
    """How contributions become totals: plain, secure aggregation, homomorphic encryption.

    Attributes:
        name: of its kind.
        hides: whether the server sees sums alone, and never what a single site sent.
    """

    name: str
    hides: bool

    def bind(self, run: str, memory: Json) -> None:
        """Before the first exchange of a process: the run's id, and what `memory` gave at the last commit (None at first)."""
        ...

    def memory(self) -> Json:
        """What the server's half must know again after a restart, so that a resumed run equals an uninterrupted one."""
        ...

    def collect(
        self, engine: Engine, request: Request, sites: Sequence[str], deadline: float | None, quorum: int
    ) -> Iterator[Total]:
        """Run the channel's stages and yield a Total a group. Raises QuorumLost with fewer than `quorum` survivors."""
        ...

    def site_half(self, sites: Sequence[str]) -> SiteHalf:
        """The side of `sites` simulated in this process, holding whatever they must remember between stages."""
        ...


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What training K sites gives.

    Attributes:
        terms: term -> name -> [K, ...]: `step` and `buffers` (differences from the server's), and the rule's own.
        states: the sites' new states, name -> [K, ...].
        loss: float64 [K], mean loss over the round's steps; NaN where a site took none.
    """

    terms: dict[str, Arrays]
    states: Arrays
    loss: Tensor


class Executor(Protocol):
    """How K sites of a chunk are trained in one process: stacked or sequential, equal to each other."""

    name: str

    def train(self, rule: LocalRule, server: Server, states: Arrays, data: Rows, round: Round) -> Trained:
        """Train every site of `data` from the server's model.

        Args:
            rule: the client half of the algorithm.
            server: what was broadcast: the shared part of the model and the rule's own arrays.
            states: the sites' states, name -> [K, ...]; names under `local/` are parameters and buffers that stay.
            data: the sites' training rows.
            round: budget, seed and index.
        """
        ...


class Features(Protocol):
    """Rows that become tensors when they are asked for: what training needs of a tensor [R, *shape], and no more."""

    dtype: torch.dtype
    device: torch.device

    @property
    def shape(self) -> torch.Size:
        """[R, *shape]."""
        ...

    def __getitem__(self, rows: Any, /) -> Tensor:
        """One row, or the rows with the numbers in a tensor of any shape."""
        ...

    def index_select(self, dim: int, rows: Tensor, /) -> Tensor:
        """The rows with the numbers in an int64 tensor [r]; `dim` is 0."""
        ...

    def new_zeros(self, *shape: int) -> Tensor:
        """Zeros of this dtype, on this device."""
        ...


@dataclass(frozen=True, kw_only=True)
class Rows:
    """One split of K sites, flat: site k owns rows start[k] .. start[k] + count[k].

    Attributes:
        features: tensor [R, ...] on the training device, or stored pictures that become one a batch at a time.
        labels: int64 tensor [R], or [R, labels] of 0 and 1 where a dataset is multi-label.
        start, count: int64 arrays [K].
        keys: uint64 array [K], the sites' stream keys.
    """

    features: Tensor | Features
    labels: Tensor
    start: NDArray[np.int64]
    count: NDArray[np.int64]
    keys: NDArray[np.uint64]

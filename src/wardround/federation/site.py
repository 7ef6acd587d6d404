"""What a hospital does at each stage. One host serves the sites of its process: one at a hospital, many in a simulation.

A site's half of a round runs: evaluate the incoming model, train, let the rule finish, abstain where the update is not
finite, write the result ahead, then hand it to the channel, which weighs and protects it. A site's new state stays pending
until a later request says that its contribution was counted. A request that names the selected round takes the site back to
its state as of then.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from wardround.aggregation.finite import finite_sites
from wardround.algorithms import registry as algorithms
from wardround.algorithms.fedavg import FedAvg
from wardround.algorithms.finetune import FineTune
from wardround.config.job import Job
from wardround.data import preprocess, standardize
from wardround.data.preprocess import Statistics
from wardround.data.standardize import Fitted, Standardization, fitted_from_json
from wardround.encoding import feedback, parcel
from wardround.encoding.compress import compression_of
from wardround.errors import ConfigError, DataError, MessageError, Refused
from wardround.federation import messages
from wardround.federation.by_site import Judged, SiteFigures, site_figures, threshold_from
from wardround.federation.choice import choose_executor, choose_workers, convolves_apart
from wardround.federation.records import Records
from wardround.models import registry as models
from wardround.store.states import SiteStates
from wardround.training import memory
from wardround.training.evaluate import Evaluator, aggregated, figures
from wardround.training.executors import Sequential, Stacked
from wardround.training.forward import Switches
from wardround.training.loss import multilabel, scores
from wardround.training.probe import Probe, probe
from wardround.training.recipe import PLAIN, Recipe, recipe_of
from wardround.training.tables import from_rows
from wardround.types import (
    LOCAL,
    SCALE,
    STEP_TERMS,
    Arrays,
    Contribution,
    Message,
    ModelState,
    Reply,
    Request,
    Round,
    SiteHalf,
    Split,
    Term,
)

if TYPE_CHECKING:
    from wardround.training.workers import Workers

Release = Callable[[str, str, SiteFigures, Judged], SiteFigures]
"""What of a site's figures may leave it: of a model's name, the SHA-256 of what was asked, the figures, and their scores."""
Seen = dict[str, dict[str, Judged]]
"""Model -> site -> its scores, for what compares two models of a run on the same rows."""

EXACT_TERMS = (SCALE, "buffers")
"""Terms of training that no encoding makes coarser: what undoes a rule's scale, and BatchNorm's statistics, of which a rounded
or late variance would turn negative."""


class Network:
    """The model as this process runs it: module, executor, evaluator, and what of it stays at a site.

    Args:
        job: the run.
        shape: shape of one prepared row.
        classes: label classes.
        device: where it runs.
        start: parameters and buffers to begin with instead of the initial ones.
        multilabel: whether each class is a label of its own.
        recipe: how it trains.
        light: whether the module keeps no values of its own of what the server holds; they go when it is probed.
    """

    def __init__(
        self, job: Job, shape: tuple[int, ...], classes: int, device: torch.device, start: Arrays | None = None,
        *, multilabel: bool = False, recipe: Recipe = PLAIN, light: bool = False,
    ) -> None:  # fmt: skip
        dtype = torch.float64 if job.training.dtype == "float64" else torch.float32
        self.module = models.build(job.model, shape, classes, seed=job.seed, dtype=dtype, multilabel=multilabel).to(
            device
        )
        if start:
            self.module.load_state_dict(start, strict=False)
        self.rule = algorithms.local_rule(job.algorithm)
        whole = models.state_of(self.module, copies=False)  # whoever trains takes copies
        names, owners = [*whole.params, *whole.buffers], models.owners(self.module)
        self.local = algorithms.local_names(job.model.local, self.rule, owners, names)
        if job.finetuning.epochs:  # a pattern that matches nothing is refused before training, not after it
            algorithms.local_names(job.finetuning.layers, self.rule, owners, names, where="finetuning.layers")
        params = {n: v for n, v in whole.params.items() if n not in self.local}
        buffers = {n: v for n, v in whole.buffers.items() if n not in self.local}
        self._frozen = frozenset(params) if self.rule.name == FineTune.name else frozenset()
        if self._frozen:
            params, buffers = {}, {**params, **buffers}
        self.shared = ModelState(params=params, buffers=buffers)
        stays = {LOCAL + n: v for n, v in {**whole.params, **whole.buffers}.items() if n in self.local}
        initial = {**self.rule.initial(self.shared), **stays}
        if feedback.applies(job.privacy):
            initial |= feedback.initial(self.rule, self.shared, initial, EXACT_TERMS)
        self.initial_state: Arrays = {name: value.cpu() for name, value in initial.items()}
        self.parameters = sum(v.numel() for v in whole.params.values())
        self.given = models.given_to(self.module)
        self._job, self._shape, self._device, self._recipe, self._light = job, shape, device, recipe, light

    def lighten(self) -> None:
        """Let go of the values of what the server holds: whoever uses the module gives it them."""
        params = {name: value.to("meta") for name, value in self.shared.params.items()}
        self.shared = replace(self.shared, params=params)
        light: dict[int, nn.Parameter] = {}  # tied parameters stay tied
        for name, value in list(self.module.named_parameters(remove_duplicate=False)):
            if name in params and id(value) not in light:
                light[id(value)] = nn.Parameter(params[name], requires_grad=value.requires_grad)
            if id(value) in light:
                owner, _, leaf = name.rpartition(".")
                setattr(self.module.get_submodule(owner), leaf, light[id(value)])

    @cached_property
    def _choice(self) -> tuple[Probe, bool, str]:
        apart = convolves_apart(self._job, self._shape, self._device)
        stack = False if self._job.engine.executor == "sequential" else None if apart else True
        trial = self.module
        if self._light:  # the values themselves are tried, which nobody else needs
            own = {id(value): value for name, value in trial.named_parameters() if name in self.shared.params}
            trial = copy.deepcopy(trial, own)
            self.lighten()
        found = probe(trial, self._shape, stack=stack, copies=not self._light)
        return found, *choose_executor(self._job, found, self._shape, self._device)

    @property
    def probe(self) -> Probe:
        """What one look at the module found."""
        return self._choice[0]

    @property
    def reason(self) -> str:
        """Why this executor, in words."""
        return self._choice[2]

    @cached_property
    def executor(self) -> Stacked | Sequential:
        """How sites are trained; the first use probes the module."""
        found, stackable, _ = self._choice
        engine = self._job.engine
        switches = Switches(precision=engine.precision, compile=engine.compile)
        kind = Stacked if stackable else Sequential
        return kind(self.module, self._job.training.optimizer, found, switches, self._frozen, self._recipe)

    @cached_property
    def evaluator(self) -> Evaluator:
        """How rows are scored."""
        return Evaluator(self.module, stackable=self._choice[1], channels_last=self.probe.channels_last)


class Host:
    """The sites of one process.

    Args:
        job: the run; every site holds the same.
        records: the sites' rows.
        states: what each site keeps between rounds.
        half: the site's side of the channel.
        device: where training runs.
        release: what of finished figures may leave; None: all, for sites of this process.
        seen: scores of this run's models, shared by their hosts.
        arms: makes the host of another model of the run, by name; None: there is none.
        tasks: additive tasks that are answered.
        light: whether the module keeps no values of its own of what the server holds; see `Network.lighten`.
    """

    def __init__(
        self, job: Job, records: Records, states: SiteStates, half: SiteHalf, device: torch.device, *,
        release: Release | None = None, seen: Seen | None = None, arms: Callable[[str], Host] | None = None,
        tasks: Collection[str] = messages.TASKS, light: bool = False,
    ) -> None:  # fmt: skip
        self.job, self.records, self.states = job, records, states
        self._half, self._device = half, device
        self._figures_leave, self._seen = release, {} if seen is None else seen
        self._make_arm, self._arms, self._tasks = arms, dict[str, Host](), tasks
        self._light = light
        self._network: Network | None = None
        self._prepared = ""
        self._workers: Workers | None = None
        self.own: dict[str, Fitted] = {}

    @property
    def network(self) -> Network:
        """The model, once `prepare` was received."""
        if self._network is None:
            raise MessageError("a task came before `prepare`: the server must send the preprocessing first")
        return self._network

    @property
    def workers(self) -> int:
        """Processes that train and score."""
        return 1 if self._workers is None else self._workers.number

    def close(self) -> None:
        """Remove what worker processes shared."""
        for other in self._arms.values():
            other.close()
        if self._workers is not None:
            self._workers.close()

    def arm(self, name: str) -> Host:
        """The host of another model of the run.

        Raises:
            MessageError: there is none of that name.
        """
        if name not in self._arms:
            if self._make_arm is None:
                raise MessageError(
                    f"a message is for the model {name!r:.80}, and this run has none beside the federation's"
                )
            self._arms[name] = self._make_arm(name)
        return self._arms[name]

    def answer(self, request: Request, sites: tuple[str, ...]) -> Iterator[Reply]:
        """Answer one request for `sites`.

        Raises:
            MessageError: a stage, a task or a model that this site does not know.
        """
        arm, request = messages.without_arm(request)
        if arm is not None:
            for reply in self.arm(arm).answer(request, sites):
                yield messages.of_arm(reply, arm)
            return
        stage = request.message.stage
        if stage == messages.CONTRIBUTE:
            yield from self._contribute(request, sites)
            return
        direct = {
            messages.ENROL: self._enrol, messages.PREPARE: self._prepare, messages.RELEASE: self._release,
            messages.FIGURES: self._by_site,
        }  # fmt: skip
        method = direct.get(stage) or self._half.stages().get(stage)
        if method is None:
            raise MessageError(f"stage {stage!r} is unknown here: server and site run different versions or channels")
        yield from method(sites, request)

    # ------------------------------------------------------------------------------------------------ direct questions

    def _enrol(self, sites: tuple[str, ...], request: Request) -> Iterator[Reply]:
        rows = torch.from_numpy(self.records.count(sites, "train"))
        yield Reply(sites=sites, message=Message(stage=messages.ENROL, arrays={"rows": rows}), stacked=True)

    def _prepare(self, sites: tuple[str, ...], request: Request) -> Iterator[Reply]:
        """Receive the preprocessing, turn rows into tensors and build the model: once a process."""
        if self._network is None:
            self._prepared = messages.digest_of(request)
            stored = request.message.meta["preprocessing"]
            shared = None if stored is None else fitted_from_json(stored)
            spec = self.job.data.preprocessing
            by = spec.pictures if isinstance(shared, Standardization) else spec.standardize
            if shared is not None and by == "site":
                self.own = {site: self._fit_alone(site, shared) for site in self.records.origins}
            dtype = torch.float64 if self.job.training.dtype == "float64" else torch.float32
            self.records.prepare(shared, self.own, device=self._device, dtype=dtype)
            classes = len(self.records.description.classes)
            given = self._here(request.message.arrays)
            recipe = recipe_of(
                self.job, self.records.row_shape, classes, multilabel=self.records.description.multilabel,
                class_weights=request.message.meta.get("class_weights"),
            )  # fmt: skip
            if self.records.standard is not None:
                recipe = replace(
                    recipe, standard=self.records.standard, first=self.records.first_training_rows() if self.own else {}
                )
            self._network = Network(
                self.job, self.records.row_shape, classes, self._device, given,
                recipe=recipe, multilabel=self.records.description.multilabel, light=self._light,
            )  # fmt: skip
            self._check_model(self._network, classes)
            self._spread(self._network)
        meta = {"executor": self.network.executor.name, "reason": self._reason()}
        yield Reply(sites=sites, message=Message(stage=messages.PREPARE, meta=meta))

    def _spread(self, network: Network) -> None:
        """Share rows and model with worker processes, where there are to be any."""
        sites = self.records.sites
        rows = int(self.records.count(sites, "train").sum())
        number = choose_workers(
            self.job, stacked=network.executor.name == "stacked", shape=self.records.row_shape, rows=rows, sites=len(sites),
            device=self._device,
        )  # fmt: skip
        if number > 1:
            from wardround.training.workers import Workers

            data = self.records.rows(sites, "train")
            self._workers = Workers(network.executor, data.features, data.labels, number)
            self.records.move(self._workers.features, self._workers.labels)

    def _reason(self) -> str:
        how, _, why = self.network.reason.partition(": ")
        return f"{how} on {self.workers} workers: {why}" if self._workers else self.network.reason

    def _check_model(self, network: Network, classes: int) -> None:
        """Refuse a model that the labels do not fit, and one-row batches where BatchNorm could not train on them."""
        name, outputs = self.job.model.name, network.probe.outputs
        two = classes == 2 and not self.records.description.multilabel
        if outputs not in ((1, 2) if two else (classes,)):
            kind = "labels" if self.records.description.multilabel else "classes"
            raise ConfigError(
                f"model {name} gives {outputs} logits a row, and there are {classes} {kind}: expected "
                f"{'1 (or 2)' if two else classes}; a model may take `outputs` as an argument"
            )
        if not network.parameters:
            raise ConfigError(f"model {name} has no parameter that could be trained")
        if network.probe.single_row:
            return
        why = "its BatchNorm needs two rows to know a variance; use a model without it (mlp with norm: none)"
        if self.job.training.batch_size == 1:
            raise ConfigError(
                f"training.batch_size = 1, and model {self.job.model.name} cannot train on one row: {why}"
            )
        rows = self.records.count(self.records.sites, "train")
        alone = [self.records.sites[k] for k in np.flatnonzero(rows == 1)[:5]]
        if alone:
            raise DataError(
                f"{', '.join(alone)}: one training row, and model {self.job.model.name} cannot train on one: {why}, or give "
                "every site more rows (partition.min_rows)"
            )

    def _fit_alone(self, site: str, shared: Fitted) -> Fitted:
        if isinstance(shared, Standardization):
            first = self._first_of_pictures(site)
            second = standardize.second_statistics(
                self.records.training_pictures(site), standardize.channel_means(first)
            )
            return standardize.fit(first, second, "site") if first["rows"][0] else shared
        columns, spec = self.records.description.columns, self.job.data.preprocessing
        rows = self.records.raw_training_of_origin(site)
        first = preprocess.first_statistics(columns, rows)
        second = preprocess.second_statistics(columns, rows, preprocess.column_means(first))
        return preprocess.fit(columns, first, second, spec, gaps=shared.gaps)

    def _release(self, sites: tuple[str, ...], request: Request) -> Iterator[Reply]:
        """Row scores and labels of a split: only a process that holds all records is ever asked.

        Raises:
            Refused: the job says that they stay.
        """
        if self.job.evaluation.release_scores is False:
            raise Refused("scores of single rows stay here: evaluation.release_scores is false")
        split: Split = request.message.meta["split"]
        for site, (likely, labels) in self._scores(sites, request, split).items():
            arrays = {"scores": likely, "labels": labels}
            yield Reply(sites=(site,), message=Message(stage=messages.RELEASE, meta={"split": split}, arrays=arrays))

    def _by_site(self, sites: tuple[str, ...], request: Request) -> Iterator[Reply]:
        """Finished figures of each site's own test rows, as far as they may leave.

        Raises:
            Refused: the job asks for none.
            MessageError: a model is to be compared with the federation's, whose figures were not asked for yet.
        """
        spec, meta = self.job.evaluation, request.message.meta
        if not spec.site_figures:
            raise Refused("figures of this site alone stay here: evaluation.site_figures is false")
        model = meta.get("model")
        if model not in messages.MODELS:
            raise MessageError(f"figures of the model {model!r:.80} are unknown here")
        cut = threshold_from(meta.get("threshold"), len(self.records.description.classes))
        self._settle(request, sites, -1)
        found = {
            site: Judged(table=from_rows(likely.numpy(), labels.numpy()), threshold=cut)
            for site, (likely, labels) in self._scores(sites, request, "test").items()
        }
        for site, judged in found.items():
            own = model == messages.FEDERATED
            against = None if own else self._seen.get(messages.FEDERATED, {}).get(site)
            if not own and against is None:
                raise MessageError(
                    "figures of the federation's model come first: ask for them, then for those beside it"
                )
            figures = site_figures(site, self.records, judged, against, resamples=spec.bootstrap, seed=self.job.seed)
            if self._figures_leave is not None:
                figures = self._figures_leave(model, messages.digest_of(request), figures, judged)
            self._seen.setdefault(model, {})[site] = judged
            said = {"model": model, "figures": figures.to_json()}
            yield Reply(sites=(site,), message=Message(stage=messages.FIGURES, meta=said))

    def _scores(
        self, sites: tuple[str, ...], request: Request, split: Split
    ) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """Scores and labels of the rows (or groups) of each site, under the model that came with a request."""
        server = messages.server_from(self._here(request.message.arrays))
        states = self._read(sites)
        logits, labels, owner = self._evaluator.logits(server.model, states, self.records.rows(sites, split))
        likely, labels = scores(logits, labelled=multilabel(logits, labels)), labels.cpu()
        groups = self.records.groups(sites, split)
        if groups is not None:
            likely, labels, owner = aggregated(likely, labels, owner, groups, self.job.evaluation.aggregate)
        own = [torch.from_numpy(owner == k) for k in range(len(sites))]
        return {site: (likely[mine], labels[mine]) for site, mine in zip(sites, own, strict=True)}

    # ------------------------------------------------------------------------------------------------ additive tasks

    def _contribute(self, request: Request, sites: tuple[str, ...]) -> Iterator[Reply]:
        message = request.message
        round = messages.round_from(message.meta)
        task = message.meta["task"]
        if task not in self._tasks:
            raise MessageError(f"task {task!r} is unknown here: server and site run different versions")
        if task == messages.TRAIN and round.index < self.states.earliest_round(sites):
            return  # an old request, delivered late: to answer would forget what is pending
        if task not in (messages.STATISTICS, messages.CLASSES):
            self._check_prepared(message)
        if task not in (messages.STATISTICS, messages.CLASSES):
            self._settle(request, sites, round.index if task == messages.TRAIN else -1)
        if task == messages.STATISTICS:
            contribution = self._statistics(sites, message)
        elif task == messages.CLASSES:
            contribution = self._class_counts(sites)
        elif task == messages.TRAIN:
            # a digest of the whole model, for those alone who keep what they answered
            question = messages.question_of(message) if self.states.keeps_replies else ""
            written = self.states.staged_reply(round.index)
            if written is not None and written.meta.get(messages.ANSWERS) == question:
                contribution = messages.contribution_from(written)
            else:
                contribution = self._train(sites, message, round, question)
                if self._light:
                    memory.give_back()  # before the channel makes of it what is sent
        elif task == messages.EVALUATE:
            server = messages.server_from(self._here(message.arrays))
            states = self._read(sites)
            terms = {split: self._figures(server.model, states, sites, split) for split in message.meta["splits"]}
            contribution = Contribution(sites=sites, terms=terms)
        else:
            rows = torch.from_numpy(self.records.count(sites, "train")).double()
            kept = {n.removeprefix(LOCAL): v for n, v in self._read(sites).items() if n.startswith(LOCAL)}
            contribution = Contribution(
                sites=sites, terms={"overlay": Term(arrays=kept, weights=rows, maximum=round.max_weight)}
            )
        if task != messages.TRAIN:  # which has left them out already, before it wrote ahead
            # one site's non-finite figure would spoil the partial sum of every site beside it
            contribution, _ = messages.without_non_finite(contribution)
        yield from self._half.contribute(contribution, request)

    def _check_prepared(self, message: Message) -> None:
        """Whether a request is for sites that were prepared as these were, which a channel may insist that it says.

        Raises:
            MessageError: it is not, or does not say.
        """
        said = message.meta.get(messages.PREPARED)
        if said != self._prepared and (said is not None or getattr(self._half, "binds", False)):
            raise MessageError(
                f"a task is for sites that were prepared with {said!r:.80}, and here it was {self._prepared!r}: the server told "
                "sites different things, or differs in its version; submit the job anew"
            )

    def _settle(self, request: Request, sites: tuple[str, ...], current: int) -> None:
        meta, counted = request.message.meta, request.facts.get(messages.COUNTED, {})
        selected = meta.get(messages.SELECTED)
        self.states.settle(sites, counted, current, meta.get(messages.BEST) if selected is None else selected)
        if selected is not None:
            self.states.rewind(sites, selected)

    def _train(self, sites: tuple[str, ...], message: Message, round: Round, question: str) -> Contribution:
        network = self.network
        server = messages.server_from(self._here(message.arrays))
        if type(network.rule).correct is not FedAvg.correct:  # which may look at the server's model in each step
            server = messages.in_memory(server)
        states, residuals = feedback.split(self._read(sites))
        terms: dict[str, Term] = {}
        if round.evaluate:
            terms["validation"] = self._figures(server.model, states, sites, "validation")
        data = self.records.rows(sites, "train")
        trained = (self._workers or network.executor).train(network.rule, server, states, data, round)
        rows = torch.from_numpy(data.count).double()
        works = (rows > 0).double()
        by_rows = self.job.algorithm.weighting == "samples"
        for name, arrays in trained.terms.items():
            weights, maximum = (rows, round.max_weight) if name in STEP_TERMS and by_rows else (works, 1.0)
            terms[name] = Term(
                arrays=arrays,
                weights=weights,
                maximum=maximum,
                exact=name in EXACT_TERMS,
                accumulates=name not in STEP_TERMS,
            )
        loss = torch.where(rows > 0, trained.loss * rows, torch.zeros_like(rows))
        terms["training"] = Term(arrays={"loss": loss, "rows": rows}, weights=works, maximum=1.0, exact=True)
        contribution, good = messages.without_non_finite(Contribution(sites=sites, terms=terms))
        good = good & _finite(trained.states, len(sites))
        if residuals:
            how, seed = compression_of(self.job.privacy.encoding), parcel.round_seed(message.meta["round"])
            contribution, residuals = feedback.corrected(contribution, residuals, how, seed)
        states = {**trained.states, **residuals}
        whole = bool(good.all())
        staged = sites if whole else tuple(s for s, fine in zip(sites, good.tolist(), strict=True) if fine)
        kept = states if whole else {n: v[good.to(v.device)] for n, v in states.items()}
        kept = {name: value.cpu() for name, value in kept.items()}
        reply = messages.contribution_message(contribution, question) if self.states.keeps_replies else None
        self.states.stage(round.index, staged, kept, reply=reply)
        return contribution

    def _figures(self, model: ModelState, states: Arrays, sites: tuple[str, ...], split: Split) -> Term:
        logits, labels, owner = self._evaluator.logits(model, states, self.records.rows(sites, split))
        spec = self.job.evaluation
        arrays = figures(
            logits, labels, owner, sites=len(sites), bins=spec.bins, groups=self.records.groups(sites, split),
            how=spec.aggregate,
        )  # fmt: skip
        return Term(arrays=arrays, weights=torch.ones(len(sites), dtype=torch.float64), maximum=1.0, exact=True)

    @property
    def _evaluator(self) -> Evaluator | Workers:
        return self._workers or self.network.evaluator

    def _statistics(self, sites: tuple[str, ...], message: Message) -> Contribution:
        mean = message.arrays.get("mean")
        columns, given = self.records.description.columns, None if mean is None else mean.numpy()
        each = []
        for site in sites:
            if not columns:
                each.append(self._statistics_of_pictures(site, given))
                continue
            rows = self.records.raw_training(site)
            if given is None:
                each.append(preprocess.first_statistics(columns, rows))
            else:
                each.append(preprocess.second_statistics(columns, rows, given))
        arrays = {name: torch.from_numpy(np.stack([one[name] for one in each])) for name in each[0]}
        ones = torch.ones(len(sites), dtype=torch.float64)
        term = Term(arrays=arrays, weights=ones, maximum=1.0, exact=True)
        return Contribution(sites=sites, terms={"statistics": term})

    def _statistics_of_pictures(self, site: str, mean: NDArray[np.float64] | None) -> Statistics:
        if mean is None:
            return self._first_of_pictures(site)
        if self.job.data.preprocessing.pictures == "site":
            mean = standardize.channel_means(self._first_of_pictures(site))
        return standardize.second_statistics(self.records.training_pictures(site), mean)

    def _first_of_pictures(self, site: str) -> Statistics:
        channels = self.records.description.shape[0]
        return standardize.first_statistics(self.records.training_pictures(site), channels)

    def _class_counts(self, sites: tuple[str, ...]) -> Contribution:
        counts = torch.tensor([self.records.class_counts(site)["train"] for site in sites], dtype=torch.float64)
        ones = torch.ones(len(sites), dtype=torch.float64)
        term = Term(arrays={"rows": counts}, weights=ones, maximum=1.0, exact=True)
        return Contribution(sites=sites, terms={"classes": term})

    def _read(self, sites: tuple[str, ...]) -> Arrays:
        return self._here(self.states.read(sites, self.network.initial_state))

    def _here(self, arrays: Arrays) -> Arrays:
        if self._device.type == "cpu":
            return arrays  # where they are: of a long message in a file, until each is used
        return {name: value.to(self._device) for name, value in arrays.items()}


def _finite(states: Arrays, sites: int) -> torch.Tensor:
    good = torch.ones(sites, dtype=torch.bool)
    for value in states.values():
        good &= finite_sites(value)
    return good

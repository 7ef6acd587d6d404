"""The one loop: draw a round, collect a Total through the channel, apply the rules, commit, tell who was counted.

The figures of the model after round t travel with the contributions of round t + 1, so a round is one exchange.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from wardround import streams
from wardround.aggregation import registry as aggregation
from wardround.algorithms import registry as algorithms
from wardround.algorithms.fedavg import FedAvg
from wardround.config.job import Job
from wardround.data.preprocess import Preprocessing
from wardround.data.standardize import Fitted, fitted_from_json
from wardround.errors import ConfigError, MessageError, QuorumLost, RunError, StorageError
from wardround.federation import answers, messages
from wardround.federation.by_site import SiteFigures
from wardround.federation.class_weights import fit_class_weights
from wardround.federation.metering import Metered
from wardround.federation.preprocess import fit_pictures, fit_preprocessing
from wardround.federation.schedule import cohort_of, quorum_of, round_of
from wardround.federation.site import Network
from wardround.plain import plain
from wardround.store.group import GroupCommit
from wardround.store.run import Run
from wardround.training.tables import Cut, Table, from_sums, measure
from wardround.types import (
    SPLITS,
    Arrays,
    Channel,
    Description,
    Engine,
    Json,
    Message,
    ModelState,
    Reply,
    Request,
    Round,
    Server,
    Split,
    Total,
)

Listener = Callable[[Mapping[str, Json]], None]
"""Called with one mapping an event: `event` is `setup`, `round`, `retry`, `selected`, or, between hospitals, `site`: what is
wrong with one."""
_LOADING = 60.0
"""Seconds that the questions before rounds begin have at least: sites load their data then."""
_WORDS = 300


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A trained federation.

    Attributes:
        server: the server after the selected round.
        preprocessing: fitted from the sites' sums, or None for data that need none.
        network: the model as the server knows it.
        selected: rounds completed when the kept model was made.
        max_weight: public bound of a site's rows.
        executor, reason: how sites were trained, and why so.
        overlay: the mean, over sites, of what stays at them, for a stranger; {} where nothing stays.
        bytes_up, bytes_down, seconds: over the whole run, setup and overlay included.
    """

    server: Server
    preprocessing: Fitted | None
    network: Network
    selected: int
    max_weight: float
    executor: str
    reason: str
    overlay: Arrays
    bytes_up: int
    bytes_down: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Start:
    """Where a federation goes on from.

    Attributes:
        model: the shared part of a trained model.
        sites, states: what each site keeps, [K, ...]; () and {} where they begin with `model`.
    """

    model: ModelState
    sites: tuple[str, ...] = ()
    states: Arrays = field(default_factory=dict)

    def whole(self, initial: Arrays) -> tuple[tuple[str, ...], Arrays]:
        """The sites and their states, completed by what a site begins with where it has kept nothing."""
        missing = {n: v.expand(len(self.sites), *v.shape).clone() for n, v in initial.items() if n not in self.states}
        return (self.sites, {**missing, **self.states}) if self.sites else ((), {})


class Federation:
    """The server's side of one run.

    Args:
        job: the run.
        engine: how sites are reached.
        channel: how contributions are protected.
        description: what the dataset is, without records.
        run: the folder that every round is committed to; a run with commits is resumed.
        listener: told of progress.
        preprocessing: one already fitted, for a baseline that must see the same features; None fits it from the sites.
        start: a trained model to go on from, which is itself a candidate for the model that is kept; None begins anew.
        strangers: whether to average what stays at the sites, for a site that took no part.
    """

    def __init__(
        self, job: Job, engine: Engine, channel: Channel, description: Description, run: Run,
        listener: Listener = lambda event: None, preprocessing: Fitted | None = None, start: Start | None = None,
        *, strangers: bool = True,
    ) -> None:  # fmt: skip
        self.job, self.engine, self.channel = job, Metered(engine), channel
        self._remote = getattr(engine, "remote", False)
        self._strangers = strangers
        self._description, self._run, self._listen = description, run, listener
        self._given, self._start = preprocessing, start
        self._server_rule = algorithms.server_rule(job.algorithm)
        self._aggregate = aggregation.build(job.aggregation)
        channel.bind(run.id, None)
        self._commits = GroupCommit(run, job.engine.commit_seconds if getattr(engine, "volatile", False) else 0.0)
        self._records: list[dict[str, Any]] = []
        self._keys = streams.site_keys(self.engine.sites)
        self._deadline = job.participation.deadline_seconds
        self._patience = max(self._deadline, _LOADING)
        self._max_weight = 1.0
        self._class_weights: dict[str, list[float]] = {}
        self._prepared: dict[str, Json] = {}
        self._counted: dict[str, int] = {}
        self._best_yet: int | None = None
        self._spent = 0.0
        self._began = time.perf_counter()

    # ------------------------------------------------------------------------------------------------ setting up

    def train(self) -> Outcome:
        """Train to the end, from the start or from the last commit.

        Raises:
            QuorumLost: a round had too few sites in every attempt.
            RunError: the folder belongs to a run with other executors or chunks.
        """
        server = self._begin() if self._run.completed is None else self._resume()
        try:
            for index in range(self._completed, self.job.training.rounds):
                server = self._one_round(server, index)
        except BaseException:
            # what ended the run is the error to tell; a commit that it cut short is for the next writer to repair
            with suppress(RunError, StorageError):
                self._commits.flush()
            raise
        self._commits.flush()
        return self._select(server)

    def _begin(self) -> Server:
        population = self.engine.sites
        rows: dict[str, int] = {}
        request = Request(message=Message(stage=messages.ENROL))
        for reply in self._answers(request):
            with self._naming(reply):
                rows |= answers.rows_of(reply)
        bound = self.job.aggregation.max_weight
        above = sorted(site for site, n in rows.items() if bound is not None and n > bound)
        if self._remote:
            said = f"it has more rows than aggregation.max_weight = {bound}"
            for site, text in (answers.absurd(rows) if bound is None else dict.fromkeys(above, said)).items():
                self._name(site, "dropped", text)
                del rows[site]
            for site, text in answers.heavy(rows).items():
                self._name(site, "weight", text)
        elif above:
            raise ConfigError(
                f"aggregation.max_weight = {bound:g} is below the rows of {', '.join(above[:5])}: raise it"
            )
        quorum = self._quorum(len(population))
        if len(rows) < quorum:
            raise QuorumLost(
                f"{len(rows)} of {len(population)} sites answered at the start, and the quorum is {quorum}"
            )
        self._max_weight = bound if bound is not None else float(2 ** math.ceil(math.log2(max(*rows.values(), 1, 1))))
        columns = self._description.columns
        self._preprocessing = self._given
        if columns and self._preprocessing is None:
            self._preprocessing = fit_preprocessing(
                self.engine, self.channel, columns, self.job.data.preprocessing, self._round(-1, len(population)),
                deadline=self._patience, quorum=quorum,
            )  # fmt: skip
        by = self.job.data.preprocessing.pictures
        if by != "none" and self._preprocessing is None:
            self._preprocessing = fit_pictures(
                self.engine, self.channel, by, self._round(-1, len(population)), deadline=self._patience, quorum=quorum
            )
        if self.job.training.loss.class_weights == "balanced" and not self._description.multilabel:
            found = fit_class_weights(
                self.engine, self.channel, self._round(-1, len(population)), classes=len(self._description.classes),
                deadline=self._patience, quorum=quorum,
            )  # fmt: skip
            self._class_weights = {"class_weights": found}
        self._prepare()
        server = self._initial()
        if self._remote:
            self.network.lighten()
        first = {
            "max_weight": self._max_weight,
            "preprocessing": self._preprocessing.to_json() if self._preprocessing else None,
            "executor": self._executor,
            "reason": self._reason,
            **self._class_weights,
            **self._of_channel(),
            **self._spending(),
        }
        sites, states = self._start.whole(self.network.initial_state) if self._start else ((), {})
        if states:
            self.engine.restore(sites, states)
        self._run.commit(0, [first], server, sites, states)
        self._records = [first]
        self._completed = 0
        self._tell("setup")
        return server

    def _resume(self) -> Server:
        records = self._records = self._run.records
        first = records[0]
        self._max_weight = first["max_weight"]
        stored = first["preprocessing"]
        self._preprocessing = None if stored is None else fitted_from_json(stored)
        self._class_weights = {name: first[name] for name in ("class_weights",) if name in first}
        self._prepare()
        if self._remote:
            # machines of others may have changed, and their answers are words of theirs: a run does not end by them
            self._executor, self._reason = first["executor"], first["reason"]
        elif (first["executor"], first["reason"]) != (self._executor, self._reason):
            raise RunError(
                f"{self._run.path}: sites trained as '{first['reason']}', and now as '{self._reason}': a resumed run keeps it"
            )
        server, sites, states = self._run.restore()
        self.engine.restore(sites, states)
        for index, record in enumerate(records[1:]):
            self._counted |= dict.fromkeys(self._participants(record), index)
        self._best_yet = self._best(records)
        self._completed = len(records) - 1
        last = records[-1]
        self.channel.bind(self._run.id, last.get("channel"))
        self.engine.up, self.engine.down, self._spent = last["bytes_up"], last["bytes_down"], last["seconds"]
        self._began = time.perf_counter()
        self._tell("setup")
        return server

    def _prepare(self) -> None:
        stored = self._preprocessing.to_json() if self._preprocessing else None
        given: Arrays = {**self._start.model.params, **self._start.model.buffers} if self._start else {}
        meta = {"preprocessing": stored, **self._class_weights}
        request = Request(message=Message(stage=messages.PREPARE, meta=meta, arrays=given))
        self._prepared = {messages.PREPARED: messages.digest_of(request)} if self.channel.hides else {}
        kinds: dict[str, str] = {}
        for reply in self._answers(request):
            with self._naming(reply):
                executor, why = answers.executor_of(reply)
                kinds[executor] = why
        self._executor, self._reason = " and ".join(sorted(kinds)), "; ".join(kinds[kind] for kind in sorted(kinds))
        fitted = self._preprocessing
        shape = (len(fitted.names),) if isinstance(fitted, Preprocessing) else self._description.shape
        self.network = Network(
            self.job, shape, len(self._description.classes), torch.device("cpu"), given,
            multilabel=self._description.multilabel,
        )  # fmt: skip
        if self._remote and self._run.completed is not None:
            self.network.lighten()

    def _answers(self, request: Request) -> Iterator[Reply]:
        """Every site's answer to a direct question; a late reply to an earlier request is passed over."""
        for reply in self.engine.ask(request, self.engine.sites, self._patience):
            if reply.message.stage == request.message.stage:
                yield reply

    @contextmanager
    def _naming(self, reply: Reply) -> Iterator[None]:
        """A site that sends nonsense is named, and its answer passed over."""
        try:
            yield
        except MessageError as error:
            if not self._remote:
                raise
            self._name(", ".join(reply.sites), "dropped", str(error))

    def _name(self, site: str, what: str, text: str) -> None:
        self._tell("site", site=site, what=what, text=text)

    def _initial(self) -> Server:
        model = self.network.shared
        return Server(model=model, rule=self.network.rule.broadcast(model), optimizer=self._server_rule.initial(model))

    # ------------------------------------------------------------------------------------------------ one round

    def _one_round(self, server: Server, index: int) -> Server:
        asked = self._cohort(index)
        round = self._round(index, len(asked))
        total = self._collect(round, server, asked)
        server = self._moved(server, total, round)
        self._counted.update(zip(total.survivors, itertools.repeat(index)))
        sites, states = self.engine.journal(index, total.survivors)
        everyone = len(asked) == len(self.engine.sites)
        record = {
            "round": index,
            "cohort": "all" if everyone else list(asked),
            "missing": _missing(asked, total.survivors),
            # a site's own words, where it is elsewhere
            "abstained": {site: plain(str(why))[:_WORDS] for site, why in total.abstained.items() if site in asked},
            "train_loss": _ratio(total, "training"),
            "validation": self._validation(total, index),
            **self._of_channel(total),
            **self._spending(),
        }
        done = index + 1
        self._records.append(record)
        best = self._best_yet = self._best(self._records)
        self._commits.add(done, record, server, sites, states, keep=() if best is None else (best,))
        self._completed = done
        self._tell("round", **record, survivors=len(total.survivors), asked=len(asked))
        return server

    def _moved(self, server: Server, total: Total, round: Round) -> Server:
        rule, mover = self.network.rule, self._server_rule
        combined = rule.combine(total, server, round)
        if not isinstance(combined, Total):
            raise ConfigError(
                f"algorithm {rule.name}: combine gives {type(combined).__name__}, expected the Total that a server rule takes"
            )
        if type(rule).absorb is not FedAvg.absorb:  # the server rule may use up what it is given
            combined = replace(combined, sums={term: dict(arrays) for term, arrays in combined.sums.items()})
        moved = _server(mover.apply(server, combined, round), f"server rule {mover.name}: apply")
        return _server(rule.absorb(moved, total, round), f"algorithm {rule.name}: absorb")

    def _collect(self, round: Round, server: Server, asked: tuple[str, ...]) -> Total:
        quorum = self._quorum(len(asked))
        arrays = messages.server_arrays(server)
        while True:
            request = messages.ask_for(messages.TRAIN, round, arrays, self._counted, **self._asked_with(messages.BEST))
            try:
                return self._aggregate.combine(
                    self.channel.collect(self.engine, request, asked, self._deadline, quorum)
                )
            except QuorumLost as lost:
                if round.attempt + 1 >= self.job.participation.attempts:
                    raise QuorumLost(f"round {round.index}, after {round.attempt + 1} attempts: {lost}") from lost
                self._tell("retry", round=round.index, attempt=round.attempt + 1, cause=str(lost))
                round = round.retried()

    def _cohort(self, index: int) -> tuple[str, ...]:
        return cohort_of(self.job, self.engine.sites, self._keys, index)

    def _quorum(self, asked: int) -> int:
        return quorum_of(self.job, asked)

    def _round(self, index: int, cohort: int) -> Round:
        return round_of(
            self.job, index, population=len(self.engine.sites), cohort=cohort, max_weight=self._max_weight,
            trained=self._start is not None,
        )  # fmt: skip

    # ------------------------------------------------------------------------------------------------ figures, selection

    def _validation(self, total: Total, completed: int) -> dict[str, Any] | None:
        """Figures of the model that the sites received, that is, after `completed` rounds."""
        sums = total.sums.get("validation")
        if not sums or float(sums["rows"]) == 0.0:
            return None
        found: dict[str, Any] = {
            "completed": completed,
            "rows": int(sums["rows"]),
            "loss": float(sums["loss"] / sums["rows"]),
        }
        if "positives" in sums:
            figures = measure(from_sums(sums), 0.5)
            shown = ("auroc", "auprc", "accuracy", "balanced_accuracy")
            found |= {name: figures[name] for name in shown if name in figures}
        return found

    def _best(self, records: list[dict[str, Any]]) -> int | None:
        """Rounds completed of the best model that has validation figures so far."""
        how = self.job.evaluation.select
        known = [r["validation"] for r in records if r.get("validation")]
        if how == "last" or not known:
            return None
        if how != "loss":
            ranked = [(-v[how], v["completed"]) for v in known if how in v]
        else:
            ranked = [(v["loss"] if math.isfinite(v["loss"]) else math.inf, v["completed"]) for v in known]
        return min(ranked)[1] if ranked else None

    def _told(self, name: str) -> dict[str, Json]:
        """The best round so far, or the selected one, for sites that keep something of their own; {} where none does."""
        return {name: self._best_yet} if self._best_yet is not None and self.network.initial_state else {}

    def _asked_with(self, name: str) -> dict[str, Json]:
        """What goes beside a task: `_told`, and how the sites were prepared where the channel binds its masks to that."""
        return {**self._told(name), **self._prepared}

    def _select(self, server: Server) -> Outcome:
        """Judge the last model, then go back to the best one."""
        rounds = self.job.training.rounds
        final = self._run.read_json("final.json") if (self._run.path / "final.json").exists() else None
        if final is None:
            round = self._round(rounds, len(self.engine.sites))
            request = messages.ask_for(
                messages.EVALUATE, round, messages.server_arrays(server), self._counted, splits=["validation"],
                **self._asked_with(messages.BEST),
            )  # fmt: skip
            quorum = self._quorum(len(self.engine.sites))
            totals = self.channel.collect(self.engine, request, self.engine.sites, self._deadline, quorum)
            final = {"validation": self._validation(self._aggregate.combine(totals), rounds), **self._spending()}
            self._run.write_json("final.json", final)
        best = self._best([*self._records, final])
        selected = rounds if best is None else best
        server, sites, states = self._run.restore(selected)
        self.engine.restore(sites, states)
        self._best_yet = selected
        self._tell("selected", completed=selected)
        self.engine.up, self.engine.down = final["bytes_up"], final["bytes_down"]
        overlay = self._overlay_average()
        return Outcome(
            server=server,
            preprocessing=self._preprocessing,
            network=self.network,
            selected=selected,
            max_weight=self._max_weight,
            executor=self._executor,
            reason=self._reason,
            overlay=overlay,
            bytes_up=self.engine.up,
            bytes_down=self.engine.down,
            seconds=final["seconds"],
        )

    def _overlay_average(self) -> Arrays:
        if not self._strangers or not self.network.local or self._start is not None:
            return {}  # with a start, a stranger takes the model that others went on from
        round = self._round(self.job.training.rounds, len(self.engine.sites))
        request = messages.ask_for(messages.OVERLAY, round, {}, self._counted, **self._asked_with(messages.SELECTED))
        quorum = self._quorum(len(self.engine.sites))
        totals = self.channel.collect(self.engine, request, self.engine.sites, self._deadline, quorum)
        return self._aggregate.combine(totals).mean("overlay")

    def histograms(self, outcome: Outcome) -> dict[Split, Table]:
        """Pooled scores of every split under the selected model, from additive counts: no row leaves a site."""
        sites = self.engine.sites
        request = messages.ask_for(
            messages.EVALUATE, self._round(self.job.training.rounds + 1, len(sites)),
            messages.server_arrays(outcome.server), self._counted, splits=list(SPLITS), **self._asked_with(messages.SELECTED),
        )  # fmt: skip
        totals = self.channel.collect(self.engine, request, sites, self._deadline, self._quorum(len(sites)))
        sums = self._aggregate.combine(totals).sums
        return {split: from_sums(sums[split]) for split in SPLITS}

    def site_figures(
        self, outcome: Outcome, threshold: Cut, model: str
    ) -> tuple[dict[str, SiteFigures], dict[str, str]]:
        """What each site says of the selected model on its own test rows, and why others say nothing that counts.

        Args:
            outcome: what was selected.
            threshold: the decision threshold that pooled figures gave.
            model: its name, one of `messages.MODELS`; the federation's is asked for before the others.
        """
        cut = list(threshold) if isinstance(threshold, tuple) else threshold
        meta = {"model": model, "threshold": cut, **self._told(messages.SELECTED)}
        message = Message(stage=messages.FIGURES, meta=meta, arrays=messages.server_arrays(outcome.server))
        request = Request(message=message, facts={messages.COUNTED: self._counted})
        classes = len(self._description.classes)
        found, faults = dict[str, SiteFigures](), dict[str, str]()
        for reply in self._answers(request):
            site, said = reply.sites[0], reply.message.meta
            if said.get("model") != model:
                continue  # a late answer about another one
            try:
                found[site] = SiteFigures.from_json(said.get("figures"), classes)
            except MessageError as error:
                faults[site] = str(error)
        return found, {site: faults.get(site, "no answer") for site in self.engine.sites if site not in found}

    def history(self) -> list[dict[str, Any]]:
        """One entry a round: training loss, the validation figures of the model *after* it, and what it cost so far."""
        records = self._records[1:]
        final = self._run.read_json("final.json")
        figures = {v["completed"]: v for v in (r.get("validation") for r in [*records, final]) if v}
        return [
            {
                "completed": i + 1,
                "train_loss": record["train_loss"],
                "validation": figures.get(i + 1),
                "bytes_up": record["bytes_up"],
                "bytes_down": record["bytes_down"],
                "seconds": record["seconds"],
                "cohort": len(self._asked(record)),
                "survivors": len(self._participants(record)),
                "abstained": record["abstained"],
                **({"encoding": record["encoding"]} if "encoding" in record else {}),
            }
            for i, record in enumerate(records)
        ]

    def _asked(self, record: Mapping[str, Any]) -> tuple[str, ...]:
        return self.engine.sites if record["cohort"] == "all" else tuple(record["cohort"])

    def _participants(self, record: Mapping[str, Any]) -> list[str]:
        missing = set(record["missing"])
        return [site for site in self._asked(record) if site not in missing]

    def _of_channel(self, total: Total | None = None) -> dict[str, Any]:
        """What the channel must know again after a restart, and says of a sum; {} for a channel without memory."""
        memory = self.channel.memory()
        found = {} if memory is None else {"channel": memory}
        return found | {"encoding": dict(total.notes)} if total is not None and total.notes else found

    def _spending(self) -> dict[str, Any]:
        seconds = self._spent + time.perf_counter() - self._began
        return {"bytes_up": self.engine.up, "bytes_down": self.engine.down, "seconds": seconds}

    def _tell(self, event: str, **facts: Json) -> None:
        self._listen({"event": event, "rounds": self.job.training.rounds, **facts})


def _server(given: Any, who: str) -> Server:
    if not isinstance(given, Server):
        raise ConfigError(
            f"{who} gives {type(given).__name__}, expected the next Server (dataclasses.replace makes one)"
        )
    return given


def _ratio(total: Total, term: str) -> float | None:
    sums = total.sums.get(term)
    return float(sums["loss"] / sums["rows"]) if sums and float(sums["rows"]) > 0 else None


def _missing(asked: Sequence[str], survivors: Sequence[str]) -> list[str]:
    if len(survivors) == len(asked):
        return []
    counted = set(survivors)
    return [site for site in asked if site not in counted]

"""The requests that the server makes, as messages, and what a site reads from them.

Stage `contribute` carries a task: `statistics`, `classes`, `train`, `evaluate` or `overlay`, whose additive result goes
through the channel. The stages `enrol`, `prepare`, `release` and `figures` are direct questions: what a site says of itself,
what it is told once, the row scores that one process may hand to its own report, and the finished figures of a site's own
rows. A message whose meta has an `arm` is for another model of the same run, which a site keeps apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import torch

from wardround import wire
from wardround.aggregation.finite import all_finite, finite_sites
from wardround.content import digest_of as digest_of_bytes
from wardround.types import (
    Arrays,
    Contribution,
    Json,
    Message,
    ModelState,
    Reply,
    Request,
    Round,
    Server,
    Term,
    Work,
)

ENROL, PREPARE, RELEASE, FIGURES, CONTRIBUTE = "enrol", "prepare", "release", "figures", "contribute"
STATISTICS, CLASSES, TRAIN, EVALUATE, OVERLAY = "statistics", "classes", "train", "evaluate", "overlay"
TASKS = (STATISTICS, CLASSES, TRAIN, EVALUATE, OVERLAY)
COUNTED, BEST, SELECTED = "counted", "best", "selected"
"""What the server says of earlier rounds, beside a task: to each site the last round that included it; to all the rounds
completed when the best model so far was made, and, at the end, when the one that is kept was."""

PREPARED = "prepared"
"""Beside a task that needs the model, on a channel that hides: `digest_of` the request in which sites were prepared, so that it
is a part of what is asked."""

FEDERATED, ALONE = "federated", "local"
MODELS = (FEDERATED, ALONE)
"""Models of a run of which figures by site can be asked for."""
ARM = "arm"
"""Member of a message's meta: which further model of the run it is for; absent for the federation's own."""

ANSWERS = "answers"
"""Member of what is written ahead: `question_of` the request that it answers."""

_GROUPS = ("params", "buffers", "rule")


def server_arrays(server: Server) -> Arrays:
    """What is broadcast: the shared model and the rule's own arrays; never the server optimiser's memory."""
    groups = {"params": server.model.params, "buffers": server.model.buffers, "rule": server.rule}
    return {f"{group}/{name}": value for group, arrays in groups.items() for name, value in arrays.items()}


def server_from(arrays: Arrays) -> Server:
    """The server as a site sees it; what a channel adds to a request under names of its own is passed over."""
    params, buffers, rule = (wire.under(arrays, f"{group}/") for group in _GROUPS)
    return Server(model=ModelState(params=params, buffers=buffers), rule=rule)


def in_memory(server: Server) -> Server:
    """The server with arrays that are read once, also where they lie in a file."""
    model = ModelState(params=dict(server.model.params), buffers=dict(server.model.buffers))
    return replace(server, model=model, rule=dict(server.rule))


def ask_for(task: str, round: Round, arrays: Arrays, counted: Mapping[str, int] | None = None, **meta: Json) -> Request:
    """A request to contribute to a task."""
    facts = {} if counted is None else {COUNTED: counted}
    return Request(
        message=Message(stage=CONTRIBUTE, meta={"task": task, "round": asdict(round), **meta}, arrays=arrays),
        facts=facts,
    )


def round_from(meta: Mapping[str, Json]) -> Round:
    """The round that a request belongs to."""
    fields = dict(meta["round"])
    work: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in fields["work"].items()
    }
    return Round(**{**fields, "work": Work(**work)})


def for_arm(request: Request, arm: str) -> Request:
    """The request as it reaches the sites of another model of the run."""
    message = request.message
    return replace(request, message=replace(message, meta={**message.meta, ARM: arm}))


def without_arm(request: Request) -> tuple[str | None, Request]:
    """Which other model a request is for, None for the federation's own, and the request as that model's sites know it."""
    meta = dict(request.message.meta)
    arm = meta.pop(ARM, None)
    return arm, request if arm is None else replace(request, message=replace(request.message, meta=meta))


def of_arm(reply: Reply, arm: str) -> Reply:
    """An answer that says which other model of the run it is about."""
    return replace(reply, message=replace(reply.message, meta={**reply.message.meta, ARM: arm}))


def digest_of(request: Request) -> str:
    """SHA-256 of what all sites were asked, hexadecimal."""
    return digest_of_bytes(wire.stream(request.message))


def question_of(message: Message) -> str:
    """SHA-256, hexadecimal, of what a site is to work on in a round: the same in all its attempts and exchanges."""
    round = asdict(replace(round_from(message.meta), attempt=0))
    meta = {"task": message.meta["task"], "round": round, PREPARED: message.meta.get(PREPARED)}
    return digest_of_bytes(wire.stream(Message(stage="question", meta=meta, arrays=message.arrays)))


def for_site(request: Request, site: str) -> Message:
    """What crosses the boundary to one site: the message for all, with the site's own facts."""
    return with_facts(request.message, request.for_site(site))


def with_facts(message: Message, facts: Mapping[str, Json]) -> Message:
    """The message for all, with one site's facts."""
    return replace(message, meta={**message.meta, "facts": dict(facts)}) if facts else message


def contribution_message(contribution: Contribution, question: str) -> Message:
    """A contribution as a site writes it ahead of sending, so that a retried attempt at the same question gives the same."""
    arrays: Arrays = {}
    for name, term in contribution.terms.items():
        arrays |= {f"{name}/array/{n}": value for n, value in term.arrays.items()}
        arrays[f"{name}/weights"] = term.weights
    # a list keeps the order of the terms, on which the bytes of the reply depend; the keys of an object are sorted
    maxima = [[name, term.maximum, term.exact, term.accumulates] for name, term in contribution.terms.items()]
    meta = {"sites": list(contribution.sites), "maxima": maxima, "abstained": dict(contribution.abstained)}
    meta[ANSWERS] = question
    return Message(stage="written-ahead", meta=meta, arrays=arrays)


def contribution_from(message: Message) -> Contribution:
    """The contribution that was written ahead."""
    terms = {}
    for name, maximum, exact, accumulates in message.meta["maxima"]:
        prefix = f"{name}/array/"
        arrays = {n.removeprefix(prefix): v for n, v in message.arrays.items() if n.startswith(prefix)}
        terms[name] = Term(
            arrays=arrays,
            weights=message.arrays[f"{name}/weights"],
            maximum=maximum,
            exact=exact,
            accumulates=accumulates,
        )
    return Contribution(sites=tuple(message.meta["sites"]), terms=terms, abstained=message.meta["abstained"])


def without_non_finite(contribution: Contribution) -> tuple[Contribution, torch.Tensor]:
    """Sites whose update is not finite abstain: their arrays and weights become 0. Also returns who stays, bool [K]."""
    good = torch.ones(len(contribution.sites), dtype=torch.bool)
    faults: dict[int, str] = {}
    for term, content in contribution.terms.items():
        for name, value in content.arrays.items():
            if all_finite(value):
                continue
            finite = finite_sites(value)
            for k in torch.nonzero(good & ~finite).flatten().tolist():
                faults[k] = f"a non-finite value in {term}/{name}"
            good &= finite
    if not faults:
        return contribution, good
    terms = {}
    for term, content in contribution.terms.items():
        arrays = {n: _zeroed(value, good) for n, value in content.arrays.items()}
        terms[term] = replace(content, arrays=arrays, weights=content.weights * good)
    named = {contribution.sites[k]: reason for k, reason in faults.items()}
    return Contribution(sites=contribution.sites, terms=terms, abstained={**contribution.abstained, **named}), good


def _zeroed(value: torch.Tensor, good: torch.Tensor) -> torch.Tensor:
    keep = good.to(value.device).view(-1, *[1] * (value.dim() - 1))
    return torch.where(keep, value, torch.zeros_like(value))

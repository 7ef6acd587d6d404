"""The requests that the server makes, as messages, and what a site reads from them.

Stage `contribute` carries a task: `statistics`, `classes`, `train`, `evaluate` or `overlay`, whose additive result goes
through the channel. The stages `enrol`, `prepare` and `release` are direct questions: what a site says of itself, what it is
told once, and the row scores that one process may hand to its own report.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import torch

from wardround.aggregation.finite import all_finite, finite_sites
from wardround.types import (
    Arrays,
    Contribution,
    Json,
    Message,
    ModelState,
    Request,
    Round,
    Server,
    Term,
    Work,
)

ENROL, PREPARE, RELEASE, CONTRIBUTE = "enrol", "prepare", "release", "contribute"
STATISTICS, CLASSES, TRAIN, EVALUATE, OVERLAY = "statistics", "classes", "train", "evaluate", "overlay"
TASKS = (STATISTICS, CLASSES, TRAIN, EVALUATE, OVERLAY)

_GROUPS = ("params", "buffers", "rule")


def server_arrays(server: Server) -> Arrays:
    """What is broadcast: the shared model and the rule's own arrays; never the server optimiser's memory."""
    groups = {"params": server.model.params, "buffers": server.model.buffers, "rule": server.rule}
    return {f"{group}/{name}": value for group, arrays in groups.items() for name, value in arrays.items()}


def server_from(arrays: Arrays) -> Server:
    """The server as a site sees it; what a channel adds to a request under names of its own is passed over."""
    groups: dict[str, Arrays] = {group: {} for group in _GROUPS}
    for flat, value in arrays.items():
        group, _, name = flat.partition("/")
        if group in groups:
            groups[group][name] = value
    return Server(model=ModelState(params=groups["params"], buffers=groups["buffers"]), rule=groups["rule"])


def ask_for(task: str, round: Round, arrays: Arrays, counted: Mapping[str, int] | None = None, **meta: Json) -> Request:
    """A request to contribute to a task."""
    facts = {} if counted is None else {"counted": counted}
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


def for_site(request: Request, site: str) -> Message:
    """What crosses the boundary to one site: the message for all, with the site's own facts."""
    return with_facts(request.message, request.for_site(site))


def with_facts(message: Message, facts: Mapping[str, Json]) -> Message:
    """The message for all, with one site's facts."""
    return replace(message, meta={**message.meta, "facts": dict(facts)}) if facts else message


def contribution_message(contribution: Contribution) -> Message:
    """A contribution as a site writes it ahead of sending, so that a retried attempt gives the same."""
    arrays: Arrays = {}
    for name, term in contribution.terms.items():
        arrays |= {f"{name}/array/{n}": value for n, value in term.arrays.items()}
        arrays[f"{name}/weights"] = term.weights
    # a list keeps the order of the terms, on which the bytes of the reply depend; the keys of an object are sorted
    maxima = [[name, term.maximum, term.exact, term.accumulates] for name, term in contribution.terms.items()]
    meta = {"sites": list(contribution.sites), "maxima": maxima, "abstained": dict(contribution.abstained)}
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

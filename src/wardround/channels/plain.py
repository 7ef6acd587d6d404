"""The plain channel: contributions are weighed and sent as they are, or compressed.

Who sees what: the server sees every site's weighed contribution, or the partial sum of a process that holds several sites.
Nothing is hidden from the server; it is the channel for a laptop, and for sites that trust their coordinator. That it sees
each site's own is what lets `privacy.encoding.top_k` work: sites may send different entries of an array.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch

from wardround.aggregation.finite import all_finite
from wardround.aggregation.weighting import WEIGHT, weighed, weighed_sum
from wardround.channels.order import canonical
from wardround.config.job import EncodingSpec
from wardround.encoding import parcel
from wardround.encoding.compress import Compression, compression_of
from wardround.errors import MessageError, QuorumLost
from wardround.types import Arrays, Contribution, Engine, Json, Message, Reply, Request, StageMethod, Total

CONTRIBUTE = "contribute"
_TRAIN, _COMPRESSED = "train", "compressed"

Form = frozenset[tuple[str, tuple[int, ...], str]]
"""Names, shapes and dtypes of a reply's arrays: what sums must have in common."""


class Plain:
    """One stage, `contribute`; replies are folded as they come, in canonical order.

    Args:
        encoding: how updates are compressed; None sends them as they are.

    Raises:
        ConfigError: an encoding that means nothing here.
    """

    name = "plain"
    hides = False

    def __init__(self, encoding: EncodingSpec | None = None) -> None:
        self._compression = None if encoding is None else compression_of(encoding)

    def bind(self, run: str, memory: Json) -> None:
        """Nothing is bound to a run."""

    def memory(self) -> Json:
        """Nothing to know again."""
        return None

    def collect(
        self, engine: Engine, request: Request, sites: Sequence[str], deadline: float | None, quorum: int
    ) -> Iterator[Total]:
        """Ask once and yield one Total.

        A reply to another round or task is ignored; one with a non-finite value, or of another form (names, shapes,
        dtypes) than most sites have, is left out, and named in `Total.abstained`.

        Raises:
            QuorumLost: fewer than `quorum` sites are in the sum.
        """
        asked = replace(request, message=replace(request.message, stage=CONTRIBUTE))
        forms: dict[Form, tuple[list[str], Arrays]] = {}
        abstained: dict[str, str] = {}
        answers = (reply for reply in engine.ask(asked, sites, deadline) if answers_to(reply, asked))
        for reply in canonical(answers, sites):
            refused: Mapping[str, str] = reply.message.meta.get("abstained", {})
            abstained |= {site: reason for site, reason in refused.items() if site in reply.sites}
            counted = [site for site in reply.sites if site not in refused]
            if not counted:
                continue
            try:
                arrays = _sums(reply, self._compression, asked)
            except MessageError as error:
                abstained |= dict.fromkeys(counted, f"its message cannot be added: {error}")
                continue
            fault = _non_finite(arrays)
            if fault:
                abstained |= dict.fromkeys(counted, fault)
                continue
            survivors, sums = forms.setdefault(_form(arrays), ([], {}))
            for name, value in arrays.items():
                sums[name] = sums[name] + value if name in sums else value
            survivors += counted
        # the form is not known beforehand, and the first reply may be the odd one, so each form has its sum
        survivors, sums = max(forms.values(), key=lambda found: len(found[0]), default=([], {}))
        for others, _ in forms.values():
            if others is not survivors:
                abstained |= dict.fromkeys(others, "its arrays have other names, shapes or dtypes than most sites'")
        if len(survivors) < quorum:
            raise quorum_lost(survivors, sites, quorum, abstained)
        yield total(sums, tuple(survivors), abstained)

    def site_half(self, sites: Sequence[str]) -> PlainSite:
        """The site's side, which remembers nothing."""
        return PlainSite(self._compression)


class PlainSite:
    """Weighs, and adds up the sites of its own process; compressed updates stay apart, for the server to add up."""

    def __init__(self, compression: Compression | None = None) -> None:
        self._compression = compression

    def contribute(self, contribution: Contribution, request: Request) -> Iterator[Reply]:
        """One reply for all K sites: the partial sum of their weighed terms, or compressed updates, each site's its own."""
        if self._compression is not None and request.message.meta["task"] == _TRAIN:
            yield _compressed(contribution, self._compression, request)
            return
        arrays = {
            f"{term}/{name}": value
            for term, content in contribution.terms.items()
            for name, value in weighed_sum(content).items()
        }
        message = reply_to(request, CONTRIBUTE, arrays, abstained=dict(contribution.abstained))
        yield Reply(sites=contribution.sites, message=message)

    def stages(self) -> Mapping[str, StageMethod]:
        """No other stage."""
        return {}


def _compressed(contribution: Contribution, compression: Compression, request: Request) -> Reply:
    """A stacked reply: exact terms weighed, [K, ...]; the fractions [K] of all terms; and a parcel of the other arrays."""
    exact: Arrays = {}
    for term, content in contribution.terms.items():
        kept = content if parcel.travels_whole(content, compression) else replace(content, arrays={})
        exact |= {f"{term}/{name}": value for name, value in weighed(kept).items()}
    seed = parcel.round_seed(request.message.meta["round"])
    tensors, contents = parcel.packed(
        parcel.compressible(contribution, compression), contribution.sites, compression, seed
    )
    meta = {"abstained": dict(contribution.abstained), _COMPRESSED: contents}
    return Reply(
        sites=contribution.sites, message=reply_to(request, CONTRIBUTE, {**exact, **tensors}, **meta), stacked=True
    )


def _sums(reply: Reply, compression: Compression | None, request: Request) -> Arrays:
    """The sums that a reply brings, decompressed and weighed where they are not sums yet. Raises MessageError."""
    arrays, count = reply.message.arrays, len(reply.sites)
    if _COMPRESSED not in reply.message.meta:
        return arrays
    if compression is None:
        raise MessageError(
            "it is compressed, and privacy.encoding asks for nothing of the kind: server and site differ"
        )
    sums: Arrays = {}
    for name, value in arrays.items():
        if name.startswith("."):
            continue
        if value.dim() == 0 or len(value) != count:
            raise MessageError(f"'{name}' has the shape {list(value.shape)}, expected a leading axis of {count} sites")
        sums[name] = value.sum(0)
    seed = parcel.round_seed(request.message.meta["round"])
    for name, value in parcel.opened(arrays, reply.message.meta[_COMPRESSED], count, compression, seed):
        share = arrays.get(f"{name.split('/', 1)[0]}/{WEIGHT}")
        if share is None or share.dim() != 1 or name in sums:
            raise MessageError(f"'{name}' comes twice, or without the weights of its term")
        sums[name] = torch.tensordot(share.to(value), value, dims=1)
    return sums


def reply_to(request: Request, stage: str, arrays: Arrays, **meta: Json) -> Message:
    """The message that answers `request` in a stage: it repeats what was asked, so that a late one is recognised."""
    asked = request.message.meta
    return Message(stage=stage, meta={"task": asked["task"], "round": asked["round"]["index"], **meta}, arrays=arrays)


def answers_to(reply: Reply, request: Request) -> bool:
    """Whether a reply belongs to this request's stage, task and round (any attempt: those bytes are the same)."""
    asked, meta = request.message, reply.message.meta
    return (
        reply.message.stage == asked.stage
        and meta.get("task") == asked.meta["task"]
        and meta.get("round") == asked.meta["round"]["index"]
    )


def quorum_lost(
    survivors: Sequence[str], asked: Sequence[str], quorum: int, abstained: Mapping[str, str]
) -> QuorumLost:
    """The error that says who is missing and why."""
    there = set(survivors)
    reasons = {site: abstained.get(site, "no reply") for site in asked if site not in there}
    named = "".join(f"; {site}: {reason}" for site, reason in list(reasons.items())[:10])
    diverged = any("non-finite" in reason for reason in reasons.values())
    advice = "lower the learning rate, or look at those sites' records" if diverged else "bring sites back, or lower it"
    return QuorumLost(
        f"{len(survivors)} of {len(asked)} sites contributed, and participation.quorum is {quorum}{named}: {advice}"
    )


def total(sums: Arrays, survivors: tuple[str, ...], abstained: Mapping[str, str]) -> Total:
    """A Total from flat names `term/name`."""
    terms: dict[str, Arrays] = {}
    weights: dict[str, float] = {}
    for flat, value in sums.items():
        term, name = flat.split("/", 1)
        if name == WEIGHT:
            weights[term] = float(value)
            terms.setdefault(term, {})
        else:
            terms.setdefault(term, {})[name] = value
    return Total(sums=terms, weights=weights, survivors=survivors, abstained=abstained)


def _form(arrays: Arrays) -> Form:
    return frozenset((name, tuple(value.shape), str(value.dtype)) for name, value in arrays.items())


def _non_finite(arrays: Arrays) -> str:
    """Why a reply cannot be added, or an empty string."""
    for name, value in arrays.items():
        if not all_finite(value):
            return f"a non-finite value in {name}"
    return ""

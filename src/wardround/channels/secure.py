"""Channels on which the server sees sums alone: an encoding, masks, and a carrier, put together.

    terms -> fraction x array -> digits -> elements -> + masks -> sealed by the carrier      at a site
    added -> opened by the carrier -> - what is left of the masks -> digits -> sums          at the server

`secagg` is masks over words; `he` is ciphertexts, with masks inside unless the sites trust each other and the server not to
join forces. Everything additive goes through unchanged, for an algorithm cannot tell what carried its sums.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from weakref import ReferenceType, ref

import numpy as np
import torch

from wardround import streams
from wardround.aggregation.finite import all_finite
from wardround.channels.carrier import Accumulator, Carrier, Elements, SiteCarrier, SiteWords, Words
from wardround.channels.exchange import (
    EXCHANGE,
    PART_MEASURE,
    PART_VALUES,
    Exchange,
    Talk,
    answer,
    asked_of,
    exchange_of,
)
from wardround.channels.home import Home
from wardround.channels.order import canonical
from wardround.channels.plain import CONTRIBUTE, quorum_lost, total
from wardround.channels.secagg.server import MaskServer, MaskSpec, Roster
from wardround.channels.secagg.site import MaskSite
from wardround.config.job import EncodingSpec
from wardround.encoding.codec import Decoder, Rounding, encode
from wardround.encoding.exponents import LEAST as LEAST_EXPONENT
from wardround.encoding.field import Field
from wardround.encoding.layout import Layout, Part, digest_of, layout_of
from wardround.encoding.packing import pack, unpack
from wardround.errors import ConfigError, MessageError, QuorumLost, Refused
from wardround.types import (
    Arrays,
    Contribution,
    Engine,
    Json,
    Message,
    Reply,
    Request,
    SiteHalf,
    StageMethod,
    Term,
    Total,
)

LEAST_SITES = 3
"""Fewer sites in a sum, and each learns the others' from it."""
DEFAULT_BITS = 16
MOST_SITES = 100
"""That `he` has room for where the job says nothing."""
ENCODING, LAYOUT = "encoding", "layout"
_UNKNOWN_RANGE = 0
"""Exponent of the range of an array that was zero at every site when it was measured."""
_WITH_UPDATES = ("train", "overlay")
"""Tasks whose contributions hold arrays that are not exact."""
_MARGIN, _FINE_MARGIN = 1, 8
"""Doublings of a range over what was seen last: of what accumulates nothing may ever be cut off, and it has bits to spare."""

Scales = dict[str, int]


def masked(
    *, encoding: EncodingSpec | None = None, active: bool = False, threshold: float | None = None, colluders: int | None = None,
    neighbours: int | None = None, groups: int = 1,
) -> SecureChannel:  # fmt: skip
    """Secure aggregation: see `MaskSpec` for the options."""
    spec = MaskSpec(
        active=active,
        threshold=threshold,
        colluders=colluders,
        neighbours=neighbours,
        groups=groups,
        minimum=LEAST_SITES,
    )
    return SecureChannel("secagg", encoding or EncodingSpec(), Words(), spec)


def encrypted(
    *, encoding: EncodingSpec | None = None, masks: bool = True, active: bool = False, threshold: float | None = None,
    colluders: int | None = None, neighbours: int | None = None, sites: int = MOST_SITES,
) -> SecureChannel:  # fmt: skip
    """Homomorphic encryption, with masks inside or bare; the options of masks are those of secure aggregation.

    Args:
        sites: the most that are ever summed: ciphertexts get room for so many, and no more.
    """
    from wardround.channels.he.server import BfvCarrier

    spec = MaskSpec(
        active=active, threshold=threshold, colluders=colluders, neighbours=neighbours, groups=1, minimum=LEAST_SITES
    )
    own = encoding or EncodingSpec()
    return SecureChannel(
        "he", own, BfvCarrier(bits=own.bits or DEFAULT_BITS, sites=sites), spec if masks else None, sites
    )


class SecureChannel:
    """The server's half.

    Args:
        name: of the channel's kind.
        encoding: how numbers become digits.
        carrier: what carries the elements.
        masks: how they are masked, or None for not at all.
        most: the most sites that are ever summed; 0 for any number.

    Attributes:
        announced: `term/name` -> exponent of the range of values that was announced last.
    """

    hides = True

    def __init__(
        self, name: str, encoding: EncodingSpec, carrier: Carrier, masks: MaskSpec | None, most: int = 0
    ) -> None:
        if encoding.feedback or encoding.top_k is not None:
            raise ConfigError(
                f"privacy.encoding.{'feedback' if encoding.feedback else 'top_k'} belongs to the plain channel, and "
                f"privacy.channel.kind is {name}: sums need the same entries of every site; leave it out"
            )
        self.name = name
        self.encoding, self.carrier = encoding, carrier
        self.bits = encoding.bits or DEFAULT_BITS
        self.mask_spec, self.most = masks, most
        self._masks = None if masks is None else MaskServer(masks)
        self._run = ""
        self._scales: dict[str, Scales] = {}
        self.announced: Scales = {}
        self._fine: set[str] = set()

    @property
    def groups(self) -> int:
        """Into how many groups sites are divided; each gives a Total of its own."""
        return 1 if self.mask_spec is None else self.mask_spec.groups

    def bind(self, run: str, memory: Json) -> None:
        """See `Channel.bind`."""
        self._run = run
        self._scales = {} if memory is None else {task: dict(scales) for task, scales in memory["scales"].items()}

    def memory(self) -> Json:
        """The announced ranges of values, by task."""
        return {"scales": self._scales}

    def check(self, sites: int) -> None:
        """Whether so many sites can be summed. Raises Refused or ConfigError."""
        if sites < LEAST_SITES * self.groups:
            raise Refused(
                f"privacy.channel.kind = {self.name} with {sites} sites a round in {self.groups} group(s): a sum over fewer than "
                f"{LEAST_SITES} tells each of them the others' updates; ask more sites"
            )
        if self.most and sites > self.most:
            raise ConfigError(
                f"privacy.channel.kind = {self.name} with {sites} sites a round: its ciphertexts have room for {self.most}; "
                f"raise privacy.channel.options.sites to {sites}"
            )
        self.carrier.per_element(Field(bits=self.bits, sites=sites))
        if self.mask_spec is not None:
            self.mask_spec.check(sites)

    def site_half(self, sites: Sequence[str]) -> SiteHalf:
        """The side of `sites` simulated in this process: they trust each other's fresh identities."""
        return self.half_at(Home.simulated(sites))

    def half_at(self, home: Home) -> SecureSite:
        """The side of a site with an identity of its own."""
        if isinstance(self.carrier, Words):
            carrier: SiteCarrier = SiteWords()
        else:
            from wardround.channels.he.site import SiteBfv

            least = max(LEAST_SITES, home.minimum)
            carrier = SiteBfv(home, bits=self.bits, sites=self.most, minimum=least)
        masks = None if self.mask_spec is None else MaskSite(home, self.mask_spec)
        return SecureSite(self, carrier, masks, most=len(home.pins))

    def collect(
        self, engine: Engine, request: Request, sites: Sequence[str], deadline: float | None, quorum: int
    ) -> Iterator[Total]:
        """Measure the range of values where none is known, then sum them.

        Raises:
            QuorumLost: too few sites are left in every group, or too few to take the masks off. Nothing was revealed.
            Refused: fewer than three sites are asked.
        """
        self.check(len(sites))
        task = request.message.meta["task"]
        if task in _WITH_UPDATES and task not in self._scales:
            found: Scales = {}
            for _, exponents in self._exchange(PART_MEASURE, engine, request, sites, deadline, quorum):
                found = _highest(found, exponents)
            self._scales[task] = {name: _range(exponent, 0) for name, exponent in found.items()}
        seen: Scales = {}
        if task in _WITH_UPDATES:
            self.announced = dict(self._scales[task])
        totals = []
        for found_total, exponents in self._exchange(PART_VALUES, engine, request, sites, deadline, quorum):
            seen = _highest(seen, exponents)
            totals.append(found_total)
        if seen:
            self._scales[task] = self.announced | {
                name: _range(exponent, _FINE_MARGIN if name in self._fine else _MARGIN)
                for name, exponent in seen.items()
            }
        yield from totals

    def _exchange(
        self, part: Part, engine: Engine, request: Request, sites: Sequence[str], deadline: float | None, quorum: int
    ) -> Iterator[tuple[Total, Mapping[str, int]]]:
        meta = request.message.meta
        exchange = Exchange.fresh(run=self._run, task=meta["task"], round=meta["round"], part=part)
        talk = Talk(
            engine=engine, exchange=exchange, deadline=deadline, task={name: meta[name] for name in ("task", "round")}
        )
        scales = self._scales.get(exchange.task, {})
        self.carrier.setup(talk, sites)
        roster = self._roster(talk, sites, quorum)
        field = Field(bits=self.bits, sites=len(sites))
        asked = self._asked(request, exchange, roster, field, scales)
        talk = replace(talk, asked=asked_of(asked.message))
        inbox = _Inbox(self.carrier, field, roster)
        replies = (r for r in engine.ask(asked, roster.members, deadline) if talk.mine(r, CONTRIBUTE))
        for reply in canonical(replies, roster.members):
            if inbox.take(reply) and self._masks is not None:
                self._masks.heard(talk, reply.sites[0], reply.message)
        layout, came = inbox.most()
        survivors = [site for site in came if site not in inbox.abstained]
        if layout is None or len(survivors) < quorum:
            raise quorum_lost(survivors, sites, quorum, inbox.abstained)
        yield from self._opened(talk, roster, inbox, layout, came, field, scales, sites, quorum)

    def _roster(self, talk: Talk, sites: Sequence[str], quorum: int) -> Roster:
        if self._masks is not None:
            return self._masks.begin(talk, sites, quorum)
        members = tuple(sites)
        return Roster(members=members, groups={0: members}, meta={}, arrays={}, facts={})

    def _asked(self, request: Request, exchange: Exchange, roster: Roster, field: Field, scales: Scales) -> Request:
        encoding = {
            "bits": field.bits,
            "sites": field.sites,
            "rounding": self.rounding,
            "rotated": self.encoding.rotation,
            "scales": scales if exchange.part == PART_VALUES else {},
        }
        message = request.message
        meta = {**message.meta, **roster.meta, EXCHANGE: exchange.to_meta(), ENCODING: encoding}
        return Request(
            message=replace(message, stage=CONTRIBUTE, meta=meta, arrays={**message.arrays, **roster.arrays}),
            facts={**request.facts, **roster.facts},
        )

    @property
    def rounding(self) -> Rounding:
        """How values of an update are rounded."""
        if self.encoding.rounding != "auto":
            return self.encoding.rounding
        return "nearest" if self.bits >= DEFAULT_BITS else "stochastic"

    def _opened(
        self, talk: Talk, roster: Roster, inbox: _Inbox, layout: Layout, came: Sequence[str], field: Field, scales: Scales,
        sites: Sequence[str], quorum: int,
    ) -> Iterator[tuple[Total, Mapping[str, int]]]:  # fmt: skip
        here = set(came)
        members = {group: [site for site in names if site in here] for group, names in roster.groups.items()}
        self._fine |= {entry.flat for entry in layout.entries if entry.coding == "fine"}
        sums = inbox.sums(layout)
        per = self.carrier.per_element(field)
        length = -(-layout.size // per)
        net: Mapping[int, Elements] = {}
        if self._masks is not None:
            net = self._masks.net(talk, roster, came, length, self.carrier.modulus)
            sums = {group: value for group, value in sums.items() if group in net}
            inbox.abstained |= {site: why for site, why in self._masks.faults.items() if site not in here}
        members = {group: members[group] for group in sums}
        left = [site for names in members.values() for site in names if site not in inbox.abstained]
        if len(left) < quorum:
            raise quorum_lost(left, sites, quorum, inbox.abstained)
        opened = self.carrier.open(talk, sums, members, inbox.abstained)
        for group, elements in sorted(opened.items()):
            words = _less(elements, net[group], self.carrier.modulus) if group in net else elements
            decoder = Decoder(layout, field, scales, len(members[group]), signs=_signs(talk.exchange))
            try:
                for block in unpack(words, layout.size, field.width, per):
                    decoder.feed(block)
                found = decoder.result()
            except MessageError as error:
                raise QuorumLost(
                    f"what was opened is not the sum that {', '.join(members[group][:10])} sent: {error}"
                ) from error
            survivors = tuple(site for site in members[group] if site not in inbox.abstained)
            given = total(found.arrays, survivors, inbox.abstained)
            notes = {"bits": field.bits, "entries": found.entries, "clipped": found.clipped}
            yield replace(given, group=group, notes=notes), found.exponents


class _Inbox:
    """Sums of what came, by group and layout: a site whose layout differs from most sites' cannot be added to them."""

    def __init__(self, carrier: Carrier, field: Field, roster: Roster) -> None:
        self._carrier, self._field = carrier, field
        self._group = {site: group for group, names in roster.groups.items() for site in names}
        self._layouts: dict[str, tuple[Layout, list[str], dict[int, Accumulator]]] = {}
        self.abstained: dict[str, str] = {}

    def take(self, reply: Reply) -> bool:
        """Add one site's message; False where it cannot be added, which is noted."""
        if len(reply.sites) != 1:
            return False
        site, message = reply.sites[0], reply.message
        try:
            described = message.meta.get(LAYOUT)
            digest = digest_of(described)
            if digest in self._layouts:  # reading a layout of hundreds of arrays takes longer than adding the message
                layout = self._layouts[digest][0]
            else:
                layout = Layout.from_json(described)
                digest = layout.digest()
            sent = sum(value.nbytes for value in message.arrays.values())
            if layout.size > sent:  # a digit takes a byte or more: what claims more would be given memory for nothing
                raise MessageError(f"its layout has {layout.size} digits, and {sent} bytes came")
            _, came, sums = self._layouts.setdefault(digest, (layout, [], {}))
            group = self._group[site]
            if group not in sums:
                length = -(-layout.size // self._carrier.per_element(self._field))
                sums[group] = self._carrier.accumulator(length)
            sums[group].add(message.arrays)
        except MessageError as error:
            self.abstained[site] = f"its message cannot be added: {error}"
            return False
        refused: Any = message.meta.get("abstained", {})
        if isinstance(refused, dict) and site in refused:
            self.abstained[site] = str(refused[site])
        came.append(site)
        return True

    def most(self) -> tuple[Layout | None, list[str]]:
        """The layout that most sites have, and who has it; the others are named as abstained."""
        layout, chosen, _ = max(self._layouts.values(), key=lambda found: len(found[1]), default=(None, [], {}))
        for _, others, _ in self._layouts.values():
            if others is not chosen:
                why = "its arrays have other names, shapes or dtypes than most sites'"
                self.abstained |= dict.fromkeys(others, why)
        return layout, chosen

    def sums(self, layout: Layout) -> dict[int, Accumulator]:
        """Group -> sum of the messages of this layout."""
        return self._layouts[layout.digest()][2]


@dataclass(frozen=True, kw_only=True)
class _Encoding:
    """What the server announces of the encoding, checked by the site."""

    field: Field
    rounding: Rounding
    rotated: bool
    scales: Scales

    @classmethod
    def announced(cls, message: Message, bits: int, most: int) -> _Encoding:
        """Raises MessageError where it is malformed, not what this site's job says, or for more than `most` sites."""
        given = message.meta.get(ENCODING)
        kinds = {"bits": int, "sites": int, "rounding": str, "rotated": bool, "scales": dict}
        if not isinstance(given, dict) or {name: type(value) for name, value in given.items()} != kinds:
            raise MessageError("the request announces no encoding: server and site differ in their channel or version")
        if given["bits"] != bits:
            raise MessageError(f"the server announces {given['bits']} bits a value, and the job says {bits}")
        if given["sites"] > most:  # which leaves so little room for figures that sites with large ones could not answer
            raise MessageError(f"the server announces a sum of {given['sites']} sites, and {most} are known here")
        if given["rounding"] not in ("nearest", "stochastic"):
            raise MessageError(f"rounding {given['rounding']!r}: expected nearest or stochastic")
        if not all(type(exponent) is int and -64 <= exponent <= 64 for exponent in given["scales"].values()):
            raise MessageError("an announced range is not a power of two between 2^-64 and 2^64")
        try:
            field = Field(bits=bits, sites=given["sites"])
        except ConfigError as error:
            raise MessageError(f"the server announces an encoding that cannot be: {error}") from error
        return cls(field=field, rounding=given["rounding"], rotated=given["rotated"], scales=given["scales"])


class SecureSite:
    """The sites' half: it never sends a contribution that is not sealed.

    Masks, tags and signatures are of the request as it was read here (`asked_of`), so sites that were asked different things
    have no sum: with masks it is noise, with tags nobody opens it. Where what is asked is unsound (a model that is not finite,
    a bound below a site's rows), a site refuses instead of giving zeros, and is not in the sum.

    A site whose own part cannot be sent abstains: it gives zeros, and says so. The sum is then of fewer sites than its
    members. Where signatures (secagg and he, `active`) or tags (he) say who abstained, a sum is opened only if enough did
    not; secagg without `active` has neither, and there the server could ask for what most sites cannot answer.

    Args:
        channel: of which it is the half.
        carrier: of the sites of this process.
        masks: theirs, or None for none.
        most: the most sites that can be in a sum.

    Attributes:
        binds: whether a request must say what the sites were prepared with, as a part of what is asked.
    """

    binds = True

    def __init__(self, channel: SecureChannel, carrier: SiteCarrier, masks: MaskSite | None, *, most: int) -> None:
        self._bits, self._modulus, self._per = channel.bits, channel.carrier.modulus, channel.carrier.per_element
        self._carrier, self._masks, self._most = carrier, masks, most
        self._last: tuple[ReferenceType[Message], bytes] | None = None

    def stages(self) -> Mapping[str, StageMethod]:
        """Those of the masks and of the carrier."""
        return {**self._carrier.stages(), **(self._masks.stages() if self._masks is not None else {})}

    def contribute(self, contribution: Contribution, request: Request) -> Iterator[Reply]:
        """Encode, mask and seal: one message a site.

        Raises:
            MessageError: a request of another channel, one whose arrays are not finite, or one that none of these sites must
                answer; a site that must not stays silent beside others that may.
        """
        exchange = exchange_of(request.message)
        announced = _Encoding.announced(request.message, self._bits, self._most)
        asked = self._asked(request.message)
        layout = layout_of(contribution, announced.field, part=exchange.part, rotated=announced.rotated)
        described = layout.to_json()
        refused: list[MessageError] = []
        for k, site in enumerate(contribution.sites):
            try:
                message = self._sealed(contribution, k, layout, announced, request, asked)
            except MessageError as error:  # this site's refusal, and no other's
                refused.append(error)
                continue
            message = replace(message, meta={**message.meta, LAYOUT: described})
            yield Reply(sites=(site,), message=message)
        if len(refused) == len(contribution.sites) and refused:
            raise refused[0]

    def _asked(self, message: Message) -> bytes:
        """`asked_of` the message, which is sound. The sites of one process are often asked by the same object."""
        if self._last is None or self._last[0]() is not message:
            _check_finite(message)
            self._last = ref(message), asked_of(message)
        return self._last[1]

    def _sealed(
        self, contribution: Contribution, k: int, layout: Layout, announced: _Encoding, request: Request, asked: bytes
    ) -> Message:
        _check_weights(contribution, k)
        site, exchange = contribution.sites[k], exchange_of(request.message)
        why = contribution.abstained.get(site)
        try:
            elements = self._elements(contribution, k, layout, announced, exchange)
        except MessageError as error:
            why = str(error)
            elements = self._elements(_nothing(contribution), k, layout, announced, exchange)
        nothing = why is not None
        rides, says = Arrays(), dict[str, Json]()
        if self._masks is not None:
            rides, says = self._masks.mask(site, elements, self._modulus, request, asked, abstained=nothing)
        arrays = {**self._carrier.seal(site, elements, request, asked, abstained=nothing), **rides}
        return answer(request, arrays, abstained={} if why is None else {site: why}, **says)

    def _elements(
        self, contribution: Contribution, k: int, layout: Layout, announced: _Encoding, exchange: Exchange
    ) -> Elements:
        field, site = announced.field, contribution.sites[k]
        blocks = encode(
            contribution, k, layout, field, announced.scales,
            rounding=announced.rounding, signs=_signs(exchange),
            # not a secret: what is rounded up or down is hidden by the masks, and says nothing of a record
            seed=streams.key("rounding", site, exchange.task, exchange.index),
        )  # fmt: skip
        return pack(blocks, layout.size, field.width, self._per(field))


def _check_finite(message: Message) -> None:
    """Raise MessageError where an array of the request holds NaN or an infinity: what sites make of it is known beforehand."""
    for name in message.arrays:
        value = message.arrays[name]
        if value.is_floating_point() and not all_finite(value):
            raise MessageError(
                f"the server's array '{name}' is not finite: a site that worked on it would give nothing beside others that "
                "might; the model has diverged (take a smaller learning rate), or the server lies"
            )


def _check_weights(contribution: Contribution, k: int) -> None:
    """Raise MessageError where the public bound of a weight cannot be, or is below site k's: the server has it from no job."""
    for name, term in contribution.terms.items():
        weight = float(term.weights[k])
        if not 0.0 < term.maximum < math.inf or not 0.0 <= weight <= term.maximum:
            raise MessageError(
                f"'{contribution.sites[k]}' weighs {weight:g} in '{name}', and the server says that no site weighs more than "
                f"{term.maximum:g}: raise aggregation.max_weight"
            )


def _nothing(contribution: Contribution) -> Contribution:
    """Zeros of weight 0: what a site gives that cannot encode its own."""
    terms = {
        name: Term(
            arrays={n: torch.zeros_like(value) for n, value in term.arrays.items()},
            weights=torch.zeros_like(term.weights), maximum=term.maximum, exact=term.exact, accumulates=term.accumulates,
        )
        for name, term in contribution.terms.items()
    }  # fmt: skip
    return replace(contribution, terms=terms)


def _signs(exchange: Exchange) -> int:
    """The public seed of an exchange's rotation: the same at all sites, another each round."""
    return streams.key("rotation", exchange.task, exchange.index)


def _highest(one: Mapping[str, int], other: Mapping[str, int]) -> Scales:
    return {name: max(one.get(name, LEAST_EXPONENT), exponent) for name, exponent in other.items()}


def _range(exponent: int, margin: int) -> int:
    """The exponent of the range that is announced for an array whose largest value was below 2^exponent."""
    return _UNKNOWN_RANGE if exponent <= LEAST_EXPONENT else exponent + margin


def _less(elements: Elements, net: Elements, modulus: int) -> Elements:
    if modulus == 2**64:
        return elements - net
    return (elements + (np.uint64(modulus) - net)) % np.uint64(modulus)

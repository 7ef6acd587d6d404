"""Is a channel's sum the plain sum, and what does it cost? Asked of a finished run, with its own records and model.

The kept model is sent out once more; the sites' contributions are added up in the clear and through the channel, and the
two are compared entry by entry with the bound that the encoding promises.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from wardround.aggregation.weighting import WEIGHT, weighed_sum
from wardround.channels import registry as channels
from wardround.channels.he.ring import LENGTHS
from wardround.channels.named import HIDING, NAMED
from wardround.channels.secure import LAYOUT, SecureChannel
from wardround.config.job import Job, PrivacySpec
from wardround.encoding import scaled
from wardround.encoding.field import Field
from wardround.encoding.layout import RANGED, Layout
from wardround.encoding.rotation import LONGEST
from wardround.errors import ConfigError, RunError
from wardround.experiment import device_of, divided
from wardround.federation import messages
from wardround.federation.records import Records
from wardround.federation.site import Host
from wardround.store.run import Run
from wardround.store.states import StateTable
from wardround.training.optimizers import learning_rate
from wardround.types import (
    Arrays,
    Contribution,
    Message,
    Reply,
    Request,
    Round,
    SiteHalf,
    StageMethod,
    Total,
    Work,
)

FLOAT32 = 4


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One array of the sum.

    Attributes:
        name: `term/array`.
        values: numbers in it.
        coding: how they are encoded: `scaled`, `fine`, `wide` or `count`.
        digits: that they become.
        bytes: their share of a site's message.
        ciphertexts: their share of a site's ciphertexts; 0 where there are none.
        error: the largest difference from the plain sum.
        bound: what the encoding promises of it, beside floating-point rounding.
    """

    name: str
    values: int
    coding: str
    digits: int
    bytes: float
    ciphertexts: float
    error: float
    bound: float


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What was found.

    Attributes:
        run: the folder.
        channel: name of what was verified.
        sites: in the sum.
        bits: of a value of an update.
        layers: each array.
        upload: bytes of one site's sealed message, on average.
        float32: bytes of the same update and figures as float32.
        unpacked: bytes if every digit had an element of its own.
        single: bytes if every value had a ciphertext of its own; 0 on a channel without ciphertexts.
        clipped: entries that were outside the announced range.
        holds: whether every error is within its bound.
    """

    run: str
    channel: str
    sites: int
    bits: int
    layers: tuple[Layer, ...]
    upload: float
    float32: int
    unpacked: float
    single: float
    clipped: int
    holds: bool

    def to_json(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def verify(path: Path | str, channel: str | None = None) -> Verification:
    """Compare a channel's sum with the plain one on a finished run.

    Args:
        path: the run's folder.
        channel: of `HIDING`; None takes the run's own.

    Raises:
        ConfigError: an unknown name, or a run on a channel that hides nothing where none is named.
        RunError: no whole run there, or other records than it was trained on.
    """
    folder = Run.open(path, writer=False)
    job = folder.job
    secure = _channel(job, channel)
    description, data, _ = divided(job)
    records = Records(description, data, grouped=job.evaluation.aggregate != "none")
    if records.fingerprint() != folder.facts.get("data"):
        raise RunError(f"{path}: the records are not those that the run was trained on: give it the same data")
    contribution, round = _contribution(folder, job, records)
    secure.check(len(contribution.sites))
    plain = {name: weighed_sum(term) for name, term in contribution.terms.items()}
    engine = _Replay(contribution, secure.site_half(contribution.sites))
    secure.bind(folder.id, None)
    request = messages.ask_for(messages.TRAIN, round, {})
    totals = list(secure.collect(engine, request, contribution.sites, None, len(contribution.sites)))
    return _compared(str(path), channel or secure.name, secure, engine, plain, totals)


def _channel(job: Job, name: str | None) -> SecureChannel:
    if name is not None and name not in HIDING:
        raise ConfigError(f"channel {name!r} is unknown here: expected one of {', '.join(HIDING)}")
    spec = job.privacy.model_dump() | (NAMED[name] if name is not None else {})
    if name is not None:
        spec["encoding"] |= {"feedback": False, "top_k": None}
    built = channels.build(PrivacySpec.model_validate(spec))
    if not isinstance(built, SecureChannel):
        raise ConfigError(
            f"the run's privacy.channel.kind is {job.privacy.channel.kind}, which hides nothing that could be verified: name one "
            f"with --channel {'|'.join(HIDING)}"
        )
    return built


def _contribution(folder: Run, job: Job, records: Records) -> tuple[Contribution, Round]:
    """What every site would send next, from the newest checkpoint."""
    if not folder.kept:
        raise RunError(f"{folder.path}: the run has not begun: nothing to verify")
    first, completed = folder.records[0], folder.kept[-1]
    recorder = _Recorder()
    host = Host(job, records, StateTable(records.sites), recorder, device_of(job.engine.device))
    meta = {"preprocessing": first["preprocessing"], "class_weights": first.get("class_weights")}
    prepare = Request(message=Message(stage=messages.PREPARE, meta=meta))
    for _ in host.answer(prepare, records.sites):
        pass
    server, sites, states = folder.restore(completed)
    host.states.restore(sites, states)
    steps, epochs = job.training.work
    rate = learning_rate(job.training.optimizer, min(completed, job.training.rounds - 1), job.training.rounds)
    work = Work(steps=steps, epochs=epochs, batch_size=job.training.batch_size, learning_rate=rate)
    round = Round(
        index=completed, population=len(records.sites), cohort=len(records.sites), work=work, seed=job.seed,
        max_weight=first["max_weight"],
    )  # fmt: skip
    request = messages.ask_for(messages.TRAIN, round, messages.server_arrays(server))
    with suppress(StopIteration):
        next(iter(host.answer(request, records.sites)))
    host.close()
    return recorder.contribution, round


class _Recorder:
    """A site's half that sends nothing and keeps what it was given."""

    contribution: Contribution

    def contribute(self, contribution: Contribution, request: Request) -> Iterator[Reply]:
        """Keep it."""
        self.contribution = contribution
        yield from ()

    def stages(self) -> Mapping[str, StageMethod]:
        """None."""
        return {}


class _Replay:
    """An engine whose sites give one contribution again and again."""

    def __init__(self, contribution: Contribution, half: SiteHalf) -> None:
        self._contribution, self._half = contribution, half
        self.layout: Layout | None = None
        self.sealed: dict[str, int] = {}
        self.ciphertexts: dict[str, int] = {}

    @property
    def sites(self) -> tuple[str, ...]:
        """The roster."""
        return self._contribution.sites

    def ask(self, request: Request, sites: Sequence[str], deadline: float | None) -> Iterator[Reply]:
        """As sites would answer, in this process."""
        stage = request.message.stage
        if stage != messages.CONTRIBUTE:
            yield from self._half.stages()[stage](tuple(sites), request)
            return
        for reply in self._half.contribute(self._contribution, request):
            self._note(reply)
            yield reply

    def _note(self, reply: Reply) -> None:
        site, arrays = reply.sites[0], reply.message.arrays
        self.layout = Layout.from_json(reply.message.meta[LAYOUT])
        self.sealed[site] = sum(value.nbytes for value in arrays.values())
        lengths = arrays.get(LENGTHS)
        self.ciphertexts[site] = 0 if lengths is None else len(lengths)

    def journal(self, index: int, sites: Sequence[str]) -> tuple[tuple[str, ...], Arrays]:
        """Nothing is kept."""
        return (), {}

    def restore(self, sites: Sequence[str], states: Arrays) -> None:
        """Nothing is kept."""

    def close(self) -> None:
        """Nothing to release."""


def _compared(
    path: str, name: str, secure: SecureChannel, engine: _Replay, plain: Mapping[str, Arrays], totals: Sequence[Total]
) -> Verification:
    layout = engine.layout
    if layout is None:
        raise RunError(f"{path}: no site contributed")
    survivors = sum(len(total.survivors) for total in totals)
    upload = sum(engine.sealed.values()) / len(engine.sealed)
    ciphertexts = sum(engine.ciphertexts.values()) / len(engine.ciphertexts)
    clipped = sum(int(total.notes["clipped"]) for total in totals)
    layers = []
    for entry in layout.entries:
        share = entry.digits / max(layout.size, 1)
        error = bound = 0.0
        wanted = plain.get(entry.term, {}).get(entry.name)
        if wanted is not None and entry.coding != "count":
            found = _sum(totals, entry.term, entry.name)
            error = float((found.double() - wanted.double()).abs().max()) if wanted.numel() else 0.0
            bound = _bound(secure, entry.flat, entry.coding, entry.size, survivors) + _rounding(wanted, survivors)
        layers.append(
            Layer(
                name=entry.flat, values=entry.size, coding=entry.coding, digits=entry.digits, bytes=share * upload,
                ciphertexts=share * ciphertexts, error=error, bound=bound,
            )
        )  # fmt: skip
    field = Field(bits=secure.bits, sites=survivors)
    values = sum(entry.size for entry in layout.entries if entry.coding != "count")
    return Verification(
        run=path, channel=name, sites=survivors, bits=secure.bits, layers=tuple(layers), upload=upload,
        float32=FLOAT32 * values, unpacked=upload * secure.carrier.per_element(field),
        single=values * upload / ciphertexts if ciphertexts else 0.0, clipped=clipped,
        holds=not clipped and all(layer.error <= layer.bound for layer in layers),
    )  # fmt: skip


def _sum(totals: Sequence[Total], term: str, name: str) -> torch.Tensor:
    if name == WEIGHT:
        return torch.tensor(sum(total.weights[term] for total in totals), dtype=torch.float64)
    return torch.stack([total.sums[term][name].double() for total in totals]).sum(0)


def _bound(secure: SecureChannel, flat: str, coding: str, size: int, sites: int) -> float:
    """What the encoding may change in an entry of a sum."""
    if coding not in RANGED:
        return sites * 2.0**-64
    if coding == "fine":
        return sites * 0.5 * scaled.quantum(secure.announced[flat], 2 * secure.bits)
    quantum = scaled.quantum(secure.announced[flat], secure.bits)
    each = 0.5 if secure.rounding == "nearest" else 1.0
    # a rotation spreads each entry's error over its block
    spread = math.sqrt(min(size, LONGEST)) if secure.encoding.rotation else 1.0
    return sites * each * quantum * spread


def _rounding(wanted: torch.Tensor, sites: int) -> float:
    """What two orders of adding may differ in, in the dtype of the sum."""
    if not wanted.numel():
        return 0.0
    wide = wanted if wanted.is_floating_point() else wanted.double()
    return 4 * sites * torch.finfo(wide.dtype).eps * float(wide.abs().max())

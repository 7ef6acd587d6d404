"""What encrypting a model's update costs, beside what others do: one core, a million float32, one site.

    OMP_NUM_THREADS=1 python -m benchmarks.ciphers [--only costs sets compression memory] [--repeats 5] [--quick]

`costs` needs tenseal; Paillier needs `phe`, and `compression` needs `zstandard`: each is left out with a line where it is absent.
"""

from __future__ import annotations

import importlib.util
import os
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import command, fresh
from benchmarks.tables import figure, ratio, spread, table
from wardround.channels.carrier import WordSum
from wardround.channels.he.bfv import Cipher, check
from wardround.channels.he.keys import Group, GroupKey
from wardround.channels.he.parameters import Parameters, choose
from wardround.channels.he.ring import CIPHERTEXTS, ring_of, seal
from wardround.channels.he.server import CipherSum
from wardround.channels.he.tags import SumOfTags, Tags
from wardround.channels.secagg.streams import RING, add_masks
from wardround.encoding.codec import Decoder, encode
from wardround.encoding.field import Field
from wardround.encoding.layout import Layout, layout_of
from wardround.encoding.packing import pack, unpack
from wardround.errors import ConfigError
from wardround.types import Contribution, Term

PARTS = ("costs", "sets", "compression", "memory")
PAGE = Path(__file__).with_name("ciphers.md")
SITES = ("a", "b", "c")
LABEL = b"benchmark"
MILLION, QUICK = 1_000_000, 20_000
OURS, CLASSIC = "BFV 16 bits, 100 sites", "CKKS n=8192 [60, 40, 40, 60], public key (TenSEAL)"
SCALES = {"step/w": 0}
"""Updates lie in [-1, 1]."""
TRIED = [
    ((60,), 51),
    ((59,), 50),
    ((58,), 49),
    ((57,), 48),
    ((56,), 47),
    ((55,), 47),
    ((54,), 47),
    ((53,), 47),
    ((50,), 47),
]
"""Coefficient and plain bits that save bytes over what is chosen for 16 bits and 100 sites, or seem to hold more."""


def section(part: str, repeats: int, quick: bool) -> str:
    """A part's figures, as Markdown."""
    if part == "costs":
        return _costs(repeats, quick)
    if part == "compression":
        return _compression(repeats, quick)
    return _sets(quick) if part == "sets" else _memory(quick)


def updates(parameters: int) -> list[torch.Tensor]:
    """One update a site, float32, normal of deviation 0.1, clipped to 1."""
    random = np.random.default_rng(1)
    return [torch.from_numpy(np.clip(random.normal(0, 0.1, parameters), -1, 1).astype(np.float32)) for _ in SITES]


@dataclass
class Taken:
    """Seconds of each step, one entry a repeat, and what came out."""

    encode: list[float] = field(default_factory=list)
    encrypt: list[float] = field(default_factory=list)
    add: list[float] = field(default_factory=list)
    open: list[float] = field(default_factory=list)
    size: float = 0.0
    error: float = 0.0


class Clock:
    """`with Clock(list)` appends the seconds of processor time that were taken: neighbours on a busy machine do not count."""

    def __init__(self, into: list[float]) -> None:
        self._into = into

    def __enter__(self) -> None:
        self._began = time.process_time()

    def __exit__(self, *_: object) -> None:
        self._into.append(time.process_time() - self._began)


# ------------------------------------------------------------------------------------------------------------- costs


class Encoded:
    """Updates as digits: what secure aggregation and BFV start from."""

    def __init__(self, values: list[torch.Tensor], digits: Field, per: int) -> None:
        self.values, self.digits, self.per = values, digits, per
        self.layout: Layout = layout_of(self._contribution(0), digits, part="values")

    def elements(self, k: int) -> Any:
        blocks = encode(self._contribution(k), 0, self.layout, self.digits, SCALES, rounding="nearest", seed=0, signs=0)
        return pack(blocks, self.layout.size, self.digits.width, self.per)

    def error(self, summed: Any) -> float:
        """The largest difference from the sum in float64."""
        decoder = Decoder(self.layout, self.digits, SCALES, len(SITES), signs=0)
        for block in unpack(summed, self.layout.size, self.digits.width, self.per):
            decoder.feed(block)
        exact = torch.stack(self.values).double().sum(0)
        return float((decoder.result().arrays["step/w"].double() - exact).abs().max())

    def _contribution(self, k: int) -> Contribution:
        term = Term(arrays={"w": self.values[k][None]}, weights=torch.ones(1), maximum=1.0)
        return Contribution(sites=(SITES[k],), terms={"step": term})


def bfv(bits: int, sites: int, parameters: Parameters | None = None) -> Callable[[list[torch.Tensor], Taken], None]:
    """Our channel's own steps: encode; encrypt with tags and serialise; load and add; check and open."""

    def once(values: list[torch.Tensor], taken: Taken) -> None:
        digits = Field(bits=bits, sites=sites)
        chosen = parameters or choose(digits)
        ring = ring_of(chosen)
        key = GroupKey(group=Group(run="r", sites=SITES, parameters=chosen), secret=secrets.token_bytes(32))
        cipher = key.cipher
        encoded = Encoded(values, digits, digits.per(chosen.payload))
        messages = []
        for k, site in enumerate(SITES):
            with Clock(taken.encode):
                elements = encoded.elements(k)
            with Clock(taken.encrypt):
                messages.append(cipher.encrypt(elements, Tags(key.tags, LABEL, site, ring.modulus)))
        total = CipherSum(ring, len(elements))
        for message in messages:
            with Clock(taken.add):
                total.add(message)
        summed = total.message()
        with Clock(taken.open):
            opened = cipher.open(summed, len(elements), SumOfTags(key.tags, LABEL, SITES, ring.modulus), len(SITES))
        taken.size = len(messages[0][CIPHERTEXTS]) / len(values[0])
        taken.error = encoded.error(opened)

    return once


def classic(values: list[torch.Tensor], taken: Taken) -> None:
    """TenSEAL's own vectors, a ciphertext of 4096 values each, as its tutorials and most papers have it."""
    import tenseal

    context = tenseal.context(tenseal.SCHEME_TYPE.CKKS, 8192, coeff_mod_bit_sizes=[60, 40, 40, 60])
    context.global_scale = 2.0**40
    slots = 4096
    sent: list[list[bytes]] = []
    for value in values:
        with Clock(taken.encrypt):
            chunks = (value[at : at + slots].tolist() for at in range(0, len(value), slots))
            sent.append([tenseal.ckks_vector(context, chunk).serialize() for chunk in chunks])
    total = [tenseal.ckks_vector_from(context, data) for data in sent[0]]
    for data in sent[1:]:
        with Clock(taken.add):
            for mine, other in zip(total, data, strict=True):
                mine.add_(tenseal.ckks_vector_from(context, other))
    with Clock(taken.open):
        opened = np.concatenate([one.decrypt() for one in total])
    taken.size = sum(map(len, sent[0])) / len(values[0])
    taken.error = float(np.abs(opened - torch.stack(values).double().sum(0).numpy()).max())


def masks(neighbours: int) -> Callable[[list[torch.Tensor], Taken], None]:
    """Secure aggregation: one mask a neighbour and one of its own, over words of 64 bits; key agreement is not in it."""

    def once(values: list[torch.Tensor], taken: Taken) -> None:
        digits = Field(bits=16, sites=100)
        encoded = Encoded(values, digits, digits.per(64))
        total = net = None
        for k in range(len(SITES)):
            with Clock(taken.encode):
                elements = encoded.elements(k)
            keys = [(secrets.token_bytes(32), place % 2 == 1) for place in range(neighbours + 1)]
            with Clock(taken.encrypt):
                add_masks(elements, keys, RING)
            own = np.zeros(len(elements), dtype=np.uint64)
            add_masks(own, keys, RING)
            net = own if net is None else net + own
            if total is None:
                total = np.zeros(len(elements), dtype=np.uint64)
            with Clock(taken.add):
                total += elements
        assert total is not None
        taken.size = 8 * len(total) / len(values[0])
        taken.error = encoded.error(total - net)

    return once


def paillier(values: list[torch.Tensor], taken: Taken) -> None:
    """Paillier with a modulus of 3072 bits (128-bit security) and packed digits: two ciphertexts, extrapolated."""
    from phe import paillier as phe

    digits = Field(bits=16, sites=100)
    public, private = phe.generate_paillier_keypair(n_length=3072)
    per = (public.n.bit_length() - 1) // digits.width
    count = 2
    scale = len(values[0]) / (count * per)
    half = 2 ** (digits.bits - 1)
    packed = []
    for value in values:
        wide = np.rint(value[: count * per].double().numpy() * (half - 1)).astype(np.int64) + half
        chunks = wide.reshape(count, per).tolist()
        packed.append([sum(digit << (place * digits.width) for place, digit in enumerate(chunk)) for chunk in chunks])
    sent: list[list[Any]] = []
    for chunks in packed:
        with Clock(taken.encrypt):
            sent.append([public.raw_encrypt(chunk) for chunk in chunks])
    with Clock(taken.add):
        total = [mine * other % public.nsquare for mine, other in zip(sent[0], sent[1], strict=True)]
    total = [mine * other % public.nsquare for mine, other in zip(total, sent[2], strict=True)]
    with Clock(taken.open):
        opened = [private.raw_decrypt(one) for one in total]
    for name in ("encrypt", "add", "open"):
        setattr(taken, name, [seconds * scale for seconds in getattr(taken, name)])
    mask = 2**digits.width - 1
    found = np.array([(one >> (place * digits.width)) & mask for one in opened for place in range(per)])
    exact = torch.stack(values)[:, : count * per].double().sum(0).numpy()
    taken.size = public.nsquare.bit_length() / 8 / per
    taken.error = float(np.abs((found - len(SITES) * half) / (half - 1) - exact).max())


ROWS: dict[str, Callable[[list[torch.Tensor], Taken], None]] = {
    OURS: bfv(16, 100),
    CLASSIC: classic,
    "BFV 16 bits, 100 sites, n=4096 [59, 50] t47": bfv(
        16, 100, Parameters(degree=4096, coefficient=(59, 50), plain=47)
    ),
    "BFV 8 bits, 100 sites": bfv(8, 100),
    "BFV 12 bits, 100 sites": bfv(12, 100),
    "BFV 20 bits, 100 sites": bfv(20, 100),
    "BFV 24 bits, 100 sites": bfv(24, 100),
    "BFV 16 bits, 3 sites": bfv(16, 3),
    "BFV 16 bits, 10 sites": bfv(16, 10),
    "BFV 16 bits, 1000 sites": bfv(16, 1000),
    "masks 16 bits, 100 sites, 9 neighbours": masks(9),
    "masks 16 bits, 100 sites, 20 neighbours": masks(20),
}
PAILLIER = "Paillier 3072 bits, packed 16 bits, 100 sites (phe; 2 ciphertexts, extrapolated)"


def _costs(repeats: int, quick: bool) -> str:
    parameters = QUICK if quick else MILLION
    values = updates(parameters)
    taken = {name: Taken() for name in ROWS}
    for _ in range(repeats):  # in turn, so that a busy moment of the machine does not fall on one of them alone
        for name, once in ROWS.items():
            once(values, taken[name])
    lines = [_line(name, found) for name, found in taken.items()]
    notes = []
    if importlib.util.find_spec("phe"):
        found = Taken()
        paillier(values, found)
        lines.append(_line(PAILLIER, found))
    else:
        notes.append("Paillier is left out: phe is not installed.")
    faster = ratio(taken[CLASSIC].encrypt, taken[OURS].encrypt)
    whole = ratio(taken[CLASSIC].encrypt, [a + b for a, b in zip(taken[OURS].encode, taken[OURS].encrypt, strict=True)])
    smaller = figure(taken[CLASSIC].size / taken[OURS].size)
    notes.append(
        f"Encrypting and serialising takes {CLASSIC} {faster} times as long as {OURS} ({whole} times with encoding counted), "
        f"and {smaller} times the bytes."
    )
    header = ("milliseconds of processor time", "encode", "encrypt + serialise", "bytes/param", "x float32",
              "load + add a site", "open", "largest error of the sum of 3")  # fmt: skip
    return "\n\n".join([f"{parameters:,} parameters.", table(header, lines), *notes])


def _line(name: str, taken: Taken) -> tuple[str, ...]:
    times = [spread(one, scale=1000) if one else "" for one in (taken.encode, taken.encrypt, taken.add, taken.open)]
    return (name, *times[:2], f"{taken.size:.2f}", f"{taken.size / 4:.3f}", *times[2:], f"{taken.error:.1e}")


# ------------------------------------------------------------------------------------------------------------- sets


def _sets(quick: bool) -> str:
    """The sets that are chosen, then those that were tried for 16 bits and 100 sites with what became of the sum."""
    counts = (3, 100) if quick else (3, 5, 10, 32, 100, 300, 1000)
    lines = []
    for bits in (8, 12, 16, 20, 24):
        for sites in counts:
            digits = Field(bits=bits, sites=sites)
            chosen = choose(digits)
            ring, cipher = ring_of(chosen), Cipher(ring_of(chosen), os.urandom(64))
            count = 4
            values = np.random.default_rng(0).integers(0, ring.modulus, count * ring.slots, dtype=np.uint64)
            size = len(cipher.encrypt(values, Tags(bytes(32), LABEL, "a", ring.modulus))[CIPHERTEXTS])
            per = digits.per(chosen.payload)
            taken: list[float] = []
            with Clock(taken):
                check.__wrapped__(chosen, digits)
            _, budget = cipher.trial(np.resize(values, ring.degree), sites)
            floor = digits.width / 8
            each = size / (count * ring.slots * per)
            lines.append(
                (f"{bits}", f"{sites}", chosen.name, f"{per} x {digits.width}", f"{each:.2f}", f"{each / 4:.2f}", f"{floor:.2f}",
                 f"{budget}", figure(1000 * taken[0]))
            )  # fmt: skip
    header = ("bits", "sites", "set", "digits a slot", "bytes/param", "x float32", "bytes of a summed digit",
              "bits of budget left",              "known-answer test, ms of processor time")  # fmt: skip
    tried = []
    for coefficient, plain in TRIED:
        parameters = Parameters(degree=4096, coefficient=coefficient, plain=plain)
        ring = ring_of(parameters)
        values = np.random.default_rng(0).integers(0, ring.modulus, ring.degree, dtype=np.uint64)
        exact = np.array([int(value) * 100 % ring.modulus for value in values], dtype=np.uint64)
        trials = [Cipher(ring, os.urandom(64)).trial(values, 100) for _ in range(5)]
        budgets = [budget for _, budget in trials]
        wrong = max(int((found != exact).sum()) for found, _ in trials)
        tried.append((parameters.name, f"{min(budgets)} to {max(budgets)}", f"{wrong:,}", _verdict(parameters)))
    wrong_header = ("tried for 16 bits, 100 sites", "bits of budget left, of 5 sums", "wrong slots of 4,096, at worst",
                    "known-answer test")  # fmt: skip
    return table(header, lines) + "\n\n" + table(wrong_header, tried)


def _verdict(parameters: Parameters) -> str:
    try:
        check.__wrapped__(parameters, Field(bits=16, sites=100))
    except ConfigError:
        return "refuses it"
    return "passes it"


# ------------------------------------------------------------------------------------------------------------- compression


def _compression(repeats: int, quick: bool) -> str:
    """SEAL's zstd, nothing, and residues packed to the bits of their primes."""
    if not importlib.util.find_spec("zstandard"):
        return "Left out: zstandard is not installed."
    lines = []
    for bits, sites in ((16, 100), (16, 3), (12, 100), (20, 100), (24, 100)):
        digits = Field(bits=bits, sites=sites)
        chosen = choose(digits)
        ring, cipher = ring_of(chosen), Cipher(ring_of(chosen), os.urandom(64))
        count = 4 if quick else 64
        values = np.random.default_rng(0).integers(0, ring.modulus, count * ring.slots, dtype=np.uint64)
        taken: list[float] = []
        for _ in range(repeats):
            with Clock(taken):
                message = cipher.encrypt(values, Tags(bytes(32), LABEL, "a", ring.modulus))
        packing: list[float] = []
        packed = raw = 0
        for _ in range(repeats):
            with Clock(packing):
                packed, raw = _repacked(message, ring.primes, ring.degree, chosen.coefficient)
        parameters = count * ring.slots * digits.per(chosen.payload)
        stored = len(message[CIPHERTEXTS])
        lines.append(
            (f"{bits} bits, {sites} sites, {chosen.name}", *(f"{size / parameters / 4:.3f}" for size in (raw, stored, packed)),
             spread([1e9 * s / parameters for s in taken]), spread([1e9 * s / parameters for s in packing]))
        )  # fmt: skip
    header = ("x float32", "64 bits a residue", "zstd, as SEAL stores it", "packed to its prime's bits",
              "encrypt + serialise, ns/param",
              "unpack zstd + repack, ns/param more")  # fmt: skip
    return table(header, lines)


def _repacked(message: Any, primes: int, degree: int, coefficient: tuple[int, ...]) -> tuple[int, int]:
    """Bytes with residues packed to their primes' bits, and without compression at all: seeds and headers included."""
    import zstandard

    data, at = message[CIPHERTEXTS].numpy().tobytes(), 0
    packed = raw = 0
    for length in message["lengths"].tolist():
        stored = data[at : at + length]
        at += length
        body = stored[16:]
        if stored[5]:
            body = zstandard.ZstdDecompressor().decompressobj().decompress(body)
        residues = degree * primes * 8
        start = len(body) - residues - _SEED_BYTES
        words = np.frombuffer(body[start : start + residues], dtype="<u8").reshape(primes, degree)
        if any(int(row.max()) >> bits for row, bits in zip(words, coefficient, strict=False)):
            raise AssertionError("these are no residues of the primes")
        raw += 16 + len(body)
        packed += (
            16
            + len(body)
            - residues
            + sum(len(_bits(row, bits)) for row, bits in zip(words, coefficient, strict=False))
        )
    return packed, raw


_SEED_BYTES = 81
"""What SEAL puts behind the residues of a seeded ciphertext: the seed of the other polynomial, with a header."""


def _bits(words: Any, bits: int) -> bytes:
    single = np.unpackbits(words.view(np.uint8).reshape(-1, 8), axis=1, bitorder="little")[:, :bits]
    return np.packbits(single, bitorder="little").tobytes()


# ------------------------------------------------------------------------------------------------------------- memory


def _memory(quick: bool) -> str:
    parameters = QUICK * 10 if quick else 25 * MILLION
    lines = []
    for what, function in STEPS.items():
        found = fresh.call(f"benchmarks.ciphers:{function}", parameters=parameters)
        rise, vector = found["rise"], 4 * parameters
        lines.append((what, figure(rise / 2**20), f"{rise / vector:.2f}", f"{found['seconds']:.2f}"))
    header = (
        f"{parameters:,} parameters ({figure(4 * parameters / 2**20)} MiB)",
        "MiB more at the peak",
        "x the vector",
        "seconds",
    )
    return table(header, lines)


STEPS = {
    "encrypt + serialise": "site_seals",
    "encode, encrypt + serialise": "site_encodes_and_seals",
    "add a site to the sum": "server_adds",
    "open": "site_opens",
    "secagg: encode, mask with 9 neighbours": "site_encodes_and_masks",
    "secagg: add a site to the sum": "server_adds_words",
}


def site_encodes_and_seals(parameters: int) -> dict[str, float]:
    """Memory above the update that encoding and encrypting it take, the message included."""
    encoded = _encoded(parameters)
    _, key, ring = _prepared(1)
    return _peak(lambda: key.cipher.encrypt(encoded.elements(0), Tags(key.tags, LABEL, "a", ring.modulus)))


def site_seals(parameters: int) -> dict[str, float]:
    """Memory above the elements that encrypting and serialising takes, the message included."""
    elements, key, ring = _prepared(parameters)
    return _peak(lambda: key.cipher.encrypt(elements, Tags(key.tags, LABEL, "a", ring.modulus)))


def server_adds(parameters: int) -> dict[str, float]:
    """Memory above one message that the sum takes: two polynomials a ciphertext, where the message has one and a seed."""
    elements, key, ring = _prepared(parameters)
    message = key.cipher.encrypt(elements, Tags(key.tags, LABEL, "a", ring.modulus))
    total = CipherSum(ring, len(elements))
    return _peak(lambda: [total.add(message) for _ in range(2)])


def site_opens(parameters: int) -> dict[str, float]:
    """Memory above the received sum that opening it takes, the elements included."""
    elements, key, ring = _prepared(parameters)
    total = CipherSum(ring, len(elements))
    for site in SITES:
        total.add(key.cipher.encrypt(elements, Tags(key.tags, LABEL, site, ring.modulus)))
    summed = total.message()
    del total
    return _peak(
        lambda: key.cipher.open(summed, len(elements), SumOfTags(key.tags, LABEL, SITES, ring.modulus), len(SITES))
    )


def site_encodes_and_masks(parameters: int) -> dict[str, float]:
    """Memory above the update that encoding and masking it take, the words included."""
    encoded = _words(parameters)

    def masked() -> Any:
        elements = encoded.elements(0)
        add_masks(elements, [(secrets.token_bytes(32), bool(i % 2)) for i in range(10)], RING)
        return elements

    return _peak(masked)


def server_adds_words(parameters: int) -> dict[str, float]:
    """Memory above one message that the sum of words takes."""
    words = {"words": torch.from_numpy(_words(parameters).elements(0).view(np.int64))}

    def summed() -> WordSum:
        total = WordSum(len(words["words"]))
        for _ in range(2):
            total.add(words)
        return total

    return _peak(summed)


def _words(parameters: int) -> Encoded:
    digits = Field(bits=16, sites=100)
    value = torch.empty(parameters).uniform_(-1, 1, generator=torch.Generator().manual_seed(0))
    return Encoded([value] * len(SITES), digits, digits.per(64))


def _encoded(parameters: int) -> Encoded:
    digits = Field(bits=16, sites=100)
    value = torch.empty(parameters).uniform_(-1, 1, generator=torch.Generator().manual_seed(0))
    return Encoded([value] * len(SITES), digits, digits.per(choose(digits).payload))


def _prepared(parameters: int) -> tuple[Any, GroupKey, Any]:
    encoded = _encoded(parameters)
    chosen = choose(encoded.digits)
    key = GroupKey(group=Group(run="r", sites=SITES, parameters=chosen), secret=secrets.token_bytes(32))
    key.cipher.encrypt(np.zeros(1, dtype=np.uint64), Tags(key.tags, LABEL, "a", ring_of(chosen).modulus))  # warm
    return encoded.elements(0), key, ring_of(chosen)


def _peak(work: Callable[[], Any]) -> dict[str, float]:
    """Bytes of resident memory that `work` needed at its peak beyond what was there, and seconds."""
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts from now
    began = time.perf_counter()
    kept = work()
    seconds = time.perf_counter() - began
    rise = _status("VmHWM") - before
    del kept
    return {"rise": rise, "seconds": seconds}


def _status(name: str) -> int:
    lines: Iterator[str] = iter(Path("/proc/self/status").read_text().splitlines())
    return 1024 * int(next(line for line in lines if line.startswith(name)).split()[1])


def main() -> None:
    given = command.parser("benchmarks.ciphers", __doc__, PARTS, repeats=5).parse_args()
    torch.set_num_threads(1)
    seal()
    command.measure(given, lambda part, repeats: section(part, repeats, given.quick), PAGE)


if __name__ == "__main__":
    main()

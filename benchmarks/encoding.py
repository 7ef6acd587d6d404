"""What encoding and compressing an update cost: `python benchmarks/encoding.py`, one core, processor time, best of nine."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch

from wardround import streams
from wardround.encoding.codec import Decoded, Decoder, Rounding, encode
from wardround.encoding.compress import Compression
from wardround.encoding.field import Field
from wardround.encoding.layout import layout_of
from wardround.encoding.packing import pack, unpack
from wardround.types import Contribution, Term

T = TypeVar("T")
SIZE, SITES, EXPONENT, TIMES = 1_000_000, 100, -4, 9
ENCODED: list[tuple[int, bool, Rounding]] = [
    (8, False, "stochastic"), (16, False, "nearest"), (16, True, "nearest"), (24, False, "nearest"),
]  # fmt: skip
COMPRESSED: dict[str, Compression] = {
    "8 bits": Compression(bits=8, stochastic=True),
    "8 bits, rotated": Compression(bits=8, stochastic=True, rotation=True),
    "12 bits": Compression(bits=12, stochastic=True),
    "16 bits": Compression(bits=16),
    "top 10%": Compression(top_k=0.1),
    "top 1%": Compression(top_k=0.01),
    "top 1% in 8 bits": Compression(top_k=0.01, bits=8, stochastic=True),
}


def best(work: Callable[[], T]) -> tuple[float, T]:
    """Milliseconds of processor time, and the last result."""
    least = float("inf")
    for _ in range(TIMES):
        start = time.process_time()
        found = work()
        least = min(least, time.process_time() - start)
    return 1000 * least, found


def encoded() -> None:
    """One site's digits, 100 sites of head-room, 64-bit elements."""
    array = torch.randn(1, SIZE, generator=torch.Generator().manual_seed(0)) * 0.01
    one = Contribution(
        sites=("a",), terms={"step": Term(arrays={"w": array}, weights=torch.tensor([3.0]).double(), maximum=7.0)}
    )
    print(
        f"| {SIZE:,} float32, {SITES} sites | encode and pack (ms) | unpack and decode (ms) | bytes x float32 | largest error |"
    )
    print("|---|---:|---:|---:|---:|")
    for bits, rotated, rounding in ENCODED:
        field = Field(bits=bits, sites=SITES)
        layout, per, scales = layout_of(one, field, part="values", rotated=rotated), field.per(64), {"step/w": EXPONENT}

        def up() -> np.ndarray:
            digits = encode(one, 0, layout, field, scales, rounding=rounding, seed=1, signs=2)  # noqa: B023
            return pack(digits, layout.size, field.width, per)  # noqa: B023

        spent, elements = best(up)

        def down() -> Decoded:
            decoder = Decoder(layout, field, scales, 1, signs=2)  # noqa: B023
            for block in unpack(elements, layout.size, field.width, per):  # noqa: B023
                decoder.feed(block)
            return decoder.result()

        back, found = best(down)
        error = float((found.arrays["step/w"].double() - array[0].double() * 3 / 7).abs().max())
        name = f"{bits} bits, {rounding}{', rotated' if rotated else ''}"
        print(f"| {name} | {spent:.1f} | {back:.1f} | {elements.nbytes / (4 * SIZE):.2f} | {error:.1e} |")


def compressed() -> None:
    """One site's update on the plain channel."""
    array = torch.randn(1, SIZE, generator=torch.Generator().manual_seed(0)) * 0.01
    keys = streams.site_keys(("a",))
    print(f"| {SIZE:,} float32 | compress (ms) | expand (ms) | bytes x float32 | relative error |")
    print("|---|---:|---:|---:|---:|")
    for name, how in COMPRESSED.items():
        spent, packet = best(lambda: how.compress(array, "w", 1, keys))  # noqa: B023
        back, found = best(lambda: how.expand(packet, SIZE, torch.float32, "w", 1))  # noqa: B023
        parts = [part for part in (packet.codes, packet.scales, packet.indices, packet.values) if part is not None]
        size = sum(part.numel() * part.element_size() for part in parts)
        error = float((found - array).norm() / array.norm())
        print(f"| {name} | {spent:.1f} | {back:.1f} | {size / (4 * SIZE):.4f} | {error:.1e} |")


if __name__ == "__main__":
    torch.set_num_threads(1)
    encoded()
    print()
    compressed()

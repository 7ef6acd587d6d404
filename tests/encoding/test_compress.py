"""Compressed arrays: what the server reads, how many bytes it takes, and what it refuses."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wardround import streams
from wardround.config.job import EncodingSpec
from wardround.encoding import compress
from wardround.encoding.compress import Compression, Packet, compression_of
from wardround.errors import ConfigError, MessageError

KEYS = streams.site_keys(("a", "b", "c"))
SEED = 11


def _through(how: Compression, values: torch.Tensor, keys: Any = KEYS, seed: int = SEED) -> torch.Tensor:
    packet = how.compress(values, "step/w", seed, keys)
    return how.expand(packet, values[0].numel(), values.dtype, "step/w", seed)


@given(bits=st.integers(8, 24), count=st.integers(0, 100), seed=st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_codes_are_packed_tightly_and_come_back(bits: int, count: int, seed: int) -> None:
    digits = np.random.default_rng(seed).integers(0, 2**bits, (3, count), dtype=np.uint32)
    packed = compress._packed(digits, bits)
    assert packed.shape == (3, -(-count * bits // 8))
    assert np.array_equal(compress._unpacked(packed, bits, count), digits)


@pytest.mark.parametrize("bits", [8, 11, 16, 20, 24])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("stochastic", [False, True])
def test_an_error_is_within_the_grid_of_the_sites_own_range(bits: int, dtype: torch.dtype, stochastic: bool) -> None:
    torch.manual_seed(bits)
    values = torch.randn(3, 40, 500, dtype=dtype) * torch.tensor([1e-6, 1.0, 1e6], dtype=dtype).view(3, 1, 1)
    found = _through(Compression(bits=bits, stochastic=stochastic), values)
    assert found.dtype == dtype
    flat = values.reshape(3, -1)
    step = flat.abs().amax(1) / (2 ** (bits - 1) - 1)
    off = (found - flat).abs().amax(1)
    rounding = flat.abs().amax(1) * torch.finfo(torch.float32).eps  # of the range, and of a float32 result
    assert bool((off <= step * (1.0 if stochastic else 0.5) + rounding).all())
    assert bool((off > 0).all())


def test_codes_are_unbiased_where_they_are_rounded_stochastically() -> None:
    values = torch.full((3, 20_000), 0.3)
    values[:, 0] = 1.0  # the range
    found = _through(Compression(bits=8, stochastic=True), values)[:, 1:]
    low, high = 38 / 127, 39 / 127  # .3 lies .1 of the way from one to the other
    assert torch.allclose(found.unique().double(), torch.tensor([low, high], dtype=torch.float64))
    assert torch.allclose(
        found.double().mean(1), torch.tensor(0.3, dtype=torch.float64), atol=5 * 0.3 / 127 / 20_000**0.5
    )
    assert len({tuple(row.tolist()) for row in found}) == 3  # each site draws for itself


@pytest.mark.parametrize(
    "how",
    [
        Compression(bits=8, stochastic=True), Compression(bits=12, stochastic=True, top_k=0.1), Compression(top_k=0.1),
        Compression(bits=8, stochastic=True, rotation=True),
    ],
)  # fmt: skip
def test_what_a_site_sends_depends_on_no_other_site(how: Compression) -> None:
    values = torch.randn(3, 40_000)
    together = _through(how, values)
    for k in range(3):
        alone = _through(how, values[k : k + 1], KEYS[k : k + 1])
        # nothing drawn depends on the chunk; the rotation's matrix products may round otherwise
        assert torch.allclose(alone[0], together[k], atol=1e-6 if how.rotation else 0.0, rtol=0.0)


def test_the_largest_are_kept_as_they_are() -> None:
    values = torch.tensor([[0.1, -5.0, 3.0, 0.2, -0.3], [9.0, 8.0, 7.0, 0.0, 0.0]])
    found = _through(Compression(top_k=0.4), values, KEYS[:2])
    assert torch.equal(found, torch.tensor([[0.0, -5.0, 3.0, 0.0, 0.0], [9.0, 8.0, 0.0, 0.0, 0.0]]))


def test_kept_values_may_be_quantised_too() -> None:
    values = torch.tensor([[0.1, -5.0, 2.5, 0.2, -0.3]])
    found = _through(Compression(top_k=0.4, bits=8), values, KEYS[:1])
    assert torch.allclose(found, torch.tensor([[0.0, -5.0, 2.5, 0.0, 0.0]]), atol=0.5 * 5 / 127)
    assert int((found != 0).sum()) == 2


@pytest.mark.parametrize(
    ("how", "each"),
    [
        (Compression(bits=8), 1000 + 4), (Compression(bits=12), 1500 + 4), (Compression(bits=16), 2000 + 4),
        (Compression(top_k=0.01), 10 * 8), (Compression(top_k=0.01, bits=8), 10 * 5 + 4), (Compression(top_k=0.0001), 8),
    ],
)  # fmt: skip
def test_bytes_of_a_thousand_values(how: Compression, each: int) -> None:
    packet = how.compress(torch.randn(3, 10, 100), "step/w", SEED, KEYS)
    parts = [part for part in (packet.codes, packet.scales, packet.indices, packet.values) if part is not None]
    assert sum(part.numel() * part.element_size() for part in parts) == 3 * each


@pytest.mark.parametrize("how", [Compression(bits=8), Compression(top_k=0.3), Compression(top_k=0.3, bits=9)])
@pytest.mark.parametrize("shape", [(), (0,), (1,), (2, 0, 3)])
def test_arrays_with_hardly_anything_in_them(how: Compression, shape: tuple[int, ...]) -> None:
    values = torch.full((3, *shape), 0.5)
    assert torch.allclose(_through(how, values), values.reshape(3, -1 if values.numel() else 0), atol=1e-6)


def test_zeros_stay_zeros_and_huge_values_stay_finite() -> None:
    assert torch.equal(_through(Compression(bits=8), torch.zeros(3, 9)), torch.zeros(3, 9))
    huge = torch.tensor([[1e300, -1e300, 1.0]], dtype=torch.float64)
    assert bool(_through(Compression(bits=8), huge, KEYS[:1]).isfinite().all())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_come_back_as_halves(dtype: torch.dtype) -> None:
    values = torch.randn(3, 50).to(dtype)
    for how in (Compression(bits=16), Compression(top_k=1.0), Compression(bits=16, rotation=True)):
        found = _through(how, values)
        assert found.dtype == dtype
        assert torch.allclose(found.float(), values.float(), atol=2e-2)


def test_rotation_lowers_the_error_of_a_spiky_array_and_leaves_the_values_alone() -> None:
    values = torch.randn(3, 3000, dtype=torch.float64) * 0.01
    values[:, ::500] = 1.0
    before = values.clone()
    off = {
        turn: (_through(Compression(bits=8, rotation=turn), values) - before).square().mean() for turn in (False, True)
    }
    assert off[True] < off[False] / 4
    assert torch.equal(values, before)


# ------------------------------------------------------------------------------------------------------------ refusals


def _packet(how: Compression) -> Packet:
    return how.compress(torch.randn(3, 20), "step/w", SEED, KEYS)


DENSE, SPARSE = Compression(bits=8), Compression(top_k=0.2)


@pytest.mark.parametrize(
    ("how", "changes", "words"),
    [
        (DENSE, {"codes": None}, "codes of 'step/w'"), (DENSE, {"codes": torch.zeros(3, 19, dtype=torch.uint8)}, "codes"),
        (DENSE, {"codes": torch.zeros(3, 20)}, "codes"), (DENSE, {"scales": torch.zeros(3, 1)}, "scales"),
        (DENSE, {"scales": torch.zeros(2)}, "sites"), (DENSE, {"scales": torch.tensor([1.0, -1.0, 0.0])}, "range"),
        (DENSE, {"scales": torch.tensor([1.0, float("inf"), 0.0])}, "range"),
        (DENSE, {"indices": torch.zeros(3, 20).int()}, "indices"),
        (SPARSE, {"indices": None}, "indices"), (SPARSE, {"indices": torch.tensor([[0, 1, 2, 20]] * 3).int()}, "below 20"),
        (SPARSE, {"indices": torch.tensor([[0, 1, 1, 2]] * 3).int()}, "ascending"),
        (SPARSE, {"indices": torch.tensor([[-1, 1, 2, 3]] * 3).int()}, "ascending"),
        (SPARSE, {"indices": torch.tensor([[0, 1, 2, 3]] * 3)}, "indices"),
        (SPARSE, {"values": torch.full((3, 4), float("nan"))}, "non-finite"), (SPARSE, {"values": torch.zeros(3, 5)}, "values"),
    ],
)  # fmt: skip
def test_a_packet_of_another_form_is_refused(how: Compression, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(MessageError, match=words):
        how.expand(replace(_packet(how), **changes), 20, torch.float32, "step/w", SEED)


@pytest.mark.parametrize(
    "spec",
    [
        {"rotation": True},
        {"feedback": True},
        {"top_k": 0.1, "rotation": True},
        {"top_k": 0.1, "bits": 8, "rotation": True},
    ],
)
def test_encodings_that_mean_nothing_here(spec: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"privacy\.encoding"):
        compression_of(EncodingSpec(**spec))


def test_what_the_job_asks_for() -> None:
    assert compression_of(EncodingSpec()) is None
    assert compression_of(EncodingSpec(bits=8)) == Compression(bits=8, stochastic=True)
    assert compression_of(EncodingSpec(bits=8, rounding="nearest")) == Compression(bits=8)
    assert compression_of(EncodingSpec(bits=16)) == Compression(bits=16)
    assert compression_of(EncodingSpec(bits=16, rounding="stochastic")) == Compression(bits=16, stochastic=True)
    assert compression_of(EncodingSpec(top_k=0.1, feedback=True)) == Compression(top_k=0.1, feedback=True)

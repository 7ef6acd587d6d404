"""Contributions as digits, and their sums back as terms."""

import math
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from wardround.aggregation.weighting import weighed_sum
from wardround.encoding.codec import BLOCK, Decoded, Decoder, encode
from wardround.encoding.exponents import exponent
from wardround.encoding.field import Field
from wardround.encoding.layout import Layout, layout_of
from wardround.encoding.packing import pack, unpack
from wardround.encoding.scaled import quantum
from wardround.errors import MessageError
from wardround.types import Contribution, Term


def _digits(
    one: Contribution, k: int, layout: Layout, field: Field, scales: dict[str, int], **how: Any
) -> NDArray[np.uint32]:
    how = {"rounding": "nearest", "seed": 1, "signs": 2} | how
    blocks = list(encode(one, k, layout, field, scales, **how))
    assert all(len(block) == BLOCK for block in blocks[:-1])
    assert not blocks or 0 < len(blocks[-1]) <= BLOCK
    assert all(block.dtype == np.uint32 for block in blocks)
    digits = np.concatenate([np.zeros(0, np.uint32), *blocks])
    assert len(digits) == layout.size
    return digits


def _decoded(
    sums: NDArray[np.uint64], layout: Layout, field: Field, scales: dict[str, int], count: int, step: int = BLOCK
) -> Decoded:
    decoder = Decoder(layout, field, scales, count, signs=2)
    for start in range(0, len(sums), step):
        decoder.feed(sums[start : start + step])
    return decoder.result()


def _through(
    one: Contribution, field: Field, scales: dict[str, int], *, rotated: bool = False, part: Any = "values", **how: Any
) -> Decoded:
    """Encode, pack, add up, unpack, decode."""
    layout, per, count = layout_of(one, field, part=part, rotated=rotated), field.per(64), len(one.sites)
    total = np.zeros(-(-layout.size // per), dtype=np.uint64)
    plain = np.zeros(layout.size, dtype=np.int64)
    for k in range(count):
        digits = _digits(one, k, layout, field, scales, **how)
        plain += digits
        total += pack(iter(np.split(digits, range(BLOCK, len(digits), BLOCK))), layout.size, field.width, per)
    sums = np.concatenate([np.zeros(0, np.uint64), *unpack(total, layout.size, field.width, per)])
    assert np.array_equal(sums, plain.astype(np.uint64))  # bit for bit the plain integer sums
    return _decoded(sums, layout, field, scales, count)


def _of(
    arrays: dict[str, torch.Tensor], weights: list[float] | None = None, maximum: float = 1.0, **more: Any
) -> Contribution:
    count = len(next(iter(arrays.values())))
    given_weights = torch.ones(count) if weights is None else torch.tensor(weights, dtype=torch.float64)
    term = Term(arrays=arrays, weights=given_weights.double(), maximum=maximum, **more)
    return Contribution(sites=tuple(f"s{k:03}" for k in range(count)), terms={"step": term})


# ------------------------------------------------------------------------------------------------------------ error bounds


@given(
    sites=st.integers(1, 100), bits=st.integers(8, 24), power=st.integers(-12, 12), seed=st.integers(0, 2**32),
    rounding=st.sampled_from(["nearest", "stochastic"]), size=st.integers(0, 40),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_a_sum_is_off_by_no_more_than_its_bound(
    sites: int, bits: int, power: int, seed: int, rounding: str, size: int
) -> None:
    field = Field(bits=bits, sites=sites)
    rng = np.random.default_rng(seed)
    values = rng.uniform(-1, 1, (sites, size)) * 2.0**power
    weights = rng.uniform(0, 7, sites)
    one = _of({"w": torch.from_numpy(values)}, weights.tolist(), 7.0)
    found = _through(one, field, {"step/w": power}, rounding=rounding)
    exact = (values * (weights / 7.0)[:, None]).sum(axis=0)
    off = np.abs(found.arrays["step/w"].numpy() - exact).max(initial=0.0)
    most = sites * quantum(power, bits) * (0.5 if rounding == "nearest" else 1.0)
    assert off <= most * (1 + 1e-6)
    assert found.clipped == 0
    assert found.entries == sites * size
    fractions = [Fraction(round(Fraction(float(w) / 7.0) * 2**64), 2**64) for w in weights]
    assert found.arrays["step/.weight"] == float(sum(fractions))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64])
def test_every_dtype_comes_back_as_the_plain_channel_gives_it(dtype: torch.dtype) -> None:
    torch.manual_seed(3)
    values = (torch.randn(5, 2, 3) * 3).clamp(-8, 8).to(dtype)
    one = _of({"w": values}, [1.0, 2.0, 4.0, 0.0, 8.0], 8.0)
    found = _through(one, Field(bits=20, sites=5), {"step/w": 3}).arrays["step/w"]
    plain = weighed_sum(one.terms["step"])["w"]
    assert found.dtype == plain.dtype
    assert found.shape == plain.shape
    eps = torch.finfo(found.dtype).eps * 32
    assert torch.allclose(found.double(), plain.double(), atol=5 * quantum(3, 20) + eps, rtol=0)


def test_arrays_without_dimensions_and_without_elements() -> None:
    one = _of({"scalar": torch.tensor([1.0, -0.5]), "none": torch.zeros(2, 0, 3), "zero": torch.zeros(2, 4)})
    scales = {"step/scalar": 0, "step/none": -40, "step/zero": -40}
    found = _through(one, Field(bits=16, sites=2), scales)
    assert found.arrays["step/scalar"].shape == ()
    assert float(found.arrays["step/scalar"]) == pytest.approx(0.5, abs=quantum(0, 16))
    assert found.arrays["step/none"].shape == (0, 3)
    assert torch.equal(found.arrays["step/zero"], torch.zeros(4))  # zero is a multiple of the quantum, so it is exact
    assert found.exponents == {"step/scalar": 0, "step/none": -40, "step/zero": -40}


def test_the_ends_of_the_bound_are_exact() -> None:
    one = _of({"w": torch.tensor([[-4.0, 4.0, 0.0]], dtype=torch.float64)})
    for rounding in ("nearest", "stochastic"):
        found = _through(one, Field(bits=9, sites=1), {"step/w": 2}, rounding=rounding)
        assert found.arrays["step/w"].tolist() == [-4.0, 4.0, 0.0]
        assert found.clipped == 0


def test_stochastic_rounding_is_unbiased_and_differs_between_sites() -> None:
    count, value = 4000, 0.3
    one = _of({"w": torch.full((2, count), value, dtype=torch.float64)})
    field = Field(bits=8, sites=2)
    layout = layout_of(one, field, part="values")
    first, second = (
        _digits(one, k, layout, field, {"step/w": 0}, rounding="stochastic")[8 * 2 :][:count] for k in (0, 1)
    )
    target = value * 127 + 128  # 166.1: a Bernoulli of .1, whose mean over 4000 has a deviation of .0047
    for digits in (first, second):
        assert set(digits.tolist()) == {166, 167}
        assert abs(digits.mean() - target) < 5 * math.sqrt(0.1 * 0.9 / count)
    assert not np.array_equal(first, second)
    again = _digits(one, 0, layout, field, {"step/w": 0}, rounding="stochastic")[8 * 2 :][:count]
    assert np.array_equal(first, again)
    other = _digits(one, 0, layout, field, {"step/w": 0}, rounding="stochastic", seed=5)[8 * 2 :][:count]
    assert not np.array_equal(first, other)


# ------------------------------------------------------------------------------------------------------------ clipping


def test_what_lies_outside_is_clipped_and_counted() -> None:
    values = torch.tensor([[5.0, -5.0, 1.0, 1.0 + 2**-20], [0.5, 9.0, -1.0, 0.0]], dtype=torch.float64)
    found = _through(_of({"w": values, "v": values / 8}), Field(bits=16, sites=2), {"step/w": 0, "step/v": 0})
    assert found.clipped == 5  # four beyond 1, and one of values / 8: 9 / 8
    assert found.entries == 16
    assert torch.allclose(found.arrays["step/w"], torch.tensor([1.5, 0.0, 0.0, 1.0], dtype=torch.float64), atol=1e-4)
    assert found.exponents == {"step/w": 4, "step/v": 1}  # measured before clipping: 9 <= 2^4


@given(
    sites=st.integers(1, 20), seed=st.integers(0, 2**32), rotated=st.booleans(), size=st.integers(1, 200),
    spread=st.integers(-20, 10), rounding=st.sampled_from(["nearest", "stochastic"]),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_measured_scales_never_clip(
    sites: int, seed: int, rotated: bool, size: int, spread: int, rounding: str
) -> None:
    rng = np.random.default_rng(seed)
    # powers of two and awkward weights: values that lie on the bound itself must not be counted as beyond it
    values = rng.choice([1.0, 2.0, 3.0, 4.0, 7.0, -7.0, 0.0], (sites, size)) * 2.0**spread
    one = _of({"w": torch.from_numpy(values)}, rng.integers(0, 8, sites).astype(float).tolist(), 7.0)
    field = Field(bits=12, sites=sites)
    scales = _through(one, field, {}, rotated=rotated, part="measure").exponents
    assert scales.keys() == {"step/w"}
    if not rotated:
        weighed = values * (one.terms["step"].weights.numpy() / 7.0)[:, None]
        assert scales["step/w"] == exponent(float(np.abs(weighed).max()))
    found = _through(one, field, scales, rotated=rotated, rounding=rounding)
    assert found.clipped == 0
    assert found.exponents == scales


def test_the_pass_that_measures_sends_no_value() -> None:
    one = _of({"w": torch.tensor([[3.0, -0.1], [0.2, 0.1]]), "b": torch.zeros(2, 3)})
    layout = layout_of(one, Field(bits=16, sites=2), part="measure")
    digits = _digits(one, 0, layout, Field(bits=16, sites=2), {})
    assert np.flatnonzero(digits).tolist() == [2 + 40, 64]  # ceil(log2(3)) = 2, and nothing but zeros
    found = _through(one, Field(bits=16, sites=2), {}, part="measure")
    assert (found.arrays, found.exponents, found.entries) == ({}, {"step/w": 2, "step/b": -40}, 0)


# ------------------------------------------------------------------------------------------------------------ figures


@given(
    figures=st.lists(
        st.lists(st.floats(-(2.0**50), 2.0**50, allow_nan=False), min_size=4, max_size=4), min_size=1, max_size=100
    ),
    bits=st.sampled_from([8, 12, 16, 24]),
)
@settings(max_examples=40, deadline=None)
def test_figures_add_up_exactly(figures: list[list[float]], bits: int) -> None:
    one = _of({"loss": torch.tensor(figures, dtype=torch.float64)}, exact=True)
    found = _through(one, Field(bits=bits, sites=len(figures)), {})
    for column, value in enumerate(found.arrays["step/loss"].tolist()):
        exact = sum((Fraction(round(Fraction(row[column]) * 2**64), 2**64) for row in figures), Fraction(0))
        assert value == float(exact)
    assert float(found.arrays["step/.weight"]) == len(figures)
    assert (found.exponents, found.clipped, found.entries) == ({}, 0, 0)


def test_figures_of_any_dtype_and_size_beyond_a_piece() -> None:
    rows = torch.arange(2 * 5000).reshape(2, 50, 100)
    one = _of({"rows": rows, "loss": rows.float() / 8, "half": (rows % 100).half()}, exact=True)
    found = _through(one, Field(bits=16, sites=2), {}).arrays
    assert torch.equal(found["step/rows"], rows.sum(0).double())
    assert torch.equal(found["step/loss"], (rows.float() / 8).sum(0))
    assert torch.equal(found["step/half"], (rows % 100).half().sum(0))


def test_a_figure_too_large_is_named() -> None:
    one = _of({"loss": torch.tensor([[1.0, -(2.0**61)]], dtype=torch.float64)}, exact=True)
    field = Field(bits=16, sites=2)
    with pytest.raises(MessageError, match=r"'step/loss' holds -2.3\d+e\+18"):
        _digits(one, 0, layout_of(one, field, part="values"), field, {})
    assert _through(one, Field(bits=16, sites=1), {}).arrays["step/loss"].tolist() == [1.0, -(2.0**61)]


# ------------------------------------------------------------------------------------------------------------ rotation


@pytest.mark.parametrize("size", [1, 7, 8, 100, 2**16, 2**16 + 9, 150_001])
def test_rotated_sums_come_back(size: int) -> None:
    torch.manual_seed(size)
    values = torch.randn(3, size)
    one = _of({"w": values}, [1.0, 2.0, 3.0], 3.0)
    field = Field(bits=16, sites=3)
    scales = _through(one, field, {}, rotated=True, part="measure").exponents
    found = _through(one, field, scales, rotated=True)
    exact = (values.double() * torch.tensor([1.0, 2.0, 3.0]).double()[:, None] / 3.0).sum(0)
    # the rotation keeps norms: the error's root mean square is bounded as one entry's is
    off = (found.arrays["step/w"].double() - exact).square().mean().sqrt()
    assert float(off) <= 1.5 * quantum(scales["step/w"], 16) + 1e-6


def test_rotation_makes_a_spiky_array_cheaper() -> None:
    values = torch.zeros(1, 4096)
    values[0, ::512] = 1.0
    values[0] += 0.001 * torch.sin(torch.arange(4096.0))
    field, errors = Field(bits=8, sites=1), {}
    for rotated in (False, True):
        scales = _through(_of({"w": values}), field, {}, rotated=rotated, part="measure").exponents
        found = _through(_of({"w": values}), field, scales, rotated=rotated)
        errors[rotated] = float((found.arrays["step/w"] - values[0]).square().mean().sqrt())
    assert errors[True] < errors[False]


# ------------------------------------------------------------------------------------------------------------ boundaries


@pytest.mark.parametrize("rotated", [False, True])
def test_blocks_may_cut_anything_anywhere(rotated: bool) -> None:
    torch.manual_seed(0)
    one = _of({"w": torch.randn(2, BLOCK - 10), "b": torch.randn(2, 3), "v": torch.randn(2, BLOCK + 1)})
    field, scales = Field(bits=16, sites=2), {"step/w": 3, "step/b": 3, "step/v": 3}
    layout = layout_of(one, field, part="values", rotated=rotated)
    sums = sum(_digits(one, k, layout, field, scales).astype(np.uint64) for k in range(2))
    whole = _decoded(sums, layout, field, scales, 2)
    for step in (1009, 7919, len(sums)):
        cut = _decoded(sums, layout, field, scales, 2, step)
        assert cut.exponents == whole.exponents
        assert all(torch.equal(cut.arrays[name], value) for name, value in whole.arrays.items())
    plain = weighed_sum(one.terms["step"])
    assert torch.allclose(whole.arrays["step/v"], plain["v"], atol=4 * 40 * quantum(3, 16))


def test_sites_in_any_order_give_the_same_bits() -> None:
    torch.manual_seed(1)
    one = _of({"w": torch.randn(7, 50)})
    field, scales = Field(bits=16, sites=7), {"step/w": 3}
    layout = layout_of(one, field, part="values")
    digits = [_digits(one, k, layout, field, scales).astype(np.uint64) for k in range(7)]
    forward, backward = sum(digits), sum(reversed(digits))
    assert torch.equal(
        _decoded(forward, layout, field, scales, 7).arrays["step/w"],
        _decoded(backward, layout, field, scales, 7).arrays["step/w"],
    )


# ------------------------------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("weight", [1.0, 0.0])
def test_non_finite_values_are_named(bad: float, exact: bool, weight: float) -> None:
    one = _of({"w": torch.tensor([[0.0, bad]])}, [weight], exact=exact)
    field = Field(bits=16, sites=2)
    with pytest.raises(MessageError, match="non-finite value in 'step/w'"):
        _digits(one, 0, layout_of(one, field, part="values"), field, {"step/w": 0})


@pytest.mark.parametrize("weight", [7.5, -1.0, math.nan])
def test_a_weight_beyond_its_maximum_is_named(weight: float) -> None:
    one = _of({"w": torch.zeros(1, 2)}, [weight], 7.0)
    field = Field(bits=16, sites=2)
    with pytest.raises(MessageError, match="term 'step' weighs"):
        _digits(one, 0, layout_of(one, field, part="values"), field, {"step/w": 0})


@pytest.mark.parametrize(
    "scales", [{}, {"step/v": 0}, {"step/w": 121}, {"step/w": 0.5}, {"step/w": True}, {"step/w": -(10**9)}]
)
def test_a_scale_that_is_absent_or_absurd_is_named(scales: Any) -> None:
    one = _of({"w": torch.zeros(1, 2)})
    field = Field(bits=16, sites=2)
    layout = layout_of(one, field, part="values")
    with pytest.raises(MessageError, match="scale"):
        _digits(one, 0, layout, field, scales)
    with pytest.raises(MessageError, match="scale"):
        Decoder(layout, field, scales, 1, signs=2)


def test_a_layout_of_another_contribution_is_refused() -> None:
    one, field = _of({"w": torch.zeros(1, 2)}), Field(bits=16, sites=2)
    others = [
        _of({"w": torch.zeros(1, 3)}), _of({"v": torch.zeros(1, 2)}), _of({"w": torch.zeros(1, 2), "v": torch.zeros(1, 2)}),
        Contribution(sites=("a",), terms={}),
    ]  # fmt: skip
    for other in others:
        with pytest.raises(MessageError, match="layout"):
            _digits(one, 0, layout_of(other, field, part="values"), field, {"step/w": 0, "step/v": 0})
    with pytest.raises(MessageError, match=r"privacy\.encoding\.bits"):
        _digits(one, 0, layout_of(one, Field(bits=8, sites=2), part="values"), field, {"step/w": 0})


def test_a_damaged_sum_is_refused() -> None:
    one, field, scales = _of({"w": torch.tensor([[0.5, 0.1], [0.1, 0.2]])}), Field(bits=16, sites=4), {"step/w": 0}
    layout = layout_of(one, field, part="values")
    good = sum(_digits(one, k, layout, field, scales).astype(np.uint64) for k in range(2))
    places = {entry.flat: entry.start for entry in layout.entries}
    damages = [
        ("step/.weight", 2**17, "sums to"), ("step/w", 2**17, "sums to"), ("step/.exponent/w", 1, "counts 3 sites"),
        ("step/.exponent/w", 2**16, "sums to"), (".codec/.clipped", 1, "clipped"),
    ]  # fmt: skip
    for flat, extra, words in damages:
        bad = good.copy()
        bad[places[flat]] += np.uint64(extra)
        with pytest.raises(MessageError, match=words):
            _decoded(bad, layout, field, scales, 2)
    with pytest.raises(MessageError, match="digits end within"):
        _decoded(good[:-1], layout, field, scales, 2)
    with pytest.raises(MessageError, match="more digits came"):
        _decoded(np.append(good, np.uint64(0)), layout, field, scales, 2)
    for count in (0, 5):
        with pytest.raises(MessageError, match="head-room"):
            Decoder(layout, field, scales, count, signs=2)


def test_terms_weigh_each_their_own() -> None:
    one = _of({"w": torch.tensor([[1.0], [2.0]])}, [1.0, 3.0], 4.0)
    training = Term(arrays={"rows": torch.tensor([[3], [5]])}, weights=torch.ones(2).double(), maximum=1.0, exact=True)
    one = replace(one, terms={**one.terms, "training": training})
    found = _through(one, Field(bits=16, sites=2), {"step/w": 1}).arrays
    assert list(found) == ["step/.weight", "step/w", "training/.weight", "training/rows"]
    assert float(found["step/.weight"]) == 1.0
    assert float(found["training/.weight"]) == 2.0
    assert found["training/rows"].tolist() == [8.0]
    assert float(found["step/w"]) == pytest.approx(1.75, abs=quantum(1, 16))


def _accumulating(values: NDArray[np.float64]) -> Contribution:
    sites = tuple(f"s{k}" for k in range(len(values)))
    ones = torch.ones(len(values), dtype=torch.float64)
    term = Term(arrays={"c": torch.from_numpy(values)}, weights=ones, maximum=1.0, accumulates=True)
    return Contribution(sites=sites, terms={"variate": term})


@settings(max_examples=40, deadline=None)
@given(
    bits=st.sampled_from([8, 12, 16, 24]), sites=st.integers(1, 100), exponent=st.integers(-20, 10),
    seed=st.integers(0, 10**6), rotated=st.booleans(),
)  # fmt: skip
def test_what_accumulates_is_coded_with_twice_the_bits(
    bits: int, sites: int, exponent: int, seed: int, rotated: bool
) -> None:
    values = np.random.default_rng(seed).uniform(-1.0, 1.0, (sites, 7)) * 2.0**exponent
    one = _accumulating(values)
    field = Field(bits=bits, sites=sites)
    found = _through(one, field, {"variate/c": exponent}, rotated=rotated)
    step = quantum(exponent, 2 * bits)
    rounding = 1e-15 * sites * 2.0**exponent
    assert np.abs(found.arrays["variate/c"].numpy() - values.sum(0)).max() <= sites / 2 * step + rounding
    assert (found.clipped, found.entries) == (0, sites * 7)


def test_what_accumulates_is_cut_off_at_its_bound_and_counted() -> None:
    values = np.array([[3.0, -0.25, -9.0], [0.5, 0.0, 1.0], [1.0, 1.0, 1.0]])
    found = _through(_accumulating(values), Field(bits=16, sites=3), {"variate/c": 0})
    assert found.clipped == 2
    assert found.arrays["variate/c"].numpy() == pytest.approx([2.5, 0.75, 1.0], abs=1e-8)
    assert found.exponents == {"variate/c": 4}


def test_the_range_of_what_accumulates_is_measured_unrotated() -> None:
    values = np.zeros((3, 64))
    values[0, 5] = 1.0
    layout_part = _through(_accumulating(values), Field(bits=16, sites=3), {}, part="measure", rotated=True)
    assert layout_part.exponents == {"variate/c": 0}

"""The randomised Hadamard rotation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import hadamard

from wardround.encoding import rotation


@pytest.mark.parametrize("power", range(3, 11))
def test_it_is_sylvesters_matrix_after_signs(power: int) -> None:
    size = 2**power
    rotated = np.stack([rotation.rotate(row, 0, 7, "w") for row in np.eye(size)])  # row i: the image of axis i
    signs = rotated[:, 0] * np.sqrt(size)  # the matrix's first row is all ones
    assert set(np.round(signs, 9)) == {-1.0, 1.0}
    assert np.allclose(rotated, signs[:, None] * hadamard(size) / np.sqrt(size), atol=1e-12)
    assert np.allclose(rotated @ rotated.T, np.eye(size), atol=1e-12)


@given(power=st.integers(0, 16), seed=st.integers(0, 2**63), start=st.integers(0, 2**40))
@settings(max_examples=40, deadline=None)
def test_there_and_back(power: int, seed: int, start: int) -> None:
    values = np.random.default_rng(seed).normal(size=2**power)
    there = rotation.rotate(values.copy(), start, seed, "w")
    assert np.linalg.norm(there) == pytest.approx(np.linalg.norm(values), rel=1e-12)
    assert np.allclose(rotation.restore(there, start, seed, "w"), values, atol=1e-12)


def test_short_spans_stay_as_they_are() -> None:
    for size in (1, 2, 4):
        assert rotation.rotate(np.arange(size, dtype=float), 0, 7, "w").tolist() == list(range(size))


def test_a_spike_is_spread() -> None:
    spike = np.zeros(2**16)
    spike[12345] = 1.0
    assert np.allclose(np.abs(rotation.rotate(spike, 0, 7, "w")), 2.0**-8)


def test_signs_differ_by_seed_name_and_span() -> None:
    def image(seed: int, name: str, start: int) -> tuple[float, ...]:
        return tuple(rotation.rotate(np.ones(256), start, seed, name))

    assert len({image(1, "a", 0), image(2, "a", 0), image(1, "b", 0), image(1, "a", 256)}) == 4
    assert image(1, "a", 0) == image(1, "a", 0)


@given(size=st.integers(0, 300_000))
@settings(max_examples=100, deadline=None)
def test_spans_tile_an_array(size: int) -> None:
    found = list(rotation.spans(size))
    assert [start for start, _ in found] == [0, *(stop for _, stop in found)][: len(found)]
    assert (found[-1][1] if found else 0) == size
    lengths = [stop - start for start, stop in found]
    assert all(length & (length - 1) == 0 and length <= 2**16 for length in lengths)
    assert lengths == sorted(lengths, reverse=True)
    assert sum(length < 2**16 for length in lengths) <= 16


def test_the_sum_of_rotated_is_the_rotated_sum() -> None:
    first, second = np.random.default_rng(3).normal(size=(2, 1024))
    both = rotation.rotate(first + second, 0, 7, "w")
    apart = rotation.rotate(first.copy(), 0, 7, "w") + rotation.rotate(second.copy(), 0, 7, "w")
    assert np.allclose(both, apart, atol=1e-12)

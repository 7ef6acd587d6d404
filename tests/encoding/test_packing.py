"""Digits side by side in elements."""

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from wardround.encoding.codec import BLOCK
from wardround.encoding.packing import pack, unpack
from wardround.errors import MessageError


def _blocks(digits: NDArray[np.uint32]) -> Iterator[NDArray[np.uint32]]:
    for start in range(0, len(digits), BLOCK):
        yield digits[start : start + BLOCK]


def _unpacked(elements: NDArray[np.uint64], size: int, width: int, per: int) -> NDArray[np.uint64]:
    return np.concatenate([np.zeros(0, np.uint64), *unpack(elements, size, width, per)])


def test_a_block_holds_whole_elements() -> None:
    assert all(BLOCK % per == 0 for per in range(1, 9))
    assert abs(BLOCK - 2**16) < 100


@pytest.mark.parametrize("per", range(1, 9))
@pytest.mark.parametrize("size", [0, 1, 7, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 3])
def test_every_count_and_boundary_comes_back(per: int, size: int) -> None:
    width = 64 // per
    rng = np.random.default_rng(size + per)
    digits = rng.integers(0, 2 ** min(width, 24), size, dtype=np.uint32)
    elements = pack(_blocks(digits), size, width, per)
    assert elements.shape == (-(-size // per),)
    assert np.array_equal(_unpacked(elements, size, width, per), digits)


@given(
    sites=st.integers(1, 100), bits=st.integers(8, 24), size=st.integers(1, 200), seed=st.integers(0, 2**32),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_sums_of_elements_are_sums_of_digits(sites: int, bits: int, size: int, seed: int) -> None:
    head = (sites - 1).bit_length()
    width, per = bits + head, 64 // (bits + head)
    digits = np.random.default_rng(seed).integers(0, 2**bits, (sites, size), dtype=np.uint32)
    digits[:, 0] = 2**bits - 1  # the worst case
    total = np.zeros(-(-size // per), dtype=np.uint64)
    for one in digits:
        total += pack(_blocks(one), size, width, per)
    assert np.array_equal(_unpacked(total, size, width, per), digits.sum(axis=0, dtype=np.uint64))


def test_the_first_digit_is_lowest() -> None:
    assert pack(iter([np.array([1, 2, 3], dtype=np.uint32)]), 3, 8, 2).tolist() == [1 + (2 << 8), 3]


def test_blocks_of_another_size_are_refused() -> None:
    with pytest.raises(MessageError, match="3 digits came where 4"):
        pack(iter([np.ones(3, np.uint32)]), 4, 8, 2)
    with pytest.raises(MessageError, match="5 digits came where 4"):
        pack(iter([np.ones(5, np.uint32)]), 4, 8, 2)
    with pytest.raises(MessageError, match="blocks of another size"):
        pack(iter([np.ones(2, np.uint32), np.ones(2, np.uint32)]), 4, 8, 2)


def test_elements_that_are_no_digits_are_refused() -> None:
    with pytest.raises(MessageError, match="above its digits"):
        list(unpack(np.array([2**60], dtype=np.uint64), 2, 20, 2))
    with pytest.raises(MessageError, match="hold no 4 digits"):
        list(unpack(np.zeros(3, dtype=np.uint64), 4, 20, 2))
    with pytest.raises(MessageError, match="3 digits of 22 bits"):
        list(unpack(np.zeros(3, dtype=np.uint64), 4, 22, 3))

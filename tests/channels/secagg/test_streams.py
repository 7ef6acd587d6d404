"""Masks are AES-256 in counter mode, uniform in the ring, and the same however long the vector is."""

from __future__ import annotations

import os

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import ECB
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from channels.secagg.harness import PRIME, RING
from wardround.channels.secagg.streams import BLOCK, add_masks
from wardround.errors import WardroundError

KEY = bytes(range(32))
AWKWARD = 2**61 + 1
"""Just above a power of two: nearly half of the candidates are passed over."""


def mask(length: int, modulus: int, key: bytes = KEY) -> np.ndarray:
    elements = np.zeros(length, dtype=np.uint64)
    add_masks(elements, [(key, False)], modulus)
    return elements


def test_a_stream_is_the_cipher_of_a_counter_from_zero() -> None:
    # counter mode written out: the block cipher of 0, 1, 2, ... as 128-bit big-endian numbers
    blocks = b"".join(i.to_bytes(16, "big") for i in range(BLOCK))
    expected = np.frombuffer(Cipher(AES256(KEY), ECB()).encryptor().update(blocks), dtype="<u8")
    np.testing.assert_array_equal(mask(2 * BLOCK, RING), expected)


@pytest.mark.parametrize("modulus", [3, 5, PRIME, AWKWARD, 2**62])
def test_modulo_a_prime_candidates_that_are_too_large_are_passed_over(modulus: int) -> None:
    words, bits = mask(4 * BLOCK, RING), np.uint64(2 ** (modulus - 1).bit_length() - 1)
    candidates = words & bits
    expected = candidates[candidates < modulus][: BLOCK + 1]
    np.testing.assert_array_equal(mask(BLOCK + 1, modulus), expected)


@pytest.mark.parametrize("modulus", [5, 7, 96])
def test_elements_are_uniform(modulus: int) -> None:
    counts = np.bincount(mask(200_000, modulus).astype(np.int64), minlength=modulus)
    assert len(counts) == modulus
    assert chisquare(counts).pvalue > 1e-3  # of one fixed key, so this passes always or never


@settings(max_examples=30, deadline=None)
@given(length=st.integers(0, 3 * BLOCK + 2), modulus=st.sampled_from([5, PRIME, AWKWARD, RING]), seed=st.integers(0, 9))
def test_adding_and_subtracting_cancel_and_lengths_agree(length: int, modulus: int, seed: int) -> None:
    values = np.random.default_rng(seed).integers(0, min(modulus, 2**63), length).astype(np.uint64)
    one, other = os.urandom(32), os.urandom(32)
    elements = values.copy()
    add_masks(elements, [(one, False), (other, True)], modulus)
    assert (elements.astype(object) < modulus).all()
    expected = values.astype(object) + mask(length, modulus, one) - mask(length, modulus, other).astype(object)
    np.testing.assert_array_equal(elements.astype(object), expected % modulus)
    add_masks(elements, [(other, False)], modulus)
    add_masks(elements, [(one, True)], modulus)
    np.testing.assert_array_equal(elements, values)
    longer = mask(length + 100, modulus, one)
    np.testing.assert_array_equal(longer[:length], mask(length, modulus, one))


@pytest.mark.parametrize("modulus", [0, 1, 2**62 + 1, 2**63, 2**64 + 1])
def test_other_rings_are_refused(modulus: int) -> None:
    with pytest.raises(WardroundError, match=f"modulus {modulus}"):
        add_masks(np.zeros(1, dtype=np.uint64), [], modulus)


def test_an_element_outside_the_ring_is_refused() -> None:
    with pytest.raises(WardroundError, match=f"{PRIME}, expected less"):
        add_masks(np.array([0, PRIME], dtype=np.uint64), [], PRIME)

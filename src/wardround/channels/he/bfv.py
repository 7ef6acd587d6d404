"""Encrypting and opening: what only holders of the group's key can do, and the known-answer test of a parameter set.

The secret key is derived from 64 bytes: SEAL's key generator under a generator (Blake2xb) with that seed. So a key is never
written anywhere in SEAL's form. Encryption draws its noise from the operating system's generator, as SEAL does by default.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wardround.channels.he.parameters import SPARE, Parameters, least_budget, surest_budget
from wardround.channels.he.ring import TAGS, Ring, encryption_parameters, ring_of, seal
from wardround.channels.he.tags import SumOfTags, Tags
from wardround.encoding.field import Field
from wardround.errors import ConfigError, Refused
from wardround.types import Arrays

Elements = NDArray[np.uint64]

SEED = 64
"""Bytes that a secret key is derived from."""


class Cipher:
    """The group's secret key in use.

    Args:
        ring: its parameter set.
        seed: SEED secret bytes, uniformly random or derived.
    """

    def __init__(self, ring: Ring, seed: bytes) -> None:
        api = seal()
        self.ring = ring
        secret = _secret_key(ring, seed)
        self._encryptor: Any = api.Encryptor(ring.context, secret)
        self._decryptor: Any = api.Decryptor(ring.context, secret)
        self._encoder: Any = api.BatchEncoder(ring.context)
        self._plaintext, self._ciphertext = api.Plaintext, api.Ciphertext
        self.fingerprint = _fingerprint(secret)

    def encrypt(self, elements: Elements, tags: Tags) -> Arrays:
        """A site's message.

        Args:
            elements: [n] below the modulus; they are not changed.
            tags: of this site in this exchange.
        """
        count = self.ring.count(len(elements))
        return self.ring.write(self._fresh(elements, tags, count), count, fresh=True)

    def _fresh(self, elements: Elements, tags: Tags, count: int) -> Iterator[Any]:
        block = np.zeros(self.ring.degree, dtype=np.uint64)
        plaintext = self._plaintext()
        for index in range(count):
            mine = elements[index * self.ring.slots : (index + 1) * self.ring.slots]
            block[: len(mine)] = mine
            block[len(mine) : self.ring.slots] = 0
            block[self.ring.slots :] = tags.next(1)[0]
            self._encoder.encode(block.tolist(), plaintext)
            yield self._encryptor.encrypt_symmetric(plaintext)

    def open(self, arrays: Arrays, length: int, expected: SumOfTags, summands: int) -> Elements:
        """The elements of a sum, [length].

        Args:
            arrays: the sum's message.
            length: of the elements.
            expected: the tag that the sum of the claimed members has.
            summands: how many they are.

        Raises:
            MessageError: the message is malformed.
            Refused: it is not the sum of what these members sent in this exchange, or its noise is not that of such a sum.
                Nothing is told of its content.
        """
        least = least_budget(self.ring.q_bits, self.ring.modulus, summands)
        ciphertexts = self.ring.read(arrays, length)
        elements = np.empty(length, dtype=np.uint64)
        for index, ciphertext in enumerate(ciphertexts):
            budget = self._decryptor.invariant_noise_budget(ciphertext)
            slots = self._slots(ciphertext)
            if budget < least or not np.array_equal(slots[-TAGS:], expected.next()):
                raise Refused(
                    f"ciphertext {index} of a sum is not the sum of what its {summands} members sent in this exchange: its tag "
                    f"or its noise is not theirs ({budget} bits of noise budget, at least {least} expected)"
                )
            mine = elements[index * self.ring.slots : (index + 1) * self.ring.slots]
            mine[:] = slots[: len(mine)]
        return elements

    def _slots(self, ciphertext: Any) -> Elements:
        plaintext = self._plaintext()
        self._decryptor.decrypt(ciphertext, plaintext)
        return np.array(self._encoder.decode_uint64(plaintext), dtype=np.uint64)

    def trial(self, values: Elements, summands: int) -> tuple[Elements, int]:
        """The sum of so many fresh encryptions of `values` [degree], decrypted, and the noise budget that is left."""
        plaintext, one = self._plaintext(), self._ciphertext()
        self._encoder.encode(values.tolist(), plaintext)
        total = self._ciphertext()
        self._encryptor.encrypt_symmetric(plaintext, total)
        for _ in range(summands - 1):
            self._encryptor.encrypt_symmetric(plaintext, one)
            self.ring.evaluator.add_inplace(total, one)
        return self._slots(total), self._decryptor.invariant_noise_budget(total)


@lru_cache(maxsize=32)
def check(parameters: Parameters, field: Field) -> None:
    """The known-answer test, once in a process: `field.sites` fresh encryptions of the largest digits, summed and opened.

    Half of the slots hold the largest digits, half the largest element (masked ones take any value below t).

    Raises:
        ConfigError: the sum is wrong, or SPARE bits of noise budget are not sure to be left; or the set is insecure.
    """
    ring = ring_of(parameters)
    per, width = field.per(parameters.payload), field.width
    digit = 2**field.bits - 1
    digits = sum(digit << (place * width) for place in range(per))
    values = np.full(ring.degree, ring.modulus - 1, dtype=np.uint64)
    values[::2] = digits
    found, budget = Cipher(ring, os.urandom(SEED)).trial(values, field.sites)
    budget = min(budget, surest_budget(ring.q_bits, ring.modulus, field.sites))  # a lucky trial is no proof
    summed = sum((field.sites * digit) << (place * width) for place in range(per))
    right = np.full(ring.degree, field.sites * (ring.modulus - 1) % ring.modulus, dtype=np.uint64)
    right[::2] = summed
    if not np.array_equal(found, right) or budget < SPARE:
        wrong = "is wrong" if not np.array_equal(found, right) else "may be wrong without a sign"
        raise ConfigError(
            f"BFV parameters {parameters.name}: a sum over {field.sites} sites of {field.bits} bits {wrong} ({budget} bits of "
            f"noise budget are sure to be left, expected {SPARE} or more): leave them out, and they are chosen; or take fewer "
            "bits or sites"
        )


def _secret_key(ring: Ring, seed: bytes) -> Any:
    api = seal()
    given = encryption_parameters(api, ring.parameters, ring.modulus)
    words = [int.from_bytes(seed[at : at + 8], "little") for at in range(0, SEED, 8)]
    given.set_random_generator(api.Blake2xbPRNGFactory(words))
    # of this context only the key is taken: encryption under it would repeat its noise
    return api.KeyGenerator(api.SEALContext(given, True, api.SEC_LEVEL_TYPE.TC128)).secret_key()


def _fingerprint(secret: Any) -> bytes:
    data = secret.data()
    words = np.fromiter(map(data.data, range(data.coeff_count())), dtype="<u8", count=data.coeff_count())
    return hashlib.sha256(words.tobytes()).digest()

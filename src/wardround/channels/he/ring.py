"""What sites and server share of BFV: the ring, sums of ciphertexts, and their form as arrays. Nothing here can decrypt.

A message is two arrays: `ciphertexts`, uint8, SEAL's own serialisation of one ciphertext after the other (seeded where it is
fresh, so half as long), and `lengths`, int64, their bytes. The last `TAGS` slots of each ciphertext are the sites' tags
(`wardround.channels.he.tags`); the others hold elements.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator
from functools import lru_cache
from types import ModuleType
from typing import Any

import numpy as np
import torch

from wardround.channels.he.parameters import Parameters
from wardround.channels.he.scratch import Scratch
from wardround.errors import ConfigError, MessageError, missing_extra
from wardround.types import Arrays

TAGS = 40
"""Slots of a ciphertext that are kept for tags: 3 would do against guessing, and `docs/he.md` says against what else."""
CIPHERTEXTS, LENGTHS = "ciphertexts", "lengths"
_POLYNOMIALS = 2
_WORD = 8
_HEADROOM = 2048
"""Bytes that a stored ciphertext may be longer than its residues: header, seed, and what zstd adds to what it cannot shorten."""

SealError = (RuntimeError, ValueError, IndexError, MemoryError)
"""What SEAL's C++ exceptions become."""


def seal() -> ModuleType:
    """Microsoft SEAL's own objects, as tenseal binds them.

    Raises:
        ConfigError: tenseal is not installed.
    """
    try:
        return importlib.import_module("tenseal.sealapi")
    except ModuleNotFoundError as error:
        raise missing_extra("tenseal", "he") from error


class Ring:
    """A parameter set in use.

    Raises:
        ConfigError: SEAL refuses the set, or it has less than 128 bits of security (homomorphicencryption.org, ternary
            secrets, classical attacks).
    """

    def __init__(self, parameters: Parameters) -> None:
        api = seal()
        self.parameters = parameters
        self.degree = parameters.degree
        try:
            self.modulus = _plain_modulus(api, parameters)
            given = encryption_parameters(api, parameters, self.modulus)
            self.context: Any = api.SEALContext(given, True, api.SEC_LEVEL_TYPE.TC128)
            why = "" if self.context.parameters_set() else self.context.parameters_error_message()
        except SealError as error:
            why = str(error)
        if not why and not self.context.first_context_data().qualifiers().using_batching:
            why = "the plaintext modulus has no slots"
        if not why and self.slots < 1:
            why = f"{self.degree} slots, of which {TAGS} are kept for tags"
        if why:
            raise ConfigError(
                f"BFV parameters {parameters.name}: {why}; expected 128 bits of security and {TAGS + 1} slots or more. Leave "
                "them out, and they are chosen"
            )
        level = self.context.first_context_data()
        self.level: list[int] = self.context.first_parms_id()
        self.q_bits: int = level.total_coeff_modulus_bit_count()
        self.primes = len(level.parms().coeff_modulus())
        self.evaluator: Any = api.Evaluator(self.context)
        self._new = api.Ciphertext

    @property
    def slots(self) -> int:
        """Elements of a ciphertext."""
        return self.degree - TAGS

    def count(self, length: int) -> int:
        """Ciphertexts that hold so many elements."""
        return -(-length // self.slots)

    def write(self, ciphertexts: Iterable[Any], count: int, *, fresh: bool) -> Arrays:
        """A message of `count` ciphertexts, which are made one by one.

        Args:
            ciphertexts: what has SEAL's `save`.
            count: how many there are.
            fresh: whether each is seeded, one polynomial and a seed instead of two.
        """
        longest = self.degree * _WORD * self.primes * (1 if fresh else _POLYNOMIALS) + _HEADROOM
        data = np.empty(count * longest, dtype=np.uint8)  # pages that are never written take no memory
        room = data.data
        lengths = np.zeros(count, dtype=np.int64)
        end = 0
        with Scratch() as scratch:
            for index, ciphertext in enumerate(ciphertexts):
                ciphertext.save(scratch.path)
                lengths[index] = scratch.take(room[end : end + longest])
                end += int(lengths[index])
        return {CIPHERTEXTS: torch.from_numpy(data[:end]), LENGTHS: torch.from_numpy(lengths)}

    def read(self, arrays: Arrays, length: int) -> Iterator[Any]:
        """The ciphertexts of a message of `length` elements, loaded one by one.

        Raises:
            MessageError: at the start, where the message as a whole is of another form; later, where one ciphertext is.
        """
        parts = self._parts(arrays, length)
        return self._loaded(parts)

    def _parts(self, arrays: Arrays, length: int) -> list[memoryview]:
        data, lengths = arrays.get(CIPHERTEXTS), arrays.get(LENGTHS)
        count = self.count(length)
        if data is None or data.dtype != torch.uint8 or data.dim() != 1:
            raise MessageError(f"array '{CIPHERTEXTS}' is {_form(data)}, expected torch.uint8 of one axis")
        if lengths is None or lengths.dtype != torch.int64 or tuple(lengths.shape) != (count,):
            raise MessageError(f"array '{LENGTHS}' is {_form(lengths)}, expected torch.int64 [{count}]")
        longest = self.degree * _WORD * self.primes * _POLYNOMIALS + _HEADROOM
        sizes: list[int] = lengths.tolist()
        if any(not 0 < size <= longest for size in sizes) or sum(sizes) != len(data):
            raise MessageError(
                f"{count} ciphertexts of {sum(sizes)} bytes together, and {len(data)} came: expected 1 to {longest} bytes each, "
                "and all of them; the message was cut off, or is of another parameter set"
            )
        whole = data.contiguous().numpy().data
        ends = np.cumsum(sizes).tolist()
        return [whole[end - size : end] for size, end in zip(sizes, ends, strict=True)]

    def _loaded(self, parts: list[memoryview]) -> Iterator[Any]:
        with Scratch() as scratch:
            for index, part in enumerate(parts):
                scratch.put(part)
                ciphertext = self._new()
                try:
                    ciphertext.load(self.context, scratch.path)
                except SealError as error:
                    raise MessageError(
                        f"ciphertext {index} of {len(parts)} is none of {self.parameters.name}: {error}"
                    ) from error
                if (
                    ciphertext.size() != _POLYNOMIALS
                    or ciphertext.is_ntt_form()
                    or ciphertext.is_transparent()
                    or ciphertext.parms_id() != self.level
                ):
                    raise MessageError(f"ciphertext {index} of {len(parts)} is no fresh ciphertext or sum of such")
                yield ciphertext

    def plus(self, one: Any, other: Any) -> Any:
        """A new ciphertext of the sum. Raises MessageError where the two cancel out."""
        total = self._new()
        try:
            self.evaluator.add(one, other, total)
        except SealError as error:
            raise MessageError(f"a ciphertext cannot be added: {error}") from error
        return total

    def minus(self, one: Any, other: Any) -> Any:
        """A new ciphertext of the difference: exactly what was before `other` was added."""
        rest = self._new()
        self.evaluator.sub(one, other, rest)
        return rest


@lru_cache(maxsize=8)
def ring_of(parameters: Parameters) -> Ring:
    """The ring, made once in a process. Raises ConfigError as `Ring` does."""
    return Ring(parameters)


def encryption_parameters(api: ModuleType, parameters: Parameters, modulus: int) -> Any:
    """SEAL's object for a parameter set."""
    given = api.EncryptionParameters(api.SCHEME_TYPE.BFV)
    given.set_poly_modulus_degree(parameters.degree)
    given.set_coeff_modulus(api.CoeffModulus.Create(parameters.degree, list(parameters.coefficient)))
    given.set_plain_modulus(api.Modulus(modulus))
    return given


def _plain_modulus(api: ModuleType, parameters: Parameters) -> int:
    """The least prime t = 1 mod 2n above 2^(plain - 1), so that t takes nothing of the noise's room that it does not use."""
    step = 2 * parameters.degree
    if step < 4 or step & (step - 1) or not step.bit_length() < parameters.plain <= 60:
        raise ValueError(
            "expected a degree that is a power of two, and a plaintext modulus above twice it, of 60 bits or fewer"
        )
    least = 2 ** (parameters.plain - 1)
    for candidate in range(least + 1, 2 * least, step):
        if api.Modulus(candidate).is_prime():
            return candidate
    raise ValueError("there is no such prime plaintext modulus")


def _form(value: torch.Tensor | None) -> str:
    return "none" if value is None else f"{value.dtype} {list(value.shape)}"

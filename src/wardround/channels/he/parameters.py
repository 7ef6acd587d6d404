"""Which ring of BFV carries a sum: its degree, ciphertext modulus and plaintext modulus.

BFV (Brakerski 2012; Fan and Vercauteren 2012, https://eprint.iacr.org/2012/144) encrypts n integers modulo a prime t in one
ciphertext modulo q. A fresh symmetric ciphertext carries noise of variance s^2 = 10.5 + 1/12 a coefficient (SEAL's centred
binomial, and rounding), a sum of m of them m s^2, and it decrypts while the noise is below q / (2 t). A sum is taken to have
less than 7.5 sqrt(m) s, so that

    log2 q >= log2 t + 1 + log2(7.5 s sqrt(m)) + 2

leaves 2 bits of noise budget. What a parameter costs is the size of a ciphertext, as SEAL stores it, over the digits in it.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass

from wardround.encoding.field import Field
from wardround.errors import ConfigError
from wardround.types import Json

SPARE = 2
"""Bits of noise budget that must be left in the largest sum."""
MOST_PLAIN = 60
"""Bits of the largest plaintext modulus that SEAL takes."""
_DEVIATION = math.sqrt(10.5 + 1 / 12)
_WIDEST = 21.5
"""The largest noise of one fresh coefficient: the binomial is of 42 coins, and rounding adds a half."""

_DEGREE = 4096
_STORED: dict[tuple[int, ...], float] = {
    (32,): 33.1, (40,): 48.3, (44,): 53.6, (48,): 55.0, (50,): 57.8, (52,): 59.7, (54,): 60.5, (56,): 60.8, (57,): 61.6,
    (58,): 62.5, (59,): 63.1, (60,): 64.4,
    (32, 29): 68.3, (32, 31): 66.9, (48, 17): 78.3, (48, 18): 79.6, (43, 24): 80.9, (46, 24): 82.0, (48, 23): 82.4,
}  # fmt: skip
"""Bits of the primes of q -> bits that a slot of a fresh ciphertext takes on the wire, as measured at degree 4096: SEAL keeps
64 bits a residue and compresses with zstd, which finds whole bytes of zeros and little else."""


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """One parameter set.

    Attributes:
        degree: n, the degree of the ring and the slots of a ciphertext; a power of two.
        coefficient: bits of the primes of the coefficient modulus, in SEAL's order: where q is still above t without the last
            one, SEAL keeps the last for keys, and ciphertexts do without it.
        plain: bits of the plaintext modulus t, the least prime of so many bits with t = 1 mod 2n.
    """

    degree: int
    coefficient: tuple[int, ...]
    plain: int

    @property
    def payload(self) -> int:
        """Bits that every slot holds: 2^payload < t."""
        return self.plain - 1

    @property
    def name(self) -> str:
        """For people: `n=4096 [57] t47`."""
        return f"n={self.degree} {list(self.coefficient)} t{self.plain}"

    def to_json(self) -> Json:
        """As JSON."""
        return {**asdict(self), "coefficient": list(self.coefficient)}

    @classmethod
    def from_options(cls, given: Json) -> Parameters:
        """A set that a user wrote.

        Raises:
            ConfigError: it is not three numbers of this form.
        """
        kinds = {"degree": int, "coefficient": list, "plain": int}
        if (
            not isinstance(given, dict)
            or {name: type(value) for name, value in given.items()} != kinds
            or not all(type(bits) is int for bits in given["coefficient"])
        ):
            raise ConfigError(
                f"BFV parameters {given!r}: expected degree, coefficient and plain, as {{degree: 4096, coefficient: [59, 50], "
                "plain: 47}; or leave them out, and they are chosen"
            )
        return cls(degree=given["degree"], coefficient=tuple(given["coefficient"]), plain=given["plain"])

    def digest(self) -> str:
        """SHA-256 of the set, 64 hexadecimal digits."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()


def choose(field: Field) -> Parameters:
    """The set whose ciphertexts are shortest for digits of this width.

    Raises:
        ConfigError: the digits of so many sites fit none.
    """
    margin = 1 + math.log2(largest_noise(field.sites)) + SPARE
    fitting: list[tuple[float, tuple[int, ...], int]] = []
    for primes, stored in _STORED.items():
        payload = min(math.floor(sum(primes) - margin), MOST_PLAIN - 1)
        per = payload // field.width
        if per and (len(primes) == 1 or per * field.width >= primes[0]):  # else SEAL keeps the last prime for keys
            fitting.append((stored / per, primes, per))
    if not fitting:
        raise ConfigError(
            f"{field.bits} bits a value and {field.sites} sites need {field.width} bits of sum, and no parameter set of BFV "
            "holds that: take fewer bits, or fewer sites"
        )
    _, primes, per = min(fitting)
    return Parameters(degree=_DEGREE, coefficient=primes, plain=per * field.width + 1)


def largest_noise(summands: int) -> float:
    """What no coefficient's noise in a sum of fresh ciphertexts exceeds: 7.5 deviations (a chance of 7e-14), or all there is."""
    return min(_WIDEST * summands, 7.5 * _DEVIATION * math.sqrt(summands))


def surest_budget(q_bits: int, modulus: int, summands: int) -> int:
    """The invariant noise budget, in the whole bits that SEAL gives, below which no sum of fresh ciphertexts falls."""
    return q_bits - 2 - math.floor(math.log2(modulus * largest_noise(summands)))


def least_budget(q_bits: int, modulus: int, summands: int) -> int:
    """The noise budget that is demanded of a sum: what one of so many fresh ciphertexts has for sure, and SPARE at least."""
    return max(SPARE, surest_budget(q_bits, modulus, summands))

"""The width of one digit: value bits, and head-room for a sum over sites."""

from __future__ import annotations

import math
from dataclasses import dataclass

from wardround.errors import ConfigError

LEAST_BITS, MOST_BITS = 8, 24


@dataclass(frozen=True, kw_only=True)
class Field:
    """How wide a digit is.

    Attributes:
        bits: of one site's digit, so that it is below 2^bits; 8 to 24.
        sites: the most sites whose digits are summed.
    """

    bits: int
    sites: int

    def __post_init__(self) -> None:
        if not LEAST_BITS <= self.bits <= MOST_BITS:
            raise ConfigError(f"{self.bits} bits a value: expected {LEAST_BITS} to {MOST_BITS}")
        if self.sites < 1:
            raise ConfigError(f"a sum over {self.sites} sites: expected 1 or more")

    @property
    def head(self) -> int:
        """Bits of head-room: a sum of `sites` digits is below 2^(bits + head)."""
        return math.ceil(math.log2(self.sites))

    @property
    def width(self) -> int:
        """Bits that a sum takes."""
        return self.bits + self.head

    def per(self, bits: int) -> int:
        """Digits whose sums fit side by side in an element of so many bits.

        Raises:
            ConfigError: not even one does.
        """
        if self.width > bits:
            raise ConfigError(
                f"{self.bits} bits a value and {self.sites} sites need {self.width} bits of sum, and {bits} are there: "
                "take fewer bits, or fewer sites"
            )
        return bits // self.width

"""The width of a digit."""

import pytest

from wardround.encoding.field import Field
from wardround.errors import ConfigError


@pytest.mark.parametrize(("sites", "head"), [(1, 0), (2, 1), (3, 2), (4, 2), (100, 7), (128, 7), (129, 8), (1000, 10)])
def test_a_sum_over_sites_fits_its_width(sites: int, head: int) -> None:
    field = Field(bits=16, sites=sites)
    assert field.head == head
    assert sites * (2**field.bits - 1) < 2**field.width


@pytest.mark.parametrize(
    ("bits", "sites", "per"), [(16, 100, 2), (8, 100, 4), (8, 2, 7), (24, 1000, 1), (8, 1, 8), (12, 16, 4)]
)
def test_digits_in_a_word(bits: int, sites: int, per: int) -> None:
    assert Field(bits=bits, sites=sites).per(64) == per


@pytest.mark.parametrize(("bits", "sites"), [(7, 3), (25, 3), (16, 0)])
def test_other_widths_are_refused(bits: int, sites: int) -> None:
    with pytest.raises(ConfigError):
        Field(bits=bits, sites=sites)


def test_an_element_too_narrow_is_refused() -> None:
    with pytest.raises(ConfigError, match="need 23 bits"):
        Field(bits=16, sites=100).per(22)

import numpy as np
import pytest
from pydantic import ValidationError

from data.partitions.pools import pool, sizes
from wardround.config.job import PartitionSpec
from wardround.data.partitions.partition import partition
from wardround.errors import DataError


def _sizes(rows: int = 1000, *, seed: int = 0, sites: int = 5, min_rows: int = 10, **quantity: object) -> list[int]:
    spec = PartitionSpec(kind="quantity", sites=sites, min_rows=min_rows, quantity=quantity)
    return sizes(partition({"p": pool(rows)}, spec, seed=seed, classes=2))


def test_power_law_of_exponent_one_is_zipf_s() -> None:
    # 1 + 1/2 + 1/3 + 1/4 = 25/12, so 1200 patients are 576, 288, 192, 144
    assert sorted(_sizes(1200, sites=4)) == [144, 192, 288, 576]
    assert _sizes(1200, sites=4) != _sizes(1200, sites=4, seed=1)


def test_exponent_zero_is_even() -> None:
    assert _sizes(exponent=0.0) == [200] * 5


def test_the_tail_is_lifted_to_the_minimum_and_the_rest_keeps_its_proportions() -> None:
    # shares 1, 1/4, 1/9, 1/16 of 200: the last two would have 15.6 and 8.8, so they get 20 and the first two share
    # 160 as 4 to 1
    assert sorted(_sizes(200, sites=4, exponent=2.0, min_rows=20)) == [20, 20, 32, 128]
    assert _sizes(40, sites=4, exponent=3.0, min_rows=10) == [10] * 4


def test_proportions_are_met_in_order() -> None:
    assert _sizes(1000, law="proportions", proportions=(5, 3, 1, 0.5, 0.5)) == [500, 300, 100, 50, 50]


def test_dirichlet_sizes_have_the_variance_of_their_law() -> None:
    # Var of one of 4 shares under Dirichlet(2) is (1/4)(3/4) / (4 x 2 + 1) = 0.0208
    shares = (
        np.array([_sizes(seed=seed, sites=4, min_rows=1, law="dirichlet", alpha=2.0) for seed in range(200)]) / 1000
    )
    assert shares.mean() == pytest.approx(0.25)
    assert shares.var() == pytest.approx(0.0208, rel=0.2)


def test_labels_are_those_of_the_pool() -> None:
    spec = PartitionSpec(kind="quantity", sites=4, quantity={"exponent": 1.0})
    sites = partition({"p": pool(12_000)}, spec, seed=0, classes=2).values()
    # the smallest site has 1440 patients: a share of 0.5 +- 0.013
    assert all(abs(site.labels.mean() - 0.5) < 0.05 for site in sites)


@pytest.mark.parametrize(
    ("quantity", "message"),
    [
        ({"law": "proportions", "proportions": (96, 1, 1, 1, 1)}, "no draw of 1 gave .*make the smallest of"),
        ({"law": "dirichlet", "alpha": 0.01}, r"no draw of 1000 .*raise partition\.quantity\.alpha \(it is 0\.01\)"),
    ],
)
def test_refuses_sites_that_are_too_small(quantity: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        _sizes(100, **quantity)


@pytest.mark.parametrize(
    ("quantity", "message"),
    [
        ({"law": "proportions"}, "needs one number a site"),
        ({"proportions": (1, 2)}, "other laws need none"),
        ({"law": "proportions", "proportions": (1, 2)}, "has 2 numbers for sites=5"),
        ({"law": "proportions", "proportions": (1, 0, 1, 1, 1)}, "greater than 0"),
    ],
)
def test_refuses_proportions_that_do_not_fit(quantity: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        PartitionSpec(kind="quantity", quantity=quantity)
